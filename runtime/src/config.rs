//! What was asked: every front end (NixOS conf, nspawn command line, library) fills a [`ContainerConfig`], and
//! nothing below it knows which one did.

use std::ffi::OsString;
use std::path::PathBuf;

use serde::Serialize;

use crate::caps::CapSet;

/// One container, as asked for. [`crate::Plan::new`] checks it and turns it into mounts, limits and system calls.
#[derive(Debug, Clone, Serialize)]
pub struct ContainerConfig {
    /// Name of the container, its default hostname: a valid hostname of at most 64 bytes.
    pub name: String,
    /// Host path of the directory that becomes `/`.
    pub rootfs: PathBuf,
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
    /// Where the container's control group goes.
    pub cgroup: CgroupParent,
    /// What `/dev/console` is connected to.
    pub console: Console,
    /// The signal that asks PID 1 to shut down, by the kernel's number: SIGTERM unless changed, 37 for systemd. systemd
    /// says SIGRTMIN+3 for it and counts as glibc does, from 34; `libc::SIGRTMIN()` of musl is 35.
    pub stop_signal: i32,
    /// Whether PID 1 says itself when it is ready, over `NOTIFY_SOCKET`; otherwise it is ready once it runs.
    pub notify_ready: bool,
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
            payload,
            hostname: None,
            uuid: None,
            network: Network::Host,
            users: UserNamespace::Host,
            preparation: Vec::new(),
            store: None,
            mounts: Vec::new(),
            add_capabilities: CapSet::EMPTY,
            drop_capabilities: CapSet::EMPTY,
            cgroup: CgroupParent::Auto,
            console: Console::ReadOnly,
            stop_signal: libc::SIGTERM,
            notify_ready: false,
            tty_gid: 5,
        }
    }
}

/// The program that becomes PID 1. No string of it may hold a NUL byte.
#[derive(Debug, Clone, Serialize)]
pub struct Payload {
    /// Program, as an absolute path inside the container or a name to look up in its `PATH`, and its arguments.
    pub argv: Vec<OsString>,
    /// Environment on top of nspawn's; a later entry replaces an earlier one of the same name.
    pub env: Vec<(OsString, OsString)>,
    /// Working directory inside the container; `/` when absent.
    pub cwd: Option<PathBuf>,
}

/// Whose network the container uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Network {
    /// The host's.
    Host,
    /// A network namespace of its own, to be filled between [`crate::Prepared::launch`] and
    /// [`crate::Paused::resume`], before PID 1's first instruction. The kernel puts a loopback link into it that is
    /// down.
    Private,
}

/// How user ids inside map to the host's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum UserNamespace {
    /// No user namespace: the ids are the host's.
    Host,
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

/// A mount over the root. Targets are absolute paths without `..`, resolved within the root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Mount {
    /// A bind mount of a host file or directory.
    Bind {
        /// Host path.
        source: PathBuf,
        /// Path inside the container; made when missing.
        target: PathBuf,
        /// Read-only, including the mounts below it.
        read_only: bool,
        /// Whether the mounts below the source come along.
        recursive: bool,
    },
    /// A fresh tmpfs.
    Tmpfs {
        /// Path inside the container; made when missing.
        target: PathBuf,
        /// Options in mount(8)'s notation, such as `size=10%,mode=0755`.
        options: String,
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
    /// No pty: PID 1 gets our stdin, stdout and stderr.
    Pipe,
}
