//! A log that is a journal: the container's, found below the root that it has at the time, or the host's.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use runtime::instance::{self, ProcessId};
use runtime::rootfs::Root;
use runtime::{Console, HostPaths};

use super::line::LogLine;
use crate::journal::{Directories, Entry, Journal};
use crate::ops::{self, BootOptions, Result};

/// A journal that is read, and followed from one run of the container to the next.
#[derive(Debug)]
pub(super) struct JournalLog {
    /// The container, unless it is the host's journal.
    container: Option<String>,
    paths: HostPaths,
    unit: Option<String>,
    /// How much of what is there is wanted, until that has been read.
    backlog: Option<usize>,
    leader: Option<(ProcessId, OwnedFd)>,
    directories: Directories,
    journal: Journal,
}

impl JournalLog {
    pub(super) fn of_container(
        name: &str,
        unit: Option<String>,
        backlog: Option<usize>,
        paths: &HostPaths,
    ) -> Result<JournalLog> {
        ops::status(name, paths)?;
        let (leader, directories) = locate(name, paths);
        let mut journal = Journal::default();
        directories.open_into(&mut journal);
        let container = Some(name.to_owned());
        Ok(JournalLog { container, paths: paths.clone(), unit, backlog, leader, directories, journal })
    }

    /// What the container's unit has logged on the host.
    pub(super) fn of_host(name: &str, backlog: Option<usize>, paths: &HostPaths) -> Result<JournalLog> {
        let directories = Directories::find(&Root::open(&paths.join("/"))?);
        let mut journal = Journal::default();
        directories.open_into(&mut journal);
        let unit = Some(format!("container@{name}.service"));
        let paths = paths.clone();
        Ok(JournalLog { container: None, paths, unit, backlog, leader: None, directories, journal })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.journal.is_empty()
    }

    pub(super) fn read(&mut self, each: &mut dyn FnMut(&LogLine) -> Result<()>) -> Result<()> {
        let unit = self.unit.clone();
        let wanted = |entry: &Entry| unit.as_deref().is_none_or(|unit| entry.is_of_unit(unit));
        let mut show = |entry: &Entry| match LogLine::of(entry) {
            Some(line) => each(&line),
            None => Ok(()),
        };
        if let Some(count) = self.backlog.take() {
            let with_message = |entry: &Entry| entry.get("MESSAGE").is_some() && wanted(entry);
            self.journal.latest(count, with_message).iter().try_for_each(&mut show)?;
        }
        self.look_again();
        loop {
            self.journal.by_ref().filter(|entry| wanted(entry)).try_for_each(|entry| show(&entry))?;
            if !self.has_moved() {
                return Ok(());
            }
            self.look_again();
        }
    }

    fn look_again(&mut self) {
        self.directories.seen();
        self.journal.refresh();
        self.directories.open_into(&mut self.journal);
    }

    /// Whether the container is another one by now, or runs no more, and so has another root.
    fn has_moved(&mut self) -> bool {
        let Some(name) = &self.container else { return false };
        let of = |leader: &Option<(ProcessId, OwnedFd)>| leader.as_ref().map(|(leader, _)| *leader);
        if of(&leader(name, &self.paths)) == of(&self.leader) && !self.directories.is_empty() {
            return false;
        }
        let (leader, directories) = locate(name, &self.paths);
        let moved = !directories.is_empty();
        (self.leader, self.directories) = (leader, directories);
        moved
    }

    pub(super) fn changes(&mut self) -> Vec<BorrowedFd<'_>> {
        let ended = self.leader.as_ref().map(|(_, pidfd)| pidfd.as_fd());
        ended.into_iter().chain(self.directories.watch()).collect()
    }
}

/// The container's PID 1, if it lives: a dead one's root is nobody's, though its supervisor may still be at work.
fn leader(name: &str, paths: &HostPaths) -> Option<(ProcessId, OwnedFd)> {
    let leader = instance::find(paths, name).filter(|found| found.alive)?.state?.leader;
    let pidfd = leader.open()?;
    let ended = poll(&mut [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)], PollTimeout::ZERO);
    (ended == Ok(0)).then_some((leader, pidfd))
}

/// The container's PID 1 if it runs, and the directories with its journal: below the root of that, and else below its
/// root directory.
fn locate(name: &str, paths: &HostPaths) -> (Option<(ProcessId, OwnedFd)>, Directories) {
    if let Some((leader, pidfd)) = leader(name, paths)
        && let Ok(root) = Root::open(Path::new(&format!("/proc/{}/root/.", leader.pid)))
        // The path was the leader's only if the leader still lives.
        && leader.open().is_some()
    {
        return (Some((leader, pidfd)), Directories::find(&root));
    }
    let root = Root::open(&root_directory(name, paths));
    (None, root.map_or_else(|_| Directories::default(), |root| Directories::find(&root)))
}

/// Where the root of a container is that does not run: as it is configured, or where NixOS keeps them.
fn root_directory(name: &str, paths: &HostPaths) -> PathBuf {
    let request = ops::boot_request(name, &BootOptions::default(), Console::ReadOnly, paths);
    match request {
        Ok(request) if !request.container.root.image => request.container.rootfs,
        _ => ops::root_of(name, paths),
    }
}
