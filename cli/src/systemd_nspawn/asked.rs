//! What a command line, or a `.nspawn` file, asks for: one field for each option, absent where nothing was said.

use std::ffi::OsString;
use std::path::PathBuf;

use netsetup::{ExtraVeth, Forward, MovedLink, SubLink};
use runtime::{
    CapSet, LinkJournal, Mount, Ownership, Personality, PivotRoot, ResolvConf, ResourceLimit,
    SystemCallRules, Timezone, UserNamespace, Volatile,
};

use super::options::Setting;

/// A set of [`Setting`]s.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Given(u64);

impl Given {
    /// Whether something was said about it.
    #[must_use]
    pub fn has(self, setting: Setting) -> bool {
        self.0 & 1 << setting as u32 != 0
    }

    /// Notes that something was.
    pub fn add(&mut self, setting: Setting) {
        self.0 |= 1 << setting as u32;
    }
}

/// What is run, and by whom.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Start {
    /// The command, as PID 1; a shell when there is none.
    #[default]
    Pid1,
    /// The command, as PID 2 below a stub of ours.
    Pid2,
    /// The root's init, with the command as its arguments.
    Boot,
}

/// `--console=`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConsoleMode {
    /// A terminal in front of us, to a pty inside.
    Interactive,
    /// The pty has no input.
    ReadOnly,
    /// Nobody reads the pty.
    Passive,
    /// Our own descriptors.
    Pipe,
    /// `Interactive` where we have a terminal, else `Pipe`.
    Autopipe,
}

/// `--settings=`: which `.nspawn` files count, and how much.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SettingsMode {
    /// They are read; the command line wins.
    #[default]
    Yes,
    /// They are not read.
    No,
    /// They are read and win.
    Override,
    /// As `Yes`, and a file beside the image is trusted like the administrator's.
    Trusted,
}

/// Where a credential's value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CredentialSource {
    /// Given literally.
    Value(Vec<u8>),
    /// A file, or a socket to read from.
    File(PathBuf),
    /// One that was passed to us under this name.
    Inherited(String),
}

/// The network, decided as one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Network {
    /// `--private-network`.
    pub private: Option<bool>,
    /// `--network-veth`.
    pub veth: Option<bool>,
    /// `--network-bridge=`.
    pub bridge: Option<String>,
    /// `--network-zone=`, with its `vz-`.
    pub zone: Option<String>,
    /// `--network-veth-extra=`.
    pub extra_veths: Vec<ExtraVeth>,
    /// `--network-interface=`.
    pub interfaces: Vec<MovedLink>,
    /// `--network-macvlan=`.
    pub macvlans: Vec<SubLink>,
    /// `--network-ipvlan=`.
    pub ipvlans: Vec<SubLink>,
    /// `--network-namespace-path=`.
    pub namespace_path: Option<PathBuf>,
}

impl Network {
    /// Whether there is a veth pair.
    #[must_use]
    pub fn has_veth(&self) -> bool {
        self.veth == Some(true) || self.bridge.is_some() || self.zone.is_some()
    }

    /// Whether any link leads into the container.
    #[must_use]
    pub fn has_links(&self) -> bool {
        self.has_veth()
            || !self.extra_veths.is_empty()
            || !self.interfaces.is_empty()
            || !self.macvlans.is_empty()
            || !self.ipvlans.is_empty()
    }

    /// Whether the container has a network of its own.
    #[must_use]
    pub fn is_private(&self) -> bool {
        self.private == Some(true) || self.has_links()
    }
}

/// Everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is named as its option")]
pub struct Asked {
    pub given: Given,
    pub quiet: bool,
    pub settings: SettingsMode,
    pub cleanup: bool,
    pub directory: Option<PathBuf>,
    pub template: Option<PathBuf>,
    pub image: Option<PathBuf>,
    pub ephemeral: bool,
    pub read_only: bool,
    pub volatile: Volatile,
    pub pivot_root: Option<PivotRoot>,
    pub start: Start,
    pub parameters: Vec<OsString>,
    pub chdir: Option<PathBuf>,
    /// A value of `None` stands for the one in our own environment.
    pub environment: Vec<(String, Option<String>)>,
    pub user: Option<String>,
    pub kill_signal: Option<i32>,
    pub notify_ready: bool,
    pub suppress_sync: Option<bool>,
    pub machine: Option<String>,
    pub hostname: Option<String>,
    pub uuid: Option<[u8; 16]>,
    pub slice: Option<String>,
    pub properties: Vec<String>,
    pub register: Option<bool>,
    pub keep_unit: bool,
    pub users: Option<UserNamespace>,
    pub ownership: Option<Ownership>,
    pub network: Network,
    pub ports: Vec<Forward>,
    pub capability: CapSet,
    pub drop_capability: CapSet,
    pub ambient_capability: CapSet,
    pub no_new_privileges: bool,
    pub system_calls: SystemCallRules,
    pub share_system: bool,
    pub limits: Vec<ResourceLimit>,
    pub oom_score_adjust: Option<i32>,
    pub cpu_affinity: Option<Vec<u32>>,
    pub personality: Option<Personality>,
    pub resolv_conf: Option<ResolvConf>,
    pub timezone: Option<Timezone>,
    pub link_journal: Option<LinkJournal>,
    pub mounts: Vec<Mount>,
    pub console: Option<ConsoleMode>,
    pub credentials: Vec<(String, CredentialSource)>,
}
