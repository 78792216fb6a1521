//! What is known of a container without looking into the running one: its address, and the keys of its SSH server.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use runtime::rootfs::Root;
use runtime::{HostPaths, instance};
use schemars::JsonSchema;
use serde::Serialize;

use crate::ops::{self, Error, Result};
use crate::settings::Settings;

/// The addresses of a container, as its settings have them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Addresses {
    /// Its name.
    pub name: String,
    /// Its IPv4 address.
    pub address: Option<Ipv4Addr>,
    /// Its IPv6 address.
    pub address6: Option<Ipv6Addr>,
}

/// The public key of an SSH server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HostKey {
    /// The container.
    pub name: String,
    /// Where the key is in it.
    pub file: PathBuf,
    /// The line with the key.
    pub key: String,
}

/// The kinds of keys, the one that is shown first. nixpkgs' program knows the first two.
const KEYS: [&str; 3] = ["ed25519", "ecdsa", "rsa"];

/// The addresses that a container is given; it may have others by other means.
///
/// # Errors
/// When there is no such container, its settings are wrong, or they give it none.
pub fn addresses(name: &str, paths: &HostPaths) -> Result<Addresses> {
    let document = Settings::read(name, paths)?.document;
    let address = document.local_address.map(|net| net.0.addr());
    let address6 = document.local_address6.map(|net| net.0.addr());
    if address.is_none() && address6.is_none() {
        return Err(Error::Other(format!(
            "cannot tell the address of container {name}: its settings give it none (LOCAL_ADDRESS, LOCAL_ADDRESS6)"
        )));
    }
    Ok(Addresses { name: name.to_owned(), address, address6 })
}

/// The key of the SSH server in a container's root.
///
/// # Errors
/// When there is no such container, or it has no key yet.
pub fn host_key(name: &str, paths: &HostPaths) -> Result<HostKey> {
    let directory = root(name, paths)?;
    let root = Root::open(&directory)?;
    for kind in KEYS {
        let file = format!("/etc/ssh/ssh_host_{kind}_key.pub");
        if let Some(text) = root.read(Path::new(&file)) {
            // The container wrote it: a terminal gets one line of text.
            let line = text.lines().next().unwrap_or_default();
            let key: String = line.chars().filter(|c| !c.is_control()).collect();
            return Ok(HostKey { name: name.to_owned(), file: file.into(), key });
        }
    }
    Err(Error::Other(format!(
        "container {name} has no SSH host key in {}: it has no SSH server, or has not been started with one yet",
        directory.join("etc/ssh").display()
    )))
}

/// The root directory of a container, which need not exist.
fn root(name: &str, paths: &HostPaths) -> Result<PathBuf> {
    let settings = Settings::read(name, paths)?;
    let running = instance::find(paths, name).filter(|found| found.alive).and_then(|found| found.state);
    if let Some(state) = running {
        return Ok(state.root);
    }
    Ok(match &settings.document.root {
        Some(root) => paths.join(&root.0),
        None if settings.old_directories() => paths.join("/var/lib/containers").join(name),
        None => ops::root_of(name, paths),
    })
}
