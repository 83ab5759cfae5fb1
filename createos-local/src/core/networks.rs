//! Private networks, and joining and leaving them (api.md 4.16, 5.6, 6.6, 7.3).

use std::collections::BTreeSet;

use createos_sdk::wire::NetworkRef;
use createos_sdk::{NetworkId, SandboxId};
use futures::future::join_all;
use ulid::Ulid;

use super::private_names::Known;
use super::{Core, CoreError, State, validate};
use crate::network_protocol::{Link, Subnet};
use crate::runtime::{RuntimeError, Saved};
use crate::store::{Join, Member, Network, NetworkError, Removal, Sandbox};

/// How many networks one sandbox can be on.
const MOST_LINKS: u64 = 16;

impl Core {
    pub(crate) async fn create_network(&self, name: &str) -> Result<Network, CoreError> {
        if let Err(why) = validate::network_name(name) {
            return Err(CoreError::field("name", why));
        }
        let id = format!("net-{}", Ulid::new().to_string().to_lowercase());
        let id = id.parse().map_err(|_| CoreError::Internal("no id could be made".to_owned()))?;
        let (occupied, quota) = (host_routes(), self.tuning().max_networks);
        let inserted = self.inner.store.insert_network(id, name.to_owned(), occupied, quota);
        inserted.await.map_err(|error| match error {
            NetworkError::NameTaken => CoreError::field(
                "name",
                format!("the name {name:?} is taken by another network; choose another one"),
            ),
            NetworkError::TooMany(count) => CoreError::Forbidden {
                field: "networks",
                message: format!("{count} networks are as many as can be; delete some"),
            },
            NetworkError::NoAddresses => CoreError::NoCapacity(
                "every range of private addresses is in use, by other networks or on this \
                 machine; delete some networks"
                    .to_owned(),
            ),
            NetworkError::Store(error) => error.into(),
        })
    }

    /// The network of this id or name.
    pub(crate) async fn network(&self, key: &str) -> Result<Network, CoreError> {
        self.inner.store.network(key).await?.ok_or_else(|| unknown("network", key))
    }

    pub(crate) async fn networks(
        &self,
        limit: u32,
        offset: u64,
    ) -> Result<(Vec<Network>, u64), CoreError> {
        Ok(self.inner.store.networks(limit, offset).await?)
    }

    pub(crate) async fn members(&self, network: &NetworkId) -> Result<Vec<Member>, CoreError> {
        Ok(self.inner.store.members(network).await?)
    }

    pub(crate) async fn remove_network(&self, key: &str) -> Result<(), CoreError> {
        let network = self.network(key).await?;
        match self.inner.store.remove_network(&network.id).await? {
            Removal::Removed => {
                self.forget_network(&network.id);
                Ok(())
            }
            Removal::Unknown => Err(unknown("network", key)),
            Removal::InUse(members) => Err(CoreError::Conflict(format!(
                "the network has {members} members; detach or destroy them first"
            ))),
        }
    }

    /// Puts a running sandbox on a network. On one that it is on nothing happens.
    pub(crate) async fn attach_network(&self, id: &SandboxId, key: &str) -> Result<(), CoreError> {
        let network = self.network(key).await?;
        let (core, id) = (self.clone(), id.clone());
        self.run_to_end(async move { core.attach(&id, &network).await })?.await
    }

    async fn attach(&self, id: &SandboxId, network: &Network) -> Result<(), CoreError> {
        let slot = self.inner.slots.get(id);
        let _work = slot.work().await;
        match self.join(id, network, State::Running).await? {
            Join::Already => return Ok(()),
            joined => check(joined, network)?,
        }
        let links = self.inner.store.links(id).await?;
        if let Err(error) = self.inner.runtime.set_links(id, links).await {
            self.inner.store.leave(id, &network.id).await?;
            return Err(error.into());
        }
        self.inner.store.set_linked(id).await?;
        self.name(id).await
    }

    async fn join(&self, id: &SandboxId, to: &Network, state: State) -> Result<Join, CoreError> {
        Ok(self.inner.store.join(id, &to.id, &[state], MOST_LINKS).await?)
    }

    /// Takes a sandbox off a network.
    pub(crate) async fn detach_network(&self, id: &SandboxId, key: &str) -> Result<(), CoreError> {
        self.get_existing(id).await?;
        let network = self.network(key).await?;
        let (core, id) = (self.clone(), id.clone());
        self.run_to_end(async move { core.detach(&id, &network).await })?.await
    }

    async fn detach(&self, id: &SandboxId, network: &Network) -> Result<(), CoreError> {
        // It is off its networks from the first step of a destroy on.
        if self.get_existing(id).await?.state == State::Destroying {
            return Ok(());
        }
        let slot = self.inner.slots.get(id);
        let _work = slot.work().await;
        let sandbox = self.get_existing(id).await?;
        match sandbox.state {
            State::Destroying => return Ok(()),
            State::Creating => {
                return Err(CoreError::Conflict("sandbox is creating".to_owned()));
            }
            _ => {}
        }
        let (leaving, staying): (Vec<Link>, Vec<Link>) = {
            let links = self.inner.store.links(id).await?;
            links.into_iter().partition(|link| link.network == network.id.as_str())
        };
        if leaving.is_empty() {
            let message = format!("the sandbox is not on the network {}", network.name);
            return Err(CoreError::NoSuch { field: "network", message });
        }
        if has_machine(&sandbox) {
            match self.inner.runtime.set_links(id, staying).await {
                // Its end is about to be written down.
                Ok(()) | Err(RuntimeError::Unreachable(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.inner.store.leave(id, &network.id).await?;
        self.name(id).await
    }

    /// Leads the members of a network to the devices that are attached to it, and to no others.
    /// What cannot be told of them now, they learn when they begin to run.
    pub(super) async fn lead_to_devices(&self, network: &NetworkId) -> Result<(), CoreError> {
        let members = self.inner.store.members(network).await?;
        let members = members.iter().map(async |member| {
            let id = &member.sandbox;
            let slot = self.inner.slots.get(id);
            let _work = slot.work().await;
            let Ok(sandbox) = self.get_existing(id).await else { return Ok(()) };
            if !has_machine(&sandbox) {
                return Ok(());
            }
            let links = self.inner.store.links(id).await?;
            if let Err(error) = self.inner.runtime.set_links(id, links).await {
                tracing::warn!(sandbox = %id, %error, "a sandbox is not led to devices");
            }
            Ok::<(), CoreError>(())
        });
        join_all(members).await.into_iter().collect()
    }

    /// Makes known by which names a sandbox is reached on its networks.
    async fn name(&self, id: &SandboxId) -> Result<(), CoreError> {
        let places = self.inner.store.places(Some(id)).await?;
        let name = places.first().map(|(_, name, _)| name.clone()).unwrap_or_default();
        let places = places.into_iter().map(|(_, _, place)| place).collect();
        self.inner.private_names.set(id, Known { name, places });
        Ok(())
    }

    /// The names that an earlier engine has given.
    pub(super) async fn learn_names(&self) -> Result<(), CoreError> {
        let places = self.inner.store.places(None).await?;
        let ids: BTreeSet<&SandboxId> = places.iter().map(|(id, ..)| id).collect();
        for id in ids {
            self.name(id).await?;
        }
        Ok(())
    }

    /// The networks that a new sandbox is to be on, each once.
    pub(super) async fn find_networks(
        &self,
        wanted: &[NetworkRef],
    ) -> Result<Vec<Network>, CoreError> {
        let mut found: Vec<Network> = Vec::new();
        for NetworkRef { id: key, .. } in wanted {
            let network = self.inner.store.network(key).await?;
            let network = network.ok_or_else(|| unknown("networks", key))?;
            if !found.iter().any(|other| other.id == network.id) {
                found.push(network);
            }
        }
        if found.len() as u64 > MOST_LINKS {
            let message = format!("a sandbox can be on {MOST_LINKS} networks at most");
            return Err(CoreError::field("networks", message));
        }
        Ok(found)
    }

    /// Gives a sandbox that is being created its places on networks.
    pub(super) async fn reserve(
        &self,
        id: &SandboxId,
        networks: &[Network],
    ) -> Result<(), CoreError> {
        for network in networks {
            check(self.join(id, network, State::Creating).await?, network)?;
        }
        if networks.is_empty() { Ok(()) } else { self.name(id).await }
    }

    /// Puts a sandbox that has just begun to run on its networks, and off others that its
    /// memory has from another life or another sandbox.
    pub(super) async fn link(&self, sandbox: &Sandbox) -> Result<(), RuntimeError> {
        let links = self.inner.store.links(sandbox.id()).await;
        let links = links.map_err(|error| RuntimeError::Io {
            context: "cannot read its networks".to_owned(),
            source: std::io::Error::other(error),
        })?;
        if links.is_empty() && sandbox.saved != Some(Saved::Memory) {
            return Ok(());
        }
        self.inner.runtime.set_links(sandbox.id(), links).await
    }
}

fn unknown(field: &'static str, key: &str) -> CoreError {
    CoreError::NoSuch { field, message: format!("network not found: {}", validate::shown(key)) }
}

/// Whether there is a machine that is on networks: one that runs, or stands still.
fn has_machine(sandbox: &Sandbox) -> bool {
    match sandbox.state {
        State::Running => true,
        State::Paused => sandbox.saved == Some(Saved::Frozen),
        _ => false,
    }
}

fn check(joined: Join, network: &Network) -> Result<(), CoreError> {
    match joined {
        Join::Joined | Join::Already => Ok(()),
        Join::Refused(State::Destroyed) => Err(CoreError::NoSandbox),
        Join::Refused(state) => {
            Err(CoreError::Conflict(format!("sandbox is not running; it is {state}")))
        }
        Join::NoSandbox => Err(CoreError::NoSandbox),
        Join::NoNetwork => Err(unknown("network", network.id.as_str())),
        Join::Full => Err(CoreError::NoCapacity(format!(
            "every address of the network {} is in use",
            network.name
        ))),
        Join::TooMany => Err(CoreError::Forbidden {
            field: "network",
            message: format!("the sandbox is on {MOST_LINKS} networks already; detach one"),
        }),
    }
}

/// Where this machine's own packets go, but for the way to everywhere.
fn host_routes() -> Vec<Subnet> {
    let table = std::fs::read_to_string("/proc/net/route").unwrap_or_default();
    table.lines().skip(1).filter_map(host_route).filter(|subnet| subnet.prefix() > 0).collect()
}

/// A line of the kernel's table; addresses in it are words of this machine.
fn host_route(line: &str) -> Option<Subnet> {
    let mut fields = line.split_ascii_whitespace();
    let mut word = |at| u32::from_str_radix(fields.nth(at)?, 16).ok();
    let (first, mask) = (word(1)?, word(5)?);
    let prefix = u8::try_from(u32::from_be(mask).count_ones()).ok()?;
    Some(Subnet::new(first.to_ne_bytes(), prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_of_the_machine_are_read() {
        let line = "eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0";
        assert_eq!(host_route(line), Some(Subnet::new([192, 0, 2, 0], 24)));
        let default = host_route("eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0");
        assert_eq!(default.map(Subnet::prefix), Some(0));
        assert_eq!(host_route("Iface\tDestination"), None);
    }
}
