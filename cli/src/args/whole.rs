//! The definition of the whole command line, for help, errors and everything that is made from it: completion, manual
//! pages, docs/cli.md.

use std::ffi::OsString;
use std::fmt::Write as _;

use clap::{CommandFactory, FromArgMatches};

use super::Invocation;

/// Every command, under what it is for, in the order in which one meets them. clap has headings for options alone.
pub const GROUPS: &[(&str, &[&str])] = &[
    ("Containers", &["create", "destroy", "list", "status", "show-ip", "show-host-key", "set"]),
    ("Running", &["start", "stop", "restart", "terminate", "kill", "pause", "resume", "autostart"]),
    ("Inside", &["run", "exec", "login", "root-login", "cp"]),
    ("Watching", &["logs", "top", "stats", "events", "inspect", "metrics"]),
    ("Systems", &["update", "reload", "generations", "rollback", "diff"]),
    ("Moving", &["export", "import"]),
    ("Underneath", &["boot", "nspawn", "plan", "reclaim"]),
    ("This program", &["doctor", "schema", "completions", "man", "help"]),
];

/// The whole definition, complete: each command has the options of every command.
#[must_use]
pub fn definition() -> clap::Command {
    let mut nixrun = Invocation::command();
    nixrun.build();
    let template = help_template(&nixrun);
    nixrun.help_template(template)
}

/// Reads a command line by the whole definition.
pub(super) fn parse(args: &[OsString]) -> Result<Invocation, clap::Error> {
    let mut definition = definition();
    let matches = definition.try_get_matches_from_mut(args)?;
    Invocation::from_arg_matches(&matches).map_err(|error| error.format(&mut definition))
}

/// clap's template of `--help`, with the commands of `nixrun` under their headings.
fn help_template(nixrun: &clap::Command) -> String {
    let mut text = "{about-with-newline}\n{usage-heading} {usage}\n".to_owned();
    let widest = GROUPS.iter().flat_map(|(_, names)| *names).map(|name| name.len()).max().unwrap_or_default();
    for (heading, names) in GROUPS {
        let _ = write!(text, "\n{heading}:\n");
        for name in *names {
            let about = nixrun.find_subcommand(name).and_then(clap::Command::get_about);
            let about = about.map(ToString::to_string).unwrap_or_default();
            let _ = writeln!(text, "  {name:<widest$}  {about}");
        }
    }
    text + "\nOptions of every command:\n{options}{after-help}"
}
