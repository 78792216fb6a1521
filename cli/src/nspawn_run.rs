//! From the options of `nixrun run` to what runtime and netsetup are asked for.

use std::io;
use std::path::{Path, PathBuf};

use netsetup::{NetworkConfig, Veth};
use runtime::{CapSet, Console, ContainerConfig, HostPaths, Mount, Network, Payload, Program};

use crate::args::{RunArgs, RunNetwork};
use crate::configured::{self, FindError};
use crate::lookup::lookup;
use crate::nspawn::SetEnv;
use crate::{group_limit, signals};

/// Where an init is looked for, in systemd-nspawn's order.
const INITS: [&str; 3] = ["/usr/lib/systemd/systemd", "/lib/systemd/systemd", "/sbin/init"];

/// Why options do not make a container.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The container's name is not usable.
    #[error(transparent)]
    Name(#[from] FindError),
    /// The root directory is not usable.
    #[error("cannot use {} as a container's root: {source}", path.display())]
    Root {
        /// As given.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No command was given and the root has no init.
    #[error(
        "cannot find an init in {}: there is none of {}; give a command after --", root.display(), INITS.join(", ")
    )]
    NoInit {
        /// The root.
        root: PathBuf,
    },
    /// There is nothing to make a container of.
    #[error("cannot run a container without a root; name it with -D or -i")]
    NoRoot,
    /// Options contradict each other.
    #[error("cannot use {option}: {problem}")]
    Option {
        /// The option.
        option: &'static str,
        /// What is wrong and what would be right.
        problem: &'static str,
    },
}

/// Turns the options into the two values that are planned; the network is `None` with the host's.
///
/// `console` is what the console is connected to when no option says it. A name is made up from the process id,
/// which no other living nixrun of this host has.
///
/// # Errors
/// [`RunError`].
pub fn to_configs(
    args: &RunArgs,
    console: Console,
) -> Result<(ContainerConfig, Option<NetworkConfig>), RunError> {
    let name = args.machine.clone().unwrap_or_else(|| format!("run-{}", std::process::id()));
    configured::check_name(&name)?;
    if let Some(hostname) = &args.hostname {
        configured::check_name(hostname)?;
    }
    let network = network(&name, &args.network)?;
    let root = match (&args.directory, &args.image) {
        (Some(directory), _) => root_directory(directory)?,
        (None, Some(image)) => root_image(image)?,
        // Not by way of the command line.
        (None, None) => return Err(RunError::NoRoot),
    };
    let is_image = args.directory.is_none();
    let is_init = args.command.is_empty();
    let program = match is_init {
        // What is on an image is seen once it is mounted.
        true if is_image => Program::Init,
        _ => Program::Command,
    };
    let argv = match program {
        Program::Command if is_init => vec![find_init(&root)?.into()],
        _ => args.command.clone(),
    };
    let env = args.setenv.iter().map(SetEnv::resolve).collect();

    let payload = Payload { program, env, cwd: args.chdir.clone(), ..Payload::new(argv) };
    let mut container = ContainerConfig::new(&name, root, payload);
    container.root.image = is_image;
    container.hostname = args.hostname.clone();
    container.uuid = args.uuid;
    container.network = if network.is_some() { Network::Private } else { Network::Host };
    container.mounts = mounts(args);
    container.add_capabilities = union(&args.capability);
    container.drop_capabilities = union(&args.drop_capability);
    container.resources = group_limit::together(&args.limit);
    container.security.nested = args.nested;
    container.console = args.console.console.unwrap_or(console);
    let default_signal = if is_init { signals::SIGRTMIN + 3 } else { libc::SIGTERM };
    container.stop_signal = args.kill_signal.unwrap_or(default_signal);
    container.notify_ready = args.notify_ready;
    Ok((container, network))
}

/// The directory behind the path, which the user may write as a symlink.
fn root_directory(path: &Path) -> Result<PathBuf, RunError> {
    let failed = |source| RunError::Root { path: path.to_owned(), source };
    let root = path.canonicalize().map_err(failed)?;
    if !root.is_dir() {
        return Err(failed(io::Error::from(io::ErrorKind::NotADirectory)));
    }
    Ok(root)
}

/// The file or block device behind the path.
fn root_image(path: &Path) -> Result<PathBuf, RunError> {
    let failed = |source| RunError::Root { path: path.to_owned(), source };
    let image = path.canonicalize().map_err(failed)?;
    if image.is_dir() {
        return Err(failed(io::Error::from(io::ErrorKind::IsADirectory)));
    }
    Ok(image)
}

fn find_init(root: &Path) -> Result<&'static str, RunError> {
    let inside = HostPaths::below(root);
    let exists = |init: &&str| lookup(&inside, Path::new(init)).is_ok_and(|found| found.metadata.is_file());
    INITS.into_iter().find(exists).ok_or_else(|| RunError::NoInit { root: root.to_owned() })
}

fn mounts(args: &RunArgs) -> Vec<Mount> {
    let mut mounts: Vec<Mount> = args.tmpfs.iter().chain(&args.bind).chain(&args.bind_ro).cloned().collect();
    // As systemd-nspawn sorts them: what lies below another mount must come after it. The sort is stable, so that of
    // two mounts on one path the bind mount, and of those the read-only one, is on top.
    mounts.sort_by(|a, b| a.target().cmp(b.target()));
    mounts
}

fn union(sets: &[CapSet]) -> CapSet {
    sets.iter().fold(CapSet::EMPTY, |all, set| all.union(*set))
}

fn network(name: &str, args: &RunNetwork) -> Result<Option<NetworkConfig>, RunError> {
    let has_veth = args.network_veth || args.network_bridge.is_some();
    check_network(args, has_veth)?;
    if !has_veth && !args.private_network {
        return Ok(None);
    }
    let veth = has_veth.then(|| Veth {
        container_link: "host0".to_owned(),
        bridge: args.network_bridge.clone(),
        make_bridge: false,
        up: true,
        container_mac: None,
        host_address: args.host_address,
        host_address6: args.host_address6,
        local_address: args.local_address,
        local_address6: args.local_address6,
    });
    Ok(Some(NetworkConfig {
        veth,
        nat: args.nat.nat.clone().unwrap_or_default(),
        forwards: args.port.clone(),
        ..NetworkConfig::new(name)
    }))
}

fn check_network(args: &RunNetwork, has_veth: bool) -> Result<(), RunError> {
    let refuse = |option, problem| Err(RunError::Option { option, problem });
    let no_veth = "the container has no veth pair; add --network-veth or --network-bridge";
    for (option, given) in [
        ("--host-address", args.host_address.is_some()),
        ("--host-address6", args.host_address6.is_some()),
        ("--local-address", args.local_address.is_some()),
        ("--local-address6", args.local_address6.is_some()),
        ("--port", !args.port.is_empty()),
    ] {
        if given && !has_veth {
            return refuse(option, no_veth);
        }
    }
    let same = "it is the address of the host's end; each end needs its own";
    if args.host_address.is_some() && args.host_address == args.local_address.map(|net| net.addr()) {
        return refuse("--local-address", same);
    }
    if args.host_address6.is_some() && args.host_address6 == args.local_address6.map(|net| net.addr()) {
        return refuse("--local-address6", same);
    }
    for (i, port) in args.port.iter().enumerate() {
        if args.port[..i].iter().any(|earlier| crate::forward::overlap(earlier, port)) {
            return refuse("--port", "the same port of the host was given twice");
        }
        let leads_nowhere = match port.host_address {
            Some(address) if address.is_ipv4() => args.local_address.is_none(),
            Some(_) => args.local_address6.is_none(),
            None => args.local_address.is_none() && args.local_address6.is_none(),
        };
        if leads_nowhere {
            return refuse(
                "--port",
                "it needs an address to lead to; add --local-address or --local-address6",
            );
        }
    }
    Ok(())
}
