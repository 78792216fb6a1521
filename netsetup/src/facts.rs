//! What the plan must know of the host. Only what this one configuration depends on is asked, each by its key, so
//! that the answer costs the same among ten containers and ten thousand links. Nothing here needs root.

use std::borrow::Cow;
use std::collections::HashSet;
use std::net::IpAddr;
use std::path::PathBuf;

use crate::config::{Forward, ForwardTo, Nat, NetworkConfig, Protocol, Veth};
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
    /// `/sys/class/net`, where a Wi-Fi link shows its radio.
    pub sys_class_net: PathBuf,
    /// `/run/udev`, where udev keeps what it knows of each device.
    pub udev: PathBuf,
    /// `/run/systemd/nspawn-network-zone`: locked, by systemd-nspawn too, by whoever makes or removes the bridge of a zone.
    pub zone_lock: PathBuf,
}

impl Default for NetPaths {
    fn default() -> Self {
        NetPaths {
            state_dir: "/run/nixrun".into(),
            proc_sys: "/proc/sys".into(),
            machine_id: "/etc/machine-id".into(),
            sys_class_net: "/sys/class/net".into(),
            udev: "/run/udev".into(),
            zone_lock: "/run/systemd/nspawn-network-zone".into(),
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
    /// Links of the host that were named as bridges and as parents, by the name that was asked for.
    pub links: Vec<(String, LinkFact)>,
    /// Links that are to move into the container.
    pub moved: Vec<MoveFact>,
    /// The only way out (`nat = INTERFACE`).
    pub way_out: Option<LinkFact>,
    /// Who has the addresses asked for.
    pub addresses: Vec<AddressFact>,
    /// Who has the ports asked for.
    pub ports: Vec<PortFact>,
    /// Settings that must change for this container; left empty by [`NetFacts::probe`].
    pub sysctls: Vec<SysctlChange>,
}

/// What is known of a link that is to move into the container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MoveFact {
    /// The name that was asked for.
    pub name: String,
    /// The link, where the host has it.
    pub link: Option<LinkFact>,
    /// The container that it has moved into, running or crashed.
    pub claimed_by: Option<String>,
    /// The bridge, bond or VRF that it is a port of.
    pub port_of: Option<String>,
    /// Whether it is a Wi-Fi link.
    pub wireless: bool,
    /// Whether udev runs and is not done with it.
    pub unsettled: bool,
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
        if config == &NetworkConfig::new(config.container.clone()) {
            return Ok(NetFacts::default());
        }
        let mut route = Socket::<Route>::open()?;
        let main =
            config.veth.iter().map(|veth| names::host_link_name(&config.container, veth.bridge.is_some()));
        let main = main.flat_map(|named| [Some(named.name), named.altname]).flatten();
        let extra = config.extra_veths.iter().map(|veth| veth.host_link.clone());
        let host_links = found(&mut route, main.chain(extra))?;
        let parents = config.macvlans.iter().chain(&config.ipvlans).map(|link| link.parent.clone());
        let bridges = plan::pairs(config).filter_map(|pair| pair.bridge.map(str::to_owned));
        let links = found(&mut route, bridges.chain(parents))?;
        let moved = config.interfaces.iter().map(|link| moved(paths, &mut route, &link.host_link));
        let moved = moved.collect::<Result<_>>()?;
        let way_out = match &config.nat {
            Nat::Interface(name) => route.link_by_name(name)?,
            _ => None,
        };
        Ok(NetFacts {
            machine_id: machine_id(paths),
            host_links,
            links,
            moved,
            way_out,
            addresses: addresses(paths, &mut route, config)?,
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
        self.sysctls = sysctls(paths, &self.resolved(config))?;
        Ok(self)
    }

    /// The bridge or parent of this name.
    pub(crate) fn link(&self, asked: &str) -> Option<&LinkFact> {
        self.links.iter().find(|(name, _)| name == asked).map(|(_, link)| link)
    }

    /// The configuration with the veth pair's bridge under its own name, if an alternative one was given: rules and
    /// settings know links by their names alone.
    pub(crate) fn resolved<'a>(&self, config: &'a NetworkConfig) -> Cow<'a, NetworkConfig> {
        let asked = config.veth.as_ref().and_then(|veth| veth.bridge.as_ref());
        match asked.and_then(|asked| self.link(asked).filter(|link| link.name != *asked)) {
            None => Cow::Borrowed(config),
            Some(bridge) => {
                let mut config = config.clone();
                if let Some(veth) = &mut config.veth {
                    veth.bridge = Some(bridge.name.clone());
                }
                Cow::Owned(config)
            }
        }
    }
}

/// The links of these names that are there.
fn found(route: &mut Socket<Route>, names: impl Iterator<Item = String>) -> Result<Vec<(String, LinkFact)>> {
    let look_up = |name: String| Ok(route.link_by_name(&name)?.map(|link| (name, link)));
    names.map(look_up).filter_map(Result::transpose).collect()
}

fn moved(paths: &NetPaths, route: &mut Socket<Route>, name: &str) -> Result<MoveFact> {
    let claimed_by = Claim::Link(name.to_owned()).holder(paths);
    let Some(link) = route.link_by_name(name)? else {
        return Ok(MoveFact { name: name.to_owned(), claimed_by, ..MoveFact::default() });
    };
    let controller = link.controller.map(|index| route.link_by_index(index)).transpose()?.flatten();
    Ok(MoveFact {
        name: name.to_owned(),
        claimed_by,
        port_of: controller.map(|controller| controller.name),
        wireless: paths.sys_class_net.join(&link.name).join("phy80211").exists(),
        unsettled: paths.udev.join("control").exists()
            && !paths.udev.join(format!("data/n{}", link.index)).exists(),
        link: Some(link),
    })
}

/// A machine without an id is no error: names alone are stable too.
fn machine_id(paths: &NetPaths) -> Option<[u8; 16]> {
    names::parse_machine_id(&std::fs::read_to_string(&paths.machine_id).ok()?)
}

fn addresses(
    paths: &NetPaths,
    route: &mut Socket<Route>,
    config: &NetworkConfig,
) -> Result<Vec<AddressFact>> {
    let all = plan::pairs(config).flat_map(|pair| {
        let local = pair.local.iter().map(|net| net.addr());
        local.chain(pair.host).collect::<Vec<_>>()
    });
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
    let families: HashSet<bool> = match config.forward_to {
        ForwardTo::Configured => local.map(|net| net.addr().is_ipv6()).collect(),
        ForwardTo::Current => [false, true].into(),
    };
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
