//! What is wrong with a JSON configuration, and where.

use std::path::{Path, PathBuf};

use serde_path_to_error::{Path as KeyPath, Segment};

use super::values::quoted;
use crate::nearest::nearest;

/// Why a JSON configuration cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JsonError {
    /// The file could not be read.
    #[error("cannot read the container's configuration in {}: {source}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A place in it is wrong.
    #[error("{}:{line}:{column}: {}{problem}", file.display(), at(path))]
    Wrong {
        /// The file.
        file: PathBuf,
        /// Line, counted from 1.
        line: usize,
        /// Column of the end of what is wrong, in bytes from 1.
        column: usize,
        /// Keys from the outermost on, such as `resources.memory.max`; empty for the whole file.
        path: String,
        /// What is wrong and what would be right.
        problem: String,
    },
}

fn at(path: &str) -> String {
    if path.is_empty() { String::new() } else { format!("{path}: ") }
}

impl JsonError {
    pub(super) fn wrong(file: &Path, path: &KeyPath, error: &serde_json::Error) -> JsonError {
        let (path, problem) = match unknown_key(&words(error)) {
            Some((key, problem)) => (parent(path, &key), problem),
            None if error.is_syntax() || error.is_eof() => (String::new(), not_json(error)),
            None => (path_text(path.iter()), reworded(&words(error))),
        };
        JsonError::Wrong { file: file.to_owned(), line: error.line(), column: error.column(), path, problem }
    }

    pub(crate) fn syntax(file: &Path, error: &serde_json::Error) -> JsonError {
        let (line, column) = (error.line(), error.column());
        JsonError::Wrong {
            file: file.to_owned(),
            line,
            column,
            path: String::new(),
            problem: not_json(error),
        }
    }
}

fn not_json(error: &serde_json::Error) -> String {
    format!("the file is not valid JSON: {}", words(error))
}

/// The message without its place, which is said in front.
fn words(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    text.strip_suffix(&place).unwrap_or(&text).to_owned()
}

/// A sentence where serde has half of one.
fn reworded(words: &str) -> String {
    let quoted = |prefix: &str| words.strip_prefix(prefix)?.strip_suffix('`').map(str::to_owned);
    match (quoted("duplicate field `"), quoted("missing field `")) {
        (Some(key), _) => format!("the key {key:?} is there twice"),
        (_, Some(key)) => format!("the key {key:?} is missing"),
        _ => shortened(words),
    }
}

/// serde quotes a wrong value whole, however long; what was expected stands behind it.
fn shortened(words: &str) -> String {
    const START: usize = 120;
    const END: usize = 80;
    let length = words.chars().count();
    if length <= START + END {
        return words.to_owned();
    }
    let start = words.chars().take(START);
    start.chain(['…']).chain(words.chars().skip(length - END)).collect()
}

/// serde says ``unknown field `a`, expected one of `b`, `c` ``, with all the keys that it knows.
fn unknown_key(words: &str) -> Option<(String, String)> {
    let (key, known) = words.strip_prefix("unknown field `")?.split_once("`, expected ")?;
    let known: Vec<&str> = known.split('`').skip(1).step_by(2).collect();
    let advice = match nearest(key, known.iter().copied()) {
        Some(meant) => format!("did you mean {meant:?}?"),
        None if known.len() <= 8 => format!("expected one of {}", known.join(", ")),
        None => "`nixrun schema` prints those that exist".to_owned(),
    };
    Some((key.to_owned(), format!("there is no key {} here; {advice}", quoted(key))))
}

/// The path of the object that holds `key`: the tracked path may or may not have come to the key.
fn parent(path: &KeyPath, key: &str) -> String {
    let segments: Vec<&Segment> = path.iter().collect();
    match segments.split_last() {
        Some((Segment::Map { key: last }, above)) if last == key => path_text(above.iter().copied()),
        _ => path_text(segments.into_iter()),
    }
}

fn path_text<'a>(segments: impl Iterator<Item = &'a Segment>) -> String {
    let mut text = String::new();
    for segment in segments {
        match segment {
            Segment::Seq { index } => text += &format!("[{index}]"),
            Segment::Map { key } | Segment::Enum { variant: key } => {
                let plain = (1..=64).contains(&key.len())
                    && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
                let dot = if text.is_empty() { "" } else { "." };
                text += &if plain { format!("{dot}{key}") } else { format!("[{}]", quoted(key)) };
            }
            Segment::Unknown => {}
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_value_is_cut_and_what_was_expected_is_not() {
        let text = format!("{{\"resources\":\"{}\"}}", "\u{7f}".repeat(4000));
        let Err(error) = super::super::parse(text.as_bytes(), Path::new("/x.json")) else {
            panic!("a text instead of an object was taken")
        };
        let sentence = error.to_string();
        assert!(sentence.len() < 500 && sentence.ends_with(", expected an object"), "{sentence}");
    }
}
