//! Facts about the host that plans depend on, read once and below injected paths, so that tests can fake them.

mod asked;

mod shared;

use std::ffi::CString;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::sys::resource::Resource;
use serde::Serialize;

pub use self::asked::{AskedFacts, Controllers, Driver, Node};
pub(crate) use shared::find;
pub use shared::{Localtime, Resolved, SharedFiles};

use crate::caps::CapSet;
use crate::config::ContainerConfig;
use crate::error::{Doing, Error};
use crate::sys;

/// Where the host's files are: everything but the kernel's own file systems lies below `root`.
#[derive(Debug, Clone)]
pub struct HostPaths {
    root: PathBuf,
    proc: PathBuf,
    sys: PathBuf,
}

impl Default for HostPaths {
    fn default() -> Self {
        HostPaths { root: PathBuf::from("/"), proc: PathBuf::from("/proc"), sys: PathBuf::from("/sys") }
    }
}

impl HostPaths {
    /// Configuration, state and roots below `root`; the kernel's file systems at their places.
    #[must_use]
    pub fn below(root: impl Into<PathBuf>) -> HostPaths {
        HostPaths { root: root.into(), ..HostPaths::default() }
    }

    /// The same with another procfs.
    #[must_use]
    pub fn with_proc(mut self, proc: impl Into<PathBuf>) -> HostPaths {
        self.proc = proc.into();
        self
    }

    /// The same with another sysfs.
    #[must_use]
    pub fn with_sys(mut self, sys: impl Into<PathBuf>) -> HostPaths {
        self.sys = sys.into();
        self
    }

    /// The place of an absolute host path.
    #[must_use]
    pub fn join(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// A path below procfs.
    #[must_use]
    pub fn proc(&self, path: &str) -> PathBuf {
        self.proc.join(path)
    }

    /// A path below sysfs.
    #[must_use]
    pub fn sys(&self, path: &str) -> PathBuf {
        self.sys.join(path)
    }

    /// The host's root directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }
}

/// Where control groups are and which one is ours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CgroupFacts {
    /// Mount point of the cgroup v2 hierarchy: /sys/fs/cgroup, or /sys/fs/cgroup/unified on a hybrid host.
    pub mount: PathBuf,
    /// Directory of our own group, below `mount`.
    pub own: PathBuf,
    /// The unit that was delegated to us, when we run in one: `own` or, after we moved into `supervisor`, its parent.
    pub delegated: Option<PathBuf>,
    /// Whether our own group is the root of the hierarchy as we see it.
    pub is_root: bool,
}

/// What the plan must know about the host.
#[derive(Debug, Clone, Serialize)]
pub struct HostFacts {
    /// Control groups; absent when no cgroup v2 is mounted.
    pub cgroup: Option<CgroupFacts>,
    /// Entries of /proc among those that the container must not see or write; kernels differ in which they have.
    pub proc_entries: Vec<String>,
    /// Whether the kernel knows POSIX message queues.
    pub mqueue: bool,
    /// The host's os-release file and its assignments, for `container_host_*`.
    pub os_release: Option<OsRelease>,
    /// Resource limits of the host's PID 1 or the kernel's default for it: what `NPROC` and `SIGPENDING` copy.
    pub init_limits: InitLimits,
    /// Our own limits in `RLIMIT_*` order, soft and hard: without CAP_SYS_RESOURCE none can be raised.
    pub own_limits: Vec<(u64, u64)>,
    /// Capabilities that we can give.
    pub capabilities: CapSet,
    /// Permission bits of the host's /dev/net/tun, if it has one.
    pub tun: Option<u32>,
    /// The host's /var/tmp.
    pub temporary: PathBuf,
    /// Drawn anew each time: part of the names of what is made for one start.
    pub token: String,
    /// The host's root directory: where other files of the host are looked up once they are needed.
    pub root: PathBuf,
    /// Whether systemd is the host's init (sd_booted(3): /run/systemd/system exists).
    pub systemd: bool,
    /// What only one configuration asks for.
    pub asked: AskedFacts,
}

/// The host's os-release.
#[derive(Debug, Clone, Serialize)]
pub struct OsRelease {
    /// Host path of the file.
    pub path: PathBuf,
    /// `ID`, `BUILD_ID`, `VERSION_ID` and the like, lower-cased, unquoted, as nspawn passes them.
    pub fields: Vec<(String, String)>,
}

/// Limits that follow the machine.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct InitLimits {
    /// Soft and hard `RLIMIT_NPROC`.
    pub nproc: (u64, u64),
    /// Soft and hard `RLIMIT_SIGPENDING`.
    pub sigpending: (u64, u64),
    /// `fs.nr_open`.
    pub nr_open: u64,
}

/// PID of the host's init.
const INIT: libc::pid_t = 1;

/// Directories below /proc that are mounted read-only over themselves (nspawn's mount table, v256).
pub(crate) const READ_ONLY_PROC: &[&str] = &["acpi", "apm", "asound", "bus", "fs", "irq", "scsi"];
/// Files below /proc that an empty file without permissions hides.
pub(crate) const MASKED_PROC: &[&str] = &["kallsyms", "kcore", "keys", "sysrq-trigger", "timer_list"];
/// os-release fields that nspawn passes as `container_host_*` (v256, `setup_os_release`).
const OS_RELEASE_FIELDS: &[&str] = &["ID", "BUILD_ID", "VARIANT_ID", "VERSION_ID"];

impl HostFacts {
    /// Reads the facts that the plan of this configuration depends on. Needs no privileges.
    ///
    /// # Errors
    /// When procfs or the control groups cannot be read.
    pub fn probe_for(paths: &HostPaths, config: &ContainerConfig) -> Result<HostFacts, Error> {
        let mut facts = HostFacts::probe(paths)?;
        facts.asked = AskedFacts::probe(paths, config, facts.cgroup.as_ref())?;
        Ok(facts)
    }

    /// Reads the facts that every plan depends on. Needs no privileges.
    ///
    /// # Errors
    /// When procfs cannot be read.
    pub fn probe(paths: &HostPaths) -> Result<HostFacts, Error> {
        let proc_entries = READ_ONLY_PROC
            .iter()
            .chain(MASKED_PROC)
            .filter(|name| paths.proc(name).exists())
            .map(|name| (*name).to_owned())
            .collect();
        Ok(HostFacts {
            cgroup: probe_cgroup(paths)?,
            proc_entries,
            mqueue: paths.proc("sys/fs/mqueue").exists(),
            os_release: read_os_release(paths),
            init_limits: InitLimits::read(paths),
            own_limits: own_limits(),
            capabilities: crate::caps::available()
                .map_err(|error| Error::new(crate::ErrorKind::System, error.to_string()))?,
            tun: fs::metadata("/dev/net/tun").ok().map(|node| node.mode() & 0o777),
            temporary: paths.join("/var/tmp"),
            token: token()?,
            root: paths.root().to_path_buf(),
            systemd: paths.join("/run/systemd/system").is_dir(),
            asked: AskedFacts::default(),
        })
    }
}

fn token() -> Result<String, Error> {
    let mut bytes = [0; 8];
    sys::fd::random(&mut bytes).doing(|| "draw a random name".to_owned())?;
    Ok(format!("{:016x}", u64::from_ne_bytes(bytes)))
}

fn probe_cgroup(paths: &HostPaths) -> Result<Option<CgroupFacts>, Error> {
    let mountinfo = paths.proc("self/mountinfo");
    let text = sys::fd::read_kernel_file(&mountinfo).doing(|| format!("read {}", mountinfo.display()))?;
    let Some(mount) = cgroup2_mount(&text) else { return Ok(None) };
    let file = paths.proc("self/cgroup");
    let text = sys::fd::read_kernel_file(&file).doing(|| format!("read {}", file.display()))?;
    let own = text.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/");
    let is_root = own == "/";
    let own = mount.join(own.trim_start_matches('/'));
    let delegated = if is_delegated(&own) {
        Some(own.clone())
    } else if own.file_name().is_some_and(|name| name == "supervisor") {
        own.parent().filter(|unit| is_delegated(unit)).map(Path::to_path_buf)
    } else {
        None
    };
    Ok(Some(CgroupFacts { mount, own, delegated, is_root }))
}

/// The first cgroup2 mount that shows the root of the hierarchy, from the text of mountinfo (proc(5)).
fn cgroup2_mount(mountinfo: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let mut fields = before.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        (root == "/" && after.starts_with("cgroup2 ")).then(|| PathBuf::from(point.replace("\\040", " ")))
    })
}

/// systemd marks the group of a unit with `Delegate=` by an extended attribute: `user.delegate` since v251,
/// `trusted.delegate` before.
fn is_delegated(group: &Path) -> bool {
    let Ok(directory) = fs::File::open(group) else { return false };
    [c"user.delegate", c"trusted.delegate"]
        .iter()
        .any(|name| sys::fd::xattr(directory.as_fd(), name).is_some_and(|value| value == b"1"))
}

fn read_os_release(paths: &HostPaths) -> Option<OsRelease> {
    let (path, text) = ["/etc/os-release", "/usr/lib/os-release"].iter().find_map(|path| {
        let path = fs::canonicalize(paths.join(path)).ok()?;
        let text = fs::read_to_string(&path).ok()?;
        Some((path, text))
    })?;
    let fields = text
        .lines()
        .filter_map(|line| line.split_once('='))
        .filter(|(key, _)| OS_RELEASE_FIELDS.contains(key))
        .map(|(key, value)| (key.to_ascii_lowercase(), value.trim_matches(['"', '\'']).to_owned()))
        .collect();
    Some(OsRelease { path, fields })
}

impl InitLimits {
    fn read(paths: &HostPaths) -> InitLimits {
        let nr_open = sys::fd::read_kernel_file(&paths.proc("sys/fs/nr_open"))
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .unwrap_or(1 << 20);
        // Asked directly they cost a tenth of what the file does, which anybody may read.
        let of_init = |resource: Resource| sys::process::limit_of(INIT, resource as u32).ok();
        let is_real = paths.proc == Path::new("/proc");
        if let (true, Some(nproc), Some(sigpending)) =
            (is_real, of_init(Resource::RLIMIT_NPROC), of_init(Resource::RLIMIT_SIGPENDING))
        {
            return InitLimits { nproc, sigpending, nr_open };
        }
        let limits = sys::fd::read_kernel_file(&paths.proc("1/limits")).unwrap_or_default();
        let line = |name: &str| {
            let rest = limits.lines().find_map(|line| line.strip_prefix(name))?;
            let mut values = rest.split_whitespace().map(|v| v.parse().unwrap_or(libc::RLIM_INFINITY));
            Some((values.next()?, values.next()?))
        };
        let infinity = (libc::RLIM_INFINITY, libc::RLIM_INFINITY);
        InitLimits {
            nproc: line("Max processes").unwrap_or(infinity),
            sigpending: line("Max pending signals").unwrap_or(infinity),
            nr_open,
        }
    }
}

fn own_limits() -> Vec<(u64, u64)> {
    use nix::sys::resource::getrlimit;
    const ORDER: [Resource; 16] = [
        Resource::RLIMIT_CPU,
        Resource::RLIMIT_FSIZE,
        Resource::RLIMIT_DATA,
        Resource::RLIMIT_STACK,
        Resource::RLIMIT_CORE,
        Resource::RLIMIT_RSS,
        Resource::RLIMIT_NPROC,
        Resource::RLIMIT_NOFILE,
        Resource::RLIMIT_MEMLOCK,
        Resource::RLIMIT_AS,
        Resource::RLIMIT_LOCKS,
        Resource::RLIMIT_SIGPENDING,
        Resource::RLIMIT_MSGQUEUE,
        Resource::RLIMIT_NICE,
        Resource::RLIMIT_RTPRIO,
        Resource::RLIMIT_RTTIME,
    ];
    let infinity = (libc::RLIM_INFINITY, libc::RLIM_INFINITY);
    ORDER.iter().map(|resource| getrlimit(*resource).unwrap_or(infinity)).collect()
}

/// A path as a C string.
pub(crate) fn c_path(path: &Path) -> Result<CString, Error> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| {
        Error::new(crate::ErrorKind::Config, format!("the path {} holds a NUL byte", path.display()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIFIED: &str = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
    const HYBRID: &str = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
        40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n\
        41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";

    #[test]
    fn finds_cgroup2_on_unified_and_hybrid_hosts() {
        assert_eq!(cgroup2_mount(UNIFIED), Some(PathBuf::from("/sys/fs/cgroup")));
        assert_eq!(cgroup2_mount(HYBRID), Some(PathBuf::from("/sys/fs/cgroup/unified")));
        assert_eq!(cgroup2_mount("22 27 0:21 / /proc rw - proc proc rw\n"), None);
    }

    #[test]
    fn paths_stay_below_the_host_root() {
        let paths = HostPaths::below("/tmp/host");
        assert_eq!(paths.join("/etc/nixos-containers"), Path::new("/tmp/host/etc/nixos-containers"));
        assert_eq!(HostPaths::default().join("/etc"), Path::new("/etc"));
    }

    #[test]
    fn os_release_prefers_etc_and_unquotes() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("etc")).unwrap();
        fs::write(dir.path().join("etc/os-release"), "ID=nixos\nNAME=NixOS\nVERSION_ID=\"25.11\"\n").unwrap();
        let release = read_os_release(&HostPaths::below(dir.path())).unwrap();
        let expected = [("id", "nixos"), ("version_id", "25.11")];
        assert_eq!(release.fields, expected.map(|(k, v)| (k.to_owned(), v.to_owned())));
    }
}
