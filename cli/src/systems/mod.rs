//! The systems of a container: where they come from, and the generations it has had.
//!
//! ```text
//! Source -> obtain -> Obtained -> install -> a generation of the profile
//! ```
//! [`obtain`] changes nothing of the container, and what it has made cannot be collected as garbage while [`Obtained`]
//! lives.

mod activate;
mod build;
mod data;
mod diff;
mod generations;
mod keeping;
pub mod profile;
mod restore;
mod source;
mod store;
mod transition;
mod update;
pub mod versions;

use std::path::{Path, PathBuf};

use runtime::HostPaths;

pub use build::{Obtained, obtain};
pub use diff::{Change as PackageChanged, Difference, PackageChange, diff};
pub use generations::{ListedGeneration, generations};
pub use restore::Restoring;
pub use source::Source;
pub(crate) use store::{STORE, is_path as is_store_path};
pub use transition::{Activation, Means, Pending};
pub use update::{RollbackRequest, UpdateRequest, Updated, reload, rollback, update};

use crate::ops::{Error, Result};
use crate::snapshot;

/// What hears of the work: each line that Nix says, as it comes.
pub type Progress<'a> = &'a mut dyn FnMut(&str);

/// Whether a path lies in a path of the store, or is one.
pub(crate) fn in_store(path: &Path) -> bool {
    store::path_of(path).is_some()
}

/// Where a container's configuration is, from its root.
const CONFIGURATION: &str = "/etc/nixos/configuration.nix";

/// Where it is on the host.
fn configuration(name: &str, paths: &HostPaths) -> PathBuf {
    crate::ops::root_of(name, paths).join(CONFIGURATION.trim_start_matches('/'))
}

/// Removes all that is kept of the container's systems: generations, roots, snapshots of its data, and what a killed build
/// has left. The systems themselves are for the garbage collector.
///
/// # Errors
/// When something cannot be removed.
pub fn remove_all(name: &str, paths: &HostPaths) -> Result<()> {
    build::forget(name, paths);
    snapshot::remove_all(name, paths)?;
    data::forget(name, paths).map_err(|error| {
        Error::Other(format!("cannot remove what is known of container {name}'s state version: {error}"))
    })?;
    profile::remove_all(name, paths)
}
