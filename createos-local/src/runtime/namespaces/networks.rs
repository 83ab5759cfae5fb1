//! Private networks of running sandboxes.

use createos_sdk::SandboxId;

use super::{Init, Namespaces};
use crate::network_protocol::Link;
use crate::runtime::RuntimeError;

/// What private networks need of a machine.
pub(crate) const NETWORKS_REMEDY: &str = "use a kernel with network namespaces, virtual Ethernet \
     pairs (CONFIG_VETH) and a /proc/sys/net that can be written (in a container: --privileged)";

impl Namespaces {
    /// Puts a running sandbox on these networks and no others.
    pub(crate) async fn link_machine(
        &self,
        id: &SandboxId,
        links: Vec<Link>,
    ) -> Result<(), RuntimeError> {
        let init = self.init_of(id)?;
        self.set_links(id, &init, links.clone(), false).await?;
        *init.links.lock().await = Some(links);
        Ok(())
    }

    /// Takes a sandbox off its networks for as long as its processes are being saved; its
    /// addresses are saved with them.
    pub(super) async fn unplug(&self, id: &SandboxId, init: &Init) -> Result<(), RuntimeError> {
        match *init.links.lock().await {
            Some(_) => self.set_links(id, init, Vec::new(), true).await,
            None => Ok(()),
        }
    }

    /// Puts it back.
    pub(super) async fn plug_in_again(
        &self,
        id: &SandboxId,
        init: &Init,
    ) -> Result<(), RuntimeError> {
        match init.links.lock().await.clone() {
            Some(links) => self.set_links(id, init, links, false).await,
            None => Ok(()),
        }
    }

    async fn set_links(
        &self,
        id: &SandboxId,
        init: &Init,
        links: Vec<Link>,
        keep_addresses: bool,
    ) -> Result<(), RuntimeError> {
        let set = self.warden().await?.set_links(id.as_str(), links, keep_addresses).await;
        set.map_err(|error| match error {
            _ if !init.is_alive() => RuntimeError::Unreachable("the sandbox has ended".to_owned()),
            other => other,
        })
    }
}
