//! `cargo xtask`: everything that builds, tests, shows or measures nixrun. One module for each subcommand, with its
//! arguments and a `run`.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command line tool")]

mod bench;
mod day;
mod demo;
mod fixture_command;
mod picture;
mod test_command;
mod vm;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Builds, tests, shows and measures nixrun")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measures nixrun beside systemd-nspawn, bwrap, crun, runc and the kernel alone
    Bench(bench::Args),
    /// Runs the README's day with nixrun, and prints what the commands say
    Day(day::Args),
    /// Boots the sample container and shows it; with --check, unattended and thoroughly
    Demo(demo::Args),
    /// Builds a sample container's system, and a directory that stands for its host
    Fixture(fixture_command::Args),
    /// Draws docs/top.svg and docs/plan.svg from what a terminal shows of running containers
    Picture(picture::Args),
    /// Runs every test
    Test(test_command::Args),
    /// Builds virtual machines, and runs tests in them
    Vm(vm::Args),
}

/// What a subcommand fails with: one sentence for the user.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Bench(args) => bench::run(&args),
        Command::Day(args) => day::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Fixture(args) => fixture_command::run(&args),
        Command::Picture(args) => picture::run(&args),
        Command::Test(args) => test_command::run(&args),
        Command::Vm(args) => vm::run(&args),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("cargo xtask: {error}");
            ExitCode::FAILURE
        }
    }
}
