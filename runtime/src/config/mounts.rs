//! Mounts over the root.

use std::path::PathBuf;

use serde::Serialize;

/// A mount over the root. Targets are absolute paths without `..`, resolved within the root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Mount {
    /// A bind mount of a file or directory.
    Bind {
        /// What is mounted.
        source: BindSource,
        /// Path inside the container; made when missing.
        target: PathBuf,
        /// Read-only, including the mounts below it.
        read_only: bool,
        /// Whether the mounts below the source come along.
        recursive: bool,
        /// How owners of files appear inside; only with a user namespace.
        ids: BindIds,
    },
    /// A fresh tmpfs.
    Tmpfs {
        /// Path inside the container; made when missing.
        target: PathBuf,
        /// Options in mount(8)'s notation, such as `size=10%,mode=0755`.
        options: String,
    },
    /// Directories laid over each other.
    Overlay {
        /// The layers that are only read, the lowest first; at least one.
        lower: Vec<BindSource>,
        /// The layer that takes what is written; without one the mount is read-only.
        upper: Option<BindSource>,
        /// Path inside the container; made when missing.
        target: PathBuf,
    },
    /// A file or directory that is there and cannot be looked into: an inode of its kind without permissions lies over
    /// it.
    Inaccessible {
        /// Path inside the container, which must exist.
        target: PathBuf,
    },
}

impl Mount {
    /// Path inside the container.
    #[must_use]
    pub fn target(&self) -> &std::path::Path {
        match self {
            Mount::Bind { target, .. }
            | Mount::Tmpfs { target, .. }
            | Mount::Overlay { target, .. }
            | Mount::Inaccessible { target } => target,
        }
    }
}

/// Where what a mount shows comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum BindSource {
    /// A host path.
    Host(PathBuf),
    /// A path inside the container's root (`+PATH` of systemd-nspawn).
    InRoot(PathBuf),
    /// A fresh directory below the host's /var/tmp that goes away with the container (an empty source of
    /// systemd-nspawn).
    Temporary,
}

impl From<PathBuf> for BindSource {
    fn from(path: PathBuf) -> BindSource {
        BindSource::Host(path)
    }
}

/// How owners of a bind mount's files appear inside a user namespace.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum BindIds {
    /// As `Map` when the file system can; as `Host`, with a warning, when it cannot.
    #[default]
    Auto,
    /// As on the host (`noidmap`): ids that the container does not have appear as nobody.
    Host,
    /// Host ids 0, 1, … are the container's 0, 1, … (`idmap`).
    Map,
    /// The owner of the source on the host is the container's root, and nobody else is mapped (`rootidmap`).
    Root,
    /// The owner of the source on the host is the owner of the mount point inside (`owneridmap`).
    Owner,
}
