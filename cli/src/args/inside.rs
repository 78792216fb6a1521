//! Commands that look into a container.

use clap::Args;

use super::Format;

/// Options of `login` and `root-login`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct LoginArgs {
    /// The container.
    pub name: String,
}

/// Options of `show-ip`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct ShowIpArgs {
    /// The container.
    pub name: String,
    /// Whom the output is for.
    #[command(flatten)]
    pub format: Format,
}

/// Options of `show-host-key`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct ShowHostKeyArgs {
    /// The container.
    pub name: String,
    /// Whom the output is for.
    #[command(flatten)]
    pub format: Format,
}

/// Options of `logs`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct LogsArgs {
    /// The container.
    pub name: String,
    /// Go on with what is logged from now on.
    #[arg(short, long)]
    pub follow: bool,
    /// Only the last N lines; 10 with --follow when not given.
    #[arg(short = 'n', long, value_name = "N")]
    pub lines: Option<usize>,
    /// Only what this unit of the container has logged.
    #[arg(short, long, value_name = "UNIT")]
    pub unit: Option<String>,
    /// The console, although there is a journal.
    #[arg(long, conflicts_with = "unit")]
    pub console: bool,
    /// Whom the output is for; JSON is an object a line.
    #[command(flatten)]
    pub format: Format,
}
