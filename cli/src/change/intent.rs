//! What is being changed, as it is written down before the first step.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Change;
use crate::life::{self, Creation, Destruction};
use crate::ops::{Error, Result};
use crate::systems::{Pending, Restoring};
use crate::{archive, files};

/// A change of several steps. Each kind says how it is completed or undone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Intent {
    /// Files that go: what was being made is undone by this, and what was being removed completed.
    Remove {
        /// Host paths.
        files: Vec<PathBuf>,
    },
    /// Another system: undone.
    Update(Pending),
    /// A container that is made.
    Create(Creation),
    /// A container that goes.
    Destroy(Destruction),
    /// A frozen control group that is to go on.
    Thaw {
        /// Host path.
        cgroup: PathBuf,
    },
    /// A container that is being made of an archive: undone.
    Import(archive::Leftover),
    /// Earlier data in the place of the present ones: completed.
    Restore(Restoring),
}

impl Intent {
    /// Completes or undoes it. May be called again after it was itself interrupted.
    ///
    /// # Errors
    /// When a step fails; the intent stays then.
    pub(super) fn recover(&self, name: &str, change: &Change<'_>) -> Result<()> {
        match self {
            Intent::Create(creation) => life::create::recover(name, creation, change.paths()),
            Intent::Destroy(destruction) => life::destroy::recover(name, destruction, change.paths()),
            Intent::Remove { files } => files.iter().try_for_each(|file| {
                files::remove(file).map_err(|error| {
                    Error::Other(format!(
                        "cannot remove {}, which an interrupted change of container {name} left: {error}",
                        file.display()
                    ))
                })
            }),
            Intent::Update(pending) => pending.recover(name, change.paths()),
            Intent::Thaw { cgroup } => archive::thaw(cgroup).map_err(|error| {
                Error::Other(format!(
                    "cannot let container {name} go on, which an interrupted export has frozen by {}: {error}",
                    cgroup.display()
                ))
            }),
            Intent::Import(leftover) => leftover.undo(change),
            Intent::Restore(restoring) => restoring.recover(name, change.paths()),
        }
    }
}
