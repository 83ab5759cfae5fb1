//! Sessions of devices: who may speak through the relay, and for how long (api.md 5.9).

use std::net::SocketAddr;
use std::time::SystemTime;

use createos_sdk::{DeviceId, NetworkId, SessionId};
use ulid::Ulid;

use super::devices::key_of;
use super::{Core, CoreError, validate};
use crate::runtime::RuntimeError;
use crate::store::Device;
use crate::vpn::{Ended, NewSession, Reach};

/// A network that nobody is on: a line to it shows that lines can be had.
const TRIAL: &str = "trial";

/// A session as its device is told of it.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) id: SessionId,
    pub(crate) device: DeviceId,
    pub(crate) config: String,
    pub(crate) expires_at: SystemTime,
}

impl Core {
    /// Opens a session of a device, which ends the one that it has. `arrival` is the address
    /// at which this was asked for: the device is told to come there.
    pub(crate) async fn open_session(
        &self,
        key: &str,
        arrival: Option<SocketAddr>,
    ) -> Result<Session, CoreError> {
        let device = self.device(key).await?;
        let core = self.clone();
        self.run_to_end(async move {
            let _turn = core.inner.devices.lock().await;
            // It may have been removed while we waited.
            let device = core.device(device.spec.id.as_str()).await?;
            core.begin_session(device, arrival).await
        })?
        .await
    }

    async fn begin_session(
        &self,
        device: Device,
        arrival: Option<SocketAddr>,
    ) -> Result<Session, CoreError> {
        let reaches = self.inner.store.reaches(&device.spec.id).await?;
        self.ready_lines(&reaches).await?;
        let key = key_of(&device.spec.pubkey)
            .ok_or_else(|| CoreError::Internal("the key of the device is damaged".to_owned()))?;
        let id = format!("ses-{}", Ulid::new().to_string().to_lowercase());
        let id: SessionId =
            id.parse().map_err(|_| CoreError::Internal("no id could be made".to_owned()))?;
        let (life, device_id) = (self.inner.tuning.session_life, device.spec.id);
        let new = NewSession {
            session: id.clone(),
            device: device_id.clone(),
            ip: device.ip,
            key,
            reaches,
            life,
        };
        let opened = self.inner.relay.open(new, arrival).await;
        let (config, before) = opened.map_err(|error| {
            CoreError::NoCapacity(format!("no socket could be opened for devices: {error}"))
        })?;
        if let Some(before) = before {
            self.note(before).await?;
        }
        self.inner.relay.end_unused_lines();
        Ok(Session { id, device: device_id, config, expires_at: SystemTime::now() + life })
    }

    /// Moves the end of a session one lifetime from now.
    pub(crate) async fn renew_session(&self, key: &str, session: &str) -> Result<(), CoreError> {
        let device = self.device(key).await?;
        let (relay, life) = (&self.inner.relay, self.inner.tuning.session_life);
        let is_renewed =
            session.parse().is_ok_and(|session| relay.renew(&device.spec.id, &session, life));
        if !is_renewed {
            return Err(no_session(session));
        }
        if let Some(seen) = device.seen {
            self.inner.store.set_seen(&device.spec.id, seen).await?;
        }
        Ok(())
    }

    pub(crate) async fn close_session(&self, key: &str, session: &str) -> Result<(), CoreError> {
        let device = self.device(key).await?;
        let Ok(id) = session.parse() else { return Err(no_session(session)) };
        match self.end_session(&device.spec.id, Some(&id)).await? {
            true => Ok(()),
            false => Err(no_session(session)),
        }
    }

    /// Ends this session of a device, or whichever it has; false where it has none such.
    pub(super) async fn end_session(
        &self,
        device: &DeviceId,
        session: Option<&SessionId>,
    ) -> Result<bool, CoreError> {
        let Some(ended) = self.inner.relay.close(device, session) else { return Ok(false) };
        self.inner.relay.end_unused_lines();
        self.note(ended).await?;
        Ok(true)
    }

    async fn note(&self, ended: Ended) -> Result<(), CoreError> {
        if let Some(seen) = ended.seen {
            self.inner.store.set_seen(&ended.device, seen).await?;
        }
        Ok(())
    }

    /// Lets a device reach what it is attached to now, if it has a session.
    pub(super) async fn let_reach(&self, device: &DeviceId) -> Result<(), CoreError> {
        let reaches = self.inner.store.reaches(device).await?;
        self.inner.relay.set_reaches(device, reaches);
        self.inner.relay.end_unused_lines();
        self.mend_lines().await
    }

    /// No device reaches a network any more that was removed.
    pub(super) fn forget_network(&self, network: &NetworkId) {
        self.inner.relay.forget_network(network.as_str());
        self.inner.relay.end_unused_lines();
    }

    /// What is due by the clock.
    pub(super) async fn tend_sessions(&self) {
        let ended = self.inner.relay.tick();
        if !ended.is_empty() {
            self.inner.relay.end_unused_lines();
        }
        for ended in ended {
            tracing::debug!(device = %ended.device, session = %ended.session, "a session expired");
            if let Err(error) = self.note(ended).await {
                tracing::warn!(%error, "when a device was last seen is not kept");
            }
        }
        if let Err(error) = self.mend_lines().await {
            tracing::debug!(%error, "devices do not reach a network");
        }
    }

    /// Opens what lines are missing: those of a warden that has ended.
    async fn mend_lines(&self) -> Result<(), CoreError> {
        let missing = self.inner.relay.missing_lines();
        if missing.is_empty() { Ok(()) } else { self.ready_lines(&missing).await }
    }

    async fn ready_lines(&self, reaches: &[Reach]) -> Result<(), CoreError> {
        if reaches.is_empty() {
            let subnet = crate::network_protocol::POOLS[0];
            return self.inner.runtime.open_line(TRIAL, subnet).await.map(drop).map_err(no_line);
        }
        for Reach { network, subnet } in reaches {
            if !self.inner.relay.leads_to(network) {
                let line = self.inner.runtime.open_line(network, *subnet).await.map_err(no_line)?;
                let added = self.inner.relay.add_line(network, line);
                added.map_err(|error| CoreError::NoCapacity(format!("no line: {error}")))?;
            }
        }
        Ok(())
    }
}

fn no_line(error: RuntimeError) -> CoreError {
    match error {
        RuntimeError::Unsupported(message) => CoreError::NotAvailable { field: "session", message },
        other => other.into(),
    }
}

fn no_session(session: &str) -> CoreError {
    let message = format!("session not found: {}; open another one", validate::shown(session));
    CoreError::NoSuch { field: "session", message }
}
