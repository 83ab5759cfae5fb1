//! A link for a person to look at a screen in a browser.

use std::num::NonZeroU16;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use createos_sdk::Secret;
use sha2::{Digest as _, Sha256};

use super::{Desktop, ScreenId};
use crate::auth::random_key;
use crate::core::CoreError;

/// How long a link lets new viewers in.
const GOOD_FOR: Duration = Duration::from_secs(3600);

/// A way in for viewers. The one before is none any more.
pub(crate) struct Viewer {
    pub(crate) port: NonZeroU16,
    pub(crate) token: Secret,
    pub(crate) ends: SystemTime,
}

impl Desktop {
    /// Makes a link; its page is reached through ingress.
    pub(crate) async fn connect(&self, screen: ScreenId) -> Result<Viewer, CoreError> {
        if !self.live.sandbox().spec.ingress_enabled {
            return Err(CoreError::Conflict("ingress is not enabled".to_owned()));
        }
        self.screen(screen).await?;
        let port = NonZeroU16::new(screen.web_port());
        let port = port.ok_or_else(|| CoreError::Internal("a port went missing".to_owned()))?;
        let address = (self.live.sandbox().ip, port.get()).into();
        match self.live.connect(address).await {
            Ok(_) => {}
            Err(CoreError::NoListener(_)) => {
                return Err(CoreError::Desktop(format!("the page of {screen} is still starting")));
            }
            Err(error) => return Err(error),
        }
        let failed = |error| CoreError::Internal(format!("no token could be made: {error}"));
        let token = Secret::from(random_key("").map_err(failed)?);
        let ends = SystemTime::now() + GOOD_FOR;
        let seconds = ends.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let kept = format!("{} {seconds}\n", digest(&self.live.sandbox().spec.name, &token));
        self.write(&format!("/run/createos-desktop/token-{}", screen.number()), &kept).await?;
        Ok(Viewer { port, token, ends })
    }
}

/// What `tokens.py` compares.
fn digest(hostname: &str, token: &Secret) -> String {
    let digest = Sha256::digest(format!("{hostname}:{}", token.expose()));
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
