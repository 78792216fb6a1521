//! From a container's settings to what runtime and netsetup are asked for.
//!
//! For a NixOS container the result is what nixpkgs' start script and its one systemd-nspawn call arrive at together.
//! All checks that need no privileges happen here, before anything is created.

mod flags;
mod mounts;
mod network;
mod system;
mod typed;

use std::io;
use std::path::{Path, PathBuf};

use netsetup::NetworkConfig;
use runtime::{
    BindIds, CapSet, Console, ContainerConfig, HostPaths, Mount, Network, Payload, Preparation, Program,
    ResolvConf, Store, UserNamespace,
};

use self::system::STORE;
use crate::configured::{self, FindError};
use crate::settings::{self, Key, Settings};
use crate::signals;

/// A container ready to be planned.
#[derive(Debug, Clone)]
pub struct Boot {
    /// What runtime is asked for.
    pub container: ContainerConfig,
    /// What netsetup is asked for; `None` with the host's network.
    pub network: Option<NetworkConfig>,
    /// What was left out because the host lacks it, one sentence each.
    pub notes: Vec<String>,
    /// What the console is connected to, if the settings say it.
    pub console: Option<Console>,
    /// Whether systemd-machined hears of it, if the settings say it.
    pub register: Option<bool>,
}

/// Why settings do not make a container.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BootError {
    /// The container's name is not usable.
    #[error(transparent)]
    Name(#[from] FindError),
    /// A setting is right by itself and wrong beside the others or on this host.
    #[error("{place} {problem}")]
    Setting {
        /// File, line where it is known, and key.
        place: String,
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

/// A refusal of a setting.
fn wrong(settings: &Settings, key: Key, problem: impl Into<String>) -> BootError {
    BootError::Setting { place: settings.place(key), problem: problem.into() }
}

/// A setting that only the JSON has.
const fn other(json: &'static str) -> Key {
    Key { json, conf: "" }
}

/// Turns the settings of container `name` into the two values that are planned.
///
/// # Errors
/// [`BootError`], when the settings contradict each other, name what this host does not have, or ask for what nixrun
/// cannot do.
pub fn to_configs(name: &str, settings: &Settings, host: &HostPaths) -> Result<Boot, BootError> {
    configured::check_name(name)?;
    let flags = flags::read(settings)?;
    let (network, links) = network::plan(name, settings, host)?;
    let mut notes = Vec::new();
    let mut container = if is_nixos(settings)? {
        nixos(name, settings, host, network.is_private(), &mut notes)?
    } else {
        plain(name, settings, host)?
    };
    container.network = network;
    typed::fill(settings, host, &mut container)?;
    container.kernel_view.joined_network_is_own = settings.document.private_network == Some(true);
    container.mounts.extend(mounts::asked(settings, host)?);
    let console = settings.document.console.map(|word| word.0);
    let mut boot = Boot { container, network: links, notes, console, register: None };
    if let Some(flags) = flags {
        flags::apply(flags, settings, host, &mut boot)?;
    }
    let container = &mut boot.container;
    container.integration.machine = boot.register.unwrap_or(true);
    withhold(container);
    mounts::order(settings, container.store.is_some(), &mut container.mounts)?;
    Ok(boot)
}

/// What systemd-nspawn takes from the default set of capabilities beside certain namespaces.
fn withhold(container: &mut ContainerConfig) {
    let only = |name| CapSet::parse(name).unwrap_or_default();
    let shifted = match container.users {
        UserNamespace::Host | UserNamespace::Identity => false,
        UserNamespace::Range { base, .. } => base > 0,
        _ => true,
    };
    // Ports below 1024 of the host's network belong to the host's root.
    if shifted && !container.network.is_private() {
        container.drop_capabilities = container.drop_capabilities.union(only("CAP_NET_BIND_SERVICE"));
    }
    // Another's network namespace is not the container's own to configure.
    if matches!(container.network, Network::Join(_)) && !container.kernel_view.joined_network_is_own {
        let admin = only("CAP_NET_ADMIN").difference(container.add_capabilities);
        container.drop_capabilities = container.drop_capabilities.union(admin);
    }
}

/// Whether a NixOS system boots, and not a command or the init of an ordinary root directory.
fn is_nixos(settings: &Settings) -> Result<bool, BootError> {
    let document = &settings.document;
    let boot = document.boot == Some(true);
    if boot && document.command.is_some() {
        return Err(wrong(settings, other("boot"), "is true beside command; set one of them"));
    }
    if !boot && document.command.is_none() {
        return Ok(true);
    }
    let key = if boot { "boot" } else { "command" };
    if document.system.is_some() {
        let system = settings.place(settings::SYSTEM);
        return Err(wrong(settings, other(key), format!("is set, and so is {system}; set one of them")));
    }
    Ok(false)
}

/// What nixpkgs' module makes of a container.
fn nixos(
    name: &str,
    settings: &Settings,
    host: &HostPaths,
    private: bool,
    notes: &mut Vec<String>,
) -> Result<ContainerConfig, BootError> {
    let root = root_directory(name, settings, host)?;
    let system = system::find(name, settings, host)?;
    let mut payload = Payload::new(vec![system.path.join("init").into_os_string()]);
    // HOST_*, LOCAL_* and HOST_BRIDGE would tell the container to do what is done already.
    if private {
        payload.env.push(("PRIVATE_NETWORK".into(), "1".into()));
    }
    let mut container = ContainerConfig::new(name, &root, payload);
    container.preparation = preparation(name, &root, host);
    container.store = Some(Store::Whole(host.join(STORE)));
    container.mounts = nix_mounts(name, host, notes)?;
    container.security.personality = system.personality;
    container.integration.resolv_conf = match settings.document.resolv_conf {
        Some(word) => word.0,
        // As systemd-nspawn does, which knows no other default: with the host's network the host's name servers.
        None if private => ResolvConf::Off,
        None => ResolvConf::Follow,
    };
    container.stop_signal = signals::SIGRTMIN + 3;
    container.notify_ready = true;
    container.tty_gid = 3;
    Ok(container)
}

/// A command, or the init, of a root directory that has all it needs.
fn plain(name: &str, settings: &Settings, host: &HostPaths) -> Result<ContainerConfig, BootError> {
    let document = &settings.document;
    let root = match &document.root {
        Some(root) => host.join(&root.0),
        None => host.join("/var/lib/machines").join(name),
    };
    let there = document.template.is_some() || document.image == Some(true) || root.is_dir();
    if !there {
        let problem = "it is not a directory; name another with root".to_owned();
        return Err(BootError::Root { name: name.to_owned(), path: root, problem });
    }
    if root == Path::new("/") {
        let problem = "it is the root of the host; name another with root".to_owned();
        return Err(BootError::Root { name: name.to_owned(), path: root, problem });
    }
    let init = document.command.is_none();
    let argv = document.command.iter().flatten().map(|word| word.0.clone().into()).collect::<Vec<_>>();
    if !init && argv.first().is_none_or(|program: &std::ffi::OsString| program.is_empty()) {
        return Err(wrong(settings, other("command"), "is empty; name a program"));
    }
    let program = if init { Program::Init } else { Program::Command };
    let mut container = ContainerConfig::new(name, root, Payload { program, ..Payload::new(argv) });
    if init {
        container.stop_signal = signals::SIGRTMIN + 3;
    }
    container.integration.resolv_conf = document.resolv_conf.map_or(ResolvConf::Off, |word| word.0);
    Ok(container)
}

/// The root directory of a NixOS container, which need not exist yet.
///
/// # Errors
/// When what is there is no directory that can be one.
pub fn root_directory(name: &str, settings: &Settings, host: &HostPaths) -> Result<PathBuf, BootError> {
    let document = &settings.document;
    let parent = match (document.ephemeral == Some(true), settings.old_directories()) {
        (true, _) => "/run/nixos-containers",
        (false, true) => "/var/lib/containers",
        (false, false) => "/var/lib/nixos-containers",
    };
    let path = match &document.root {
        Some(root) => host.join(&root.0),
        None => host.join(parent).join(name),
    };
    let problem = match std::fs::symlink_metadata(&path) {
        _ if document.image == Some(true) => return Ok(path),
        Ok(found) if found.is_dir() && path != Path::new("/") => return Ok(path),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(path),
        Ok(found) if found.is_symlink() => {
            "it is a symbolic link; make it a directory, or mount the real one there".to_owned()
        }
        Ok(found) if found.is_dir() => "it is the root of the host; name another with root".to_owned(),
        Ok(_) => "it is not a directory".to_owned(),
        Err(e) => e.to_string(),
    };
    Err(BootError::Root { name: name.to_owned(), path, problem })
}

/// What nixpkgs' start script makes before it starts systemd-nspawn.
fn preparation(name: &str, root: &Path, host: &HostPaths) -> Vec<Preparation> {
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
    steps
}

fn per_container(kind: &str, name: &str) -> PathBuf {
    Path::new("/nix/var/nix").join(kind).join("per-container").join(name)
}

/// The bind mounts of nixpkgs' systemd-nspawn call, besides the store.
fn nix_mounts(name: &str, host: &HostPaths, notes: &mut Vec<String>) -> Result<Vec<Mount>, BootError> {
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
