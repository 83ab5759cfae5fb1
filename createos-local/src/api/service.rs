//! Health, readiness, identity, hosts (api.md 3.1 to 3.3, 3.6).

use axum::extract::State;
use axum::http::StatusCode;
use createos_sdk::wire::{Envelope, Health, Readiness, SandboxStats, WhoAmI};

use super::Front;
use super::answer::{Answer, Fail, json, ok};

/// The one user of a local engine.
const USER: &str = "usr_local";

pub(super) async fn healthz() -> Answer {
    ok(Health::new(true))
}

pub(super) async fn readyz(State(front): State<Front>) -> Answer {
    if front.core().is_serving() {
        return ok(Readiness::new(true));
    }
    let mut readiness = Readiness::new(false);
    readiness.reason = Some("the engine is shutting down".to_owned());
    Ok(json(StatusCode::SERVICE_UNAVAILABLE, &Envelope::fail(readiness)))
}

pub(super) async fn whoami(State(front): State<Front>) -> Answer {
    let counts = front.core().counts().await?;
    ok(WhoAmI::new(USER, SandboxStats::new(counts.running, counts.paused, counts.other)))
}

pub(super) async fn hosts() -> Fail {
    Fail::new(StatusCode::FORBIDDEN, "hosts are for administrators of a fleet; this is one machine")
}
