//! Devices that join private networks (api.md 5.9).

use serde::{Deserialize, Serialize};

use crate::id::{DeviceId, NetworkId, SessionId};
use crate::time::Timestamp;

/// Body that registers a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CreateDevice {
    /// Its name.
    pub name: String,
    /// Its WireGuard public key: 32 bytes in base64.
    pub pubkey: String,
    /// Its host name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Its operating system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub os: Option<String>,
}

impl CreateDevice {
    /// A device with this public key.
    pub fn new(name: impl Into<String>, pubkey: impl Into<String>) -> Self {
        Self { name: name.into(), pubkey: pubkey.into(), hostname: None, os: None }
    }
}

/// A device as the server describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DeviceView {
    /// Its id.
    pub id: DeviceId,
    /// Its name.
    pub name: String,
    /// Its address in the private networks.
    pub client_ip: String,
    /// Its WireGuard public key.
    pub pubkey: String,
    /// When it was registered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Timestamp>,
    /// Its host name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Its operating system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub os: Option<String>,
    /// When it was last connected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen_at: Option<Timestamp>,
}

impl DeviceView {
    /// A device that was never connected.
    pub fn new(
        id: DeviceId,
        name: impl Into<String>,
        client_ip: impl Into<String>,
        pubkey: impl Into<String>,
        created_at: Timestamp,
    ) -> Self {
        Self {
            id,
            name: name.into(),
            client_ip: client_ip.into(),
            pubkey: pubkey.into(),
            created_at: Some(created_at),
            hostname: None,
            os: None,
            last_seen_at: None,
        }
    }
}

/// Body that attaches a device to a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct AttachDeviceNetwork {
    /// Network id or name.
    pub network_id: String,
}

impl AttachDeviceNetwork {
    /// Names a network by id or name.
    pub fn new(network_id: impl Into<String>) -> Self {
        Self { network_id: network_id.into() }
    }
}

/// A network that a device is attached to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DeviceNetwork {
    /// The network.
    pub network_id: NetworkId,
    /// Its name.
    pub network_name: String,
    /// Since when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attached_at: Option<Timestamp>,
}

impl DeviceNetwork {
    /// An attachment.
    pub fn new(network_id: NetworkId, network_name: impl Into<String>, at: Timestamp) -> Self {
        Self { network_id, network_name: network_name.into(), attached_at: Some(at) }
    }
}

/// A connection of a device, for as long as it is renewed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DeviceSession {
    /// Its id.
    pub session_id: SessionId,
    /// The device.
    pub device_id: DeviceId,
    /// The host that relays its traffic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relay_host_id: Option<String>,
    /// WireGuard configuration, without the private key.
    pub client_config: String,
    /// When it ends unless it is renewed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
}

impl DeviceSession {
    /// A session that ends at this moment.
    pub fn new(
        session_id: SessionId,
        device_id: DeviceId,
        relay_host_id: impl Into<String>,
        client_config: impl Into<String>,
        expires_at: Timestamp,
    ) -> Self {
        Self {
            session_id,
            device_id,
            relay_host_id: Some(relay_host_id.into()),
            client_config: client_config.into(),
            expires_at: Some(expires_at),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::golden::both_ways;
    use super::*;

    #[test]
    fn devices_go_both_ways() {
        both_ways::<CreateDevice>(
            r#"{"name":"laptop","pubkey":"AAAA","hostname":"h","os":"linux"}"#,
        );
        assert_eq!(
            both_ways::<CreateDevice>(r#"{"name":"laptop","pubkey":"AAAA"}"#),
            CreateDevice::new("laptop", "AAAA")
        );
        both_ways::<DeviceView>(
            r#"{"id":"dev-1","name":"laptop","client_ip":"100.64.0.2","pubkey":"AAAA",
            "created_at":"2026-08-02T10:00:00Z","hostname":"h","os":"linux",
            "last_seen_at":"2026-08-02T11:00:00Z"}"#,
        );
        both_ways::<AttachDeviceNetwork>(r#"{"network_id":"mesh"}"#);
        both_ways::<DeviceNetwork>(
            r#"{"network_id":"net-1","network_name":"mesh","attached_at":"2026-08-02T10:00:00Z"}"#,
        );
        both_ways::<DeviceSession>(
            r#"{"session_id":"ses-1","device_id":"dev-1","relay_host_id":"host-1",
            "client_config":"[Interface]\n","expires_at":"2026-08-02T10:00:00Z"}"#,
        );
    }
}
