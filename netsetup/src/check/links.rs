//! Checks of what links are called, what they are made of, and who has them.

use std::collections::HashSet;
use std::net::IpAddr;

use super::{holder_of, is_link_name, is_ours};
use crate::config::NetworkConfig;
use crate::error::{Error, LinkRole, Result};
use crate::facts::{MoveFact, NetFacts};
use crate::names::{self, HostLinkName, LINK_NAME_MAX};
use crate::plan::{Pair, SubLinkKind, inside_name, pairs, sub_link_name};
use crate::route::link::LinkFact;

/// Longest alternative name, `ALTIFNAMSIZ` without its terminating zero.
const ALTNAME_MAX: usize = 127;

/// Kinds of links that stay in the network namespace they were made in.
const STAY: [&str; 4] = ["bridge", "bond", "team", "vrf"];

/// What is wrong with the links that were asked for, by themselves.
pub(super) fn bad(config: &NetworkConfig) -> Option<String> {
    bad_names(config)
        .or_else(|| pairs(config).find_map(|pair| bad_pair(&pair)))
        .or_else(|| bad_main(config))
        .or_else(|| named_twice(config))
        .or_else(|| address_twice(config))
}

/// What is wrong with the links that were asked for, on this host.
pub(super) fn facts(config: &NetworkConfig, facts: &NetFacts) -> Result<()> {
    for (name, link) in &facts.host_links {
        if !is_ours(link, &config.container) {
            let (container, holder) = (config.container.clone(), holder_of(link));
            return Err(Error::LinkTaken { container, link: name.clone(), holder });
        }
    }
    for pair in pairs(config) {
        bridge(config, &pair, facts)?;
    }
    facts.moved.iter().try_for_each(|fact| moved(config, fact))?;
    for link in config.macvlans.iter().chain(&config.ipvlans) {
        let wrong = |problem: &str| no_such(config, LinkRole::Parent, &link.parent, problem);
        match facts.link(&link.parent) {
            None => return Err(wrong("does not exist on the host")),
            Some(parent) if moves(parent, facts) => {
                return Err(wrong(
                    "moves into the container and cannot carry a link of it; name one of the two",
                ));
            }
            Some(_) => {}
        }
    }
    taken_inside(config, facts)
}

fn bad_names(config: &NetworkConfig) -> Option<String> {
    let mut names: Vec<(&str, &str)> = Vec::new();
    names.extend(pairs(config).map(|pair| ("the link in the container", pair.container_link)));
    names.extend(pairs(config).filter_map(|pair| Some(("the bridge", pair.bridge?))));
    names.extend(config.extra_veths.iter().map(|veth| ("the link on the host", veth.host_link.as_str())));
    let inside = config.interfaces.iter().map(|link| &link.container_link);
    let inside = inside.chain(config.macvlans.iter().chain(&config.ipvlans).map(|link| &link.container_link));
    names.extend(inside.flatten().map(|name| ("the link in the container", name.as_str())));
    if let Some((what, name)) = names.into_iter().find(|(_, name)| !is_link_name(name)) {
        return Some(format!(
            "{what} cannot be called {name:?}: a link's name has 1 to {LINK_NAME_MAX} bytes, without space, '/', ':' or '%', \
             and is none of lo, all and default"
        ));
    }
    let host = config.interfaces.iter().map(|link| &link.host_link);
    let mut host = host.chain(config.macvlans.iter().chain(&config.ipvlans).map(|link| &link.parent));
    let name = host.find(|name| !is_name_or_altname(name))?;
    Some(match name.as_str() {
        "lo" => {
            "the loopback link lo stays where it is, and carries no other link; every container has its own"
                .into()
        }
        name => format!("no link of the host can be called {name:?}"),
    })
}

/// Whether a link can be asked for by this name, be it an alternative one.
fn is_name_or_altname(name: &str) -> bool {
    let start: String = name.chars().take(1).collect();
    let short = name.len() <= LINK_NAME_MAX && is_link_name(name);
    short
        || (LINK_NAME_MAX + 1..=ALTNAME_MAX).contains(&name.len()) && {
            let bad = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '/' | ':' | '%');
            !start.is_empty() && !name.contains(bad)
        }
}

fn bad_pair(pair: &Pair<'_>) -> Option<String> {
    for address in pair.host.iter().copied().chain(pair.local.iter().map(|net| net.addr())) {
        let broadcast = matches!(address, IpAddr::V4(address) if address.is_broadcast());
        if address.is_unspecified() || address.is_multicast() || address.is_loopback() || broadcast {
            return Some(format!("{address} cannot be the address of a link"));
        }
        if !pair.up {
            return Some(format!(
                "{address} cannot be set, because the pair of {} stays down; let it come up",
                pair.container_link
            ));
        }
    }
    let twice = pair.host.iter().find(|host| pair.local.iter().any(|local| local.addr() == **host));
    twice.map(|address| format!("{address} is given to both ends; the host and the container need one each"))
}

fn bad_main(config: &NetworkConfig) -> Option<String> {
    let veth = config.veth.as_ref()?;
    if veth.make_bridge && veth.bridge.is_none() {
        return Some("a zone needs a name for its bridge".into());
    }
    let bad_mac = veth.container_mac.is_some_and(|mac| mac[0] & 1 != 0 || mac == [0; 6]);
    bad_mac.then(|| "the MAC address of the container must be a unicast address".into())
}

fn named_twice(config: &NetworkConfig) -> Option<String> {
    let mut on_host = HashSet::new();
    let main =
        config.veth.as_ref().map(|veth| names::host_link_name(&config.container, veth.bridge.is_some()));
    let main = main.into_iter().flat_map(|HostLinkName { name, altname }| [Some(name), altname]).flatten();
    let extra = config.extra_veths.iter().map(|veth| veth.host_link.clone());
    let bridges: HashSet<String> = pairs(config).filter_map(|pair| Some(pair.bridge?.to_owned())).collect();
    for name in
        main.chain(extra).chain(bridges).chain(config.interfaces.iter().map(|link| link.host_link.clone()))
    {
        if !on_host.insert(name.clone()) {
            return Some(format!("two links of the host would be called {name}"));
        }
    }
    let mut inside = HashSet::new();
    inside_names(config).into_iter().find(|name| !inside.insert(name.clone())).map(|name| {
        format!("two links in the container would be called {name}; give one of them another name")
    })
}

/// What links are called in the container, alternative names of ours included.
fn inside_names(config: &NetworkConfig) -> Vec<String> {
    let mut names: Vec<String> = pairs(config).map(|pair| pair.container_link.to_owned()).collect();
    names.extend(
        config.interfaces.iter().map(|link| link.container_link.as_ref().unwrap_or(&link.host_link).clone()),
    );
    let macvlans = config.macvlans.iter().map(|link| sub_link_name(SubLinkKind::Macvlan, link));
    let sub_links =
        macvlans.chain(config.ipvlans.iter().map(|link| sub_link_name(SubLinkKind::Ipvlan, link)));
    names.extend(sub_links.flat_map(|HostLinkName { name, altname }| [Some(name), altname]).flatten());
    names
}

/// An address, or a route to one, can be on one link only.
fn address_twice(config: &NetworkConfig) -> Option<String> {
    let mut seen = HashSet::new();
    let mut all = pairs(config).flat_map(|pair| {
        let local = pair.local.iter().map(|net| net.addr()).collect::<Vec<_>>();
        pair.host.into_iter().chain(local)
    });
    all.find(|address| !seen.insert(*address)).map(|address| format!("{address} is given to two veth pairs"))
}

fn bridge(config: &NetworkConfig, pair: &Pair<'_>, facts: &NetFacts) -> Result<()> {
    let Some(bridge) = pair.bridge else { return Ok(()) };
    let wrong = |problem| Err(no_such(config, LinkRole::Bridge, bridge, problem));
    match facts.link(bridge) {
        None if pair.make_bridge => Ok(()),
        None => wrong("does not exist; create it first"),
        Some(link) if link.kind.as_deref() != Some("bridge") => wrong("is a link of another kind"),
        Some(_) => Ok(()),
    }
}

fn moved(config: &NetworkConfig, fact: &MoveFact) -> Result<()> {
    let wrong = |problem: &str| Err(no_such(config, LinkRole::Moved, &fact.name, problem));
    match &fact.claimed_by {
        Some(other) if *other != config.container => {
            return wrong(&format!(
                "has moved into container {other}; stop that first (`nixrun reclaim {other}` if it crashed)"
            ));
        }
        // Left in the network namespace of an instance that crashed: it comes back before this one starts.
        Some(_) if fact.link.is_none() => return Ok(()),
        _ => {}
    }
    let Some(link) = &fact.link else { return wrong("does not exist on the host") };
    if let Some(bridge) = &fact.port_of {
        return wrong(&format!("is in use as a port of {bridge}; take it out of there first"));
    }
    if let Some(kind) = link.kind.as_deref().filter(|kind| STAY.contains(kind)) {
        return wrong(&format!(
            "is a {kind}, which the kernel moves to no other network namespace; put a veth pair or a MACVLAN link on it"
        ));
    }
    if fact.wireless {
        return wrong("is a Wi-Fi link, which moves with its whole radio only; nixrun cannot do that");
    }
    if fact.unsettled {
        return wrong(
            "is not initialized by udev yet; start the container after its device unit, or try again",
        );
    }
    Ok(())
}

fn moves(link: &LinkFact, facts: &NetFacts) -> bool {
    facts.moved.iter().filter_map(|fact| fact.link.as_ref()).any(|moved| moved.index == link.index)
}

/// Names that links bring along, against those of the others in the container.
fn taken_inside(config: &NetworkConfig, facts: &NetFacts) -> Result<()> {
    let mut names: Vec<String> = Vec::new();
    let mut indexes = HashSet::new();
    for fact in &facts.moved {
        let Some(link) = &fact.link else { continue };
        if !indexes.insert(link.index) {
            return Err(no_such(
                config,
                LinkRole::Moved,
                &fact.name,
                "is to move in twice, by two of its names",
            ));
        }
        let asked = config.interfaces.iter().find(|moved| moved.host_link == fact.name);
        let wanted = asked.and_then(|moved| moved.container_link.as_ref()).unwrap_or(&fact.name);
        names.push(inside_name(wanted, link).to_owned());
        names.extend(link.altnames.iter().cloned());
    }
    let others = NetworkConfig { interfaces: Vec::new(), ..config.clone() };
    names.extend(inside_names(&others));
    let mut seen = HashSet::new();
    match names.into_iter().find(|name| !seen.insert(name.clone())) {
        None => Ok(()),
        Some(name) => Err(Error::Invalid {
            container: config.container.clone(),
            reason: format!(
                "two links in the container would answer to {name}, which is an alternative name of one that moves in"
            ),
        }),
    }
}

fn no_such(config: &NetworkConfig, role: LinkRole, link: &str, problem: &str) -> Error {
    Error::NoSuchLink {
        container: config.container.clone(),
        role,
        link: link.into(),
        problem: problem.into(),
    }
}
