//! What runs, as the kernel and the supervisor's files say.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use runtime::instance::State;
use runtime::{CapSet, HostPaths};
use schemars::JsonSchema;
use serde::Serialize;

/// A running container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Live {
    /// Host pid of its PID 1.
    pub leader: i32,
    /// Host pid of its supervisor.
    pub supervisor: i32,
    /// Seconds since it was started.
    pub uptime: u64,
    /// Its uuid.
    pub uuid: String,
    /// Its program.
    pub program: String,
    /// Host path of its root directory.
    pub root: PathBuf,
    /// Host path of its control group.
    pub cgroup: PathBuf,
    /// Its addresses.
    pub addresses: Vec<String>,
    /// The ends that its links have on the host.
    pub links: Vec<String>,
    /// The inode of each of its namespaces (namespaces(7)), by the name that it has below /proc/PID/ns; none without
    /// the right to look.
    pub namespaces: BTreeMap<String, u64>,
    /// The host's ids of its users; absent without a user namespace.
    pub users: Option<Ids>,
    /// What its PID 1 may do (capabilities(7)).
    pub capabilities: Vec<String>,
    /// The limits of its control group that are in force, by the kernel's name of the file.
    pub limits: BTreeMap<String, String>,
}

/// A range of ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Ids {
    /// The first one: the container's root.
    pub base: u32,
    /// How many there are.
    pub length: u32,
}

/// The kernel's files of limits, and what they say where there is none.
const LIMITS: [(&str, &str); 10] = [
    ("memory.max", "max"),
    ("memory.high", "max"),
    ("memory.swap.max", "max"),
    ("memory.low", "0"),
    ("cpu.max", "max 100000"),
    ("cpu.weight", "100"),
    ("pids.max", "max"),
    ("io.max", ""),
    ("cpuset.cpus", ""),
    ("cpuset.mems", ""),
];

pub(super) fn live(state: &State, paths: &HostPaths) -> Live {
    Live {
        leader: state.leader.pid,
        supervisor: state.supervisor.pid,
        uptime: state.uptime(),
        uuid: state.uuid.clone(),
        program: state.program.clone(),
        root: state.root.clone(),
        cgroup: state.cgroup.clone(),
        addresses: state.addresses.clone(),
        links: state.links.clone(),
        namespaces: namespaces(&paths.proc(&format!("{}/ns", state.leader.pid))),
        users: state.users.map(|range| Ids { base: range.base, length: range.length }),
        capabilities: CapSet::from_bits(state.capabilities).iter().map(|one| one.to_string()).collect(),
        limits: limits(&state.cgroup),
    }
}

/// Each link there leads to `KIND:[INODE]`.
fn namespaces(directory: &Path) -> BTreeMap<String, u64> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let one = |entry: fs::DirEntry| {
        let name = entry.file_name().into_string().ok()?;
        let target = fs::read_link(entry.path()).ok()?;
        let inode = target.to_str()?.rsplit_once('[')?.1.strip_suffix(']')?.parse().ok()?;
        Some((name, inode))
    };
    entries.filter_map(one).collect()
}

fn limits(group: &Path) -> BTreeMap<String, String> {
    let in_force = |(file, none): (&str, &str)| {
        let text = fs::read_to_string(group.join(file)).ok()?;
        let text = text.trim();
        (text != none).then(|| (file.to_owned(), text.to_owned()))
    };
    LIMITS.into_iter().filter_map(in_force).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_limits_that_limit_are_told() {
        let group = tempfile::tempdir().unwrap();
        for (file, text) in [
            ("memory.max", "1048576\n"),
            ("pids.max", "max\n"),
            ("cpu.max", "50000 100000\n"),
            ("io.max", "\n"),
        ] {
            fs::write(group.path().join(file), text).unwrap();
        }
        let told: Vec<_> = limits(group.path()).into_iter().collect();
        let expected = [("cpu.max", "50000 100000"), ("memory.max", "1048576")];
        assert_eq!(told, expected.map(|(file, text)| (file.to_owned(), text.to_owned())));
    }

    #[test]
    fn namespaces_are_inodes() {
        let of_self = namespaces(Path::new("/proc/self/ns"));
        let inode = std::os::unix::fs::MetadataExt::ino(&fs::metadata("/proc/self/ns/net").unwrap());
        assert_eq!(of_self["net"], inode);
    }
}
