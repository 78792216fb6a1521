//! The mount API of Linux 5.2 and later: open_tree, move_mount, fsopen, fsconfig, fsmount, mount_setattr.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

use super::Result;
use super::error::check;

/// Mount attributes, `MOUNT_ATTR_*`.
pub mod attr {
    /// Read-only.
    pub const RDONLY: u64 = 0x1;
    /// Set-user-id bits have no effect.
    pub const NOSUID: u64 = 0x2;
    /// Device nodes cannot be opened.
    pub const NODEV: u64 = 0x4;
    /// Programs cannot be executed.
    pub const NOEXEC: u64 = 0x8;
    /// Access times are always updated.
    pub const STRICTATIME: u64 = 0x20;
    /// Symbolic links are not followed.
    pub const NOSYMFOLLOW: u64 = 0x20_0000;
    /// Owners are mapped by a user namespace.
    pub const IDMAP: u64 = 0x10_0000;
    /// The field of access-time modes.
    pub const ATIME_MASK: u64 = 0x70;
}

/// `OPEN_TREE_CLONE`: a detached copy instead of the mount itself.
pub const OPEN_TREE_CLONE: u32 = 1;
/// `AT_RECURSIVE`: with the mounts below.
pub const AT_RECURSIVE: u32 = 0x8000;
/// `MOVE_MOUNT_F_EMPTY_PATH`: the mount is the one `from` refers to.
pub const MOVE_MOUNT_F_EMPTY_PATH: u32 = 0x4;
/// `MOVE_MOUNT_T_EMPTY_PATH`: the mount point is the one `to` refers to.
pub const MOVE_MOUNT_T_EMPTY_PATH: u32 = 0x40;
/// `FSCONFIG_SET_FLAG`.
pub const FSCONFIG_SET_FLAG: u32 = 0;
/// `FSCONFIG_SET_STRING`.
pub const FSCONFIG_SET_STRING: u32 = 1;
/// `FSCONFIG_SET_FD`.
pub const FSCONFIG_SET_FD: u32 = 5;
/// `FSCONFIG_CMD_CREATE`.
pub const FSCONFIG_CMD_CREATE: u32 = 6;
/// `FSCONFIG_CMD_RECONFIGURE`.
const FSCONFIG_CMD_RECONFIGURE: u32 = 7;

/// The kernel's `struct mount_attr`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct MountAttr {
    /// Attributes to set.
    pub set: u64,
    /// Attributes to clear.
    pub clear: u64,
    /// One of `MS_SHARED`, `MS_SLAVE`, `MS_PRIVATE`, `MS_UNBINDABLE`, or 0.
    pub propagation: u64,
    /// User namespace for `MOUNT_ATTR_IDMAP`.
    pub userns_fd: u64,
}

/// A detached copy of the mount at `path` below `dir`.
///
/// # Errors
/// The kernel's; before Linux 6.15 EINVAL when the source is itself detached.
pub fn open_tree_clone(dir: BorrowedFd<'_>, path: &CStr, recursive: bool) -> Result<OwnedFd> {
    let flags = OPEN_TREE_CLONE
        | libc::O_CLOEXEC as u32
        | libc::AT_EMPTY_PATH as u32
        | if recursive { AT_RECURSIVE } else { 0 };
    // SAFETY: `path` is NUL-terminated.
    let fd = unsafe { libc::syscall(libc::SYS_open_tree, dir.as_raw_fd(), path.as_ptr(), flags) };
    let fd = check(fd, "open_tree", || format!("{}, {path:?}, OPEN_TREE_CLONE", dir.as_raw_fd()))?;
    // SAFETY: a descriptor the kernel just gave us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Attaches a detached mount to a path of ours.
///
/// # Errors
/// The kernel's.
pub fn move_mount(tree: BorrowedFd<'_>, path: &CStr) -> Result<()> {
    // SAFETY: both paths are NUL-terminated.
    let result = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_FDCWD,
            path.as_ptr(),
            MOVE_MOUNT_F_EMPTY_PATH,
        )
    };
    check(result, "move_mount", || format!("{}, {path:?}", tree.as_raw_fd()))?;
    Ok(())
}

/// Changes attributes of the mount at `tree` itself, or of all mounts below it too.
///
/// # Errors
/// The kernel's.
pub fn mount_setattr(tree: BorrowedFd<'_>, recursive: bool, change: &MountAttr) -> Result<()> {
    let flags = libc::AT_EMPTY_PATH as u32 | if recursive { AT_RECURSIVE } else { 0 };
    // SAFETY: the empty path is NUL-terminated and `change` is a live struct of the size that is passed.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            flags,
            ptr::from_ref(change),
            size_of::<MountAttr>(),
        )
    };
    check(result, "mount_setattr", || format!("{}, {change:?}", tree.as_raw_fd()))?;
    Ok(())
}

/// Room for a message of a context's log: what exceeds it the kernel does not give at all.
pub(crate) const LOG_MESSAGE: usize = 1024;

/// A message of a context's log without the letter that says how grave it is.
pub(crate) fn log_message(message: &[u8]) -> String {
    let text = String::from_utf8_lossy(message);
    let text = text.trim_end();
    text.split_once(' ').filter(|(level, _)| level.len() == 1).map_or(text, |(_, text)| text).to_owned()
}

/// A file system context being configured.
#[derive(Debug)]
pub struct FsContext(OwnedFd);

impl FsContext {
    /// Starts a new superblock of `fstype`.
    ///
    /// # Errors
    /// ENODEV when the kernel does not know the file system.
    pub fn open(fstype: &CStr) -> Result<FsContext> {
        // What /proc/mounts shows in the first column; nspawn, like mount(8), puts the type there.
        Self::with_source(fstype, fstype)
    }

    /// The same for what is on a device.
    ///
    /// # Errors
    /// ENODEV when the kernel does not know the file system.
    pub fn with_source(fstype: &CStr, source: &CStr) -> Result<FsContext> {
        let context = Self::start(fstype)?;
        context.set(c"source", Some(source))?;
        Ok(context)
    }

    fn start(fstype: &CStr) -> Result<FsContext> {
        // SAFETY: `fstype` is NUL-terminated; 1 is FSOPEN_CLOEXEC.
        let fd = unsafe { libc::syscall(libc::SYS_fsopen, fstype.as_ptr(), 1u32) };
        let fd = check(fd, "fsopen", || format!("{fstype:?}"))?;
        // SAFETY: a descriptor the kernel just gave us.
        Ok(FsContext(unsafe { OwnedFd::from_raw_fd(fd as i32) }))
    }

    /// Sets an option: `key=value`, or a flag when there is no value.
    ///
    /// # Errors
    /// EINVAL for an option or value that the file system does not know.
    pub fn set(&self, key: &CStr, value: Option<&CStr>) -> Result<()> {
        let (command, pointer) = match value {
            Some(value) => (FSCONFIG_SET_STRING, value.as_ptr()),
            None => (FSCONFIG_SET_FLAG, ptr::null()),
        };
        self.config(command, key.as_ptr(), pointer, || format!("{key:?}, {value:?}"))
    }

    /// Creates the superblock and a detached mount of it with `attributes` (`MOUNT_ATTR_*`).
    ///
    /// # Errors
    /// The kernel's.
    pub fn mount(self, attributes: u64) -> Result<OwnedFd> {
        self.create(attributes)
    }

    /// The same, with the context kept to change the superblock by.
    ///
    /// # Errors
    /// The kernel's.
    pub fn create(&self, attributes: u64) -> Result<OwnedFd> {
        self.config(FSCONFIG_CMD_CREATE, ptr::null(), ptr::null(), || "CMD_CREATE".to_owned())?;
        // SAFETY: no pointers are passed; 1 is FSMOUNT_CLOEXEC.
        let fd = unsafe { libc::syscall(libc::SYS_fsmount, self.0.as_raw_fd(), 1u32, attributes as u32) };
        let fd = check(fd, "fsmount", || format!("{attributes:#x}"))
            .map_err(|error| error.with_words(self.words()))?;
        // SAFETY: a descriptor the kernel just gave us.
        Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
    }

    /// Makes the superblock read-only, once it is mounted: nobody can make a mount of it that is not.
    ///
    /// # Errors
    /// The kernel's.
    pub fn make_read_only(self) -> Result<()> {
        self.set(c"ro", None)?;
        self.config(FSCONFIG_CMD_RECONFIGURE, ptr::null(), ptr::null(), || "CMD_RECONFIGURE".to_owned())
    }

    fn config(
        &self,
        command: u32,
        key: *const libc::c_char,
        value: *const libc::c_char,
        arguments: impl FnOnce() -> String,
    ) -> Result<()> {
        // SAFETY: key and value are null or NUL-terminated strings that outlive the call, as the command demands.
        let result = unsafe { libc::syscall(libc::SYS_fsconfig, self.0.as_raw_fd(), command, key, value, 0) };
        check(result, "fsconfig", arguments).map_err(|error| error.with_words(self.words()))?;
        Ok(())
    }

    /// The last of the messages in the context's log, which each read gives one of.
    fn words(&self) -> Option<String> {
        let mut buffer = [0u8; LOG_MESSAGE];
        let mut last = None;
        loop {
            // SAFETY: the kernel writes at most `buffer.len()` bytes into `buffer`.
            let length = unsafe { libc::read(self.0.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) };
            match usize::try_from(length).ok().and_then(|length| buffer.get(..length)) {
                Some(message) if !message.is_empty() => last = Some(log_message(message)),
                _ => return last,
            }
        }
    }
}
