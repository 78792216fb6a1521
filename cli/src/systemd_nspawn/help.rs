//! `--help` and docs/nspawn.md, from the table of options.

use super::options::{Argument, Entry, Group, Judgement, Trust};
use super::table::OPTIONS;

/// Column in which descriptions begin.
const INDENT: usize = 28;
/// Width of a terminal that nobody asked for.
const WIDTH: usize = 80;

/// What `--help` prints.
#[must_use]
pub fn help(program: &str) -> String {
    let mut text = format!(
        "{program} [OPTIONS...] [PATH] [ARGUMENTS...]\n\nSpawn a command or OS in a light-weight container.\n\n"
    );
    let mut group = Group::General;
    for entry in OPTIONS.iter().filter(|entry| entry.group != Group::Hidden) {
        if entry.group != group
            && let Group::Titled(title) = entry.group
        {
            text += &format!("\n{title}:\n");
        }
        group = entry.group;
        text += &lines(&synopsis(entry), entry.help);
    }
    text += "\nSee systemd-nspawn(1) and docs/nspawn.md for details.\n";
    text
}

/// The option as `--help` writes it, with room for the letter.
fn synopsis(entry: &Entry) -> String {
    let letter = entry.short.map_or_else(|| "  ".to_owned(), |letter| format!("-{letter}"));
    format!("  {letter} {}", long(entry)).trim_end().to_owned()
}

/// The long name with its value.
fn long(entry: &Entry) -> String {
    if entry.long.is_empty() {
        return String::new();
    }
    match entry.argument {
        Argument::No => format!("--{}", entry.long),
        Argument::Required(value) => format!("--{}={value}", entry.long),
        Argument::Optional("") => format!("--{}", entry.long),
        Argument::Optional(value) => format!("--{}[={value}]", entry.long),
    }
}

/// A description beside its option, or below it where there is no room.
fn lines(synopsis: &str, description: &str) -> String {
    let mut text = String::new();
    let mut line = synopsis.to_owned();
    if line.len() >= INDENT {
        text += &format!("{line}\n");
        line.clear();
    }
    line += &" ".repeat(INDENT - line.len());
    let mut empty = true;
    for word in description.split_whitespace() {
        if !empty && line.len() + 1 + word.len() > WIDTH {
            text += &format!("{line}\n");
            line = " ".repeat(INDENT);
            empty = true;
        }
        if !empty {
            line.push(' ');
        }
        line += word;
        empty = false;
    }
    text + &line + "\n"
}

/// The options as docs/nspawn.md shows them.
#[must_use]
pub fn options_table() -> String {
    let mut text = String::new();
    let mut title = "";
    for entry in OPTIONS {
        let of = match entry.group {
            Group::General => "General",
            Group::Titled(title) => title,
            // Where it stands in the table is where it belongs.
            Group::Hidden => title,
        };
        if of != title {
            text += &format!("\n### {of}\n| option | `.nspawn` | nixrun |\n|---|---|---|\n");
            title = of;
        }
        text += &format!("| {} | {} | {} |\n", names(entry), keys(entry), judgement(entry.judgement));
    }
    text
}

fn names(entry: &Entry) -> String {
    let letter = entry.short.map(|letter| format!("`-{letter}`"));
    let long = (!entry.long.is_empty()).then(|| format!("`{}`", long(entry).replace('|', "\\|")));
    match (letter, long) {
        (None, None) => "command and arguments".to_owned(),
        (letter, long) => letter.into_iter().chain(long).collect::<Vec<_>>().join(" "),
    }
}

fn keys(entry: &Entry) -> String {
    let mut section = "";
    let mut keys = Vec::new();
    for key in entry.keys {
        let star = match key.trust {
            Trust::Anyone => "",
            Trust::Administrator => "\\*",
            Trust::Restricting => " (from others only with `~`)",
        };
        let heading = if key.section == section { String::new() } else { format!("[{}] ", key.section) };
        keys.push(format!("{heading}`{}=`{star}", key.name));
        section = key.section;
    }
    keys.join(", ")
}

fn judgement(judgement: Judgement) -> String {
    match judgement {
        Judgement::Same => "same".to_owned(),
        Judgement::Better(how) => format!("better: {how}"),
        Judgement::Except(what) => format!("same, except: {what}"),
        Judgement::Refused(why) => format!("refused: {why}"),
    }
}
