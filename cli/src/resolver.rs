//! Keeps the name servers of a running container after the host's, unless it manages its own.

use std::io;
use std::path::PathBuf;

use runtime::HostPaths;
use runtime::resolver::{self, FILES, GENERATED, HEADER, NameServers};

use crate::inside::{Content, Inside};

/// The file inside, in /etc.
const FILE: &str = "resolv.conf";

/// What a resolvconf(8) inside is given the host's name servers by, on its standard input: as NixOS does when it boots.
pub const RESOLVCONF: [&str; 5] = ["resolvconf", "-m", "1000", "-a", "host"];

/// Where openresolv keeps what it was given so.
const GIVEN: [&str; 2] = ["/run/resolvconf/interfaces/host", "/run/resolvconf/keys/host"];

/// A container whose name servers follow the host's.
#[derive(Debug, Clone)]
pub struct Follower {
    own_network: bool,
    /// What the container was last seen to have of us.
    given: Option<String>,
}

impl Follower {
    /// Follows for a container with a network of its own, or with the host's.
    #[must_use]
    pub fn new(own_network: bool) -> Follower {
        Follower { own_network, given: None }
    }

    /// The files of the host to watch.
    #[must_use]
    pub fn files(&self) -> Vec<PathBuf> {
        let all = if self.own_network { FILES.len() } else { 1 };
        FILES.iter().take(all).map(PathBuf::from).collect()
    }

    /// Looks at both sides and writes the container's file if it is ours, or nobody's, and not as it should be. One that a
    /// resolvconf(8) inside has made of ours and of other servers is its to make: it is `given` the new ones. A host that
    /// has no name servers at the moment changes nothing.
    ///
    /// # Errors
    /// What the kernel says of the container's file, and those of `give`.
    pub fn look(
        &mut self,
        inside: &Inside,
        paths: &HostPaths,
        give: impl FnOnce(&str) -> io::Result<()>,
    ) -> io::Result<()> {
        let NameServers::Text(text) = resolver::name_servers(paths, self.own_network) else { return Ok(()) };
        let old = match inside.read(FILE)? {
            Content::Missing => Vec::new(),
            Content::File(old) => old,
            // Somebody inside manages it.
            Content::Other => return Ok(()),
        };
        if old.is_empty() || old.starts_with(HEADER.as_bytes()) {
            if old != text.as_bytes() {
                inside.replace(FILE, text.as_bytes())?;
            }
        } else if old.starts_with(GENERATED.as_bytes()) && GIVEN.iter().any(|path| inside.exists(path)) {
            if self.given.as_deref() != Some(&*text) {
                give(&text)?;
            }
        } else {
            return Ok(());
        }
        self.given = Some(text);
        Ok(())
    }
}
