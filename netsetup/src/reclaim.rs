//! What a crashed container left, removed: by the same functions that remove a running one's.

use crate::check::is_ours;
use crate::error::{Errors, Result};
use crate::facts::NetPaths;
use crate::plan::Resource;
use crate::shared::Shared;
use crate::socket::{Route, Socket};
use crate::zone;

/// What [`reclaim`] found and removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reclaimed {
    /// The resources that were there.
    pub removed: Vec<Resource>,
}

/// Removes what a container that no longer runs left outside its namespaces. `resources` are those of the
/// caller's journal, or [`crate::resources_for`] its name; what is not there, or is somebody else's by now, is
/// left alone. The caller holds the container's own lock.
///
/// # Errors
/// All that went wrong; every resource is tried, and the next call tries again.
pub fn reclaim(
    paths: &NetPaths,
    container: &str,
    resources: &[Resource],
) -> std::result::Result<Reclaimed, Errors> {
    let mut errors = Errors::default();
    let mut reclaimed = Reclaimed::default();
    for resource in resources {
        let removed = match resource {
            Resource::Link { name } => {
                let deleted =
                    Socket::open().and_then(|mut socket| delete_link_of(&mut socket, container, name));
                errors.note(deleted)
            }
            Resource::Zone { bridge } => errors.note(zone::remove_if_empty(paths, bridge)),
            Resource::Registration { container } => leave(paths, container, &mut errors),
        };
        if removed == Some(true) {
            reclaimed.removed.push(resource.clone());
        }
    }
    errors.into_result().map(|()| reclaimed)
}

fn leave(paths: &NetPaths, container: &str, errors: &mut Errors) -> Option<bool> {
    let Some(shared) = errors.note(Shared::lock_existing(paths))? else { return Some(false) };
    let done = match errors.note(shared.registration(container))? {
        Some(registration) => shared.leave(&registration).map(|()| true),
        None => shared.sweep(),
    };
    match done {
        Ok(removed) => Some(removed),
        Err(more) => {
            errors.extend(more);
            None
        }
    }
}

/// Deletes a link if it is there and this container's; `false` when it is not.
pub(crate) fn delete_link_of(socket: &mut Socket<Route>, container: &str, name: &str) -> Result<bool> {
    match socket.link_by_name(name)? {
        Some(link) if is_ours(&link, container) => socket.delete_link(link.index, name),
        _ => Ok(false),
    }
}
