//! Paths inside a container's root, which the container may have filled with symlinks: every lookup is scoped to
//! the root's descriptor by openat2(2). Allocation-free, because the child uses it after clone too.

use std::ffi::CStr;
use std::os::fd::RawFd;

use nix::errno::Errno;

/// A raw failure: the number of the system call and the error. No allocation, so the child can carry it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    /// `SYS_*` number of the call that failed.
    pub call: i32,
    /// Its error.
    pub errno: i32,
}

impl Failure {
    pub(crate) fn last(call: libc::c_long) -> Failure {
        Failure { call: call as i32, errno: Errno::last_raw() }
    }
}

/// What to make when the path does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Make {
    /// Nothing: its absence is the error.
    Nothing,
    /// A directory, with its parents, all with these permission bits.
    Directory(u32),
    /// An empty file with these permission bits; its parents are directories of 0755.
    File(u32),
}

/// `openat2` resolve flag: `/` and `..` stay below the directory.
pub const RESOLVE_IN_ROOT: u64 = 0x10;
/// `openat2` resolve flag: no symlink anywhere on the way.
pub const RESOLVE_NO_SYMLINKS: u64 = 0x04;
/// `openat2` resolve flag: no jump through /proc's magic links, which lead out of any root.
pub const RESOLVE_NO_MAGICLINKS: u64 = 0x02;

/// Longest path that [`open`] makes parents for.
const PATH_MAX: usize = 4096;

/// Opens `path` below `root`, making it first when `make` says so. `flags` are open(2)'s, close-on-exec is added.
/// With `follow`, symlinks are followed within the root; without, one anywhere on the way is ELOOP.
///
/// # Errors
/// The call that failed and its error: EEXIST when a dangling symlink stands where a directory must be made.
pub fn open(root: RawFd, path: &CStr, flags: i32, make: Make, follow: bool) -> Result<RawFd, Failure> {
    open_as(root, path, flags, make, follow, None)
}

/// The same; what is made belongs to the user `owner` and the group with the same number.
///
/// # Errors
/// As [`open`].
pub fn open_as(
    root: RawFd,
    path: &CStr,
    flags: i32,
    make: Make,
    follow: bool,
    owner: Option<u32>,
) -> Result<RawFd, Failure> {
    let missing = match open_existing(root, path.as_ptr(), flags, follow) {
        Ok(fd) => return Ok(fd),
        Err(failure) if failure.errno == libc::ENOENT && make != Make::Nothing => failure,
        Err(failure) => return Err(failure),
    };
    let bytes = path.to_bytes();
    if bytes.len() >= PATH_MAX {
        return Err(missing);
    }
    // Two copies of the path, to be cut by NULs: prefixes are looked up from the root, because a symlink in the
    // middle must be followed within it; the last component is made below its parent's descriptor.
    let mut prefix = [0u8; PATH_MAX];
    let mut parent = open_existing(root, c".".as_ptr(), libc::O_PATH | libc::O_DIRECTORY, true)?;
    let mut begin = 0;
    while begin < bytes.len() {
        let end = bytes.iter().skip(begin).position(|b| *b == b'/').map_or(bytes.len(), |n| begin + n);
        if end == begin {
            begin += 1;
            continue;
        }
        let last = bytes.iter().skip(end).all(|b| *b == b'/');
        if let (Some(to), Some(from)) = (prefix.get_mut(..end), bytes.get(..end)) {
            to.copy_from_slice(from);
        }
        if let Some(terminator) = prefix.get_mut(end) {
            *terminator = 0;
        }
        let component = prefix.as_ptr().wrapping_add(begin).cast();
        let next = step(
            root,
            parent,
            prefix.as_ptr().cast(),
            component,
            if last { make } else { DIRECTORY },
            follow,
            owner,
        );
        close(parent);
        parent = next?;
        begin = end;
    }
    close(parent);
    open_existing(root, path.as_ptr(), flags, follow)
}

const DIRECTORY: Make = Make::Directory(0o755);

/// Opens one prefix of the path, making its last component below `parent` when it is missing.
fn step(
    root: RawFd,
    parent: RawFd,
    prefix: *const libc::c_char,
    component: *const libc::c_char,
    make: Make,
    follow: bool,
    owner: Option<u32>,
) -> Result<RawFd, Failure> {
    match open_existing(root, prefix, libc::O_PATH, follow) {
        Err(failure) if failure.errno == libc::ENOENT => {}
        result => return result,
    }
    let (result, call) = match make {
        Make::File(mode) => {
            // SAFETY: `component` points into a NUL-terminated buffer of the caller that outlives the call.
            let result = unsafe { libc::mknodat(parent, component, libc::S_IFREG | mode, 0) };
            (result, libc::SYS_mknodat)
        }
        Make::Directory(mode) => {
            // SAFETY: as above.
            let result = unsafe { libc::mkdirat(parent, component, mode) };
            (result, libc::SYS_mkdirat)
        }
        Make::Nothing => return Err(Failure { call: libc::SYS_openat2 as i32, errno: libc::ENOENT }),
    };
    // EEXIST: somebody else made it meanwhile, or a dangling symlink stands there, which the next open tells.
    if result < 0 && Errno::last_raw() != libc::EEXIST {
        return Err(Failure::last(call));
    }
    if let (0, Some(id)) = (result, owner) {
        let flags = libc::AT_SYMLINK_NOFOLLOW;
        // SAFETY: as above.
        if unsafe { libc::fchownat(parent, component, id, id, flags) } < 0 {
            return Err(Failure::last(libc::SYS_fchownat));
        }
    }
    open_existing(root, prefix, libc::O_PATH, follow)
}

fn open_existing(root: RawFd, path: *const libc::c_char, flags: i32, follow: bool) -> Result<RawFd, Failure> {
    #[repr(C)]
    struct OpenHow {
        flags: u64,
        mode: u64,
        resolve: u64,
    }
    let resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | if follow { 0 } else { RESOLVE_NO_SYMLINKS };
    let how = OpenHow { flags: (flags | libc::O_CLOEXEC) as u64, mode: 0, resolve };
    loop {
        // SAFETY: `path` is NUL-terminated (see the callers) and `how` is live and of the size that is passed.
        let fd =
            unsafe { libc::syscall(libc::SYS_openat2, root, path, &raw const how, size_of::<OpenHow>()) };
        if fd >= 0 {
            return Ok(fd as RawFd);
        }
        if !matches!(Errno::last_raw(), libc::EAGAIN | libc::EINTR) {
            return Err(Failure::last(libc::SYS_openat2));
        }
    }
}

fn close(fd: RawFd) {
    // SAFETY: every caller passes a descriptor that it opened and does not use again.
    unsafe { libc::close(fd) };
}

/// Name of the system call with this number, as far as the code after clone makes it.
#[must_use]
pub fn call_name(call: i32) -> &'static str {
    const NAMES: &[(libc::c_long, &str)] = &[
        (libc::SYS_openat2, "openat2"),
        (libc::SYS_mkdirat, "mkdirat"),
        (libc::SYS_mknodat, "mknodat"),
        (libc::SYS_fchownat, "fchownat"),
        (libc::SYS_clone3, "clone3"),
        (libc::SYS_pipe2, "pipe2"),
        (libc::SYS_read, "read"),
        (libc::SYS_setresuid, "setresuid"),
        (libc::SYS_setresgid, "setresgid"),
        (libc::SYS_open_tree, "open_tree"),
        (libc::SYS_move_mount, "move_mount"),
        (libc::SYS_mount_setattr, "mount_setattr"),
        (libc::SYS_fsopen, "fsopen"),
        (libc::SYS_fsconfig, "fsconfig"),
        (libc::SYS_fsmount, "fsmount"),
        (libc::SYS_statx, "statx"),
        (libc::SYS_pivot_root, "pivot_root"),
        (libc::SYS_umount2, "umount2"),
        (libc::SYS_fchdir, "fchdir"),
        (libc::SYS_chdir, "chdir"),
        (libc::SYS_unlinkat, "unlinkat"),
        (libc::SYS_prctl, "prctl"),
        (libc::SYS_capset, "capset"),
        (libc::SYS_seccomp, "seccomp"),
        (libc::SYS_sethostname, "sethostname"),
        (libc::SYS_prlimit64, "prlimit64"),
        (libc::SYS_setsid, "setsid"),
        (libc::SYS_ioctl, "ioctl"),
        (libc::SYS_dup3, "dup3"),
        (libc::SYS_setns, "setns"),
        (libc::SYS_setgroups, "setgroups"),
        (libc::SYS_keyctl, "keyctl"),
        (libc::SYS_close_range, "close_range"),
        (libc::SYS_recvfrom, "recvfrom"),
        (libc::SYS_execve, "execve"),
    ];
    NAMES.iter().find(|(number, _)| *number as i32 == call).map_or("system call", |(_, name)| name)
}

/// Takes ownership of a descriptor that [`open`] returned.
#[must_use]
pub(crate) fn owned(fd: RawFd) -> std::os::fd::OwnedFd {
    use std::os::fd::FromRawFd;
    // SAFETY: only called with the fresh result of `open`, which nobody else owns.
    unsafe { std::os::fd::OwnedFd::from_raw_fd(fd) }
}
