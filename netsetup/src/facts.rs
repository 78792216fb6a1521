//! What the plan must know of the host. Only what this one configuration depends on is asked, each by its key, so
//! that the answer costs the same among ten containers and ten thousand links. Nothing here needs root.

use std::collections::HashSet;
use std::net::IpAddr;
use std::path::PathBuf;

use crate::config::{Forward, Nat, NetworkConfig, Protocol, Veth};
use crate::diag::Listener;
use crate::error::Result;
use crate::names;
use crate::plan;
use crate::route::link::LinkFact;
use crate::shared::Claim;
use crate::socket::{Route, SockDiag, Socket};
use crate::sysctl::{SysctlChange, Sysctls};

/// Where the host keeps what netsetup reads and writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetPaths {
    /// nixrun's state directory, `/run/nixrun`: the state that containers share is in `.network` below it, a name that no
    /// container can have, while there is any. It must not survive a boot.
    pub state_dir: PathBuf,
    /// `/proc/sys`. What is below `net` belongs to the network namespace of the calling thread.
    pub proc_sys: PathBuf,
    /// `/etc/machine-id`.
    pub machine_id: PathBuf,
}

impl Default for NetPaths {
    fn default() -> Self {
        NetPaths {
            state_dir: "/run/nixrun".into(),
            proc_sys: "/proc/sys".into(),
            machine_id: "/etc/machine-id".into(),
        }
    }
}

/// What one configuration must know of the host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NetFacts {
    /// The host's machine id.
    pub machine_id: Option<[u8; 16]>,
    /// Links that have the name or alternative name of the host's end already, by that name.
    pub host_links: Vec<(String, LinkFact)>,
    /// The bridge.
    pub bridge: Option<LinkFact>,
    /// The only way out (`nat = INTERFACE`).
    pub way_out: Option<LinkFact>,
    /// Who has the addresses asked for.
    pub addresses: Vec<AddressFact>,
    /// Who has the ports asked for.
    pub ports: Vec<PortFact>,
    /// Settings that must change for this container; left empty by [`NetFacts::probe`].
    pub sysctls: Vec<SysctlChange>,
}

/// Who has an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressFact {
    /// The address.
    pub address: IpAddr,
    /// The container whose own address it is, running or crashed.
    pub claimed_by: Option<String>,
    /// The link that has it, or leads to it alone.
    pub bound_to: Option<BoundTo>,
}

/// The link that an address is bound to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BoundTo {
    /// The link.
    pub link: LinkFact,
    /// Whether the address is the host's own; otherwise a route leads to it through the link.
    pub local: bool,
}

/// Who has a port of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortFact {
    /// The forward that asks for it.
    pub forward: Forward,
    /// The container that it leads to, running or crashed.
    pub claimed_by: Option<String>,
    /// Addresses on which programs of the host listen, as far as the forward would take their connections.
    pub listeners: Vec<IpAddr>,
}

impl NetFacts {
    /// Asks the host, through the calling thread's network namespace.
    ///
    /// # Errors
    /// When netlink, sock_diag or /proc/sys cannot be read.
    pub fn probe(paths: &NetPaths, config: &NetworkConfig) -> Result<NetFacts> {
        let Some(veth) = &config.veth else { return Ok(NetFacts::default()) };
        let mut route = Socket::<Route>::open()?;
        let named = names::host_link_name(&config.container, veth.bridge.is_some());
        let mut host_links = Vec::new();
        for name in [Some(named.name), named.altname].into_iter().flatten() {
            host_links.extend(route.link_by_name(&name)?.map(|link| (name, link)));
        }
        let mut named_link = |name: Option<&str>| match name {
            Some(name) => route.link_by_name(name),
            None => Ok(None),
        };
        let bridge = named_link(veth.bridge.as_deref())?;
        let way_out = named_link(match &config.nat {
            Nat::Interface(name) => Some(name),
            _ => None,
        })?;
        Ok(NetFacts {
            machine_id: machine_id(paths),
            host_links,
            bridge,
            way_out,
            addresses: addresses(paths, &mut route, veth)?,
            ports: ports(paths, config)?,
            sysctls: Vec::new(),
        })
    }

    /// Adds the settings that must change, for a plan that is going to be read. A plan that is going to be applied
    /// does without: they are looked at then, under the lock, and looking takes longer than the rest together.
    ///
    /// # Errors
    /// When /proc/sys cannot be read.
    pub fn probe_sysctls(mut self, paths: &NetPaths, config: &NetworkConfig) -> Result<NetFacts> {
        self.sysctls = sysctls(paths, config)?;
        Ok(self)
    }
}

/// A machine without an id is no error: names alone are stable too.
fn machine_id(paths: &NetPaths) -> Option<[u8; 16]> {
    names::parse_machine_id(&std::fs::read_to_string(&paths.machine_id).ok()?)
}

fn addresses(paths: &NetPaths, route: &mut Socket<Route>, veth: &Veth) -> Result<Vec<AddressFact>> {
    let all = veth.local_addresses().map(|net| net.addr()).chain(veth.host_addresses());
    all.map(|address| {
        let bound = route.bound_to(address)?;
        let link = bound.map(|bound| route.link_by_index(bound.link)).transpose()?.flatten();
        let bound_to = bound.zip(link).map(|(bound, link)| BoundTo { link, local: bound.local });
        Ok(AddressFact { address, claimed_by: Claim::Address(address).holder(paths), bound_to })
    })
    .collect()
}

fn ports(paths: &NetPaths, config: &NetworkConfig) -> Result<Vec<PortFact>> {
    let local = config.veth.iter().flat_map(Veth::local_addresses);
    let families: HashSet<bool> = local.map(|net| net.addr().is_ipv6()).collect();
    if config.forwards.is_empty() {
        return Ok(Vec::new());
    }
    let mut diag = Socket::<SockDiag>::open()?;
    let mut asked: Vec<((Protocol, u16), Vec<Listener>)> = Vec::new();
    let mut facts = Vec::new();
    for forward in &config.forwards {
        let key = (forward.protocol, forward.host_port);
        if !asked.iter().any(|(known, _)| *known == key) {
            asked.push((key, diag.listeners(forward.protocol, forward.host_port)?));
        }
        let all =
            asked.iter().find(|(known, _)| *known == key).map(|(_, all)| all.as_slice()).unwrap_or_default();
        let taken =
            |listener: &&Listener| families.iter().any(|v6| listener.hears(forward.host_address, *v6));
        facts.push(PortFact {
            forward: *forward,
            claimed_by: Claim::port(forward.protocol, forward.host_address, forward.host_port).holder(paths),
            listeners: all.iter().filter(taken).map(|listener| listener.address).collect(),
        });
    }
    Ok(facts)
}

fn sysctls(paths: &NetPaths, config: &NetworkConfig) -> Result<Vec<SysctlChange>> {
    let sysctls = Sysctls(&paths.proc_sys);
    let families = plan::forwarding(config);
    let mut changes = Vec::new();
    if families.ipv4 {
        changes.extend(sysctls.to_forward_ipv4()?);
    }
    if families.ipv6 {
        changes.extend(sysctls.to_forward_ipv6()?);
    }
    if let Some(bridge) = plan::loopback_bridge(config) {
        changes.extend(sysctls.to_route_localnet(bridge)?);
    }
    Ok(changes)
}
