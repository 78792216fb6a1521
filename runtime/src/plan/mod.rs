//! From what was asked to what will be done: pure data, made without root and without changing anything.

mod cgroup;
mod confinement;
mod display;
mod identity;
mod limits;
mod mounts;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde::Serialize;

pub use cgroup::{CgroupPlan, DevicePolicy};
pub use confinement::Confinement;
pub(crate) use identity::DEFAULT_PATH;
pub use limits::Limit;
pub use mounts::{Attributes, Entry, MountPlan, Source};
pub(crate) use mounts::{BOOT_ID, KMSG, NOTIFY, UUID};

use crate::caps::CapSet;
use crate::config::{Console, ContainerConfig, Network, Payload, Preparation, Program, UserNamespace};
use crate::error::{Error, ErrorKind};
use crate::host::HostFacts;

/// Everything that starting a container will do, in order.
#[derive(Debug, Clone, Serialize)]
pub struct Plan {
    /// The container's name.
    pub name: String,
    /// Host path of the root directory.
    pub rootfs: PathBuf,
    /// Steps before the clone, in order.
    pub preparation: Vec<Preparation>,
    /// The new namespaces.
    pub namespaces: Namespaces,
    /// Mounts in the order in which they are attached; the first is the root.
    pub mounts: Vec<MountPlan>,
    /// UTS hostname.
    pub hostname: String,
    /// `container_uuid` unless the root has a machine id of its own; random when absent.
    pub uuid: Option<[u8; 16]>,
    /// Environment of PID 1, complete but for `container_uuid`.
    pub env: Vec<(OsString, OsString)>,
    /// Program and arguments.
    pub argv: Vec<OsString>,
    /// Working directory inside the container.
    pub cwd: PathBuf,
    /// Bounding, effective, permitted and inheritable capabilities.
    pub capabilities: CapSet,
    /// What else PID 1 and every command of `exec` are held to.
    pub confinement: Confinement,
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
}

impl Namespaces {
    /// The `CLONE_NEW*` bits.
    #[must_use]
    pub fn clone_flags(&self) -> u64 {
        let mut flags = libc::CLONE_NEWNS
            | libc::CLONE_NEWPID
            | libc::CLONE_NEWUTS
            | libc::CLONE_NEWIPC
            | libc::CLONE_NEWCGROUP;
        if self.network == Network::Private {
            flags |= libc::CLONE_NEWNET;
        }
        if self.users != UserNamespace::Host {
            flags |= libc::CLONE_NEWUSER;
        }
        flags as u64
    }
}

impl Plan {
    /// Checks the configuration and plans it on a host with these facts.
    ///
    /// # Errors
    /// When the configuration makes no sense or the host cannot do it; nothing has been created.
    pub fn new(config: &ContainerConfig, host: &HostFacts) -> Result<Plan, Error> {
        unsupported(config)?;
        check_name(&config.name)?;
        check_payload(&config.payload)?;
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
        Ok(Plan {
            name: config.name.clone(),
            rootfs: config.rootfs.clone(),
            preparation: config.preparation.clone(),
            namespaces: Namespaces { network: config.network.clone(), users: config.users },
            mounts: mounts::plan(config, host)?,
            hostname: config.hostname.clone().unwrap_or_else(|| config.name.clone()),
            uuid: config.uuid,
            env: identity::environment(config, host),
            argv: config.payload.argv.clone(),
            cwd: config.payload.cwd.clone().unwrap_or_else(|| PathBuf::from("/")),
            capabilities,
            confinement: confinement::plan(config, capabilities)?,
            limits: limits::plan(host, &mut warnings),
            cgroup: cgroup::plan(config, host)?,
            console: config.console,
            stop_signal: config.stop_signal,
            notify_ready: config.notify_ready,
            warnings,
        })
    }

    /// Whether the container has a `/dev/console`.
    #[must_use]
    pub fn has_console(&self) -> bool {
        self.console != Console::Pipe
    }
}

/// What a configuration can ask for and this version cannot do: refused by name, never left out silently.
fn unsupported(config: &ContainerConfig) -> Result<(), Error> {
    use crate::config::{
        BindIds, BindSource, Execution, Integration, KernelView, Mount, Ownership, Resources, RootOptions,
    };
    let bind = |mount: &Mount| match mount {
        Mount::Bind { source, ids, .. } => {
            !matches!(source, BindSource::Host(_)) || !matches!(ids, BindIds::Auto | BindIds::Host)
        }
        Mount::Tmpfs { .. } => false,
        _ => true,
    };
    let payload = &config.payload;
    let asked = [
        (
            "an image, a template, or a volatile, ephemeral or read-only root",
            config.root != RootOptions::default(),
        ),
        ("a user namespace", config.users != UserNamespace::Host || config.ownership != Ownership::Off),
        ("this kind of mount", config.mounts.iter().any(bind)),
        ("devices by name", !config.security.devices.is_empty()),
        ("containers inside the container", config.security.nested),
        ("these limits", config.execution != Execution::default()),
        ("limits of the control group", config.resources != Resources::default()),
        ("what is taken over from the host", config.integration != Integration::default()),
        ("this view of the kernel", config.kernel_view != KernelView::default()),
        ("a program by its part", payload.program != Program::Command),
        ("a notify socket that nobody waits for", config.notify_socket && !config.notify_ready),
        ("another user than root", payload.user.is_some()),
        ("a stub as PID 1", payload.as_pid2),
        ("inherited sockets", payload.listen_fds > 0),
        ("a network namespace by its path", matches!(config.network, Network::Join(_))),
        ("this console", config.console == Console::Passive),
    ];
    match asked.iter().find(|(_, asked)| *asked) {
        None => Ok(()),
        Some((what, _)) => Err(Error::new(
            ErrorKind::Unsupported,
            format!("cannot start container {}: {what}: not in this version of nixrun", config.name),
        )),
    }
}

/// nspawn's set with the changes that were asked for, as far as we hold them ourselves: execve would fail, or the
/// capset before it, for one that we lack.
fn capabilities(config: &ContainerConfig, host: &HostFacts) -> CapSet {
    crate::caps::nspawn_default(config.network.is_private())
        .union(config.add_capabilities)
        .difference(config.drop_capabilities)
        .intersection(host.capabilities)
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

fn check_payload(payload: &Payload) -> Result<(), Error> {
    let fault = |what: &str| Err(Error::new(ErrorKind::Config, what.to_owned()));
    let nul = |s: &OsString| s.as_encoded_bytes().contains(&0);
    if payload.program == Program::Command && payload.argv.first().is_none_or(|program| program.is_empty()) {
        return fault("no program to run was given; name one after `--`");
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
