//! Namespaces that are there already.

use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::error::{Doing, Error, ErrorKind};
use crate::sys::process::namespace_kind;

/// The network namespace behind a file such as `/run/netns/NAME`.
pub(crate) fn network(path: &Path) -> Result<OwnedFd, Error> {
    let shown = path.display();
    // A FIFO would hold us up.
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    let file: File = OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(path)
        .doing(|| format!("open the network namespace {shown}"))?;
    if namespace_kind(file.as_fd()) == Some(libc::CLONE_NEWNET) {
        return Ok(file.into());
    }
    Err(Error::new(ErrorKind::Config, format!("cannot join {shown}: it is no network namespace"))
        .hint("name a file like those that `ip netns add` makes below /run/netns"))
}
