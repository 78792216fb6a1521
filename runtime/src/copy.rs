//! A copy of a directory tree: what `cp -a --reflink=auto` makes.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};

use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstatat, mkdirat, mknodat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchownat, linkat, symlinkat};

use crate::error::{Doing, Error};
use crate::sys::fd::{copy_xattrs, reflink};

const READ: OFlag = OFlag::O_RDONLY.union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// Copies a directory to a place where nothing is, with owners, modes, times, extended attributes and hard links.
pub(crate) fn tree(from: &Path, to: &Path) -> Result<(), Error> {
    let doing = || format!("copy {} to {}", from.display(), to.display());
    let source = File::open(from).doing(doing)?;
    let parent = to.parent().unwrap_or(Path::new("/"));
    if parent.canonicalize().doing(doing)?.starts_with(from.canonicalize().doing(doing)?) {
        return Err(Error::new(
            crate::ErrorKind::Config,
            format!("cannot copy {} to {}: the copy lies within it", from.display(), to.display()),
        ));
    }
    fs::create_dir(to).doing(doing)?;
    let target = File::open(to).doing(doing)?;
    let mut copy = Copy { top: target.as_fd(), links: HashMap::new() };
    copy.directory(source.as_fd(), target.as_fd(), Path::new("")).map_err(|(path, error)| {
        let (kind, path) = (error.kind(), from.join(path));
        let sentence = format!("cannot {}: {}: {error}", doing(), path.display());
        if kind == io::ErrorKind::PermissionDenied {
            return Error::new(crate::ErrorKind::Permission, sentence);
        }
        Error::new(crate::ErrorKind::System, sentence)
    })?;
    let stat = nix::sys::stat::fstat(&source).doing(doing)?;
    dress(target.as_fd(), source.as_fd(), &stat)
        .and_then(|()| date(target.as_fd(), OsStr::new("."), &stat))
        .doing(doing)
}

type Failed = (PathBuf, io::Error);

struct Copy<'a> {
    /// The copy's top directory.
    top: BorrowedFd<'a>,
    /// Where below it the files are that have other names, too, by their device and inode.
    links: HashMap<(u64, u64), PathBuf>,
}

impl Copy<'_> {
    fn directory(&mut self, from: BorrowedFd<'_>, to: BorrowedFd<'_>, path: &Path) -> Result<(), Failed> {
        let at = |error| (path.to_path_buf(), error);
        for entry in fs::read_dir(format!("/proc/self/fd/{}", from.as_raw_fd())).map_err(at)? {
            let name = entry.map_err(at)?.file_name();
            let path = path.join(&name);
            self.entry(from, to, &name, &path).map_err(|failed| match failed {
                Fault::Here(error) => (path, error),
                Fault::Below(failed) => failed,
            })?;
        }
        Ok(())
    }

    fn entry(
        &mut self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        name: &OsStr,
        path: &Path,
    ) -> Result<(), Fault> {
        let stat = fstatat(from, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
        let kind = SFlag::from_bits_truncate(stat.st_mode & libc::S_IFMT);
        if kind != SFlag::S_IFDIR && stat.st_nlink > 1 {
            // The field types differ between libcs.
            #[allow(clippy::unnecessary_cast)]
            let inode = (stat.st_dev as u64, stat.st_ino as u64);
            if let Some(first) = self.links.get(&inode) {
                return Ok(linkat(self.top, first.as_path(), to, name, AtFlags::empty())?);
            }
            self.links.insert(inode, path.to_path_buf());
        }
        match kind {
            SFlag::S_IFDIR => {
                let source = File::from(openat(from, name, READ | OFlag::O_DIRECTORY, Mode::empty())?);
                mkdirat(to, name, Mode::S_IRWXU)?;
                let target = File::from(openat(to, name, READ | OFlag::O_DIRECTORY, Mode::empty())?);
                self.directory(source.as_fd(), target.as_fd(), path).map_err(Fault::Below)?;
                dress(target.as_fd(), source.as_fd(), &stat)?;
            }
            SFlag::S_IFREG => {
                let mut source = File::from(openat(from, name, READ, Mode::empty())?);
                let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
                let mut target = File::from(openat(to, name, flags, Mode::S_IRUSR | Mode::S_IWUSR)?);
                if reflink(target.as_fd(), source.as_fd()).is_err() {
                    io::copy(&mut source, &mut target)?;
                }
                dress(target.as_fd(), source.as_fd(), &stat)?;
            }
            SFlag::S_IFLNK => {
                symlinkat(readlinkat(from, name)?.as_os_str(), to, name)?;
                chown(to, name, &stat)?;
            }
            _ => {
                let mode = Mode::from_bits_truncate(stat.st_mode);
                mknodat(to, name, kind, mode, stat.st_rdev)?;
                chown(to, name, &stat)?;
                // The umask has had its say.
                nix::sys::stat::fchmodat(to, name, mode, nix::sys::stat::FchmodatFlags::FollowSymlink)?;
            }
        }
        Ok(date(to, name, &stat)?)
    }
}

/// What failed: this entry, or one below it.
enum Fault {
    Here(io::Error),
    Below(Failed),
}

impl<E: Into<io::Error>> From<E> for Fault {
    fn from(error: E) -> Fault {
        Fault::Here(error.into())
    }
}

/// The order matters: a change of owner clears set-user-id bits and capabilities.
fn dress(to: BorrowedFd<'_>, from: BorrowedFd<'_>, stat: &FileStat) -> io::Result<()> {
    nix::unistd::fchown(to, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
    copy_xattrs(to, from)?;
    Ok(fchmod(to, Mode::from_bits_truncate(stat.st_mode))?)
}

fn chown(directory: BorrowedFd<'_>, name: &OsStr, stat: &FileStat) -> nix::Result<()> {
    let owner = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    fchownat(directory, name, Some(owner.0), Some(owner.1), AtFlags::AT_SYMLINK_NOFOLLOW)
}

fn date(directory: BorrowedFd<'_>, name: &OsStr, stat: &FileStat) -> io::Result<()> {
    let accessed = TimeSpec::new(stat.st_atime, stat.st_atime_nsec);
    let modified = TimeSpec::new(stat.st_mtime, stat.st_mtime_nsec);
    let flags = nix::sys::stat::UtimensatFlags::NoFollowSymlink;
    Ok(utimensat(directory, name, &accessed, &modified, flags)?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    use std::process::Command;

    use super::*;

    #[test]
    fn a_copy_is_like_the_original() {
        let dir = tempfile::tempdir().unwrap();
        let from = dir.path().join("from");
        fs::create_dir_all(from.join("sub/deep")).unwrap();
        fs::write(from.join("sub/file"), vec![b'x'; 100_000]).unwrap();
        fs::set_permissions(from.join("sub/file"), fs::Permissions::from_mode(0o4751)).unwrap();
        fs::hard_link(from.join("sub/file"), from.join("hard")).unwrap();
        symlink("/no/where", from.join("sub/deep/link")).unwrap();
        nix::unistd::mkfifo(&from.join("fifo"), Mode::from_bits_truncate(0o622)).unwrap();
        fs::set_permissions(from.join("sub/deep"), fs::Permissions::from_mode(0o1770)).unwrap();
        let to = dir.path().join("to");
        tree(&from, &to).unwrap();
        let list = |place: &Path| {
            let format = "%P %y %m %U %G %s %n %T@ %l\n";
            let output = Command::new("find").arg(place).args(["-printf", format]).output().unwrap();
            let mut lines: Vec<_> =
                String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect();
            lines.sort();
            lines
        };
        // Sizes of directories are up to the file system.
        let strip = |lines: Vec<String>| -> Vec<String> {
            lines
                .into_iter()
                .map(|line| if line.contains(" d ") { line.replace(" 4096 ", " ") } else { line })
                .collect()
        };
        assert_eq!(strip(list(&to)), strip(list(&from)));
        assert_eq!(fs::read(to.join("sub/file")).unwrap(), fs::read(from.join("sub/file")).unwrap());
        assert_eq!(to.join("hard").metadata().unwrap().ino(), to.join("sub/file").metadata().unwrap().ino());
        assert_ne!(to.join("hard").metadata().unwrap().ino(), from.join("hard").metadata().unwrap().ino());
    }

    #[test]
    fn extended_attributes_come_along() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs::create_dir(&from).unwrap();
        fs::write(from.join("file"), "").unwrap();
        let file = File::open(from.join("file")).unwrap();
        crate::sys::fd::set_xattr(file.as_fd(), c"user.nixrun", b"value").unwrap();
        tree(&from, &to).unwrap();
        let copied = File::open(to.join("file")).unwrap();
        assert_eq!(
            crate::sys::fd::xattr(copied.as_fd(), c"user.nixrun").as_deref(),
            Some(b"value".as_slice())
        );
    }

    #[test]
    fn a_place_that_is_taken_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("from")).unwrap();
        fs::create_dir(dir.path().join("to")).unwrap();
        fs::write(dir.path().join("to/file"), "mine").unwrap();
        tree(&dir.path().join("from"), &dir.path().join("to")).unwrap_err();
        assert_eq!(fs::read_to_string(dir.path().join("to/file")).unwrap(), "mine");
    }
}
