//! Every check of a configuration, by itself and against the host, before anything exists.

mod links;

use std::collections::HashSet;
use std::net::{IpAddr, Ipv6Addr};

use crate::config::{ForwardTo, Nat, NetworkConfig, Protocol, Veth};
use crate::error::{Error, Holder, LinkRole, Result};
use crate::facts::{AddressFact, NetFacts, PortFact};
use crate::names::LINK_NAME_MAX;
use crate::plan::{self, ALIAS_PREFIX, GROUP, GROUP_MASK, pairs};
use crate::route::link::LinkFact;

/// Longest name of a container: a hostname's, Linux's `__NEW_UTS_LEN`.
const CONTAINER_NAME_MAX: usize = 64;

/// Checks what was asked by itself.
pub(crate) fn config(config: &NetworkConfig) -> Result<()> {
    let invalid = |reason: String| Err(Error::Invalid { container: config.container.clone(), reason });
    if !is_container_name(&config.container) {
        return invalid(format!(
            "the name must have 1 to {CONTAINER_NAME_MAX} letters, digits, '-', '_' or '.', and begin with a letter or digit"
        ));
    }
    if let Some(reason) = links::bad(config).or_else(|| bad_forward(config)) {
        return invalid(reason);
    }
    let Some(veth) = &config.veth else {
        return match &config.nat {
            Nat::Interface(link) => invalid(format!("nat = {link} needs a veth pair")),
            _ => Ok(()),
        };
    };
    bad_nat(config, veth).map_or(Ok(()), invalid)
}

/// Checks what was asked against the host.
pub(crate) fn facts(config: &NetworkConfig, facts: &NetFacts) -> Result<()> {
    links::facts(config, facts)?;
    let container = || config.container.clone();
    let missing = |role, link: &str, problem: &str| {
        let (link, problem) = (link.into(), problem.into());
        Err(Error::NoSuchLink { container: container(), role, link, problem })
    };
    if let Nat::Interface(name) = &config.nat {
        match &facts.way_out {
            None => {
                return missing(
                    LinkRole::WayOut,
                    name,
                    "does not exist; name a link that does, or use nat = auto",
                );
            }
            Some(link) if is_container_link(link) => {
                return missing(LinkRole::WayOut, name, "is a container's link, which leads nowhere");
            }
            Some(_) => {}
        }
    }
    for fact in &facts.addresses {
        if let Some(holder) = address_conflict(config, fact) {
            return Err(Error::AddressTaken { container: container(), address: fact.address, holder });
        }
    }
    for fact in &facts.ports {
        if let Some(holder) = port_conflict(config, fact) {
            let (protocol, port) = (fact.forward.protocol, fact.forward.host_port);
            return Err(Error::PortTaken { container: container(), protocol, port, holder });
        }
    }
    Ok(())
}

/// A name of a container: also a file name and part of a link's name.
pub(crate) fn is_container_name(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    name.len() <= CONTAINER_NAME_MAX
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(fits)
}

/// Whether a link is, or was, the host's end of this container's pair.
pub(crate) fn is_ours(link: &LinkFact, container: &str) -> bool {
    match &link.alias {
        Some(alias) => alias.strip_prefix(ALIAS_PREFIX) == Some(container),
        // A crash between two requests leaves a link that has its group already and no alias yet.
        None => link.group & GROUP_MASK == GROUP,
    }
}

/// Who a link belongs to.
pub(crate) fn holder_of(link: &LinkFact) -> Holder {
    match link.alias.as_deref().and_then(|alias| alias.strip_prefix(ALIAS_PREFIX)) {
        Some(container) => Holder::Container(container.into()),
        None => Holder::Link(link.name.clone()),
    }
}

/// Whether a link leads into a container, of nixrun or of systemd-nspawn.
fn is_container_link(link: &LinkFact) -> bool {
    let nspawn = link.kind.as_deref() == Some("veth") && link.name.starts_with("ve-");
    nspawn || link.group & GROUP_MASK == GROUP
}

fn bad_nat(config: &NetworkConfig, veth: &Veth) -> Option<String> {
    let Nat::Interface(link) = &config.nat else { return None };
    if !is_link_name(link) {
        return Some(format!("nat = {link:?} does not name a link of the host"));
    }
    veth.bridge.as_ref().map(|bridge| {
        format!("nat = {link} cannot work through the bridge {bridge}, whose packets are not this container's alone; \
                 translate them where the bridge is set up, and use nat = auto or no here")
    })
}

fn bad_forward(config: &NetworkConfig) -> Option<String> {
    let targets = plan::targets(config);
    let mut seen = HashSet::new();
    for forward in &config.forwards {
        let port = forward.host_port;
        if port == 0 || forward.container_port == 0 {
            return Some("port 0 cannot be forwarded".into());
        }
        if forward.protocol == Protocol::Sctp && forward.host_address == Some(Ipv6Addr::LOCALHOST.into()) {
            return Some(format!(
                "sctp port {port} of ::1 cannot be forwarded: the kernel keeps it to itself, and only tcp and udp are \
                 relayed; use 127.0.0.1"
            ));
        }
        let leads = |to: IpAddr| match forward.host_address {
            // A relay translates between the families, too.
            Some(address) if address.is_loopback() && forward.protocol != Protocol::Sctp => true,
            Some(address) => to.is_ipv6() == address.is_ipv6(),
            None => true,
        };
        if config.forward_to == ForwardTo::Configured && !targets.iter().any(leads) {
            return Some(match (&config.veth, forward.host_address) {
                (None, _) => {
                    format!(
                        "port {port} cannot be forwarded without a veth pair; give the container an address"
                    )
                }
                (_, None) => {
                    format!("port {port} cannot be forwarded: the container has no address to forward to")
                }
                (_, Some(_)) => format!(
                    "port {port} cannot be forwarded: the container has no address of that family to forward to"
                ),
            });
        }
        if !seen.insert((forward.protocol, forward.host_address, port)) {
            return Some(format!("port {port} ({}) is forwarded twice", forward.protocol));
        }
    }
    None
}

/// What the kernel takes as a link's name (dev_valid_name), without those that have a meaning of their own.
fn is_link_name(name: &str) -> bool {
    let bad = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '/' | ':' | '%');
    (1..=LINK_NAME_MAX).contains(&name.len())
        && !matches!(name, "." | ".." | "lo" | "all" | "default")
        && !name.contains(bad)
}

/// The container's own address must be nobody else's. The host's may be that of other pairs too, since each is a
/// point-to-point link: NixOS configurations give the same one to many containers.
fn address_conflict(config: &NetworkConfig, fact: &AddressFact) -> Option<Holder> {
    if let Some(other) = fact.claimed_by.as_ref().filter(|name| **name != config.container) {
        return Some(Holder::Container(other.clone()));
    }
    let bound = fact.bound_to.as_ref().filter(|bound| !is_ours(&bound.link, &config.container))?;
    // Every container claims its own addresses before its link is made and gives them up when it ends: a route that
    // nobody claims leads to a link that the kernel is about to remove, and is replaced.
    if !bound.local && matches!(holder_of(&bound.link), Holder::Container(_)) {
        return None;
    }
    let pair = pairs(config).find(|pair| pair.host.contains(&fact.address));
    // With a bridge the host's address is the bridge's, or another router's behind it.
    let shared =
        pair.is_some_and(|pair| pair.bridge.is_some() || bound.local && is_container_link(&bound.link));
    (!shared).then(|| holder_of(&bound.link))
}

fn port_conflict(config: &NetworkConfig, fact: &PortFact) -> Option<Holder> {
    match &fact.claimed_by {
        Some(other) if *other != config.container => Some(Holder::Container(other.clone())),
        // A relay of the container's own, while it runs.
        Some(_) => fact
            .listeners
            .iter()
            .find(|address| !address.is_loopback())
            .map(|address| Holder::Socket(*address)),
        None => fact.listeners.first().map(|address| Holder::Socket(*address)),
    }
}
