//! Commands that move a container's data.

use std::path::PathBuf;

use clap::Args;

use super::Format;
use crate::transfer::Place;

/// Options of `cp`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct CpArgs {
    /// What is copied; directories whole, of NAME:PATH/. the content. NAME:PATH is in a container, anything else on
    /// the host.
    #[arg(value_name = "[NAME:]SOURCE")]
    pub source: Place,
    /// Where it goes: a name for the copy, or a directory for it to lie in.
    #[arg(value_name = "[NAME:]TARGET")]
    pub target: Place,
}

/// Options of `export`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct ExportArgs {
    /// The container.
    pub name: String,
    /// The file, a tar archive compressed with zstd; - is stdout.
    pub file: PathBuf,
    /// Although it runs: files that change meanwhile may be torn.
    #[arg(long)]
    pub running: bool,
    /// Replace FILE if it exists.
    #[arg(long)]
    pub force: bool,
}

/// Options of `import`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct ImportArgs {
    /// The exported file; - is stdin.
    pub file: PathBuf,
    /// Name of the new container; the exported one's when not given.
    pub name: Option<String>,
    /// Give it addresses of the pool instead of those that were exported.
    #[arg(long)]
    pub new_addresses: bool,
    /// Whom the output is for.
    #[command(flatten)]
    pub format: Format,
}
