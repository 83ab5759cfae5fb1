//! Letting SSH clients into a sandbox.

mod key;

use crate::error::{Error, ErrorKind, Result};
use crate::exec::Output;
use crate::options::RequestOptions;
use crate::pending::Pending;
use crate::sandbox::Sandbox;

pub use self::key::SshPublicKey;

/// Longest name of a user.
const MAX_USER: usize = 32;

// Exit codes of the scripts.
const NO_SERVER: i32 = 100;
const NO_USER: i32 = 101;
const NOT_UP: i32 = 102;

/// Puts the user's home into `$home`, and the file of their keys into `$file`.
const PRELUDE: &str = r#"user=$1
id -u "$user" >/dev/null 2>&1 || exit 101
case $user in root) home=/root ;; *) home=/home/$user ;; esac
file=$home/.ssh/authorized_keys
umask 077
"#;

/// Adds `$2` unless a line holds `$3`, which is the same without its comment.
const AUTHORIZE: &str = r#"mkdir -p "$home/.ssh" || exit
if [ -f "$file" ] && grep -v '^[[:space:]]*#' "$file" | grep -qF -- "$3"; then exit 0; fi
if [ -s "$file" ] && [ -n "$(tail -c 1 "$file")" ]; then set -- "$1" "
$2"; fi
printf '%s\n' "$2" >>"$file" || exit
chown -h "$user:" "$home/.ssh" "$file" 2>/dev/null
echo added
"#;

/// Takes out every line that holds `$2`.
const REVOKE: &str = r#"[ -f "$file" ] && grep -qF -- "$2" "$file" || exit 0
cp -p "$file" "$file.new" || exit
grep -vF -- "$2" "$file" >"$file.new"
[ $? -le 1 ] && mv -f "$file.new" "$file" || { rm -f "$file.new"; exit 1; }
echo removed
"#;

/// A server that listens on port 22 is state 0A in these tables.
const START: &str = r#"listens() { cat /proc/net/tcp /proc/net/tcp6 2>/dev/null | grep -q ':0016 [0-9A-F]*:0000 0A '; }
[ -x /usr/sbin/sshd ] || exit 100
mkdir -p "$home/.ssh" || exit
chmod 700 "$home/.ssh"
[ ! -f "$file" ] || chmod 600 "$file"
chown -h "$user:" "$home/.ssh" "$file" 2>/dev/null
listens && exit 0
umask 022
mkdir -p /run/sshd /etc/ssh || exit
ls /etc/ssh/ssh_host_*_key >/dev/null 2>&1 || ssh-keygen -A >/dev/null || exit
/usr/sbin/sshd </dev/null >/dev/null || exit
tries=50
until listens; do
    tries=$((tries - 1))
    [ $tries -gt 0 ] || exit 102
    sleep 0.1 2>/dev/null || sleep 1
done
"#;

/// Lets SSH clients into a sandbox. Made with [`Sandbox::ssh`].
///
/// The server in the sandbox is the image's own OpenSSH. It is not running when a sandbox
/// begins, and is reached through a [tunnel](Sandbox::tunnel) to port 22:
///
/// ```no_run
/// # async fn run(sandbox: createos_sdk::Sandbox) -> Result<(), Box<dyn std::error::Error>> {
/// let key = std::fs::read_to_string("id_ed25519.pub")?.parse()?;
/// let ssh = sandbox.ssh();
/// ssh.authorize(&key).await?;
/// ssh.start().await?;
/// let port = sandbox.tunnel(22).listen("127.0.0.1:0").await?;
/// println!("ssh -i id_ed25519 -p {} root@127.0.0.1", port.local_addr().port());
/// # Ok(()) }
/// ```
///
/// Its calls run a command in the sandbox (api.md 4.11), so the sandbox must be running, and
/// have a POSIX shell and the usual tools: coreutils or busybox. They are safe to repeat.
///
/// # Errors
///
/// `InvalidArgument`: a user name that cannot be one. `NotFound`: there is no such user in the
/// sandbox. `Conflict`: the sandbox is not running. `CommandFailed`: anything else, in the
/// words of the tool that failed.
#[derive(Debug, Clone)]
#[must_use = "nothing is sent until one of its calls is awaited"]
pub struct Ssh {
    sandbox: Sandbox,
    user: String,
    options: RequestOptions,
}

impl Ssh {
    pub(crate) fn new(sandbox: Sandbox) -> Self {
        Self { sandbox, user: "root".to_owned(), options: RequestOptions::new() }
    }

    /// Sets who logs in. Default `root`. The home of everybody else is below `/home`.
    pub fn user(mut self, name: impl Into<String>) -> Self {
        self.user = name.into();
        self
    }

    /// Sets options of each call.
    pub fn with(mut self, options: RequestOptions) -> Self {
        self.options = self.options.overlaid(options);
        self
    }

    /// The keys that may log in; none when there is no file of them.
    pub fn authorized_keys(&self) -> Pending<Vec<SshPublicKey>> {
        let this = self.clone();
        Pending::new(async move {
            let script = r#"[ ! -f "$file" ] || cat "$file""#;
            let output = this.run("ssh.authorized_keys", script, &[]).await?;
            Ok(SshPublicKey::parse_all(&output.stdout_lossy()))
        })
    }

    /// Lets a key log in. Those that are there already stay. Gives whether it is new.
    pub fn authorize(&self, key: &SshPublicKey) -> Pending<bool> {
        let (this, key) = (self.clone(), key.clone());
        Pending::new(async move {
            let arguments = [key.to_string(), key.identity()];
            let output = this.run("ssh.authorize", AUTHORIZE, &arguments).await?;
            Ok(!output.stdout.is_empty())
        })
    }

    /// Lets a key log in no more; connections that it has opened go on. Gives whether it was
    /// there.
    pub fn revoke(&self, key: &SshPublicKey) -> Pending<bool> {
        let (this, key) = (self.clone(), key.clone());
        Pending::new(async move {
            let output = this.run("ssh.revoke", REVOKE, &[key.identity()]).await?;
            Ok(!output.stdout.is_empty())
        })
    }

    /// Starts the server unless something listens on port 22, and makes the modes of the
    /// user's files those that it wants. Host keys are made when there are none.
    ///
    /// # Errors
    ///
    /// Also `Unsupported`: the image has no SSH server.
    pub fn start(&self) -> Pending<()> {
        let this = self.clone();
        Pending::new(async move { this.run("ssh.start", START, &[]).await.map(drop) })
    }

    async fn run(
        &self,
        operation: &'static str,
        script: &str,
        arguments: &[String],
    ) -> Result<Output> {
        check_user(&self.user).map_err(|error| error.in_operation(operation))?;
        let script = format!("{PRELUDE}{script}");
        let words = ["-c".to_owned(), script, "sh".to_owned(), self.user.clone()];
        let command = self.sandbox.command("sh").args(words).args(arguments).named(operation);
        let output = command.with(self.options.clone()).await?;
        let (kind, message) = match output.status.code() {
            _ if output.error.is_some() => return output.ensure_success_of(operation),
            NO_SERVER => {
                let why = "the image of this sandbox has no SSH server (/usr/sbin/sshd)";
                (ErrorKind::Unsupported, why.to_owned())
            }
            NO_USER => {
                let why = format!("there is no user {:?} in this sandbox", self.user);
                (ErrorKind::NotFound, why)
            }
            NOT_UP => {
                let why = "the SSH server was started and does not listen on port 22";
                (ErrorKind::CommandFailed, why.to_owned())
            }
            _ => return output.ensure_success_of(operation),
        };
        let error = Error::new(kind, message).in_operation(operation);
        Err(error.with_resource(self.sandbox.id()))
    }
}

/// A name that is one in every image, and never a path or an option.
fn check_user(name: &str) -> Result<()> {
    let mut bytes = name.bytes();
    let good = name.len() <= MAX_USER
        && bytes.next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-');
    if good {
        return Ok(());
    }
    let why = format!(
        "{name:?} is not made of letters, digits, `_` and `-` (1 to {MAX_USER}, a letter or `_` first)"
    );
    Err(Error::invalid_argument("user", why))
}

impl Sandbox {
    /// Letting SSH clients in. Nothing is sent until one of its calls is awaited.
    pub fn ssh(&self) -> Ssh {
        Ssh::new(self.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_names() {
        for name in ["root", "_apt", "web-1", "A_b", &"x".repeat(32)] {
            check_user(name).unwrap();
        }
        for name in ["", "-x", "1a", "a b", "a/b", "../x", "a$b", "ä", &"x".repeat(33)] {
            assert!(check_user(name).unwrap_err().message().starts_with("user"), "{name:?}");
        }
    }
}
