//! The signals of this process, turned into a descriptor. Only the binary does this; the libraries leave signals
//! to the program that embeds them.

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::ops::Error;

/// Blocks the signals and returns a descriptor that they can be read from.
pub(super) fn take(signals: &[Signal]) -> Result<SignalFd, Error> {
    let set: SigSet = signals.iter().copied().collect();
    set.thread_block()
        .and_then(|()| SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK))
        .map_err(|errno| Error::Other(format!("cannot take over the signals of this process: {errno}")))
}
