//! Which addresses are free to be given to a container.

use std::net::IpAddr;

use crate::error::Result;
use crate::facts::NetPaths;
use crate::shared::Claim;
use crate::socket::{Route, Socket};

/// Asks the host about addresses, through the network namespace of the thread that makes it.
#[derive(Debug)]
pub struct Addresses<'a> {
    route: Socket<Route>,
    paths: &'a NetPaths,
}

impl<'a> Addresses<'a> {
    /// Opens a socket to ask by.
    ///
    /// # Errors
    /// When there is no netlink.
    pub fn of_host(paths: &'a NetPaths) -> Result<Addresses<'a>> {
        Ok(Addresses { route: Socket::open()?, paths })
    }

    /// Whether somebody has the address: the host itself, a running container, or whoever a route leads to that is at
    /// least `prefix` bits long. Wider routes, as the default route, are ways out, which a container's own address
    /// may lie behind. Costs the same at any number of routes.
    ///
    /// # Errors
    /// When netlink does not answer.
    pub fn is_taken(&mut self, address: IpAddr, prefix: u8) -> Result<bool> {
        if Claim::Address(address).holder(self.paths).is_some() {
            return Ok(true);
        }
        Ok(self.route.prefix_to(address)?.is_some_and(|length| length >= prefix))
    }
}
