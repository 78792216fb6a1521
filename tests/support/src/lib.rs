//! A pretend host: network and mount namespaces, a directory for `--host-root` and a control group, in which nixrun
//! can do all that it does to a machine while the machine stays as it is. An outside world is connected to it, and
//! [`Snapshot`]s tell whether anything was left.
#![forbid(unsafe_code)]

mod error;
mod host;
mod netns;
mod outside;
mod snapshot;

pub use error::{Error, Result};
pub use host::Host;
pub use netns::Netns;
pub use outside::{HOST4, HOST6, OUTSIDE4, OUTSIDE6, Outside};
pub use snapshot::Snapshot;

/// Whether a test may go on: it may where `possible` is `Ok`, is skipped otherwise, with the reason on standard
/// error, and must not be skipped where `NIXRUN_MUST_WORK` is 1.
///
/// # Panics
/// Instead of a skip where `NIXRUN_MUST_WORK` is 1.
#[allow(clippy::print_stderr, reason = "why a test was skipped belongs in its log")]
#[must_use]
pub fn may_run(possible: std::result::Result<(), String>) -> bool {
    let Err(why) = possible else { return true };
    assert!(std::env::var_os("NIXRUN_MUST_WORK").is_none_or(|must| must != "1"), "cannot run: {why}");
    eprintln!("skipped: {why}");
    false
}
