//! Files in the /etc of a running container, read and replaced by its supervisor. Whatever the container has made of its
//! root leads nowhere: no link is followed, and with a user namespace the kernel asks for the rights of the
//! container's root, no more.

use std::ffi::{CStr, CString};
use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, renameat};
use nix::sys::stat::{SFlag, fstatat};
use nix::unistd::{Gid, Uid, UnlinkatFlags, setfsgid, setfsuid, unlinkat};
use runtime::instance::State;
use runtime::sys::fd::openat2;
use runtime::sys::process::pidfd_send_signal;

/// Longest file that is read, in bytes: what is longer is not ours.
const LONGEST: u64 = 1 << 20;
/// A file that is not complete yet.
const TEMPORARY: &CStr = c".nixrun-new";
/// Of files that are made.
const MODE: u32 = 0o644;

/// The running container.
#[derive(Debug)]
pub struct Inside {
    leader: OwnedFd,
    pid: libc::pid_t,
    /// The host's id of its root.
    owner: u32,
}

/// What is at a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Nothing.
    Missing,
    /// A file.
    File(Vec<u8>),
    /// A link, or what is no file.
    Other,
}

impl Inside {
    /// The container that this state describes; `None` when it has ended.
    #[must_use]
    pub fn of(state: &State) -> Option<Inside> {
        let owner = state.users.map_or(0, |users| users.base);
        Some(Inside { leader: state.leader.open()?, pid: state.leader.pid, owner })
    }

    /// What `/etc/NAME` is.
    ///
    /// # Errors
    /// The kernel's, ESRCH when the container has ended.
    pub fn read(&self, name: &str) -> io::Result<Content> {
        let (root, name) = (self.root()?, CString::new(name)?);
        self.as_its_root(|| {
            let directory = match etc(&root) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Content::Missing),
                directory => directory?,
            };
            match fstatat(&directory, name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW) {
                Err(Errno::ENOENT) => return Ok(Content::Missing),
                Ok(stat) if SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT != SFlag::S_IFREG => {
                    return Ok(Content::Other);
                }
                stat => stat?,
            };
            // Whatever has taken its place meanwhile is neither followed nor waited for.
            let flags = libc::O_RDONLY | libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
            let mut bytes = Vec::new();
            File::from(open(&directory, &name, flags)?).take(LONGEST).read_to_end(&mut bytes)?;
            Ok(Content::File(bytes))
        })
    }

    /// Replaces `/etc/NAME`, whatever it is unless it is a directory or a mount point. Who reads it sees the old one or
    /// the new one.
    ///
    /// # Errors
    /// The kernel's: EROFS where nothing can be written, EBUSY for a mount point, ESRCH when the container has ended.
    pub fn replace(&self, name: &str, content: &[u8]) -> io::Result<()> {
        let (root, name) = (self.root()?, CString::new(name)?);
        self.as_its_root(|| {
            let directory = etc(&root)?;
            let _ = unlinkat(&directory, TEMPORARY, UnlinkatFlags::NoRemoveDir);
            let write = || {
                let mut file = create(&directory)?;
                file.set_permissions(Permissions::from_mode(MODE))?;
                file.write_all(content)?;
                Ok(renameat(&directory, TEMPORARY, &directory, name.as_c_str())?)
            };
            write().inspect_err(|_: &io::Error| {
                let _ = unlinkat(&directory, TEMPORARY, UnlinkatFlags::NoRemoveDir);
            })
        })
    }

    /// Whether there is something at an absolute path of the container.
    #[must_use]
    pub fn exists(&self, path: &str) -> bool {
        let Ok(path) = CString::new(path.trim_start_matches('/')) else { return false };
        let resolve = libc::RESOLVE_IN_ROOT | libc::RESOLVE_NO_MAGICLINKS;
        self.root().is_ok_and(|root| {
            self.as_its_root(|| openat2(root.as_fd(), &path, libc::O_PATH, 0, resolve).is_ok())
        })
    }

    /// Its root directory as its PID 1 sees it.
    fn root(&self) -> io::Result<File> {
        let flags = libc::O_PATH | libc::O_DIRECTORY;
        let root =
            OpenOptions::new().read(true).custom_flags(flags).open(format!("/proc/{}/root", self.pid))?;
        // What was opened is the leader's only if the leader still lives.
        pidfd_send_signal(self.leader.as_fd(), 0).map_err(|error| io::Error::from(error.errno()))?;
        Ok(root)
    }

    /// With the rights of the container's root in place of ours, on this thread.
    fn as_its_root<T>(&self, job: impl FnOnce() -> T) -> T {
        if self.owner == 0 {
            return job();
        }
        let _restored = Rights(setfsgid(Gid::from_raw(self.owner)), setfsuid(Uid::from_raw(self.owner)));
        job()
    }
}

/// Puts a thread's rights over files back. Leaving user 0 has taken the capabilities over files away; going back to it
/// returns them (capabilities(7)).
struct Rights(Gid, Uid);

impl Drop for Rights {
    fn drop(&mut self) {
        setfsuid(self.1);
        setfsgid(self.0);
    }
}

fn etc(root: &File) -> io::Result<OwnedFd> {
    let resolve = libc::RESOLVE_IN_ROOT | libc::RESOLVE_NO_MAGICLINKS | libc::RESOLVE_NO_SYMLINKS;
    openat2(root.as_fd(), c"etc", libc::O_PATH | libc::O_DIRECTORY, 0, resolve)
        .map_err(|error| io::Error::from(error.errno()))
}

fn open(directory: &OwnedFd, name: &CStr, flags: i32) -> io::Result<OwnedFd> {
    let mode = if flags & libc::O_CREAT == 0 { 0 } else { MODE };
    openat2(directory.as_fd(), name, flags, mode, libc::RESOLVE_BENEATH | libc::RESOLVE_NO_SYMLINKS)
        .map_err(|error| io::Error::from(error.errno()))
}

fn create(directory: &OwnedFd) -> io::Result<File> {
    open(directory, TEMPORARY, libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW)
        .map(File::from)
}
