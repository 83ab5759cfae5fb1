//! The base of `devbox:1`: this machine's own `/usr`, with an `/etc` of named files.
//!
//! What a sandbox sees of the host is listed here, never masked afterwards: a root
//! made from nothing, links into `/usr`, and the configuration that programs in
//! `/usr` need. Homes, keys, logs and host names were never in it.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

/// Raised when what is built below changes.
const FORMAT: u32 = 1;

const DIRECTORIES: [(&str, u32); 25] = [
    (".cos", 0o755),
    ("boot", 0o755),
    ("dev", 0o755),
    ("etc", 0o755),
    ("home", 0o755),
    ("media", 0o755),
    ("mnt", 0o755),
    ("opt", 0o755),
    ("proc", 0o555),
    ("root", 0o700),
    ("run", 0o755),
    ("srv", 0o755),
    ("sys", 0o555),
    ("tmp", 0o1777),
    ("usr", 0o755),
    ("var", 0o755),
    ("var/cache", 0o755),
    ("var/lib", 0o755),
    ("var/local", 0o755),
    ("var/log", 0o755),
    ("var/mail", 0o755),
    ("var/opt", 0o755),
    ("var/spool", 0o755),
    ("var/tmp", 0o1777),
    ("workspace", 0o755),
];

const LINKS_INTO_USR: [&str; 6] = ["bin", "sbin", "lib", "lib32", "lib64", "libx32"];

/// Files and directories of the host's `/etc` that are copied. None of them holds
/// secrets by its purpose; what could (shadow, ssh, sudoers, machine-id, private
/// keys, package credentials, proxies) is not here.
const ETC: &[&str] = &[
    "alternatives",
    "apt/sources.list",
    "apt/sources.list.d",
    "apt/trusted.gpg.d",
    "bash.bashrc",
    "bash_completion.d",
    "ca-certificates",
    "ca-certificates.conf",
    "debconf.conf",
    "debian_version",
    "deluser.conf",
    "adduser.conf",
    "dpkg",
    "fonts",
    "gai.conf",
    "host.conf",
    "inputrc",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "locale.alias",
    "locale.conf",
    "locale.gen",
    "localtime",
    "login.defs",
    "magic",
    "magic.mime",
    "mailcap",
    "mime.types",
    "nanorc",
    "networks",
    "nsswitch.conf",
    "os-release",
    "pam.conf",
    "pam.d",
    "perl",
    "profile",
    "profile.d",
    "protocols",
    "python3",
    "rpc",
    "security/limits.conf",
    "security/pam_env.conf",
    "services",
    "shells",
    "skel",
    "ssl/certs",
    "ssl/openssl.cnf",
    "terminfo",
    "timezone",
    "vim",
    "xattr.conf",
];

/// Where a base lies, relative to the data directory. It holds `fs`, and for
/// ordinary users `usr`, a copy of the host's directory tree without files.
pub(crate) fn ensure_host_base(data_dir: &Path, privileged: bool) -> io::Result<String> {
    let relative = format!("cache/bases/host-{:016x}", fingerprint(privileged));
    let dir = data_dir.join(&relative);
    if dir.is_dir() {
        return Ok(relative);
    }
    let parent = data_dir.join("cache/bases");
    fs::create_dir_all(&parent)?;
    let fresh = tempfile::Builder::new().prefix(".new-").tempdir_in(&parent)?;
    fs::set_permissions(fresh.path(), fs::Permissions::from_mode(0o755))?;
    build(&fresh.path().join("fs"))?;
    if !privileged {
        copy_directories(Path::new("/usr"), &fresh.path().join("usr"))?;
    }
    match fs::rename(fresh.path(), &dir) {
        Ok(()) => drop(fresh.keep()),
        // Another engine was faster, from the same host.
        Err(_) if dir.is_dir() => {}
        Err(error) => return Err(error),
    }
    Ok(relative)
}

/// Changes when the host's packages or accounts do.
fn fingerprint(privileged: bool) -> u64 {
    let mut hasher = DefaultHasher::new();
    (FORMAT, privileged).hash(&mut hasher);
    let watched = ["/etc/passwd", "/etc/ld.so.cache", "/etc/os-release", "/var/lib/dpkg/status"];
    for path in watched {
        let changed = fs::metadata(path).map(|metadata| (metadata.mtime(), metadata.size())).ok();
        changed.hash(&mut hasher);
    }
    hasher.finish()
}

fn build(root: &Path) -> io::Result<()> {
    for (name, mode) in DIRECTORIES.iter().chain(&[("", 0o755)]) {
        fs::create_dir_all(root.join(name))?;
        fs::set_permissions(root.join(name), fs::Permissions::from_mode(*mode))?;
    }
    for name in LINKS_INTO_USR {
        if Path::new("/usr").join(name).is_dir() {
            symlink(format!("usr/{name}"), root.join(name))?;
        }
    }
    symlink("/run", root.join("var/run"))?;
    symlink("/run/lock", root.join("var/lock"))?;
    symlink("/proc/self/mounts", root.join("etc/mtab"))?;
    for name in ETC {
        copy(&Path::new("/etc").join(name), &root.join("etc").join(name))?;
    }
    write_accounts(&root.join("etc"))?;
    copy(Path::new("/var/lib/dpkg"), &root.join("var/lib/dpkg"))?;
    for name in ["apt/lists/partial", "misc"] {
        fs::create_dir_all(root.join("var/lib").join(name))?;
    }
    fs::create_dir_all(root.join("var/cache/apt/archives/partial"))
}

/// System accounts of the host, so that its packages find theirs; people are left
/// out, and nobody has a password.
fn write_accounts(etc: &Path) -> io::Result<()> {
    let passwd = system_entries("/etc/passwd", "root:x:0:0:root:/root:/bin/bash\n")?;
    let group = system_entries("/etc/group", "root:x:0:\n")?;
    let locked = |accounts: &str, rest: &str| -> String {
        let names = accounts.lines().filter_map(|line| line.split(':').next());
        names.map(|name| format!("{name}:*:{rest}\n")).collect()
    };
    fs::write(etc.join("shadow"), locked(&passwd, "19000:0:99999:7:::"))?;
    fs::write(etc.join("gshadow"), locked(&group, ":"))?;
    for name in ["shadow", "gshadow"] {
        fs::set_permissions(etc.join(name), fs::Permissions::from_mode(0o640))?;
    }
    fs::write(etc.join("passwd"), passwd)?;
    fs::write(etc.join("group"), group)
}

fn system_entries(path: &str, fallback: &str) -> io::Result<String> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(fallback.to_owned()),
        Err(error) => return Err(error),
    };
    Ok(keep_system_entries(&text))
}

/// Lines whose id is below 1000, or nobody's; members of groups are people, so the
/// last field of a group goes. Root's entry is the usual one, whatever the host's is.
fn keep_system_entries(text: &str) -> String {
    let mut kept = String::new();
    for line in text.lines() {
        let fields: Vec<&str> = line.split(':').collect();
        let id = fields.get(2).and_then(|id| id.parse::<u32>().ok());
        let Some(id) = id.filter(|id| *id < 1000 || *id == 65534) else { continue };
        match (fields.len(), id) {
            (7, 0) => kept.push_str("root:x:0:0:root:/root:/bin/bash"),
            (7, _) => kept.push_str(&format!("{}:x:{}", fields[0], fields[2..].join(":"))),
            (4, _) => kept.push_str(&format!("{}:x:{}:", fields[0], fields[2])),
            _ => continue,
        }
        kept.push('\n');
    }
    kept
}

/// Copies files, directories and links; what is missing or unreadable is left out,
/// for hosts differ, and so does what an ordinary user may read.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let Ok(metadata) = fs::symlink_metadata(from) else { return Ok(()) };
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent)?;
    }
    if metadata.is_symlink() {
        return symlink(fs::read_link(from)?, to);
    }
    if metadata.is_dir() {
        let Ok(entries) = fs::read_dir(from) else { return Ok(()) };
        fs::create_dir_all(to)?;
        for entry in entries {
            let entry = entry?;
            copy(&entry.path(), &to.join(entry.file_name()))?;
        }
        return fs::set_permissions(to, metadata.permissions());
    }
    if !metadata.is_file() {
        return Ok(());
    }
    match fs::copy(from, to) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        other => other.map(drop),
    }
}

/// The directories of a tree without their files: an ordinary user cannot write into
/// directories that belong to host root, but can into these, laid over them.
fn copy_directories(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    let Ok(entries) = fs::read_dir(from) else { return Ok(()) };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            copy_directories(&entry.path(), &to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_and_passwords_stay_outside() {
        let passwd = "root:$6$secret:0:0:Admin Person:/secret:/bin/zsh\n\
                      daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin\n\
                      alice:x:1000:1000:Alice:/home/alice:/bin/bash\n\
                      nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n\
                      broken\n";
        assert_eq!(
            keep_system_entries(passwd),
            "root:x:0:0:root:/root:/bin/bash\n\
             daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin\n\
             nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
        );
        assert_eq!(keep_system_entries("sudo:x:27:alice,bob\nalice:x:1000:\n"), "sudo:x:27:\n");
    }

    #[test]
    fn a_base_holds_no_host_secret() {
        let data = tempfile::tempdir().expect("directory");
        let relative = ensure_host_base(data.path(), true).expect("base");
        let root = data.path().join(&relative).join("fs");
        for absent in
            ["etc/machine-id", "etc/hostname", "etc/ssh", "etc/sudoers", "etc/ssl/private"]
        {
            assert!(!root.join(absent).exists(), "{absent}");
        }
        assert_eq!(fs::read_dir(root.join("root")).expect("root").count(), 0);
        assert_eq!(fs::read_dir(root.join("home")).expect("home").count(), 0);
        let shadow = fs::read_to_string(root.join("etc/shadow")).expect("shadow");
        assert!(shadow.lines().all(|line| line.split(':').nth(1) == Some("*")), "{shadow}");
        assert_eq!(fs::metadata(root.join("tmp")).expect("tmp").mode() & 0o7777, 0o1777);
        assert_eq!(ensure_host_base(data.path(), true).expect("again"), relative);
    }
}
