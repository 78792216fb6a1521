//! The container's root directory on the host: opened once, and every path below it resolved within it.

mod base;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag};
use nix::sys::stat::Mode;
use nix::unistd::{Gid, Uid, UnlinkatFlags};

use crate::config::Preparation;
use crate::error::{Doing, Error, ErrorKind};
use crate::host::c_path;
use crate::sys::SyscallError;
use crate::sys::inroot::{self, Make};

/// An open root directory.
#[derive(Debug)]
pub struct Root {
    directory: OwnedFd,
    path: PathBuf,
    /// User and group of what is made in it; ours when absent.
    owner: Option<u32>,
}

impl AsFd for Root {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

impl Root {
    /// Opens the directory; a symlink in its place is refused, because locks and names go by the directory itself.
    ///
    /// # Errors
    /// When it is missing, a symlink, or no directory.
    pub fn open(path: &Path) -> Result<Root, Error> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let directory = nix::fcntl::openat(AT_FDCWD, path, flags, Mode::empty()).map_err(|errno| {
            let shown = path.display();
            match errno {
                Errno::ENOENT => {
                    Error::new(ErrorKind::NotFound, format!("the root directory {shown} does not exist"))
                }
                // O_DIRECTORY with O_NOFOLLOW says ENOTDIR for a symlink, too.
                Errno::ENOTDIR | Errno::ELOOP if path.is_symlink() => {
                    Error::new(ErrorKind::Config, format!("the root directory {shown} is a symlink"))
                        .hint("name the directory that it leads to")
                }
                Errno::ENOTDIR => {
                    Error::new(ErrorKind::Config, format!("the root {shown} is not a directory"))
                }
                errno => {
                    Error::new(ErrorKind::System, format!("cannot open the root directory {shown}: {errno}"))
                }
            }
        })?;
        Ok(Root { directory, path: path.to_path_buf(), owner: None })
    }

    /// The root of a mount that is attached to nothing.
    pub(crate) fn mounted(tree: OwnedFd, path: &Path) -> Root {
        Root { directory: tree, path: path.to_path_buf(), owner: None }
    }

    /// A directory of this root, as one of its own.
    pub(crate) fn inner(&self, path: &Path) -> Result<Root, Error> {
        let directory =
            self.resolve(path, libc::O_PATH | libc::O_DIRECTORY, Make::Nothing).map_err(|error| {
                Error::new(
                    error.kind(),
                    format!("cannot make {} of {} the root: {error}", path.display(), self.path.display()),
                )
            })?;
        let path = self.path.join(path.strip_prefix("/").unwrap_or(path));
        Ok(Root { directory, path, owner: None })
    }

    /// Device and inode number: the identity that nspawn's global lock goes by.
    ///
    /// # Errors
    /// The kernel's.
    pub fn identity(&self) -> Result<(u64, u64), Error> {
        let stat =
            nix::sys::stat::fstat(&self.directory).doing(|| format!("stat {}", self.path.display()))?;
        // The field types differ between libcs.
        #[allow(clippy::unnecessary_cast)]
        Ok((stat.st_dev as u64, stat.st_ino as u64))
    }

    /// Host path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whom what is made in it is given to.
    pub(crate) fn made_as(&self) -> Option<u32> {
        self.owner
    }

    /// Gives what is made in it from now on to a user, and the group with the same number.
    pub(crate) fn make_as(&mut self, owner: u32) {
        self.owner = Some(owner);
    }

    fn give(&self, file: impl AsFd) -> nix::Result<()> {
        let Some(owner) = self.owner else { return Ok(()) };
        nix::unistd::fchown(file, Some(Uid::from_raw(owner)), Some(Gid::from_raw(owner)))
    }

    /// The directory.
    #[must_use]
    pub fn fd(&self) -> RawFd {
        self.directory.as_raw_fd()
    }

    /// A path below the root, made first when `make` says so.
    pub(crate) fn resolve(&self, path: &Path, flags: i32, make: Make) -> Result<OwnedFd, Error> {
        let relative = c_path(path.strip_prefix("/").unwrap_or(path))?;
        inroot::open_as(self.fd(), &relative, flags, make, true, self.owner)
            .map(inroot::owned)
            .map_err(|failure| {
                let arguments = format!("{}, {relative:?}", self.fd());
                SyscallError::new(inroot::call_name(failure.call), arguments, Errno::from_raw(failure.errno))
            })
            .doing(|| format!("make {} below {}", path.display(), self.path.display()))
    }

    /// Makes in `new` what is missing in `seen` of the top of a file hierarchy with this /usr, or the root's own. It
    /// belongs to the user `owner`, or to us.
    pub(crate) fn base(
        &self,
        new: BorrowedFd<'_>,
        seen: BorrowedFd<'_>,
        usr: Option<BorrowedFd<'_>>,
        owner: Option<u32>,
    ) -> Result<(), Error> {
        let there = |path: &str| match usr {
            Some(usr) => base::is_below(usr, path),
            None => base::is_below(self.as_fd(), &format!("usr/{path}")),
        };
        base::create(new, seen, there, owner)
            .or_else(|(name, errno)| Err(errno).doing(|| format!("make /{name} in {}", self.path.display())))
    }

    /// Whether everything that a volatile root keeps is in /usr: nspawn's rules for --volatile=yes.
    pub(crate) fn check_merged(&self) -> Result<(), Error> {
        use nix::fcntl::AtFlags;
        use nix::sys::stat::{SFlag, fstatat};
        let kind = |name: &str| {
            let stat = fstatat(&self.directory, name, AtFlags::AT_SYMLINK_NOFOLLOW).ok()?;
            Some(SFlag::from_bits_truncate(stat.st_mode & libc::S_IFMT))
        };
        let fault = match (kind("usr"), kind("bin")) {
            (None, _) => "it has no /usr, the one part that a volatile root keeps",
            // Made anew, as a symlink.
            (_, None | Some(SFlag::S_IFLNK)) => return Ok(()),
            (_, Some(SFlag::S_IFDIR)) => "its /bin is a directory of its own, which would be missing",
            (_, Some(_)) => "its /bin is no symlink into /usr",
        };
        Err(Error::new(
            ErrorKind::Config,
            format!("cannot use {} as a volatile root: {fault}", self.path.display()),
        )
        .hint("use volatile=overlay, which keeps all of it"))
    }

    /// Whether anything is at a path below the root.
    #[must_use]
    pub fn contains(&self, path: &Path) -> bool {
        self.resolve(path, libc::O_PATH, Make::Nothing).is_ok()
    }

    /// The content of a small file below the root; `None` when there is none that can be read.
    #[must_use]
    pub fn read(&self, path: &Path) -> Option<String> {
        String::from_utf8(self.read_bytes(path, 64 * 1024)?).ok()
    }

    /// The content of a file below the root that is shorter than `limit`; `None` when there is none that can be read.
    #[must_use]
    pub(crate) fn read_bytes(&self, path: &Path, limit: u64) -> Option<Vec<u8>> {
        let found = File::from(self.resolve(path, libc::O_PATH, Make::Nothing).ok()?);
        // Looked at before it is opened: a FIFO that the container put there blocks, and a device may start to do
        // what it does.
        if !found.metadata().is_ok_and(|meta| meta.is_file() && meta.size() < limit) {
            return None;
        }
        let mut bytes = Vec::new();
        let file = File::open(format!("/proc/self/fd/{}", found.as_raw_fd())).ok()?;
        file.take(limit).read_to_end(&mut bytes).ok()?;
        Some(bytes)
    }

    /// A directory below the root, open for reading; `None` when there is none.
    #[must_use]
    pub fn directory(&self, path: &Path) -> Option<File> {
        self.resolve(path, libc::O_RDONLY | libc::O_DIRECTORY, Make::Nothing).ok().map(File::from)
    }

    /// The entries of a directory below the root; `None` when there is none.
    pub(crate) fn entries(&self, path: &Path) -> Option<fs::ReadDir> {
        let found = self.resolve(path, libc::O_PATH | libc::O_DIRECTORY, Make::Nothing).ok()?;
        fs::read_dir(format!("/proc/self/fd/{}", found.as_raw_fd())).ok()
    }

    /// The names in a directory below the root, sorted; none when it cannot be read.
    #[must_use]
    pub fn names(&self, path: &Path) -> Vec<std::ffi::OsString> {
        let entries = self.entries(path).into_iter().flatten().flatten();
        let mut names: Vec<_> = entries.map(|entry| entry.file_name()).collect();
        names.sort();
        names
    }

    /// Performs the preparation steps inside the root, in order.
    ///
    /// # Errors
    /// The first step that fails, by its path.
    pub fn prepare(&self, steps: &[Preparation]) -> Result<(), Error> {
        steps.iter().try_for_each(|step| match step {
            Preparation::Directory { path, mode } => {
                self.resolve(path, libc::O_PATH, Make::Directory(*mode)).map(drop)
            }
            Preparation::EmptyFile { path } => self.touch(path),
            Preparation::CopyFile { from, path } => self.copy(from, path),
            Preparation::HostDirectory { .. } => Ok(()),
        })
    }

    /// Makes an empty file unless anything is there, be it a dangling symlink: after its first boot a NixOS root has
    /// links into its own store where these files were.
    fn touch(&self, path: &Path) -> Result<(), Error> {
        let parent = path.parent().unwrap_or(Path::new("/"));
        let directory = self.resolve(parent, libc::O_PATH | libc::O_DIRECTORY, Make::Directory(0o755))?;
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
        let name = path.file_name().unwrap_or_default();
        match nix::fcntl::openat(&directory, name, flags, Mode::from_bits_truncate(0o644)) {
            Ok(file) => self.give(file).doing(|| format!("give {} to the container", path.display())),
            Err(Errno::EEXIST) => Ok(()),
            Err(errno) => {
                Err(errno).doing(|| format!("make {} below {}", path.display(), self.path.display()))
            }
        }
    }

    /// Puts a copy of a host file in the place of whatever file or symlink is there: `cp --remove-destination`.
    fn copy(&self, from: &Path, path: &Path) -> Result<(), Error> {
        let content = fs::read(from).doing(|| format!("read {}", from.display()))?;
        self.write(path, &content)
    }

    /// Puts a file with this content, which everybody may read, in the place of whatever file or symlink is there, and
    /// makes the directories above it. The new file is made beside it and renamed, so that nobody inside reads half
    /// of it.
    ///
    /// # Errors
    /// When the path leads out of the root, or the file cannot be written.
    pub fn write(&self, path: &Path, content: &[u8]) -> Result<(), Error> {
        let parent = path.parent().unwrap_or(Path::new("/"));
        let name = path.file_name().unwrap_or_default();
        let directory = self.resolve(parent, libc::O_RDONLY | libc::O_DIRECTORY, Make::Directory(0o755))?;
        let temporary = PathBuf::from(format!(".{}.nixrun", name.to_string_lossy()));
        let doing = || format!("write {} below {}", path.display(), self.path.display());
        let _ = nix::unistd::unlinkat(&directory, &temporary, UnlinkatFlags::NoRemoveDir);
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file = nix::fcntl::openat(directory.as_fd(), &temporary, flags, Mode::from_bits_truncate(0o644))
            .doing(doing)?;
        self.give(&file).doing(doing)?;
        File::from(file).write_all(content).doing(doing)?;
        nix::fcntl::renameat(&directory, &temporary, &directory, name)
            .inspect_err(|_| {
                let _ = nix::unistd::unlinkat(&directory, &temporary, UnlinkatFlags::NoRemoveDir);
            })
            .doing(doing)
    }
}

/// Performs the preparation steps beside the root, in order; the root itself may be one of them.
///
/// # Errors
/// The first step that fails, by its path.
pub fn prepare_host(steps: &[Preparation]) -> Result<(), Error> {
    steps.iter().try_for_each(|step| match step {
        Preparation::HostDirectory { path, mode } if !path.is_dir() => fs::DirBuilder::new()
            .recursive(true)
            .mode(*mode)
            .create(path)
            .doing(|| format!("make the directory {}", path.display())),
        _ => Ok(()),
    })
}

/// The machine id that the root has, if it has one: it becomes `container_uuid`, as in nspawn.
#[must_use]
pub fn machine_id(root: &Root) -> Option<[u8; 16]> {
    parse_uuid(root.read(Path::new("/etc/machine-id"))?.trim())
}

/// A uuid written as 32 hexadecimal digits, with or without dashes; the null uuid is none.
#[must_use]
pub fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    let digits: Vec<u8> = text.bytes().filter(|b| *b != b'-').collect();
    let mut uuid = [0; 16];
    if digits.len() != 32 {
        return None;
    }
    for (byte, pair) in uuid.iter_mut().zip(digits.chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    (uuid != [0; 16]).then_some(uuid)
}

/// A uuid with dashes, as `container_uuid` has it.
#[must_use]
pub fn format_uuid(uuid: [u8; 16]) -> String {
    let hex: String = uuid.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// Sixteen random bytes as a version 4 uuid.
///
/// # Errors
/// The kernel's.
pub fn random_uuid() -> Result<[u8; 16], Error> {
    let mut uuid = [0; 16];
    crate::sys::fd::random(&mut uuid).doing(|| "draw a random uuid".to_owned())?;
    uuid[6] = uuid[6] & 0x0f | 0x40;
    uuid[8] = uuid[8] & 0x3f | 0x80;
    Ok(uuid)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn root() -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("root");
        fs::create_dir(&path).unwrap();
        let root = Root::open(&path).unwrap();
        (dir, root)
    }

    #[test]
    fn no_symlink_leads_out_of_the_root() {
        let (dir, root) = root();
        fs::create_dir(dir.path().join("outside")).unwrap();
        symlink(dir.path().join("outside"), dir.path().join("root/etc")).unwrap();
        symlink("../../outside", dir.path().join("root/var")).unwrap();
        let steps = [
            Preparation::Directory { path: "/etc/a".into(), mode: 0o755 },
            Preparation::EmptyFile { path: "/var/b".into() },
        ];
        for step in steps {
            assert!(root.prepare(&[step]).is_err());
        }
        assert_eq!(fs::read_dir(dir.path().join("outside")).unwrap().count(), 0);
    }

    #[test]
    fn a_link_within_the_root_is_followed_there() {
        let (dir, root) = root();
        fs::create_dir(dir.path().join("root/real")).unwrap();
        symlink("/real", dir.path().join("root/etc")).unwrap();
        root.prepare(&[Preparation::EmptyFile { path: "/etc/os-release".into() }]).unwrap();
        assert!(dir.path().join("root/real/os-release").is_file());
    }

    #[test]
    fn a_dangling_link_stays_where_a_file_was_to_be_made() {
        let (dir, root) = root();
        fs::create_dir(dir.path().join("root/etc")).unwrap();
        symlink("/etc/static/os-release", dir.path().join("root/etc/os-release")).unwrap();
        root.prepare(&[Preparation::EmptyFile { path: "/etc/os-release".into() }]).unwrap();
        assert!(dir.path().join("root/etc/os-release").is_symlink());
    }

    #[test]
    fn a_copy_replaces_a_symlink_instead_of_writing_through_it() {
        let (dir, root) = root();
        let victim = dir.path().join("victim");
        fs::write(&victim, "host").unwrap();
        fs::write(dir.path().join("resolv.conf"), "nameserver 192.0.2.53\n").unwrap();
        fs::create_dir(dir.path().join("root/etc")).unwrap();
        symlink(&victim, dir.path().join("root/etc/resolv.conf")).unwrap();
        let from = dir.path().join("resolv.conf");
        root.prepare(&[Preparation::CopyFile { from, path: "/etc/resolv.conf".into() }]).unwrap();
        assert_eq!(fs::read_to_string(&victim).unwrap(), "host");
        let copied = dir.path().join("root/etc/resolv.conf");
        assert!(!copied.is_symlink());
        assert_eq!(fs::read_to_string(copied).unwrap(), "nameserver 192.0.2.53\n");
    }

    #[test]
    fn a_root_that_is_a_symlink_is_refused() {
        let (dir, _root) = root();
        symlink("root", dir.path().join("link")).unwrap();
        let error = Root::open(&dir.path().join("link")).unwrap_err();
        assert!(error.to_string().contains("is a symlink"), "{error}");
    }

    #[test]
    fn what_the_container_put_in_a_files_place_is_not_opened() {
        let (dir, root) = root();
        let (path, id) = (dir.path().join("root/machine-id"), Path::new("/machine-id"));
        // A FIFO tells when it is opened for reading: only then can it be opened for writing without blocking.
        nix::unistd::mkfifo(&path, Mode::from_bits_truncate(0o600)).unwrap();
        let writer = || nix::fcntl::open(&path, OFlag::O_WRONLY | OFlag::O_NONBLOCK, Mode::empty());
        let (stop, watched) = (std::sync::atomic::AtomicBool::new(false), &writer);
        let opened = std::thread::scope(|scope| {
            let watch = scope.spawn(|| {
                let mut seen = false;
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    seen |= watched().is_ok();
                }
                seen
            });
            for _ in 0..2000 {
                assert_eq!(root.read(id), None);
            }
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            watch.join().unwrap()
        });
        assert!(!opened, "the FIFO was opened");
        fs::remove_file(&path).unwrap();
        fs::write(&path, "text").unwrap();
        assert_eq!(root.read(id).as_deref(), Some("text"));
    }

    #[test]
    fn uuids_round_trip() {
        let text = "3fe8a10c-5b1c-4d3a-9d52-0a1b2c3d4e5f";
        let uuid = parse_uuid(text).unwrap();
        assert_eq!(format_uuid(uuid), text);
        assert_eq!(parse_uuid(&text.replace('-', "")), Some(uuid));
        for bad in ["", "uninitialized", "00000000000000000000000000000000", "3fe8"] {
            assert_eq!(parse_uuid(bad), None, "{bad}");
        }
    }
}
