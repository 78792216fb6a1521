//! Every `#[test]` of some test binaries, each in a machine of its own.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::time::Duration;

use crate::error::{Error, run};
use crate::runner::{Payload, Runner};

/// How many machines run at a time: each uses two processors when it can.
const AT_A_TIME: usize = 2;

/// One test.
#[derive(Debug, Clone)]
pub struct Case {
    /// The test binary.
    pub binary: PathBuf,
    /// Name of the binary's source file, such as "container_unit".
    pub target: String,
    /// The test's path, as libtest names it.
    pub name: String,
}

/// How many tests there were of each outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Totals {
    /// Succeeded.
    pub passed: usize,
    /// Failed, or gave no result.
    pub failed: usize,
}

/// The tests in `binary` whose path contains `filter`. Runs the binary on the host, only to list them.
///
/// # Errors
/// When the binary cannot be run.
pub fn list(binary: &Path, target: &str, filter: &str) -> Result<Vec<Case>, Error> {
    let listed = run("list the tests", Command::new(binary).args(["--list", "--format", "terse"]))?;
    let names = listed.lines().filter_map(|line| line.strip_suffix(": test"));
    let cases = names.map(|name| Case {
        binary: binary.to_owned(),
        target: target.to_owned(),
        name: name.to_owned(),
    });
    Ok(cases.filter(|case| format!("{}::{}", case.target, case.name).contains(filter)).collect())
}

/// Runs `cases`, writes a line for each to `report` and the output of those that fail, and a line of totals.
///
/// # Errors
/// When `report` cannot be written. What goes wrong with a machine fails its test.
pub fn run_all(
    runner: &Runner,
    payload: &Payload,
    closure: Option<&Path>,
    cases: &[Case],
    report: &mut dyn Write,
) -> Result<Totals, Error> {
    let queue = Mutex::new(cases.iter());
    let mut totals = Totals { passed: 0, failed: 0 };
    std::thread::scope(|scope| {
        let (sender, results) = channel();
        for _ in 0..AT_A_TIME.min(cases.len()) {
            let (queue, sender) = (&queue, sender.clone());
            scope.spawn(move || {
                let next = || queue.lock().ok().and_then(|mut queue| queue.next());
                while let Some(case) = next() {
                    if sender.send((case, run_one(runner, payload, closure, case))).is_err() {
                        break;
                    }
                }
            });
        }
        drop(sender);
        for (case, result) in results {
            match result {
                Ok(_) => totals.passed += 1,
                Err(_) => totals.failed += 1,
            }
            write_result(report, case, &result)?;
        }
        writeln!(report, "{} passed, {} failed", totals.passed, totals.failed)
    })
    .map_err(Error::file("write", "the report"))?;
    Ok(totals)
}

fn run_one(
    runner: &Runner,
    payload: &Payload,
    closure: Option<&Path>,
    case: &Case,
) -> Result<Duration, String> {
    let arguments = ["--exact", &case.name, "--include-ignored", "--nocapture", "--test-threads=1"];
    let arguments = arguments.map(str::to_owned);
    let ended = runner
        .run_binary(payload, closure, &case.binary, &arguments, Vec::new())
        .map_err(|error| error.to_string())?;
    let output = ended.output.unwrap_or_default();
    let output = String::from_utf8_lossy(&output);
    let seconds = ended.took.as_secs_f64();
    match ended.status {
        // libtest also ends with 0 when it ran nothing.
        Ok(0) if output.contains("test result: ok. 1 passed") => Ok(ended.took),
        Ok(status) => Err(format!("exit status {status} after {seconds:.1} s\n{output}")),
        Err(error) => Err(format!("{error}\n--- the test's output\n{output}")),
    }
}

fn write_result(
    report: &mut dyn Write,
    case: &Case,
    result: &Result<Duration, String>,
) -> std::io::Result<()> {
    write!(report, "test {}::{} ... ", case.target, case.name)?;
    match result {
        Ok(took) => writeln!(report, "ok ({:.1} s)", took.as_secs_f64()),
        Err(why) => writeln!(report, "FAILED: {}", why.trim_end()),
    }
}
