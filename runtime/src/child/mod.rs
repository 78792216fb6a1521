//! The code that runs between clone and exec, and the protocol by which it talks to its parent.
//!
//! ```text
//!      parent                                child
//!        |------------ clone3 ----------------->|
//!        |  (network, state, device filter)     |  DieWithParent, mounts, pivot, hostname, console, limits,
//!        |                                      |  signals, seccomp, capabilities, DieWithParent
//!        |------------- GO (1 byte) ----------->|  Await
//!        |<------------ EXEC record ------------|
//!        |<------------ end of file ------------|  execve succeeded: the channel is close-on-exec
//!
//!   with a stub: after GO the child forks and closes its end; the fork, PID 2, sends and executes
//!
//!   with a command of `exec`, the child clones the command and waits for it: CLONED record, end of its copy of the
//!   channel; the command does the rest
//!
//!   at any point:  <--- SKIPPED record: an op that the container can start without has failed
//!                  <--- FAILED record, end of file: which op, which call, which error
//!                  <--- end of file without EXEC: the child was killed
//!                  ---> end of file instead of GO: the parent died; the child exits
//! ```
//!
//! Nothing here allocates, takes a lock, runs a destructor or panics: only one thread of the parent was copied,
//! and any lock that another held at that moment stays locked forever.

mod attend;
pub(crate) mod files;
mod mounts;
pub(crate) mod report;
pub(crate) mod run;
pub(crate) mod script;
mod stub;
