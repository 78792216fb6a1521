//! getopt_long(3) as glibc does it, over the table of options: short options in one word, values attached or in the
//! next word, long names that may be cut as long as they are clear. It stops at the first word that is no option.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use super::options::{Argument, Entry};
use super::table::OPTIONS;

/// One option as it was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// Where it stands in the table.
    pub at: usize,
    /// Its value.
    pub value: Option<OsString>,
}

impl Given {
    /// Its entry.
    #[must_use]
    pub fn entry(&self) -> &'static Entry {
        &OPTIONS[self.at]
    }
}

/// The options of a command line, and what stands behind them.
#[derive(Debug)]
pub struct Words<'a> {
    words: &'a [OsString],
    /// What is left of a word of short options.
    letters: &'a [u8],
}

impl<'a> Words<'a> {
    /// The words behind the program's name.
    #[must_use]
    pub fn new(words: &'a [OsString]) -> Words<'a> {
        Words { words, letters: &[] }
    }

    /// The words that are no options, once [`Words::next`] has ended.
    #[must_use]
    pub fn rest(&self) -> &'a [OsString] {
        self.words
    }

    fn take(&mut self) -> Option<&'a OsString> {
        let (first, rest) = self.words.split_first()?;
        self.words = rest;
        Some(first)
    }

    fn long(&mut self, word: &'a [u8]) -> Result<Given, String> {
        let (name, attached) = match word.iter().position(|byte| *byte == b'=') {
            Some(at) => (&word[..at], Some(&word[at + 1..])),
            None => (word, None),
        };
        let at = find_long(name).map_err(|all| wrong_long(word, &all))?;
        let name = OPTIONS[at].long;
        let value = match (OPTIONS[at].argument, attached) {
            (Argument::No, Some(_)) => return Err(format!("option '--{name}' doesn't allow an argument")),
            (Argument::No, None) | (Argument::Optional(_), None) => None,
            (_, Some(value)) => Some(owned(value)),
            (Argument::Required(_), None) => match self.take() {
                Some(value) => Some(value.clone()),
                None => return Err(format!("option '--{name}' requires an argument")),
            },
        };
        Ok(Given { at, value })
    }

    fn letter(&mut self, letter: u8) -> Result<Given, String> {
        let shown = OsStr::from_bytes(&[letter]).to_string_lossy().into_owned();
        let is = |entry: &Entry| entry.short == Some(char::from(letter));
        let Some(at) = OPTIONS.iter().position(is) else {
            return Err(format!("invalid option -- '{shown}'"));
        };
        let attached = std::mem::take(&mut self.letters);
        let value = match OPTIONS[at].argument {
            Argument::No => {
                self.letters = attached;
                None
            }
            Argument::Optional(_) => (!attached.is_empty()).then(|| owned(attached)),
            Argument::Required(_) if !attached.is_empty() => Some(owned(attached)),
            Argument::Required(_) => match self.take() {
                Some(value) => Some(value.clone()),
                None => return Err(format!("option requires an argument -- '{shown}'")),
            },
        };
        Ok(Given { at, value })
    }
}

/// Each option in turn, or getopt's words for what is wrong.
impl Iterator for Words<'_> {
    type Item = Result<Given, String>;

    fn next(&mut self) -> Option<Result<Given, String>> {
        if self.letters.is_empty() {
            let word = self.words.first()?.as_bytes();
            match word {
                b"--" => {
                    self.take();
                    return None;
                }
                [b'-', b'-', long @ ..] => {
                    self.take();
                    return Some(self.long(long));
                }
                [b'-', letters @ ..] if !letters.is_empty() => {
                    self.take();
                    self.letters = letters;
                }
                _ => return None,
            }
        }
        let (letter, rest) = self.letters.split_first()?;
        self.letters = rest;
        Some(self.letter(*letter))
    }
}

/// The option of this name, or of the only one that begins so; else all that begin so.
fn find_long(name: &[u8]) -> Result<usize, Vec<&'static str>> {
    let named = |entry: &Entry| !entry.long.is_empty();
    if let Some(at) = OPTIONS.iter().position(|entry| named(entry) && entry.long.as_bytes() == name) {
        return Ok(at);
    }
    let begins = |entry: &Entry| named(entry) && entry.long.as_bytes().starts_with(name);
    match OPTIONS.iter().filter(|entry| begins(entry)).map(|entry| entry.long).collect::<Vec<_>>() {
        all if all.len() == 1 => OPTIONS.iter().position(begins).ok_or(all),
        all => Err(all),
    }
}

fn wrong_long(word: &[u8], candidates: &[&str]) -> String {
    let word = String::from_utf8_lossy(word);
    if candidates.is_empty() {
        let name = word.split('=').next().unwrap_or_default();
        let known = OPTIONS.iter().map(|entry| entry.long).filter(|long| !long.is_empty());
        let meant = crate::nearest::nearest(name, known);
        let advice = meant.map(|meant| format!("; did you mean '--{meant}'?")).unwrap_or_default();
        return format!("unrecognized option '--{name}'{advice}");
    }
    let all: String = candidates.iter().map(|name| format!(" '--{name}'")).collect();
    format!("option '--{word}' is ambiguous; possibilities:{all}")
}

fn owned(bytes: &[u8]) -> OsString {
    OsString::from_vec(bytes.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::systemd_nspawn::options::Id;

    type Read = (Vec<(Id, Option<String>)>, Vec<String>);

    fn read(line: &[&str]) -> Result<Read, String> {
        let words: Vec<OsString> = line.iter().map(OsString::from).collect();
        let text = |word: &OsString| word.to_string_lossy().into_owned();
        let mut all = Words::new(&words);
        let mut options = Vec::new();
        for given in all.by_ref() {
            let given = given?;
            options.push((given.entry().id, given.value.as_ref().map(text)));
        }
        Ok((options, all.rest().iter().map(text).collect()))
    }

    fn some(value: &str) -> Option<String> {
        Some(value.to_owned())
    }

    #[test]
    fn every_way_of_writing_an_option_is_read() {
        let directory = |value: &str| vec![(Id::Directory, some(value))];
        for line in [&["-D", "/a"][..], &["-D/a"], &["--directory", "/a"], &["--directory=/a"], &["--dir=/a"]]
        {
            assert_eq!(read(line), Ok((directory("/a"), vec![])), "{line:?}");
        }
        assert_eq!(read(&["--directory="]), Ok((directory(""), vec![])));
        assert_eq!(read(&["-D", ""]), Ok((directory(""), vec![])));
        assert_eq!(read(&["-D", "--quiet"]), Ok((directory("--quiet"), vec![])));
        let (options, rest) = read(&["-bUqnD/a", "x", "-b"]).unwrap();
        let ids: Vec<Id> = options.iter().map(|(id, _)| *id).collect();
        assert_eq!(ids, [Id::Boot, Id::PickUsers, Id::Quiet, Id::NetworkVeth, Id::Directory]);
        assert_eq!(rest, ["x", "-b"]);
        let (options, rest) = read(&["-b", "--", "-q", "x"]).unwrap();
        assert_eq!((options.len(), rest), (1, vec!["-q".to_owned(), "x".to_owned()]));
        assert_eq!(read(&["-", "-b"]), Ok((vec![], vec!["-".to_owned(), "-b".to_owned()])));
    }

    #[test]
    fn an_optional_value_must_be_attached() {
        assert_eq!(read(&["--volatile", "yes"]), Ok((vec![(Id::Volatile, None)], vec!["yes".to_owned()])));
        assert_eq!(read(&["--volatile=yes"]), Ok((vec![(Id::Volatile, some("yes"))], vec![])));
    }

    #[test]
    fn the_exact_name_wins_over_longer_ones() {
        for (word, id) in [
            ("--bind=/a", Id::Bind),
            ("--bind-r=/a", Id::BindRo),
            ("--overlay=/a", Id::Overlay),
            ("--private-users=1", Id::PrivateUsers),
            ("--network-veth", Id::NetworkVeth),
            ("--vol", Id::Volatile),
        ] {
            assert_eq!(read(&[word]).unwrap().0[0].0, id, "{word}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_in_the_words_of_getopt() {
        for (line, words) in [
            (&["--nope"][..], "unrecognized option '--nope'"),
            (&["--bund=/a"], "unrecognized option '--bund'; did you mean '--bind'?"),
            (&["--quiet=1"], "option '--quiet' doesn't allow an argument"),
            (&["--qui=1"], "option '--quiet' doesn't allow an argument"),
            (&["--bind"], "option '--bind' requires an argument"),
            (
                &["--bin=/x"],
                "option '--bin=/x' is ambiguous; possibilities: '--bind' '--bind-ro' '--bind-user' '--bind-user-shell'",
            ),
            (&["-y"], "invalid option -- 'y'"),
            (&["-qD"], "option requires an argument -- 'D'"),
            (&["-=", "x"], "invalid option -- '='"),
        ] {
            assert_eq!(read(line), Err(words.to_owned()), "{line:?}");
        }
    }
}
