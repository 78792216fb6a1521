//! What is said about systemd-nspawn's options comes from their table: docs/nspawn.md, and the table itself is whole.

use std::collections::HashSet;
use std::path::Path;

use nixrun::systemd_nspawn::options::{Argument, Group, Setting};
use nixrun::systemd_nspawn::{Given, OPTIONS, options_table};

const BEGIN: &str = "<!-- options: generated, see cli/tests/nspawn_docs.rs -->\n";
const END: &str = "<!-- options: end -->";

/// `NIXRUN_BLESS=1` writes the table into the file.
#[test]
fn the_documentation_has_the_table() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/nspawn.md");
    let text = std::fs::read_to_string(&file).unwrap();
    let (before, rest) = text.split_once(BEGIN).unwrap();
    let (between, after) = rest.split_once(END).unwrap();
    let table = options_table();
    if std::env::var_os("NIXRUN_BLESS").is_some() {
        std::fs::write(&file, format!("{before}{BEGIN}{table}{END}{after}")).unwrap();
    } else {
        assert!(between == table, "docs/nspawn.md is not as the options are; NIXRUN_BLESS=1 writes it anew");
    }
}

#[test]
fn every_option_has_one_row_and_names_of_its_own() {
    let mut seen = HashSet::new();
    for entry in OPTIONS {
        assert!(seen.insert(format!("{:?}", entry.id)), "{:?} has two rows", entry.id);
        assert!(entry.long.is_empty() || seen.insert(entry.long.to_owned()), "{}", entry.long);
        assert!(entry.short.is_none_or(|letter| seen.insert(letter.to_string())), "{:?}", entry.short);
        for key in entry.keys {
            assert!(seen.insert(format!("{}.{}", key.section, key.name)), "{}", key.name);
        }
        // The one row without any name is the command's.
        let nameless = entry.long.is_empty() && entry.short.is_none();
        assert!(!nameless || entry.group == Group::Hidden, "{:?}", entry.id);
        assert!(!matches!(entry.argument, Argument::Required("")), "{}", entry.long);
    }
    // One for each of v256's getopt table, v257's --cleanup and --bind-user-shell; and of v256's keys.
    assert_eq!(OPTIONS.iter().filter(|entry| !entry.long.is_empty()).count(), 72 + 2);
    assert_eq!(OPTIONS.iter().map(|entry| entry.keys.len()).sum::<usize>(), 61);
}

#[test]
fn settings_have_bits_of_their_own() {
    let mut given = Given::default();
    for setting in Setting::ALL {
        assert!(!given.has(setting), "{setting:?}");
        given.add(setting);
        assert!(given.has(setting), "{setting:?}");
    }
}
