//! The signed-in session while a command runs: its access token, renewed in time
//! (cli.md 1.11).

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use createos_sdk::Secret;
use createos_sdk::oauth::{self, ErrorKind};
use tokio::sync::Mutex;

use crate::failure::Failure;
use crate::store::credentials::{Session, Store};
use crate::unbroken;

/// A token that runs out sooner than this is renewed before it is used.
const MARGIN: Duration = Duration::from_secs(60);

/// Gives the client its access tokens.
#[derive(Clone)]
pub(crate) struct Renewer {
    store: Store,
    /// Who we are to the identity server, where the session does not say.
    client_id: Option<String>,
    current: Arc<Mutex<Session>>,
}

/// Why there is no access token.
#[derive(Debug)]
pub(crate) struct Ended(String);

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the session expired; sign in again ({})", self.0)
    }
}

impl std::error::Error for Ended {}

impl Renewer {
    pub(crate) fn new(store: Store, session: Session, client_id: Option<String>) -> Self {
        Self { store, client_id, current: Arc::new(Mutex::new(session)) }
    }

    /// A token that the server has not refused and that lives a while yet.
    pub(crate) async fn token(&self, refused: Option<Secret>) -> Result<Secret, Ended> {
        let mut current = self.current.lock().await;
        if !is_spent(&current, refused.as_ref()) {
            return Ok(current.access_token.clone());
        }
        let (renewer, used) = (self.clone(), current.access_token.clone());
        // The identity server takes the old refresh token once: what it gives for it
        // is stored even when Ctrl+C ends this command meanwhile.
        let renewed = unbroken::run(async move { renewer.renew(refused.is_some(), &used).await });
        *current = match renewed.await {
            Some(renewed) => renewed?,
            None => return Err(Ended("this machine has no thread left".to_owned())),
        };
        Ok(current.access_token.clone())
    }

    /// With the lock held nobody else exchanges the same refresh token.
    async fn renew(&self, refused: bool, used: &Secret) -> Result<Session, Ended> {
        let _lock = self.store.lock().await.map_err(ended)?;
        let session = self.stored()?;
        if !is_spent(&session, refused.then_some(used)) {
            return Ok(session);
        }
        match self.exchange(&session).await {
            Ok(renewed) => {
                self.store.write_session(&renewed).map_err(ended)?;
                Ok(renewed)
            }
            Err(error) => {
                // A program that knows nothing of the lock may have been faster.
                let again = self.stored()?;
                if is_spent(&again, Some(&session.access_token)) { Err(error) } else { Ok(again) }
            }
        }
    }

    fn stored(&self) -> Result<Session, Ended> {
        match self.store.session() {
            Ok(Some(session)) => Ok(session),
            Ok(None) => Err(Ended("somebody signed out".to_owned())),
            Err(failure) => Err(ended(failure)),
        }
    }

    async fn exchange(&self, session: &Session) -> Result<Session, Ended> {
        let Some(client_id) = session.client_id.as_ref().or(self.client_id.as_ref()) else {
            return Err(Ended("CREATEOS_OIDC_CLIENT_ID is needed to renew it".to_owned()));
        };
        match session.tokens().refresh(client_id).await {
            Ok(tokens) => Ok(session.renewed(tokens)),
            Err(error) => Err(refused_exchange(&error)),
        }
    }
}

/// Whether another token is needed: this one was refused, or runs out.
fn is_spent(session: &Session, refused: Option<&Secret>) -> bool {
    refused == Some(&session.access_token) || session.expires_within(MARGIN)
}

fn refused_exchange(error: &oauth::Error) -> Ended {
    Ended(match error.kind() {
        ErrorKind::InvalidGrant => "the identity server does not renew it any more".to_owned(),
        _ => format!("it cannot be renewed: {error}"),
    })
}

fn ended(failure: Failure) -> Ended {
    Ended(failure.message().to_owned())
}
