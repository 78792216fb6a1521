//! The network that the settings ask for.

use netsetup::{ExtraVeth, ForwardTo, MovedLink, Nat, NetworkConfig, SubLink, Veth};
use runtime::{HostPaths, Network};

use super::{BootError, other, wrong};
use crate::json::{self, Document, LinkPair};
use crate::settings::{self, Key, Settings, forward_of};

/// Whose network the container uses, and what is in it when it is its own.
pub(super) fn plan(
    name: &str,
    settings: &Settings,
    host: &HostPaths,
) -> Result<(Network, Option<NetworkConfig>), BootError> {
    let document = &settings.document;
    let veth = has_veth(document);
    check(settings, veth)?;
    if let Some(path) = &document.network_namespace {
        return Ok((Network::Join(host.join(&path.0)), None));
    }
    let links =
        document.interfaces.iter().chain(&document.macvlans).chain(&document.ipvlans).any(|l| !l.is_empty());
    let extra = document.extra_veths.as_ref().is_some_and(|veths| !veths.0.is_empty());
    if document.private_network != Some(true) && !veth && !links && !extra {
        return Ok((Network::Host, None));
    }
    let network = NetworkConfig {
        veth: veth.then(|| main_veth(document)),
        extra_veths: document.extra_veths.iter().flat_map(|veths| &veths.0).map(extra_veth).collect(),
        interfaces: pairs(document.interfaces.as_deref(), |pair| MovedLink {
            host_link: pair.0.host.clone(),
            container_link: pair.0.container.clone(),
        }),
        macvlans: pairs(document.macvlans.as_deref(), sub_link),
        ipvlans: pairs(document.ipvlans.as_deref(), sub_link),
        nat: document.nat.as_ref().map_or(Nat::Auto, |nat| nat.0.clone()),
        forwards: document.forward_ports.iter().flatten().map(forward_of).collect(),
        forward_to: forward_to(document),
        ..NetworkConfig::new(name)
    };
    Ok((Network::Private, Some(network)))
}

/// To the configured address; to what the container sets itself, as systemd-nspawn forwards, when none is.
fn forward_to(document: &Document) -> ForwardTo {
    let addressed = document.local_address.is_some() || document.local_address6.is_some();
    let forwards = document.forward_ports.as_ref().is_some_and(|ports| !ports.is_empty());
    let default = if forwards && !addressed { ForwardTo::Current } else { ForwardTo::Configured };
    document.forward_to.map_or(default, |word| word.0)
}

/// The conditions under which nixpkgs' start script passes `--network-veth` or `--network-bridge`, and a zone.
fn has_veth(document: &Document) -> bool {
    document.host_address.is_some()
        || document.host_address6.is_some()
        || document.local_address.is_some()
        || document.local_address6.is_some()
        || document.local_mac_address.is_some()
        || document.host_bridge.is_some()
        || document.zone.is_some()
}

fn main_veth(document: &Document) -> Veth {
    let zone = document.zone.as_ref().map(|zone| format!("vz-{}", zone.0));
    Veth {
        container_link: document.link_name.as_ref().map_or_else(|| "eth0".to_owned(), |link| link.0.clone()),
        make_bridge: zone.is_some(),
        bridge: document.host_bridge.as_ref().map(|link| link.0.clone()).or(zone),
        up: true,
        container_mac: document.local_mac_address.as_ref().map(|mac| mac.0),
        host_address: document.host_address.as_ref().map(|address| address.0),
        host_address6: document.host_address6.as_ref().map(|address| address.0),
        local_address: document.local_address.as_ref().map(|net| net.0),
        local_address6: document.local_address6.as_ref().map(|net| net.0),
    }
}

fn extra_veth((link, veth): &(json::Link, json::ExtraVeth)) -> ExtraVeth {
    ExtraVeth {
        host_link: link.0.clone(),
        up: true,
        container_link: veth.link_name.as_ref().unwrap_or(link).0.clone(),
        bridge: veth.host_bridge.as_ref().map(|link| link.0.clone()),
        host_address: veth.host_address.as_ref().map(|address| address.0),
        host_address6: veth.host_address6.as_ref().map(|address| address.0),
        local_address: veth.local_address.as_ref().map(|net| net.0),
        local_address6: veth.local_address6.as_ref().map(|net| net.0),
    }
}

fn sub_link(pair: &LinkPair) -> SubLink {
    SubLink { parent: pair.0.host.clone(), container_link: pair.0.container.clone() }
}

fn pairs<T>(links: Option<&[LinkPair]>, make: impl Fn(&LinkPair) -> T) -> Vec<T> {
    links.unwrap_or_default().iter().map(make).collect()
}

fn check(settings: &Settings, has_veth: bool) -> Result<(), BootError> {
    let document = &settings.document;
    check_namespace(settings, has_veth)?;
    if document.private_network == Some(false) && has_veth {
        return Err(wrong(
            settings,
            settings::PRIVATE_NETWORK,
            "is false beside a link to the host, which needs a network of the container's own; remove one",
        ));
    }
    if document.host_bridge.is_some() && document.zone.is_some() {
        return Err(wrong(
            settings,
            other("zone"),
            "names one bridge and hostBridge another; set one of them",
        ));
    }
    let same = |problem: &str| format!("is the same address as {problem}; each end needs its own");
    let local = document.local_address.as_ref().map(|net| net.0.addr());
    if local.is_some() && local == document.host_address.as_ref().map(|address| address.0) {
        let problem = same(settings.name(settings::HOST_ADDRESS));
        return Err(wrong(settings, settings::LOCAL_ADDRESS, problem));
    }
    let local6 = document.local_address6.as_ref().map(|net| net.0.addr());
    if local6.is_some() && local6 == document.host_address6.as_ref().map(|address| address.0) {
        let problem = same(settings.name(settings::HOST_ADDRESS6));
        return Err(wrong(settings, settings::LOCAL_ADDRESS6, problem));
    }
    if !has_veth {
        let without = [
            (other("linkName"), document.link_name.is_some()),
            (other("nat"), document.nat.is_some()),
            (other("forwardTo"), document.forward_to.is_some()),
        ];
        if let Some((key, _)) = without.iter().find(|(_, set)| *set) {
            return Err(wrong(
                settings,
                *key,
                format!("has no link to apply to, because {}", no_link(settings)),
            ));
        }
    }
    check_forwards(settings, has_veth)
}

/// An existing namespace is somebody else's: nothing is added to it.
fn check_namespace(settings: &Settings, has_veth: bool) -> Result<(), BootError> {
    let document = &settings.document;
    if document.network_namespace.is_none() {
        return Ok(());
    }
    let links = |links: &Option<Vec<LinkPair>>| links.as_ref().is_some_and(|links| !links.is_empty());
    let beside = [
        (settings::HOST_BRIDGE, has_veth),
        (settings::FORWARD_PORTS, document.forward_ports.as_ref().is_some_and(|ports| !ports.is_empty())),
        (settings::INTERFACES, links(&document.interfaces)),
        (settings::MACVLANS, links(&document.macvlans)),
        (other("ipvlans"), links(&document.ipvlans)),
        (other("extraVeths"), document.extra_veths.as_ref().is_some_and(|veths| !veths.0.is_empty())),
    ];
    match beside.iter().find(|(_, set)| *set) {
        Some((key, _)) => {
            let key = if *key == settings::HOST_BRIDGE {
                "an address, a MAC address or a bridge"
            } else {
                settings.name(*key)
            };
            Err(wrong(
                settings,
                settings::NETWORK_NAMESPACE,
                format!("cannot be used beside {key}: nixrun adds nothing to a network that is not its own"),
            ))
        }
        None => Ok(()),
    }
}

fn no_link(settings: &Settings) -> String {
    format!(
        "the container has no link to the host; set {}, or {} and {}",
        settings.name(settings::HOST_BRIDGE),
        settings.name(settings::HOST_ADDRESS),
        settings.name(settings::LOCAL_ADDRESS)
    )
}

fn check_forwards(settings: &Settings, has_veth: bool) -> Result<(), BootError> {
    let document = &settings.document;
    let refused = |problem: String| Err(wrong(settings, settings::FORWARD_PORTS, problem));
    let ports: Vec<_> = document.forward_ports.iter().flatten().map(forward_of).collect();
    for (index, forward) in ports.iter().enumerate() {
        let port = forward.host_port;
        if ports[..index].iter().any(|known| crate::forward::overlap(known, forward)) {
            return refused(format!("has port {port} twice; forward each port of the host once"));
        }
        if !has_veth {
            return refused(format!("cannot forward port {port}, because {}", no_link(settings)));
        }
        if let Some(key) = missing_address(document, forward) {
            let key = settings.name(key);
            return refused(format!(
                "cannot forward port {port} without an address that it leads to; set {key}"
            ));
        }
    }
    Ok(())
}

fn missing_address(document: &Document, forward: &netsetup::Forward) -> Option<Key> {
    let (v4, v6) = (document.local_address.is_some(), document.local_address6.is_some());
    if forward_to(document) == ForwardTo::Current {
        return None;
    }
    match forward.host_address {
        Some(address) if address.is_ipv4() => (!v4).then_some(settings::LOCAL_ADDRESS),
        Some(_) => (!v6).then_some(settings::LOCAL_ADDRESS6),
        None => (!v4 && !v6).then_some(settings::LOCAL_ADDRESS),
    }
}
