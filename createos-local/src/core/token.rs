//! Tokens that open one sandbox and nothing else (api.md 4.12).

use createos_sdk::{SandboxId, Secret};
use sha2::{Digest as _, Sha256};

use super::{Core, CoreError, State};
use crate::auth::random_key;
use crate::store::{Digest, TokenRecord};

/// How every delegated token begins.
pub(crate) const TOKEN_PREFIX: &str = "skp_sb_";

/// A token just made: the only time it is known.
pub(crate) struct NewToken {
    pub(crate) token: Secret,
    pub(crate) record: TokenRecord,
}

impl Core {
    pub(crate) async fn create_token(&self, id: &SandboxId) -> Result<NewToken, CoreError> {
        self.check_delegable(id).await?;
        let (token, digest, hint) = fresh()?;
        match self.inner.store.insert_token(id, digest, hint).await? {
            Some(record) => Ok(NewToken { token, record }),
            None => Err(CoreError::Conflict(
                "the sandbox has an access token already; rotate it, or revoke it first".into(),
            )),
        }
    }

    pub(crate) async fn rotate_token(&self, id: &SandboxId) -> Result<NewToken, CoreError> {
        self.check_delegable(id).await?;
        let (token, digest, hint) = fresh()?;
        match self.inner.store.rotate_token(id, digest, hint).await? {
            Some(record) => Ok(NewToken { token, record }),
            None => Err(CoreError::NoSuch {
                field: "access_token",
                message: "the sandbox has no access token; create one".to_owned(),
            }),
        }
    }

    pub(crate) async fn token(&self, id: &SandboxId) -> Result<Option<TokenRecord>, CoreError> {
        self.get_existing(id).await?;
        Ok(self.inner.store.token(id).await?)
    }

    /// From here on the token opens nothing. Without one nothing happens.
    pub(crate) async fn revoke_token(&self, id: &SandboxId) -> Result<(), CoreError> {
        self.check_delegable(id).await?;
        Ok(self.inner.store.remove_token(id).await?)
    }

    /// The sandbox that a delegated token opens.
    pub(crate) async fn token_owner(&self, token: &str) -> Result<Option<SandboxId>, CoreError> {
        Ok(self.inner.store.token_owner(digest(token)).await?)
    }

    async fn check_delegable(&self, id: &SandboxId) -> Result<(), CoreError> {
        let state = self.get_existing(id).await?.state;
        if matches!(state, State::Destroying | State::Failed) {
            return Err(CoreError::Conflict(format!("sandbox is {state}")));
        }
        Ok(())
    }
}

fn fresh() -> Result<(Secret, Digest, String), CoreError> {
    let token = random_key(TOKEN_PREFIX)
        .map_err(|error| CoreError::Internal(format!("no token could be made: {error}")))?;
    let random = &token[TOKEN_PREFIX.len()..];
    let hint = format!("{TOKEN_PREFIX}{}...{}", &random[..4], &random[random.len() - 4..]);
    Ok((token.as_str().into(), digest(&token), hint))
}

fn digest(token: &str) -> Digest {
    Digest(Sha256::digest(token).into())
}
