//! Containers of a program that embeds nixrun: started, watched and stopped from any of its threads.
//!
//! Each container is launched and supervised by a thread of nixrun's own, which ends with it: the kernel kills a
//! container when the thread that cloned it ends (PR_SET_PDEATHSIG), so that must be none of the program's. Nothing of
//! the program is changed: no signal handler, signal mask, environment or standard stream, and neither its umask nor its
//! working directory, which that thread has for itself. Any number of containers may be started at the same time.
//!
//! When the program ends, however it does, its containers end, too; `nixrun reclaim`, or the next start of the same
//! name, removes what a killed program left of them.
//!
//! # On a host with systemd
//! Give the program a unit with `Delegate=yes`. Its processes move into the group `supervisor` of that unit then, once,
//! since the kernel lets no group have both processes and controllers for the groups below it; each container gets a
//! group of its own beside it. Without delegation the containers' groups are below the program's own.

mod command;
mod container;
mod supervision;

use std::os::fd::OwnedFd;
use std::time::Duration;

use netsetup::NetworkConfig;
use runtime::{CgroupParent, Console, ContainerConfig, HostPaths};

pub use command::{Command, Output};
pub use container::{Container, End};
pub use runtime::exec::Streams;
pub use runtime::supervisor::Event;

use crate::ops::{self, BootOptions, Planned, Request, Result, UnitRequest};

/// How long a container may take to shut down, unless [`Launch::grace`] says so; systemd's own default for a service.
const GRACE: Duration = Duration::from_secs(90);

/// A container to be started.
#[derive(Debug)]
pub struct Launch {
    request: Request,
    paths: HostPaths,
    grace: Duration,
    console: Option<OwnedFd>,
}

impl Launch {
    /// The container of this name that /etc/nixos-containers/NAME.conf and /etc/nixrun/NAME.json configure.
    ///
    /// # Errors
    /// When there is none, or its configuration is wrong.
    pub fn configured(name: &str, paths: &HostPaths) -> Result<Launch> {
        let request = ops::boot_request(name, &BootOptions::default(), Console::ReadOnly, paths)?;
        Ok(Launch::requested(request, paths))
    }

    /// Any container. `network` is for one with a network namespace of its own ([`runtime::Network::Private`]), which has
    /// a loopback link that is down without it. With [`Console::Pipe`] its PID 1 has the program's own standard streams.
    #[must_use]
    pub fn new(container: ContainerConfig, network: Option<NetworkConfig>, paths: &HostPaths) -> Launch {
        let (notes, unit) = (Vec::new(), UnitRequest::default());
        Launch::requested(
            Request { container, network, notes, wait_for_links: true, unit, names: false },
            paths,
        )
    }

    fn requested(mut request: Request, paths: &HostPaths) -> Launch {
        // A scope is for one container, and would take the whole program.
        request.unit.keep_unit = true;
        request.container.cgroup = CgroupParent::Beside;
        Launch { request, paths: paths.clone(), grace: GRACE, console: None }
    }

    /// How long it may take to shut down before it is killed; 90 s unless changed.
    #[must_use]
    pub fn grace(mut self, grace: Duration) -> Launch {
        self.grace = grace;
        self
    }

    /// Where the console's output goes; nowhere unless given.
    #[must_use]
    pub fn console(mut self, output: impl Into<OwnedFd>) -> Launch {
        self.console = Some(output.into());
        self
    }

    /// Whether systemd-machined hears of the container, where there is one; it does unless the configuration or this says
    /// that it does not.
    #[must_use]
    pub fn register(mut self, register: bool) -> Launch {
        self.request.unit.register = register;
        self
    }

    /// Everything that the start will do, as data that can be printed; changes nothing.
    ///
    /// # Errors
    /// When it makes no sense on this host.
    pub fn plan(&self) -> Result<Planned> {
        Planned::new(&self.request, &self.paths)
    }

    /// Starts the container: returns once its program has been executed, with its network complete.
    ///
    /// # Errors
    /// When any step fails; what was made before is removed again.
    pub fn start(self) -> Result<Container> {
        supervision::start(self)
    }
}
