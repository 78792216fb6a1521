//! The mount table: systemd-nspawn's (v256, `mount_table` in nspawn-mount.c), in its order, with real masks.

mod api;
mod custom;
mod root;

use std::ffi::OsString;
use std::path::PathBuf;

use serde::Serialize;

pub(crate) use custom::MAX_LAYERS;

use super::integration;
use crate::config::{BindIds, ContainerConfig, UserNamespace};
use crate::error::Error;
use crate::host::HostFacts;
use crate::plan::{CgroupPlan, OnHost};
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
    /// Symbolic links are not followed.
    pub no_symlinks: bool,
    /// Access times always written.
    pub strict_atime: bool,
}

impl Attributes {
    pub(super) const NONE: Attributes = Attributes {
        read_only: false,
        no_suid: false,
        no_dev: false,
        no_exec: false,
        no_symlinks: false,
        strict_atime: false,
    };
    const RO: Attributes = Attributes { read_only: true, ..Self::NONE };
    pub(super) const API: Attributes =
        Attributes { no_suid: true, no_dev: true, no_exec: true, ..Self::NONE };
    pub(super) const API_RO: Attributes = Attributes { read_only: true, ..Self::API };
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
            "nosymfollow" => self.no_symlinks = true,
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
            | on(self.no_symlinks, attr::NOSYMFOLLOW)
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
    /// Its attributes; where mounts below come along, they get them, too.
    pub attributes: Attributes,
    /// How owners of its files appear inside a user namespace; only bind mounts that were asked for have a say.
    pub ids: Option<BindIds>,
}

/// What a mount step attaches, or does instead.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Source {
    /// The container's root directory or image, private to the container.
    Root,
    /// An overlay over it: what is written goes into a tmpfs.
    RootOverlay {
        /// Options of the tmpfs.
        options: TmpfsOptions,
    },
    /// The root directory or image, where a directory of it is the container's root.
    FormerRoot,
    /// A bind mount of a path in the root directory or image where that is not the container's root itself.
    BaseOf {
        /// Path inside it.
        path: PathBuf,
    },
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
        options: TmpfsOptions,
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
    /// The same for a path that the container may have filled with symlinks. The mount point is made when missing, of
    /// the source's kind.
    InRoot {
        /// Path inside the container.
        path: PathBuf,
        /// With the mounts below it.
        recursive: bool,
    },
    /// Directories laid over each other.
    Overlay {
        /// The layers that are only read, the lowest first.
        lower: Vec<Layer>,
        /// The layer that takes what is written.
        upper: Option<UpperLayer>,
    },
    /// An inode without permissions, of the kind of what is there.
    Inaccessible,
    /// The host directory that machined mounts things below for the container.
    Incoming {
        /// Host path.
        path: PathBuf,
    },
    /// The tmpfs in which the host finds the container's sockets.
    UnixExport {
        /// Host path.
        path: PathBuf,
    },
    /// The console's terminal.
    Console,
    /// A file with a boot id of the container's own.
    BootId,
    /// A FIFO that nobody writes to, in place of the host's kernel log.
    KernelLog,
    /// A bind mount of a host's file over the container's, as far as that can be done.
    HostFile {
        /// Host path.
        path: PathBuf,
        /// Whether it goes over what a link leads to; otherwise a link stays.
        follow: bool,
        /// Not where this path exists inside.
        unless: Option<PathBuf>,
    },
    /// No mount: a copy of a host's file, as far as that can be made.
    Copy {
        /// Host path.
        from: PathBuf,
        /// In place of whatever is there; otherwise a link stays, and a file keeps its owner and mode.
        replace: bool,
    },
    /// No mount: a file with the host's name servers, as far as it can be made.
    NameServers {
        /// Its text, with [`crate::resolver::HEADER`].
        text: String,
        /// In place of whatever is there; otherwise a file that is neither ours nor a resolvconf(8)'s stays, as a link
        /// does.
        replace: bool,
    },
    /// No mount: a symlink in place of whatever is there, as far as that can be made.
    Symlink {
        /// Where it leads.
        to: PathBuf,
        /// Only where this path exists inside.
        needs: PathBuf,
    },
    /// No mount: the file is removed.
    Delete,
    /// No mount: a directory is made where it is missing.
    Directory,
    /// The container's directory of the journal, by [`super::JournalPlan`]: which one that is, and whether it is the
    /// host's, is known once the container's machine id is.
    Journal,
    /// The credentials, in memory that is never swapped.
    Credentials {
        /// Their names.
        names: Vec<String>,
        /// Whether everybody inside may read them.
        readable: bool,
    },
    /// No new mount: the one that is there gets the attributes.
    Remount,
    /// No new mount: the one on top there goes.
    Unmount,
    /// A file system of the host's namespaces, whole, that is unmounted again before the program runs: inside a user
    /// namespace the kernel mounts a proc or sysfs only where one can be seen already (`mount_too_revealing`).
    Visible(&'static str),
    /// No new mount: the container's first process begins here, in a user namespace and with a copy of the mounts so
    /// far, which it can neither unmount nor change. What follows it makes itself.
    UserNamespace,
    /// No new mount: the tree below becomes shared, so that mounts made inside reach the container's own children
    /// (systemd/systemd#3860). The first time it becomes `/` before.
    Share,
}

/// Options as of tmpfs(5): key and value, or a flag.
pub type TmpfsOptions = Vec<(String, Option<String>)>;

/// A directory of an overlay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layer {
    /// A host path.
    Host(PathBuf),
    /// A path inside the container.
    InRoot(PathBuf),
}

/// The writable directory of an overlay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UpperLayer {
    /// The directory.
    pub layer: Layer,
    /// Name of the directory beside it that the kernel works in.
    pub work: OsString,
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
        /// Whether the container can do without it, where we may not make such a node.
        optional: bool,
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

/// The mount table, and what it needs on the host.
pub(super) fn plan(
    config: &ContainerConfig,
    host: &HostFacts,
    cgroup: &CgroupPlan,
    warnings: &mut Vec<String>,
) -> Result<(Vec<MountPlan>, Vec<OnHost>), Error> {
    let mut on_host = Vec::new();
    let mut mounts = Vec::with_capacity(48);
    root::plan(&mut mounts, &mut on_host, config, host)?;
    api::outer(&mut mounts, &mut on_host, config, host);
    mounts.extend(integration::credentials(config)?);
    custom::plan(&mut mounts, &mut on_host, config, host)?;
    mounts.extend(integration::host_files(config, host, warnings)?);
    let inner = api::inner(&mounts, config, host, cgroup);
    if config.users == UserNamespace::Host {
        mounts.extend(inner);
        api::seal(&mut mounts, config);
        root::seal(&mut mounts, config);
        return Ok((mounts, on_host));
    }
    // All that can is made outside, where it comes to be locked.
    let mut inside = api::sys_inside(config);
    let (own, outside): (Vec<_>, Vec<_>) = inner.into_iter().partition(|mount| api::is_inside(mount, config));
    inside.extend(own);
    mounts.extend(outside);
    mounts.extend(api::visible(&inside));
    api::seal(&mut mounts, config);
    root::seal(&mut mounts, config);
    mounts.push(mount("/", Source::UserNamespace, Attributes::NONE));
    mounts.extend(inside);
    mounts.push(mount("/", Source::Share, Attributes::NONE));
    Ok((mounts, on_host))
}

fn mount(target: &str, source: Source, attributes: Attributes) -> MountPlan {
    MountPlan { target: target.into(), source, attributes, ids: None }
}

/// A tmpfs with options in mount(8)'s notation.
fn tmpfs(options: &str, entries: Vec<Entry>) -> Source {
    Source::Tmpfs { options: tmpfs_options(options), entries }
}

fn tmpfs_options(options: &str) -> TmpfsOptions {
    options
        .split(',')
        .filter(|option| !option.is_empty())
        .map(|option| match option.split_once('=') {
            Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
            None => (option.to_owned(), None),
        })
        .collect()
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
