//! Devices: machines of one's own that join private networks through a VPN (api.md 5.9).

use std::fmt;
use std::future::IntoFuture;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;

use crate::check;
use crate::client::Client;
use crate::error::{Error, Result};
use crate::handle::Handle;
use crate::id::{DeviceId, NetworkId, SessionId};
use crate::operation::Operation;
use crate::options::RequestOptions;
use crate::page::List;
use crate::pending::Pending;
use crate::wire::{self, AttachDeviceNetwork, DeviceNetwork, DeviceSession, DeviceView};

/// One device. Cheap to clone; clones share the last-seen view.
#[derive(Clone)]
pub struct Device(Handle<DeviceId, DeviceView>);

impl Device {
    fn new(client: Client, id: DeviceId, view: Option<DeviceView>) -> Self {
        Self(Handle::new(client, "devices", id, view))
    }

    fn seen(client: Client, view: DeviceView) -> Self {
        Self::new(client, view.id.clone(), Some(view))
    }

    /// Its id.
    pub fn id(&self) -> &DeviceId {
        self.0.id()
    }

    /// What the server last said about it. It may be out of date.
    pub fn view(&self) -> Option<Arc<DeviceView>> {
        self.0.view()
    }

    /// Asks the server how it is.
    pub fn refresh(&self) -> Operation<Arc<DeviceView>> {
        self.0.viewing(self.0.call("device.get", Method::GET, &[]))
    }

    /// Removes it with its sessions and its place on networks.
    pub fn delete(&self) -> Operation<()> {
        self.0.acknowledged("device.delete", Method::DELETE, &[])
    }

    /// The networks it is attached to.
    pub fn networks(&self) -> Operation<Vec<DeviceNetwork>> {
        let call = self.0.call("device.networks", Method::GET, &["networks"]);
        // A bare array, which may be null like any other.
        Operation::<Option<Vec<DeviceNetwork>>>::data(self.0.client().clone(), call)
            .map(Option::unwrap_or_default)
    }

    /// Attaches it to a private network, named by id or name.
    pub fn attach_network(&self, id_or_name: impl AsRef<str>) -> Operation<()> {
        let key = id_or_name.as_ref();
        self.0
            .acknowledged("device.attach_network", Method::POST, &["networks"])
            .json(&AttachDeviceNetwork::new(key))
            .checked(NetworkId::try_from(key).map(drop))
    }

    /// Detaches it from a private network, named by id or name.
    pub fn detach_network(&self, id_or_name: impl AsRef<str>) -> Operation<()> {
        let key = id_or_name.as_ref();
        self.0
            .acknowledged("device.detach_network", Method::DELETE, &["networks", key])
            .checked(NetworkId::try_from(key).map(drop))
    }

    /// Opens a session: the answer holds the WireGuard configuration, to which the private key
    /// is added on this machine. Renew it at about half of its life.
    pub fn open_session(&self) -> Operation<DeviceSession> {
        let call = self.0.call("device.open_session", Method::POST, &["sessions"]);
        Operation::data(self.0.client().clone(), call)
    }

    /// Moves the end of a session forward by one lifetime.
    ///
    /// # Errors
    ///
    /// `NotFound`: the session has ended; take the interface down and open another.
    pub fn renew_session(&self, id: &SessionId) -> Operation<()> {
        let segments = ["sessions", id.as_str()];
        self.0.acknowledged("device.renew_session", Method::PUT, &segments)
    }

    /// Ends a session.
    pub fn close_session(&self, id: &SessionId) -> Operation<()> {
        let segments = ["sessions", id.as_str()];
        self.0.acknowledged("device.close_session", Method::DELETE, &segments)
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Device").field(self.id()).finish()
    }
}

/// Registers a device. Made with [`Client::create_device`].
///
/// # Errors
///
/// `InvalidArgument`: an empty name, or a key that is not 32 bytes in base64.
#[derive(Debug, Clone)]
#[must_use = "nothing is sent until awaited"]
pub struct CreateDevice {
    client: Client,
    request: wire::CreateDevice,
    options: RequestOptions,
}

impl CreateDevice {
    /// Its host name.
    pub fn hostname(mut self, hostname: impl Into<String>) -> Self {
        self.request.hostname = Some(hostname.into());
        self
    }

    /// Its operating system.
    pub fn os(mut self, os: impl Into<String>) -> Self {
        self.request.os = Some(os.into());
        self
    }

    /// Sets options of this call.
    pub fn with(mut self, options: RequestOptions) -> Self {
        self.options = self.options.overlaid(options);
        self
    }

    fn check(&self) -> Result<()> {
        check::name(&self.request.name)?;
        match STANDARD.decode(&self.request.pubkey) {
            Ok(key) if key.len() == 32 => Ok(()),
            _ => Err(Error::invalid_argument("pubkey", "is not 32 bytes in base64")),
        }
    }
}

impl IntoFuture for CreateDevice {
    type Output = Result<Device>;
    type IntoFuture = Pending<Device>;

    fn into_future(self) -> Pending<Device> {
        let checked = self.check();
        let call = self.client.call("device.create", Method::POST, &["v1", "devices"]);
        let client = self.client.clone();
        Operation::data(self.client, call)
            .json(&self.request)
            .checked(checked)
            .with(self.options)
            .map(|view| Device::seen(client, view))
            .into_future()
    }
}

impl Client {
    /// Registers a device with its WireGuard public key, 32 bytes in base64 (api.md 5.9).
    pub fn create_device(
        &self,
        name: impl Into<String>,
        pubkey: impl Into<String>,
    ) -> CreateDevice {
        let request = wire::CreateDevice::new(name, pubkey);
        CreateDevice { client: self.clone(), request, options: RequestOptions::new() }
    }

    /// The caller's devices (api.md 5.9).
    pub fn devices(&self) -> List<Device> {
        let call = self.call("device.list", Method::GET, &["v1", "devices"]);
        List::new(self.clone(), call, |client, view| Device::seen(client.clone(), view))
    }

    /// Looks a device up (api.md 5.9).
    pub fn get_device(&self, id: impl Into<DeviceId>) -> Operation<Device> {
        let id = id.into();
        let segments = ["v1", "devices", id.as_str()];
        let call = self.call("device.get", Method::GET, &segments).resource(&id);
        let client = self.clone();
        Operation::data(self.clone(), call).map(|view| Device::seen(client, view))
    }

    /// A handle to a device, without any traffic.
    pub fn device(&self, id: impl Into<DeviceId>) -> Device {
        Device::new(self.clone(), id.into(), None)
    }
}
