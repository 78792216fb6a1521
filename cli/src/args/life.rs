//! Commands about a container's whole life.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use clap::Args;
use ipnet::{Ipv4Net, Ipv6Net};
use netsetup::Forward;

use super::Format;
use crate::nspawn;

/// Where a system comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
#[command(next_help_heading = "The system")]
pub struct SourceArgs {
    /// NixOS configuration, the text of a module's attributes: 'services.nginx.enable = true;'.
    #[arg(long, value_name = "TEXT", conflicts_with_all = ["config_file", "flake", "system_path"])]
    pub config: Option<String>,
    /// File with the NixOS configuration.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["flake", "system_path"])]
    pub config_file: Option<PathBuf>,
    /// Flake with nixosConfigurations.container, or with the one behind #.
    #[arg(long, value_name = "URI", conflicts_with = "system_path")]
    pub flake: Option<String>,
    /// Where nixpkgs is; <nixpkgs/nixos> when not given.
    #[arg(long, value_name = "PATH")]
    pub nixos_path: Option<PathBuf>,
    /// A NixOS system that is built already: /nix/store/HASH-nixos-system-….
    #[arg(long, value_name = "PATH")]
    pub system_path: Option<PathBuf>,
}

/// Options of `create`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct CreateArgs {
    /// The container's name: a hostname, of at most 64 characters.
    pub name: String,
    /// Where its system comes from.
    #[command(flatten)]
    pub source: SourceArgs,
    /// Bridge of the host that its link joins.
    #[arg(long, value_name = "BRIDGE", value_parser = nspawn::link, help_heading = "Settings")]
    pub bridge: Option<String>,
    /// Forward a port of the host into the container.
    #[arg(long, value_name = "[PROTOCOL:]HOST[:INSIDE]", value_parser = nspawn::port, value_delimiter = ',',
          help_heading = "Settings")]
    pub port: Vec<Forward>,
    /// IPv4 address of the host's end; the next free one of the pool when neither this nor --local-address is given.
    #[arg(long, value_name = "ADDRESS", help_heading = "Settings")]
    pub host_address: Option<Ipv4Addr>,
    /// IPv4 address of the container's end.
    #[arg(long, value_name = "ADDRESS[/PREFIX]", value_parser = nspawn::net4, help_heading = "Settings")]
    pub local_address: Option<Ipv4Net>,
    /// IPv6 address of the host's end.
    #[arg(long, value_name = "ADDRESS", help_heading = "Settings")]
    pub host_address6: Option<Ipv6Addr>,
    /// IPv6 address of the container's end.
    #[arg(long, value_name = "ADDRESS[/PREFIX]", value_parser = nspawn::net6, help_heading = "Settings")]
    pub local_address6: Option<Ipv6Net>,
    /// Any other setting, by its path in /etc/nixrun/NAME.json: resources.memory.max=2G.
    #[arg(long, value_name = "KEY=VALUE", help_heading = "Settings")]
    pub set: Vec<String>,
    /// Start it with the host.
    #[arg(long, help_heading = "Settings")]
    pub auto_start: bool,
    /// If the name is taken, add a number to it; the name that it got is printed.
    #[arg(long)]
    pub ensure_unique_name: bool,
    /// Whom the output is for.
    #[command(flatten)]
    pub format: Format,
}

/// Options of `update`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct UpdateArgs {
    /// The container.
    pub name: String,
    /// Where its new system comes from: what it was created from when not given.
    #[command(flatten)]
    pub source: SourceArgs,
    /// Keep the root directory as it is now, for `rollback --with-data`.
    #[arg(long)]
    pub snapshot: bool,
    /// Restart the container instead of activating the new system in it.
    #[arg(long)]
    pub restart: bool,
    /// Whom the output is for.
    #[command(flatten)]
    pub format: Format,
}

/// Options of `destroy`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct DestroyArgs {
    /// The container.
    pub name: String,
    /// Do not ask; without a terminal nothing is asked anyway.
    #[arg(short = 'y', long)]
    pub yes: bool,
}

/// Options of `restart`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct RestartArgs {
    /// The container.
    pub name: String,
    /// How long it may take to shut down, and then to become ready.
    #[arg(long, value_name = "SECONDS", default_value_t = 90)]
    pub timeout: u64,
}

macro_rules! only_a_name {
    ($($(#[doc = $doc:literal])* $name:ident),+ $(,)?) => {
        $(
            $(#[doc = $doc])*
            #[derive(Debug, Clone, PartialEq, Eq, Args)]
            pub struct $name {
                /// The container.
                pub name: String,
            }
        )+
    };
}

only_a_name! {
    /// Options of `terminate`.
    TerminateArgs,
    /// Options of `reload`.
    ReloadArgs,
    /// Options of `pause`.
    PauseArgs,
    /// Options of `resume`.
    ResumeArgs,
}

/// Options of `autostart`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct AutostartArgs {
    /// How many may be starting at the same time; startJobs of /etc/nixrun.json when not given.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub jobs: Option<u32>,
    /// Whom the output is for.
    #[command(flatten)]
    pub format: Format,
}

/// Options of `set`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct SetArgs {
    /// The container.
    pub name: String,
    /// Settings by their path in /etc/nixrun/NAME.json, or by the kernel's name: memory.max=2G; no value removes one.
    #[arg(required = true, value_name = "KEY=VALUE")]
    pub settings: Vec<String>,
    /// Until the container ends, and not for good.
    #[arg(long)]
    pub live: bool,
}

/// Options of `generations`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct GenerationsArgs {
    /// The container.
    pub name: String,
    /// Whom the output is for.
    #[command(flatten)]
    pub format: Format,
}

/// Options of `rollback`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct RollbackArgs {
    /// The container.
    pub name: String,
    /// Number of the generation, as `generations` shows it; the one before the present one when not given.
    pub generation: Option<u64>,
    /// Go back to the data, too, that `update --snapshot` kept; the present data is kept aside.
    #[arg(long)]
    pub with_data: bool,
    /// Restart the container instead of activating the system in it.
    #[arg(long)]
    pub restart: bool,
    /// Whom the output is for.
    #[command(flatten)]
    pub format: Format,
}

/// Options of `diff`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct DiffArgs {
    /// The container.
    pub name: String,
    /// The generation to compare from; the one before TO when not given.
    pub from: Option<u64>,
    /// The generation to compare to; the present one when not given.
    pub to: Option<u64>,
    /// Whom the output is for.
    #[command(flatten)]
    pub format: Format,
}
