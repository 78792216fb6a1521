//! Signals of the process that embeds us: a signalfd, and nothing installed.

/// `SIGRTMIN` as systemd and the kernel's users mean it: the first one libc leaves to programs.
#[must_use]
pub fn rtmin() -> i32 {
    libc::SIGRTMIN()
}
