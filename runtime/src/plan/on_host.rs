//! What a container needs on the host beside its root.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Something on the host that is made for one container and removed at its end. The journal names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnHost {
    /// A directory that only root can enter, with an empty directory `src` in it.
    Temporary {
        /// Host path.
        path: PathBuf,
    },
    /// The directory that the kernel works in for an overlay.
    Work {
        /// Host path.
        path: PathBuf,
    },
    /// The directory below which machined mounts what is to appear inside.
    Propagate {
        /// Host path.
        path: PathBuf,
    },
    /// A tmpfs that the container puts sockets into and the host only reads.
    UnixExport {
        /// Host path.
        path: PathBuf,
    },
}

impl OnHost {
    /// Its place on the host.
    #[must_use]
    pub fn path(&self) -> &std::path::Path {
        match self {
            OnHost::Temporary { path }
            | OnHost::Work { path }
            | OnHost::Propagate { path }
            | OnHost::UnixExport { path } => path,
        }
    }
}
