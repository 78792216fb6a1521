//! From what the user named to what is asked of runtime and netsetup.

use std::path::Path;

use netsetup::Nat;
use runtime::{Console, HostPaths};

use super::error::{Error, Result};
use super::launch::{Request, UnitRequest};
use crate::args::RunArgs;
use crate::{configured, nixos_boot, nixos_conf, nspawn_run};

/// The configured NixOS container of this name.
///
/// # Errors
/// When there is none, or its configuration is wrong.
pub fn boot_request(name: &str, nat: Nat, console: Console, paths: &HostPaths) -> Result<Request> {
    let file = configured::find(name, paths)?;
    let text = std::fs::read_to_string(&file)
        .map_err(|error| Error::Other(format!("cannot read {}: {error}", file.display())))?;
    let conf = nixos_conf::parse(&text, &file)?;
    let boot = nixos_boot::to_configs(name, &conf, paths, nat)?;
    let mut container = boot.container;
    container.console = console;
    Ok(Request {
        container,
        network: boot.network,
        notes: boot.notes,
        wait_for_links: true,
        unit: UnitRequest::default(),
    })
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
    Ok(Request { container, network, notes: Vec::new(), wait_for_links: false, unit: UnitRequest::default() })
}
