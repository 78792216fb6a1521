//! What `generations` shows.

use std::path::PathBuf;

use runtime::HostPaths;
use schemars::JsonSchema;
use serde::Serialize;

use super::activate::Live;
use super::{profile, versions};
use crate::events::rfc3339;
use crate::ops::Result;
use crate::settings::Settings;
use crate::{nixos_boot, snapshot};

/// A generation of a container's system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ListedGeneration {
    /// Its number.
    pub generation: u64,
    /// When it was added, as in RFC 3339, in UTC.
    pub added: String,
    /// Whether it is what starts next.
    pub current: bool,
    /// Whether the container runs its system now.
    pub running: bool,
    /// NixOS's version; `null` when the system is gone.
    pub version: Option<String>,
    /// Name and version of its store path.
    pub name: String,
    /// Its store path.
    pub system: PathBuf,
    /// When the data that it had were kept, as in RFC 3339, in UTC; `null` when they were not.
    pub snapshot: Option<String>,
}

/// The generations of a container, by number.
///
/// # Errors
/// When there is no such container, or its profile cannot be read.
pub fn generations(name: &str, paths: &HostPaths) -> Result<Vec<ListedGeneration>> {
    let settings = Settings::read(name, paths)?;
    let root = nixos_boot::root_directory(name, &settings, paths)?;
    let kept = snapshot::list(name, &root);
    let running = Live::of(name, paths).and_then(|live| live.system);
    let listed = profile::list(name, paths)?.into_iter().map(|generation| {
        let described = versions::describe(&generation.system, paths);
        ListedGeneration {
            generation: generation.number,
            added: rfc3339(generation.added),
            current: generation.current,
            running: running.as_ref() == Some(&generation.system),
            version: described.version,
            name: described.name,
            system: generation.system,
            snapshot: kept
                .iter()
                .find(|snapshot| snapshot.generation == generation.number)
                .map(|snapshot| rfc3339(snapshot.taken)),
        }
    });
    Ok(listed.collect())
}
