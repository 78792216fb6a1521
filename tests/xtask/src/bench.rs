//! `cargo xtask bench`: nixrun beside what it replaces and beside what the kernel alone takes, in one table, measured
//! in one run on one machine.

mod boot;
mod host;
mod machine;
mod plan_steps;
mod report;
mod start;

use std::path::PathBuf;
use std::process::ExitCode;

use crate::Result;
use crate::vm::{NIXRUN_TARGET, build, require_rust_target};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Rounds of starts; in each, every program runs once
    #[arg(long, default_value_t = 60)]
    rounds: usize,
    /// Rounds of boots to READY of base; mini gets three times as many
    #[arg(long, default_value_t = 5)]
    boots: usize,
    /// Print figures for programs
    #[arg(long)]
    json: bool,
}

/// The programs in the comparison, with their Debian packages.
const PROGRAMS: &[(&str, &str)] = &[
    ("bwrap", "bubblewrap"),
    ("crun", "crun"),
    ("runc", "runc"),
    ("systemd-nspawn", "systemd-container"),
    ("busybox", "busybox-static"),
    ("ip", "iproute2"),
];

/// What was built for the comparison.
struct Binaries {
    nixrun: PathBuf,
    floor: PathBuf,
    exit: PathBuf,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    fixture::require(PROGRAMS)?;
    let binaries = binaries()?;
    let machine = machine::Machine::read(&binaries.nixrun)?;
    machine.warn();
    let figures = host::in_host(|group| {
        let starts = start::measure(&binaries, group, args.rounds)?;
        let boots = boot::measure(&binaries.nixrun, args.boots)?;
        Ok((starts, boots))
    })?;
    let report = report::Report::new(machine, figures.0, figures.1);
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{report}");
    }
    Ok(ExitCode::SUCCESS)
}

fn binaries() -> Result<Binaries> {
    require_rust_target(NIXRUN_TARGET)?;
    let packages = ["build", "--release", "--package", "nixrun", "--package", "benches", "--bins"];
    let built = build(&[&packages[..], &["--target", NIXRUN_TARGET]].concat(), "bin")?;
    let find = |name: &str| {
        let found = built.iter().find(|(binary, _)| binary == name);
        found.map(|(_, path)| path.clone()).ok_or_else(|| format!("cargo built no program {name}"))
    };
    Ok(Binaries { nixrun: find("nixrun")?, floor: find("floor")?, exit: find("exit")? })
}
