//! The tables of devices and of the networks they are attached to.

use std::net::Ipv4Addr;
use std::time::SystemTime;

use createos_sdk::{DeviceId, NetworkId};
use rusqlite::{Connection, ErrorCode, OptionalExtension, Row, params};

use super::record::{from_micros, text, to_micros};
use super::{Store, StoreError};
use crate::network_protocol::Subnet;
use crate::vpn::Reach;

/// Devices have addresses of 100.64.0.0/10; the first is nobody's.
const FIRST_ADDRESS: u32 = 0x6440_0002;
const LAST_ADDRESS: u32 = 0x647F_FFFE;

/// What a device says of itself.
#[derive(Debug, Clone)]
pub(crate) struct NewDevice {
    pub(crate) id: DeviceId,
    pub(crate) name: String,
    /// In base64, in one spelling.
    pub(crate) pubkey: String,
    pub(crate) hostname: Option<String>,
    pub(crate) os: Option<String>,
}

/// A registered device.
#[derive(Debug, Clone)]
pub(crate) struct Device {
    pub(crate) spec: NewDevice,
    pub(crate) ip: Ipv4Addr,
    pub(crate) created_at: SystemTime,
    /// When something was last heard of it.
    pub(crate) seen: Option<SystemTime>,
}

/// A network that a device is attached to.
#[derive(Debug, Clone)]
pub(crate) struct DeviceLink {
    pub(crate) network: NetworkId,
    pub(crate) name: String,
    pub(crate) attached_at: SystemTime,
}

/// Why a device was not registered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DeviceError {
    #[error("the key is another device's")]
    KeyTaken,
    #[error("there are {0} devices already")]
    TooMany(u64),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<rusqlite::Error> for DeviceError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Store(error.into())
    }
}

const COLUMNS: &str = "id, name, pubkey, hostname, os, ip, created_at, seen";

impl Device {
    fn from_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            spec: NewDevice {
                id: text(row, 0, |word| word.parse().ok())?,
                name: row.get(1)?,
                pubkey: row.get(2)?,
                hostname: row.get(3)?,
                os: row.get(4)?,
            },
            ip: text(row, 5, |word| word.parse().ok())?,
            created_at: from_micros(row.get(6)?),
            seen: row.get::<_, Option<i64>>(7)?.map(from_micros),
        })
    }
}

impl Store {
    /// Writes a new device and gives it an address, unless there are `at_most` already.
    pub(crate) async fn insert_device(
        &self,
        new: NewDevice,
        at_most: u64,
    ) -> Result<Device, DeviceError> {
        self.call(move |connection| insert(connection, &new, at_most)).await
    }

    pub(crate) async fn device(&self, id: &DeviceId) -> Result<Option<Device>, StoreError> {
        let id = id.clone();
        self.call(move |connection| {
            let sql = format!("SELECT {COLUMNS} FROM devices WHERE id = ?1");
            let mut statement = connection.prepare_cached(&sql)?;
            Ok(statement.query_row([id.as_str()], Device::from_row).optional()?)
        })
        .await
    }

    /// A page of all devices, the newest first, and how many there are.
    pub(crate) async fn devices(
        &self,
        limit: u32,
        offset: u64,
    ) -> Result<(Vec<Device>, u64), StoreError> {
        self.call(move |connection| {
            let total = connection.query_row("SELECT count(*) FROM devices", [], |r| r.get(0))?;
            let sql = format!(
                "SELECT {COLUMNS} FROM devices ORDER BY created_at DESC, id DESC LIMIT ?1 OFFSET ?2"
            );
            let offset = i64::try_from(offset).unwrap_or(i64::MAX);
            let mut statement = connection.prepare_cached(&sql)?;
            let rows = statement.query_map(params![limit, offset], Device::from_row)?;
            Ok((rows.collect::<Result<_, _>>()?, total))
        })
        .await
    }

    /// Removes a device and its place on networks; false when there is none.
    pub(crate) async fn remove_device(&self, id: &DeviceId) -> Result<bool, StoreError> {
        let id = id.clone();
        self.call(move |connection| {
            Ok(connection.execute("DELETE FROM devices WHERE id = ?1", [id.as_str()])? > 0)
        })
        .await
    }

    /// Notes that something was heard of a device.
    pub(crate) async fn set_seen(&self, id: &DeviceId, at: SystemTime) -> Result<(), StoreError> {
        let id = id.clone();
        self.call(move |connection| {
            let sql = "UPDATE devices SET seen = max(?2, coalesce(seen, 0)) WHERE id = ?1";
            connection.execute(sql, params![id.as_str(), to_micros(at)])?;
            Ok(())
        })
        .await
    }

    /// Where a device is attached, the first attached first.
    pub(crate) async fn reaches(&self, device: &DeviceId) -> Result<Vec<Reach>, StoreError> {
        let device = device.clone();
        self.call(move |connection| {
            let mut statement = connection.prepare_cached(
                "SELECT n.id, n.subnet, n.prefix
                 FROM device_networks d JOIN networks n ON n.id = d.network
                 WHERE d.device = ?1 ORDER BY d.attached_at, n.id",
            )?;
            let rows = statement.query_map([device.as_str()], |row| {
                let first: Ipv4Addr = text(row, 1, |word| word.parse().ok())?;
                let subnet = Subnet::new(first.octets(), row.get(2)?);
                Ok(Reach { network: row.get(0)?, subnet })
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// Attaches a device to a network, unless it is; false when one of them is not there.
    pub(crate) async fn attach_device(
        &self,
        device: &DeviceId,
        network: &NetworkId,
    ) -> Result<bool, StoreError> {
        let (device, network) = (device.clone(), network.clone());
        self.call(move |connection| {
            let attached = connection.execute(
                "INSERT INTO device_networks (device, network, attached_at) VALUES (?1, ?2, ?3)
                 ON CONFLICT DO NOTHING",
                params![device.as_str(), network.as_str(), to_micros(SystemTime::now())],
            );
            match attached {
                Ok(_) => Ok(true),
                Err(error) if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => {
                    Ok(false)
                }
                Err(error) => Err(error.into()),
            }
        })
        .await
    }

    /// False when it was not attached.
    pub(crate) async fn detach_device(
        &self,
        device: &DeviceId,
        network: &NetworkId,
    ) -> Result<bool, StoreError> {
        let (device, network) = (device.clone(), network.clone());
        self.call(move |connection| {
            let sql = "DELETE FROM device_networks WHERE device = ?1 AND network = ?2";
            Ok(connection.execute(sql, [device.as_str(), network.as_str()])? > 0)
        })
        .await
    }

    /// The networks of a device, the first attached first.
    pub(crate) async fn device_links(
        &self,
        device: &DeviceId,
    ) -> Result<Vec<DeviceLink>, StoreError> {
        let device = device.clone();
        self.call(move |connection| {
            let mut statement = connection.prepare_cached(
                "SELECT n.id, n.name, d.attached_at
                 FROM device_networks d JOIN networks n ON n.id = d.network
                 WHERE d.device = ?1 ORDER BY d.attached_at, n.id",
            )?;
            let rows = statement.query_map([device.as_str()], |row| {
                Ok(DeviceLink {
                    network: text(row, 0, |word| word.parse().ok())?,
                    name: row.get(1)?,
                    attached_at: from_micros(row.get(2)?),
                })
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }
}

/// The addresses of the devices that are attached to a network.
pub(super) fn devices_on(
    connection: &Connection,
    network: &str,
) -> rusqlite::Result<Vec<Ipv4Addr>> {
    let mut statement = connection.prepare_cached(
        "SELECT d.ip FROM device_networks n JOIN devices d ON d.id = n.device
         WHERE n.network = ?1 ORDER BY d.ip",
    )?;
    let rows = statement.query_map([network], |row| text(row, 0, |word| word.parse().ok()))?;
    rows.collect()
}

fn insert(
    connection: &mut Connection,
    new: &NewDevice,
    at_most: u64,
) -> Result<Device, DeviceError> {
    let transaction = connection.transaction()?;
    let count: u64 = transaction.query_row("SELECT count(*) FROM devices", [], |r| r.get(0))?;
    if count >= at_most {
        return Err(DeviceError::TooMany(count));
    }
    let ip = {
        let mut taken = transaction.prepare_cached("SELECT 1 FROM devices WHERE ip = ?1")?;
        let mut free = None;
        for bits in FIRST_ADDRESS..=LAST_ADDRESS {
            let address = Ipv4Addr::from_bits(bits);
            if !taken.exists([address.to_string()])? {
                free = Some(address);
                break;
            }
        }
        free.ok_or(DeviceError::TooMany(count))?
    };
    let sql = format!(
        "INSERT INTO devices (id, name, pubkey, hostname, os, ip, created_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) RETURNING {COLUMNS}"
    );
    let now = to_micros(SystemTime::now());
    let NewDevice { id, name, pubkey, hostname, os } = new;
    let values = params![id.as_str(), name, pubkey, hostname, os, ip.to_string(), now];
    let inserted = transaction.prepare_cached(&sql)?.query_row(values, Device::from_row);
    let device = inserted.map_err(|error| match error.sqlite_error_code() {
        // The address is free, and the id is fresh.
        Some(ErrorCode::ConstraintViolation) => DeviceError::KeyTaken,
        _ => error.into(),
    })?;
    transaction.commit()?;
    Ok(device)
}
