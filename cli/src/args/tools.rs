//! Commands about nixrun and its host.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::Format;

/// Options of `reclaim`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct ReclaimArgs {
    /// The container; every one that no living nixrun holds when not given.
    pub name: Option<String>,
    /// Whom the output is for.
    #[command(flatten)]
    pub format: Format,
}

/// Options of `schema`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct SchemaArgs {
    /// The schema of what this command prints with --json instead.
    #[arg(long, value_name = "COMMAND", conflicts_with = "check")]
    pub of: Option<String>,
    /// Check FILE instead: say what is wrong with it by itself, or nothing.
    #[arg(long, value_name = "FILE")]
    pub check: Option<PathBuf>,
}

/// Options of `doctor`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct DoctorArgs {
    /// Whom the output is for.
    #[command(flatten)]
    pub format: Format,
}

/// A shell that completes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Shell {
    /// bash.
    Bash,
    /// zsh.
    Zsh,
    /// fish.
    Fish,
}

/// Options of `completions`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct CompletionsArgs {
    /// The shell.
    pub shell: Shell,
}

/// Options of `man`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct ManArgs {
    /// The directory that they go into, such as /usr/local/share/man/man8.
    pub directory: PathBuf,
}
