//! Options as Perl's Getopt::Long reads them in nixpkgs' program (`gnu_getopt`, `no_bundling`): anywhere before `--`, by
//! any unambiguous beginning, in any case of letters, with one dash or two.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// An option: its name, and how many values it takes.
type Option = (&'static str, usize);

/// The options of the program; the last group goes to Nix.
const OPTIONS: &[Option] = &[
    ("help", 0),
    ("ensure-unique-name", 0),
    ("auto-start", 0),
    ("bridge", 1),
    ("port", 1),
    ("system-path", 1),
    ("signal", 1),
    ("nixos-path", 1),
    ("config", 1),
    ("config-file", 1),
    ("host-address", 1),
    ("local-address", 1),
    ("flake", 1),
    ("log-format", 1),
    ("option", 2),
    ("impure", 0),
    ("update-input", 1),
    ("override-input", 2),
    ("commit-lock-file", 0),
    ("no-registries", 0),
    ("no-update-lock-file", 0),
    ("no-write-lock-file", 0),
    ("no-allow-dirty", 0),
    ("recreate-lock-file", 0),
];

/// A command line taken apart.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Words {
    /// Options with their values, in their order.
    pub(super) options: Vec<(&'static str, Vec<OsString>)>,
    /// Everything else.
    pub(super) rest: Vec<OsString>,
}

impl Words {
    /// The last value of an option.
    pub(super) fn value(&self, name: &str) -> std::option::Option<&OsString> {
        self.options.iter().rev().find(|(known, _)| *known == name)?.1.first()
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.options.iter().any(|(known, _)| *known == name)
    }
}

/// Reads the words behind the program's name.
///
/// # Errors
/// Getopt::Long's own sentence.
pub(super) fn read(words: &[OsString]) -> Result<Words, String> {
    let mut read = Words::default();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if word == "--" {
            read.rest.extend(words.cloned());
            break;
        }
        let Some((name, attached)) = split(word) else {
            read.rest.push(word.clone());
            continue;
        };
        let (name, count) = find(&name)?;
        let mut values: Vec<OsString> = attached.into_iter().collect();
        if values.len() > count {
            return Err(format!("Option {name} does not take an argument"));
        }
        while values.len() < count {
            values.push(words.next().ok_or_else(|| format!("Option {name} requires an argument"))?.clone());
        }
        read.options.push((name, values));
    }
    Ok(read)
}

/// The name in an option's word, and the value behind an equals sign.
fn split(word: &OsStr) -> std::option::Option<(String, std::option::Option<OsString>)> {
    let bytes = word.as_bytes();
    let name =
        bytes.strip_prefix(b"--").or_else(|| bytes.strip_prefix(b"-")).filter(|name| !name.is_empty())?;
    let (name, value) = match name.iter().position(|byte| *byte == b'=') {
        Some(at) => (&name[..at], Some(OsString::from_vec(name[at + 1..].to_vec()))),
        None => (name, None),
    };
    Some((String::from_utf8_lossy(name).into_owned(), value))
}

fn find(given: &str) -> Result<Option, String> {
    let name = given.to_ascii_lowercase();
    if let Some(exact) = OPTIONS.iter().find(|(known, _)| *known == name) {
        return Ok(*exact);
    }
    let begun: Vec<&Option> = OPTIONS.iter().filter(|(known, _)| known.starts_with(&name)).collect();
    match begun[..] {
        [one] if !name.is_empty() => Ok(*one),
        [] => Err(format!("Unknown option: {given}")),
        _ => {
            let names: Vec<&str> = begun.iter().map(|(known, _)| *known).collect();
            Err(format!("Option {given} is ambiguous ({})", names.join(", ")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &[&str]) -> Vec<OsString> {
        line.iter().map(OsString::from).collect()
    }

    #[test]
    fn options_are_read_wherever_and_however_they_are_written() {
        let line =
            ["create", "--Config", "-x", "foo", "-port=80", "--ens", "--opt", "a", "b", "--", "--help"];
        let read = read(&words(&line)).unwrap();
        assert_eq!(read.rest, words(&["create", "foo", "--help"]));
        assert_eq!(read.value("config"), Some(&"-x".into()));
        assert_eq!(read.value("port"), Some(&"80".into()));
        assert_eq!(read.options.last().unwrap(), &("option", words(&["a", "b"])));
        assert!(read.has("ensure-unique-name") && !read.has("help"));
        assert_eq!(super::read(&words(&["-", "a"])).unwrap().rest, words(&["-", "a"]));
        assert_eq!(super::read(&words(&["--config="])).unwrap().value("config"), Some(&"".into()));
    }

    #[test]
    fn what_is_wrong_is_said_in_getopts_words() {
        for (line, said) in [
            (&["--nope"][..], "Unknown option: nope"),
            (&["--config"], "Option config requires an argument"),
            (&["--option", "a"], "Option option requires an argument"),
            (&["--impure=1"], "Option impure does not take an argument"),
            (&["--con"], "Option con is ambiguous (config, config-file)"),
        ] {
            assert_eq!(read(&words(line)).unwrap_err(), said);
        }
    }
}
