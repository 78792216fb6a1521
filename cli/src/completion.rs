//! Completion of command lines in shells. The scripts of `nixrun completions` have nixrun itself complete, each time, by
//! the definition of the command line and with the containers that there are: [`VARIABLE`] in the environment says so.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::Path;

use clap_complete::engine::{
    self, ArgValueCompleter, CompletionCandidate, PathCompleter, ValueCompleter as _,
};
use clap_complete::env::{Bash, EnvCompleter, Fish, Zsh};
use runtime::HostPaths;

use crate::args::{Shell, definition as whole};
use crate::configured;

/// The variable in which a script says which shell asks.
pub const VARIABLE: &str = "NIXRUN_COMPLETE";

/// Positional arguments that name containers.
const CONTAINERS: [&str; 2] = ["name", "names"];
/// Commands whose names are those of no container yet.
const NEW: [&str; 2] = ["create", "import"];
/// Positional arguments that are a file of this host, or NAME:PATH.
const SIDES: [&str; 2] = ["source", "target"];

fn shell(shell: Shell) -> &'static dyn EnvCompleter {
    match shell {
        Shell::Bash => &Bash,
        Shell::Zsh => &Zsh,
        Shell::Fish => &Fish,
    }
}

/// The script that a shell reads at its start.
///
/// # Errors
/// None but those of memory.
pub fn script(of: Shell) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    shell(of).write_registration(VARIABLE, "nixrun", "nixrun", "nixrun", &mut text)?;
    Ok(text)
}

/// The answer to a script: `asked` is what [`VARIABLE`] says, `words` are `nixrun -- ` and the line, up to and behind the
/// word that is to be completed. Which one that is, and how answers are parted, the script says in the environment.
///
/// # Errors
/// When no script of ours asks.
pub fn answer(asked: &OsStr, words: &[OsString]) -> io::Result<Vec<u8>> {
    let of = [Shell::Bash, Shell::Zsh, Shell::Fish].into_iter().find(|of| asked == shell(*of).name());
    let line = words.get(2..).filter(|line| !line.is_empty());
    let (Some(of), Some(line)) = (of, line) else {
        return Err(io::Error::other(format!("{VARIABLE} is for the scripts of `nixrun completions`")));
    };
    let mut text = Vec::new();
    let current = std::env::current_dir().ok();
    if of == Shell::Bash {
        return bash(line, current.as_deref());
    }
    shell(of).write_complete(&mut definition(line), line.to_vec(), current.as_deref(), &mut text)?;
    Ok(text)
}

/// What bash is answered. It parts words at = and : (COMP_WORDBREAKS), and replaces the last part alone.
fn bash(line: &[OsString], current: Option<&Path>) -> io::Result<Vec<u8>> {
    let environment = |name| std::env::var(name).ok();
    let index = environment("_CLAP_COMPLETE_INDEX").and_then(|index| index.parse().ok()).unwrap_or_default();
    let (line, index, kept) = joined(line, index);
    let found = engine::complete(&mut definition(&line), line, index, current)?;
    let answers: Vec<String> = found
        .iter()
        .map(|candidate| candidate.get_value().to_string_lossy())
        .filter_map(|value| value.strip_prefix(kept.as_str()).map(str::to_owned))
        .collect();
    Ok(answers.join(environment("_CLAP_IFS").as_deref().unwrap_or("\n")).into_bytes())
}

/// The words as they were written, which of them is the one of this index, and what of that bash will keep. A value
/// behind = becomes a word of its own, which is as good to an option.
fn joined(parts: &[OsString], index: usize) -> (Vec<OsString>, usize, String) {
    let mut words: Vec<OsString> = Vec::new();
    let (mut at, mut kept, mut joins) = (0, String::new(), false);
    for (place, part) in parts.iter().enumerate() {
        let is_option = words.last().is_some_and(|word| word.to_string_lossy().starts_with("--"));
        if part == "=" && is_option && place != index {
            continue;
        }
        let colon = part == ":" && place > 0;
        match words.last_mut().filter(|_| colon || joins) {
            Some(word) => {
                if place == index {
                    kept = word.to_string_lossy().into_owned();
                }
                word.push(part);
            }
            None => words.push(part.clone()),
        }
        joins = colon;
        if place == index {
            at = words.len() - 1;
        }
    }
    (words, at, kept)
}

/// The command line, whose arguments know what there is on the host that the line is about.
fn definition(line: &[OsString]) -> clap::Command {
    let paths = HostPaths::below(host_root(line));
    whole().mut_subcommands(move |command| {
        let is_new = NEW.contains(&command.get_name());
        let paths = paths.clone();
        command.mut_args(move |arg| {
            let (id, paths) = (arg.get_id().as_str().to_owned(), paths.clone());
            if CONTAINERS.contains(&id.as_str()) && arg.is_positional() && !is_new {
                arg.add(ArgValueCompleter::new(move |word: &OsStr| containers(word, "", &paths)))
            } else if SIDES.contains(&id.as_str()) {
                arg.add(ArgValueCompleter::new(move |word: &OsStr| side(word, &paths)))
            } else {
                arg
            }
        })
    })
}

/// What `--host-root` says in a line that may be unfinished.
fn host_root(line: &[OsString]) -> &Path {
    const OPTION: &str = "--host-root";
    let mut words = line.iter().map(OsString::as_os_str);
    while let Some(word) = words.next() {
        let value = match word.to_str() {
            Some(OPTION) => words.next(),
            Some(word) => word.strip_prefix(OPTION).and_then(|rest| rest.strip_prefix('=')).map(OsStr::new),
            None => None,
        };
        if let Some(value) = value {
            return Path::new(value);
        }
    }
    Path::new("/")
}

/// The containers whose names begin with `word`, each with `end` behind it.
fn containers(word: &OsStr, end: &str, paths: &HostPaths) -> Vec<CompletionCandidate> {
    // What cannot be read is not offered: nobody would see a reason.
    let configured = configured::list(paths).unwrap_or_default().into_iter().map(|one| one.name);
    let running = runtime::instance::list(paths).into_iter().map(|one| one.name);
    let names: BTreeSet<String> = configured.chain(running).collect();
    let word = word.to_string_lossy();
    let fitting = names.into_iter().filter(|name| name.starts_with(&*word));
    fitting.map(|name| CompletionCandidate::new(name + end)).collect()
}

/// What `cp` copies from or to: a container, or a file here.
fn side(word: &OsStr, paths: &HostPaths) -> Vec<CompletionCandidate> {
    let mut all = containers(word, ":", paths);
    all.extend(PathCompleter::any().complete(word));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joins(parts: &[&str], index: usize) -> (String, usize, String) {
        let parts: Vec<OsString> = parts.iter().map(OsString::from).collect();
        let (words, at, kept) = joined(&parts, index);
        let words: Vec<_> = words.iter().map(|word| word.to_string_lossy().into_owned()).collect();
        (words.join(" "), at, kept)
    }

    #[test]
    fn completion_joins_what_bash_has_parted() {
        for (parts, index, line, at, kept) in [
            ("nixrun start ne", 2, "nixrun start ne", 2, ""),
            ("nixrun --host-root = /x start n", 5, "nixrun --host-root /x start n", 4, ""),
            ("nixrun --host-root = /t", 3, "nixrun --host-root /t", 2, ""),
            ("nixrun run -p tcp : 80 : 80 a", 8, "nixrun run -p tcp:80:80 a", 4, ""),
            ("nixrun cp web : /e", 4, "nixrun cp web:/e", 2, "web:"),
        ] {
            let parts: Vec<&str> = parts.split(' ').collect();
            assert_eq!(joins(&parts, index), (line.to_owned(), at, kept.to_owned()), "{parts:?}");
        }
    }

    #[test]
    fn completion_finds_the_host_in_the_line() {
        let host = |line: &str| {
            let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            host_root(&words).to_owned()
        };
        assert_eq!(host("nixrun start"), Path::new("/"));
        assert_eq!(host("nixrun start --host-root /x web"), Path::new("/x"));
        assert_eq!(host("nixrun --host-root=/x start web"), Path::new("/x"));
    }
}
