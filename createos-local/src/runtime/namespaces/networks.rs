//! Private networks of running sandboxes.

use createos_sdk::SandboxId;

use std::sync::Arc;

use super::{Init, Namespaces};
use crate::network_protocol::{Link, Subnet};
use crate::runtime::{Line, RuntimeError};

/// What private networks need of a machine.
pub(crate) const NETWORKS_REMEDY: &str = "use a kernel with network namespaces, virtual Ethernet \
     pairs (CONFIG_VETH) and a /proc/sys/net that can be written (in a container: --privileged)";

/// What lines to networks need of a machine.
pub(crate) const LINES_REMEDY: &str = "run the engine as root, or as a user who may open \
     /dev/net/tun (chmod 0666 /dev/net/tun), on a kernel with CONFIG_TUN (modprobe tun; in a \
     container: --device /dev/net/tun)";

impl Namespaces {
    /// Makes a line to the router of a private network.
    pub(crate) async fn line_to(
        &self,
        network: &str,
        subnet: Subnet,
    ) -> Result<Line, RuntimeError> {
        let warden = self.warden().await?;
        let (number, device) = warden.open_line(network, subnet).await?;
        // A line keeps no warden alive.
        let (router, closer) = (Arc::downgrade(&warden), Arc::downgrade(&warden));
        let is_dead = move || router.upgrade().is_none_or(|warden| warden.is_gone());
        let close = move || {
            closer.upgrade().inspect(|warden| warden.close_line(number));
        };
        Ok(Line::new(device, is_dead, close))
    }

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
