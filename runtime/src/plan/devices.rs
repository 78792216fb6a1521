//! Devices beyond those that every container may use.

use std::path::Path;

use super::{CgroupPlan, DevicePolicy};
use crate::config::{BindSource, ContainerConfig, Device, Mount};
use crate::devices::{DeviceAccess, DeviceKind, DeviceRule};
use crate::error::{Error, ErrorKind};
use crate::host::{HostFacts, Node};

/// The rules for what the configuration asks for: by name, by a bind mount of a node, or for containers inside.
pub(super) fn plan(
    config: &ContainerConfig,
    host: &HostFacts,
    cgroup: &CgroupPlan,
    warnings: &mut Vec<String>,
) -> Result<Vec<DeviceRule>, Error> {
    let mut rules = named(config, host, warnings)?;
    rules.extend(bound(config, host));
    if config.security.nested {
        rules.extend([DeviceRule::fuse(), DeviceRule::tun()]);
    }
    if cgroup.devices == DevicePolicy::Unit && !rules.is_empty() {
        let list: Vec<String> = rules.iter().map(ToString::to_string).collect();
        warnings.push(format!(
            "the unit that nixrun runs in decides about devices: its DeviceAllow= must allow {}",
            list.join(", ")
        ));
        rules.clear();
    }
    Ok(rules)
}

fn named(
    config: &ContainerConfig,
    host: &HostFacts,
    warnings: &mut Vec<String>,
) -> Result<Vec<DeviceRule>, Error> {
    let mut rules = Vec::new();
    for allow in &config.security.devices {
        let access = [
            (allow.read, DeviceAccess::READ),
            (allow.write, DeviceAccess::WRITE),
            (allow.mknod, DeviceAccess::MKNOD),
        ];
        let asked = access.into_iter().filter(|(asked, _)| *asked).map(|(_, access)| access);
        let Some(access) = asked.reduce(|all, one| all | one) else { continue };
        match &allow.device {
            Device::Node(path) => rules.extend(of_node(config, host, path, access, warnings)?),
            Device::CharGroup(name) => rules.extend(of_group(host, DeviceKind::Char, name, access, warnings)),
            Device::BlockGroup(name) => {
                rules.extend(of_group(host, DeviceKind::Block, name, access, warnings));
            }
        }
    }
    Ok(rules)
}

/// A node that is not there is no fault: what it stands for may not be plugged in (systemd ignores it, too).
fn of_node(
    config: &ContainerConfig,
    host: &HostFacts,
    path: &Path,
    access: DeviceAccess,
    warnings: &mut Vec<String>,
) -> Result<Option<DeviceRule>, Error> {
    let fault = |what: &str| {
        Err(Error::new(
            ErrorKind::Config,
            format!("container {} cannot be allowed {}: it {what}", config.name, path.display()),
        )
        .hint("name a device node of the host, such as /dev/kvm, or a driver of /proc/devices as char-NAME or block-NAME"))
    };
    if !path.is_absolute() {
        return fault("is no absolute path");
    }
    match look_up(host, path) {
        Node::Device { block, major, minor } => Ok(Some(rule(block, major, minor, access))),
        Node::Other => fault("is no device"),
        Node::Missing => {
            warnings.push(format!("the device {} does not exist and stays forbidden", path.display()));
            Ok(None)
        }
    }
}

fn of_group(
    host: &HostFacts,
    kind: DeviceKind,
    name: &str,
    access: DeviceAccess,
    warnings: &mut Vec<String>,
) -> Vec<DeviceRule> {
    if name == "*" {
        return vec![DeviceRule { kind, major: None, minor: None, access }];
    }
    let drivers = host.asked.drivers.iter().filter(|driver| driver.kind() == kind);
    let rules: Vec<_> = drivers
        .filter(|driver| matches(name.as_bytes(), driver.name.as_bytes()))
        .map(|driver| DeviceRule { kind, major: Some(driver.major), minor: None, access })
        .collect();
    if rules.is_empty() {
        warnings.push(format!("no driver in /proc/devices is called {name:?}; its devices stay forbidden"));
    }
    rules
}

/// A pattern in which `*` stands for anything.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern, name) {
        ([], []) => true,
        ([b'*', rest @ ..], _) => (0..=name.len()).any(|skipped| matches(rest, &name[skipped..])),
        ([wanted, rest @ ..], [found, tail @ ..]) => wanted == found && matches(rest, tail),
        _ => false,
    }
}

/// A device node that is mounted may be used, as under systemd-nspawn; another of its number cannot be made.
fn bound(config: &ContainerConfig, host: &HostFacts) -> Vec<DeviceRule> {
    let rule = |mount: &Mount| match mount {
        Mount::Bind { source: BindSource::Host(path), read_only, .. } => match look_up(host, path) {
            Node::Device { block, major, minor } => {
                let access = if *read_only { DeviceAccess::READ } else { DeviceAccess::RW };
                Some(rule(block, major, minor, access))
            }
            Node::Missing | Node::Other => None,
        },
        _ => None,
    };
    config.mounts.iter().filter_map(rule).collect()
}

fn rule(block: bool, major: u32, minor: u32, access: DeviceAccess) -> DeviceRule {
    let kind = if block { DeviceKind::Block } else { DeviceKind::Char };
    DeviceRule { kind, major: Some(major), minor: Some(minor), access }
}

fn look_up(host: &HostFacts, path: &Path) -> Node {
    host.asked.nodes.iter().find(|(found, _)| found == path).map_or(Node::Missing, |(_, node)| *node)
}
