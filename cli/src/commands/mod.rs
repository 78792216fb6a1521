//! What each command does: a request from its arguments, an operation, its result printed.

mod boot;
mod control;
mod exec;
mod nspawn;
mod show;
mod signals;
mod start;

use runtime::HostPaths;

pub use nspawn::nspawn;

use crate::args::{Command, Invocation};
use crate::ops::Error;
use crate::output::Output;
use crate::{args, exit};

/// The result of a command: its exit code.
pub(crate) type Result = std::result::Result<u8, Error>;

/// Does what was asked for, and returns the exit code.
#[must_use]
pub fn dispatch(invocation: Invocation) -> u8 {
    let out = Output::new(&invocation.global);
    let paths = HostPaths::below(&invocation.global.host_root);
    if let Command::Nspawn(args) = invocation.command {
        return nspawn(args::Call::of_command(&invocation.global, args));
    }
    // Directories and files of ours have the permissions we give them, whatever shell we come from.
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    let result = match invocation.command {
        Command::Boot(args) => boot::boot(&args, &paths, &out),
        Command::Run(args) => boot::run(&args, &paths, &out),
        Command::Start(args) => start::start(&args, &invocation.global, &paths, &out),
        Command::Stop(args) => control::stop(&args, &paths, &out),
        Command::Kill(args) => control::kill(&args, &paths),
        Command::List(args) => show::list(args.format, &paths, &out),
        Command::Status(args) => show::status(&args, &paths, &out),
        Command::Exec(args) => return exec::exec(&args, &paths, &out),
        Command::Plan(args) => show::plan(&args, &paths, &out),
        Command::Reclaim(args) => control::reclaim(&args, &paths, &out),
        Command::Nspawn(_) => Ok(exit::USAGE),
        Command::Doctor(args) => show::doctor(args.format, &paths, &out),
        Command::Schema(args) => show::schema(&args, &paths, &out),
    };
    result.unwrap_or_else(|error| {
        out.error(error);
        exit::FAILURE
    })
}

fn printed(result: std::io::Result<()>) -> std::result::Result<(), Error> {
    result.map_err(|error| Error::Other(format!("cannot write to stdout: {error}")))
}
