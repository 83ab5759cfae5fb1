//! Settings of a sandbox that change while it lives.

use createos_sdk::SandboxId;
use rusqlite::{Connection, OptionalExtension, named_params};

use super::record::{SELECTED, to_json};
use super::sandboxes::get;
use super::{Sandbox, Store, StoreError};
use crate::core::State;

/// What a change of settings came to.
#[derive(Debug)]
pub(crate) enum Setting {
    Changed(Sandbox),
    /// It is in a state that allows no such change.
    Refused(Sandbox),
    Unknown,
}

impl Store {
    /// Adds the keys that a sandbox does not have yet.
    pub(crate) async fn add_ssh_pubkeys(
        &self,
        id: &SandboxId,
        states: &[State],
        keys: Vec<String>,
    ) -> Result<Setting, StoreError> {
        self.set(id, states, move |sandbox| {
            for key in keys {
                if !sandbox.spec.ssh_pubkeys.contains(&key) {
                    sandbox.spec.ssh_pubkeys.push(key);
                }
            }
        })
        .await
    }

    /// Opens or closes a sandbox's ports to visitors.
    pub(crate) async fn set_ingress(
        &self,
        id: &SandboxId,
        states: &[State],
        enabled: bool,
    ) -> Result<Setting, StoreError> {
        self.set(id, states, move |sandbox| sandbox.spec.ingress_enabled = enabled).await
    }

    /// Sets or clears the idle seconds after which a sandbox pauses by itself.
    pub(crate) async fn set_auto_pause(
        &self,
        id: &SandboxId,
        states: &[State],
        seconds: Option<u64>,
    ) -> Result<Setting, StoreError> {
        self.set(id, states, move |sandbox| sandbox.spec.auto_pause_seconds = seconds).await
    }

    /// Replaces the outbound rules.
    pub(crate) async fn set_egress(
        &self,
        id: &SandboxId,
        states: &[State],
        rules: Vec<String>,
    ) -> Result<Setting, StoreError> {
        self.set(id, states, move |sandbox| sandbox.spec.egress = rules).await
    }

    /// Notes the size of a sandbox's disk.
    pub(crate) async fn set_disk(
        &self,
        id: &SandboxId,
        states: &[State],
        mib: u64,
    ) -> Result<Setting, StoreError> {
        self.set(id, states, move |sandbox| sandbox.spec.disk_mib = mib).await
    }

    /// Reads, changes and writes a sandbox's settings as one step.
    async fn set(
        &self,
        id: &SandboxId,
        states: &[State],
        change: impl FnOnce(&mut Sandbox) + Send + 'static,
    ) -> Result<Setting, StoreError> {
        let (id, states) = (id.clone(), states.to_vec());
        self.call(move |connection| {
            let transaction = connection.transaction()?;
            let mut sandbox = match get(&transaction, &id)? {
                Some(sandbox) if states.contains(&sandbox.state) => sandbox,
                Some(sandbox) => return Ok(Setting::Refused(sandbox)),
                None => return Ok(Setting::Unknown),
            };
            change(&mut sandbox);
            let written = write(&transaction, &sandbox)?;
            transaction.commit()?;
            Ok(written.map_or(Setting::Unknown, Setting::Changed))
        })
        .await
    }
}

fn write(connection: &Connection, sandbox: &Sandbox) -> Result<Option<Sandbox>, StoreError> {
    let sql = format!(
        "UPDATE sandboxes SET ssh_pubkeys = :ssh_pubkeys, ingress_enabled = :ingress_enabled,
             auto_pause_after_seconds = :auto_pause,
             disk_mib = :disk_mib, egress = :egress
         WHERE id = :id RETURNING {SELECTED}"
    );
    let values = named_params! {
        ":id": sandbox.id().as_str(),
        ":ssh_pubkeys": to_json(&sandbox.spec.ssh_pubkeys)?,
        ":ingress_enabled": sandbox.spec.ingress_enabled,
        ":auto_pause": sandbox.spec.auto_pause_seconds,
        ":disk_mib": sandbox.spec.disk_mib,
        ":egress": to_json(&sandbox.spec.egress)?,
    };
    Ok(connection.prepare_cached(&sql)?.query_row(values, Sandbox::from_row).optional()?)
}
