//! What becomes `/`.

use std::path::PathBuf;

use serde::Serialize;

/// How [`crate::ContainerConfig::rootfs`] becomes the container's `/`. The default is the directory itself, writable.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct RootOptions {
    /// `rootfs` is a disk image (a raw file system, or a partition table with one root partition) or a block device.
    pub image: bool,
    /// Host path of a directory that a missing `rootfs` is first copied from.
    pub template: Option<PathBuf>,
    /// The whole root is read-only, the mounts below it included.
    pub read_only: bool,
    /// What of the root is forgotten at the end.
    pub volatile: Volatile,
    /// Nothing that the container writes into its root stays: an upper layer in memory takes it.
    pub ephemeral: bool,
    /// `NEW[:OLD]`: this path inside the root becomes `/` instead, and the former `/` is found at `OLD`, or nowhere.
    pub pivot: Option<PivotRoot>,
}

/// systemd-nspawn's `--volatile=`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Volatile {
    /// Nothing.
    #[default]
    No,
    /// All but `/usr`, which is read-only: the root is an empty tmpfs.
    Yes,
    /// `/var` is a tmpfs, everything else read-only.
    State,
    /// All: a tmpfs lies over the root as an overlay.
    Overlay,
}

/// Another directory of the root as `/`, as OSTree wants it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PivotRoot {
    /// Path inside the root that becomes `/`.
    pub new: PathBuf,
    /// Path, in the new `/`, where the former one is found.
    pub old: Option<PathBuf>,
}
