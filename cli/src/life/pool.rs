//! The pool that addresses of containers come from: 10.233.N.1 for the host's end and 10.233.N.2 for the container's, as
//! under nixpkgs' `nixos-container`, and likewise for IPv6 where the host's settings have a prefix for it.

use std::fs::{self, File, OpenOptions};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::OpenOptionsExt;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use netsetup::{Addresses, NetPaths};
use nix::fcntl::{Flock, FlockArg};
use runtime::HostPaths;
use serde_json::Value;

use crate::configured;
use crate::env_file;
use crate::host_settings::HostSettings;
use crate::ops::{Error, Result, net_paths};

/// What nixpkgs' `nixos-container create` locks.
const LOCK: &str = "/run/lock/nixos-container";
/// How many places of a pool are tried at most.
const MOST: u128 = 1 << 16;
/// What has addresses in a container's files, and in each of its extra pairs of links.
const CONF_KEYS: [&str; 4] = ["HOST_ADDRESS", "LOCAL_ADDRESS", "HOST_ADDRESS6", "LOCAL_ADDRESS6"];
const JSON_KEYS: [&str; 4] = ["hostAddress", "localAddress", "hostAddress6", "localAddress6"];

/// The right to give out names and addresses, which one process has at a time, be it this program or nixpkgs' own.
#[derive(Debug)]
pub(super) struct PoolLock {
    _file: Flock<File>,
}

impl PoolLock {
    /// Waits for whoever has it: nobody keeps it while a system is built.
    pub(super) fn take(paths: &HostPaths) -> Result<PoolLock> {
        let path = paths.join(LOCK);
        let failed = |error: std::io::Error| {
            Error::Other(format!("cannot lock {}, as nixos-container does: {error}", path.display()))
        };
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(failed)?;
        }
        let file = OpenOptions::new().append(true).create(true).mode(0o644).open(&path).map_err(failed)?;
        // flock(2), and not the kind of lock that our own files have: the other program takes that one. The file stays:
        // whoever waits for it does not look whether it still has a name.
        let file = Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| failed(errno.into()))?;
        Ok(PoolLock { _file: file })
    }
}

/// Addresses that nobody else gets as long as this lives: the host's end and the container's.
#[derive(Debug)]
pub(crate) struct Fresh {
    /// Of IPv4.
    pub(crate) four: Option<(Ipv4Addr, Ipv4Addr)>,
    /// Of IPv6, where the host has a pool of them.
    pub(crate) six: Option<(Ipv6Addr, Ipv6Addr)>,
    _lock: PoolLock,
}

/// Free addresses of the host's pools, of the families that are asked for.
///
/// # Errors
/// When a pool is full, or the host's settings or another container's files cannot be read.
pub(crate) fn fresh(four: bool, six: bool, paths: &HostPaths) -> Result<Fresh> {
    let lock = PoolLock::take(paths)?;
    let host = HostSettings::read(paths)?;
    let net = net_paths(paths);
    let mut taken = Taken::read(paths, &net)?;
    let four = four.then(|| pick4(host.address_pool, &mut taken)).transpose()?;
    let six = host.address_pool6.filter(|_| six).map(|pool| pick6(pool, &mut taken)).transpose()?;
    Ok(Fresh { four, six, _lock: lock })
}

/// What is given out already.
#[derive(Debug)]
pub(super) struct Taken<'a> {
    configured: Vec<IpNet>,
    host: Addresses<'a>,
}

impl<'a> Taken<'a> {
    /// Of every configured container, be its files wrong in other ways, and of the host.
    pub(super) fn read(paths: &HostPaths, net: &'a NetPaths) -> Result<Taken<'a>> {
        let mut configured = Vec::new();
        for one in configured::list(paths)? {
            let files = configured::find(&one.name, paths)?;
            let text = |file: Option<std::path::PathBuf>| file.and_then(|file| fs::read_to_string(file).ok());
            configured.extend(text(files.conf).into_iter().flat_map(|text| in_conf(&text)));
            configured.extend(text(files.json).into_iter().flat_map(|text| in_json(&text)));
        }
        Ok(Taken { configured, host: Addresses::of_host(net)? })
    }

    fn has(&mut self, address: IpAddr, prefix: u8) -> Result<bool> {
        Ok(overlaps(&self.configured, address) || self.host.is_taken(address, prefix)?)
    }
}

fn overlaps(nets: &[IpNet], address: IpAddr) -> bool {
    nets.iter().any(|net| net.contains(&address))
}

fn in_conf(text: &str) -> Vec<IpNet> {
    let assignments = env_file::parse(text);
    let ours = assignments.iter().filter(|assignment| CONF_KEYS.contains(&assignment.key.as_str()));
    ours.filter_map(|assignment| net(&assignment.value)).collect()
}

fn in_json(text: &str) -> Vec<IpNet> {
    let document: Value = serde_json::from_str(text).unwrap_or_default();
    let extra = document["extraVeths"].as_object().into_iter().flat_map(serde_json::Map::values);
    let all = std::iter::once(&document).chain(extra);
    all.flat_map(|object| JSON_KEYS.iter().filter_map(|key| net(object.get(key)?.as_str()?))).collect()
}

fn net(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| Some(IpNet::from(text.parse::<IpAddr>().ok()?)))
}

/// The next free pair of the pool: the host's end and the container's.
pub(super) fn pick4(pool: Ipv4Net, taken: &mut Taken<'_>) -> Result<(Ipv4Addr, Ipv4Addr)> {
    let first = u128::from(u32::from(pool.network()));
    let address = |bits: u128| Ipv4Addr::from(u32::try_from(bits).unwrap_or(u32::MAX));
    for place in places(pool.prefix_len(), 24, 32) {
        let pair = (address(first + place + 1), address(first + place + 2));
        if !taken.has(pair.0.into(), pool.prefix_len())? && !taken.has(pair.1.into(), pool.prefix_len())? {
            return Ok(pair);
        }
    }
    Err(full(&pool.to_string(), "addressPool"))
}

/// The same of IPv6 addresses.
pub(super) fn pick6(pool: Ipv6Net, taken: &mut Taken<'_>) -> Result<(Ipv6Addr, Ipv6Addr)> {
    let first = u128::from(pool.network());
    for place in places(pool.prefix_len(), 64, 128) {
        let pair = (Ipv6Addr::from(first + place + 1), Ipv6Addr::from(first + place + 2));
        if !taken.has(pair.0.into(), pool.prefix_len())? && !taken.has(pair.1.into(), pool.prefix_len())? {
            return Ok(pair);
        }
    }
    Err(full(&pool.to_string(), "addressPool6"))
}

fn full(pool: &str, key: &str) -> Error {
    Error::Other(format!(
        "cannot give the container addresses: all of the pool {pool} are taken, by containers or by the host; destroy \
         a container, name addresses, or set another {key} in /etc/nixrun.json"
    ))
}

/// Where the pairs of a pool begin, from its first address on: one for each network of `network` bits, without the first
/// and the last of many, as nixpkgs has it; or one every four addresses of a pool that is no larger than such a network.
fn places(pool: u8, network: u8, bits: u8) -> impl Iterator<Item = u128> {
    let (step, count) = if pool < network {
        (1_u128 << (bits - network), 1_u128 << (network - pool).min(32))
    } else {
        (4, (1_u128 << (bits - pool).min(64)) / 4)
    };
    let without_ends = if pool < network && count > 2 { 1..count - 1 } else { 0..count };
    without_ends.take(usize::try_from(MOST).unwrap_or(usize::MAX)).map(move |number| number * step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_has_the_places_that_nixpkgs_gives_out() {
        let all: Vec<u128> = places(16, 24, 32).collect();
        assert_eq!((all.len(), all[0], all[253]), (254, 256, 254 * 256));
        assert_eq!(places(24, 24, 32).collect::<Vec<_>>().len(), 64);
        assert_eq!(places(29, 24, 32).collect::<Vec<_>>(), [0, 4]);
        assert_eq!(places(31, 24, 32).count(), 0);
        assert_eq!(places(23, 24, 32).collect::<Vec<_>>(), [0, 256]);
        assert_eq!(places(48, 64, 128).next(), Some(1 << 64));
        assert_eq!(places(0, 64, 128).count(), 1 << 16);
        assert_eq!(places(128, 64, 128).count(), 0);
    }

    #[test]
    fn addresses_are_found_in_files_however_they_are_written() {
        let conf = "  HOST_ADDRESS=10.233.1.1\nLOCAL_ADDRESS='10.233.2.2/24'\nHOST_ADDRESS6=fd00::1\nFLAKE=1.2.3.4\nAUTO";
        let nets = in_conf(conf);
        assert_eq!(nets.len(), 3);
        assert!(overlaps(&nets, "10.233.2.1".parse().unwrap()));
        assert!(!overlaps(&nets, "10.233.1.2".parse().unwrap()));
        let json = r#"{"unknown": 1, "localAddress": "10.0.0.2", "extraVeths": {"a": {"hostAddress6": "fd00::5"}, "b": 3}}"#;
        assert_eq!(in_json(json).len(), 2);
        assert_eq!(in_json("{"), []);
    }
}
