//! nixrun as a library: whole operations over `runtime` and `netsetup` together, which the binary's commands and
//! embedding managers both call.
//!
//! # Containers in a program
//! [`embed`] has what a program needs that keeps containers: each runs on a thread of nixrun's own, whichever thread
//! asked for it, and nothing of the program is changed.
//! ```no_run
//! use std::time::Duration;
//!
//! use nixrun::embed::Launch;
//! use runtime::{HostPaths, Outcome};
//!
//! let container = Launch::configured("nextcloud", &HostPaths::default())?.start()?;
//! container.wait_ready(Duration::from_secs(60))?;
//! let state = container.command(["systemctl", "is-system-running"]).output()?;
//! println!("{}: {}", container.name(), String::from_utf8_lossy(&state.stdout));
//! assert_eq!(container.stop()?.outcome, Outcome::PoweredOff);
//! # Ok::<(), nixrun::ops::Error>(())
//! ```
//! examples/supervisor.rs keeps several, and starts again what fails.
//!
//! # On the calling thread
//! [`ops`] has the operations that the commands are made of; here `nixrun boot nextcloud`, whose supervisor is the thread
//! that calls it.
//! ```no_run
//! use std::time::Duration;
//!
//! use nixrun::ops::{self, BootOptions, Planned};
//! use runtime::supervisor::{Attached, Event};
//! use runtime::{Console, HostPaths, Outcome};
//!
//! // Its configuration, checked and planned; then locked, journalled and started.
//! let paths = HostPaths::default();
//! let request = ops::boot_request("nextcloud", &BootOptions::default(), Console::ReadOnly, &paths)?;
//! let running = Planned::new(&request, &paths)?.start(&paths)?;
//!
//! // The container ends when this thread does.
//! let stopper = running.supervisor().stopper();
//! let attached = Attached { signals: None, output: None, input: None, grace: Duration::from_secs(90) };
//! let finished = running.supervise(&attached, None, &paths, |event| {
//!     if event == Event::Ready {
//!         stopper.stop();
//!     }
//! })?;
//! assert_eq!(finished.outcome, Outcome::PoweredOff);
//! # Ok::<(), ops::Error>(())
//! ```
//! From a shell on a systemd host, [`ops::enter_scope`] comes first: systemd lets nobody manage control groups outside
//! a unit that was delegated to them. What it gets is handed to `supervise`.
#![forbid(unsafe_code)]

pub mod admission;
pub mod archive;
pub mod args;
pub mod autostart;
pub mod change;
pub mod commands;
pub mod completion;
pub mod configured;
pub mod dbus;
pub mod doctor;
pub mod embed;
pub mod env_file;
pub mod events;
pub mod exit;
pub mod files;
pub mod forward;
pub mod group_limit;
pub(crate) mod held;
pub mod host_settings;
pub mod hosts_file;
pub mod inside;
pub mod inspect;
pub mod journal;
pub mod json;
pub mod life;
pub mod listen_fds;
pub mod live;
pub mod local_stream;
pub mod logs;
pub mod lookup;
pub mod machined;
pub mod man;
pub mod metrics;
pub use runtime::nearest;
pub mod nixos_boot;
pub mod nixos_conf;
pub mod nixos_container;
pub mod nspawn;
pub mod nspawn_run;
pub mod ops;
pub mod output;
pub mod outputs;
pub mod quantity;
pub mod resolver;
pub mod rlimit;
pub mod service;
pub mod settings;
pub mod signals;
pub mod snapshot;
pub mod stats;
pub mod systemd_nspawn;
pub mod systems;
pub mod top;
pub mod transfer;
pub mod unit_property;
pub mod watch;
