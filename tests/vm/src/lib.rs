//! Virtual machines for tests: a host with systemd as PID 1 and unified cgroups, a fresh one for each test.
//!
//! A machine is booted once and saved ([`Runner::open`]); every test then continues from the saved state in a
//! machine of its own, about a second after it is asked for, without KVM. The tests are plain `#[test]`s in
//! `tests/vm/tests`, whose binaries run inside the machine as root: through [`suite::run_all`] (`cargo xtask vm
//! test`), or one by one through the binary `vm-runner` as cargo's target runner. What they use there is in
//! [`guest`], which refuses to work anywhere else.
//!
//! ```text
//!  image     root.ext4 vmlinuz initrd     built once
//!  snapshot  root.raw state               booted once per host boot
//!  run       vda root.raw (copy on write)  vdb payload: test binary, nixrun  vdc closure: /nix of a container
//! ```

#![forbid(unsafe_code)]

pub mod cache;
pub mod closure;
mod disk;
pub mod error;
pub mod guest;
pub mod image;
mod machine;
mod qmp;
mod runner;
pub mod shell;
pub mod suite;

pub use cache::Cache;
pub use error::Error;
pub use runner::{Ended, Payload, Runner, timeout_from_environment};
