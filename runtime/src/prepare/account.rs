//! The user that the program runs as, looked up in the files that the container will see.

use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind};
use crate::passwd::{self, Account, Fault};
use crate::plan::{Plan, Source};
use crate::rootfs::Root;

/// Longest passwd or group file that is read.
const LONGEST: u64 = 16 << 20;

/// `None` for root, as which the container begins.
pub(super) fn find(plan: &Plan, root: &Root) -> Result<Option<Account>, Error> {
    let Some(user) = plan.user.as_deref().filter(|user| !passwd::is_root(user)) else { return Ok(None) };
    let read = |path: &str| content(plan, root, Path::new(path)).unwrap_or_default();
    let fault = |kind, what: &str| {
        Error::new(kind, format!("cannot run the program of container {} as user {user}: {what}", plan.name))
    };
    match passwd::lookup(&read("/etc/passwd"), &read("/etc/group"), user) {
        Ok(account) => Ok(Some(account)),
        Err(Fault::Missing) => {
            Err(fault(ErrorKind::NotFound, "the container's /etc/passwd does not have it")
                .hint("a user of another source than that file, such as LDAP, is given by its number"))
        }
        Err(Fault::Entry) => {
            Err(fault(ErrorKind::Config, "its entry in the container's /etc/passwd is broken"))
        }
    }
}

/// A file of the container as its program will see it, where that can be known before it runs: in its root, or in what
/// of the host is mounted over it.
fn content(plan: &Plan, root: &Root, path: &Path) -> Option<String> {
    let covering =
        plan.mounts.iter().rfind(|mount| path.starts_with(&mount.target) && mount.target != Path::new("/"));
    let bytes = match covering.map(|mount| (&mount.source, &mount.target)) {
        None => root.read_bytes(path, LONGEST),
        Some((Source::HostPath { path: host, .. }, target)) => match path.strip_prefix(target) {
            Ok(rest) if rest != Path::new("") => Root::open(host).ok()?.read_bytes(rest, LONGEST),
            _ => {
                let name = PathBuf::from(host.file_name()?);
                Root::open(host.parent()?).ok()?.read_bytes(&name, LONGEST)
            }
        },
        Some(_) => None,
    }?;
    // A comment field in another encoding is no reason to know nobody.
    Some(String::from_utf8_lossy(&bytes).into_owned())
}
