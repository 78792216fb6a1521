//! A file that has its name only once it is whole: until then it has none, or a hidden one where the file system knows
//! no files without names.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{AT_FDCWD, AtFlags};

use crate::files;

/// The file while it is written.
#[derive(Debug)]
pub(super) struct OutFile {
    file: File,
    path: PathBuf,
    /// Its name until then.
    hidden: PathBuf,
    named: bool,
    force: bool,
}

impl OutFile {
    /// For `path`, which must be free unless `force` is set. Only root can read it: it has all that a container has.
    pub(super) fn create(path: &Path, force: bool) -> io::Result<OutFile> {
        if !force && fs::symlink_metadata(path).is_ok() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let name = path.file_name().ok_or(io::ErrorKind::IsADirectory)?;
        // A device, or a FIFO, is no file that another one may take the place of.
        match fs::symlink_metadata(path) {
            Ok(found) if found.is_dir() => return Err(io::ErrorKind::IsADirectory.into()),
            Ok(found) if !found.is_file() => {
                return Err(io::Error::other("it is no regular file; write to it by - and stdout"));
            }
            _ => {}
        }
        let parent = match path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            Some(parent) => parent,
            None => Path::new("."),
        };
        let hidden = parent.join(format!(".{}.{}", name.to_string_lossy(), std::process::id()));
        let mut options = OpenOptions::new();
        options.write(true).mode(0o600);
        let (file, named) = match options.custom_flags(libc::O_TMPFILE).open(parent) {
            Ok(file) => (file, false),
            // EISDIR: a kernel or a file system to which the flag means nothing.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EISDIR)) => {
                let _ = fs::remove_file(&hidden);
                (options.custom_flags(0).create_new(true).open(&hidden)?, true)
            }
            Err(error) => return Err(error),
        };
        Ok(OutFile { file, path: path.to_owned(), hidden, named, force })
    }

    pub(super) fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// It is whole: on the disk, and then under its name.
    pub(super) fn keep(mut self) -> io::Result<()> {
        self.file.sync_all()?;
        if !self.named {
            let _ = fs::remove_file(&self.hidden);
            let open = PathBuf::from(format!("/proc/self/fd/{}", self.file.as_raw_fd()));
            nix::unistd::linkat(AT_FDCWD, &open, AT_FDCWD, &self.hidden, AtFlags::AT_SYMLINK_FOLLOW)?;
            self.named = true;
        }
        if self.force {
            fs::rename(&self.hidden, &self.path)?;
        } else {
            // Unlike a rename it leaves alone what somebody has put there meanwhile.
            fs::hard_link(&self.hidden, &self.path)?;
            fs::remove_file(&self.hidden)?;
        }
        self.named = false;
        files::sync_parent(&self.path)
    }
}

impl Drop for OutFile {
    fn drop(&mut self) {
        if self.named {
            let _ = fs::remove_file(&self.hidden);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_a_file_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink("fifo", &link).unwrap();
        for path in [fifo.as_path(), &link, dir.path()] {
            OutFile::create(path, true).unwrap_err();
        }
        let file = dir.path().join("file");
        fs::write(&file, "old").unwrap();
        OutFile::create(&file, false).unwrap_err();
        drop(OutFile::create(&file, true).unwrap());
        assert_eq!(fs::read_to_string(&file).unwrap(), "old");
        OutFile::create(&file, true).unwrap().keep().unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3);
    }
}
