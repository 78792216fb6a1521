//! The mount table: systemd-nspawn's (v256, `mount_table` in nspawn-mount.c), in its order, with real masks.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::nested;
use crate::config::{BindSource, Console, ContainerConfig, Mount, Store};
use crate::error::{Error, ErrorKind};
use crate::host::{HostFacts, MASKED_PROC, READ_ONLY_PROC};
use crate::sys::mount::attr;

/// Attributes of a mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Attributes {
    /// Read-only.
    pub read_only: bool,
    /// Without set-user-id.
    pub no_suid: bool,
    /// Without device nodes.
    pub no_dev: bool,
    /// Without programs.
    pub no_exec: bool,
    /// Access times always written.
    pub strict_atime: bool,
}

impl Attributes {
    const NONE: Attributes =
        Attributes { read_only: false, no_suid: false, no_dev: false, no_exec: false, strict_atime: false };
    const RO: Attributes = Attributes { read_only: true, ..Self::NONE };
    pub(super) const API: Attributes =
        Attributes { no_suid: true, no_dev: true, no_exec: true, ..Self::NONE };
    const API_RO: Attributes = Attributes { read_only: true, ..Self::API };
    const TMP: Attributes = Attributes { no_suid: true, no_dev: true, strict_atime: true, ..Self::NONE };

    /// Takes an option of mount(8) that is an attribute of the mount and not of its file system.
    fn apply(&mut self, option: &str) -> bool {
        match option {
            "ro" => self.read_only = true,
            "rw" => self.read_only = false,
            "nosuid" => self.no_suid = true,
            "suid" => self.no_suid = false,
            "nodev" => self.no_dev = true,
            "dev" => self.no_dev = false,
            "noexec" => self.no_exec = true,
            "exec" => self.no_exec = false,
            "strictatime" => self.strict_atime = true,
            "relatime" => self.strict_atime = false,
            _ => return false,
        }
        true
    }

    /// `MOUNT_ATTR_*` bits.
    #[must_use]
    pub fn bits(self) -> u64 {
        let on = |flag: bool, bit: u64| if flag { bit } else { 0 };
        on(self.read_only, attr::RDONLY)
            | on(self.no_suid, attr::NOSUID)
            | on(self.no_dev, attr::NODEV)
            | on(self.no_exec, attr::NOEXEC)
            | on(self.strict_atime, attr::STRICTATIME)
    }
}

/// One step of building the container's mount tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MountPlan {
    /// Path inside the container.
    pub target: PathBuf,
    /// What is attached there.
    pub source: Source,
    /// Its attributes.
    pub attributes: Attributes,
}

/// What a mount step attaches, or does instead.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Source {
    /// The container's root directory.
    Root,
    /// A bind mount of a host path. The mount follows the host's propagation as a slave.
    HostPath {
        /// Host path.
        path: PathBuf,
        /// With the mounts below it.
        recursive: bool,
        /// Whether the mount point is made when missing.
        make: bool,
    },
    /// A tmpfs, filled before anybody sees it.
    Tmpfs {
        /// Options as of tmpfs(5): key and value, or a flag. Sizes may be percentages of the machine's memory.
        options: Vec<(String, Option<String>)>,
        /// What is put into it.
        entries: Vec<Entry>,
    },
    /// The container's own pty file system.
    Devpts {
        /// Owning group of its terminals.
        gid: u32,
    },
    /// A file system that belongs to one of the new namespaces, by its type.
    Kernel(&'static str),
    /// One that the container never sees, to make [`Source::Outside`] mounts of: it lies over the host's directory of
    /// that path, in the copy of the host's mounts that goes away with [pivot_root(2)].
    ///
    /// [pivot_root(2)]: https://man7.org/linux/man-pages/man2/pivot_root.2.html
    KernelOutside(&'static str),
    /// A bind mount of a path below a [`Source::KernelOutside`].
    Outside {
        /// Path in the copy of the host's tree.
        path: PathBuf,
    },
    /// A bind mount of a path inside the container.
    Own {
        /// Path inside the container.
        path: PathBuf,
        /// With the mounts below it.
        recursive: bool,
    },
    /// The console's terminal.
    Console,
    /// A file with a boot id of the container's own.
    BootId,
    /// A FIFO that nobody writes to, in place of the host's kernel log.
    KernelLog,
    /// No new mount: the one that is there gets the attributes.
    Remount,
    /// No new mount: the tree below becomes shared, so that mounts made inside reach the container's own children
    /// (systemd/systemd#3860).
    Share,
}

/// A file, directory or node in a tmpfs of ours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Entry {
    /// A directory.
    Directory {
        /// Path relative to the tmpfs.
        path: PathBuf,
        /// Permission bits.
        mode: u32,
    },
    /// A regular file.
    File {
        /// Path relative to the tmpfs.
        path: PathBuf,
        /// Permission bits.
        mode: u32,
        /// Content.
        content: OsString,
    },
    /// A symbolic link.
    Symlink {
        /// Path relative to the tmpfs.
        path: PathBuf,
        /// Where it leads.
        to: PathBuf,
    },
    /// A device node: a character device unless `block` says otherwise.
    Device {
        /// Path relative to the tmpfs.
        path: PathBuf,
        /// Permission bits.
        mode: u32,
        /// Whether it is a block device.
        block: bool,
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A FIFO.
    Fifo {
        /// Path relative to the tmpfs.
        path: PathBuf,
        /// Permission bits.
        mode: u32,
    },
    /// A socket: the notify socket at `host/notify`, else one that nobody listens on.
    Socket {
        /// Path relative to the tmpfs.
        path: PathBuf,
        /// Permission bits.
        mode: u32,
    },
}

/// Where the container finds the notify socket, relative to `/run`.
pub(crate) const NOTIFY: &str = "host/notify";
/// The boot id's file below `/run` until it is mounted; nspawn's name.
pub(crate) const BOOT_ID: &str = "proc-sys-kernel-random-boot-id";
/// The kernel log's FIFO below `/run` until it is mounted.
pub(crate) const KMSG: &str = "proc-kmsg";
/// The file that receives the container's uuid, relative to `/run`.
pub(crate) const UUID: &str = "host/container-uuid";

pub(super) fn plan(config: &ContainerConfig, host: &HostFacts) -> Result<Vec<MountPlan>, Error> {
    let private = config.network.is_private();
    let mut mounts = vec![mount("/", Source::Root, Attributes::NONE)];
    mounts.push(mount("/tmp", tmpfs("mode=1777,size=10%,nr_inodes=400k", vec![]), Attributes::TMP));
    sys(&mut mounts, private);
    dev(&mut mounts, config);
    run(&mut mounts, config, host);
    store(&mut mounts, config);
    custom(&mut mounts, config)?;
    proc(&mut mounts, host, private);
    if config.security.nested {
        mounts.extend(nested::mounts());
    }
    if host.mqueue {
        mounts.push(mount("/dev/mqueue", Source::Kernel("mqueue"), Attributes::API));
    }
    mounts.push(mount("/sys/fs/cgroup", Source::Kernel("cgroup2"), Attributes::API));
    if private {
        mounts.push(mount("/sys", Source::Remount, Attributes::API_RO));
    }
    mounts.push(mount("/run/host", Source::Remount, Attributes::API_RO));
    mounts.push(mount("/", Source::Share, Attributes::NONE));
    Ok(mounts)
}

/// Without a network of its own the container sees the host's /sys, read-only. With one, a skeleton with those
/// parts that belong to devices: a read-only /sys is what tells systemd to start no udevd.
fn sys(mounts: &mut Vec<MountPlan>, private: bool) {
    const PARTS: &[&str] = &["block", "bus", "class", "dev", "devices", "kernel"];
    if !private {
        mounts.push(mount("/sys", Source::Kernel("sysfs"), Attributes::API_RO));
        return;
    }
    let mut entries = vec![directory("fs", 0o755), directory("fs/cgroup", 0o755)];
    entries.extend(PARTS.iter().map(|part| directory(part, 0o755)));
    mounts.push(mount("/sys", tmpfs("mode=555,size=4m,nr_inodes=1k", entries), Attributes::API));
    mounts.push(mount("/sys", Source::KernelOutside("sysfs"), Attributes::API_RO));
    for part in PARTS {
        let source = Source::Outside { path: Path::new("/sys").join(part) };
        mounts.push(mount(&format!("/sys/{part}"), source, Attributes::API_RO));
    }
}

fn dev(mounts: &mut Vec<MountPlan>, config: &ContainerConfig) {
    let mut entries = vec![
        directory("pts", 0o755),
        directory("shm", 0o755),
        directory("mqueue", 0o755),
        directory("char", 0o755),
        symlink("ptmx", "pts/ptmx"),
        symlink("fd", "/proc/self/fd"),
        symlink("stdin", "/proc/self/fd/0"),
        symlink("stdout", "/proc/self/fd/1"),
        symlink("stderr", "/proc/self/fd/2"),
        symlink("core", "/proc/kcore"),
    ];
    for (name, major, minor) in
        [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)]
    {
        entries.push(Entry::Device { path: name.into(), mode: 0o666, block: false, major, minor });
        entries.push(symlink(&format!("char/{major}:{minor}"), &format!("../{name}")));
    }
    if config.security.nested {
        entries.extend(nested::devices());
    }
    let console = config.console != Console::Pipe;
    if console {
        entries.push(file("console", 0o600, ""));
    }
    mounts.push(mount(
        "/dev",
        tmpfs("mode=755,size=4m,nr_inodes=64k", entries),
        Attributes { no_suid: true, strict_atime: true, ..Attributes::NONE },
    ));
    mounts.push(mount("/dev/shm", tmpfs("mode=1777,size=10%,nr_inodes=400k", vec![]), Attributes::TMP));
    mounts.push(mount(
        "/dev/pts",
        Source::Devpts { gid: config.tty_gid },
        Attributes { no_suid: true, no_exec: true, ..Attributes::NONE },
    ));
    if console {
        mounts.push(mount("/dev/console", Source::Console, Attributes::NONE));
    }
}

fn run(mounts: &mut Vec<MountPlan>, config: &ContainerConfig, host: &HostFacts) {
    let mut entries = vec![
        directory("host", 0o755),
        file("host/container-manager", 0o444, &format!("{}\n", config.manager)),
        file("host/os-release", 0o444, ""),
        directory("host/incoming", 0o600),
        directory("host/inaccessible", 0o755),
        file("host/inaccessible/reg", 0, ""),
        directory("host/inaccessible/dir", 0),
        Entry::Fifo { path: "host/inaccessible/fifo".into(), mode: 0 },
        Entry::Socket { path: "host/inaccessible/sock".into(), mode: 0 },
    ];
    if config.security.nested {
        entries.push(nested::directory());
    }
    for (name, block) in [("chr", false), ("blk", true)] {
        let path = Path::new("host/inaccessible").join(name);
        entries.push(Entry::Device { path, mode: 0, block, major: 0, minor: 0 });
    }
    if config.notify_ready || config.notify_socket {
        // Root inside may write, and only PID 1 is believed; nspawn's mode (v256).
        entries.push(Entry::Socket { path: NOTIFY.into(), mode: 0o200 });
    }
    entries.push(Entry::Fifo { path: KMSG.into(), mode: 0o600 });
    mounts.push(mount("/run", tmpfs("mode=755,size=20%,nr_inodes=800k", entries), Attributes::TMP));
    mounts.push(mount(
        "/run/host",
        Source::Own { path: "/run/host".into(), recursive: false },
        Attributes::NONE,
    ));
    if let Some(release) = &host.os_release {
        let source = Source::HostPath { path: release.path.clone(), recursive: false, make: false };
        mounts.push(mount("/run/host/os-release", source, Attributes::RO));
    }
}

fn store(mounts: &mut Vec<MountPlan>, config: &ContainerConfig) {
    match &config.store {
        None => {}
        Some(Store::Whole(path)) => {
            let source = Source::HostPath { path: path.clone(), recursive: true, make: true };
            mounts.push(mount("/nix/store", source, Attributes::RO));
        }
    }
}

fn custom(mounts: &mut Vec<MountPlan>, config: &ContainerConfig) -> Result<(), Error> {
    for request in &config.mounts {
        check_target(request.target())?;
        mounts.push(match request {
            Mount::Bind { source: BindSource::Host(source), target, read_only, recursive, ids: _ } => {
                if !source.is_absolute() {
                    return Err(Error::new(
                        ErrorKind::Config,
                        format!(
                            "the source {} of the bind mount on {} is not an absolute path",
                            source.display(),
                            target.display()
                        ),
                    ));
                }
                let attributes = if *read_only { Attributes::RO } else { Attributes::NONE };
                let source = Source::HostPath { path: source.clone(), recursive: *recursive, make: true };
                MountPlan { target: target.clone(), source, attributes }
            }
            Mount::Tmpfs { target, options } => {
                // nspawn's, which options can add to.
                let mut attributes = Attributes { no_dev: true, strict_atime: true, ..Attributes::NONE };
                let options: Vec<&str> =
                    options.split(',').filter(|option| !attributes.apply(option)).collect();
                MountPlan { target: target.clone(), source: tmpfs(&options.join(","), vec![]), attributes }
            }
            // Refused by `unsupported`.
            _ => continue,
        });
    }
    Ok(())
}

fn check_target(target: &Path) -> Result<(), Error> {
    use std::path::Component;
    let fine = target.is_absolute()
        && target != Path::new("/")
        && target.components().all(|part| !matches!(part, Component::ParentDir));
    if fine {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Config,
        format!("{} cannot be a mount point inside the container", target.display()),
    )
    .hint("give an absolute path below / without '..'"))
}

/// /proc is mounted after the custom binds, as in nspawn, because it belongs to the new pid namespace.
fn proc(mounts: &mut Vec<MountPlan>, host: &HostFacts, private: bool) {
    mounts.push(mount("/proc", Source::Kernel("proc"), Attributes::API));
    let own = |path: &str| Source::Own { path: path.into(), recursive: false };
    let has = |name: &str| host.proc_entries.iter().any(|entry| entry == name);
    if private {
        // Attached below /proc/sys's own copy afterwards; taken first, while it is still writable.
        mounts.push(mount("/proc/sys", own("/proc/sys"), Attributes::NONE));
        mounts.push(mount("/proc/sys/net", own("/proc/sys/net"), Attributes::NONE));
        mounts.push(mount("/proc/sys", Source::Remount, Attributes::API_RO));
    } else {
        mounts.push(mount("/proc/sys", own("/proc/sys"), Attributes::API_RO));
    }
    for name in READ_ONLY_PROC.iter().filter(|name| has(name)) {
        let path = format!("/proc/{name}");
        mounts.push(mount(&path, own(&path), Attributes::API_RO));
    }
    for name in MASKED_PROC.iter().filter(|name| has(name)) {
        mounts.push(mount(&format!("/proc/{name}"), own("/run/host/inaccessible/reg"), Attributes::API_RO));
    }
    mounts.push(mount("/proc/sys/kernel/random/boot_id", Source::BootId, Attributes::API_RO));
    mounts.push(mount("/proc/kmsg", Source::KernelLog, Attributes::NONE));
}

fn mount(target: &str, source: Source, attributes: Attributes) -> MountPlan {
    MountPlan { target: target.into(), source, attributes }
}

/// A tmpfs with options in mount(8)'s notation.
fn tmpfs(options: &str, entries: Vec<Entry>) -> Source {
    let options = options
        .split(',')
        .filter(|option| !option.is_empty())
        .map(|option| match option.split_once('=') {
            Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
            None => (option.to_owned(), None),
        })
        .collect();
    Source::Tmpfs { options, entries }
}

fn directory(path: &str, mode: u32) -> Entry {
    Entry::Directory { path: path.into(), mode }
}

fn file(path: &str, mode: u32, content: &str) -> Entry {
    Entry::File { path: path.into(), mode, content: content.into() }
}

fn symlink(path: &str, to: &str) -> Entry {
    Entry::Symlink { path: path.into(), to: to.into() }
}
