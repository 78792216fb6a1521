//! Sums over a container's processes, from procfs (proc(5)).

use std::fs;
use std::path::Path;

use runtime::{HostPaths, cgroup_processes};

use super::{Io, Memory, Pids, Source};

/// The processes of a control group and of those below it.
pub(super) struct Processes<'a> {
    pids: Vec<i32>,
    paths: &'a HostPaths,
    /// /proc/PID/status of each, read once it is needed.
    status: Option<Vec<String>>,
}

impl Processes<'_> {
    pub(super) fn of<'a>(group: &Path, paths: &'a HostPaths) -> Processes<'a> {
        Processes { pids: cgroup_processes(group), paths, status: None }
    }

    pub(super) fn count(&self) -> u64 {
        self.pids.len() as u64
    }

    /// Resident memory, and what is swapped out. A kernel thread or a zombie has none.
    pub(super) fn memory(&mut self) -> Option<Memory> {
        let kibibytes = |key| move |status: &String| field(status, key).unwrap_or(0).saturating_mul(1024);
        let current = self.status().iter().map(kibibytes("VmRSS:")).sum();
        let swap = self.status().iter().map(kibibytes("VmSwap:")).sum();
        let (peak, limit, swap_limit, oom_kills) = (None, None, None, None);
        let source = Source::Processes;
        Some(Memory { source, current, peak, limit, swap: Some(swap), swap_limit, oom_kills })
    }

    pub(super) fn pids(&mut self) -> Option<Pids> {
        let processes = self.count();
        let current = self.status().iter().filter_map(|status| field(status, "Threads:")).sum();
        Some(Pids { source: Source::Processes, current, processes, limit: None })
    }

    /// What the processes, and those that they have waited for, read and wrote; `None` when we may not know.
    pub(super) fn io(&self) -> Option<Io> {
        let read = |pid: &i32| fs::read_to_string(self.paths.proc(&format!("{pid}/io")));
        let texts: Vec<String> = self.pids.iter().filter_map(|pid| read(pid).ok()).collect();
        if texts.is_empty() {
            return None;
        }
        let sum = |key| texts.iter().filter_map(|text| field(text, key)).sum();
        Some(Io {
            source: Source::Processes,
            read_bytes: sum("read_bytes:"),
            write_bytes: sum("write_bytes:"),
            reads: None,
            writes: None,
        })
    }

    fn status(&mut self) -> &[String] {
        let Processes { pids, paths, status } = self;
        status.get_or_insert_with(|| {
            let read = |pid: &i32| fs::read_to_string(paths.proc(&format!("{pid}/status"))).ok();
            pids.iter().filter_map(read).collect()
        })
    }
}

/// The number behind a key at the beginning of a line.
fn field(text: &str, key: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(key))?;
    value.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_are_added_up_and_one_that_has_ended_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let group = dir.path().join("group");
        fs::create_dir_all(group.join("below")).unwrap();
        fs::write(group.join("cgroup.procs"), "7\n9\n").unwrap();
        fs::write(group.join("below/cgroup.procs"), "8\n").unwrap();
        let file = |path: &str, text: &str| {
            let path = dir.path().join("proc").join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        // A name may look like anything.
        file("7/status", "Name:\tVmRSS: 9\nVmRSS:\t     100 kB\nVmSwap:\t       1 kB\nThreads:\t3\n");
        file("8/status", "Name:\tzombie\nThreads:\t1\n");
        file(
            "7/io",
            "rchar: 900\nwchar: 900\nread_bytes: 4096\nwrite_bytes: 8192\ncancelled_write_bytes: 0\n",
        );
        let paths = HostPaths::default().with_proc(dir.path().join("proc"));
        let mut processes = Processes::of(&group, &paths);
        let memory = processes.memory().unwrap();
        assert_eq!((memory.current, memory.swap), (102_400, Some(1024)));
        let pids = processes.pids().unwrap();
        assert_eq!((pids.current, pids.processes), (4, 3));
        let io = processes.io().unwrap();
        assert_eq!((io.read_bytes, io.write_bytes, io.reads), (4096, 8192, None));
    }
}
