//! `cargo xtask vm`: the virtual machines that stand for a host with systemd and unified cgroups.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use clap::Subcommand;
use vm::closure::Closure;
use vm::suite::{self, Case, Totals};
use vm::{Cache, Runner};

use crate::Result;

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Builds the machine's image where it is missing or out of date
    Image,
    /// Boots the image once and saves that machine anew
    Snapshot,
    /// Runs the tests of the package vm, each in a fresh machine
    Test {
        /// Only tests whose FILE::NAME contains this
        #[arg(default_value = "")]
        filter: String,
    },
}

/// The container that the tests boot, in both its releases.
const CONTAINER: fixture::Kind = fixture::Kind::Base;

pub(crate) const NIXRUN_TARGET: &str = "x86_64-unknown-linux-musl";

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    fixture::require(vm::image::HOST_PROGRAMS)?;
    let begun = Instant::now();
    match &args.action {
        Action::Image => {
            let cache = Cache::open(&vm::cache::default_directory())?;
            vm::image::ensure(&cache)?;
            println!("image in {} ({:.1} s)", cache.path("image").display(), begun.elapsed().as_secs_f64());
        }
        Action::Snapshot => {
            let cache = Cache::open(&vm::cache::default_directory())?;
            cache.forget("snapshot")?;
            let runner = Runner::open(cache)?;
            let path = runner.cache().path("snapshot");
            println!("snapshot in {} ({:.1} s)", path.display(), begun.elapsed().as_secs_f64());
        }
        Action::Test { filter } => {
            let totals = test(filter)?;
            return Ok(if totals.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Builds the test binaries, nixrun and the container's disk, and runs the tests whose name contains `filter`.
/// Prints a line for each and a line of totals.
///
/// # Errors
/// When something cannot be built, or no test has such a name.
pub(crate) fn test(filter: &str) -> Result<Totals> {
    fixture::require(vm::image::HOST_PROGRAMS)?;
    let binaries = build(&["test", "--package", "vm", "--test", "*", "--no-run"], "test")?;
    let mut cases: Vec<Case> = Vec::new();
    for (name, binary) in &binaries {
        cases.extend(suite::list(binary, name, filter)?);
    }
    if cases.is_empty() {
        return Err(format!("no test of the package vm is called {filter:?}").into());
    }
    let mut files: Vec<PathBuf> = binaries.into_iter().map(|(_, binary)| binary).collect();
    let runner = Runner::open(Cache::open(&vm::cache::default_directory())?)?;
    let mut closure = None;
    // The tests of the machine itself need neither nixrun nor a container.
    if cases.iter().any(|case| !["guest", "kernel"].contains(&case.target.as_str())) {
        files.extend(build_nixrun()?);
        closure = Some(container_disk(&runner)?);
    }
    let payload = runner.payload(&files)?;
    println!("{} to run, each in a fresh virtual machine", cases.len());
    let totals = suite::run_all(&runner, &payload, closure.as_deref(), &cases, &mut std::io::stdout())?;
    std::io::stdout().flush()?;
    Ok(totals)
}

fn build_nixrun() -> Result<Vec<PathBuf>> {
    require_rust_target(NIXRUN_TARGET)?;
    let built =
        build(&["build", "--package", "nixrun", "--bin", "nixrun", "--target", NIXRUN_TARGET], "bin")?;
    Ok(built.into_iter().map(|(_, binary)| binary).collect())
}

/// Installs Rust's standard library for `target` where rustup has not, after saying so.
pub(crate) fn require_rust_target(target: &str) -> Result<()> {
    let directory = Command::new("rustc").args(["--print", "target-libdir", "--target", target]).output()?;
    if Path::new(String::from_utf8_lossy(&directory.stdout).trim()).is_dir() {
        return Ok(());
    }
    eprintln!("cargo xtask: installing the Rust target {target} with rustup");
    if Command::new("rustup").args(["target", "add", target]).stdin(Stdio::null()).status()?.success() {
        Ok(())
    } else {
        Err(format!("installing the Rust target {target} failed: rustup says why above").into())
    }
}

/// The executables of this kind that a cargo command makes, with their targets' names. Cargo's messages for
/// people go to standard error as always.
pub(crate) fn build(arguments: &[&str], kind: &str) -> Result<Vec<(String, PathBuf)>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(arguments).args(["--quiet", "--message-format=json-render-diagnostics"]);
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        return Err(format!("building failed: cargo {}", arguments.join(" ")).into());
    }
    let mut built = Vec::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let message: serde_json::Value = serde_json::from_str(line)?;
        let target = &message["target"];
        let is_kind = target["kind"].as_array().is_some_and(|kinds| kinds.iter().any(|found| found == kind));
        if let (true, Some(name), Some(path)) =
            (is_kind, target["name"].as_str(), message["executable"].as_str())
        {
            built.push((name.to_owned(), PathBuf::from(path)));
        }
    }
    Ok(built)
}

fn container_disk(runner: &Runner) -> Result<PathBuf> {
    let releases = [fixture::build(CONTAINER, 1)?, fixture::build(CONTAINER, 2)?];
    let wrapper = &releases[0].container_init;
    let roots: Vec<&Path> =
        releases.iter().map(|release| release.system.as_path()).chain([wrapper.as_path()]).collect();
    let paths = fixture::with_store(|| Ok(query_closure(&roots)))??;
    let confs = releases.iter().map(|release| (format!("{}.conf", release.release), release.conf.clone()));
    // The path of the program that NixOS's module runs as PID 1.
    let wrapper = ("container-init".to_owned(), wrapper.display().to_string());
    let files = confs.chain([wrapper]).collect();
    let closure = Closure { name: CONTAINER.to_string(), nix: releases[0].nix.clone(), paths, files };
    Ok(vm::closure::ensure(runner.cache(), &closure)?)
}

/// Runs where the fixture's store is /nix.
fn query_closure(systems: &[impl AsRef<Path>]) -> std::result::Result<Vec<String>, vm::Error> {
    let mut query = Command::new("nix-store");
    query.arg("-qR").args(systems.iter().map(AsRef::as_ref));
    let mut paths: Vec<String> =
        vm::error::run("list the container's store paths", &mut query)?.lines().map(str::to_owned).collect();
    paths.sort();
    paths.dedup();
    Ok(paths)
}
