//! The API file systems: what every container has.

use std::path::Path;

use super::{Attributes, Entry, KMSG, MountPlan, NOTIFY, Source, directory, file, mount, symlink, tmpfs};
use crate::config::{ApiWritable, Console, ContainerConfig, Network, UserNamespace};
use crate::host::{HostFacts, MASKED_PROC, READ_ONLY_PROC};
use crate::plan::{CgroupPlan, OnHost, nested};

/// Where the whole proc and sysfs lie while a container with a user namespace mounts its own.
const VISIBLE: [(&str, &str); 2] = [("/run/host/proc", "proc"), ("/run/host/sys", "sysfs")];

/// The directories of sysfs that belong to devices.
const SYS_PARTS: &[&str] = &["block", "bus", "class", "dev", "devices", "kernel"];
/// A directory of the skeleton that covers nothing.
const SYS_FS: &str = "/sys/fs";

/// Where systemd-nspawn and machined keep what they share with containers.
const SHARED: &str = "/run/systemd/nspawn";

/// Where the control groups are.
const CGROUP: &str = "/sys/fs/cgroup";

/// How much of /sys and /proc there is.
#[derive(Debug, Clone, Copy)]
struct View {
    /// Only what is the container's own is writable.
    read_only: bool,
    /// The network counts as the container's own.
    own_network: bool,
}

impl View {
    fn of(config: &ContainerConfig) -> View {
        let writable = config.kernel_view.writable;
        View {
            read_only: writable != ApiWritable::Yes,
            own_network: writable == ApiWritable::Network
                || match config.network {
                    Network::Host => false,
                    Network::Private => true,
                    Network::Join(_) => config.kernel_view.joined_network_is_own,
                },
        }
    }
}

/// Those that lie below the mounts that were asked for.
pub(super) fn outer(
    mounts: &mut Vec<MountPlan>,
    on_host: &mut Vec<OnHost>,
    config: &ContainerConfig,
    host: &HostFacts,
) {
    if config.kernel_view.tmpfs_tmp {
        let source = tmpfs("mode=1777,size=10%,nr_inodes=400k", vec![]);
        mounts.push(mount("/tmp", source, Attributes::TMP));
    }
    sys(mounts, config);
    dev(mounts, config, host);
    run(mounts, config, host);
    if config.integration.machine {
        machine(mounts, on_host, config);
    }
}

/// Those that lie over them: they show the container's own namespaces.
pub(super) fn inner(
    outer: &[MountPlan],
    config: &ContainerConfig,
    host: &HostFacts,
    group: &CgroupPlan,
) -> Vec<MountPlan> {
    let mut mounts = Vec::with_capacity(24);
    if !taken(outer, "/proc") {
        mounts.push(mount("/proc", Source::Kernel("proc"), Attributes::API));
    }
    proc(&mut mounts, host, View::of(config));
    if config.security.nested {
        mounts.extend(nested::mounts(config));
    }
    if host.mqueue && !taken(outer, "/dev/mqueue") {
        mounts.push(mount("/dev/mqueue", Source::Kernel("mqueue"), Attributes::API));
    }
    if !taken(outer, CGROUP) {
        cgroup(&mut mounts, config, host, group);
    }
    mounts
}

/// What makes read-only what nothing is put into any more.
pub(super) fn seal(mounts: &mut Vec<MountPlan>, config: &ContainerConfig) {
    let view = View::of(config);
    if view.own_network && view.read_only {
        mounts.push(mount("/sys", Source::Remount, Attributes::API_RO));
    }
    mounts.push(mount("/run/host", Source::Remount, Attributes::API_RO));
}

/// Whether one of the inner mounts belongs to a namespace that the user namespace will own, or lies on one that does.
pub(super) fn is_inside(mount: &MountPlan, config: &ContainerConfig) -> bool {
    let view = &config.kernel_view;
    let below = |path: &str| mount.target.starts_with(path);
    match &mount.source {
        Source::Kernel("sysfs") => config.network == Network::Private,
        Source::Kernel("mqueue") => !view.share_ipc,
        _ if below(CGROUP) => view.cgroup_namespace,
        _ => !view.share_pid,
    }
}

/// What must be in sight for the proc and sysfs among these to be mounted.
pub(super) fn visible(inside: &[MountPlan]) -> impl Iterator<Item = MountPlan> {
    let needed = |fstype| inside.iter().any(|mount| mount.source == Source::Kernel(fstype));
    VISIBLE
        .into_iter()
        .filter(move |(_, fstype)| needed(fstype))
        .map(|(target, fstype)| mount(target, Source::Visible(fstype), Attributes::API))
}

/// What machined uses: a directory in which mounts made on the host arrive, and one for sockets that the host connects
/// to.
fn machine(mounts: &mut Vec<MountPlan>, on_host: &mut Vec<OnHost>, config: &ContainerConfig) {
    let path = Path::new(SHARED).join("propagate").join(&config.name);
    on_host.push(OnHost::Propagate { path: path.clone() });
    mounts.push(mount("/run/host/incoming", Source::Incoming { path }, Attributes::RO));
    let path = Path::new(SHARED).join("unix-export").join(&config.name);
    on_host.push(OnHost::UnixExport { path: path.clone() });
    let attributes = Attributes { no_symlinks: true, ..Attributes::API };
    mounts.push(mount("/run/host/unix-export", Source::UnixExport { path }, attributes));
}

/// Without a network of its own the container sees the host's /sys, read-only. With one, a skeleton with those
/// parts that belong to devices: a read-only /sys is what tells systemd to start no udevd.
fn sys(mounts: &mut Vec<MountPlan>, config: &ContainerConfig) {
    let view = View::of(config);
    let attributes = Attributes { read_only: view.read_only, ..Attributes::API };
    if !view.own_network {
        mounts.push(mount("/sys", Source::Kernel("sysfs"), attributes));
        return;
    }
    let mut entries = vec![directory("fs", 0o755), directory("fs/cgroup", 0o755)];
    entries.extend(SYS_PARTS.iter().map(|part| directory(part, 0o755)));
    mounts.push(mount("/sys", tmpfs("mode=555,size=4m,nr_inodes=1k", entries), Attributes::API));
    if has_own_sys(config) {
        return;
    }
    mounts.push(mount("/sys", Source::KernelOutside("sysfs"), attributes));
    for part in SYS_PARTS {
        let source = Source::Outside { path: Path::new("/sys").join(part) };
        mounts.push(mount(&format!("/sys/{part}"), source, attributes));
    }
}

/// Whether the network is one that the user namespace owns: the others' sysfs only the host may mount.
fn has_own_sys(config: &ContainerConfig) -> bool {
    config.users != UserNamespace::Host && config.network == Network::Private
}

/// The parts of /sys that the container mounts itself. The host's tree is gone by then: over a directory of the
/// skeleton, since it must be mounted somewhere to be copied from.
pub(super) fn sys_inside(config: &ContainerConfig) -> Vec<MountPlan> {
    if !has_own_sys(config) {
        return Vec::new();
    }
    let read_only = View::of(config).read_only;
    let attributes = Attributes { read_only, ..Attributes::API };
    let mut mounts = vec![mount(SYS_FS, Source::Kernel("sysfs"), attributes)];
    for part in SYS_PARTS {
        let source = Source::Own { path: Path::new(SYS_FS).join(part), recursive: false };
        mounts.push(mount(&format!("/sys/{part}"), source, attributes));
    }
    mounts.push(mount(SYS_FS, Source::Unmount, Attributes::NONE));
    mounts
}

fn dev(mounts: &mut Vec<MountPlan>, config: &ContainerConfig, host: &HostFacts) {
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
        entries.push(Entry::Device {
            path: name.into(),
            mode: 0o666,
            block: false,
            major,
            minor,
            optional: false,
        });
        entries.push(symlink(&format!("char/{major}:{minor}"), &format!("../{name}")));
    }
    if config.security.nested {
        entries.push(nested::fuse());
    }
    if host.tun.is_some() || config.security.nested {
        // In a unit whose DeviceAllow= leaves it out it cannot be made, and could not be opened.
        let (path, major, minor) = ("net/tun".into(), 10, 200);
        entries.push(directory("net", 0o755));
        let mode = host.tun.unwrap_or(0o666);
        entries.push(Entry::Device { path, mode, block: false, major, minor, optional: true });
        entries.push(symlink("char/10:200", "../net/tun"));
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
        entries.push(Entry::Device { path, mode: 0, block, major: 0, minor: 0, optional: false });
    }
    if config.integration.machine {
        entries.push(directory("host/unix-export", 0o755));
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

/// /proc is mounted after the custom binds, as in nspawn, because it belongs to the new pid namespace.
fn proc(mounts: &mut Vec<MountPlan>, host: &HostFacts, view: View) {
    if view.read_only {
        read_only_proc(mounts, host, view.own_network);
    }
    mounts.push(mount("/proc/sys/kernel/random/boot_id", Source::BootId, Attributes::API_RO));
    mounts.push(mount("/proc/kmsg", Source::KernelLog, Attributes::NONE));
}

fn read_only_proc(mounts: &mut Vec<MountPlan>, host: &HostFacts, own_network: bool) {
    let own = |path: &str| Source::Own { path: path.into(), recursive: false };
    let has = |name: &str| host.proc_entries.iter().any(|entry| entry == name);
    if own_network {
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
}

/// With a cgroup namespace its root is the container's group. Without, the whole hierarchy is there, read-only but for
/// the container's group.
fn cgroup(mounts: &mut Vec<MountPlan>, config: &ContainerConfig, host: &HostFacts, group: &CgroupPlan) {
    mounts.push(mount(CGROUP, Source::Kernel("cgroup2"), Attributes::API));
    let below = host.cgroup.as_ref().and_then(|facts| group.payload.strip_prefix(&facts.mount).ok());
    if let Some(below) = below.filter(|path| !config.kernel_view.cgroup_namespace && path.parent().is_some())
    {
        let own = Path::new(CGROUP).join(below);
        let source = Source::Own { path: own.clone(), recursive: false };
        mounts.push(MountPlan { target: own, source, attributes: Attributes::NONE, ids: None });
        mounts.push(mount(CGROUP, Source::Remount, Attributes::API_RO));
    }
}

/// Whether a mount that was asked for stands in the place of an API file system: it stays, as under nspawn.
fn taken(mounts: &[MountPlan], target: &str) -> bool {
    mounts.iter().any(|mount| mount.target == Path::new(target))
}
