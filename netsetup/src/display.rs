//! The plan as a tree, the "network" section of `nixrun plan`.

use std::fmt::{self, Display, Formatter};

use crate::plan::{ContainerEnd, HostEnd, NatPlan, NetworkPlan};

impl Display for NetworkPlan {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "network")?;
        let Some(veth) = &self.veth else { return writeln!(f, "  lo only") };
        host(f, &veth.host)?;
        container(f, &veth.container)?;
        match &self.nat {
            NatPlan::None => writeln!(f, "  nat: none")?,
            NatPlan::Private => writeln!(f, "  nat: private sources, on every way out")?,
            NatPlan::PrivateVia(link) => writeln!(f, "  nat: private sources, out through {link}")?,
        }
        section(f, "nftables: table inet nixrun", &self.elements)?;
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
        writeln!(f, "    on bridge {}", bridge.name)?;
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
    lines(f, "route to", &end.gateways)?;
    lines(f, "default route via", &end.gateways)
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
