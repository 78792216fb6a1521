//! Where the parts of a container are on the host.

use std::fs;
use std::path::PathBuf;

use runtime::HostPaths;

use super::create::make_directory;
use crate::ops::{self, Error, Result};

const GC_ROOTS: &str = "/nix/var/nix/gcroots/per-container";

/// The places of a new container.
#[derive(Debug, Clone)]
pub(super) struct Places {
    pub(super) conf: PathBuf,
    pub(super) json: PathBuf,
    pub(super) root: PathBuf,
    gc_roots: PathBuf,
}

impl Places {
    pub(super) fn of(name: &str, paths: &HostPaths) -> Places {
        Places {
            conf: paths.join("/etc/nixos-containers").join(format!("{name}.conf")),
            json: paths.join("/etc/nixrun").join(format!("{name}.json")),
            root: ops::root_of(name, paths),
            gc_roots: paths.join(GC_ROOTS).join(name),
        }
    }

    pub(super) fn make_root(&self) -> Result<()> {
        let failed =
            |error| Error::Other(format!("cannot make the root directory {}: {error}", self.root.display()));
        // Whoever has the user id of one of a container's users must not get at its files.
        self.root.parent().map_or(Ok(()), |parent| make_directory(parent, 0o700)).map_err(failed)?;
        make_directory(&self.root, 0o755).map_err(failed)
    }

    pub(super) fn make_gc_roots(&self) -> Result<()> {
        make_directory(&self.gc_roots, 0o755)
            .map_err(|error| Error::Other(format!("cannot make {}: {error}", self.gc_roots.display())))
    }

    /// Directories of ours that are empty: /etc/nixrun has no other use.
    pub(super) fn tidy(&self) {
        let _ = self.json.parent().map(fs::remove_dir);
    }
}
