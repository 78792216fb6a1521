//! Mutated input for parsers, for a bounded time, with what a stable compiler has.
//!
//! A target is a test: it names a directory below `tests/fuzz/corpus` and a check. [`run`] checks every file of the
//! corpus as it is, and then mutations of them until the time is over. What a check returns is the class of an input
//! (which variant was reached, which sentence came out): an input of a new class joins the corpus for this run, so that
//! mutations go on from it. That stands in for the coverage that libFuzzer would measure with a nightly compiler.
//!
//! An input whose check panics is kept in the corpus, as `crash-…`, where it is a test from then on. An input that takes
//! memory without end meets the limit that [`run`] sets, and aborts.
//!
//! | variable | meaning |
//! |---|---|
//! | `NIXRUN_FUZZ_SECONDS` | how long each target mutates; 1 when not set |
//! | `NIXRUN_FUZZ_SEED` | where the random numbers begin; the clock when not set. It is printed |
#![forbid(unsafe_code)]
#![allow(clippy::print_stderr, reason = "what was tried belongs in a test's log")]

mod mutate;
mod random;

use std::collections::HashSet;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use mutate::Mutator;
use random::Random;

/// Largest input that mutations make.
const SIZE_MAX: usize = 1 << 14;
/// Most inputs that mutations go on from; beyond them, new ones replace others, but no file.
const CORPUS_MAX: usize = 2000;
/// Address space of the test, which no parser of small files comes near.
const MEMORY_MAX: u64 = 4 << 30;

/// Checks the corpus called `name` and mutations of it. `tokens` are words of the grammar, which mutations insert.
///
/// # Panics
/// When a check does, after the input was kept; and when there is no corpus.
pub fn run(name: &str, tokens: &[&str], check: impl Fn(&[u8]) -> String) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    run_in(&directory, tokens, check);
}

/// The same with a corpus anywhere.
///
/// # Panics
/// As [`run`].
pub fn run_in(directory: &Path, tokens: &[&str], check: impl Fn(&[u8]) -> String) {
    limit_memory();
    let name = directory.file_name().unwrap_or_default().display();
    let mut corpus = read(directory);
    assert!(!corpus.is_empty(), "{} has no files", directory.display());
    let seed = number("NIXRUN_FUZZ_SEED").unwrap_or_else(now);
    let seconds = number("NIXRUN_FUZZ_SECONDS").unwrap_or(1);
    let try_one = |input: &[u8]| match catch_unwind(AssertUnwindSafe(|| check(input))) {
        Ok(class) => hash(&class),
        Err(panic) => {
            let file = directory.join(format!("crash-{:016x}", hash(&input)));
            let kept = fs::write(&file, input);
            eprintln!("{name}: seed {seed}; the input is kept in {}: {kept:?}", file.display());
            std::panic::resume_unwind(panic);
        }
    };
    let files = corpus.len().min(CORPUS_MAX);
    let mut classes: HashSet<u64> = corpus.iter().map(|input| try_one(input)).collect();
    let mut random = Random::new(seed);
    let mutator = Mutator::new(tokens, SIZE_MAX);
    let (begun, time) = (Instant::now(), Duration::from_secs(seconds));
    let mut tried = 0_u64;
    while begun.elapsed() < time {
        let input = mutator.mutate(&corpus, &mut random);
        tried += 1;
        if classes.insert(try_one(&input)) {
            if corpus.len() < CORPUS_MAX {
                corpus.push(input);
            } else if let Some(old) = corpus.get_mut(files + random.below(CORPUS_MAX - files)) {
                *old = input;
            }
        }
    }
    eprintln!("{name}: seed {seed}, {tried} inputs in {seconds} s, {} classes", classes.len());
}

/// Whether an error is one sentence: a line of printable text.
///
/// # Panics
/// When it is not.
pub fn assert_sentence(error: &str) {
    let printable = error.chars().all(|c| !c.is_control());
    assert!(printable && !error.trim().is_empty(), "not one sentence: {error:?}");
}

/// What of a sentence does not depend on the input: what stands outside of quotes, without digits, its beginning.
#[must_use]
pub fn class_of(sentence: &str) -> String {
    sentence
        .split(['"', '\''])
        .step_by(2)
        .flat_map(str::chars)
        .filter(|c| !c.is_ascii_digit())
        .take(60)
        .collect()
}

fn read(directory: &Path) -> Vec<Vec<u8>> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let mut files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.sort();
    files.iter().filter_map(|file| fs::read(file).ok()).collect()
}

fn limit_memory() {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_AS) {
        let _ = setrlimit(Resource::RLIMIT_AS, MEMORY_MAX.min(hard), hard);
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_secs() ^ u64::from(since.subsec_nanos()) << 20
}

fn hash(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_that_panics_is_found_and_its_input_kept() {
        let directory = tempfile::tempdir().expect("a directory");
        fs::write(directory.path().join("seed"), "a[b]").expect("a file");
        let check = |input: &[u8]| {
            assert!(!input.windows(2).any(|two| two == b"]]"), "found");
            "fine".to_owned()
        };
        let run = || run_in(directory.path(), &["]"], check);
        assert!(catch_unwind(run).is_err(), "nothing was found in a second");
        let kept = read(directory.path());
        assert_eq!(kept.len(), 2);
        assert!(kept.iter().any(|input| catch_unwind(|| check(input)).is_err()));
    }

    #[test]
    fn a_sentence_is_one_line() {
        assert_sentence("cannot read it: why");
        for text in ["", " ", "a\nb", "a\u{1b}[0m"] {
            assert!(catch_unwind(|| assert_sentence(text)).is_err(), "{text:?}");
        }
        assert_eq!(class_of("port 8080 of \"x y\" is taken"), class_of("port 81 of \"z\" is taken"));
    }
}
