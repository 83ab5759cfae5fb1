//! A public key goes into a sandbox only when its owner agrees.

use createos_sdk::{Ssh, SshPublicKey};

use crate::context::Context;
use crate::failure::Failure;
use crate::prompt;
use crate::resolve::Found;

use super::key::KeyPair;

/// The wish to log into a sandbox with a key.
pub(crate) struct Request<'a> {
    pub(crate) found: &'a Found,
    pub(crate) ssh: &'a Ssh,
    pub(crate) user: &'a str,
    pub(crate) key: &'a KeyPair,
    /// The keys that may log in already.
    pub(crate) known: &'a [SshPublicKey],
    /// Not to be asked.
    pub(crate) yes: bool,
}

impl Request<'_> {
    /// Adds the key unless it is there. `false`, and a line that says so, when the user said no.
    ///
    /// # Errors
    /// Nobody can be asked, or the key cannot be added.
    pub(crate) async fn ask_and_add(&self, ctx: &Context) -> Result<bool, Failure> {
        if self.known.contains(&self.key.public) {
            return Ok(true);
        }
        let label = self.found.label();
        if !self.yes && !ctx.interactive() {
            let text = format!(
                "{} is not among the keys of {} in {label}, and nobody can be asked to add it",
                self.key.file.display(),
                self.user
            );
            return Err(Failure::usage(text).hint("add it without being asked: --yes"));
        }
        if !self.yes && !prompt::confirm(self.question(), true).await? {
            ctx.out.note("nothing was changed");
            return Ok(false);
        }
        let added = self.ssh.authorize(&self.key.public).await;
        added.map_err(|error| self.found.explain(error))?;
        let text = format!(
            "added {} to the keys of {} in {label}; it stays there",
            self.key.public.fingerprint(),
            self.user
        );
        ctx.out.note(&text);
        Ok(true)
    }

    fn question(&self) -> String {
        let others = match self.known.len() {
            0 => "no other key is".to_owned(),
            1 => "1 other key is".to_owned(),
            many => format!("{many} other keys are"),
        };
        format!(
            "let {} ({}) log into {} as {}? {others} there",
            self.key.file.display(),
            self.key.public.fingerprint(),
            self.found.label(),
            self.user
        )
    }
}
