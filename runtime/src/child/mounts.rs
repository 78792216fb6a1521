//! The operations that build the container's mount tree.

use std::ffi::CStr;
use std::os::fd::RawFd;

use super::run::{Done, address, call, close, explain, value};
use super::script::{Layer, Script, Str, Target};
use crate::plan::MAX_LAYERS;
use crate::sys::inroot::{self, Failure, Make};
use crate::sys::mount::{
    AT_RECURSIVE, FSCONFIG_CMD_CREATE, FSCONFIG_SET_FD, FSCONFIG_SET_STRING, MOVE_MOUNT_F_EMPTY_PATH,
    MOVE_MOUNT_T_EMPTY_PATH, MountAttr, OPEN_TREE_CLONE,
};

/// Entering the mount namespace that we are in sets root and working directory to its own (setns(2)).
pub(super) fn leave_chroot() -> Done {
    let flags = (libc::O_RDONLY | libc::O_CLOEXEC) as u64;
    let path = address(c"/proc/self/ns/mnt");
    let namespace = value(libc::SYS_openat, [libc::AT_FDCWD as u64, path, flags, 0, 0])?;
    let result = call(libc::SYS_setns, [namespace as u64, libc::CLONE_NEWNS as u64, 0, 0, 0]);
    close(namespace);
    result
}

pub(super) fn attach(script: &Script, tree: RawFd, target: Target) -> Done {
    let flags = libc::O_PATH;
    let to = inroot::open(script.root, script.get(target.path), flags, target.make, target.follow)?;
    let result = move_mount(tree, c"", to, c"");
    close(to);
    result
}

pub(super) fn make_target(script: &Script, target: Target) -> Done {
    close(inroot::open(script.root, script.get(target.path), libc::O_PATH, target.make, target.follow)?);
    Ok(())
}

/// By way of the working directory, which is the root before and after.
pub(super) fn unmount(root: RawFd, path: &CStr) -> Done {
    call(libc::SYS_fchdir, [root as u64, 0, 0, 0, 0])?;
    let flags = libc::MNT_DETACH | libc::UMOUNT_NOFOLLOW;
    call(libc::SYS_umount2, [address(path), flags as u64, 0, 0, 0])
}

pub(super) fn attach_and_close(script: &Script, tree: RawFd, target: Target) -> Done {
    let result = attach(script, tree, target);
    close(tree);
    result
}

pub(super) fn move_mount(from: RawFd, from_path: &CStr, to: RawFd, to_path: &CStr) -> Done {
    let mut flags = MOVE_MOUNT_F_EMPTY_PATH;
    if to_path.is_empty() {
        flags |= MOVE_MOUNT_T_EMPTY_PATH;
    }
    call(
        libc::SYS_move_mount,
        [from as u64, address(from_path), to as u64, address(to_path), u64::from(flags)],
    )
}

fn open_tree(dir: RawFd, path: &CStr, recursive: bool) -> Result<RawFd, Failure> {
    let flags = OPEN_TREE_CLONE
        | libc::O_CLOEXEC as u32
        | libc::AT_EMPTY_PATH as u32
        | if recursive { AT_RECURSIVE } else { 0 };
    value(libc::SYS_open_tree, [dir as u64, address(path), u64::from(flags), 0, 0])
}

pub(super) fn set_attributes(dir: RawFd, path: &CStr, recursive: bool, set: u64, propagation: u64) -> Done {
    let change = MountAttr { set, clear: 0, propagation, userns_fd: 0 };
    let flags = libc::AT_EMPTY_PATH as u32 | if recursive { AT_RECURSIVE } else { 0 };
    call(
        libc::SYS_mount_setattr,
        [
            dir as u64,
            address(path),
            u64::from(flags),
            (&raw const change) as u64,
            size_of::<MountAttr>() as u64,
        ],
    )
}

pub(super) fn new_fs(channel: RawFd, fstype: &CStr, attributes: u64) -> Result<RawFd, Failure> {
    let context = open_context(fstype)?;
    let tree = create(context, attributes).inspect_err(|_| explain(channel, context));
    close(context);
    tree
}

fn open_context(fstype: &CStr) -> Result<RawFd, Failure> {
    // 1 is FSOPEN_CLOEXEC.
    let context = value(libc::SYS_fsopen, [address(fstype), 1, 0, 0, 0])?;
    // The source is what /proc/mounts shows in the first column; nspawn, like mount(8), puts the type there.
    match configure(context, FSCONFIG_SET_STRING, c"source", address(fstype), 0) {
        Ok(()) => Ok(context),
        Err(failure) => {
            close(context);
            Err(failure)
        }
    }
}

fn configure(context: RawFd, command: u32, key: &CStr, value: u64, auxiliary: RawFd) -> Done {
    call(libc::SYS_fsconfig, [context as u64, u64::from(command), address(key), value, auxiliary as u64])
}

fn create(context: RawFd, attributes: u64) -> Result<RawFd, Failure> {
    call(libc::SYS_fsconfig, [context as u64, u64::from(FSCONFIG_CMD_CREATE), 0, 0, 0])?;
    // 1 is FSMOUNT_CLOEXEC.
    value(libc::SYS_fsmount, [context as u64, 1, attributes, 0, 0])
}

/// `pivot_root(".", ".")`: the old root ends up on top of the new one and is detached from there, so no directory
/// for it is needed (pivot_root(2), since Linux 5.2's documentation).
pub(super) fn pivot(root: RawFd, staged: u16) -> Done {
    call(libc::SYS_fchdir, [root as u64, 0, 0, 0, 0])?;
    call(libc::SYS_pivot_root, [address(c"."), address(c"."), 0, 0, 0])?;
    // Each call takes the topmost; the host's tree, with all that is mounted in it, is the last.
    for _ in 0..=staged {
        call(libc::SYS_umount2, [address(c"."), libc::MNT_DETACH as u64, 0, 0, 0])?;
    }
    call(libc::SYS_chdir, [address(c"/"), 0, 0, 0, 0])
}

pub(super) fn attach_root(root: RawFd) -> Done {
    move_mount(root, c"", libc::AT_FDCWD, c"/")?;
    call(libc::SYS_fchdir, [root as u64, 0, 0, 0, 0])
}

pub(super) fn bind(
    script: &Script,
    dir: RawFd,
    source: &CStr,
    recursive: bool,
    attributes: u64,
    target: Target,
) -> Done {
    let tree = open_tree(dir, source, recursive)?;
    if attributes != 0
        && let Err(failure) = set_attributes(tree, c"", recursive, attributes, 0)
    {
        close(tree);
        return Err(failure);
    }
    attach_and_close(script, tree, target)
}

pub(super) fn bind_in(
    script: &Script,
    tree: RawFd,
    source: Str,
    recursive: bool,
    attributes: u64,
    mut target: Target,
) -> Done {
    let source = inroot::open(tree, script.get(source), libc::O_PATH, Make::Nothing, true)?;
    let result = kind(source).and_then(|kind| {
        let directory = kind == libc::S_IFDIR;
        target.make = if directory { Make::Directory(0o755) } else { Make::File(0o644) };
        bind(script, source, c"", recursive, attributes, target)
    });
    close(source);
    result
}

/// The type bits of an inode's mode.
fn kind(fd: RawFd) -> Result<u32, Failure> {
    // SAFETY: all zeroes is a valid value of this plain data.
    let mut stat: libc::statx = unsafe { std::mem::zeroed() };
    let arguments = [
        fd as u64,
        address(c""),
        libc::AT_EMPTY_PATH as u64,
        u64::from(libc::STATX_TYPE),
        (&raw mut stat) as u64,
    ];
    call(libc::SYS_statx, arguments)?;
    Ok(u32::from(stat.stx_mode) & libc::S_IFMT)
}

pub(super) fn mask(script: &Script, attributes: u64, target: Target) -> Done {
    let to = inroot::open(script.root, script.get(target.path), libc::O_PATH, Make::Nothing, target.follow)?;
    let result = mask_open(script.root, to, attributes);
    close(to);
    result
}

fn mask_open(root: RawFd, to: RawFd, attributes: u64) -> Done {
    let source = match kind(to)? {
        libc::S_IFDIR => c"run/host/inaccessible/dir",
        libc::S_IFCHR => c"run/host/inaccessible/chr",
        libc::S_IFBLK => c"run/host/inaccessible/blk",
        libc::S_IFIFO => c"run/host/inaccessible/fifo",
        libc::S_IFSOCK => c"run/host/inaccessible/sock",
        _ => c"run/host/inaccessible/reg",
    };
    let tree = open_tree(root, source, false)?;
    let result =
        set_attributes(tree, c"", false, attributes, 0).and_then(|()| move_mount(tree, c"", to, c""));
    close(tree);
    result
}

pub(super) fn overlay_root(script: &Script, channel: RawFd, overlay: u16) -> Done {
    let tree = new_overlay(script, channel, overlay, 0)?;
    // The root's number is a staged tree's so far, which has done its service.
    let result = call(libc::SYS_dup3, [tree as u64, script.root as u64, libc::O_CLOEXEC as u64, 0, 0]);
    close(tree);
    result?;
    attach_root(script.root)
}

/// An overlay that is not attached yet. Its directories are found and handed over by descriptor: whatever characters
/// are in their names, and whatever symlinks on the way, there is nothing to be mistaken.
pub(super) fn new_overlay(
    script: &Script,
    channel: RawFd,
    overlay: u16,
    attributes: u64,
) -> Result<RawFd, Failure> {
    let context = open_context(c"overlay")?;
    let mut open = [-1; MAX_LAYERS + 1];
    let result = set_layers(script, overlay, context, &mut open)
        .and_then(|()| create(context, attributes))
        .inspect_err(|_| explain(channel, context));
    for fd in open {
        if fd >= 0 {
            close(fd);
        }
    }
    close(context);
    result
}

fn set_layers(script: &Script, overlay: u16, context: RawFd, open: &mut [RawFd; MAX_LAYERS + 1]) -> Done {
    let none = Failure { call: libc::SYS_fsconfig as i32, errno: libc::EINVAL };
    let overlay = script.overlays.get(usize::from(overlay)).ok_or(none)?;
    let layers = overlay.lower.iter().chain(overlay.upper.iter().flatten());
    for (layer, fd) in layers.zip(open.iter_mut()) {
        *fd = open_layer(script, *layer)?;
    }
    let (lower, rest) = open.split_at(overlay.lower.len().min(MAX_LAYERS));
    let upper = rest.iter().take_while(|fd| **fd >= 0).zip([c"upperdir", c"workdir"]);
    let by_fd = |key: &CStr, fd: RawFd| configure(context, FSCONFIG_SET_FD, key, 0, fd);
    match lower.iter().try_for_each(|fd| by_fd(c"lowerdir+", *fd)) {
        Ok(()) => upper.into_iter().try_for_each(|(fd, key)| by_fd(key, *fd)),
        // Before Linux 6.13 they are strings, and no descriptor of a path alone is taken, which is EBADF; before 6.7 there
        // is but one string for all that are read.
        Err(failure) if matches!(failure.errno, libc::EINVAL | libc::EBADF) => {
            let mut text = Text::default();
            lower.iter().for_each(|fd| text.descriptor(*fd));
            configure(context, FSCONFIG_SET_STRING, c"lowerdir", text.address(), 0)?;
            upper.into_iter().try_for_each(|(fd, key)| {
                let mut text = Text::default();
                text.descriptor(*fd);
                configure(context, FSCONFIG_SET_STRING, key, text.address(), 0)
            })
        }
        Err(failure) => Err(failure),
    }
}

fn open_layer(script: &Script, layer: Layer) -> Result<RawFd, Failure> {
    let flags = libc::O_PATH | libc::O_DIRECTORY;
    let dir = layer.tree.unwrap_or(script.root);
    inroot::open(dir, script.get(layer.path), flags, layer.make, true)
}

/// A value for fsconfig, which takes 255 bytes: paths of descriptors in the host's /proc, with colons between them.
struct Text {
    bytes: [u8; 256],
    length: usize,
}

impl Default for Text {
    fn default() -> Text {
        Text { bytes: [0; 256], length: 0 }
    }
}

impl Text {
    fn descriptor(&mut self, fd: RawFd) {
        if self.length > 0 {
            self.push(b":");
        }
        self.push(b"/proc/self/fd/");
        let mut digits = [0u8; 10];
        let (mut number, mut at) = (fd.unsigned_abs(), digits.len());
        loop {
            at -= 1;
            if let Some(digit) = digits.get_mut(at) {
                *digit = b'0' + (number % 10) as u8;
            }
            number /= 10;
            if number == 0 || at == 0 {
                break;
            }
        }
        self.push(digits.get(at..).unwrap_or_default());
    }

    /// Adds bytes; those that find no room are left out, and the kernel does not find the path.
    fn push(&mut self, bytes: &[u8]) {
        for byte in bytes {
            // The last one stays NUL.
            if let Some(to) = self.bytes.get_mut(self.length).filter(|_| self.length < 255) {
                *to = *byte;
                self.length += 1;
            }
        }
    }

    fn address(&self) -> u64 {
        self.bytes.as_ptr() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_become_paths() {
        let mut text = Text::default();
        for fd in [0, 7, 1_234_567_890] {
            text.descriptor(fd);
        }
        let expected = b"/proc/self/fd/0:/proc/self/fd/7:/proc/self/fd/1234567890";
        assert_eq!(text.bytes.get(..text.length), Some(expected.as_slice()));
        (0..100).for_each(|fd| text.descriptor(fd));
        assert_eq!((text.length, text.bytes.last()), (255, Some(&0)));
    }
}
