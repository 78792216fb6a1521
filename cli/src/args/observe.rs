//! Commands that watch containers.

use std::path::PathBuf;

use clap::Args;

use super::Format;
use crate::metrics::Address;

/// Options of `top`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct TopArgs {
    /// The containers; all that run when not given.
    pub names: Vec<String>,
    /// Print the table once.
    #[arg(long)]
    pub once: bool,
    /// How long between two looks.
    #[arg(long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..))]
    pub interval: u64,
    /// Whom the output is for; JSON is an array a look.
    #[command(flatten)]
    pub format: Format,
}

/// Options of `events`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct EventsArgs {
    /// The containers; all when not given.
    pub names: Vec<String>,
}

/// Options of `stats`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct StatsArgs {
    /// The container.
    pub name: String,
    /// Whom the output is for.
    #[command(flatten)]
    pub format: Format,
}

/// Options of `inspect`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct InspectArgs {
    /// The container.
    pub name: String,
    /// Whom the output is for.
    #[command(flatten)]
    pub format: Format,
}

/// Options of `metrics`: to stdout when neither is given.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct MetricsArgs {
    /// Write them into FILE, at once and whole, for the textfile collector.
    #[arg(long, value_name = "FILE", conflicts_with = "listen")]
    pub file: Option<PathBuf>,
    /// Answer HTTP on this address, or on the socket at this path, until ended.
    #[arg(long, value_name = "ADDRESS:PORT|PATH")]
    pub listen: Option<Address>,
}
