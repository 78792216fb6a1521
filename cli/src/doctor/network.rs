//! What else on the host has to do with the network: forwarding, other firewalls, programs that manage links.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use runtime::HostPaths;

use super::Check;

/// Where systemd-networkd reads .network files, the directory that counts first.
const NETWORKD: [&str; 4] = [
    "/etc/systemd/network",
    "/run/systemd/network",
    "/usr/local/lib/systemd/network",
    "/usr/lib/systemd/network",
];

/// Where udev rules and NetworkManager's settings are.
const UDEV_RULES: [&str; 3] = ["/etc/udev/rules.d", "/run/udev/rules.d", "/usr/lib/udev/rules.d"];
const NETWORK_MANAGER: [&str; 3] =
    ["/etc/NetworkManager/conf.d", "/run/NetworkManager/conf.d", "/usr/lib/NetworkManager/conf.d"];

pub(super) fn checks(paths: &HostPaths, foreign_drops: Option<&[String]>) -> Vec<Check> {
    vec![
        forwarding(paths, "IPv4 forwarding", "sys/net/ipv4/ip_forward"),
        forwarding(paths, "IPv6 forwarding", "sys/net/ipv6/conf/all/forwarding"),
        firewalls(foreign_drops),
        legacy_iptables(paths),
        networkd(paths),
        network_manager(paths),
    ]
}

fn forwarding(paths: &HostPaths, name: &str, file: &str) -> Check {
    match fs::read_to_string(paths.proc(file)).as_deref().map(str::trim) {
        Ok("0") => Check::ok(name, "off; nixrun turns it on while a container needs it"),
        Ok(_) => Check::ok(name, "on"),
        Err(_) => Check::warn(
            name,
            "the kernel has no such protocol",
            "boot without ipv6.disable=1 if containers need IPv6",
        ),
    }
}

fn firewalls(foreign_drops: Option<&[String]>) -> Check {
    let name = "nftables";
    match foreign_drops {
        None => Check::warn(name, "other tables could not be read", "run nixrun doctor as root"),
        Some([]) => Check::ok(name, "no other table drops forwarded packets by policy"),
        Some(chains) => Check::warn(
            name,
            format!(
                "{} drops forwarded packets by policy, which no table of ours can undo",
                chains.join(", ")
            ),
            "accept packets from and to the links ve-* and vb-* there",
        ),
    }
}

/// The old iptables keep their rules apart from nftables; which tables they use is all that procfs tells.
fn legacy_iptables(paths: &HostPaths) -> Check {
    let name = "legacy iptables";
    let uses_filter = |file: &str| {
        fs::read_to_string(paths.proc(file)).is_ok_and(|tables| tables.lines().any(|table| table == "filter"))
    };
    let commands: Vec<&str> =
        [("net/ip_tables_names", "iptables-legacy"), ("net/ip6_tables_names", "ip6tables-legacy")]
            .into_iter()
            .filter_map(|(file, command)| uses_filter(file).then_some(command))
            .collect();
    if commands.is_empty() {
        return Check::ok(name, "not in use");
    }
    Check::warn(
        name,
        format!("{} has a filter table, which may drop forwarded packets", commands.join(" and ")),
        format!("see `{} -S FORWARD`; accept packets from and to ve-+ and vb-+ there", commands[0]),
    )
}

/// The first .network file, by name, whose pattern matches ve-* decides; a file in /etc hides its namesake below /usr.
fn networkd(paths: &HostPaths) -> Check {
    let name = "systemd-networkd";
    if !paths.join("/run/systemd/netif").is_dir() {
        return Check::ok(name, "does not run");
    }
    let mut files: BTreeMap<std::ffi::OsString, PathBuf> = BTreeMap::new();
    for file in NETWORKD.iter().flat_map(|directory| entries(&paths.join(directory), "network")) {
        if let Some(base) = file.file_name() {
            files.entry(base.to_owned()).or_insert(file);
        }
    }
    let claims = files.values().find_map(|file| {
        let text = fs::read_to_string(file).ok()?;
        matches_ve(&text).then_some((file, text))
    });
    match claims {
        None => Check::ok(name, "leaves ve-* alone"),
        Some((file, text)) if is_unmanaged(&text) => {
            Check::ok(name, format!("leaves ve-* alone, says {}", file.display()))
        }
        Some((file, _)) => Check::warn(
            name,
            format!("{} gives addresses of its own to ve-*", file.display()),
            "write /etc/systemd/network/10-nixrun.network with [Match] Name=ve-* vb-* and [Link] Unmanaged=yes",
        ),
    }
}

fn entries(directory: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|e| e == extension))
        .collect()
}

/// Whether a pattern of `Name=` takes a link called ve-NAME; only patterns that end in a star can take them all.
fn matches_ve(text: &str) -> bool {
    let patterns = values(text, "Name").flat_map(str::split_whitespace);
    patterns.filter_map(|pattern| pattern.strip_suffix('*')).any(|start| "ve-".starts_with(start))
}

fn is_unmanaged(text: &str) -> bool {
    values(text, "Unmanaged").any(|value| matches!(value, "yes" | "true" | "1" | "on"))
}

fn values<'a>(text: &'a str, key: &'a str) -> impl Iterator<Item = &'a str> {
    text.lines()
        .filter_map(|line| line.trim().split_once('='))
        .filter_map(move |(found, value)| (found.trim() == key).then_some(value.trim()))
}

/// NetworkManager leaves a link alone where a udev rule or its own settings say so. Upstream's rule is for all veth.
fn network_manager(paths: &HostPaths) -> Check {
    let name = "NetworkManager";
    if !paths.join("/run/NetworkManager").is_dir() {
        return Check::ok(name, "does not run");
    }
    let about_us = |line: &str| ["veth", "ve-", "v[eb]-"].iter().any(|word| line.contains(word));
    let says = |file: &PathBuf, key: &str| {
        fs::read_to_string(file).is_ok_and(|text| {
            text.lines().any(|l| !l.trim_start().starts_with('#') && l.contains(key) && about_us(l))
        })
    };
    let rules = UDEV_RULES.iter().flat_map(|directory| entries(&paths.join(directory), "rules"));
    let settings = NETWORK_MANAGER
        .iter()
        .flat_map(|directory| entries(&paths.join(directory), "conf"))
        .chain([paths.join("/etc/NetworkManager/NetworkManager.conf")]);
    let told = rules.into_iter().find(|file| says(file, "NM_UNMANAGED"));
    match told.or_else(|| settings.into_iter().find(|file| says(file, "unmanaged-devices"))) {
        Some(file) => Check::ok(name, format!("leaves ve-* alone, says {}", file.display())),
        None => Check::warn(
            name,
            "runs and may take the links of containers",
            "write unmanaged-devices=interface-name:ve-*;interface-name:vb-* below [keyfile] in \
             /etc/NetworkManager/conf.d/nixrun.conf",
        ),
    }
}
