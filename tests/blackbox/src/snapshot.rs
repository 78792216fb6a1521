//! Everything of a host that a container could leave behind.

use std::collections::BTreeSet;

use crate::Host;

/// A host at one moment: what [`support::Snapshot`] sees, and the files below the host's root.
#[derive(Debug, Clone)]
pub struct Snapshot {
    host: support::Snapshot,
    files: BTreeSet<String>,
}

impl Snapshot {
    pub(crate) fn of(host: &Host<'_>, inner: &support::Host) -> Snapshot {
        // The store is shared with other hosts, and what is in a container's root is the container's.
        let files = host.sh(&format!(
            "cd {}; mkdir -p etc nix/var/nix var; find etc nix/var var -path nix/var/nix/db -prune -o -path 'var/lib/nixos-containers/*/*' -prune \
                 -o -printf 'files: %p %y %m %l\\n'; cat {}/cgroup.procs",
            host.dir().display(),
            host.cgroup().display(),
        ));
        let host = inner.snapshot().expect("a snapshot of the host");
        Snapshot { host, files: files.lines().map(str::to_owned).collect() }
    }

    /// Compares with a later snapshot.
    ///
    /// # Panics
    /// When they differ, with every line that does.
    #[track_caller]
    pub fn assert_same(&self, later: &Snapshot, after: &str) {
        let gone = self.files.difference(&later.files).map(|line| format!("- {line}\n"));
        let new = later.files.difference(&self.files).map(|line| format!("+ {line}\n"));
        let differences = self.host.difference(&later.host) + &gone.chain(new).collect::<String>();
        assert!(differences.is_empty(), "{after}, the host is not as before:\n{differences}");
    }
}
