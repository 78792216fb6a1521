//! What containers inside a container need beyond what a container has.
//!
//! - A procfs and a sysfs that are fully visible. In a user namespace the kernel lets nobody mount either while the
//!   ones in sight have something mounted over parts of them that cannot be taken away (`mount_too_revealing` in
//!   fs/namespace.c): the masks over /proc and the skeleton on /sys are such, once they are inherited by a user
//!   namespace inside. Any instance will do, so there are two out of the way, and the masks stay: without a user
//!   namespace of the container's own they are what keeps a stray write to /proc/sysrq-trigger from the host. They
//!   never kept root inside from it, who can mount another procfs.
//! - Keyrings, which runc and crun join by default, and bpf(2), by which they and systemd restrict devices.
//! - /dev/fuse and /dev/net/tun, for fuse-overlayfs and for slirp4netns and pasta.
//!
//! The control group is the container's own and writable anyway.

use super::mounts::{Attributes, Entry, MountPlan, Source};
use crate::config::{ContainerConfig, Network, SystemCallRules, UserNamespace};

/// Whose root alone may look in: what is masked elsewhere shows here.
const DIRECTORY: &str = "/run/host/nested";

/// `pidfd_getfd` is how podman's and crun's seccomp agents take over descriptors.
const SYSTEM_CALLS: [&str; 3] = ["@keyring", "bpf", "pidfd_getfd"];

/// The directory that [`mounts`] are in, as /run's own entry.
pub(super) fn directory() -> Entry {
    Entry::Directory { path: DIRECTORY.trim_start_matches("/run/").into(), mode: 0o700 }
}

/// The file systems that make others like them mountable. In a user namespace the sysfs of a network from outside cannot
/// be mounted, neither here nor by those inside, who have the one on /sys in sight.
pub(super) fn mounts(config: &ContainerConfig) -> impl Iterator<Item = MountPlan> {
    let foreign = config.users != UserNamespace::Host && config.network != Network::Private;
    let both = [("proc", "proc"), ("sys", "sysfs")].into_iter();
    // Writable, both: what is read-only here could only be mounted read-only there.
    both.filter(move |(name, _)| *name == "proc" || !foreign).map(|(name, fstype)| MountPlan {
        target: std::path::Path::new(DIRECTORY).join(name),
        source: Source::Kernel(fstype),
        attributes: Attributes::API,
        ids: None,
    })
}

/// The device of file systems in user space; /dev/net/tun is everybody's who has it.
pub(super) fn fuse() -> Entry {
    let path = "fuse".into();
    Entry::Device { path, mode: 0o666, block: false, major: 10, minor: 229, optional: false }
}

/// The system calls, in front of what was asked for.
pub(super) fn allow(rules: &mut SystemCallRules) {
    rules.allow.splice(0..0, SYSTEM_CALLS.map(str::to_owned));
}
