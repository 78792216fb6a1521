//! Files that say who does something: locked by whoever has them, removed when that ends, with a line about the holder
//! for those who come too late. The kernel releases the lock of a process that is killed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use runtime::sys::lock;

/// A file that we hold.
#[derive(Debug)]
pub(crate) struct Held {
    path: PathBuf,
    /// How many directories above it go with the last file in them.
    parents: usize,
    file: File,
}

impl Held {
    /// Makes and locks the file at `path`, and the directories above it; `None` when somebody else holds it.
    pub(crate) fn take(path: &Path, parents: usize) -> io::Result<Option<Held>> {
        let file = open_locked(path)?;
        Ok(file.map(|file| Held { path: path.to_owned(), parents, file }))
    }

    /// Says who holds it.
    pub(crate) fn say(&mut self, line: &str) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.rewind()?;
        self.file.write_all(line.as_bytes())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // While it is held: who opens it from now on sees that it has no name any more.
        let _ = fs::remove_file(&self.path);
        for parent in self.path.ancestors().skip(1).take(self.parents) {
            let _ = fs::remove_dir(parent);
        }
    }
}

/// What the holder of a file says about itself; `None` when nobody holds it.
pub(crate) fn holder(path: &Path) -> Option<String> {
    let mut file = File::open(path).ok()?;
    if !lock::is_locked(&file).unwrap_or(false) {
        return None;
    }
    let mut text = String::new();
    file.read_to_string(&mut text).ok()?;
    Some(text)
}

/// Opens and locks a file that its holders remove; `None` when it is held.
fn open_locked(path: &Path) -> io::Result<Option<File>> {
    loop {
        let mut options = OpenOptions::new();
        options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o644)
            .custom_flags(libc::O_NOFOLLOW);
        let file = match options.open(path) {
            // There was none yet, or the last of other holders has removed it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                make_parent(path)?;
                continue;
            }
            opened => opened?,
        };
        match lock::try_lock(&file) {
            Ok(()) => {}
            Err(error) if matches!(error.errno(), nix::errno::Errno::EAGAIN | nix::errno::Errno::EACCES) => {
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        }
        let (ours, now) = (file.metadata()?, fs::metadata(path));
        if now.is_ok_and(|now| (now.dev(), now.ino()) == (ours.dev(), ours.ino())) {
            return Ok(Some(file));
        }
    }
}

fn make_parent(path: &Path) -> io::Result<()> {
    match path.parent().map(fs::create_dir_all) {
        // Somebody removes what we make, at the same time.
        Some(Err(error)) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holds_a_file_and_the_last_one_removes_the_directories() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (dir.path().join("a/b/one"), dir.path().join("a/b/two"));
        let mut first = Held::take(&one, 2).unwrap().unwrap();
        first.say("a long line").unwrap();
        first.say("it").unwrap();
        assert!(Held::take(&one, 2).unwrap().is_none());
        assert_eq!(holder(&one).as_deref(), Some("it"));
        let second = Held::take(&two, 2).unwrap().unwrap();
        drop(first);
        assert!(!one.exists() && holder(&one).is_none() && two.exists());
        drop(second);
        assert!(!dir.path().join("a").exists());
    }
}
