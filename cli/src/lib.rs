//! nixrun as a library: whole operations over `runtime` and `netsetup` together, which the binary's commands and
//! embedding managers both call.
#![forbid(unsafe_code)]

pub mod args;
pub mod commands;
pub mod configured;
pub mod dbus;
pub mod doctor;
pub mod env_file;
pub mod exit;
pub mod forward;
pub mod lookup;
pub mod nearest;
pub mod nixos_boot;
pub mod nixos_conf;
pub mod nspawn;
pub mod nspawn_run;
pub mod ops;
pub mod output;
pub mod signals;
