//! The options of the systemd-nspawn that Debian 13 has, beside those that nixrun takes in its place.

use std::collections::BTreeSet;

use vm::guest::sh;

/// The words with which the lines of a `--help` begin.
fn options(help: &str) -> BTreeSet<String> {
    let of_line = |line: &str| -> Vec<String> {
        let words = line.split_whitespace().take_while(|word| word.starts_with('-'));
        words.map(|word| word.split(['=', '[']).next().unwrap_or_default().to_owned()).collect()
    };
    help.lines().flat_map(of_line).collect()
}

#[test]
fn nixrun_knows_every_option_of_systemd_nspawn_257() {
    let version = sh("systemd-nspawn --version | head -n 1");
    assert!(version.starts_with("systemd 257"), "{version}");
    let theirs = options(&sh("systemd-nspawn --help"));
    assert!(theirs.len() > 80, "not the help of systemd-nspawn: {theirs:?}");
    let ours = options(&sh("/run/t/nixrun nspawn --help"));
    let missing: Vec<&String> = theirs.difference(&ours).collect();
    assert!(missing.is_empty(), "{missing:?} have no row in cli/src/systemd_nspawn/table.rs");
}
