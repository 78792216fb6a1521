//! From a NixOS container's settings to what runtime and netsetup are asked for.
//!
//! The result is what nixpkgs' start script and its one systemd-nspawn call arrive at together. All checks that need
//! no privileges happen here, before anything is created.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use netsetup::{Nat, NetworkConfig, Veth};
use runtime::{BindIds, ContainerConfig, HostPaths, Mount, Network, Payload, Preparation, Store};

use crate::configured::{self, FindError};
use crate::lookup::lookup;
use crate::nixos_conf::{NixosConf, PrivateUsers};
use crate::signals;

/// Where Nix keeps everything that is immutable.
const STORE: &str = "/nix/store";
/// Where a container's own profiles are inside it; on the host, below `per-container/NAME` there.
const PROFILES: &str = "/nix/var/nix/profiles";
/// What boots when the settings name no `SYSTEM_PATH`: the container's own system profile, as seen inside.
const SYSTEM_PROFILE: &str = "/nix/var/nix/profiles/system";

/// A container ready to be planned.
#[derive(Debug, Clone)]
pub struct Boot {
    /// What runtime is asked for.
    pub container: ContainerConfig,
    /// What netsetup is asked for; `None` with the host's network.
    pub network: Option<NetworkConfig>,
    /// What was left out because the host lacks it, one sentence each.
    pub notes: Vec<String>,
}

/// Why settings do not make a container.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BootError {
    /// The container's name is not usable.
    #[error(transparent)]
    Name(#[from] FindError),
    /// A setting is right by itself and wrong beside the others or on this host.
    #[error("{}{}: {key} {problem}", file.display(), at_line(*line))]
    Setting {
        /// The settings file.
        file: PathBuf,
        /// Line of the key, counted from 1; `None` when the key is missing.
        line: Option<u32>,
        /// The key.
        key: &'static str,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// The container's root directory is not usable.
    #[error("cannot use {} as the root of container {name}: {problem}", path.display())]
    Root {
        /// The container's name.
        name: String,
        /// Host path of the root.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The host lacks something that every NixOS container needs.
    #[error("cannot prepare container {name}: {} {problem}", path.display())]
    Host {
        /// The container's name.
        name: String,
        /// Host path.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

fn at_line(line: Option<u32>) -> String {
    line.map(|line| format!(":{line}")).unwrap_or_default()
}

/// Turns the settings of container `name` into the two values that are planned; `nat` is not in the settings.
///
/// # Errors
/// [`BootError`], when the settings contradict each other, name what this host does not have, or ask for what nixrun
/// cannot do.
pub fn to_configs(name: &str, conf: &NixosConf, host: &HostPaths, nat: Nat) -> Result<Boot, BootError> {
    configured::check_name(name)?;
    refuse_unsupported(conf)?;
    let network = network(name, conf, nat)?;
    let root = root_directory(name, host)?;
    let system = system_path(name, conf, host)?;
    let mut notes = Vec::new();

    let mut payload = Payload::new(vec![system.join("init").into_os_string()]);
    // HOST_*, LOCAL_* and HOST_BRIDGE would tell the container to do what is done already.
    if network.is_some() {
        payload.env.push(("PRIVATE_NETWORK".into(), "1".into()));
    }

    let mut container = ContainerConfig::new(name, &root, payload);
    container.network = if network.is_some() { Network::Private } else { Network::Host };
    container.preparation = preparation(name, &root, conf, host, &mut notes);
    container.store = Some(Store::Whole(host.join(STORE)));
    container.mounts = mounts(name, host, &mut notes)?;
    container.stop_signal = signals::SIGRTMIN + 3;
    container.notify_ready = true;
    container.tty_gid = 3;
    Ok(Boot { container, network, notes })
}

fn setting(conf: &NixosConf, key: &'static str, problem: impl Into<String>) -> BootError {
    BootError::Setting { file: conf.file.clone(), line: conf.line_of(key), key, problem: problem.into() }
}

/// Refuses, by name, every setting that would otherwise be silently ignored.
fn refuse_unsupported(conf: &NixosConf) -> Result<(), BootError> {
    let unsupported = [
        ("PRIVATE_USERS", conf.private_users != PrivateUsers::No, "user namespaces"),
        ("NETWORK_NAMESPACE_PATH", conf.network_namespace_path.is_some(), "joining a network namespace"),
        ("INTERFACES", !conf.interfaces.is_empty(), "moving links of the host into a container"),
        ("MACVLANS", !conf.macvlans.is_empty(), "macvlans"),
        ("EXTRA_NSPAWN_FLAGS", !conf.extra_nspawn_flags.is_empty(), "further systemd-nspawn options"),
    ];
    match unsupported.into_iter().find(|(_, asked, _)| *asked) {
        Some((key, _, what)) => Err(setting(
            conf,
            key,
            format!(
                "asks for {what}, which this version of nixrun cannot do; remove it, or start the container with \
                 systemd-nspawn"
            ),
        )),
        None => Ok(()),
    }
}

/// The root directory, which need not exist yet.
fn root_directory(name: &str, host: &HostPaths) -> Result<PathBuf, BootError> {
    let path = host.join("/var/lib/nixos-containers").join(name);
    let problem = match std::fs::symlink_metadata(&path) {
        Ok(found) if found.is_dir() => return Ok(path),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(path),
        Ok(found) if found.is_symlink() => {
            "it is a symbolic link; make it a directory, or mount the real one there".to_owned()
        }
        Ok(_) => "it is not a directory".to_owned(),
        Err(e) => e.to_string(),
    };
    Err(BootError::Root { name: name.to_owned(), path, problem })
}

/// The system to boot as the container sees it, once it is certain that its `init` can be executed.
fn system_path(name: &str, conf: &NixosConf, host: &HostPaths) -> Result<PathBuf, BootError> {
    let wrong = |problem: String| setting(conf, "SYSTEM_PATH", problem);
    let system = conf.system_path.clone().unwrap_or_else(|| SYSTEM_PROFILE.into());
    let on_host = match system.strip_prefix(PROFILES) {
        Ok(profile) => Path::new(PROFILES).join("per-container").join(name).join(profile),
        Err(_) => system.clone(),
    };
    let real = lookup(host, &on_host).map_err(|e| match (&conf.flake, &conf.system_path) {
        (Some(flake), None) => setting(
            conf,
            "FLAKE",
            format!("is {flake:?}, which nixrun does not build; run `nixos-container update {name}` first"),
        ),
        (None, None) => wrong(format!(
            "is not set and the container's profile {} cannot be used: {e}",
            host.join(&on_host).display()
        )),
        (_, Some(_)) => wrong(format!("is {}, which cannot be used: {e}", system.display())),
    })?;
    if !in_store(&real.path) {
        return Err(wrong(format!(
            "leads to {}, which is not in the Nix store; expected /nix/store/HASH-nixos-system-…",
            real.path.display()
        )));
    }
    if !system.starts_with(STORE) && !system.starts_with(PROFILES) {
        return Err(wrong(format!(
            "is {}, a path that the container does not have; write {} instead",
            system.display(),
            real.path.display()
        )));
    }
    let init = lookup(host, &on_host.join("init"))
        .map_err(|e| wrong(format!("is {}, which has no usable init: {e}", system.display())))?;
    if !init.metadata.is_file() || init.metadata.permissions().mode() & 0o111 == 0 {
        return Err(wrong(format!("is {}, whose init is not an executable file", system.display())));
    }
    if !in_store(&init.path) {
        return Err(wrong(format!(
            "is {}, whose init leads to {} outside the Nix store, which the container does not have",
            system.display(),
            init.path.display()
        )));
    }
    Ok(system)
}

/// Whether the path lies in a store path (`/nix/store/HASH-NAME`).
fn in_store(path: &Path) -> bool {
    let Ok(below) = path.strip_prefix(STORE) else { return false };
    let Some(object) = below.iter().next().and_then(|o| o.to_str()) else { return false };
    // A hash is 160 bits in Nix's base 32, without e, o, t and u (nix's libutil, nix32).
    let base32 = |b: u8| b.is_ascii_digit() || (b.is_ascii_lowercase() && !b"eotu".contains(&b));
    object
        .split_once('-')
        .is_some_and(|(hash, name)| hash.len() == 32 && hash.bytes().all(base32) && !name.is_empty())
}

/// What nixpkgs' start script makes before it starts systemd-nspawn.
fn preparation(
    name: &str,
    root: &Path,
    conf: &NixosConf,
    host: &HostPaths,
    notes: &mut Vec<String>,
) -> Vec<Preparation> {
    let directory = |path: &str, mode| Preparation::Directory { path: path.into(), mode };
    let empty_file = |path: &str| Preparation::EmptyFile { path: path.into() };
    let mut steps = vec![
        Preparation::HostDirectory { path: root.to_owned(), mode: 0o755 },
        directory("/usr/bin", 0o755),
        directory("/etc", 0o755),
        directory("/var/lib", 0o755),
        directory("/var/lib/private", 0o700),
        directory("/root", 0o700),
        empty_file("/etc/os-release"),
        empty_file("/etc/machine-id"),
    ];
    steps.extend(
        ["profiles", "gcroots"].map(|kind| Preparation::HostDirectory {
            path: host.join(per_container(kind, name)),
            mode: 0o755,
        }),
    );
    if conf.copy_resolv_conf {
        match lookup(host, Path::new("/etc/resolv.conf")) {
            Ok(found) => steps
                .push(Preparation::CopyFile { from: host.join(found.path), path: "/etc/resolv.conf".into() }),
            Err(e) => notes.push(format!(
                "{} is not copied into the container: {e}",
                host.join("/etc/resolv.conf").display()
            )),
        }
    }
    steps
}

fn per_container(kind: &str, name: &str) -> PathBuf {
    Path::new("/nix/var/nix").join(kind).join("per-container").join(name)
}

/// The bind mounts of nixpkgs' systemd-nspawn call, besides the store.
fn mounts(name: &str, host: &HostPaths, notes: &mut Vec<String>) -> Result<Vec<Mount>, BootError> {
    let bind = |source: PathBuf, target: &str, read_only| Mount::Bind {
        source: source.into(),
        target: target.into(),
        read_only,
        recursive: true,
        ids: BindIds::Auto,
    };
    let mut mounts = Vec::new();

    let database = host.join("/nix/var/nix/db");
    if !database.is_dir() {
        let problem = "is not a directory; the host's Nix database belongs there".to_owned();
        return Err(BootError::Host { name: name.to_owned(), path: database, problem });
    }
    mounts.push(bind(database, "/nix/var/nix/db", true));

    // A host whose Nix runs without a daemon has no socket; systemd-nspawn would refuse to start there.
    let socket = host.join("/nix/var/nix/daemon-socket");
    if socket.is_dir() {
        mounts.push(bind(socket, "/nix/var/nix/daemon-socket", true));
    } else {
        notes.push(format!(
            "{} does not exist, so Nix inside the container has no daemon to talk to",
            socket.display()
        ));
    }
    for kind in ["profiles", "gcroots"] {
        mounts.push(bind(host.join(per_container(kind, name)), &format!("/nix/var/nix/{kind}"), false));
    }
    Ok(mounts)
}

/// The network, by the conditions under which the start script passes `--private-network`, `--network-veth` and
/// `--network-bridge`.
fn network(name: &str, conf: &NixosConf, nat: Nat) -> Result<Option<NetworkConfig>, BootError> {
    let addressed = conf.host_address.is_some()
        || conf.host_address6.is_some()
        || conf.local_address.is_some()
        || conf.local_address6.is_some();
    let has_veth = addressed || conf.host_bridge.is_some();
    check_network(conf, has_veth)?;
    if !conf.private_network && !has_veth {
        return Ok(None);
    }
    let veth = has_veth.then(|| Veth {
        container_link: "eth0".to_owned(),
        bridge: conf.host_bridge.clone(),
        make_bridge: false,
        up: true,
        container_mac: conf.local_mac_address,
        host_address: conf.host_address,
        host_address6: conf.host_address6,
        local_address: conf.local_address,
        local_address6: conf.local_address6,
    });
    Ok(Some(NetworkConfig { veth, nat, forwards: conf.host_port.clone(), ..NetworkConfig::new(name) }))
}

fn check_network(conf: &NixosConf, has_veth: bool) -> Result<(), BootError> {
    let links = "the container has no link to the host; set HOST_BRIDGE, or HOST_ADDRESS and LOCAL_ADDRESS";
    if conf.local_mac_address.is_some() && !has_veth {
        return Err(setting(conf, "LOCAL_MAC_ADDRESS", format!("has no link to apply to, because {links}")));
    }
    if conf.host_address.is_some() && conf.host_address == conf.local_address.map(|net| net.addr()) {
        return Err(setting(
            conf,
            "LOCAL_ADDRESS",
            "is the same address as HOST_ADDRESS; each end needs its own",
        ));
    }
    if conf.host_address6.is_some() && conf.host_address6 == conf.local_address6.map(|net| net.addr()) {
        return Err(setting(
            conf,
            "LOCAL_ADDRESS6",
            "is the same address as HOST_ADDRESS6; each end needs its own",
        ));
    }
    for forward in &conf.host_port {
        let port = forward.host_port;
        if !has_veth {
            return Err(setting(conf, "HOST_PORT", format!("cannot forward port {port}, because {links}")));
        }
        let missing = match forward.host_address {
            Some(address) if address.is_ipv4() => conf.local_address.is_none().then_some("LOCAL_ADDRESS"),
            Some(_) => conf.local_address6.is_none().then_some("LOCAL_ADDRESS6"),
            None => {
                (conf.local_address.is_none() && conf.local_address6.is_none()).then_some("LOCAL_ADDRESS")
            }
        };
        if let Some(key) = missing {
            return Err(setting(
                conf,
                "HOST_PORT",
                format!("cannot forward port {port} without an address that it leads to; set {key}"),
            ));
        }
    }
    Ok(())
}
