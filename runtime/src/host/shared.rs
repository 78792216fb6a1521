//! What a container can take over of the host's files: looked at only where it is asked for.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{HostPaths, c_path};
use crate::config::{Integration, JournalLink, ResolvConf, Timezone};
use crate::error::Error;
use crate::resolver::{self, NameServers};
use crate::sys::inroot::{self, Make};

/// The host's files that were asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct SharedFiles {
    /// `/etc/resolv.conf`, without links on the way to it.
    pub resolv_conf: Option<PathBuf>,
    /// systemd-resolved's files.
    pub resolved: Resolved,
    /// The host's name servers as the container can use them.
    pub name_servers: NameServers,
    /// `/etc/localtime`.
    pub localtime: Localtime,
    /// The host's machine id.
    pub machine_id: Option<[u8; 16]>,
    /// `/var/log/journal`.
    pub journal: PathBuf,
}

/// The files that systemd-resolved offers in place of `/etc/resolv.conf`, as far as they exist.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Resolved {
    /// With its own address, whatever the network.
    pub fixed: Option<PathBuf>,
    /// With the real name servers.
    pub uplink: Option<PathBuf>,
    /// With its own address and the search domains of the moment.
    pub stub: Option<PathBuf>,
    /// Whether anything listens at its own address.
    pub listening: bool,
}

/// What the host's time zone is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Localtime {
    /// There is no `/etc/localtime`: UTC.
    #[default]
    Missing,
    /// A file, by this path.
    File(PathBuf),
    /// A symlink.
    Link {
        /// What it says.
        to: PathBuf,
        /// The file that it leads to.
        file: Option<PathBuf>,
    },
}

/// Where each distribution has systemd-resolved's static file.
const FIXED: [&str; 3] = [
    "/usr/lib/systemd/resolv.conf",
    "/lib/systemd/resolv.conf",
    "/run/current-system/systemd/lib/systemd/resolv.conf",
];

impl SharedFiles {
    /// Looks at what `wanted` takes over; where that is nothing, at nothing.
    pub(super) fn probe(
        paths: &HostPaths,
        wanted: &Integration,
        own_network: bool,
    ) -> Result<SharedFiles, Error> {
        let mut files = SharedFiles::default();
        if wanted.resolv_conf.follows() {
            files.name_servers = resolver::name_servers(paths, own_network);
            files.resolv_conf = find(paths, "/etc/resolv.conf")?;
        } else if wanted.resolv_conf != ResolvConf::Off {
            files.resolv_conf = find(paths, "/etc/resolv.conf")?;
            for path in FIXED {
                if files.resolved.fixed.is_none() {
                    files.resolved.fixed = find(paths, path)?;
                }
            }
            files.resolved.uplink = find(paths, "/run/systemd/resolve/resolv.conf")?;
            files.resolved.stub = find(paths, "/run/systemd/resolve/stub-resolv.conf")?;
            files.resolved.listening = wanted.resolv_conf == ResolvConf::Auto && stub_listens(paths);
        }
        if wanted.timezone != Timezone::Off {
            let path = paths.join("/etc/localtime");
            files.localtime = match (std::fs::read_link(&path), find(paths, "/etc/localtime")?) {
                (Ok(to), file) => Localtime::Link { to, file },
                (Err(_), Some(file)) => Localtime::File(file),
                (Err(_), None) => Localtime::Missing,
            };
        }
        if wanted.journal.mode != JournalLink::No {
            let text = std::fs::read_to_string(paths.join("/etc/machine-id")).unwrap_or_default();
            files.machine_id = crate::rootfs::parse_uuid(text.trim());
            files.journal = paths.join("/var/log/journal");
        }
        Ok(files)
    }
}

/// The file behind a path of the host, if there is one; links on the way lead nowhere but below the host's root.
pub(crate) fn find(paths: &HostPaths, path: &str) -> Result<Option<PathBuf>, Error> {
    let (root, flags) = (c_path(paths.root())?, libc::O_PATH);
    let open = |root: &OwnedFd| {
        let path = c_path(Path::new(path.trim_start_matches('/'))).ok()?;
        inroot::open(root.as_raw_fd(), &path, flags, Make::Nothing, true).map(inroot::owned).ok()
    };
    let directory = nix::fcntl::OFlag::O_PATH | nix::fcntl::OFlag::O_CLOEXEC;
    let found = nix::fcntl::open(root.as_c_str(), directory, nix::sys::stat::Mode::empty()).ok();
    let file = found.as_ref().and_then(open);
    Ok(file.and_then(|file| std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).ok()))
}

/// Whether a socket is bound to 127.0.0.53:53, as /proc/net/udp writes it (proc_net(5): addresses in the machine's byte
/// order, ports in the usual one).
fn stub_listens(paths: &HostPaths) -> bool {
    let address = u32::from_ne_bytes([127, 0, 0, 53]);
    let wanted = format!("{address:08X}:{:04X}", 53);
    let text = crate::sys::fd::read_kernel_file(&paths.proc("net/udp")).unwrap_or_default();
    text.lines().any(|line| line.split_whitespace().nth(1) == Some(wanted.as_str()))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::config::LinkJournal;

    #[test]
    fn links_of_the_host_are_followed_below_its_root() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        for directory in ["etc", "run/systemd/resolve", "proc/net", "usr/share/zoneinfo"] {
            fs::create_dir_all(root.join(directory)).unwrap();
        }
        symlink("/run/systemd/resolve/stub-resolv.conf", root.join("etc/resolv.conf")).unwrap();
        fs::write(root.join("run/systemd/resolve/stub-resolv.conf"), "nameserver 127.0.0.53\n").unwrap();
        fs::write(root.join("usr/share/zoneinfo/UTC"), "TZif").unwrap();
        symlink("../usr/share/zoneinfo/UTC", root.join("etc/localtime")).unwrap();
        fs::write(root.join("etc/machine-id"), "0123456789abcdef0123456789abcdef\n").unwrap();
        let udp =
            "  sl  local_address rem_address   st\n  1: 3500007F:0035 00000000:0000 07 00000000:00000000\n";
        fs::write(root.join("proc/net/udp"), udp).unwrap();
        let paths = HostPaths::below(&root).with_proc(root.join("proc"));
        let wanted = Integration {
            resolv_conf: ResolvConf::Auto,
            timezone: Timezone::Auto,
            journal: LinkJournal { mode: JournalLink::Guest, optional: true },
            ..Integration::default()
        };
        let found = SharedFiles::probe(&paths, &wanted, false).unwrap();
        let stub = root.join("run/systemd/resolve/stub-resolv.conf");
        assert_eq!(found.resolv_conf.as_ref(), Some(&stub));
        assert_eq!(found.resolved, Resolved { fixed: None, uplink: None, stub: Some(stub), listening: true });
        let file = Some(root.join("usr/share/zoneinfo/UTC"));
        assert_eq!(found.localtime, Localtime::Link { to: "../usr/share/zoneinfo/UTC".into(), file });
        assert_eq!(found.machine_id.map(|id| id[0]), Some(1));
        // What is not asked for is not looked at.
        assert_eq!(
            SharedFiles::probe(&paths, &Integration::default(), false).unwrap(),
            SharedFiles::default()
        );
    }
}
