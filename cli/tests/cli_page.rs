//! docs/cli.md is made from the definition of the command line. `NIXRUN_BLESS=1` writes it.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use clap::{Arg, Command};
use nixrun::args::{self, GROUPS};
use nixrun::{exit, outputs};

const HEAD: &str = "\
# The command line
`nixrun COMMAND …`, with the commands in the order of `nixrun --help`. This page is made from their definition; `nixrun
COMMAND --help` says the same, and `nixrun man DIRECTORY` writes it as manual pages. Shells complete commands, options and the
names of containers: `nixrun completions bash`, `zsh` or `fish` prints what to source.

Called by the name `systemd-nspawn` or `nixos-container`, nixrun takes that program's command line ([nspawn.md](nspawn.md)).
";

/// Commands whose exit codes say more than done (0), failed (1) and a wrong command line (2).
const CODES: &[(&str, &str)] = &[
    ("exec", "those of the command; 125, 126 and 127 when it was not started, 128+N after signal N"),
    (
        "run",
        "in a running container as of `exec`; of one of its own what PID 1 exited with, 1 after a signal, 133 for a \
             reboot in a systemd unit",
    ),
    ("login", "as of `exec`"),
    ("root-login", "as of `exec`"),
    (
        "boot",
        "what PID 1 exited with, 0 when it was shut down, 1 after a signal, 133 for a reboot in a systemd unit",
    ),
    ("nspawn", "systemd-nspawn's ([nspawn.md](nspawn.md))"),
    ("doctor", "1 when a check failed, too"),
];

fn page() -> String {
    let nixrun = args::definition();
    let mut text = HEAD.to_owned();
    text += "\n| | |\n|---|---|\n";
    for (heading, names) in GROUPS {
        let links: Vec<String> = names.iter().map(|name| format!("[{name}](#{name})")).collect();
        writeln!(text, "| {heading} | {} |", links.join(", ")).unwrap();
    }
    for (heading, names) in GROUPS {
        write!(text, "\n## {heading}\n").unwrap();
        for name in *names {
            command(&mut text, nixrun.find_subcommand(name).unwrap_or_else(|| panic!("{name}")));
        }
    }
    text += "\n## Options of every command\n";
    options(&mut text, nixrun.get_arguments().filter(|arg| arg.is_global_set()));
    text += "\n## Exit codes\n| code | |\n|---|---|\n";
    for (code, meaning) in exit::rows() {
        writeln!(text, "| {code} | {} |", cell(&meaning)).unwrap();
    }
    write!(text, "\n{}\n", exit::note()).unwrap();
    text
}

fn command(text: &mut String, command: &Command) {
    let name = command.get_name();
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let usage = command.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage:").trim();
    write!(text, "\n### {name}\n{about}.\n```\n{usage}\n```\n").unwrap();
    let own = |arg: &&Arg| !arg.is_global_set() && !arg.is_hide_set() && arg.get_id() != "help";
    options(text, command.get_arguments().filter(own));
    if let Some((_, codes)) = CODES.iter().find(|(of, _)| *of == name) {
        writeln!(text, "\nExit codes: {codes}.").unwrap();
    }
    if outputs::schema_of(name).is_some() {
        writeln!(text, "\nWith `--json`: [schema/{name}.json](schema/{name}.json).").unwrap();
    }
}

/// A table of options, or nothing; those with a heading of their own say so.
fn options<'a>(text: &mut String, args: impl Iterator<Item = &'a Arg>) {
    let args: Vec<&Arg> = args.collect();
    if args.is_empty() {
        return;
    }
    text.push_str("| | |\n|---|---|\n");
    for arg in args {
        let mut help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        let defaults: Vec<_> = arg.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
        if arg.get_action().takes_values() && !defaults.is_empty() {
            write!(help, " (default: {})", defaults.join(" ")).unwrap();
        }
        let values: Vec<String> =
            arg.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect();
        if arg.get_action().takes_values() && !values.is_empty() {
            write!(help, " ({})", values.join(", ")).unwrap();
        }
        writeln!(text, "| {} | {} |", written(arg), cell(&help).replace('<', "\\<")).unwrap();
    }
}

/// How an argument is written.
fn written(arg: &Arg) -> String {
    let value = arg.get_value_names().map(|names| names.join(" "));
    let value = value.unwrap_or_else(|| arg.get_id().as_str().to_uppercase());
    if arg.is_positional() {
        let many = if arg.get_num_args().is_some_and(|number| number.max_values() > 1) { "…" } else { "" };
        return format!("`{}{many}`", cell(&value));
    }
    let names =
        [arg.get_short().map(|short| format!("-{short}")), arg.get_long().map(|long| format!("--{long}"))];
    let names: Vec<String> = names.into_iter().flatten().collect();
    let value = if arg.get_action().takes_values() { format!(" {value}") } else { String::new() };
    format!("`{}{}`", names.join("`, `"), cell(&value))
}

/// Text in a cell of a table; in what is code, nothing but the bar has a meaning.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

#[test]
fn the_page_is_that_of_the_definition() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/cli.md");
    let page = page();
    if std::env::var_os("NIXRUN_BLESS").is_some() {
        fs::write(&file, page).unwrap();
        return;
    }
    let kept = fs::read_to_string(&file).unwrap_or_default();
    assert!(kept == page, "docs/cli.md is not what the definition says; NIXRUN_BLESS=1 writes it");
}

#[test]
fn every_command_and_option_is_described() {
    let nixrun = args::definition();
    for command in nixrun.get_subcommands() {
        assert!(command.get_about().is_some(), "{}", command.get_name());
        for arg in command.get_arguments() {
            let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
            assert!(!help.is_empty(), "{} {}", command.get_name(), arg.get_id());
        }
    }
}
