//! Options whose value is one of a few words.

use runtime::{JournalLink, LinkJournal, Ownership, ResolvConf, Timezone, Volatile};

use super::asked::ConsoleMode;
use super::set::Stop;
use crate::nspawn;

/// A word that a mode is chosen by.
pub(super) type Word<T> = (&'static str, T);

pub(super) const VOLATILE: &[Word<Volatile>] = &[
    ("no", Volatile::No),
    ("yes", Volatile::Yes),
    ("state", Volatile::State),
    ("overlay", Volatile::Overlay),
];

pub(super) const OWNERSHIP: &[Word<Ownership>] = &[
    ("off", Ownership::Off),
    ("chown", Ownership::Chown),
    ("map", Ownership::Map),
    ("auto", Ownership::Auto),
];

pub(super) const RESOLV_CONF: &[Word<ResolvConf>] = &[
    ("off", ResolvConf::Off),
    ("copy-host", ResolvConf::CopyHost),
    ("copy-static", ResolvConf::CopyStatic),
    ("copy-uplink", ResolvConf::CopyUplink),
    ("copy-stub", ResolvConf::CopyStub),
    ("replace-host", ResolvConf::ReplaceHost),
    ("replace-static", ResolvConf::ReplaceStatic),
    ("replace-uplink", ResolvConf::ReplaceUplink),
    ("replace-stub", ResolvConf::ReplaceStub),
    ("bind-host", ResolvConf::BindHost),
    ("bind-static", ResolvConf::BindStatic),
    ("bind-uplink", ResolvConf::BindUplink),
    ("bind-stub", ResolvConf::BindStub),
    ("delete", ResolvConf::Delete),
    ("auto", ResolvConf::Auto),
];

pub(super) const TIMEZONE: &[Word<Timezone>] = &[
    ("off", Timezone::Off),
    ("copy", Timezone::Copy),
    ("bind", Timezone::Bind),
    ("symlink", Timezone::Symlink),
    ("delete", Timezone::Delete),
    ("auto", Timezone::Auto),
];

pub(super) const CONSOLE: &[Word<ConsoleMode>] = &[
    ("autopipe", ConsoleMode::Autopipe),
    ("interactive", ConsoleMode::Interactive),
    ("passive", ConsoleMode::Passive),
    ("pipe", ConsoleMode::Pipe),
    ("read-only", ConsoleMode::ReadOnly),
];

pub(super) const LINK_JOURNAL: &[Word<LinkJournal>] = &[
    ("no", LinkJournal { mode: JournalLink::No, optional: false }),
    ("auto", LinkJournal { mode: JournalLink::Auto, optional: false }),
    ("guest", LinkJournal { mode: JournalLink::Guest, optional: false }),
    ("host", LinkJournal { mode: JournalLink::Host, optional: false }),
    ("try-guest", LinkJournal { mode: JournalLink::Guest, optional: true }),
    ("try-host", LinkJournal { mode: JournalLink::Host, optional: true }),
];

/// The value that a word stands for; `help` asks for all words.
pub(super) fn word<T: Copy>(words: &[Word<T>], text: &str, fault: impl Fn() -> String) -> Result<T, Stop> {
    if text == "help" {
        return Err(Stop::Print(lines(words.iter().map(|(word, _)| *word))));
    }
    let found = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
    found.ok_or_else(|| {
        let all: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        Stop::Fault(format!("{}; expected one of {}.", fault(), all.join(", ")))
    })
}

pub(super) fn lines(words: impl Iterator<Item = &'static str>) -> String {
    words.map(|word| format!("{word}\n")).collect()
}

/// A boolean is a word for off and auto, where both are modes.
pub(super) fn yes_no(text: &str) -> &str {
    match nspawn::boolean(text) {
        Ok(true) => "auto",
        Ok(false) => "off",
        Err(_) => text,
    }
}
