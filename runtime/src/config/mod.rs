//! What was asked: every front end (NixOS conf, nspawn command line, library) fills a [`ContainerConfig`], and
//! nothing below it knows which one did.

mod integration;
mod mounts;
mod root;
mod security;
mod users;

use std::ffi::OsString;
use std::path::PathBuf;

use serde::Serialize;

pub use integration::{
    ApiWritable, Credential, Integration, JournalLink, KernelView, LinkJournal, ResolvConf, Timezone,
};
pub use mounts::{BindIds, BindSource, Mount};
pub use root::{PivotRoot, RootOptions, Volatile};
pub use security::{
    CpuMax, Device, DeviceAllow, Execution, IoMax, Personality, ResourceLimit, Resources, Security,
    SystemCallRules,
};
pub use users::{Ownership, UserNamespace};

use crate::caps::CapSet;

/// One container, as asked for. [`crate::Plan::new`] checks it and turns it into mounts, limits and system calls.
#[derive(Debug, Clone, Serialize)]
pub struct ContainerConfig {
    /// Name of the container, its default hostname: a valid hostname of at most 64 bytes.
    pub name: String,
    /// Host path of the directory, or disk image, that becomes `/`.
    pub rootfs: PathBuf,
    /// How it does.
    pub root: RootOptions,
    /// The program that becomes PID 1.
    pub payload: Payload,
    /// UTS hostname; the name when absent.
    pub hostname: Option<String>,
    /// `container_uuid`, unless the root has a machine id of its own; random when absent.
    pub uuid: Option<[u8; 16]>,
    /// Whether the container has a network namespace of its own.
    pub network: Network,
    /// The user namespace.
    pub users: UserNamespace,
    /// How the root's files come to belong to its users.
    pub ownership: Ownership,
    /// What is made inside the root, and on the host beside it, before the container starts.
    pub preparation: Vec<Preparation>,
    /// The Nix store of the container.
    pub store: Option<Store>,
    /// Mounts over the root, in this order, after the API file systems.
    pub mounts: Vec<Mount>,
    /// Capabilities beyond nspawn's default set.
    pub add_capabilities: CapSet,
    /// Capabilities taken from nspawn's default set.
    pub drop_capabilities: CapSet,
    /// Restrictions beyond the namespaces.
    pub security: Security,
    /// Limits and scheduling of PID 1.
    pub execution: Execution,
    /// Limits of the control group.
    pub resources: Resources,
    /// What is taken over from the host.
    pub integration: Integration,
    /// How much of the kernel's file systems is seen.
    pub kernel_view: KernelView,
    /// Where the container's control group goes.
    pub cgroup: CgroupParent,
    /// What `/dev/console` is connected to.
    pub console: Console,
    /// The signal that asks PID 1 to shut down, by the kernel's number: SIGTERM unless changed, 37 for systemd. systemd
    /// says SIGRTMIN+3 for it and counts as glibc does, from 34; `libc::SIGRTMIN()` of musl is 35.
    pub stop_signal: i32,
    /// Whether PID 1 says itself when it is ready, over `NOTIFY_SOCKET`; otherwise it is ready once it runs.
    pub notify_ready: bool,
    /// Whether PID 1 gets a `NOTIFY_SOCKET` even if nobody waits for it to be ready, as it does from systemd-nspawn:
    /// what it says is passed on.
    pub notify_socket: bool,
    /// What PID 1 finds in `container=`, and `/run/host/container-manager`: how programs tell who runs them.
    pub manager: String,
    /// Group that owns the container's terminals (devpts `gid=`): 3 on NixOS, 5 on Debian.
    pub tty_gid: u32,
}

impl ContainerConfig {
    /// A container in `rootfs` that runs `payload`, on the host's network, with nspawn's defaults otherwise.
    #[must_use]
    pub fn new(name: impl Into<String>, rootfs: impl Into<PathBuf>, payload: Payload) -> Self {
        ContainerConfig {
            name: name.into(),
            rootfs: rootfs.into(),
            root: RootOptions::default(),
            payload,
            hostname: None,
            uuid: None,
            network: Network::Host,
            users: UserNamespace::Host,
            ownership: Ownership::default(),
            preparation: Vec::new(),
            store: None,
            mounts: Vec::new(),
            add_capabilities: CapSet::EMPTY,
            drop_capabilities: CapSet::EMPTY,
            security: Security::default(),
            execution: Execution::default(),
            resources: Resources::default(),
            integration: Integration::default(),
            kernel_view: KernelView::default(),
            cgroup: CgroupParent::Auto,
            console: Console::ReadOnly,
            stop_signal: libc::SIGTERM,
            notify_ready: false,
            notify_socket: false,
            manager: "systemd-nspawn".to_owned(),
            tty_gid: 5,
        }
    }
}

/// The program that becomes PID 1. No string of it may hold a NUL byte.
#[derive(Debug, Clone, Serialize)]
pub struct Payload {
    /// What is executed.
    pub program: Program,
    /// The program, as an absolute path inside the container or a name to look up in its `PATH`, and its arguments;
    /// only the arguments when `program` says which one it is.
    pub argv: Vec<OsString>,
    /// Environment on top of nspawn's; a later entry replaces an earlier one of the same name.
    pub env: Vec<(OsString, OsString)>,
    /// Working directory inside the container; when absent `/`, or the user's home for a login shell.
    pub cwd: Option<PathBuf>,
    /// The user whose ids the program runs with, by a name of the container's own passwd database or a number; root
    /// when absent.
    pub user: Option<String>,
    /// Whether a stub of ours is PID 1, which reaps orphans and passes shutdown signals on, and the program PID 2.
    pub as_pid2: bool,
    /// Number of sockets, from descriptor 3 on, that the program inherits (sd_listen_fds(3)).
    pub listen_fds: u32,
}

impl Payload {
    /// This program, as PID 1 and root, with nspawn's environment.
    #[must_use]
    pub fn new(argv: Vec<OsString>) -> Payload {
        Payload {
            program: Program::Command,
            argv,
            env: Vec::new(),
            cwd: None,
            user: None,
            as_pid2: false,
            listen_fds: 0,
        }
    }
}

/// What a payload executes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Program {
    /// What its `argv` names.
    Command,
    /// The container's init (`--boot`): the first that there is of `/usr/lib/systemd/systemd`, `/lib/systemd/systemd`
    /// and `/sbin/init`, with `argv` as arguments. It is not given a `LANG`.
    Init,
    /// A login shell: `/bin/bash`, or `/bin/sh` where there is none. It takes no arguments.
    Shell,
}

/// Whose network the container uses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Network {
    /// The host's.
    Host,
    /// A network namespace of its own, to be filled between [`crate::Prepared::launch`] and
    /// [`crate::Paused::resume`], before PID 1's first instruction. The kernel puts a loopback link into it that is
    /// down.
    Private,
    /// The one behind this file on the host, such as `/run/netns/NAME`.
    Join(PathBuf),
}

impl Network {
    /// Whether it is another one than the host's.
    #[must_use]
    pub fn is_private(&self) -> bool {
        *self != Network::Host
    }
}

/// The container's `/nix/store`, always read-only.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Store {
    /// The whole store of the host, by this host path, as one mount.
    Whole(PathBuf),
}

/// A step that readies the root, or a source of a mount, before the container starts. Paths inside the root are
/// resolved within it: the container may have filled it with symlinks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Preparation {
    /// A directory inside the root; one that is there keeps its mode.
    Directory {
        /// Path inside the container.
        path: PathBuf,
        /// Permission bits of a new directory.
        mode: u32,
    },
    /// An empty file inside the root, unless anything is there.
    EmptyFile {
        /// Path inside the container.
        path: PathBuf,
    },
    /// A copy of a host file inside the root, in place of whatever file or symlink is there
    /// (`cp --remove-destination`).
    CopyFile {
        /// Host path of the original.
        from: PathBuf,
        /// Path inside the container.
        path: PathBuf,
    },
    /// A directory of the host, with its parents; one that is there is left alone.
    HostDirectory {
        /// Host path.
        path: PathBuf,
        /// Permission bits of a new directory.
        mode: u32,
    },
}

/// Where the container's control group goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum CgroupParent {
    /// Below the delegated unit that nixrun runs in; else, on a systemd host, a scope `machine-NAME.scope` asked
    /// from it; else `nixrun/NAME` below nixrun's own group.
    Auto,
    /// The same for one of several containers that this process supervises: in a delegated unit its group is
    /// `payload-NAME`.
    Beside,
}

/// What the container's `/dev/console` is connected to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Console {
    /// A pty whose output goes to our stdout, and our stdin to its input.
    Interactive,
    /// A pty whose output goes to our stdout; it has no input.
    ReadOnly,
    /// A pty that nobody reads.
    Passive,
    /// No pty: PID 1 gets our stdin, stdout and stderr.
    Pipe,
}
