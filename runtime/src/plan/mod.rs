//! From what was asked to what will be done: pure data, made without root and without changing anything.

mod cgroup;
mod confinement;
mod devices;
mod display;
mod execution;
mod identity;
mod integration;
mod limits;
mod mounts;
mod nested;
mod on_host;
mod resources;
mod users;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde::Serialize;

pub use cgroup::{CgroupPlan, DevicePolicy};
pub use confinement::Confinement;
pub(crate) use identity::{DEFAULT_PATH, INITS, SHELLS};
pub(crate) use integration::JOURNAL;
pub use integration::JournalPlan;
pub use limits::Limit;
pub use mounts::{Attributes, Entry, Layer, MountPlan, Source, TmpfsOptions, UpperLayer};
pub(crate) use mounts::{BOOT_ID, KMSG, MAX_LAYERS, NOTIFY, UUID};
pub use on_host::OnHost;
pub use resources::{Setting, group_settings};
pub use users::{IdChoice, IdRange, UserPlan};
pub(crate) use users::{PICK_FROM, PICK_TO, reduce};

use crate::caps::CapSet;
use crate::config::{
    Console, ContainerConfig, Credential, KernelView, Network, Payload, Preparation, Program, RootOptions,
    UserNamespace,
};
use crate::devices::DeviceRule;
use crate::error::{Error, ErrorKind};
use crate::host::HostFacts;

/// Everything that starting a container will do, in order.
#[derive(Debug, Clone, Serialize)]
pub struct Plan {
    /// The container's name.
    pub name: String,
    /// Host path of the root directory or image.
    pub rootfs: PathBuf,
    /// How it becomes the container's root.
    pub root: RootOptions,
    /// The user namespace; none when ids are the host's.
    pub users: Option<UserPlan>,
    /// Steps before the clone, in order.
    pub preparation: Vec<Preparation>,
    /// The new namespaces.
    pub namespaces: Namespaces,
    /// Mounts in the order in which they are attached; the first is the root.
    pub mounts: Vec<MountPlan>,
    /// What is made on the host beside the root, before the mounts, in order.
    pub on_host: Vec<OnHost>,
    /// How the journal is connected to the host's.
    pub journal: Option<JournalPlan>,
    /// Secrets for the container.
    pub credentials: Vec<Credential>,
    /// UTS hostname.
    pub hostname: String,
    /// `container_uuid` unless the root has a machine id of its own; random when absent.
    pub uuid: Option<[u8; 16]>,
    /// Environment of PID 1, complete but for `container_uuid`.
    pub env: Vec<(OsString, OsString)>,
    /// What is executed.
    pub program: Program,
    /// Program and arguments; only the arguments when `program` is not [`Program::Command`].
    pub argv: Vec<OsString>,
    /// Working directory inside the container; `/`, or for a login shell the user's home, when absent.
    pub cwd: Option<PathBuf>,
    /// The user that the program runs as; root when absent.
    pub user: Option<String>,
    /// Whether the program is PID 2, and PID 1 a stub.
    pub as_pid2: bool,
    /// Number of descriptors from 3 on that the program inherits.
    pub listen_fds: u32,
    /// Bounding, effective, permitted and inheritable capabilities.
    pub capabilities: CapSet,
    /// What else PID 1 and every command of `exec` are held to.
    pub confinement: Confinement,
    /// Devices that the container may use beyond those that every container may, where no unit decides about them.
    pub devices: Vec<DeviceRule>,
    /// Resource limits of PID 1; those of the container's other processes follow from them.
    pub limits: Vec<Limit>,
    /// The control group.
    pub cgroup: CgroupPlan,
    /// What `/dev/console` is connected to.
    pub console: Console,
    /// The signal that asks PID 1 to shut down, by the kernel's number.
    pub stop_signal: i32,
    /// Whether PID 1 says itself when it is ready.
    pub notify_ready: bool,
    /// Whether there is a socket for it to say anything.
    pub notify_socket: bool,
    /// What the machine forbids, and what is done instead; for the user, one sentence each.
    pub warnings: Vec<String>,
}

/// The new namespaces of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Namespaces {
    /// Whether it has a network of its own.
    pub network: Network,
    /// The user namespace.
    pub users: UserNamespace,
    /// Whether it has a control group namespace.
    pub cgroup: bool,
    /// Whether it has an IPC namespace.
    pub ipc: bool,
    /// Whether it has a pid namespace.
    pub pid: bool,
    /// Whether it has a UTS namespace.
    pub uts: bool,
}

impl Namespaces {
    /// The `CLONE_NEW*` bits.
    #[must_use]
    pub fn clone_flags(&self) -> u64 {
        let on = |new: bool, flag: i32| if new { flag } else { 0 };
        let flags = libc::CLONE_NEWNS
            | on(self.pid, libc::CLONE_NEWPID)
            | on(self.uts, libc::CLONE_NEWUTS)
            | on(self.ipc, libc::CLONE_NEWIPC)
            | on(self.cgroup, libc::CLONE_NEWCGROUP)
            | on(self.network == Network::Private, libc::CLONE_NEWNET)
            | on(self.users != UserNamespace::Host, libc::CLONE_NEWUSER);
        flags as u64
    }

    fn new(network: Network, users: UserNamespace, view: &KernelView) -> Namespaces {
        Namespaces {
            network,
            users,
            cgroup: view.cgroup_namespace,
            ipc: !view.share_ipc,
            pid: !view.share_pid,
            uts: !view.share_uts,
        }
    }
}

impl Plan {
    /// Checks the configuration and plans it on a host with these facts.
    ///
    /// # Errors
    /// When the configuration makes no sense or the host cannot do it; nothing has been created.
    pub fn new(config: &ContainerConfig, host: &HostFacts) -> Result<Plan, Error> {
        check_name(&config.name)?;
        check_payload(&config.payload)?;
        check_manager(&config.manager)?;
        if !config.rootfs.is_absolute() {
            return Err(Error::new(
                ErrorKind::Config,
                format!(
                    "the root directory {} of container {} is not an absolute path",
                    config.rootfs.display(),
                    config.name
                ),
            ));
        }
        if !(1..=64).contains(&config.stop_signal) {
            return Err(Error::new(
                ErrorKind::Config,
                format!(
                    "{} is no signal that could ask container {} to stop",
                    config.stop_signal, config.name
                ),
            ));
        }
        let mut warnings = Vec::new();
        let capabilities = capabilities(config, host);
        let cgroup = cgroup::plan(config, host)?;
        let (mounts, on_host) = mounts::plan(config, host, &cgroup, &mut warnings)?;
        Ok(Plan {
            name: config.name.clone(),
            rootfs: config.rootfs.clone(),
            root: config.root.clone(),
            users: users::plan(config, host)?,
            preparation: config.preparation.clone(),
            namespaces: Namespaces::new(config.network.clone(), config.users, &config.kernel_view),
            mounts,
            on_host,
            journal: integration::journal(config, host)?,
            credentials: config.integration.credentials.clone(),
            hostname: config.hostname.clone().unwrap_or_else(|| config.name.clone()),
            uuid: config.uuid,
            env: identity::environment(config, host),
            program: config.payload.program,
            argv: config.payload.argv.clone(),
            cwd: config.payload.cwd.clone(),
            user: config.payload.user.clone(),
            as_pid2: config.payload.as_pid2,
            listen_fds: config.payload.listen_fds,
            capabilities,
            confinement: confinement::plan(config, host, capabilities, &mut warnings)?,
            devices: devices::plan(config, host, &cgroup, &mut warnings)?,
            limits: limits::plan(config, host, &mut warnings)?,
            cgroup,
            console: config.console,
            stop_signal: config.stop_signal,
            notify_ready: config.notify_ready,
            notify_socket: config.notify_ready || config.notify_socket,
            warnings,
        })
    }

    /// Whether the container has a `/dev/console`.
    #[must_use]
    pub fn has_console(&self) -> bool {
        self.console != Console::Pipe
    }
}

/// nspawn's set with the changes that were asked for, as far as we hold them ourselves: execve would fail, or the
/// capset before it, for one that we lack.
///
/// In a user namespace the kernel gives them all. There ports below 1024 of the host's network take the host's capability,
/// and the container's is taken away, to say so.
fn capabilities(config: &ContainerConfig, host: &HostFacts) -> CapSet {
    let private = config.network.is_private();
    let asked = crate::caps::nspawn_default(private)
        .union(config.add_capabilities)
        .difference(config.drop_capabilities);
    match config.users {
        UserNamespace::Host => asked.intersection(host.capabilities),
        UserNamespace::Identity | UserNamespace::Range { base: 0, .. } => asked,
        _ if private => asked,
        _ => asked.difference(CapSet::of(&[caps::Capability::CAP_NET_BIND_SERVICE])),
    }
}

/// A container's name is its hostname, a directory and part of link names: letters, digits, `-`, `_` and `.`, as
/// systemd's machine names and the imperative NixOS containers allow, at most 64 bytes (`HOST_NAME_MAX`).
pub(crate) fn check_name(name: &str) -> Result<(), Error> {
    let fault = if name.is_empty() {
        "is empty"
    } else if name.len() > 64 {
        "is longer than 64 bytes, the kernel's limit for hostnames"
    } else if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) {
        "has characters other than letters, digits, '-', '_' and '.'"
    } else if name.starts_with(['.', '-']) || name.ends_with(['.', '-']) || name.contains("..") {
        "begins or ends with '.' or '-', or has an empty label"
    } else {
        return Ok(());
    };
    Err(Error::new(ErrorKind::Config, format!("the container name {name:?} {fault}")))
}

/// Descriptors that a process can have at most (`fs.nr_open`).
const MOST_SOCKETS: u32 = 1 << 20;

/// It is a variable and a line of a file inside.
fn check_manager(manager: &str) -> Result<(), Error> {
    if !manager.is_empty() && !manager.contains(|c: char| c.is_control()) {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Config,
        format!(
            "{manager:?} cannot be the name of the container's manager: it is empty or has control characters"
        ),
    ))
}

fn check_payload(payload: &Payload) -> Result<(), Error> {
    let fault = |what: &str| Err(Error::new(ErrorKind::Config, what.to_owned()));
    let nul = |s: &OsString| s.as_encoded_bytes().contains(&0);
    if payload.program == Program::Command && payload.argv.first().is_none_or(|program| program.is_empty()) {
        return fault("no program to run was given; name one after `--`");
    }
    if payload.program == Program::Shell && !payload.argv.is_empty() {
        return fault("a login shell takes no arguments; name the program that is to get them");
    }
    if payload.as_pid2 && payload.program == Program::Init {
        return fault("an init must be PID 1; leave the stub out, or name another program");
    }
    if payload.user.as_deref().is_some_and(|user| user.is_empty() || user.contains([':', '/', '\n', '\0'])) {
        return fault("the user to run the program as is neither a name nor a number");
    }
    if payload.user.is_some() && payload.program == Program::Init {
        return fault("an init cannot do its work as another user than root; leave the user out");
    }
    if payload.listen_fds > MOST_SOCKETS {
        return fault("more sockets are to be passed to the container than a process can hold");
    }
    if payload.argv.iter().any(nul) || payload.env.iter().any(|(k, v)| nul(k) || nul(v)) {
        return fault("an argument or environment variable holds a NUL byte, which execve cannot pass");
    }
    if let Some((key, _)) =
        payload.env.iter().find(|(k, _)| k.is_empty() || k.as_encoded_bytes().contains(&b'='))
    {
        return fault(&format!("{key:?} is no name for an environment variable; write NAME=VALUE"));
    }
    if payload.cwd.as_deref().is_some_and(Path::is_relative) {
        return fault("the working directory inside the container is not an absolute path");
    }
    Ok(())
}

#[cfg(test)]
mod tests;
