//! What ties a container to its host beyond mounts: names, time, logs, secrets, and how much of the kernel's file
//! systems it sees.

use std::fmt;

use serde::{Serialize, Serializer};
use zeroize::Zeroize;

/// What the container takes over from its host. The default takes nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Integration {
    /// Whether systemd-machined can reach into it: what `machinectl bind` mounts arrives on `/run/host/incoming`, and
    /// sockets below `/run/host/unix-export` are seen by the host.
    pub machine: bool,
    /// `/etc/resolv.conf`.
    pub resolv_conf: ResolvConf,
    /// `/etc/localtime`.
    pub timezone: Timezone,
    /// The journal.
    pub journal: LinkJournal,
    /// Secrets below `/run/host/credentials`.
    pub credentials: Vec<Credential>,
}

/// systemd-nspawn's `--resolv-conf=`, and what follows the host while the container runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ResolvConf {
    /// Left alone.
    #[default]
    Off,
    /// The host's is copied over whatever is there.
    ReplaceHost,
    /// systemd-resolved's static file is copied over whatever is there.
    ReplaceStatic,
    /// systemd-resolved's file with the real name servers is copied over whatever is there.
    ReplaceUplink,
    /// systemd-resolved's stub file is copied over whatever is there.
    ReplaceStub,
    /// The host's is copied, where the container has a file or nothing there.
    CopyHost,
    /// systemd-resolved's static file is copied.
    CopyStatic,
    /// systemd-resolved's file with the real name servers is copied.
    CopyUplink,
    /// systemd-resolved's stub file is copied.
    CopyStub,
    /// The host's is bind mounted.
    BindHost,
    /// systemd-resolved's static file is bind mounted.
    BindStatic,
    /// systemd-resolved's file with the real name servers is bind mounted.
    BindUplink,
    /// systemd-resolved's stub file is bind mounted.
    BindStub,
    /// The container's is removed.
    Delete,
    /// With a network of its own as `Off`; else as `CopyStub` or `CopyHost`, or, over a read-only root, `BindStub` or
    /// `BindHost`.
    Auto,
    /// The host's name servers, as far as they can be reached from inside ([`crate::resolver`]), where the container has
    /// no file, an earlier one of ours, or what a resolvconf(8) inside left when it last ran. Whoever supervises the
    /// container keeps them up to date.
    Follow,
    /// The same in place of whatever is there at the start.
    ReplaceFollow,
}

impl ResolvConf {
    /// Whether the file is kept up to date while the container runs.
    #[must_use]
    pub fn follows(self) -> bool {
        matches!(self, ResolvConf::Follow | ResolvConf::ReplaceFollow)
    }
}

/// systemd-nspawn's `--timezone=`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Timezone {
    /// Left alone.
    #[default]
    Off,
    /// The host's file is copied.
    Copy,
    /// The host's file is bind mounted.
    Bind,
    /// A symlink like the host's is made.
    Symlink,
    /// The container's is removed.
    Delete,
    /// As `Symlink`; over a read-only root as `Bind`.
    Auto,
}

/// systemd-nspawn's `--link-journal=`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct LinkJournal {
    /// Which way.
    pub mode: JournalLink,
    /// Whether a host without persistent journal is no error (`try-`).
    pub optional: bool,
}

/// Where the container's journal files are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum JournalLink {
    /// In the container; the host does not see them.
    #[default]
    No,
    /// On the host, bind mounted into the container.
    Host,
    /// In the container, with a symlink on the host.
    Guest,
    /// As `Host` where /var/log/journal/ID exists in the container, else as `No`.
    Auto,
}

/// A secret for PID 1: a file in `CREDENTIALS_DIRECTORY`. Its value is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    /// Name of the file.
    pub id: String,
    /// Its content.
    pub value: Vec<u8>,
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credential({:?}, {} bytes)", self.id, self.value.len())
    }
}

/// Memory that held a secret is not left to whatever comes to read it.
impl Drop for Credential {
    fn drop(&mut self) {
        self.value.zeroize();
    }
}

/// Its name alone.
impl Serialize for Credential {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.id)
    }
}

/// How much of the kernel's own file systems the container sees, and which namespaces it does without: what
/// systemd-nspawn reads from its environment (`SYSTEMD_NSPAWN_*`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KernelView {
    /// Which of /sys and /proc/sys are writable.
    pub writable: ApiWritable,
    /// Whether /tmp is a tmpfs of ours.
    pub tmpfs_tmp: bool,
    /// Whether a network that the container joins ([`crate::Network::Join`]) counts as its own in what it sees of /sys
    /// and /proc/sys/net (`--private-network` beside `--network-namespace-path=`).
    pub joined_network_is_own: bool,
    /// Whether the container's control group is the root of what it sees.
    pub cgroup_namespace: bool,
    /// Whether it shares the host's System V IPC and POSIX message queues.
    pub share_ipc: bool,
    /// Whether it shares the host's processes: its program is not PID 1 then.
    pub share_pid: bool,
    /// Whether it shares the host's hostname.
    pub share_uts: bool,
}

impl Default for KernelView {
    fn default() -> Self {
        KernelView {
            writable: ApiWritable::Default,
            tmpfs_tmp: true,
            joined_network_is_own: false,
            cgroup_namespace: true,
            share_ipc: false,
            share_pid: false,
            share_uts: false,
        }
    }
}

/// `SYSTEMD_NSPAWN_API_VFS_WRITABLE`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ApiWritable {
    /// Nothing, but /proc/sys/net with a network of the container's own.
    #[default]
    Default,
    /// As if the network were the container's own, whosever it is: /proc/sys/net is writable, /sys shows devices only.
    Network,
    /// All of /proc and /sys; nothing of them is hidden.
    Yes,
}
