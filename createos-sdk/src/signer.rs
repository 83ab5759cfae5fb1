//! Who signs calls: a key that stays the same, or access tokens that are renewed.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;

use crate::config::{self, Credential};
use crate::error::{Error, ErrorKind, Result};
use crate::secret::Secret;

type Source = dyn Fn(Option<Secret>) -> BoxFuture<'static, Result<Secret>> + Send + Sync;

/// Where the credential of a call comes from.
#[derive(Clone)]
pub(crate) enum Signer {
    /// The same for every call.
    Fixed(Credential),
    /// Asked before every call, and again when the server refuses what it gave.
    Renewed(Arc<Source>),
}

/// What one call is signed with.
#[derive(Clone)]
pub(crate) struct Signature {
    pub(crate) credential: Credential,
    /// The token, when another can be had for it.
    token: Option<Secret>,
}

impl Signer {
    pub(crate) fn renewed<F, Fut, E>(source: F) -> Self
    where
        F: Fn(Option<Secret>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Secret, E>> + Send + 'static,
        E: Into<Box<dyn StdError + Send + Sync>>,
    {
        Self::Renewed(Arc::new(move |refused| {
            source(refused).map(|given| given.map_err(|error| refusal(error.into()))).boxed()
        }))
    }

    /// What signs a call that begins now.
    pub(crate) async fn sign(&self) -> Result<Signature> {
        match self {
            Self::Fixed(credential) => {
                Ok(Signature { credential: credential.clone(), token: None })
            }
            Self::Renewed(source) => signature(source(None).await?),
        }
    }

    /// Another signature after the server refused this one; `None` where there is no other.
    pub(crate) async fn renew(&self, refused: &Signature) -> Result<Option<Signature>> {
        let (Self::Renewed(source), Some(token)) = (self, &refused.token) else {
            return Ok(None);
        };
        let new = source(Some(token.clone())).await?;
        if new == *token { Ok(None) } else { signature(new).map(Some) }
    }
}

fn signature(token: Secret) -> Result<Signature> {
    Ok(Signature { credential: config::access_token(&token)?, token: Some(token) })
}

/// An error of this crate says more than any that wraps it could.
fn refusal(error: Box<dyn StdError + Send + Sync>) -> Error {
    match error.downcast::<Error>() {
        Ok(own) => *own,
        Err(error) => Error::new(ErrorKind::NotAuthenticated, error.to_string()).with_source(error),
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(credential) => credential.fmt(f),
            Self::Renewed(_) => f.write_str("access tokens(..)"),
        }
    }
}
