//! Access tokens delegated to one sandbox (api.md 4.12).

use reqwest::Method;

use crate::error::Result;
use crate::operation::Operation;
use crate::sandbox::Sandbox;
use crate::secret::Secret;
use crate::wire::{AccessToken, AccessTokenView};

/// The delegated access token of one sandbox. Made with [`Sandbox::access_token`].
///
/// A sandbox has one such token or none. Who holds it can run commands, move files and pause,
/// resume or destroy this one sandbox, and nothing else; give it to
/// [`Sandbox::with_token`]. Managing it takes the owner's credential.
#[derive(Debug, Clone)]
pub struct SandboxToken {
    sandbox: Sandbox,
}

impl SandboxToken {
    fn call<T: serde::de::DeserializeOwned + Send + 'static>(
        &self,
        operation: &'static str,
        method: Method,
        segments: &[&str],
    ) -> Operation<T> {
        let client = self.sandbox.client().clone();
        Operation::data(client, self.sandbox.call(operation, method, segments))
    }

    /// Makes a token. Only this answer holds it.
    ///
    /// # Errors
    ///
    /// `Conflict`: there is one already; [`rotate`](Self::rotate) it. After an error that
    /// [may have acted](crate::Error::may_have_acted) a token can be there that nobody saw:
    /// rotate it.
    pub fn create(&self) -> Operation<AccessToken> {
        self.call("token.create", Method::POST, &["access-token"])
    }

    /// Whether there is a token, since when, and what it looks like.
    pub fn get(&self) -> Operation<AccessTokenView> {
        self.call("token.get", Method::GET, &["access-token"])
    }

    /// Replaces the token. The old one ends at once, in other regions a little later.
    ///
    /// # Errors
    ///
    /// `NotFound` or `Conflict`: there is none to replace. After an error that
    /// [may have acted](crate::Error::may_have_acted) the old token may be dead; rotate again.
    pub fn rotate(&self) -> Operation<AccessToken> {
        self.call("token.rotate", Method::POST, &["access-token", "rotate"])
    }

    /// Ends the token. Ending it twice is no error.
    pub fn disable(&self) -> Operation<AccessTokenView> {
        self.call("token.disable", Method::DELETE, &["access-token"])
    }
}

impl Sandbox {
    /// Its delegated access token (api.md 4.12).
    pub fn access_token(&self) -> SandboxToken {
        SandboxToken { sandbox: self.clone() }
    }

    /// This sandbox, reached with its delegated token instead of the owner's credential
    /// (api.md 1.2). Nothing is sent.
    ///
    /// ```no_run
    /// # async fn run(sandbox: createos_sdk::Sandbox) -> createos_sdk::Result<()> {
    /// let made = sandbox.access_token().create().await?;
    /// let delegated = sandbox.with_token(&made.token)?;
    /// delegated.command("make").await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) when the token is blank or cannot be
    /// sent.
    pub fn with_token(&self, token: impl Into<Secret>) -> Result<Sandbox> {
        Ok(Sandbox::new(self.client().with_api_key(token)?, self.id().clone()))
    }
}
