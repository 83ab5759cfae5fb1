//! Devices: machines of the user's own, and the networks they are attached to (api.md 5.9).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use createos_sdk::DeviceId;
use createos_sdk::wire::CreateDevice;
use ulid::Ulid;

use super::error::Fields;
use super::{Core, CoreError, validate};
use crate::store::{Device, DeviceError, DeviceLink, NewDevice};

/// How many devices there can be.
const MOST_DEVICES: u64 = 256;
const KEY_BYTES: usize = 32;
const MOST_CHARACTERS: usize = 253;
/// Why there are no sessions, and what to do instead.
const NO_SESSIONS: &str = "this version of the local engine has no WireGuard relay; \
     reach a sandbox's ports through tunnels and ingress, or use the hosted control plane";

impl Core {
    pub(crate) async fn create_device(&self, request: CreateDevice) -> Result<Device, CoreError> {
        let new = checked(request)?;
        let inserted = self.inner.store.insert_device(new, MOST_DEVICES).await;
        inserted.map_err(|error| match error {
            DeviceError::KeyTaken => CoreError::Conflict(
                "this key is another device's; delete that one, or make a new key".to_owned(),
            ),
            DeviceError::TooMany(count) => CoreError::Forbidden {
                field: "devices",
                message: format!("{count} devices are as many as can be; delete some"),
            },
            DeviceError::Store(error) => error.into(),
        })
    }

    pub(crate) async fn device(&self, key: &str) -> Result<Device, CoreError> {
        let found = match key.parse::<DeviceId>() {
            Ok(id) => self.inner.store.device(&id).await?,
            Err(_) => None,
        };
        found.ok_or_else(|| unknown(key))
    }

    pub(crate) async fn devices(
        &self,
        limit: u32,
        offset: u64,
    ) -> Result<(Vec<Device>, u64), CoreError> {
        Ok(self.inner.store.devices(limit, offset).await?)
    }

    pub(crate) async fn remove_device(&self, key: &str) -> Result<(), CoreError> {
        let id = self.device(key).await?.spec.id;
        match self.inner.store.remove_device(&id).await? {
            true => Ok(()),
            false => Err(unknown(key)),
        }
    }

    /// Attaches a device to a network. On one that it is attached to nothing happens.
    pub(crate) async fn attach_device(&self, key: &str, network: &str) -> Result<(), CoreError> {
        let id = self.device(key).await?.spec.id;
        let network = self.network(network).await?;
        match self.inner.store.attach_device(&id, &network.id).await? {
            true => Ok(()),
            false => Err(unknown(key)),
        }
    }

    pub(crate) async fn detach_device(&self, key: &str, network: &str) -> Result<(), CoreError> {
        let id = self.device(key).await?.spec.id;
        let network = self.network(network).await?;
        match self.inner.store.detach_device(&id, &network.id).await? {
            true => Ok(()),
            false => {
                let message = format!("the device is not attached to {}", network.name);
                Err(CoreError::NoSuch { field: "network", message })
            }
        }
    }

    pub(crate) async fn device_links(&self, key: &str) -> Result<Vec<DeviceLink>, CoreError> {
        let id = self.device(key).await?.spec.id;
        Ok(self.inner.store.device_links(&id).await?)
    }

    /// Refuses a session, of a device that is there.
    pub(crate) async fn open_session(&self, key: &str) -> Result<(), CoreError> {
        self.device(key).await?;
        Err(CoreError::NotAvailable { field: "session", message: NO_SESSIONS.to_owned() })
    }

    /// A session that somebody renews or closes: there is none.
    pub(crate) async fn session(&self, key: &str, session: &str) -> Result<(), CoreError> {
        self.device(key).await?;
        let message = format!("session not found: {}", validate::shown(session));
        Err(CoreError::NoSuch { field: "session", message })
    }
}

fn unknown(key: &str) -> CoreError {
    let message = format!("device not found: {}", validate::shown(key));
    CoreError::NoSuch { field: "device", message }
}

fn checked(request: CreateDevice) -> Result<NewDevice, CoreError> {
    let CreateDevice { name, pubkey, hostname, os, .. } = request;
    let mut wrong = Fields::new();
    if name.trim().is_empty() {
        wrong.insert("name".into(), "is empty".into());
    }
    let texts = [("name", Some(&name)), ("hostname", hostname.as_ref()), ("os", os.as_ref())];
    for (field, text) in texts.into_iter().filter_map(|(field, text)| Some((field, text?))) {
        if text.chars().count() > MOST_CHARACTERS || text.chars().any(char::is_control) {
            let why = format!("takes at most {MOST_CHARACTERS} characters, none of control");
            wrong.insert(field.into(), why);
        }
    }
    let key = STANDARD.decode(&pubkey).ok().filter(|key| key.len() == KEY_BYTES);
    if key.is_none() {
        let why = "is no WireGuard public key: 32 bytes in base64 with padding";
        wrong.insert("pubkey".into(), why.into());
    }
    CoreError::check(wrong)?;
    let pubkey = STANDARD.encode(key.unwrap_or_default());
    let id = format!("dev-{}", Ulid::new().to_string().to_lowercase());
    let id = id.parse().map_err(|_| CoreError::Internal("no id could be made".to_owned()))?;
    Ok(NewDevice { id, name, pubkey, hostname, os })
}
