//! Devices: machines of the user's own, and the networks they are attached to (api.md 5.9).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use createos_sdk::wire::CreateDevice;
use createos_sdk::{DeviceId, NetworkId};
use ulid::Ulid;

use super::error::Fields;
use super::{Core, CoreError, validate};
use crate::store::{Device, DeviceError, DeviceLink, NewDevice};
use crate::vpn::{self, KEY_BYTES};

/// How many devices there can be.
const MOST_DEVICES: u64 = 256;
const MOST_CHARACTERS: usize = 253;

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
        found.map(|device| self.with_news(device)).ok_or_else(|| unknown(key))
    }

    /// What is known of a device since it was last written down.
    fn with_news(&self, mut device: Device) -> Device {
        device.seen = self.inner.relay.seen(&device.spec.id).max(device.seen);
        device
    }

    pub(crate) async fn devices(
        &self,
        limit: u32,
        offset: u64,
    ) -> Result<(Vec<Device>, u64), CoreError> {
        let (devices, total) = self.inner.store.devices(limit, offset).await?;
        Ok((devices.into_iter().map(|device| self.with_news(device)).collect(), total))
    }

    /// Removes a device with its session.
    pub(crate) async fn remove_device(&self, key: &str) -> Result<(), CoreError> {
        let id = self.device(key).await?.spec.id;
        let core = self.clone();
        self.run_to_end(async move {
            let _turn = core.inner.devices.lock().await;
            let links = core.inner.store.device_links(&id).await?;
            if !core.inner.store.remove_device(&id).await? {
                return Err(unknown(id.as_str()));
            }
            core.end_session(&id, None).await?;
            for link in links {
                core.lead_to_devices(&link.network).await?;
            }
            Ok(())
        })?
        .await
    }

    /// Attaches a device to a network. On one that it is attached to nothing happens.
    pub(crate) async fn attach_device(&self, key: &str, network: &str) -> Result<(), CoreError> {
        let id = self.device(key).await?.spec.id;
        let network = self.network(network).await?.id;
        let core = self.clone();
        self.run_to_end(async move {
            let _turn = core.inner.devices.lock().await;
            match core.inner.store.attach_device(&id, &network).await? {
                true => core.moved(&id, &network).await,
                false => Err(unknown(id.as_str())),
            }
        })?
        .await
    }

    pub(crate) async fn detach_device(&self, key: &str, network: &str) -> Result<(), CoreError> {
        let id = self.device(key).await?.spec.id;
        let network = self.network(network).await?;
        let core = self.clone();
        self.run_to_end(async move {
            let _turn = core.inner.devices.lock().await;
            match core.inner.store.detach_device(&id, &network.id).await? {
                true => core.moved(&id, &network.id).await,
                false => {
                    let message = format!("the device is not attached to {}", network.name);
                    Err(CoreError::NoSuch { field: "network", message })
                }
            }
        })?
        .await
    }

    /// After a device was attached to a network or detached from it.
    async fn moved(&self, device: &DeviceId, network: &NetworkId) -> Result<(), CoreError> {
        self.let_reach(device).await?;
        self.lead_to_devices(network).await
    }

    pub(crate) async fn device_links(&self, key: &str) -> Result<Vec<DeviceLink>, CoreError> {
        let id = self.device(key).await?.spec.id;
        Ok(self.inner.store.device_links(&id).await?)
    }
}

/// A device's key, as it is written.
pub(super) fn key_of(text: &str) -> Option<[u8; KEY_BYTES]> {
    STANDARD.decode(text).ok()?.try_into().ok()
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
    let key = key_of(&pubkey).filter(|key| vpn::is_usable(*key));
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
