//! Users and groups of the sandbox, as its own files name them.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;

use crate::sys;

/// More of such a file is not read: a guest wrote it.
const LONGEST: u64 = 1 << 20;

/// Whom a program runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Groups besides, unless one was named.
    pub(crate) groups: Vec<u32>,
    pub(crate) name: String,
    pub(crate) home: String,
}

impl Identity {
    /// Finds `user` or `user:group`, each a name or a number.
    pub(crate) fn find(wanted: &str) -> io::Result<Self> {
        find(wanted, &read("/etc/passwd"), &read("/etc/group"))
    }
}

/// The lines of a file; none where there is no such file, or something else in its place.
fn read(path: &str) -> String {
    let mut text = Vec::new();
    let file = OpenOptions::new().read(true).custom_flags(sys::O_NONBLOCK).open(path);
    if let Ok(file) = file
        && file.metadata().is_ok_and(|metadata| metadata.is_file())
    {
        let _ = file.take(LONGEST).read_to_end(&mut text);
    }
    String::from_utf8_lossy(&text).into_owned()
}

fn find(wanted: &str, users: &str, groups: &str) -> io::Result<Identity> {
    let missing = || io::Error::from_raw_os_error(2);
    let (user, group) = match wanted.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (wanted, None),
    };
    let is_it = |fields: &&Vec<&str>| fields[0] == user || fields[2] == user;
    let entries: Vec<Vec<&str>> = entries(users, 7).collect();
    let by_name = entries.iter().find(|fields| fields[0] == user);
    let mut identity = match by_name.or_else(|| entries.iter().find(is_it)) {
        Some(fields) => Identity {
            uid: fields[2].parse().map_err(|_| missing())?,
            gid: fields[3].parse().map_err(|_| missing())?,
            groups: Vec::new(),
            name: fields[0].to_owned(),
            home: if fields[5].is_empty() { "/".to_owned() } else { fields[5].to_owned() },
        },
        // A number need not be anybody's.
        None => Identity {
            uid: user.parse().map_err(|_| missing())?,
            gid: 0,
            groups: Vec::new(),
            name: user.to_owned(),
            home: "/".to_owned(),
        },
    };
    match group {
        Some(group) => identity.gid = group_id(group, groups).ok_or_else(missing)?,
        None => {
            let member = |fields: &Vec<&str>| fields[3].split(',').any(|it| it == identity.name);
            let of = self::entries(groups, 4).filter(member);
            identity.groups = of.filter_map(|fields| fields[2].parse().ok()).collect();
        }
    }
    Ok(identity)
}

fn group_id(group: &str, groups: &str) -> Option<u32> {
    let named = entries(groups, 4).find(|fields| fields[0] == group);
    named.map_or(group, |fields| fields[2]).parse().ok()
}

/// Lines with at least this many fields.
fn entries(text: &str, fields: usize) -> impl Iterator<Item = Vec<&str>> {
    let split = text.lines().map(|line| line.split(':').collect::<Vec<_>>());
    split.filter(move |split| split.len() >= fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    const USERS: &str = "root:x:0:0:root:/root:/bin/sh\nbroken\nweb:x:33:34::/srv:/bin/false\n\
                         1000:x:7:7::/odd:/bin/sh\n";
    const GROUPS: &str = "root:x:0:\nweb:x:34:\nlog:x:4:web,other\nodd:x:x:web\n";

    #[test]
    fn users_are_found_by_name_and_number() {
        let found = |wanted| find(wanted, USERS, GROUPS).map(|it| (it.uid, it.gid, it.groups));
        assert_eq!(found("web").unwrap(), (33, 34, vec![4]));
        assert_eq!(found("33").unwrap(), (33, 34, vec![4]));
        assert_eq!(found("web:log").unwrap(), (33, 4, vec![]));
        assert_eq!(found("web:99").unwrap(), (33, 99, vec![]));
        assert_eq!(found("web:").unwrap(), (33, 34, vec![4]));
        assert_eq!(found("5000").unwrap(), (5000, 0, vec![]));
        assert_eq!(found("1000").unwrap().0, 7, "a name that looks like a number is a name");
        for missing in ["nobody", "web:nothing", "", ":", "-1", "99999999999"] {
            assert!(found(missing).is_err(), "{missing:?}");
        }
        assert_eq!(find("5000", "", "").unwrap().home, "/");
    }
}
