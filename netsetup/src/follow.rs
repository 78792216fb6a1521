//! Which addresses a container has at the moment: systemd-nspawn's forwards lead to the first one with global scope, and
//! follow it.

use std::os::fd::{AsFd, BorrowedFd};

use crate::error::Result;
use crate::netns;
use crate::relay::Targets;
use crate::route::addr;
use crate::socket::{Route, Socket};

/// Two sockets in a container's network namespace: one hears that addresses change, the other asks what they are. They
/// keep the namespace alive.
#[derive(Debug)]
pub(crate) struct Addresses {
    changes: Socket<Route>,
    questions: Socket<Route>,
}

impl Addresses {
    /// Changes are heard from now on.
    pub(crate) fn open(netns: BorrowedFd<'_>) -> Result<Addresses> {
        let mut changes = netns::open_inside::<Route>(netns)?;
        changes.subscribe(&addr::GROUPS)?;
        Ok(Addresses { changes, questions: netns::open_inside(netns)? })
    }

    /// The first address with global scope of each family.
    pub(crate) fn now(&mut self) -> Result<Targets> {
        Ok(Targets::of(self.questions.global_addresses()?.into_iter()))
    }

    /// Forgets the changes that were heard; whether there were any.
    pub(crate) fn changed(&mut self) -> bool {
        self.changes.drain()
    }
}

/// Readable when something has changed.
impl AsFd for Addresses {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.changes.as_fd()
    }
}
