//! Zones: bridges that are made with their first port and removed with their last one, together with systemd-nspawn,
//! under the lock that it takes.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::PathBuf;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};

use crate::error::{Error, LinkRole, Result};
use crate::facts::NetPaths;
use crate::route::link;
use crate::socket::{Batch, Route, Socket};

/// Held while a zone's bridge is made, joined or removed. Its file goes with it, as systemd-nspawn's does.
pub(crate) struct ZoneLock {
    path: PathBuf,
    _file: File,
}

impl Drop for ZoneLock {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Waits for the lock.
pub(crate) fn lock(paths: &NetPaths) -> Result<ZoneLock> {
    let path = paths.zone_lock.clone();
    let failed = |doing: &str| Error::io(format!("{doing} {}", path.display()));
    loop {
        let mut options = File::options();
        options.create(true).truncate(false).read(true).write(true).mode(0o600);
        let file = match options.custom_flags(libc::O_NOFOLLOW | libc::O_NOCTTY).open(&path) {
            // Where there is no systemd, nobody has made its directory.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                path.parent()
                    .map_or(Ok(()), fs::create_dir_all)
                    .map_err(failed("create the directory of"))?;
                continue;
            }
            opened => opened.map_err(failed("open"))?,
        };
        let whole = libc::flock {
            l_type: libc::F_WRLCK as libc::c_short,
            l_whence: libc::SEEK_SET as libc::c_short,
            l_start: 0,
            l_len: 0,
            l_pid: 0,
        };
        match fcntl(&file, FcntlArg::F_OFD_SETLKW(&whole)) {
            Err(Errno::EINTR) => continue,
            locked => locked.map_err(Error::sys(format!("lock {}", path.display())))?,
        };
        // Whoever had it has removed the file: a lock on one that is gone protects nothing.
        if file.metadata().map_err(failed("look at"))?.nlink() > 0 {
            return Ok(ZoneLock { path, _file: file });
        }
    }
}

/// The index of the zone's bridge, which is made if there is none. It stays as long as the lock is held.
pub(crate) fn bridge(
    _lock: &ZoneLock,
    host: &mut Socket<Route>,
    container: &str,
    name: &str,
    up: bool,
) -> Result<u32> {
    if host.link_by_name(name)?.is_none() {
        let mut batch = Batch::new();
        link::add_bridge(&mut batch, name, up);
        host.transact(batch, |_| {})?;
    }
    let wrong = |problem: &str| Error::NoSuchLink {
        container: container.into(),
        role: LinkRole::Bridge,
        link: name.into(),
        problem: problem.into(),
    };
    match host.link_by_name(name)? {
        None => Err(wrong("was removed by somebody else at once")),
        Some(link) if link.kind.as_deref() != Some("bridge") => Err(wrong("is a link of another kind")),
        Some(link) => Ok(link.index),
    }
}

/// Removes the bridge unless it has ports; `false` when it stays, or is not there.
pub(crate) fn remove_if_empty(paths: &NetPaths, name: &str) -> Result<bool> {
    let mut host = Socket::<Route>::open()?;
    // Who was killed while it had the lock has left the file, which goes when we have had it.
    if host.link_by_name(name)?.is_none() && !paths.zone_lock.exists() {
        return Ok(false);
    }
    let _lock = lock(paths)?;
    match host.link_by_name(name)? {
        Some(link) if link.kind.as_deref() == Some("bridge") && host.ports_of(&link)?.is_empty() => {
            host.delete_link(link.index, name)
        }
        _ => Ok(false),
    }
}
