//! Files of the host for the container: put into its root, or mounted over what is there, once its mounts are in place,
//! because /etc may be one of them. The container starts without what cannot be done; the parent hears of it.

use std::ffi::CStr;
use std::os::fd::RawFd;

use super::mounts::move_mount;
use super::run::{Done, address, call, close, value};
use super::script::{Bytes, Script, Str};
use crate::resolver;
use crate::sys::inroot::{self, Failure, Make};

/// A file of the host, or its absence, at a place of the container. Paths are relative to the root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Offer {
    /// The directory, which must be there.
    pub(crate) directory: Str,
    /// The name in it.
    pub(crate) name: Str,
    /// What to do.
    pub(crate) what: What,
}

/// What becomes of the name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    /// A file with this content, in place of whatever file or link is there.
    Replace { content: Bytes },
    /// The same, where a file or nothing is there: a link is the container's own choice.
    Fill { content: Bytes },
    /// The same, where nothing is there or a file that says that it is kept.
    Keep { content: Bytes },
    /// A link, where `needs` exists.
    Link { to: Str, needs: Str },
    /// Nothing any more.
    Delete,
    /// A mount, unless `unless` exists; over what a link leads to, if `follow` names the whole path. Where there is
    /// nothing to mount on, the content is copied: in the place of such a link, or beside one that is to stay.
    Mount { tree: RawFd, content: Bytes, follow: Option<Str>, unless: Option<Str> },
}

/// Mode of a file that we make.
const MODE: u64 = 0o644;
/// Name of a file that is not complete yet.
const TEMPORARY: &CStr = c".nixrun-new";

/// Does it, as far as that is possible: what is no surprise is no failure.
pub(super) fn offer(script: &Script, root: RawFd, offer: &Offer) -> Done {
    let flags = libc::O_PATH | libc::O_DIRECTORY;
    let directory = inroot::open(root, script.get(offer.directory), flags, Make::Nothing, true)?;
    let name = script.get(offer.name);
    let result = match offer.what {
        What::Replace { content } => replace(directory, name, script.bytes(content)),
        What::Fill { content } => fill(directory, name, script.bytes(content)),
        What::Keep { content } => keep(directory, name, script.bytes(content)),
        What::Link { to, needs } if exists(root, script.get(needs)) => link(directory, name, script.get(to)),
        What::Link { .. } => Ok(()),
        What::Delete => delete(directory, name),
        What::Mount { unless: Some(path), .. } if exists(root, script.get(path)) => Ok(()),
        What::Mount { tree, content, follow, .. } => {
            let content = script.bytes(content);
            let copy = if follow.is_some() { replace } else { fill };
            mount(root, directory, name, tree, follow.map(|path| script.get(path)))
                .or_else(|failure| copy(directory, name, content).map_err(|_| failure))
        }
    };
    close(directory);
    match result {
        // A read-only root, whose files were chosen by whoever made it.
        Err(failure) if failure.errno == libc::EROFS => Ok(()),
        result => result,
    }
}

fn exists(root: RawFd, path: &CStr) -> bool {
    inroot::open(root, path, libc::O_PATH, Make::Nothing, true).map(close).is_ok()
}

fn replace(directory: RawFd, name: &CStr, content: &[u8]) -> Done {
    delete(directory, TEMPORARY)?;
    create(directory, TEMPORARY, content)?;
    let (at, from, to) = (directory as u64, address(TEMPORARY), address(name));
    call(libc::SYS_renameat2, [at, from, at, to, 0]).inspect_err(|_| {
        let _ = delete(directory, TEMPORARY);
    })
}

fn fill(directory: RawFd, name: &CStr, content: &[u8]) -> Done {
    match kind(directory, name) {
        Ok(libc::S_IFREG) => write(open(directory, name, libc::O_WRONLY | libc::O_TRUNC)?, content),
        // A link is there on purpose: something inside that cares for name servers made it.
        Ok(libc::S_IFLNK) => Ok(()),
        Ok(_) => Err(Failure { call: libc::SYS_openat as i32, errno: libc::EINVAL }),
        Err(failure) if failure.errno == libc::ENOENT => create(directory, name, content),
        Err(failure) => Err(failure),
    }
}

fn keep(directory: RawFd, name: &CStr, content: &[u8]) -> Done {
    match kind(directory, name) {
        Ok(libc::S_IFREG) => {
            let mut begin = [0u8; 256];
            let file = open(directory, name, libc::O_RDONLY)?;
            let arguments = [file as u64, begin.as_mut_ptr() as u64, begin.len() as u64, 0, 0];
            let length = value(libc::SYS_read, arguments);
            close(file);
            if !resolver::is_kept(begin.get(..length? as usize).unwrap_or_default()) {
                return Ok(());
            }
        }
        Ok(_) => return Ok(()),
        Err(failure) if failure.errno == libc::ENOENT => {}
        Err(failure) => return Err(failure),
    }
    replace(directory, name, content)
}

fn link(directory: RawFd, name: &CStr, to: &CStr) -> Done {
    let mut old = [0u8; 256];
    let arguments = [directory as u64, address(name), old.as_mut_ptr() as u64, old.len() as u64, 0];
    let length = value(libc::SYS_readlinkat, arguments).unwrap_or(0);
    // However the way up is written.
    let plain = |link: &'_ [u8]| link.iter().position(|byte| byte.is_ascii_alphanumeric()).unwrap_or(0);
    let (old, new) = (old.get(..length as usize).unwrap_or_default(), to.to_bytes());
    if !old.is_empty() && old.get(plain(old)..) == new.get(plain(new)..) {
        return Ok(());
    }
    delete(directory, name)?;
    call(libc::SYS_symlinkat, [address(to), directory as u64, address(name), 0, 0])
}

fn delete(directory: RawFd, name: &CStr) -> Done {
    match call(libc::SYS_unlinkat, [directory as u64, address(name), 0, 0, 0]) {
        Err(failure) if failure.errno == libc::ENOENT => Ok(()),
        result => result,
    }
}

fn mount(root: RawFd, directory: RawFd, name: &CStr, tree: RawFd, follow: Option<&CStr>) -> Done {
    match kind(directory, name) {
        Err(failure) if failure.errno == libc::ENOENT => create(directory, name, b"")?,
        Err(failure) => return Err(failure),
        Ok(libc::S_IFLNK) if follow.is_none() => return Ok(()),
        Ok(_) => {}
    }
    let target = match follow {
        Some(path) => inroot::open(root, path, libc::O_PATH, Make::Nothing, true)?,
        None => open(directory, name, libc::O_PATH)?,
    };
    let result = move_mount(tree, c"", target, c"");
    close(target);
    result
}

fn kind(directory: RawFd, name: &CStr) -> Result<libc::mode_t, Failure> {
    // SAFETY: stat is plain data for which all zeroes is a valid value.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: `name` is NUL-terminated, and the kernel writes one stat.
    let result = unsafe { libc::fstatat(directory, name.as_ptr(), &raw mut stat, libc::AT_SYMLINK_NOFOLLOW) };
    if result < 0 { Err(Failure::last(libc::SYS_newfstatat)) } else { Ok(stat.st_mode & libc::S_IFMT) }
}

fn create(directory: RawFd, name: &CStr, content: &[u8]) -> Done {
    write(open(directory, name, libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL)?, content)
}

/// Whatever has taken the place of a file meanwhile is neither followed nor waited for.
fn open(directory: RawFd, name: &CStr, flags: i32) -> Result<RawFd, Failure> {
    let flags = flags | libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK | libc::O_NOCTTY;
    value(libc::SYS_openat, [directory as u64, address(name), flags as u64, MODE, 0])
}

fn write(file: RawFd, mut content: &[u8]) -> Done {
    let mut result = Ok(());
    while !content.is_empty() && result.is_ok() {
        let arguments = [file as u64, content.as_ptr() as u64, content.len() as u64, 0, 0];
        match value(libc::SYS_write, arguments) {
            Ok(length) => content = content.get(length as usize..).unwrap_or_default(),
            Err(failure) => result = Err(failure),
        }
    }
    close(file);
    result
}
