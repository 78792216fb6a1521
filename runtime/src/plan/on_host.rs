//! What a container needs on the host beside its root.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Something on the host that is made for one container and removed at its end. The journal names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnHost {
    /// The root, copied from its template where it is missing. It has another name until it is complete.
    Root {
        /// Host path of the template.
        from: PathBuf,
        /// Host path of the unfinished copy.
        path: PathBuf,
        /// Host path of the root.
        to: PathBuf,
    },
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
            OnHost::Root { path, .. }
            | OnHost::Temporary { path }
            | OnHost::Work { path }
            | OnHost::Propagate { path }
            | OnHost::UnixExport { path } => path,
        }
    }
}
