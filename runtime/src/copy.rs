//! A copy of a directory tree: what `cp -a --reflink=auto --sparse=always` makes of it, or a snapshot where btrfs can.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};

use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstatat, mkdirat, mknodat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, UnlinkatFlags, Whence, fchownat, linkat, lseek, symlinkat, unlinkat};

use crate::error::{Doing, Error};
use crate::sys::btrfs;
use crate::sys::fd::{copy_xattrs, reflink};
use crate::sys::mount::open_tree_clone;

/// O_NONBLOCK for what was a file when it was looked at and is a FIFO now.
const READ: OFlag = OFlag::O_RDONLY.union(OFlag::O_NOFOLLOW).union(OFlag::O_NONBLOCK).union(OFlag::O_CLOEXEC);

/// How much of a file is copied before somebody hears of it, in bytes.
const PIECE: u64 = 16 << 20;

/// How a tree was kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// As a snapshot of its subvolume.
    Subvolume,
    /// By files that share their blocks with the original's.
    Shared,
    /// By files of its own.
    Copied,
}

/// Hears how many bytes have been copied; whether to go on.
pub type Watch<'a> = &'a mut dyn FnMut(u64) -> bool;

/// Keeps a directory as it is now at a place where nothing is, which is on the same file system for the fast ways: a
/// snapshot of a btrfs subvolume, with those that are nested in it; else files that share their blocks. What is mounted
/// in it stays out, in its place the directory below. It is on the disk when this returns.
///
/// # Errors
/// When something cannot be read or written, or `watch` says no; what has been made stays, to be removed.
pub fn keep(from: &Path, to: &Path, watch: Watch<'_>) -> Result<Kept, Error> {
    let doing = || format!("keep {} as {}", from.display(), to.display());
    let place = nix::fcntl::open(from, READ | OFlag::O_DIRECTORY, Mode::empty()).doing(doing)?;
    // A copy of the mount alone: nothing that is mounted further in is in it.
    let tree = open_tree_clone(place.as_fd(), c"", false).doing(doing)?;
    let source = File::from(openat(&tree, ".", READ | OFlag::O_DIRECTORY, Mode::empty()).doing(doing)?);
    let mut copy = Copy { links: HashMap::new(), bytes: 0, shares: true, shared: true, watch: Some(watch) };
    let subvolume = btrfs::is_subvolume(place.as_fd());
    if subvolume && btrfs::snapshot(place.as_fd(), to).is_ok() {
        let target = File::open(to).doing(doing)?;
        copy.nested(target.as_fd(), source.as_fd(), target.as_fd(), Path::new(""))
            .map_err(|failed| sentence(&doing(), from, failed))?;
        nix::unistd::syncfs(&target).doing(doing)?;
        return Ok(Kept::Subvolume);
    }
    copy.whole(&source, from, to, &doing)?;
    nix::unistd::syncfs(&File::open(to).doing(doing)?).doing(doing)?;
    Ok(if copy.shared { Kept::Shared } else { Kept::Copied })
}

/// Copies a directory to a place where nothing is, with owners, modes, times, extended attributes, hard links and holes.
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
    let mut copy = Copy { links: HashMap::new(), bytes: 0, shares: true, shared: true, watch: None };
    copy.whole(&source, from, to, &doing)
}

fn sentence(doing: &str, from: &Path, (path, error): Failed) -> Error {
    let (kind, path) = (error.kind(), from.join(path));
    let sentence = format!("cannot {doing}: {}: {error}", path.display());
    if kind == io::ErrorKind::PermissionDenied {
        return Error::new(crate::ErrorKind::Permission, sentence);
    }
    Error::new(crate::ErrorKind::System, sentence)
}

type Failed = (PathBuf, io::Error);

struct Copy<'a> {
    /// Where below the copy's top directory the files are that have other names, too, by their device and inode.
    links: HashMap<(u64, u64), PathBuf>,
    /// Bytes copied so far.
    bytes: u64,
    /// Whether the two file systems may let files share blocks.
    shares: bool,
    /// Whether all that have any do.
    shared: bool,
    watch: Option<Watch<'a>>,
}

impl Copy<'_> {
    fn whole(
        &mut self,
        source: &File,
        from: &Path,
        to: &Path,
        doing: &dyn Fn() -> String,
    ) -> Result<(), Error> {
        fs::create_dir(to).doing(doing)?;
        let target = File::open(to).doing(doing)?;
        self.directory(target.as_fd(), source.as_fd(), target.as_fd(), Path::new(""))
            .map_err(|failed| sentence(&doing(), from, failed))?;
        let stat = nix::sys::stat::fstat(source).doing(doing)?;
        dress(target.as_fd(), source.as_fd(), &stat)
            .and_then(|()| date(target.as_fd(), OsStr::new("."), &stat))
            .doing(doing)
    }

    /// Fills in what a snapshot of a subvolume has of those nested in it: an empty directory with a number of its own.
    fn nested(
        &mut self,
        top: BorrowedFd<'_>,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        path: &Path,
    ) -> Result<(), Failed> {
        let at = |error| (path.to_path_buf(), error);
        for entry in fs::read_dir(format!("/proc/self/fd/{}", to.as_raw_fd())).map_err(at)? {
            let entry = entry.map_err(at)?;
            let (name, path) = (entry.file_name(), path.join(entry.file_name()));
            if entry.file_type().map_err(at)?.is_dir() {
                self.nested_entry(top, from, to, &name, &path).map_err(|fault| fault.at(path))?;
            }
        }
        Ok(())
    }

    fn nested_entry(
        &mut self,
        top: BorrowedFd<'_>,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        name: &OsStr,
        path: &Path,
    ) -> Result<(), Fault> {
        let flags = READ | OFlag::O_DIRECTORY;
        if fstatat(to, name, AtFlags::AT_SYMLINK_NOFOLLOW)?.st_ino == btrfs::PLACEHOLDER {
            let above = nix::sys::stat::fstat(to)?;
            unlinkat(to, name, UnlinkatFlags::RemoveDir)?;
            self.entry(top, from, to, name, path)?;
            return Ok(date(to, OsStr::new("."), &above)?);
        }
        let source = openat(from, name, flags, Mode::empty())?;
        let target = openat(to, name, flags, Mode::empty())?;
        self.nested(top, source.as_fd(), target.as_fd(), path).map_err(Fault::Below)
    }

    fn directory(
        &mut self,
        top: BorrowedFd<'_>,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        path: &Path,
    ) -> Result<(), Failed> {
        let at = |error| (path.to_path_buf(), error);
        for entry in fs::read_dir(format!("/proc/self/fd/{}", from.as_raw_fd())).map_err(at)? {
            let name = entry.map_err(at)?.file_name();
            let path = path.join(&name);
            self.entry(top, from, to, &name, &path).map_err(|fault| fault.at(path))?;
        }
        Ok(())
    }

    fn entry(
        &mut self,
        top: BorrowedFd<'_>,
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
                return Ok(linkat(top, first.as_path(), to, name, AtFlags::empty())?);
            }
            self.links.insert(inode, path.to_path_buf());
        }
        match kind {
            SFlag::S_IFDIR => {
                let source = File::from(openat(from, name, READ | OFlag::O_DIRECTORY, Mode::empty())?);
                mkdirat(to, name, Mode::S_IRWXU)?;
                let target = File::from(openat(to, name, READ | OFlag::O_DIRECTORY, Mode::empty())?);
                self.directory(top, source.as_fd(), target.as_fd(), path).map_err(Fault::Below)?;
                dress(target.as_fd(), source.as_fd(), &stat)?;
            }
            SFlag::S_IFREG => {
                let source = File::from(openat(from, name, READ, Mode::empty())?);
                let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
                let target = File::from(openat(to, name, flags, Mode::S_IRUSR | Mode::S_IWUSR)?);
                self.content(&source, &target)?;
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

impl Copy<'_> {
    /// The content of a file, with its holes.
    fn content(&mut self, mut source: &File, mut target: &File) -> io::Result<()> {
        let length = source.metadata()?.len();
        if length > 0 && self.shares {
            match reflink(target.as_fd(), source.as_fd()) {
                Ok(()) => return self.copied(0),
                // A file system can none, or not for this file.
                Err(error) => self.shares = error.errno() == nix::errno::Errno::EINVAL,
            }
        }
        self.shared &= length == 0;
        let mut at = 0;
        while let Some((begin, end)) = data(source, at, length)? {
            source.seek(SeekFrom::Start(begin))?;
            target.seek(SeekFrom::Start(begin))?;
            at = begin;
            while at < end {
                let copied = io::copy(&mut source.take(PIECE.min(end - at)), &mut target)?;
                self.copied(copied)?;
                if copied == 0 {
                    // Somebody has made it shorter.
                    return target.set_len(at);
                }
                at += copied;
            }
        }
        target.set_len(length)
    }

    fn copied(&mut self, bytes: u64) -> io::Result<()> {
        self.bytes += bytes;
        let total = self.bytes;
        let go_on = self.watch.as_mut().is_none_or(|watch| watch(total));
        if go_on { Ok(()) } else { Err(io::Error::other("it was called off")) }
    }
}

/// The next part of a file that is no hole, from `at` on.
fn data(file: &File, at: u64, length: u64) -> io::Result<Option<(u64, u64)>> {
    let seek = |at: u64, whence| {
        lseek(file, at.try_into().unwrap_or(libc::off_t::MAX), whence)
            .map(|at| u64::try_from(at).unwrap_or(0))
    };
    if at >= length {
        return Ok(None);
    }
    match seek(at, Whence::SeekData) {
        Ok(begin) => Ok(Some((begin, seek(begin, Whence::SeekHole)?))),
        Err(nix::errno::Errno::ENXIO) => Ok(None),
        // A file system that knows no holes.
        Err(nix::errno::Errno::EINVAL) => Ok(Some((at, length))),
        Err(errno) => Err(errno.into()),
    }
}

/// What failed: this entry, or one below it.
enum Fault {
    Here(io::Error),
    Below(Failed),
}

impl Fault {
    fn at(self, path: PathBuf) -> Failed {
        match self {
            Fault::Here(error) => (path, error),
            Fault::Below(failed) => failed,
        }
    }
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

    use super::*;

    /// What lstat(2) says of everything below, by path; sizes of directories are up to the file system.
    fn listed(top: &Path) -> Vec<String> {
        let (mut lines, mut left) = (Vec::new(), vec![top.to_owned()]);
        while let Some(path) = left.pop() {
            let (stat, below) = (fs::symlink_metadata(&path).unwrap(), path.strip_prefix(top).unwrap());
            let size = if stat.is_dir() { 0 } else { stat.size() };
            let owners = (stat.uid(), stat.gid(), stat.nlink(), stat.rdev());
            let time = (stat.mtime(), stat.mtime_nsec());
            let link = fs::read_link(&path).ok();
            lines.push(format!("{below:?} {:o} {owners:?} {size} {time:?} {link:?}", stat.mode()));
            if stat.is_dir() {
                left.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            }
        }
        lines.sort();
        lines
    }

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
        assert_eq!(listed(&to), listed(&from));
        assert_eq!(fs::read(to.join("sub/file")).unwrap(), fs::read(from.join("sub/file")).unwrap());
        assert_eq!(to.join("hard").metadata().unwrap().ino(), to.join("sub/file").metadata().unwrap().ino());
        assert_ne!(to.join("hard").metadata().unwrap().ino(), from.join("hard").metadata().unwrap().ino());
    }

    #[test]
    fn holes_stay_holes_and_what_is_mounted_stays_out() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs::create_dir(&from).unwrap();
        let file = File::create(from.join("sparse")).unwrap();
        file.set_len(1 << 30).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, b"in the middle", 512 << 20).unwrap();
        drop(file);
        fs::write(from.join("empty"), "").unwrap();
        let mut heard = 0;
        let kept = keep(&from, &to, &mut |bytes| {
            heard = bytes;
            true
        });
        if !nix::unistd::geteuid().is_root() {
            // The right to mount is needed.
            kept.unwrap_err();
            return;
        }
        assert_ne!(kept.unwrap(), Kept::Subvolume);
        let copied = to.join("sparse").metadata().unwrap();
        assert_eq!(copied.len(), 1 << 30);
        assert!(copied.blocks() * 512 < 1 << 20 && heard < 1 << 20, "{} blocks", copied.blocks());
        let mut text = [0; 13];
        let file = File::open(to.join("sparse")).unwrap();
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut text, 512 << 20).unwrap();
        assert_eq!(&text, b"in the middle");
        let error = keep(&from, &dir.path().join("other"), &mut |_| false).unwrap_err().to_string();
        assert!(error.contains("it was called off"), "{error}");
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
