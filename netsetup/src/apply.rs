//! The plan made real, and undone: the caller's child waits meanwhile, so system calls are few and each batch of
//! requests is one.

use std::net::IpAddr;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use nix::errno::Errno;

use crate::attend::{Attendant, Duty, Follow};
use crate::check::{holder_of, is_ours};
use crate::config::Forward;
use crate::error::{Error, Errors, Holder, KernelError, Result};
use crate::facts::NetPaths;
use crate::follow::Addresses;
use crate::moved;
use crate::netns;
use crate::nft;
use crate::plan::{ContainerEnd, HostEnd, NetworkPlan, SubLinkKind, SubLinkPlan, VethPlan};
use crate::reclaim::delete_link_of;
use crate::rejoin::{Port, Ports};
use crate::relay::{RelayPlan, Relays, Targets};
use crate::route::{addr, link, route};
use crate::shared::{Registration, Shared};
use crate::socket::{Batch, Route, Socket};
use crate::sysctl::Sysctls;
use crate::zone;

/// Index of the loopback link in every network namespace (`LOOPBACK_IFINDEX`).
const LOOPBACK: u32 = 1;
/// How long a link of a dying earlier instance may keep its name.
const NAME_TIMEOUT: Duration = Duration::from_secs(2);

/// A container's network that is in place. Dropping it undoes everything, unless [`Applied::keep`] was called.
#[derive(Debug)]
#[must_use = "dropping it removes the network"]
pub struct Applied {
    paths: NetPaths,
    container: String,
    registration: Option<Registration>,
    /// The host's ends.
    links: Vec<String>,
    /// The bridge that goes with its last port.
    zone: Option<String>,
    /// MACVLAN and IPVLAN links, and a socket in the namespace they are in.
    sub_links: Option<(Socket<Route>, Vec<String>)>,
    /// Those of them that are on bridges.
    ports: Vec<Port>,
    forwards: Forwards,
    attendant: Option<Attendant>,
    armed: bool,
}

/// What [`Applied::attend`] is to look after.
#[derive(Debug)]
struct Forwards {
    relays: Vec<RelayPlan>,
    targets: Targets,
    /// Where they follow the container's addresses: the forwards, and what hears of changes.
    follow: Option<(Vec<Forward>, Addresses)>,
}

/// Makes the network of a container in its network namespace `netns`, which is new and empty, and around it on
/// the host, in the calling thread's network namespace. The caller holds the container's own lock, so no other
/// instance of it runs.
///
/// # Errors
/// When the kernel refuses anything; when an address, a port or a link's name was taken since the plan was made.
/// Nothing remains then.
pub fn apply(plan: &NetworkPlan, paths: &NetPaths, netns: BorrowedFd<'_>) -> Result<Applied> {
    let mut inside = netns::open_inside::<Route>(netns)?;
    let mut applied = Applied {
        paths: paths.clone(),
        container: plan.container.clone(),
        registration: None,
        links: Vec::new(),
        zone: None,
        sub_links: None,
        ports: Vec::new(),
        forwards: Forwards { relays: plan.relays.clone(), targets: Targets::of(plan.led_to()), follow: None },
        attendant: None,
        armed: true,
    };
    if plan.follows {
        // Before the container runs, so that no change is missed.
        applied.forwards.follow = Some((plan.forwards.clone(), Addresses::open(netns)?));
    }
    // The nftables elements name links and addresses, which need not be there. So a conflict shows before the
    // slow part, and the guard stands before the link that it guards.
    if plan.registers() {
        register(plan, &mut applied, netns)?;
    }
    if plan.pairs().next().is_none() && plan.sub_links.is_empty() {
        inside.transact(loopback_up(), |_| {})?;
        return Ok(applied);
    }
    let mut host = Socket::<Route>::open()?;
    let mut indexes = Vec::new();
    for pair in plan.pairs() {
        indexes.push(add_pair(&mut host, plan, pair, &mut applied, netns)?);
        if pair.host.up && pair.host.bridge.is_none() {
            Sysctls(&paths.proc_sys).ignore_router_advertisements(&pair.host.name)?;
        }
    }
    // There is no carrier until the container's end comes up: the kernel has not made link-local addresses of its
    // own yet. Routes come after it: those through a link without carrier would be marked dead.
    let mut ends = loopback_up();
    for (pair, (host_index, container_index)) in plan.pairs().zip(&indexes) {
        host.transact(host_batch(&pair.host, *host_index), |_| {})?;
        container_batch(&mut ends, &pair.container, *container_index);
    }
    inside.transact(ends, |_| {})?;
    for (pair, (host_index, _)) in plan.pairs().zip(&indexes) {
        add_routes(&mut host, &pair.host, *host_index)?;
    }
    if !plan.sub_links.is_empty() {
        let names = plan.sub_links.iter().map(|link| link.name.clone()).collect();
        add_sub_links(plan, &mut host, &mut inside, netns)?;
        applied.sub_links = Some((inside, names));
    }
    Ok(applied)
}

/// Enters the container into the shared state, and moves the links in that others may not have from then on.
fn register(plan: &NetworkPlan, applied: &mut Applied, netns: BorrowedFd<'_>) -> Result<()> {
    if plan.moved.is_empty() {
        let registration = Registration::of(plan, Vec::new());
        Shared::enter(&applied.paths, &registration)?;
        applied.registration = Some(registration);
        return Ok(());
    }
    let mut host = Socket::<Route>::open()?;
    Shared::leave_stale(&applied.paths, &plan.container)?;
    let registration = Registration::of(plan, moved::look_up(plan, &mut host)?);
    Shared::enter(&applied.paths, &registration)?;
    let registration = applied.registration.insert(registration);
    moved::move_in(&applied.paths, registration, &mut host, netns)
}

/// Makes a pair, on its bridge if it has one; the indexes of the host's and the container's end.
fn add_pair(
    host: &mut Socket<Route>,
    plan: &NetworkPlan,
    pair: &VethPlan,
    applied: &mut Applied,
    netns: BorrowedFd<'_>,
) -> Result<(u32, u32)> {
    // Held until the port is made: nobody removes a zone's bridge meanwhile.
    let mut lock = None;
    let bridge_index = match &pair.host.bridge {
        Some(bridge) if bridge.zone => {
            let lock = lock.insert(zone::lock(&applied.paths)?);
            applied.zone = Some(bridge.name.clone());
            Some(zone::bridge(lock, host, &plan.container, &bridge.name, pair.container.up)?)
        }
        bridge => bridge.as_ref().and_then(|bridge| bridge.index),
    };
    let made = create_pair(host, plan, pair, bridge_index, netns)?;
    drop(lock);
    applied.ports.extend(pair.host.bridge.as_ref().zip(bridge_index).map(|(bridge, bridge_index)| Port {
        index: made.0,
        name: pair.host.name.clone(),
        bridge: bridge.name.clone(),
        bridge_index,
    }));
    applied.links.push(pair.host.name.clone());
    Ok(made)
}

/// Makes the links on top of the host's. They are born in the container's namespace, where their alternative names are
/// added.
fn add_sub_links(
    plan: &NetworkPlan,
    host: &mut Socket<Route>,
    inside: &mut Socket<Route>,
    netns: BorrowedFd<'_>,
) -> Result<()> {
    let mut altnames = Batch::new();
    for link in &plan.sub_links {
        let mut batch = Batch::new();
        link::add_sub_link(&mut batch, link, netns);
        let made = host.transact(batch, |_| {});
        made.map_err(|error| match (error.errno(), link.kind) {
            (Some(Errno::EOPNOTSUPP), SubLinkKind::Macvlan) => {
                no_feature(link, "MACVLAN", "macvlan (CONFIG_MACVLAN)")
            }
            (Some(Errno::EOPNOTSUPP), SubLinkKind::Ipvlan) => {
                no_feature(link, "IPVLAN", "ipvlan (CONFIG_IPVLAN)")
            }
            _ => error,
        })?;
        if let Some(altname) = &link.altname {
            link::add_altname_to(&mut altnames, &link.name, altname);
        }
    }
    inside.transact(altnames, |_| {})
}

fn no_feature(link: &SubLinkPlan, feature: &'static str, module: &'static str) -> Error {
    Error::NoFeature { doing: format!("create the link {} on {}", link.name, link.parent), feature, module }
}

/// Adds the host's routes into the container. One that is there already may lead to the link of a container that has
/// ended and given its address up, whose namespace the kernel has not removed yet: it is replaced.
fn add_routes(host: &mut Socket<Route>, end: &HostEnd, index: u32) -> Result<()> {
    match host.transact(route_batch(end, index, route::add_host), |_| {}) {
        Err(error) if error.errno() == Some(Errno::EEXIST) && all_through_containers(host, end)? => {
            host.transact(route_batch(end, index, route::replace_host), |_| {})
        }
        result => result,
    }
}

/// Whether every route that is in the way belongs to a container of ours. The addresses are claimed by now, so it
/// can be none that still runs.
fn all_through_containers(host: &mut Socket<Route>, end: &HostEnd) -> Result<bool> {
    for to in &end.routes {
        let Some(bound) = host.bound_to(*to)? else { continue };
        let link = host.link_by_index(bound.link)?;
        if !link.is_none_or(|link| matches!(holder_of(&link), Holder::Container(_))) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The requests of [`apply`], encoded and not sent: for benches.
#[must_use]
pub fn encode(plan: &NetworkPlan, netns: BorrowedFd<'_>) -> Vec<u8> {
    let mut bytes = nft::encode_add((&plan.container, &plan.elements));
    for veth in plan.pairs() {
        let mut container = loopback_up();
        container_batch(&mut container, &veth.container, 2);
        bytes.extend_from_slice(pair_batch(veth, None, netns).bytes());
        bytes.extend_from_slice(container.bytes());
        bytes.extend_from_slice(host_batch(&veth.host, 3).bytes());
        bytes.extend_from_slice(route_batch(&veth.host, 3, route::add_host).bytes());
    }
    bytes
}

impl Applied {
    /// Begins what the network needs while the container runs: relays for what the kernel cannot forward, forwards
    /// that follow the container's addresses, and a return to bridges that are made anew. For most containers that is nothing; else a thread is started, which
    /// ends with this value. To be called once the container's program runs; without it the rest of the network works.
    /// What could not be begun is said, one sentence each.
    pub fn attend(&mut self) -> Vec<String> {
        let Forwards { relays, targets, follow } = &mut self.forwards;
        let (relays, mut notes) = Relays::open(relays);
        let follow = follow.take().map(|(forwards, addresses)| Follow {
            paths: self.paths.clone(),
            container: self.container.clone(),
            forwards,
            addresses,
        });
        let ports = match std::mem::take(&mut self.ports) {
            ports if ports.is_empty() => None,
            ports => Ports::watch(ports).map_err(|error| notes.push(error.to_string())).ok(),
        };
        if relays.is_empty() && follow.is_none() && ports.is_none() {
            return notes;
        }
        match Attendant::start(Duty { relays, targets: *targets, follow, ports }) {
            Ok(attendant) => self.attendant = Some(attendant),
            Err(error) => notes.push(error.to_string()),
        }
        notes
    }

    /// Leaves the network in place: [`crate::reclaim`] can remove it.
    pub fn keep(mut self) {
        self.armed = false;
    }

    /// Removes what the container has on the host, to be called when its processes are gone. The link dies with
    /// the network namespace, some time later; with `wait` it is deleted here, which takes about 17 ms.
    ///
    /// # Errors
    /// All that went wrong; every step is tried.
    pub fn teardown(mut self, wait: bool) -> std::result::Result<(), Errors> {
        self.armed = false;
        self.undo(wait)
    }

    fn undo(&mut self, delete_link: bool) -> std::result::Result<(), Errors> {
        let mut errors = Errors::default();
        // Its sockets keep the container's network namespace, and its forwards must not change any more.
        self.attendant = None;
        self.forwards.follow = None;
        if let Some(registration) = self.registration.take() {
            let shared = errors.note(Shared::lock(&self.paths));
            if let Some(Err(more)) = shared.map(|shared| shared.leave(&registration)) {
                errors.extend(more);
            }
        }
        if let Some((mut inside, names)) = self.sub_links.take().filter(|_| delete_link) {
            for name in names {
                errors.note(delete_by_name(&mut inside, &name));
            }
        }
        // A zone's bridge goes with its last port, which must be gone by then.
        for link in std::mem::take(&mut self.links).iter().filter(|_| delete_link || self.zone.is_some()) {
            errors.note(
                Socket::open().and_then(|mut socket| delete_link_of(&mut socket, &self.container, link)),
            );
        }
        if let Some(bridge) = self.zone.take() {
            errors.note(zone::remove_if_empty(&self.paths, &bridge));
        }
        errors.into_result()
    }
}

impl Drop for Applied {
    fn drop(&mut self) {
        if self.armed {
            // Only reached on the way out with another error, which says why; this one's is for reclaim to repeat.
            let _ = self.undo(true);
        }
    }
}

/// Links on top of the host's would go with the namespace, some time later.
fn delete_by_name(inside: &mut Socket<Route>, name: &str) -> Result<()> {
    match inside.link_by_name(name)? {
        Some(link) => inside.delete_link(link.index, name).map(drop),
        None => Ok(()),
    }
}

fn pair_batch(veth: &VethPlan, bridge: Option<u32>, netns: BorrowedFd<'_>) -> Batch {
    let mut batch = Batch::new();
    link::add_veth(&mut batch, &veth.host, &veth.container, bridge, netns);
    batch
}

/// Creates the pair, and returns the indexes of the host's and the container's end. An earlier instance's link
/// keeps its name until the kernel is done with its namespace: it is deleted, which frees the name at once.
fn create_pair(
    host: &mut Socket<Route>,
    plan: &NetworkPlan,
    veth: &VethPlan,
    bridge: Option<u32>,
    netns: BorrowedFd<'_>,
) -> Result<(u32, u32)> {
    let started = Instant::now();
    loop {
        let mut indexes = None;
        let created =
            host.transact(pair_batch(veth, bridge, netns), |echo| indexes = link::veth_indexes(echo));
        match created {
            Ok(()) => return indexes.ok_or_else(|| no_echo(&veth.host)),
            Err(error) if error.errno() == Some(Errno::EEXIST) && started.elapsed() < NAME_TIMEOUT => {}
            Err(error) => return Err(error),
        }
        for name in [Some(&veth.host.name), veth.host.altname.as_ref()].into_iter().flatten() {
            let Some(link) = host.link_by_name(name)? else { continue };
            if !is_ours(&link, &plan.container) {
                let (container, holder) = (plan.container.clone(), holder_of(&link));
                return Err(Error::LinkTaken { container, link: name.clone(), holder });
            }
            host.delete_link(link.index, &link.name)?;
        }
    }
}

fn no_echo(host: &HostEnd) -> Error {
    let failure = KernelError { errno: Errno::EPROTO, text: Some("no echo".into()) };
    Error::Netlink { doing: format!("learn the index of {}", host.name), failure }
}

fn loopback_up() -> Batch {
    let mut batch = Batch::new();
    link::up(&mut batch, LOOPBACK, "lo");
    batch
}

fn container_batch(batch: &mut Batch, container: &ContainerEnd, index: u32) {
    // Before the link is up, or the kernel would make the same link-local address, and test it.
    for address in container.addresses.iter().copied().chain(container.link_local.map(IpNet::from)) {
        addr::add(batch, index, &container.name, address);
    }
    if container.up {
        link::up(batch, index, &container.name);
    }
    for to in &container.routes {
        route::add_host(batch, index, &container.name, *to);
        if container.gateways.contains(to) {
            route::add_default(batch, index, &container.name, *to);
        }
    }
}

fn host_batch(host: &HostEnd, index: u32) -> Batch {
    let mut batch = Batch::new();
    link::mark(&mut batch, index, host);
    if let Some(altname) = &host.altname {
        link::add_altname(&mut batch, index, altname);
    }
    for address in host.addresses.iter().copied().chain(host.link_local.map(IpNet::from)) {
        addr::add(&mut batch, index, &host.name, address);
    }
    batch
}

fn route_batch(host: &HostEnd, index: u32, add: fn(&mut Batch, u32, &str, IpAddr)) -> Batch {
    let mut batch = Batch::new();
    for to in &host.routes {
        add(&mut batch, index, &host.name, *to);
    }
    batch
}

#[cfg(test)]
#[cfg(target_endian = "little")]
mod tests {
    use super::*;
    use crate::fixture::bytes;
    use crate::plan::Mac;

    #[test]
    fn container_end_is_one_batch() {
        let end = ContainerEnd {
            name: "eth0".into(),
            mac: Mac([2; 6]),
            link_local: Some("fe80::2/64".parse().unwrap()),
            addresses: vec!["10.233.1.2/32".parse().unwrap()],
            up: true,
            routes: vec!["10.233.1.1".parse().unwrap()],
            gateways: vec!["10.233.1.1".parse().unwrap()],
        };
        let expected = bytes(
            "20000000 1300 0100 00000000 00000000         # length 32, RTM_SETLINK, REQUEST, sequence 0
             00 00 0000 01000000 01000000 01000000        # ifinfomsg: index 1 (lo), flags UP, change UP
             28000000 1400 0106 01000000 00000000         # length 40, RTM_NEWADDR, REQUEST|CREATE|EXCL, sequence 1
             02 20 00 00 02000000                         # ifaddrmsg: AF_INET, /32, no flags, universe, index 2
             0800 0200 0ae90102                           # IFA_LOCAL
             0800 0100 0ae90102                           # IFA_ADDRESS
             48000000 1400 0106 02000000 00000000         # length 72, RTM_NEWADDR, sequence 2
             0a 40 02 00 02000000                         # AF_INET6, /64, NODAD, universe, index 2
             1400 0200 fe800000000000000000000000000002   # IFA_LOCAL
             1400 0100 fe800000000000000000000000000002   # IFA_ADDRESS
             0800 0800 02000000                           # IFA_FLAGS NODAD
             20000000 1300 0100 03000000 00000000         # RTM_SETLINK, sequence 3
             00 00 0000 02000000 01000000 01000000        # index 2 (eth0), UP
             2c000000 1800 0106 04000000 00000000         # length 44, RTM_NEWROUTE, sequence 4
             02 20 00 00 fe 03 fd 01 00000000             # rtmsg: AF_INET, /32, main, boot, scope link, unicast
             0800 0100 0ae90101                           # RTA_DST
             0800 0400 02000000                           # RTA_OIF
             2c000000 1800 0106 05000000 00000000         # length 44, RTM_NEWROUTE, sequence 5
             02 00 00 00 fe 03 00 01 00000000             # AF_INET, /0, main, boot, scope universe, unicast
             0800 0500 0ae90101                           # RTA_GATEWAY
             0800 0400 02000000                           # RTA_OIF",
        );
        let mut batch = loopback_up();
        container_batch(&mut batch, &end, 2);
        assert_eq!(batch.bytes(), expected);
    }
}
