//! How the strings of a JSON configuration are read. Every function answers with a sentence that says what was expected.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use runtime::{BindSource, CapSet, CpuMax, Device, Mount};

use crate::nixos_conf::{self, LinkName};
use crate::quantity::digits;
use crate::{configured, nspawn, rlimit};

type Read<T> = Result<T, String>;

/// Longest text that a string of a configuration may be: the kernel's limit for one argument or variable.
const LONGEST: usize = 128 * 1024 - 1;

fn expected<T>(read: Result<T, String>) -> Read<T> {
    read.map_err(|what| format!("expected {what}"))
}

pub(super) fn text(text: &str) -> Read<String> {
    if text.contains('\0') {
        return Err("expected a text without NUL bytes".to_owned());
    }
    if text.len() > LONGEST {
        return Err(format!("expected at most {LONGEST} bytes"));
    }
    Ok(text.to_owned())
}

/// Longest path that the kernel takes (PATH_MAX, less the NUL byte).
const LONGEST_PATH: usize = 4095;

pub(super) fn path(text: &str) -> Read<PathBuf> {
    if text.len() > LONGEST_PATH || text.contains('\0') {
        return Err(format!("expected an absolute path of at most {LONGEST_PATH} bytes"));
    }
    nspawn::inside(text).map_err(|_| "expected an absolute path without ..".to_owned())
}

pub(super) fn tmpfs(text: &str) -> Read<Mount> {
    if text.len() > LONGEST_PATH || text.contains('\0') {
        return Err(format!("expected PATH or PATH:OPTIONS of at most {LONGEST_PATH} bytes"));
    }
    nspawn::tmpfs(text)
}

pub(super) fn variable(text: &str) -> Read<String> {
    match nspawn::setenv(text) {
        Ok(variable) if variable.value.is_none() => Ok(variable.key),
        _ => Err("expected a name of letters, digits and _ that does not begin with a digit".to_owned()),
    }
}

pub(super) fn hostname(text: &str) -> Read<String> {
    configured::check_name(text)
        .map(|()| text.to_owned())
        .map_err(|_| "expected a hostname: at most 64 letters, digits, - and .".to_owned())
}

pub(super) fn link(text: &str) -> Read<String> {
    expected(nixos_conf::link_name(text))
}

pub(super) fn link_pair(text: &str) -> Read<LinkName> {
    match text.split_once(':') {
        Some((host, container)) => Ok(LinkName { host: link(host)?, container: Some(link(container)?) }),
        None => Ok(LinkName { host: link(text)?, container: None }),
    }
}

/// systemd-nspawn takes what makes a valid link name with its prefix.
pub(super) fn zone(text: &str) -> Read<String> {
    let fits = text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.'));
    let ends = |at: Option<char>| at.is_some_and(|c| c.is_ascii_alphanumeric());
    if fits && ends(text.chars().next()) && ends(text.chars().last()) && text.len() <= 12 {
        Ok(text.to_owned())
    } else {
        Err("expected 1 to 12 letters, digits, - and ., with a letter or digit at both ends".to_owned())
    }
}

pub(super) fn host_address(text: &str) -> Read<Ipv4Addr> {
    expected(nixos_conf::host_address(text))
}

pub(super) fn host_address6(text: &str) -> Read<Ipv6Addr> {
    expected(nixos_conf::host_address6(text))
}

/// Any but those that cannot be the destination of a packet to this host.
pub(super) fn listen_address(text: &str) -> Read<IpAddr> {
    let address: IpAddr = text
        .parse()
        .map_err(|_| "expected an address of the host, such as 192.0.2.1 or 2001:db8::1".to_owned())?;
    if address.is_unspecified() {
        return Err("expected one address; leave hostAddress out to listen on all of them".to_owned());
    }
    if address.is_multicast() {
        return Err("expected an address of the host, not a multicast one".to_owned());
    }
    Ok(address)
}

pub(super) fn mac_address(text: &str) -> Read<[u8; 6]> {
    expected(nixos_conf::mac_address(text))
}

/// One name; `CapSet::parse` would take a list, and `all`.
pub(super) fn capability(text: &str) -> Read<CapSet> {
    if text.is_empty() || text.contains(',') || text.chars().any(char::is_whitespace) {
        return Err("expected the name of one capability, such as CAP_NET_ADMIN".to_owned());
    }
    CapSet::parse(text).map_err(|error| error.to_string())
}

pub(super) fn system_call(text: &str) -> Read<String> {
    let name = text.strip_prefix('@').unwrap_or(text);
    let fits = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-'));
    if name.is_empty() || !fits || text.len() > 64 {
        return Err("expected the name of a system call, or of a group such as @keyring".to_owned());
    }
    Ok(text.to_owned())
}

pub(super) fn source(text: &str) -> Read<BindSource> {
    match text.strip_prefix('+') {
        _ if text.is_empty() => Ok(BindSource::Temporary),
        Some(inside) => path(inside).map(BindSource::InRoot),
        None => path(text).map(BindSource::Host),
    }
}

pub(super) fn device(text: &str) -> Read<Device> {
    let expected = || "expected a node such as /dev/fuse, or char-DRIVER or block-DRIVER".to_owned();
    if text.len() > LONGEST_PATH {
        return Err(expected());
    }
    for (prefix, group) in
        [("char-", Device::CharGroup as fn(String) -> Device), ("block-", Device::BlockGroup)]
    {
        if let Some(driver) = text.strip_prefix(prefix) {
            return if driver.is_empty() { Err(expected()) } else { Ok(group(driver.to_owned())) };
        }
    }
    let path = path(text).map_err(|_| expected())?;
    if path.starts_with("/dev") && path != Path::new("/dev") {
        Ok(Device::Node(path))
    } else {
        Err(expected())
    }
}

/// What `modifier` allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceAccess {
    /// Reading.
    pub read: bool,
    /// Writing.
    pub write: bool,
    /// Making nodes.
    pub mknod: bool,
}

pub(super) fn device_access(text: &str) -> Read<DeviceAccess> {
    let of = |letter: char| text.matches(letter).count();
    let known = text.chars().all(|c| "rwm".contains(c));
    if text.is_empty() || !known || "rwm".chars().any(|letter| of(letter) > 1) {
        return Err("expected a combination of r, w and m".to_owned());
    }
    Ok(DeviceAccess { read: of('r') == 1, write: of('w') == 1, mknod: of('m') == 1 })
}

pub(super) fn number_list(text: &str) -> Read<String> {
    let number = |text: &str| digits(text).filter(|n| *n < 65536);
    let range = |part: &str| match part.split_once('-') {
        Some((first, last)) => matches!((number(first), number(last)), (Some(a), Some(b)) if a <= b),
        None => number(part).is_some(),
    };
    if text.len() <= 4096 && text.split(',').all(range) {
        Ok(text.to_owned())
    } else {
        Err("expected numbers and ranges, such as 0-3,7".to_owned())
    }
}

/// systemd's rule for names that it will look up.
pub(super) fn user(text: &str) -> Read<String> {
    let name = text.strip_suffix('$').unwrap_or(text);
    let first = name.chars().next().is_some_and(|c| c.is_ascii_alphanumeric() || c == '_');
    let fits = name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'));
    if first && fits && name.len() <= 31 {
        Ok(text.to_owned())
    } else {
        Err("expected the name or the number of a user inside the container".to_owned())
    }
}

pub(super) fn credential_name(text: &str) -> Read<String> {
    let plain = text.chars().all(|c| !c.is_ascii_control() && !matches!(c, '/' | ':'));
    if !text.is_empty() && plain && text.len() <= 255 && !matches!(text, "." | "..") {
        Ok(text.to_owned())
    } else {
        Err("expected a file name of at most 255 bytes, without / and :".to_owned())
    }
}

pub(super) fn limit_name(text: &str) -> Read<String> {
    if rlimit::names().any(|name| name == text) {
        return Ok(text.to_owned());
    }
    let meant = crate::nearest::nearest(text.trim_start_matches("RLIMIT_"), rlimit::names());
    Err(match meant {
        Some(name) => format!("did you mean {name:?}?"),
        None => format!("expected one of {}", rlimit::names().collect::<Vec<_>>().join(", ")),
    })
}

pub(super) fn bytes(text: &str) -> Read<u64> {
    if text == "max" {
        return Ok(u64::MAX);
    }
    let (number, shift) = match text.char_indices().next_back() {
        Some((at, unit)) => match "KMGTPE".find(unit) {
            Some(index) => (&text[..at], (index + 1) * 10),
            None => (text, 0),
        },
        None => ("", 0),
    };
    digits(number)
        .and_then(|n| n.checked_mul(1 << shift))
        .ok_or_else(|| "expected a number of bytes, below 16E, such as 512M, 2G or max".to_owned())
}

pub(super) fn count(text: &str) -> Read<u64> {
    if text == "max" { Ok(u64::MAX) } else { Err("expected a number, or \"max\"".to_owned()) }
}

/// The kernel's default length of a period, microseconds.
const PERIOD: u64 = 100_000;

pub(super) fn no_cpu_number(_: u64) -> Read<CpuMax> {
    Err("expected a string such as \"150%\"".to_owned())
}

/// The kernel takes periods from 1 ms to 1 s and no quota below 1 ms.
pub(super) fn cpu_max(text: &str) -> Read<CpuMax> {
    let expected = || {
        "expected 1% or more, \"QUOTA/PERIOD\" in microseconds with a quota from 1000 on and a period from 1000 to \
         1000000, or \"max\""
            .to_owned()
    };
    if text == "max" {
        return Ok(CpuMax { quota: None, period: PERIOD });
    }
    let (quota, period) = match (text.strip_suffix('%'), text.split_once('/')) {
        (Some(percent), _) => {
            (digits(percent).filter(|p| *p < 10_000_000).map(|p| p * PERIOD / 100), Some(PERIOD))
        }
        (None, Some((quota, period))) => (digits(quota), digits(period)),
        (None, None) => (None, None),
    };
    match (quota, period) {
        // 2^44 microseconds are what the kernel's own arithmetic bears (kernel/sched/core.c, max_cfs_runtime).
        (Some(quota), Some(period @ 1_000..=1_000_000)) if (1_000..1 << 44).contains(&quota) => {
            Ok(CpuMax { quota: Some(quota), period })
        }
        _ => Err(expected()),
    }
}

/// As many as the kernel can be built for.
pub(super) fn cpu_number(number: u64) -> Read<u32> {
    const MOST: u64 = 8192;
    u32::try_from(number)
        .ok()
        .filter(|n| u64::from(*n) < MOST)
        .ok_or_else(|| "expected a number below 8192".to_owned())
}

pub(super) fn no_cpu_name(_: &str) -> Read<u32> {
    Err("expected the number of a CPU".to_owned())
}

pub(super) fn limit_by_number(number: u64) -> Read<(u64, u64)> {
    Ok((number, number))
}

pub(super) fn limit(text: &str) -> Read<(u64, u64)> {
    let one = |text: &str| if text == "infinity" { Some(u64::MAX) } else { digits(text) };
    let (soft, hard) = text.split_once(':').unwrap_or((text, text));
    match (one(soft), one(hard)) {
        (Some(soft), Some(hard)) if soft <= hard => Ok((soft, hard)),
        (Some(_), Some(_)) => Err("expected a soft limit that is not above the hard one".to_owned()),
        _ => Err("expected a number, \"infinity\", or \"SOFT:HARD\"".to_owned()),
    }
}
