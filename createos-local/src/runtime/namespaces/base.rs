//! The base of `devbox:1`: this machine's own `/usr`, with an `/etc` of named files.
//!
//! What a sandbox sees of the host is listed here, never masked afterwards: a root
//! made from nothing, links into `/usr`, and the configuration that programs in
//! `/usr` need. Homes, keys, logs and host names were never in it, and what not
//! everybody may read on the host, nobody can inside.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode};

/// Raised when what is built below changes.
const FORMAT: u32 = 4;

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
    "X11/app-defaults",
    "alternatives",
    "apt/sources.list",
    "apt/sources.list.d",
    "apt/trusted.gpg.d",
    "bash.bashrc",
    "bash_completion.d",
    "ca-certificates",
    "ca-certificates.conf",
    "chromium.d",
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
    "xdg/openbox",
];

/// Where a base lies, relative to the data directory. It holds `fs`, and `usr`, a layer
/// over the host's: for host root it hides what is private, for ordinary users, who see
/// as little as on the host, it gives directories that they may write in.
pub(crate) fn ensure_host_base(data_dir: &Path, privileged: bool) -> io::Result<String> {
    let relative = format!("cache/bases/host-{:016x}", fingerprint(privileged));
    let dir = data_dir.join(&relative);
    if dir.is_dir() {
        return Ok(relative);
    }
    let parent = data_dir.join("cache/bases");
    fs::create_dir_all(&parent)?;
    let fresh = tempfile::Builder::new().prefix(".new-").tempdir_in(&parent)?;
    set_mode(fresh.path(), 0o755)?;
    build(&fresh.path().join("fs"))?;
    let usr = fresh.path().join("usr");
    if privileged {
        directory(&usr, 0o755)?;
        hide_private(Path::new("/usr"), &usr)?;
    } else {
        copy_directories(Path::new("/usr"), &usr)?;
    }
    finish(fresh, &dir)?;
    Ok(relative)
}

/// Where the base of imported root filesystems lies, relative to the data directory: what
/// they may lack and a machine needs.
pub(crate) fn ensure_bare_base(data_dir: &Path) -> io::Result<String> {
    const NEEDED: [(&str, u32); 8] = [
        (".cos", 0o755),
        ("dev", 0o755),
        ("etc", 0o755),
        ("proc", 0o555),
        ("root", 0o700),
        ("run", 0o755),
        ("sys", 0o555),
        ("tmp", 0o1777),
    ];
    let relative = format!("cache/bases/bare-{FORMAT}");
    if data_dir.join(&relative).is_dir() {
        return Ok(relative);
    }
    let parent = data_dir.join("cache/bases");
    fs::create_dir_all(&parent)?;
    let fresh = tempfile::Builder::new().prefix(".new-").tempdir_in(&parent)?;
    set_mode(fresh.path(), 0o755)?;
    directory(&fresh.path().join("fs"), 0o755)?;
    for (name, mode) in NEEDED {
        directory(&fresh.path().join("fs").join(name), mode)?;
    }
    finish(fresh, &data_dir.join(&relative))?;
    Ok(relative)
}

/// Puts a base in its place.
fn finish(fresh: tempfile::TempDir, dir: &Path) -> io::Result<()> {
    match fs::rename(fresh.path(), dir) {
        Ok(()) => drop(fresh.keep()),
        // Another engine was faster, from the same host.
        Err(_) if dir.is_dir() => {}
        Err(error) => return Err(error),
    }
    Ok(())
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

/// Modes are set, not asked for: the umask is not ours to choose.
fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

/// Makes a directory, and those above it that are missing.
fn directory(path: &Path, mode: u32) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        directory(parent, 0o755)?;
    }
    fs::create_dir(path)?;
    set_mode(path, mode)
}

fn write(path: &Path, mode: u32, content: &str) -> io::Result<()> {
    fs::write(path, content)?;
    set_mode(path, mode)
}

fn build(root: &Path) -> io::Result<()> {
    directory(root, 0o755)?;
    for (name, mode) in DIRECTORIES {
        directory(&root.join(name), mode)?;
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
    // How its package delivers it, not how this machine's owner has set it up.
    copy(Path::new("/usr/share/openssh/sshd_config"), &root.join("etc/ssh/sshd_config"))?;
    copy(Path::new("/var/lib/dpkg"), &root.join("var/lib/dpkg"))?;
    for name in ["var/lib/apt/lists/partial", "var/lib/misc", "var/cache/apt/archives/partial"] {
        directory(&root.join(name), 0o755)?;
    }
    Ok(())
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
    write(&etc.join("shadow"), 0o640, &locked(&passwd, "19000:0:99999:7:::"))?;
    write(&etc.join("gshadow"), 0o640, &locked(&group, ":"))?;
    write(&etc.join("passwd"), 0o644, &passwd)?;
    write(&etc.join("group"), 0o644, &group)
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

/// What everybody on the host may read: the only thing that comes in.
fn is_public(metadata: &fs::Metadata) -> bool {
    let wanted = if metadata.is_dir() { 0o005 } else { 0o004 };
    metadata.is_symlink() || metadata.mode() & wanted == wanted
}

/// Copies files, directories and links; what is missing or private is left out.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let Ok(metadata) = fs::symlink_metadata(from) else { return Ok(()) };
    if !is_public(&metadata) {
        return Ok(());
    }
    if let Some(parent) = to.parent() {
        directory(parent, 0o755)?;
    }
    if metadata.is_symlink() {
        return symlink(fs::read_link(from)?, to);
    }
    if metadata.is_dir() {
        directory(to, metadata.mode() & 0o7777)?;
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            copy(&entry.path(), &to.join(entry.file_name()))?;
        }
        return Ok(());
    }
    if !metadata.is_file() {
        return Ok(());
    }
    if from.starts_with("/etc/apt") {
        // Addresses of package sources may carry a password.
        let sources = String::from_utf8_lossy(&fs::read(from)?).into_owned();
        if sources.contains("://") {
            return write(to, 0o644, &without_passwords(&sources));
        }
    }
    fs::copy(from, to).map(drop)
}

/// Cuts `user:password@` out of every address.
fn without_passwords(text: &str) -> String {
    let mut parts = text.split("://");
    let mut kept = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(|c: char| c.is_whitespace() || c == '/').unwrap_or(part.len());
        let host = part[..end].rfind('@').map_or(0, |at| at + 1);
        kept.push_str("://");
        kept.push_str(&part[host..]);
    }
    kept
}

/// Lays a whiteout over every entry that not everybody may read. Programs that may only
/// be run stay.
fn hide_private(from: &Path, layer: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (metadata, hidden) = (entry.metadata()?, layer.join(entry.file_name()));
        let runnable = metadata.is_file() && metadata.mode() & 0o001 != 0;
        if !is_public(&metadata) && !runnable {
            make_parents_like(from, layer)?;
            rustix::fs::mknodat(CWD, &hidden, FileType::CharacterDevice, Mode::empty(), 0)?;
        } else if metadata.is_dir() {
            hide_private(&entry.path(), &hidden)?;
        }
    }
    Ok(())
}

/// A layer's directory gives its own mode and owner to what is seen, so it copies them.
fn make_parents_like(from: &Path, layer: &Path) -> io::Result<()> {
    if layer.is_dir() {
        return Ok(());
    }
    if let (Some(from), Some(layer)) = (from.parent(), layer.parent()) {
        make_parents_like(from, layer)?;
    }
    let metadata = fs::symlink_metadata(from)?;
    directory(layer, metadata.mode() & 0o7777)?;
    chown(layer, Some(metadata.uid()), Some(metadata.gid()))
}

/// The directories of a tree without their files.
fn copy_directories(from: &Path, to: &Path) -> io::Result<()> {
    directory(to, 0o755)?;
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
    fn only_what_everybody_may_read_comes_in() {
        let host = tempfile::tempdir().expect("directory");
        let at = |name: &str| host.path().join(name);
        fs::create_dir_all(at("open/deep")).expect("directory");
        fs::create_dir_all(at("closed")).expect("directory");
        for (name, mode) in [("open/deep/key", 0o600), ("open/text", 0o644), ("open/tool", 0o711)] {
            write(&at(name), mode, "x").expect("file");
        }
        set_mode(&at("closed"), 0o750).expect("mode");
        let copied = at("copied");
        copy(&at("open"), &copied).expect("copy");
        assert!(copied.join("text").exists() && !copied.join("deep/key").exists());

        let layer = at("layer");
        directory(&layer, 0o755).expect("layer");
        hide_private(host.path(), &layer).expect("hide");
        for hidden in ["closed", "open/deep/key"] {
            let metadata = fs::symlink_metadata(layer.join(hidden)).expect(hidden);
            assert_eq!(metadata.rdev(), 0, "{hidden} is a whiteout");
        }
        assert!(!layer.join("open/text").exists() && !layer.join("open/tool").exists());
    }

    #[test]
    fn package_sources_lose_their_passwords() {
        assert_eq!(
            without_passwords("deb https://me:pw@host.example/a b\ndeb http://h/u@v x\n"),
            "deb https://host.example/a b\ndeb http://h/u@v x\n"
        );
        assert_eq!(without_passwords("URIs: https://a@b"), "URIs: https://b");
    }

    #[test]
    fn a_base_holds_no_host_secret() {
        let data = tempfile::tempdir().expect("directory");
        let relative = ensure_host_base(data.path(), true).expect("base");
        let root = data.path().join(&relative).join("fs");
        for absent in ["etc/machine-id", "etc/hostname", "etc/sudoers", "etc/ssl/private"] {
            assert!(!root.join(absent).exists(), "{absent}");
        }
        let ssh = fs::read_dir(root.join("etc/ssh")).into_iter().flatten().flatten();
        let ssh: Vec<_> = ssh.map(|entry| entry.file_name()).collect();
        assert!(ssh.iter().all(|name| name == "sshd_config"), "{ssh:?}");
        assert_eq!(fs::read_dir(root.join("root")).expect("root").count(), 0);
        assert_eq!(fs::read_dir(root.join("home")).expect("home").count(), 0);
        let shadow = fs::read_to_string(root.join("etc/shadow")).expect("shadow");
        assert!(shadow.lines().all(|line| line.split(':').nth(1) == Some("*")), "{shadow}");
        assert_eq!(fs::metadata(root.join("tmp")).expect("tmp").mode() & 0o7777, 0o1777);
        assert_eq!(ensure_host_base(data.path(), true).expect("again"), relative);
    }
}
