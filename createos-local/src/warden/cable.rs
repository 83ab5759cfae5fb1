//! A cable from a sandbox to the router of a private network, and the router itself.

use crate::failure::{Context, Result};
use crate::network_protocol::{DEVICES, LINE_MTU, Link, POOLS, Subnet};
use crate::probe::in_child;
use crate::sys::{self, Detour, Plug, Way};
use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, OwnedFd};

/// A network namespace that somebody else is in.
pub(crate) struct Place {
    namespace: OwnedFd,
    /// Changes what is in there.
    routes: OwnedFd,
}

/// Of a sandbox on a network.
#[derive(Clone)]
pub(crate) struct Cable {
    pub(crate) link: Link,
    /// Its name at the router.
    pub(crate) port: String,
}

/// What is to become of a sandbox's cables.
pub(crate) struct Change<'a> {
    pub(crate) places: &'a HashMap<String, Place>,
    pub(crate) gone: &'a [Cable],
    pub(crate) kept: &'a [Kept],
    pub(crate) fresh: &'a [Cable],
}

/// A cable that stays.
pub(crate) struct Kept {
    pub(crate) cable: Cable,
    /// The devices that were reached by it, until now.
    pub(crate) devices: Vec<Ipv4Addr>,
}

impl Kept {
    /// The cable as it was.
    pub(crate) fn before(&self) -> Cable {
        let mut cable = self.cable.clone();
        cable.link.devices.clone_from(&self.devices);
        cable
    }
}

/// Addresses that a sandbox keeps for its sockets, while these are saved.
const MOST_KEPT: usize = 64;

/// Settings of a router: from whom a packet says it is decides whether it is let through.
/// Turning forwarding on sets others, so it comes first. Each must read as it was written.
const ROUTER: [(&str, &str); 5] = [
    ("ipv4/ip_forward", "1"),
    ("ipv4/conf/all/rp_filter", "1"),
    ("ipv4/conf/default/rp_filter", "1"),
    ("ipv4/conf/all/accept_redirects", "0"),
    ("ipv4/conf/all/send_redirects", "0"),
];
/// Where there is no IPv6, there is nothing to turn off.
const NO_IPV6: [&str; 2] = ["ipv6/conf/all/disable_ipv6", "ipv6/conf/default/disable_ipv6"];

/// Goes to a network namespace, in a child that does not come back, and fetches what it
/// takes to work there.
pub(crate) fn reach(go: impl FnOnce() -> Result<()>) -> Result<Place> {
    let doing = "reach a network";
    let (ours, theirs) = sys::packet_pair().context(doing)?;
    let reason = in_child(|| {
        go()?;
        let namespace = File::open("/proc/self/ns/net").context(doing)?;
        let routes = sys::route_socket().context(doing)?;
        sys::send_packet(&theirs, &[0], Some(namespace.as_fd())).context(doing)?;
        sys::send_packet(&theirs, &[0], Some(routes.as_fd())).context(doing)
    })?;
    drop(theirs);
    if !reason.is_empty() {
        return Err(reason.into());
    }
    let fetch = || -> Result<OwnedFd> {
        let fetched = sys::receive_descriptor(&ours).context(doing)?;
        Ok(fetched.ok_or("nothing came back from a network")?)
    };
    let namespace = fetch()?;
    Ok(Place { namespace, routes: fetch()? })
}

/// Enters the network of a sandbox, which is to be a member of some network, or of none. An
/// ordinary user has rights only over sandboxes that it is in.
pub(crate) fn enter(pidfd: &OwnedFd, single_id: bool, is_member: bool) -> Result<()> {
    let user = if single_id { sys::NEW_USER } else { 0 };
    sys::join_namespaces(pidfd, user | sys::NEW_NET).context("enter the sandbox's network")?;
    // Who may send echo requests: everybody inside, as far as there are ids inside. Nobody,
    // as at first, where that is no use: CRIU cannot bring another setting back.
    let groups = match (is_member, single_id) {
        (false, _) => "1 0",
        (true, true) => "0 0",
        (true, false) => "0 2147483647",
    };
    let _ = fs::write("/proc/sys/net/ipv4/ping_group_range", groups);
    Ok(())
}

/// Enters a new network namespace and makes a router of it.
pub(crate) fn make_router(subnet: Subnet, single_id: bool) -> Result<()> {
    let user = if single_id { sys::NEW_USER } else { 0 };
    sys::unshare_namespaces(user | sys::NEW_NET).context("create a network namespace")?;
    for (name, value) in ROUTER {
        set(name, value)?;
    }
    for name in NO_IPV6 {
        match set(name, "1") {
            Err(_) if !fs::exists(path_of(name)).unwrap_or(true) => {}
            other => other?,
        }
    }
    let doing = "set up a network's router";
    sys::loopback_up().context(doing)?;
    let routes = sys::route_socket().context(doing)?;
    sys::add_own_address(&routes, subnet.gateway()).context(doing)?;
    // Whoever looks for a member that is not there is told at once.
    sys::set_route(&routes, subnet.first(), subnet.prefix(), &Way::Unreachable).context(doing)
}

/// Makes a line from the engine to a router: what it sends to devices can be read there. It
/// ends with the descriptor. In a child, which is to enter the router's network. What comes
/// for devices goes to the newest.
pub(crate) fn open_line(router: &Place, number: u64, single_id: bool) -> Result<OwnedFd> {
    let doing = "enter the router's network";
    if single_id {
        let owner = sys::owner_of_namespace(&router.namespace).context(doing)?;
        sys::enter_namespace(&owner).context(doing)?;
    }
    sys::enter_namespace(&router.namespace).context(doing)?;
    let name = format!("line{number}");
    let line = sys::make_tun(&name).context(&format!("make a tunnel with {}", sys::TUN_FILE))?;
    let doing = "set up a tunnel";
    let routes = sys::route_socket().context(doing)?;
    let index = sys::link_index(&routes, &name).context(doing)?;
    sys::raise_link_of(&routes, index, LINE_MTU).context(doing)?;
    sys::set_route(&routes, DEVICES.first(), DEVICES.prefix(), &Way::Link { index })
        .context(doing)?;
    Ok(line)
}

/// Addresses on private networks that sockets have in the network of this process.
fn addresses_in_use(pid: i32) -> BTreeSet<Ipv4Addr> {
    let tables = ["tcp", "tcp6", "udp", "udp6"].map(|table| format!("/proc/{pid}/net/{table}"));
    let tables = tables.iter().filter_map(|path| fs::read_to_string(path).ok());
    let used: BTreeSet<Ipv4Addr> = tables
        .flat_map(|table| table.lines().filter_map(local_address).collect::<Vec<_>>())
        .collect();
    let is_private = |address: &Ipv4Addr| POOLS.iter().any(|pool| pool.contains(*address));
    // Sockets may be bound to anything. More than this are some trick.
    used.into_iter().filter(is_private).take(MOST_KEPT).collect()
}

/// The IPv4 address in the second field of a line; words of this machine.
fn local_address(line: &str) -> Option<Ipv4Addr> {
    const MAPPED: &str = "0000000000000000FFFF0000";
    let (address, _) = line.split_ascii_whitespace().nth(1)?.split_once(':')?;
    let word = if address.len() == 8 { address } else { address.strip_prefix(MAPPED)? };
    Some(u32::from_str_radix(word, 16).ok()?.to_ne_bytes().into())
}

/// To the router of a network.
fn way_of(link: &Link, index: u32) -> Way {
    Way::Gateway { index, gateway: link.subnet.gateway(), source: link.address }
}

/// From an address on a network to devices. No two have one table.
fn detour(address: Ipv4Addr) -> Detour {
    let (network, prefix) = (DEVICES.first(), DEVICES.prefix());
    Detour { from: address, network, prefix, table: address.to_bits() }
}

fn path_of(name: &str) -> String {
    format!("/proc/sys/net/{name}")
}

fn set(name: &str, value: &str) -> Result<()> {
    let path = path_of(name);
    let read = fs::write(&path, value).and_then(|()| fs::read_to_string(&path));
    match read.context(&format!("set net/{name}"))?.trim() {
        now if now == value => Ok(()),
        now => Err(format!("the kernel keeps net/{name} at {now}").into()),
    }
}

impl Change<'_> {
    /// Makes the change, `inside` being the sandbox's end of it. Where that fails, what it has
    /// made is removed again. With a process to be saved, addresses stay, and those that its
    /// sockets have from other networks come back: only so can the sockets.
    pub(crate) fn apply(&self, inside: &Place, saved: Option<i32>) -> Result<()> {
        for cable in self.gone {
            self.pull(cable).context("leave a network")?;
        }
        match saved {
            Some(pid) => self.keep_used(inside, pid).context("keep addresses")?,
            None => self.remove_others(inside).context("take addresses away")?,
        }
        self.kept
            .iter()
            .try_for_each(|kept| self.redirect(kept, inside))
            .context("lead to the devices of a network")?;
        let joined = self.fresh.iter().try_for_each(|cable| self.plug(cable, inside));
        if joined.is_err() {
            for cable in self.fresh {
                let _ = self.pull(cable);
                let _ = sys::remove_detour(&inside.routes, &detour(cable.link.address));
                let _ = sys::remove_own_address(&inside.routes, cable.link.address);
            }
        }
        joined.context("join a network")
    }

    /// An answer to a device goes by the network that it was asked on, whatever others both
    /// are on; anything else to it, by one of those.
    fn lead_to_devices(&self, link: &Link, way: &Way, inside: &Place) -> io::Result<()> {
        let (first, prefix) = (DEVICES.first(), DEVICES.prefix());
        let detour = detour(link.address);
        match sys::set_route_in(&inside.routes, detour.table, first, prefix, way) {
            // As above: a kernel that has one table.
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {}
            other => other?,
        }
        sys::add_detour(&inside.routes, &detour)?;
        link.devices.iter().try_for_each(|at| sys::set_route(&inside.routes, *at, 32, way))
    }

    fn place_of(&self, cable: &Cable) -> io::Result<&Place> {
        self.places.get(&cable.link.network).ok_or(io::ErrorKind::NotFound.into())
    }

    fn pull(&self, cable: &Cable) -> io::Result<()> {
        sys::remove_link(&self.place_of(cable)?.routes, &cable.port)
    }

    /// Addresses on networks that it is not on any more, or that another sandbox had whose
    /// memory it began with.
    fn remove_others(&self, inside: &Place) -> io::Result<()> {
        let own = |address: Ipv4Addr| {
            let kept = self.kept.iter().map(|kept| &kept.cable);
            kept.chain(self.fresh).any(|cable| cable.link.address == address)
        };
        for address in sys::own_addresses(&inside.routes)? {
            if POOLS.iter().any(|pool| pool.contains(address)) && !own(address) {
                sys::remove_detour(&inside.routes, &detour(address))?;
                sys::remove_own_address(&inside.routes, address)?;
            }
        }
        Ok(())
    }

    /// Whom a cable that stays leads to.
    fn redirect(&self, kept: &Kept, inside: &Place) -> io::Result<()> {
        let link = &kept.cable.link;
        if link.devices == kept.devices {
            return Ok(());
        }
        let way = way_of(link, sys::link_index(&inside.routes, &link.interface)?);
        for device in kept.devices.iter().filter(|device| !link.devices.contains(device)) {
            sys::remove_route(&inside.routes, *device, 32, &way)?;
        }
        link.devices.iter().try_for_each(|at| sys::set_route(&inside.routes, *at, 32, &way))
    }

    fn keep_used(&self, inside: &Place, pid: i32) -> io::Result<()> {
        for address in addresses_in_use(pid) {
            sys::add_own_address(&inside.routes, address)?;
            for pool in POOLS.iter().filter(|pool| pool.contains(address)) {
                let way = Way::Last { source: address };
                sys::set_route(&inside.routes, pool.first(), pool.prefix(), &way)?;
            }
        }
        Ok(())
    }

    fn plug(&self, cable: &Cable, inside: &Place) -> io::Result<()> {
        let (Cable { link, port }, router) = (cable, self.place_of(cable)?);
        let [a, b, c, d] = link.address.octets();
        let mac = [0x02, 0, a, b, c, d];
        let add = |name: &str| {
            let (near, far) = (Plug { name: port, mac }, Plug { name, mac });
            sys::add_cable(&router.routes, &near, &far, &inside.namespace)
        };
        let spare = format!("cos-{port}");
        let interface = match add(&link.interface) {
            // Who nests may have made one of that name.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                add(&spare).map(|()| &spare)
            }
            added => added.map(|()| &link.interface),
        }?;
        // Not the cable's, but the machine's own: what is bound to it stays so when the cable
        // goes, and is saved with the processes.
        sys::add_own_address(&inside.routes, link.address)?;
        let (first, prefix, source) = (link.subnet.first(), link.subnet.prefix(), link.address);
        let index = sys::link_index(&inside.routes, interface)?;
        sys::raise_link(&inside.routes, index)?;
        let way = way_of(link, index);
        sys::set_route(&inside.routes, first, prefix, &way)?;
        self.lead_to_devices(link, &way, inside)?;
        // Connections to other members come back, with the processes that were saved, before
        // the cable does.
        sys::set_route(&inside.routes, first, prefix, &Way::Last { source })?;
        let index = sys::link_index(&router.routes, port)?;
        sys::set_route(&router.routes, link.address, 32, &Way::Link { index })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_sockets_are_read() {
        let four = "   0: 0200400A:1F42 00000000:0000 0A 00000000:00000000 00:00000000 00000000";
        assert_eq!(local_address(four), Some(Ipv4Addr::new(10, 64, 0, 2)));
        let mapped = "  1: 0000000000000000FFFF00000200400A:1F40 0:0 0A";
        assert_eq!(local_address(mapped), Some(Ipv4Addr::new(10, 64, 0, 2)));
        for other in
            ["  sl  local_address rem_address", "", "0: 00000000000000000000000001000000:1 x"]
        {
            assert_eq!(local_address(other), None, "{other}");
        }
    }
}
