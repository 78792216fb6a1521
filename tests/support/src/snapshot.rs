//! What a host looks like, to be compared with what it looks like later.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use crate::host::sh;
use crate::{Error, Host, Result};

/// A host at one moment: a line for each thing, such as `links: 2: eth0...`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot(BTreeSet<String>);

/// What is looked at, and the command that prints it.
const LOOKS: &[(&str, &str)] = &[
    ("links", "ip -d -o link"),
    ("addresses", "ip -o addr"),
    ("routes", "ip -4 route show table all; ip -6 route show table all; ip -4 rule; ip -6 rule"),
    // Without handles, which count up for ever.
    ("nftables", "nft list ruleset"),
    // stable_secret cannot be read while it is unset.
    ("settings", "cd /proc/sys/net; grep -r . ipv4/ip_forward ipv4/conf ipv6/conf --exclude=stable_secret"),
    ("files", "find /run -mindepth 1 -printf '%p %y %m %U:%G %l\\n'"),
];

impl Snapshot {
    pub(crate) fn take(host: &Host) -> Result<Snapshot> {
        let mut lines = Vec::new();
        for (label, command) in LOOKS {
            let text = sh(command)?;
            lines.extend(
                text.lines().filter(|line| !line.trim().is_empty()).map(|line| format!("{label}: {line}")),
            );
        }
        let mounts = fs::read_to_string("/proc/thread-self/mountinfo")
            .map_err(Error::doing("read /proc/thread-self/mountinfo"))?;
        // Without the ids of mount and parent, which are given anew at each mount.
        let mounts = mounts.lines().filter_map(|line| line.splitn(3, ' ').last());
        lines.extend(mounts.map(|mount| format!("mounts: {mount}")));
        let groups = sh(&format!("find {} -type d", host.cgroup().display()))?;
        lines.extend(groups.lines().map(|group| format!("control groups: {group}")));
        Ok(Snapshot(numbered(lines)))
    }

    /// What is new (`+`) and what is gone (`-`) in `later`, a line each; empty when they are the same.
    #[must_use]
    pub fn difference(&self, later: &Snapshot) -> String {
        let gone = self.0.difference(&later.0).map(|line| format!("- {line}\n"));
        let new = later.0.difference(&self.0).map(|line| format!("+ {line}\n"));
        gone.chain(new).collect()
    }

    /// Compares with a later snapshot.
    ///
    /// # Errors
    /// With every line that differs.
    pub fn require_same(&self, later: &Snapshot, when: &str) -> Result<()> {
        match self.difference(later) {
            same if same.is_empty() => Ok(()),
            lines => {
                Err(Error::Unexpected(format!("the host is not as it was, {when}:\n{}", lines.trim_end())))
            }
        }
    }
}

/// Makes lines that are the same distinct: one mount over another of its kind is a difference, too.
fn numbered(lines: Vec<String>) -> BTreeSet<String> {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let number = |line: String| {
        let times = seen.entry(line.clone()).and_modify(|times| *times += 1).or_insert(1);
        if *times == 1 { line } else { format!("{line} (the {times}. such line)") }
    };
    lines.into_iter().map(number).collect()
}
