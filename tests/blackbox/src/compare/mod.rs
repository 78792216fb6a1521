//! The same command line under the real systemd-nspawn and under nixrun in its place, and what a program inside sees.
//!
//! A case is one run of each, on roots made alike at the same path. What each saw is compared section by section, line
//! by line; a line that only one has must be among the known differences, each with its reason, and a known difference of
//! a case must be seen, so that the list stays true.

pub mod probe;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::{Finished, Host, finish, nixrun_binary, probe_root, wait_for};

/// Who has a line that the other has not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// nixrun alone.
    Ours,
    /// systemd-nspawn alone.
    Theirs,
}

/// A difference that is meant.
#[derive(Debug, Clone, Copy)]
pub struct Known {
    /// Who has the line.
    pub who: Who,
    /// The section of the report.
    pub section: &'static str,
    /// How the line begins.
    pub line: &'static str,
    /// Why. Where the installed version of systemd-nspawn differs from v256, which is the specification, it says so.
    pub why: &'static str,
}

/// A line of nixrun's alone.
#[must_use]
pub const fn ours(section: &'static str, line: &'static str, why: &'static str) -> Known {
    Known { who: Who::Ours, section, line, why }
}

/// A line of systemd-nspawn's alone.
#[must_use]
pub const fn theirs(section: &'static str, line: &'static str, why: &'static str) -> Known {
    Known { who: Who::Theirs, section, line, why }
}

/// A word among the options that stands for no `-M` at all.
pub const UNNAMED: &str = "UNNAMED";

/// One command line and what is looked at.
#[derive(Debug, Clone, Copy, Default)]
pub struct Case {
    /// What it is about.
    pub name: &'static str,
    /// Options, separated by blanks; `ROOT` and `DIR` stand for the root and for a directory beside it,
    /// [`UNNAMED`] for nothing.
    pub options: &'static str,
    /// Shell script on the host before the run, with `$ROOT` and `$DIR`; `$DIR` is empty.
    pub before: &'static str,
    /// Shell script inside, with `$B` for busybox; what it prints is the section `inside`.
    pub inside: &'static str,
    /// Shell script on the host after the run; what it prints is the section `after`.
    pub after: &'static str,
    /// Variables of the caller's environment.
    pub env: &'static [(&'static str, &'static str)],
    /// Whether the whole report is made, or the scripts' output and the exit code alone.
    pub report: bool,
    /// Differences that are meant.
    pub known: &'static [Known],
}

/// Runs cases one after the other on one host; every difference of every case is told.
///
/// # Panics
/// When a case shows a difference that is not known, or not one that is.
#[track_caller]
pub fn compare(host: &Host<'_>, cases: &[Case]) {
    let mut problems = String::new();
    for case in cases {
        let found = one(host, case);
        if !found.is_empty() {
            let _ = writeln!(problems, "\n--- {} ({})\n{found}", case.name, case.options);
        }
    }
    assert!(problems.is_empty(), "{problems}");
}

fn one(host: &Host<'_>, case: &Case) -> String {
    let (theirs, their_end) = run(host, case, Path::new("systemd-nspawn"));
    let (ours, our_end) = run(host, case, &drop_in(host));
    if our_end.code != their_end.code {
        let Finished { code, out, err } = our_end;
        let ours = format!("nixrun ended with {code:?}: {err}{out}");
        let Finished { code, out, err } = their_end;
        return format!("{ours}\nsystemd-nspawn ended with {code:?}: {err}{out}");
    }
    differences(probe::KNOWN, case.known, &ours, &theirs)
}

/// A case under nixrun alone, where the installed systemd-nspawn is too old for it.
#[track_caller]
pub fn only_ours(host: &Host<'_>, case: &Case) -> Finished {
    run(host, case, &drop_in(host)).1
}

/// nixrun under the name of systemd-nspawn.
///
/// # Panics
/// When the link cannot be made.
#[must_use]
pub fn drop_in(host: &Host<'_>) -> PathBuf {
    let link = host.path("drop-in/systemd-nspawn");
    if !link.exists() {
        fs::create_dir_all(host.path("drop-in")).expect("a directory for the link");
        symlink(nixrun_binary(), &link).expect("the link can be made");
    }
    link
}

/// What one of the two showed: lines `section: line`.
fn run(host: &Host<'_>, case: &Case, program: &Path) -> (Vec<String>, Finished) {
    let (root, dir) = (host.path("roots/t"), host.path("beside"));
    clear(host, &[&root, &dir]);
    probe_root(host, "t");
    probe::install(host, &root, case.inside, case.report);
    fs::create_dir_all(&dir).expect("a directory beside the root");
    let on_host = |script: &str| {
        let script = format!("set -e; ROOT={} DIR={}\n{script}", root.display(), dir.display());
        host.sh(&script)
    };
    on_host(case.before);
    let mut command = host.command(program);
    let options =
        case.options.replace("ROOT", &root.to_string_lossy()).replace("DIR", &dir.to_string_lossy());
    command.args(["--register=no", "--keep-unit", "--quiet"]);
    command.args(options.split_whitespace().filter(|word| *word != UNNAMED));
    if !options.contains("-M") && !options.contains("--machine") && !options.contains(UNNAMED) {
        command.args(["-M", "t"]);
    }
    if !options.split_whitespace().any(|word| word.starts_with("-D") || word.starts_with("--directory")) {
        command.arg("-D").arg(&root);
    }
    command.args(["/probe/bash", "/probe/report"]);
    command.env("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "1").envs(case.env.iter().copied());
    let finished = finish(&mut command);
    let mut lines = probe::lines(&finished.out);
    // What a run leaves on the host is looked at by the script; a run that failed has left nothing that it could count on.
    let after = if finished.err.is_empty() || finished.code == Some(0) { case.after } else { "" };
    lines.extend(on_host(after).lines().map(|line| format!("after: {line}")));
    (lines, finished)
}

/// The kernel lets go of a container's mounts and files some time after its end.
fn clear(host: &Host<'_>, directories: &[&Path]) {
    for directory in directories {
        wait_for("the last run's files to be free", || {
            host.sh(&format!(
                "d={}; [ ! -e $d ] || {{ chattr -i -R $d 2>/dev/null || true; umount -R $d 2>/dev/null || true
                 rm -rf --one-file-system $d; }}",
                directory.display()
            ));
            (!directory.exists()).then_some(())
        });
    }
}

/// Every line that only one of the two has and that is not known, and what is known of this `case` and not there. Those
/// of every case may be missing.
#[must_use]
pub fn differences(every: &[Known], case: &[Known], ours: &[String], theirs: &[String]) -> String {
    let known: Vec<&Known> = every.iter().chain(case).collect();
    let is = |known: &Known, who: Who, line: &str| {
        let told = line.split_once(": ").unwrap_or((line, ""));
        known.who == who && known.section == told.0 && told.1.starts_with(known.line)
    };
    let mut found = String::new();
    let mut seen: Vec<String> = Vec::new();
    for (who, one, other) in [(Who::Ours, ours, theirs), (Who::Theirs, theirs, ours)] {
        let other: BTreeSet<&String> = other.iter().collect();
        for line in one.iter().filter(|line| !other.contains(line)) {
            match known.iter().find(|known| is(known, who, line)) {
                Some(known) => seen.push(format!("{who:?} {} {}", known.section, known.line)),
                None => {
                    let _ = writeln!(found, "{who:?} alone: {line}");
                }
            }
        }
    }
    for Known { who, section, line, why } in case {
        if !seen.contains(&format!("{who:?} {section} {line}")) {
            let _ = writeln!(found, "no longer seen: {who:?} {section}: {line} ({why})");
        }
    }
    found
}
