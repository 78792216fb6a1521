//! The plan as a tree, the "network" section of `nixrun plan`.

use std::fmt::{self, Display, Formatter};

use crate::plan::{ContainerEnd, HostEnd, MovedLinkPlan, NatPlan, NetworkPlan, SubLinkPlan};

impl Display for NetworkPlan {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "network")?;
        for pair in self.pairs() {
            host(f, &pair.host)?;
            container(f, &pair.container)?;
        }
        for MovedLinkPlan { host_link, container_link } in &self.moved {
            write!(f, "  {host_link} moves in, and back at the end")?;
            if host_link != container_link {
                write!(f, "; inside it is {container_link}")?;
            }
            writeln!(f)?;
        }
        self.sub_links.iter().try_for_each(|link| sub_link(f, link))?;
        if self.veth.is_none() {
            let only = self.extra_veths.is_empty() && self.moved.is_empty() && self.sub_links.is_empty();
            return if only { writeln!(f, "  lo only") } else { Ok(()) };
        }
        match &self.nat {
            NatPlan::None => writeln!(f, "  nat: none")?,
            NatPlan::Private => writeln!(f, "  nat: private sources, on every way out")?,
            NatPlan::PrivateVia(link) => writeln!(f, "  nat: private sources, out through {link}")?,
        }
        section(f, "nftables: table inet nixrun", &self.elements)?;
        if self.follows {
            section(f, "forwards, to the first global address of the container at the time", &self.forwards)?;
        }
        section(f, "forwards by a program, which the kernel cannot make", &self.relays)?;
        let settings: Vec<String> =
            self.sysctls.iter().filter_map(|s| Some(format!("{} = {}", s.key, s.after.as_ref()?))).collect();
        section(f, "host settings, while containers need them", &settings)
    }
}

fn host(f: &mut Formatter<'_>, end: &HostEnd) -> fmt::Result {
    writeln!(f, "  host end {}", end.name)?;
    if let Some(altname) = &end.altname {
        writeln!(f, "    alternative name {altname}")?;
    }
    writeln!(f, "    mac {}, group {}, alias {}", end.mac, end.group, end.alias)?;
    if let Some(bridge) = &end.bridge {
        let zone = if bridge.zone { ", made with its first port and removed with its last one" } else { "" };
        writeln!(f, "    on bridge {}{zone}", bridge.name)?;
    }
    if !end.up {
        writeln!(f, "    stays down")?;
    }
    lines(f, "address", &end.addresses)?;
    lines(f, "address", end.link_local.as_slice())?;
    lines(f, "route to", &end.routes)
}

fn container(f: &mut Formatter<'_>, end: &ContainerEnd) -> fmt::Result {
    writeln!(f, "  container end {}", end.name)?;
    writeln!(f, "    mac {}", end.mac)?;
    lines(f, "address", &end.addresses)?;
    lines(f, "address", end.link_local.as_slice())?;
    if !end.up {
        writeln!(f, "    stays down")?;
    }
    lines(f, "route to", &end.routes)?;
    lines(f, "default route via", &end.gateways)
}

fn sub_link(f: &mut Formatter<'_>, link: &SubLinkPlan) -> fmt::Result {
    writeln!(f, "  {} {} on {}", link.kind, link.name, link.parent)?;
    if let Some(altname) = &link.altname {
        writeln!(f, "    alternative name {altname}")?;
    }
    match link.mac {
        Some(mac) => writeln!(f, "    mac {mac}"),
        None => Ok(()),
    }
}

fn lines(f: &mut Formatter<'_>, what: &str, values: &[impl Display]) -> fmt::Result {
    values.iter().try_for_each(|value| writeln!(f, "    {what} {value}"))
}

fn section(f: &mut Formatter<'_>, title: &str, values: &[impl Display]) -> fmt::Result {
    if values.is_empty() {
        return Ok(());
    }
    writeln!(f, "  {title}")?;
    values.iter().try_for_each(|value| writeln!(f, "    {value}"))
}
