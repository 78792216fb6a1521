//! `cargo xtask test`: every test, on this machine and in virtual machines.

use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use fixture::Kind;

use crate::vm::{NIXRUN_TARGET, build, require_rust_target};
use crate::{Result, vm};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only tests whose name contains this
    #[arg(default_value = "")]
    filter: String,
    /// Leave out the tests in virtual machines
    #[arg(long)]
    no_vm: bool,
    /// Leave out the demo's check, which builds nixrun with all optimisations
    #[arg(long)]
    no_demo: bool,
}

/// What the tests ask beside nixrun, with Debian's packages.
const PROGRAMS: &[(&str, &str)] = &[
    ("systemd-nspawn", "systemd-container"),
    ("busybox", "busybox-static"),
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("mke2fs", "e2fsprogs"),
    ("sfdisk", "fdisk"),
    ("mksquashfs", "squashfs-tools"),
    ("strace", "strace"),
    ("socat", "socat"),
    ("setfacl", "acl"),
    ("bwrap", "bubblewrap"),
    ("crun", "crun"),
    ("curl", "curl"),
    ("dbus-daemon", "dbus-daemon"),
    ("dbus-monitor", "dbus-bin"),
    ("nix-instantiate", "nix-bin"),
    ("mkfs.btrfs", "btrfs-progs"),
    ("zstd", "zstd"),
    ("zsh", "zsh"),
    ("fish", "fish"),
    ("groff", "groff-base"),
    ("man", "man-db"),
];

/// One part of the tests and how it went.
struct Part {
    name: &'static str,
    result: Result<()>,
    time: Duration,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    if !nix::unistd::geteuid().is_root() {
        return Err("the tests need root: they make namespaces and boot containers".into());
    }
    fixture::require(PROGRAMS)?;
    let mut parts = vec![part("sample containers", fixtures)];
    let nixrun = nixrun()?;
    parts.push(part("tests on this machine", || workspace(&args.filter, &nixrun)));
    if !args.no_vm {
        parts.push(part("tests in virtual machines", || machines(&args.filter)));
    }
    if !args.no_demo && args.filter.is_empty() {
        parts.push(part("cargo xtask demo --check", demo));
    }
    Ok(summary(&parts))
}

/// Runs a part; what goes wrong is kept for the summary, so that the others run as well.
fn part(name: &'static str, work: impl FnOnce() -> Result<()>) -> Part {
    println!("== {name}");
    let begun = Instant::now();
    let result = work();
    if let Err(error) = &result {
        println!("== {name}: {error}");
    }
    Part { name, result, time: begun.elapsed() }
}

/// Before the tests, which would wait for each other to build them.
fn fixtures() -> Result<()> {
    for kind in [Kind::Mini, Kind::Base, Kind::Web] {
        for release in [1, 2] {
            fixture::build(kind, release)?;
        }
    }
    Ok(())
}

fn nixrun() -> Result<std::path::PathBuf> {
    require_rust_target(NIXRUN_TARGET)?;
    let built =
        build(&["build", "--package", "nixrun", "--bin", "nixrun", "--target", NIXRUN_TARGET], "bin")?;
    built.into_iter().next().map(|(_, path)| path).ok_or_else(|| "cargo built no nixrun".into())
}

/// nextest where it is installed: it runs each test in a process of its own, two at a time. A newcomer need not
/// build it first.
fn workspace(filter: &str, nixrun: &std::path::Path) -> Result<()> {
    let mut nextest = Command::new(cargo());
    nextest.args(["nextest", "--version"]).stdout(Stdio::null()).stderr(Stdio::null());
    let has_nextest = nextest.status().is_ok_and(|status| status.success());
    let arguments: &[&str] =
        if has_nextest { &["nextest", "run", "--no-fail-fast"] } else { &["test", "--no-fail-fast"] };
    let mut command = Command::new(cargo());
    // The tests for virtual machines are not among these: their package keeps them from running by default.
    command.args(arguments).arg("--workspace");
    if !filter.is_empty() {
        command.arg(filter);
    }
    must_succeed(in_ci(command.env("NIXRUN_BIN", nixrun)))?;
    if has_nextest && filter.is_empty() {
        // nextest does not run the examples in the documentation.
        must_succeed(
            Command::new(cargo())
                .args(["test", "--quiet", "--doc", "-p", "runtime", "-p", "netsetup", "-p", "nixrun"]),
        )?;
    }
    Ok(())
}

fn machines(filter: &str) -> Result<()> {
    let totals = vm::test(filter)?;
    if totals.failed > 0 { Err(format!("{} failed", totals.failed).into()) } else { Ok(()) }
}

/// In a process of its own, as a user calls it.
fn demo() -> Result<()> {
    must_succeed(Command::new(std::env::current_exe()?).args(["demo", "--check"]))
}

/// In CI nothing is skipped: a test that cannot work there fails.
fn in_ci(command: &mut Command) -> &mut Command {
    if std::env::var_os("CI").is_some() { command.env("NIXRUN_MUST_WORK", "1") } else { command }
}

fn must_succeed(command: &mut Command) -> Result<()> {
    let status = command.stdin(Stdio::null()).status()?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("{:?} ended with {status}", command.get_program()).into())
    }
}

fn cargo() -> std::ffi::OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

fn summary(parts: &[Part]) -> ExitCode {
    println!("== summary");
    for part in parts {
        let how = if part.result.is_ok() { "ok" } else { "FAILED" };
        println!("{how:<8}{:>7.1} s  {}", part.time.as_secs_f64(), part.name);
    }
    let failed = parts.iter().filter(|part| part.result.is_err()).count();
    println!("parts: {} passed, {failed} failed", parts.len() - failed);
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
