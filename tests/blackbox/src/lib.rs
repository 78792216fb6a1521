//! Black-box tests of the built `nixrun`: what a user, a container and a host see. Where systemd-nspawn can be asked
//! for the same thing, it is, and the answers are compared.
//!
//! Every test has a host of its own ([`on_host`]): network and mount namespaces, a directory for `--host-root`, and a
//! control group below which everything that the test starts lives.
#![forbid(unsafe_code)]
#![allow(clippy::print_stderr, reason = "why a test was skipped belongs in its log")]

mod binary;
pub mod compare;
mod container;
mod elf;
mod host;
mod inject;
mod json;
mod listing;
mod probe_root;
pub mod prometheus;
mod pty;
mod scripted;
mod snapshot;

pub use binary::{example_binary, nixrun_binary};
pub use container::{Container, Finished, finish};
pub use elf::{Arch, call};
pub use host::{Host, on_host};
pub use inject::{Point, calls};
pub use listing::listing;
pub use probe_root::{COMPARABLE, both, in_place, nspawn, probe_root, usr_root};
pub use pty::Pty;
pub use scripted::{PATIENT, script};
pub use snapshot::Snapshot;

use std::time::{Duration, Instant};

/// How long anything that must happen soon may take on a busy machine.
pub const SOON: Duration = Duration::from_secs(20);

/// Waits until `done` gives something, up to [`SOON`].
///
/// # Panics
/// When it does not in that time; `what` says what was waited for.
#[track_caller]
pub fn wait_for<T>(what: &str, mut done: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + SOON;
    loop {
        if let Some(value) = done() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited {SOON:?} for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
