//! From what the user named to what is asked of runtime and netsetup.

use std::path::Path;

use netsetup::Nat;
use runtime::{Console, HostPaths};

use super::error::{Error, Result};
use super::launch::{Request, UnitRequest};
use crate::args::RunArgs;
use crate::settings::Settings;
use crate::{change, nixos_boot, nspawn_run};

/// What the command line says about a configured container, over what its files say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BootOptions {
    /// Who translates its addresses.
    pub nat: Option<Nat>,
    /// What its console is connected to.
    pub console: Option<Console>,
}

/// The configured container of this name; `console` is what its console is connected to when nothing says it.
///
/// # Errors
/// When there is none, or its configuration is wrong.
pub fn boot_request(
    name: &str,
    options: &BootOptions,
    console: Console,
    paths: &HostPaths,
) -> Result<Request> {
    // What a killed command has left of it is completed or undone before it is looked at.
    change::settle(name, paths)?;
    configured_request(name, options, console, paths)
}

/// The same as the files say it now: for those who look and change nothing.
///
/// # Errors
/// As [`boot_request`].
pub fn configured_request(
    name: &str,
    options: &BootOptions,
    console: Console,
    paths: &HostPaths,
) -> Result<Request> {
    let settings = Settings::read(name, paths)?;
    let boot = nixos_boot::to_configs(name, &settings, paths)?;
    let (mut container, mut network) = (boot.container, boot.network);
    container.console = options.console.or(boot.console).unwrap_or(console);
    if let (Some(network), Some(nat)) = (&mut network, &options.nat) {
        network.nat = nat.clone();
    }
    let mut unit = UnitRequest::default();
    unit.register = boot.register.unwrap_or(unit.register);
    Ok(Request { container, network, notes: boot.notes, wait_for_links: true, unit, names: true })
}

/// A command, or the init, of any root directory; `console` is what its console is connected to by default.
///
/// # Errors
/// When the options contradict each other.
pub fn run_request(args: &RunArgs, console: Console) -> Result<Request> {
    let (container, network) = nspawn_run::to_configs(args, console)?;
    if container.rootfs == Path::new("/") {
        return Err(Error::Other(
            "cannot run a container in /, the root of the host; name another directory with -D".to_owned(),
        ));
    }
    let unit = UnitRequest::default();
    Ok(Request { container, network, notes: Vec::new(), wait_for_links: false, unit, names: false })
}
