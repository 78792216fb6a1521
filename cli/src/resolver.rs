//! Keeps the name servers of a running container after the host's, unless it manages its own.

use std::io;
use std::path::PathBuf;

use runtime::HostPaths;
use runtime::resolver::{self, FILES, HEADER, NameServers};

use crate::inside::{Content, Inside};

/// The file inside, in /etc.
const FILE: &str = "resolv.conf";

/// A container whose name servers follow the host's.
#[derive(Debug, Clone)]
pub struct Follower {
    own_network: bool,
}

impl Follower {
    /// Follows for a container with a network of its own, or with the host's.
    #[must_use]
    pub fn new(own_network: bool) -> Follower {
        Follower { own_network }
    }

    /// The files of the host to watch.
    #[must_use]
    pub fn files(&self) -> Vec<PathBuf> {
        let all = if self.own_network { FILES.len() } else { 1 };
        FILES.iter().take(all).map(PathBuf::from).collect()
    }

    /// Looks at both sides and writes the container's file if it is ours, or nobody's, and not as it should be. A host that
    /// has no name servers at the moment changes nothing.
    ///
    /// # Errors
    /// What the kernel says of the container's file.
    pub fn look(&self, inside: &Inside, paths: &HostPaths) -> io::Result<()> {
        let NameServers::Text(text) = resolver::name_servers(paths, self.own_network) else { return Ok(()) };
        let outdated = match inside.read(FILE)? {
            Content::Missing => true,
            Content::File(old) => {
                (old.is_empty() || old.starts_with(HEADER.as_bytes())) && old != text.as_bytes()
            }
            // Somebody inside manages it.
            Content::Other => false,
        };
        if outdated { inside.replace(FILE, text.as_bytes()) } else { Ok(()) }
    }
}
