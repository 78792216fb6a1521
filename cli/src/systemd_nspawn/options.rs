//! What is known of each option of systemd-nspawn: the parser, `--help`, the reader of `.nspawn` files and
//! docs/nspawn.md all come from one table, [`OPTIONS`] (v256's, and what v257 added).

use super::table::OPTIONS;

/// An option, whichever way it was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is named as its option")]
pub enum Id {
    Help,
    Version,
    Quiet,
    NoPager,
    Settings,
    Cleanup,
    Directory,
    Template,
    Ephemeral,
    Image,
    ImagePolicy,
    OciBundle,
    ReadOnly,
    Volatile,
    RootHash,
    RootHashSig,
    VerityData,
    PivotRoot,
    AsPid2,
    Boot,
    Parameters,
    Chdir,
    Setenv,
    User,
    KillSignal,
    NotifyReady,
    SuppressSync,
    Machine,
    Hostname,
    Uuid,
    Slice,
    Property,
    Register,
    KeepUnit,
    PrivateUsers,
    PrivateUsersChown,
    PrivateUsersOwnership,
    PickUsers,
    PrivateNetwork,
    NetworkInterface,
    NetworkMacvlan,
    NetworkIpvlan,
    NetworkVeth,
    NetworkVethExtra,
    NetworkBridge,
    NetworkZone,
    NetworkNamespacePath,
    Port,
    Capability,
    DropCapability,
    AmbientCapability,
    NoNewPrivileges,
    SystemCallFilter,
    SelinuxContext,
    SelinuxApifsContext,
    ShareSystem,
    Rlimit,
    OomScoreAdjust,
    CpuAffinity,
    Personality,
    ResolvConf,
    Timezone,
    LinkJournal,
    TryGuestJournal,
    Bind,
    BindRo,
    Inaccessible,
    Tmpfs,
    Overlay,
    OverlayRo,
    BindUser,
    BindUserShell,
    Console,
    Pipe,
    Background,
    SetCredential,
    LoadCredential,
}

/// What a command line and a `.nspawn` file decide as one: when the one has said anything about it, the other is not
/// heard. A bit each in [`super::asked::Given`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is named as its options")]
pub enum Setting {
    StartMode,
    Ephemeral,
    Directory,
    PivotRoot,
    WorkingDirectory,
    Environment,
    User,
    Capability,
    KillSignal,
    Personality,
    MachineId,
    ReadOnly,
    Volatile,
    CustomMounts,
    Network,
    ExposePorts,
    Users,
    BindUser,
    NotifyReady,
    SystemCallFilter,
    Hostname,
    NoNewPrivileges,
    OomScoreAdjust,
    CpuAffinity,
    ResolvConf,
    LinkJournal,
    Timezone,
    Slice,
    Console,
    SuppressSync,
    Credentials,
}

impl Setting {
    /// All of them.
    pub const ALL: [Setting; 31] = [
        Setting::StartMode,
        Setting::Ephemeral,
        Setting::Directory,
        Setting::PivotRoot,
        Setting::WorkingDirectory,
        Setting::Environment,
        Setting::User,
        Setting::Capability,
        Setting::KillSignal,
        Setting::Personality,
        Setting::MachineId,
        Setting::ReadOnly,
        Setting::Volatile,
        Setting::CustomMounts,
        Setting::Network,
        Setting::ExposePorts,
        Setting::Users,
        Setting::BindUser,
        Setting::NotifyReady,
        Setting::SystemCallFilter,
        Setting::Hostname,
        Setting::NoNewPrivileges,
        Setting::OomScoreAdjust,
        Setting::CpuAffinity,
        Setting::ResolvConf,
        Setting::LinkJournal,
        Setting::Timezone,
        Setting::Slice,
        Setting::Console,
        Setting::SuppressSync,
        Setting::Credentials,
    ];
}

/// Whether an option takes a value, and what `--help` calls it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Argument {
    /// It takes none.
    No,
    /// It needs one, as `--option=VALUE` or `--option VALUE`.
    Required(&'static str),
    /// It may have one, as `--option=VALUE` only.
    Optional(&'static str),
}

/// How nixrun does what systemd-nspawn does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judgement {
    /// Alike.
    Same,
    /// More, or with less harm, and how.
    Better(&'static str),
    /// Alike but for what is refused here.
    Except(&'static str),
    /// Not at all, and why; whoever asks for it is told so.
    Refused(&'static str),
}

/// Whose `.nspawn` files may have the key: the administrator's in /etc and /run always may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// Any file's.
    Anyone,
    /// Only the administrator's; in a file beside an image it is ignored.
    Administrator,
    /// Any file's as far as it forbids something.
    Restricting,
}

/// A key of `.nspawn` files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    /// `Exec`, `Files` or `Network`.
    pub section: &'static str,
    /// Its name.
    pub name: &'static str,
    /// Whose files may have it.
    pub trust: Trust,
}

/// Headings of `--help`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// Without a heading.
    General,
    /// With this one.
    Titled(&'static str),
    /// Not shown: obsolete, or no option at all.
    Hidden,
}

/// One option.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// Which one.
    pub id: Id,
    /// Its long name without dashes; empty when there is none.
    pub long: &'static str,
    /// Its letter.
    pub short: Option<char>,
    /// Its value.
    pub argument: Argument,
    /// Where `--help` has it.
    pub group: Group,
    /// What it does.
    pub help: &'static str,
    /// Its keys in `.nspawn` files.
    pub keys: &'static [Key],
    /// What it decides together with others.
    pub setting: Option<Setting>,
    /// How nixrun does it.
    pub judgement: Judgement,
}

impl Entry {
    pub(super) const fn new(
        id: Id,
        long: &'static str,
        argument: Argument,
        group: Group,
        help: &'static str,
    ) -> Entry {
        Entry {
            id,
            long,
            short: None,
            argument,
            group,
            help,
            keys: &[],
            setting: None,
            judgement: Judgement::Same,
        }
    }

    pub(super) const fn short(self, letter: char) -> Entry {
        Entry { short: Some(letter), ..self }
    }

    pub(super) const fn keys(self, keys: &'static [Key]) -> Entry {
        Entry { keys, ..self }
    }

    pub(super) const fn setting(self, setting: Setting) -> Entry {
        Entry { setting: Some(setting), ..self }
    }

    pub(super) const fn judged(self, judgement: Judgement) -> Entry {
        Entry { judgement, ..self }
    }
}

pub(super) const fn exec(name: &'static str, trust: Trust) -> Key {
    Key { section: "Exec", name, trust }
}

pub(super) const fn files(name: &'static str, trust: Trust) -> Key {
    Key { section: "Files", name, trust }
}

pub(super) const fn network(name: &'static str) -> Key {
    Key { section: "Network", name, trust: Trust::Administrator }
}

/// The option that has this key in a `.nspawn` file, and the key.
#[must_use]
pub fn key(section: &str, name: &str) -> Option<(&'static Entry, Key)> {
    OPTIONS.iter().find_map(|entry| {
        let key = entry.keys.iter().find(|key| key.section == section && key.name == name)?;
        Some((entry, *key))
    })
}

/// The entry of an option.
#[must_use]
pub fn entry(id: Id) -> &'static Entry {
    match OPTIONS.iter().find(|entry| entry.id == id) {
        Some(entry) => entry,
        // A test holds that every one has an entry; --help is the first.
        None => &OPTIONS[0],
    }
}
