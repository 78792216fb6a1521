//! `/etc/nixos-containers/NAME.conf`, what the NixOS module and `nixos-container create` write about a container.
//!
//! The keys are those of nixpkgs' `nixos/modules/virtualisation/nixos-containers.nix`. Reading checks each value
//! alone; what the values mean together is [`crate::nixos_boot`]'s business.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use ipnet::{Ipv4Net, Ipv6Net};
use netsetup::Forward;
use runtime::UserNamespace;

use crate::{env_file, forward};

/// The settings of one container. A key that is missing or empty is unset: `None`, `false` or empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NixosConf {
    /// The file these settings were read from, for messages.
    pub file: PathBuf,
    /// `SYSTEM_PATH`: the NixOS system to boot; when unset, the container's own system profile.
    pub system_path: Option<PathBuf>,
    /// `FLAKE`: the flake that `nixos-container update` builds the system from.
    pub flake: Option<String>,
    /// `COPY_RESOLV_CONF`: whether the container has the host's name servers, if it is said.
    pub copy_resolv_conf: Option<bool>,
    /// `PRIVATE_NETWORK`: whether the container has a network namespace of its own.
    pub private_network: bool,
    /// `HOST_BRIDGE`: the bridge that the host's end of the veth pair joins.
    pub host_bridge: Option<String>,
    /// `HOST_PORT`: ports of the host that lead into the container.
    pub host_port: Vec<Forward>,
    /// `HOST_ADDRESS`: IPv4 address of the host's end.
    pub host_address: Option<Ipv4Addr>,
    /// `HOST_ADDRESS6`: IPv6 address of the host's end.
    pub host_address6: Option<Ipv6Addr>,
    /// `LOCAL_ADDRESS`: IPv4 address of the container's end, a /32 where no prefix was written.
    pub local_address: Option<Ipv4Net>,
    /// `LOCAL_ADDRESS6`: IPv6 address of the container's end, a /128 where no prefix was written.
    pub local_address6: Option<Ipv6Net>,
    /// `LOCAL_MAC_ADDRESS`: MAC address of the container's end.
    pub local_mac_address: Option<[u8; 6]>,
    /// `NETWORK_NAMESPACE_PATH`: an existing network namespace to join.
    pub network_namespace_path: Option<PathBuf>,
    /// `PRIVATE_USERS`: the user namespace.
    pub private_users: PrivateUsers,
    /// `INTERFACES`: links of the host that move into the container.
    pub interfaces: Vec<LinkName>,
    /// `MACVLANS`: links of the host on which the container gets a macvlan.
    pub macvlans: Vec<LinkName>,
    /// `AUTO_START`: whether the container starts with the host.
    pub auto_start: bool,
    /// `EXTRA_NSPAWN_FLAGS`, split at white space as the start script's unquoted expansion does.
    pub extra_nspawn_flags: Vec<String>,
    /// Keys that nixrun does not know. systemd puts them into the unit's environment, where nothing reads them.
    pub other: BTreeMap<String, String>,
    lines: BTreeMap<String, u32>,
}

impl NixosConf {
    /// Line of the file that sets `key`, counted from 1; `None` when no line does.
    #[must_use]
    pub fn line_of(&self, key: &str) -> Option<u32> {
        self.lines.get(key).copied()
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        match key {
            "SYSTEM_PATH" => self.system_path = Some(absolute_path(value)?),
            "FLAKE" => self.flake = Some(value.to_owned()),
            "COPY_RESOLV_CONF" => self.copy_resolv_conf = Some(switch(value)?),
            "PRIVATE_NETWORK" => self.private_network = switch(value)?,
            "HOST_BRIDGE" => self.host_bridge = Some(link_name(value)?),
            "HOST_PORT" => self.host_port = forwards(value)?,
            "HOST_ADDRESS" => self.host_address = Some(host_address(value)?),
            "HOST_ADDRESS6" => self.host_address6 = Some(host_address6(value)?),
            "LOCAL_ADDRESS" => self.local_address = Some(local_address(value)?),
            "LOCAL_ADDRESS6" => self.local_address6 = Some(local_address6(value)?),
            "LOCAL_MAC_ADDRESS" => self.local_mac_address = Some(mac_address(value)?),
            "NETWORK_NAMESPACE_PATH" => self.network_namespace_path = Some(absolute_path(value)?),
            "PRIVATE_USERS" => self.private_users = value.parse()?,
            "INTERFACES" => self.interfaces = link_names(value)?,
            "MACVLANS" => self.macvlans = link_names(value)?,
            "AUTO_START" => self.auto_start = switch(value)?,
            "EXTRA_NSPAWN_FLAGS" => {
                self.extra_nspawn_flags = value.split_whitespace().map(str::to_owned).collect();
            }
            _ => {
                self.other.insert(key.to_owned(), value.to_owned());
            }
        }
        Ok(())
    }
}

/// `PRIVATE_USERS`: the values of systemd-nspawn's `--private-users`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PrivateUsers {
    /// `no`: the ids inside are the host's.
    #[default]
    No,
    /// `yes`: a range that starts at the owner of the root directory.
    Yes,
    /// `pick`: a free range chosen by the container's name.
    Pick,
    /// `identity`: a user namespace that maps the first 65536 ids to themselves.
    Identity,
    /// `BASE[:COUNT]`: ids from `base` on the host, 65536 of them unless counted.
    Range {
        /// Host id of the container's root.
        base: u32,
        /// Number of ids.
        count: u32,
    },
}

impl PrivateUsers {
    /// As runtime is asked for it.
    #[must_use]
    pub fn namespace(self) -> UserNamespace {
        match self {
            PrivateUsers::No => UserNamespace::Host,
            PrivateUsers::Yes => UserNamespace::OfRoot,
            PrivateUsers::Pick => UserNamespace::Pick,
            PrivateUsers::Identity => UserNamespace::Identity,
            PrivateUsers::Range { base, count } => UserNamespace::Range { base, length: count },
        }
    }
}

impl FromStr for PrivateUsers {
    type Err = String;

    fn from_str(value: &str) -> Result<Self, String> {
        let expected = || "no, yes, pick, identity or BASE[:COUNT] with ids below 4294967295".to_owned();
        match value {
            // nspawn takes the words of parse_boolean() here, but never digits: 0 is a range that starts at 0.
            "no" | "n" | "false" | "f" | "off" => return Ok(PrivateUsers::No),
            "yes" | "y" | "true" | "t" | "on" => return Ok(PrivateUsers::Yes),
            "pick" => return Ok(PrivateUsers::Pick),
            "identity" => return Ok(PrivateUsers::Identity),
            _ => {}
        }
        let (base, count) = value.split_once(':').unwrap_or((value, "65536"));
        let (base, count) =
            (decimal(base).ok_or_else(expected)?, decimal(count).filter(|n| *n > 0).ok_or_else(expected)?);
        // The last id of all, -1, means "no change" to the kernel and cannot be mapped.
        match base.checked_add(count) {
            Some(end) if end < u32::MAX => Ok(PrivateUsers::Range { base, count }),
            _ => Err(expected()),
        }
    }
}

/// A link of the host, and the name that it or its macvlan has in the container if that was given
/// (`HOST[:CONTAINER]`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkName {
    /// Name on the host.
    pub host: String,
    /// Name in the container.
    pub container: Option<String>,
}

impl fmt::Display for LinkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.host)?;
        self.container.iter().try_for_each(|name| write!(f, ":{name}"))
    }
}

/// Why a configuration file cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfError {
    /// The file could not be read.
    #[error("cannot read the container's settings in {}: {source}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not text.
    #[error("cannot read the container's settings in {}:{line}: the line is not valid UTF-8", file.display())]
    NotText {
        /// The file.
        file: PathBuf,
        /// Line of the first byte that is no text, counted from 1.
        line: usize,
    },
    /// A key has a value of the wrong form.
    #[error("{}:{line}: {key}={value:?} cannot be used: expected {expected}", file.display())]
    BadValue {
        /// The file.
        file: PathBuf,
        /// Line of the key, counted from 1.
        line: u32,
        /// The key.
        key: String,
        /// Its value, quotes and escapes resolved.
        value: String,
        /// What would have been right, in words.
        expected: String,
    },
}

/// Reads the settings in `file`.
///
/// # Errors
/// [`ConfError::Read`] and [`ConfError::NotText`] besides those of [`parse`].
pub fn read(file: &Path) -> Result<NixosConf, ConfError> {
    let bytes = std::fs::read(file).map_err(|source| ConfError::Read { file: file.to_owned(), source })?;
    match std::str::from_utf8(&bytes) {
        Ok(text) => parse(text, file),
        Err(e) => {
            let line = bytes[..e.valid_up_to()].iter().filter(|b| **b == b'\n').count() + 1;
            Err(ConfError::NotText { file: file.to_owned(), line })
        }
    }
}

/// Reads settings from `text`; `file` only appears in messages.
///
/// # Errors
/// [`ConfError::BadValue`] for the first key, in file order, whose last value is not of the expected form. A value
/// that a later line replaces is not looked at, as systemd would not.
pub fn parse(text: &str, file: &Path) -> Result<NixosConf, ConfError> {
    let mut conf = NixosConf { file: file.to_owned(), ..NixosConf::default() };
    let assignments = env_file::parse(text);
    for assignment in &assignments {
        conf.lines.insert(assignment.key.clone(), assignment.line);
    }
    for env_file::Assignment { key, value, line } in assignments {
        if value.is_empty() || conf.line_of(&key) != Some(line) {
            continue;
        }
        conf.set(&key, &value).map_err(|expected| ConfError::BadValue {
            file: file.to_owned(),
            line,
            key,
            value,
            expected,
        })?;
    }
    Ok(conf)
}

fn switch(value: &str) -> Result<bool, String> {
    match value {
        "0" => Ok(false),
        "1" => Ok(true),
        _ => Err("0 or 1".to_owned()),
    }
}

fn absolute_path(value: &str) -> Result<PathBuf, String> {
    let path = Path::new(value);
    let plain = path.components().all(|c| c != std::path::Component::ParentDir);
    if path.is_absolute() && plain && !value.contains('\0') {
        Ok(path.to_owned())
    } else {
        Err("an absolute path without ..".to_owned())
    }
}

/// A name that the kernel's `dev_valid_name()` accepts for a link.
pub(crate) fn link_name(value: &str) -> Result<String, String> {
    let forbidden = |c: char| matches!(c, '/' | ':' | '\0') || c.is_ascii_whitespace() || c == '\x0b';
    if value.is_empty() || value.len() > 15 || matches!(value, "." | "..") || value.contains(forbidden) {
        return Err("a link's name: 1 to 15 bytes without white space, / or :".to_owned());
    }
    Ok(value.to_owned())
}

fn link_names(value: &str) -> Result<Vec<LinkName>, String> {
    let one = |word: &str| match word.split_once(':') {
        Some((host, container)) => {
            Ok(LinkName { host: link_name(host)?, container: Some(link_name(container)?) })
        }
        None => Ok(LinkName { host: link_name(word)?, container: None }),
    };
    value
        .split_whitespace()
        .map(one)
        .collect::<Result<_, String>>()
        .map_err(|_| "names of links, each LINK or LINK:NAME-INSIDE with at most 15 bytes a name".to_owned())
}

fn forwards(value: &str) -> Result<Vec<Forward>, String> {
    let mut found: Vec<Forward> = Vec::new();
    // The start script's loop over `HOST_PORT` splits at commas and does not mind one too many.
    for item in value.split(',').map(str::trim).filter(|item| !item.is_empty()) {
        let new = forward::parse(item).map_err(|expected| format!("{expected} in place of {item:?}"))?;
        if found.iter().any(|old| forward::overlap(old, &new)) {
            return Err(format!("each port of the host once, but {item:?} repeats one"));
        }
        found.push(new);
    }
    Ok(found)
}

pub(crate) fn host_address(value: &str) -> Result<Ipv4Addr, String> {
    let address = value.strip_suffix("/32").unwrap_or(value).parse().ok();
    address.filter(|a| usable(IpAddr::V4(*a))).ok_or_else(|| {
        "an IPv4 address without a prefix (the host's end is a /32), such as 10.233.1.1".to_owned()
    })
}

pub(crate) fn host_address6(value: &str) -> Result<Ipv6Addr, String> {
    let address = value.strip_suffix("/128").unwrap_or(value).parse().ok();
    address.filter(|a| usable(IpAddr::V6(*a))).ok_or_else(|| {
        "an IPv6 address without a prefix (the host's end is a /128), such as fc00::1".to_owned()
    })
}

pub(crate) fn local_address(value: &str) -> Result<Ipv4Net, String> {
    let net = value.parse().ok().or_else(|| Some(Ipv4Net::from(value.parse::<Ipv4Addr>().ok()?)));
    net.filter(|net| usable(IpAddr::V4(net.addr())) && net.prefix_len() > 0).ok_or_else(|| {
        "an IPv4 address with or without a prefix, such as 10.233.1.2 or 192.168.7.2/24".to_owned()
    })
}

pub(crate) fn local_address6(value: &str) -> Result<Ipv6Net, String> {
    let net = value.parse().ok().or_else(|| Some(Ipv6Net::from(value.parse::<Ipv6Addr>().ok()?)));
    net.filter(|net| usable(IpAddr::V6(net.addr())) && net.prefix_len() > 0)
        .ok_or_else(|| "an IPv6 address with or without a prefix, such as fc00::2 or fc00::2/64".to_owned())
}

/// Whether the kernel lets a link other than loopback carry the address to any use.
fn usable(address: IpAddr) -> bool {
    let broadcast = matches!(address, IpAddr::V4(a) if a.is_broadcast());
    !address.is_unspecified() && !address.is_loopback() && !address.is_multicast() && !broadcast
}

pub(crate) fn mac_address(value: &str) -> Result<[u8; 6], String> {
    let expected =
        || "six bytes in hexadecimal such as 02:00:00:00:00:01, not a multicast address".to_owned();
    let mut mac = [0; 6];
    let mut parts = value.split(':');
    for byte in &mut mac {
        let part = parts.next().filter(|part| part.len() == 2).ok_or_else(expected)?;
        // from_str_radix() alone would also take "+1".
        *byte = part
            .bytes()
            .all(|b| b.is_ascii_hexdigit())
            .then(|| u8::from_str_radix(part, 16).ok())
            .flatten()
            .ok_or_else(expected)?;
    }
    // The kernel's is_valid_ether_addr(): neither all zero nor the multicast bit.
    if parts.next().is_some() || mac == [0; 6] || mac[0] & 1 != 0 {
        return Err(expected());
    }
    Ok(mac)
}

fn decimal(text: &str) -> Option<u32> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}
