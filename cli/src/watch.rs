//! Files of the host that may change in any way: written, replaced, removed, made, reached by other links. Looked at by
//! inotify(7), or every few seconds where a user may have no more of its instances (128 of them, by the kernel's default).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};
use runtime::HostPaths;

/// How often to look where nothing tells.
pub const INTERVAL: Duration = Duration::from_secs(5);

/// What happens to a name in a directory, or to the directory or file itself. Not every write: a file counts when
/// whoever writes it is done.
const CHANGES: AddWatchFlags = AddWatchFlags::IN_CLOSE_WRITE
    .union(AddWatchFlags::IN_MOVE)
    .union(AddWatchFlags::IN_CREATE)
    .union(AddWatchFlags::IN_DELETE)
    .union(AddWatchFlags::IN_DELETE_SELF)
    .union(AddWatchFlags::IN_MOVE_SELF);

/// As many symlinks as the kernel follows in one path (path_resolution(7)).
const MOST_LINKS: usize = 40;

/// Files that are watched, each for somebody called `T`.
#[derive(Debug)]
pub struct Watch<T> {
    inotify: Option<Inotify>,
    files: Vec<(PathBuf, T)>,
    /// Names that count, by the watch of their directory; the empty name is the watched file itself.
    names: HashMap<WatchDescriptor, BTreeMap<OsString, BTreeSet<T>>>,
    paths: HostPaths,
}

impl<T: Copy + Ord> Watch<T> {
    /// Watches these absolute paths of the host, which need not exist.
    #[must_use]
    pub fn new(paths: &HostPaths, files: Vec<(PathBuf, T)>) -> Watch<T> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).ok();
        let mut watch = Watch { inotify, files, names: HashMap::new(), paths: paths.clone() };
        watch.renew();
        watch
    }

    /// Readable when something happened; `None` where it has to be looked at every [`INTERVAL`].
    #[must_use]
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.inotify.as_ref().map(AsFd::as_fd)
    }

    /// Whose files may have changed since the last call.
    pub fn changed(&mut self) -> BTreeSet<T> {
        let everybody = || self.files.iter().map(|(_, who)| *who).collect();
        let Some(inotify) = &self.inotify else { return everybody() };
        let mut changed = BTreeSet::new();
        while let Ok(events) = inotify.read_events() {
            for event in events {
                let name = event.name.as_deref().unwrap_or(OsStr::new(""));
                match self.names.get(&event.wd) {
                    Some(names) if name.is_empty() => changed.extend(names.values().flatten()),
                    Some(names) => changed.extend(names.get(name).into_iter().flatten()),
                    // More happened than the kernel remembers.
                    None if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) => return everybody(),
                    None => {}
                }
            }
        }
        if !changed.is_empty() {
            self.renew();
        }
        changed
    }

    /// Watches what the paths lead to now. A link that changes before its directory is watched is found by looking again.
    fn renew(&mut self) {
        let Some(inotify) = &self.inotify else { return };
        for _ in 0..MOST_LINKS {
            let steps = self.steps();
            let mut names: HashMap<_, BTreeMap<OsString, BTreeSet<T>>> = HashMap::new();
            for (directory, name, who) in &steps {
                if let Ok(watch) = inotify.add_watch(directory, CHANGES) {
                    names.entry(watch).or_default().entry(name.clone()).or_default().insert(*who);
                }
                // A file that is mounted there is written to without its directory hearing of it.
                if let Ok(watch) =
                    inotify.add_watch(&directory.join(name), CHANGES | AddWatchFlags::IN_DONT_FOLLOW)
                {
                    names.entry(watch).or_default().entry(OsString::new()).or_default().insert(*who);
                }
            }
            for watch in self.names.keys().filter(|watch| !names.contains_key(watch)) {
                let _ = inotify.rm_watch(*watch);
            }
            self.names = names;
            if self.steps() == steps {
                return;
            }
        }
    }

    fn steps(&self) -> Vec<(PathBuf, OsString, T)> {
        let steps = |(file, who): &(PathBuf, T)| {
            steps(&self.paths, file)
                .into_iter()
                .map(|(directory, name)| (directory, name, *who))
                .collect::<Vec<_>>()
        };
        self.files.iter().flat_map(steps).collect()
    }
}

/// The names that decide what a path leads to: links on the way, the file itself, or the first one that is missing; each
/// with its directory. Links lead nowhere but below the host's root.
fn steps(paths: &HostPaths, file: &Path) -> Vec<(PathBuf, OsString)> {
    let mut steps = Vec::new();
    let mut left: Vec<OsString> = reversed(file);
    let mut done = PathBuf::from("/");
    let mut links = 0;
    while let Some(name) = left.pop() {
        if name == ".." {
            done.pop();
            continue;
        }
        let place = paths.join(done.join(&name));
        let found = fs::symlink_metadata(&place);
        let link = found.as_ref().is_ok_and(fs::Metadata::is_symlink);
        if link || found.is_err() || left.is_empty() {
            steps.push((paths.join(&done), name.clone()));
        }
        match (found, fs::read_link(&place)) {
            (Err(_), _) => break,
            (Ok(_), Ok(to)) if links < MOST_LINKS => {
                links += 1;
                if to.is_absolute() {
                    done = PathBuf::from("/");
                }
                left.extend(reversed(&to));
            }
            _ => done.push(name),
        }
    }
    steps
}

/// The components of a path, the first one last.
fn reversed(path: &Path) -> Vec<OsString> {
    let part = |component: Component<'_>| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    };
    path.components().rev().filter_map(part).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn host() -> (tempfile::TempDir, HostPaths) {
        let dir = tempfile::tempdir().unwrap();
        for directory in ["etc", "run/a", "run/b"] {
            fs::create_dir_all(dir.path().join(directory)).unwrap();
        }
        let paths = HostPaths::below(dir.path());
        (dir, paths)
    }

    #[test]
    fn every_way_in_which_a_file_can_change_is_seen() {
        let (dir, paths) = host();
        let at = |path: &str| dir.path().join(path);
        let mut watch = Watch::new(&paths, vec![("/etc/x".into(), 'x'), ("/run/c/d/y".into(), 'y')]);
        assert!(watch.fd().is_some());
        let mut seen = |what: &str, expected: &[char]| {
            assert_eq!(watch.changed().into_iter().collect::<Vec<_>>(), expected, "{what}");
        };
        seen("nothing", &[]);
        fs::write(at("etc/x"), "1").unwrap();
        seen("made", &['x']);
        fs::write(at("etc/other"), "1").unwrap();
        seen("another one's", &[]);
        fs::write(at("etc/x"), "2").unwrap();
        seen("written", &['x']);
        fs::rename(at("etc/other"), at("etc/x")).unwrap();
        seen("replaced", &['x']);
        fs::remove_file(at("etc/x")).unwrap();
        seen("removed", &['x']);
        fs::write(at("run/a/target"), "1").unwrap();
        symlink("/run/current/target", at("etc/x")).unwrap();
        seen("a link that leads nowhere", &['x']);
        symlink("a", at("run/current")).unwrap();
        seen("it leads somewhere", &['x']);
        fs::write(at("run/a/target"), "2").unwrap();
        seen("what it leads to is written", &['x']);
        symlink("b", at("run/new")).unwrap();
        fs::rename(at("run/new"), at("run/current")).unwrap();
        seen("a link on the way leads elsewhere", &['x']);
        fs::write(at("run/a/target"), "3").unwrap();
        seen("where it led", &[]);
        fs::write(at("run/b/target"), "1").unwrap();
        seen("where it leads", &['x']);
        fs::create_dir_all(at("run/c")).unwrap();
        seen("a directory on the way", &['y']);
        fs::create_dir_all(at("run/c/d")).unwrap();
        seen("and the next one", &['y']);
        fs::write(at("run/c/d/y"), "1").unwrap();
        seen("and the file", &['y']);
        fs::remove_dir_all(at("run/c")).unwrap();
        seen("all of it gone", &['y']);
    }

    #[test]
    fn a_circle_of_links_comes_to_an_end() {
        let (dir, paths) = host();
        symlink("y", dir.path().join("etc/x")).unwrap();
        symlink("x", dir.path().join("etc/y")).unwrap();
        assert!(!Watch::new(&paths, vec![("/etc/x".into(), ())]).steps().is_empty());
    }
}
