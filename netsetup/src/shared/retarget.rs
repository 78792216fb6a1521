//! Forwards whose container has other addresses than before.

use nix::errno::Errno;

use super::{Registration, Shared};
use crate::config::Forward;
use crate::error::Result;
use crate::facts::NetPaths;
use crate::nft::{self, Element};
use crate::plan::{self, Families};
use crate::relay::Targets;
use crate::socket::{Netfilter, Socket};
use crate::sysctl::Sysctls;

/// Leads a container's forwards to its addresses of now. One that has left meanwhile has none.
pub(crate) fn retarget(
    paths: &NetPaths,
    container: &str,
    forwards: &[Forward],
    targets: Targets,
) -> Result<()> {
    let Some(shared) = Shared::lock_existing(paths)? else { return Ok(()) };
    let Some(registration) = shared.registration(container)? else { return Ok(()) };
    let elements: Vec<Element> =
        forwards.iter().flat_map(|forward| plan::forward_elements(forward, targets)).collect();
    let families = Families { ipv4: targets.ipv4.is_some(), ipv6: targets.ipv6.is_some() };
    shared.retarget(registration, elements, families)
}

impl Shared<'_> {
    /// Leads a container's forwards to other elements than before. At every moment the file names all that is in the
    /// table.
    fn retarget(&self, mut registration: Registration, new: Vec<Element>, families: Families) -> Result<()> {
        let (old, rest): (Vec<_>, Vec<_>) = registration
            .elements
            .iter()
            .cloned()
            .partition(|element| matches!(element, Element::Forward { .. }));
        let path = self.user(&registration.container);
        let gone = old.iter().filter(|element| !new.iter().any(|other| other.same_key(element)));
        registration.elements = rest.iter().chain(&new).chain(gone).cloned().collect();
        registration.forwarding = registration.forwarding.with(families);
        self.write_json(&path, &registration)?;
        registration.elements = [rest, new.clone()].concat();
        let sysctls = Sysctls(&self.paths.proc_sys);
        let changes = self.settings(&registration)?;
        let mut state = self.state()?.unwrap_or_default();
        if !changes.is_empty() {
            state.sysctls.extend(changes.iter().cloned());
            self.write_json(&self.directory.join("state.json"), &state)?;
        }
        let mut socket = Socket::<Netfilter>::open()?;
        let replaced = match nft::replace_elements(&mut socket, &old, (&registration.container, &new)) {
            // Flushed by somebody: made anew, with everybody's elements.
            Err(error) if matches!(error.errno(), Some(Errno::ENOENT)) => {
                self.write_json(&path, &registration).and_then(|()| self.replace_table(&mut socket, &state))
            }
            replaced => replaced,
        };
        socket.close_later();
        replaced?;
        self.write_json(&path, &registration)?;
        sysctls.apply(&changes)
    }
}
