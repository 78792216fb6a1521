//! Whole operations over `runtime` and `netsetup` together.

mod control;
mod display;
mod embedded;
mod error;
mod exec;
mod inside;
mod launch;
mod names;
mod reclaim;
mod registration;
mod request;
mod scope;
mod show;

use std::path::PathBuf;

use netsetup::NetPaths;
use runtime::HostPaths;

pub(crate) use control::{end_keeper, kill_processes, running, stop_in_progress};
pub use control::{kill, stop};
pub use error::{Error, Result};
pub use exec::{ExecRequest, exec};
pub use inside::{Session, session};
pub use launch::{Finished, Planned, Request, Running, UnitRequest};
pub(crate) use reclaim::claim_reclaimed;
pub use reclaim::{Reclaimed, reclaim};
pub use request::{BootOptions, boot_request, configured_request, run_request};
pub use scope::{ScopePlan, UnitPlan, enter_scope};
pub(crate) use show::not_running;
pub use show::{Listed, Phase, already_running, list, phase_of, status};

/// Where netsetup finds its files on this host.
#[must_use]
pub fn net_paths(paths: &HostPaths) -> NetPaths {
    NetPaths {
        state_dir: paths.join("/run/nixrun"),
        machine_id: paths.join("/etc/machine-id"),
        udev: paths.join("/run/udev"),
        zone_lock: paths.join("/run/systemd/nspawn-network-zone"),
        ..NetPaths::default()
    }
}

/// Host path of a NixOS container's root directory.
#[must_use]
pub fn root_of(name: &str, paths: &HostPaths) -> PathBuf {
    paths.join("/var/lib/nixos-containers").join(name)
}
