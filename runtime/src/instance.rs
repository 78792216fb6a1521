//! The files of a running container: its lock, its write-ahead journal, its state.
//!
//! ```text
//! /run/nixrun/NAME/lock      held by the supervisor; the kernel releases it when that dies. Says where the root is
//!                 /journal   one JSON record a line, each written before what it names is made
//!                 /state     one JSON object, replaced whole
//! ```
//! A directory whose lock nobody holds belongs to a supervisor that was killed; [`Instance::claim`] hands out what
//! its journal names.

mod root_lock;

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Doing, Error, ErrorKind};
use crate::host::HostPaths;
use crate::plan::{Confinement, IdRange};
use crate::sys::{fd, lock, process};

pub use root_lock::RootLock;
pub(crate) use root_lock::lock_file;
use root_lock::{NSPAWN_LOCKS, RootLockFile};

/// Directory of all instances.
const DIRECTORY: &str = "/run/nixrun";
/// Clock ticks of a second as the kernel shows them to programs, on every architecture of today.
const USER_HZ: u64 = 100;
/// Where it locks ranges of ids.
pub(crate) const NSPAWN_IDS: &str = "/run/systemd/nspawn-uid";

/// A line of the journal: something that is about to be made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Who knows how to remove it, such as `cgroup` or `network`.
    pub kind: String,
    /// What its owner needs to remove it.
    pub value: serde_json::Value,
}

/// A process, safe against the reuse of its pid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// PID in the pid namespace of the host.
    pub pid: libc::pid_t,
    /// Start time in clock ticks since boot (proc_pid_stat(5), field 22).
    pub start_time: u64,
}

impl ProcessId {
    /// The process that has this pid now.
    #[must_use]
    pub fn of(pid: libc::pid_t) -> Option<ProcessId> {
        let stat = fd::read_kernel_file(Path::new(&format!("/proc/{pid}/stat"))).ok()?;
        // The second field is the name, in parentheses, and may hold anything.
        let start_time = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()?;
        Some(ProcessId { pid, start_time })
    }

    /// A descriptor of this very process; `None` when it is gone.
    #[must_use]
    pub fn open(self) -> Option<OwnedFd> {
        let pidfd = process::pidfd_open(self.pid).ok()?;
        // Compared after opening: the descriptor holds on to whatever process it got.
        (ProcessId::of(self.pid)? == self).then_some(pidfd)
    }
}

/// What others may know about a running container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Its name.
    pub name: String,
    /// Host path of its root directory.
    pub root: PathBuf,
    /// Host path of its control group.
    pub cgroup: PathBuf,
    /// The process that supervises it.
    pub supervisor: ProcessId,
    /// Its PID 1.
    pub leader: ProcessId,
    /// Its uuid, with dashes.
    pub uuid: String,
    /// Whether PID 1 said that it is ready.
    pub ready: bool,
    /// When it was started, in seconds since 1970.
    pub started: u64,
    /// Its program.
    pub program: String,
    /// The host's ids of its users; none without a user namespace.
    #[serde(default)]
    pub users: Option<IdRange>,
    /// Capabilities of its PID 1, as bits: what commands inside get, too.
    pub capabilities: u64,
    /// What else they are held to.
    #[serde(default)]
    pub confinement: Confinement,
    /// Its addresses, without prefixes.
    pub addresses: Vec<String>,
    /// The signal that asks its PID 1 to shut down.
    #[serde(default)]
    pub stop_signal: i32,
    /// Whether its supervisor is a thread of a program that does other things, too: a signal to that process asks nothing
    /// of the supervisor.
    #[serde(default)]
    pub embedded: bool,
    /// Names of the ends that its links have on the host.
    #[serde(default)]
    pub links: Vec<String>,
}

impl State {
    /// Seconds since its PID 1 was started, whatever has become of the clock since.
    #[must_use]
    pub fn uptime(&self) -> u64 {
        let text = fd::read_kernel_file(Path::new("/proc/uptime")).unwrap_or_default();
        let now: f64 = text.split(' ').next().and_then(|seconds| seconds.parse().ok()).unwrap_or_default();
        (now as u64).saturating_sub(self.leader.start_time / USER_HZ)
    }
}

/// A claimed container: nobody else can run this name or this root until it is released or this process dies.
#[derive(Debug)]
pub struct Instance {
    directory: PathBuf,
    lock: File,
    nspawn: Vec<RootLockFile>,
    leftover: Vec<Record>,
    /// Directories to remove once they are empty, the deepest first.
    parents: Vec<PathBuf>,
}

impl Instance {
    /// Takes the container's lock and, where systemd-nspawn takes its own, those of its root.
    ///
    /// # Errors
    /// [`ErrorKind::Busy`] when it runs already, under nixrun or under systemd-nspawn.
    pub fn claim(paths: &HostPaths, name: &str, root: &Path, root_lock: RootLock) -> Result<Instance, Error> {
        crate::plan::check_name(name)?;
        let parent = paths.join(DIRECTORY);
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(&parent)
            .doing(|| format!("make {}", parent.display()))?;
        let directory = parent.join(name);
        let parents = removable(paths);
        let locked = lock_in(&directory).inspect_err(|_| {
            let _ = fs::remove_dir(&directory);
            remove_empty(&parents);
        });
        let Some(lock) = locked? else {
            return Err(busy(name, directory.as_path()));
        };
        let leftover = read_journal(&directory.join("journal"));
        // Before the root is locked: who finds us killed looks for those locks, and the state only comes much later.
        let _ = lock.set_len(0);
        lock.write_all_at(root.as_os_str().as_bytes(), 0)
            .doing(|| format!("write {}", directory.join("lock").display()))?;
        let mut instance = Instance { directory, lock, nspawn: Vec::new(), leftover, parents };
        match root_lock::take(paths, root, root_lock, &mut instance.nspawn) {
            Ok(()) => Ok(instance),
            Err(error) => {
                // What a dead supervisor left is still named by its journal.
                if instance.leftover.is_empty() {
                    instance.release();
                }
                Err(error)
            }
        }
    }

    /// The files by which the root is locked: one is named after the root's inode, and nobody finds it who comes when the
    /// root is gone.
    #[must_use]
    pub fn root_locks(&self) -> Vec<PathBuf> {
        self.nspawn.iter().map(|lock| lock.path().to_owned()).collect()
    }

    /// What a killed supervisor of this container had made, in the order in which it was made.
    #[must_use]
    pub fn leftover(&self) -> &[Record] {
        &self.leftover
    }

    /// Forgets the leftovers once they are removed.
    ///
    /// # Errors
    /// When the journal cannot be removed.
    pub fn forget(&mut self) -> Result<(), Error> {
        self.leftover.clear();
        for name in ["journal", "state"] {
            let path = self.directory.join(name);
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(error).doing(|| format!("remove {}", path.display()));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Writes what is about to be made, in one write: after a crash a record is there whole or not at all.
    ///
    /// # Errors
    /// When /run is full.
    pub fn journal(&self, records: &[Record]) -> Result<(), Error> {
        let path = self.directory.join("journal");
        let mut lines = String::new();
        for record in records {
            lines.push_str(&serde_json::to_string(record).unwrap_or_default());
            lines.push('\n');
        }
        OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&path)
            .and_then(|mut file| file.write_all(lines.as_bytes()))
            .doing(|| format!("write {}", path.display()))
    }

    /// Replaces the state that others read.
    ///
    /// # Errors
    /// When /run is full.
    pub fn publish(&self, state: &State) -> Result<(), Error> {
        let path = self.directory.join("state");
        let temporary = self.directory.join("state.new");
        let text = serde_json::to_string(state).unwrap_or_default();
        // Whoever can write it names the process that `stop` and `exec` act on; an embedding program's umask may be 0.
        let open = OpenOptions::new().write(true).create(true).truncate(true).mode(0o644).open(&temporary);
        open.and_then(|mut file| file.write_all(text.as_bytes()))
            .and_then(|()| fs::rename(&temporary, &path))
            .doing(|| format!("write {}", path.display()))
    }

    /// Gives everything up: the files go, then the locks.
    pub fn release(self) {
        for lock in &self.nspawn {
            lock.remove();
        }
        // Last, so that reclaim finds whom we were killed over.
        for name in ["state", "journal", "lock"] {
            let _ = fs::remove_file(self.directory.join(name));
        }
        // What cannot be removed is reclaimed later; without its lock it means nothing.
        if fs::remove_dir(&self.directory).is_err() {
            let _ = fs::remove_dir_all(&self.directory);
        }
        // The last one out; another's directory keeps each of them.
        remove_empty(&self.parents);
        drop(self.lock);
    }
}

/// A root that nobody starts a container in while this lives: systemd-nspawn's locks on it.
#[derive(Debug)]
pub struct RootHold {
    locks: Vec<RootLockFile>,
    parents: Vec<PathBuf>,
}

/// Keeps a root from being run, be it under nixrun or systemd-nspawn, while it is read.
///
/// # Errors
/// [`ErrorKind::Busy`] when it runs.
pub fn hold_root(paths: &HostPaths, root: &Path) -> Result<RootHold, Error> {
    let mut hold = RootHold { locks: Vec::new(), parents: removable(paths) };
    root_lock::take(paths, root, RootLock::Shared, &mut hold.locks)?;
    Ok(hold)
}

impl Drop for RootHold {
    fn drop(&mut self) {
        for lock in &self.locks {
            lock.remove();
        }
        remove_empty(&self.parents);
    }
}

/// The directories around our files. Those of systemd-nspawn's locks stay where systemd runs: nspawn makes them and
/// its lock in two steps, between which they must not vanish.
fn removable(paths: &HostPaths) -> Vec<PathBuf> {
    let ours = [DIRECTORY];
    let shared = ["/run/systemd/nspawn/propagate", "/run/systemd/nspawn/unix-export"];
    let nspawns = [NSPAWN_LOCKS, NSPAWN_IDS, shared[0], shared[1], "/run/systemd/nspawn", "/run/systemd"];
    let systemd = paths.join("/run/systemd/system").exists();
    let nspawns = nspawns.iter().filter(|_| !systemd);
    ours.iter().chain(nspawns).map(|directory| paths.join(directory)).collect()
}

fn remove_empty(directories: &[PathBuf]) {
    for directory in directories {
        let _ = fs::remove_dir(directory);
    }
}

/// Removes the directories around all containers' files if there are none: for who comes after a supervisor that
/// was killed before it had made its own, or when it had removed them.
pub fn tidy(paths: &HostPaths) {
    remove_empty(&removable(paths));
}

/// What is known of a container that ran or runs.
#[derive(Debug, Clone)]
pub struct Found {
    /// Its name.
    pub name: String,
    /// Whether a supervisor holds it.
    pub alive: bool,
    /// Host path of its root; `None` when it was killed before it had said so.
    pub root: Option<PathBuf>,
    /// Its state, once it was published.
    pub state: Option<State>,
}

/// The container of this name; `None` when it has no files.
#[must_use]
pub fn find(paths: &HostPaths, name: &str) -> Option<Found> {
    let directory = paths.join(DIRECTORY).join(name);
    // A supervisor that was killed while it removed its files may have left the directory alone.
    let alive = match File::open(directory.join("lock")) {
        Ok(file) => lock::is_locked(&file).unwrap_or(false),
        Err(_) if directory.is_dir() => false,
        Err(_) => return None,
    };
    let state = fs::read_to_string(directory.join("state")).ok();
    let state = state.and_then(|text| serde_json::from_str(&text).ok());
    let root = fs::read(directory.join("lock")).ok().filter(|path| !path.is_empty());
    let root = root.map(|path| OsString::from_vec(path).into());
    Some(Found { name: name.to_owned(), alive, root, state })
}

/// Every container that has files, by name.
#[must_use]
pub fn list(paths: &HostPaths) -> Vec<Found> {
    let mut names: Vec<String> = fs::read_dir(paths.join(DIRECTORY))
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| !name.starts_with('.'))
        .collect();
    names.sort();
    names.iter().filter_map(|name| find(paths, name)).collect()
}

fn busy(name: &str, directory: &Path) -> Error {
    let holder = fs::read_to_string(directory.join("state"))
        .ok()
        .and_then(|text| serde_json::from_str::<State>(&text).ok())
        .map(|state| format!(", supervised by process {}", state.supervisor.pid))
        .unwrap_or_default();
    Error::new(ErrorKind::Busy, format!("container {name} is running already{holder}"))
        .hint(format!("stop it with `nixrun stop {name}`"))
}

/// Makes the instance's directory and takes its lock; `None` when it is held.
fn lock_in(directory: &Path) -> Result<Option<File>, Error> {
    let path = directory.join("lock");
    loop {
        match fs::DirBuilder::new().mode(0o755).create(directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(error).doing(|| format!("make {}", directory.display()));
            }
            _ => {}
        }
        match lock_file(&path, false) {
            // The holder before us removed the directory between the two steps.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            result => return result.doing(|| format!("lock {}", path.display())),
        }
    }
}

/// The records of a journal. A torn last line names nothing that was made: it is written before.
fn read_journal(path: &Path) -> Vec<Record> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().map_while(|line| serde_json::from_str(line).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> (tempfile::TempDir, HostPaths, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("var/lib/nixos-containers/a");
        fs::create_dir_all(&root).unwrap();
        let paths = HostPaths::below(dir.path());
        (dir, paths, root)
    }

    #[test]
    fn the_second_claim_is_refused_and_a_released_one_is_free() {
        let (_dir, paths, root) = host();
        let first = Instance::claim(&paths, "a", &root, RootLock::Exclusive).unwrap();
        let error = Instance::claim(&paths, "a", &root, RootLock::Exclusive).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Busy);
        assert!(find(&paths, "a").unwrap().alive);
        first.release();
        assert!(find(&paths, "a").is_none());
        Instance::claim(&paths, "a", &root, RootLock::Exclusive).unwrap().release();
    }

    #[test]
    fn one_root_cannot_run_under_two_names() {
        let (_dir, paths, root) = host();
        let first = Instance::claim(&paths, "a", &root, RootLock::Exclusive).unwrap();
        let error = Instance::claim(&paths, "b", &root, RootLock::Exclusive).unwrap_err();
        assert!(error.to_string().contains("in use by another container"), "{error}");
        assert!(find(&paths, "b").is_none());
        first.release();
    }

    #[test]
    fn who_only_reads_a_root_shares_it_with_others_who_do() {
        let (dir, paths, root) = host();
        let claim = |name: &str, lock| Instance::claim(&paths, name, &root, lock);
        let first = claim("a", RootLock::Shared).unwrap();
        let second = claim("b", RootLock::Shared).unwrap();
        assert_eq!(claim("c", RootLock::Exclusive).unwrap_err().kind(), ErrorKind::Busy);
        // A copy of it is anybody's.
        claim("d", RootLock::None).unwrap().release();
        first.release();
        let beside = dir.path().join("var/lib/nixos-containers/.#a.lck");
        assert!(beside.exists(), "the second still holds it");
        second.release();
        assert!(!beside.exists());
    }

    #[test]
    fn a_dead_supervisors_journal_comes_back_without_its_torn_end() {
        let (dir, paths, root) = host();
        let record = Record { kind: "cgroup".into(), value: serde_json::json!({"unit": "/x"}) };
        let first = Instance::claim(&paths, "a", &root, RootLock::Exclusive).unwrap();
        first.journal(std::slice::from_ref(&record)).unwrap();
        let journal = dir.path().join("run/nixrun/a/journal");
        let mut file = OpenOptions::new().append(true).open(&journal).unwrap();
        file.write_all(b"{\"kind\":\"net").unwrap();
        drop(first); // as the kernel does for a killed process
        let found = find(&paths, "a").unwrap();
        assert!(!found.alive);
        let mut second = Instance::claim(&paths, "a", &root, RootLock::Exclusive).unwrap();
        assert_eq!(second.leftover(), [record]);
        second.forget().unwrap();
        assert!(!journal.exists());
        second.release();
    }

    #[test]
    fn a_process_is_known_by_its_start_time() {
        let me = ProcessId::of(std::process::id() as libc::pid_t).unwrap();
        assert!(me.open().is_some());
        assert!(ProcessId { start_time: me.start_time + 1, ..me }.open().is_none());
    }
}
