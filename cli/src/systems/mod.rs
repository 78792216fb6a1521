//! The systems of a container: where they come from, and the generations it has had.
//!
//! ```text
//! Source -> obtain -> Obtained -> install -> a generation of the profile
//! ```
//! [`obtain`] changes nothing of the container, and what it has made cannot be collected as garbage while [`Obtained`]
//! lives.

mod build;
pub mod profile;
mod source;
mod store;

use std::path::{Path, PathBuf};

use runtime::HostPaths;

pub use build::Obtained;
pub use source::Source;
pub(crate) use store::STORE;

use crate::ops::Result;

/// What hears of the work: each line that Nix says, as it comes.
pub type Progress<'a> = &'a mut dyn FnMut(&str);

/// Makes or finds the system of container `name`. `nixos_path` is where nixpkgs' `nixos` is, `<nixpkgs/nixos>` when
/// `None`.
///
/// Building starts Nix, which works for the store below the host's root.
///
/// # Errors
/// When there is no such system, Nix is missing or its build fails: a sentence with the last line that it said.
pub fn obtain(
    name: &str,
    source: &Source,
    nixos_path: Option<&Path>,
    paths: &HostPaths,
    progress: Progress<'_>,
) -> Result<Obtained> {
    build::obtain(name, source, nixos_path, paths, progress)
}

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

/// Removes all that is kept of the container's systems: generations, roots, and what a killed build has left. The systems
/// themselves are for the garbage collector.
///
/// # Errors
/// When something cannot be removed.
pub fn remove_all(name: &str, paths: &HostPaths) -> Result<()> {
    build::forget(name, paths);
    profile::remove_all(name, paths)
}
