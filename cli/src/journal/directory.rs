//! Where journals are below a root directory, whose owner may have put anything there.

use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;

use nix::fcntl::OFlag;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::stat::Mode;
use runtime::rootfs::{self, Root};

use super::file::JournalFile;
use super::merged::Journal;

/// Where journald writes, when it may write to a disk and when not.
const PLACES: [&str; 2] = ["/var/log/journal", "/run/log/journal"];
/// Most files of a journal that are opened; journald keeps a hundred in each directory when not told otherwise.
pub const LONGEST_LIST: usize = 500;
/// Most directories of one place.
const MOST_DIRECTORIES: usize = 16;

/// The directories with journal files below one root, and word of their changes.
#[derive(Debug, Default)]
pub struct Directories {
    directories: Vec<File>,
    changes: Option<Inotify>,
}

impl Directories {
    /// Those of the root's own machine, or all where there are none of it.
    #[must_use]
    pub fn find(root: &Root) -> Directories {
        let id = rootfs::machine_id(root).map(|id| rootfs::format_uuid(id).replace('-', ""));
        let all = || PLACES.into_iter().flat_map(|place| below(root, Path::new(place)));
        let mut directories: Vec<File> = Vec::new();
        if let Some(id) = id {
            directories.extend(PLACES.iter().filter_map(|place| root.directory(&Path::new(place).join(&id))));
        }
        if directories.is_empty() {
            directories.extend(all());
        }
        Directories { directories, changes: None }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.directories.is_empty()
    }

    /// Adds the files that are there to the journal. One that is none, or cannot be read, is passed over.
    pub fn open_into(&self, journal: &mut Journal) {
        for directory in &self.directories {
            let entries = fs::read_dir(path_of(directory)).into_iter().flatten().flatten();
            let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
            let is_journal = |name: &String| name.ends_with(".journal") || name.ends_with(".journal~");
            for name in names.filter(is_journal).take(LONGEST_LIST) {
                if let Some(file) = open(directory, &name)
                    && let Ok(file) = JournalFile::open(file)
                {
                    journal.add(file);
                }
            }
        }
    }

    /// A descriptor that is readable once something has changed; `None` where the kernel gives none.
    pub fn watch(&mut self) -> Option<std::os::fd::BorrowedFd<'_>> {
        if self.changes.is_none() {
            let changes = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).ok()?;
            // journald writes through a mapping, which tells nobody, and cuts the file to its length afterwards, which
            // does.
            let what = AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO;
            for directory in &self.directories {
                changes.add_watch(path_of(directory).as_str(), what).ok()?;
            }
            self.changes = Some(changes);
        }
        self.changes.as_ref().map(AsFd::as_fd)
    }

    /// Forgets the changes that were told.
    pub fn seen(&self) {
        while self.changes.as_ref().is_some_and(|changes| changes.read_events().is_ok()) {}
    }
}

fn path_of(directory: &File) -> String {
    format!("/proc/self/fd/{}", directory.as_raw_fd())
}

/// The directories of any machine's journal.
fn below(root: &Root, place: &Path) -> Vec<File> {
    let Some(directory) = root.directory(place) else { return Vec::new() };
    let entries = fs::read_dir(path_of(&directory)).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let is_id = |name: &String| name.len() == 32 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    names.filter(is_id).take(MOST_DIRECTORIES).filter_map(|name| root.directory(&place.join(name))).collect()
}

/// A regular file in the directory; nothing else is opened, and no symlink followed.
fn open(directory: &File, name: &str) -> Option<File> {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let found = File::from(nix::fcntl::openat(directory, name, flags, Mode::empty()).ok()?);
    if !found.metadata().ok()?.is_file() {
        return None;
    }
    File::open(path_of(&found)).ok()
}
