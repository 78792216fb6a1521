//! Faults by strace(1): a signal or an error at a chosen system call of nixrun, which knows nothing of it.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use crate::{Host, nixrun_binary};

/// The `nth` call of `name` that a process makes, counted from 1.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Point {
    /// Name of the system call.
    pub name: String,
    /// Which of its calls.
    pub nth: usize,
}

/// The system calls of one process in the order it made them, from a file that strace has written.
///
/// # Panics
/// When the file cannot be read.
#[must_use]
pub fn calls(file: &std::path::Path) -> Vec<Point> {
    let text = fs::read_to_string(file).expect("strace's output");
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let mut number = |name: &str| {
        let nth = seen.entry(name.to_owned()).and_modify(|n| *n += 1).or_insert(1);
        Point { name: name.to_owned(), nth: *nth }
    };
    let names = text.lines().filter_map(|line| Some(line.split_once('(')?.0));
    names
        .filter(|name| name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'))
        .map(&mut number)
        .collect()
}

impl Host<'_> {
    /// `nixrun` under strace with these options of strace.
    #[must_use]
    pub fn traced(&self, strace: &[&str], args: &[&str]) -> Command {
        let mut command = self.command("strace");
        command.arg("-qq").args(strace).arg(nixrun_binary()).arg("--host-root").arg(self.dir()).args(args);
        command
    }

    /// The processes in the host's control groups.
    #[must_use]
    pub fn processes(&self) -> Vec<String> {
        let groups = self.sh(&format!("find {} -name cgroup.procs", self.cgroup().display()));
        let read = |file: &str| fs::read_to_string(file).unwrap_or_default();
        groups.lines().flat_map(|file| read(file).lines().map(str::to_owned).collect::<Vec<_>>()).collect()
    }
}
