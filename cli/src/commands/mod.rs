//! What each command does: a request from its arguments, an operation, its result printed.

mod boot;
mod control;
mod data;
mod exec;
mod inside;
mod life;
mod nixos_container;
mod nspawn;
mod observe;
mod show;
mod signals;
mod start;
mod tools;
mod top;
mod update;

use runtime::HostPaths;

pub use nixos_container::nixos_container;
pub use nspawn::nspawn;
pub use tools::complete;

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
    perform(invocation, out)
}

fn perform(invocation: Invocation, out: Output) -> u8 {
    let paths = HostPaths::below(&invocation.global.host_root);
    if let Command::Nspawn(args) = invocation.command {
        return nspawn(args::Call::of_command(&invocation.global, args));
    }
    if let Command::NixosContainer(args) = invocation.command {
        return nixos_container(&args::Call::of_command(&invocation.global, args));
    }
    // Directories and files of ours have the permissions we give them, whatever shell we come from.
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    let result = match invocation.command {
        Command::Create(args) => life::create(&args, &paths, &out),
        Command::Destroy(args) => life::destroy(&args, &paths, &out),
        Command::ShowIp(args) => life::show_ip(&args, &paths, &out),
        Command::ShowHostKey(args) => life::show_host_key(&args, &paths, &out),
        Command::Update(args) => update::update(&args, &paths, &out),
        Command::Rollback(args) => update::rollback(&args, &paths, &out),
        Command::Generations(args) => update::generations(&args, &paths, &out),
        Command::Diff(args) => update::diff(&args, &paths, &out),
        Command::Reload(args) => update::reload(&args, &paths, &out),
        Command::Restart(args) => start::restart(&args, &paths, &out),
        Command::Terminate(args) => start::terminate(&args, &paths),
        Command::Autostart(args) => start::autostart(&args, &paths, &out),
        Command::Pause(args) => inside::pause(&args, &paths, &out),
        Command::Resume(args) => inside::resume(&args, &paths, &out),
        Command::Set(args) => inside::set(&args, &paths, &out),
        Command::Login(args) => return exec::login(&args, &paths, &out),
        Command::RootLogin(args) => return exec::root_login(&args, &paths, &out),
        Command::Logs(args) => inside::logs(&args, &paths, &out),
        Command::Top(args) => top::top(&args, &paths, &out),
        Command::Events(args) => observe::events(&args, &paths, &out),
        Command::Stats(args) => observe::stats(&args, &paths, &out),
        Command::Inspect(args) => observe::inspect(&args, &paths, &out),
        Command::Metrics(args) => observe::metrics(&args, &paths, &out),
        Command::Cp(args) => data::cp(&args, &paths, &out),
        Command::Export(args) => data::export(&args, &paths, &out),
        Command::Import(args) => data::import(&args, &paths, &out),
        Command::Completions(args) => tools::completions(&args, &out),
        Command::Man(args) => tools::man(&args, &out),
        Command::Boot(args) => boot::boot(&args, &paths, &out),
        Command::Run(args) if args.inside.is_some() => return exec::run(&args, &paths, &out),
        Command::Run(args) => boot::run(&args, &paths, &out),
        Command::Start(args) => start::start(&args, &paths, &out),
        Command::Stop(args) => control::stop(&args, &paths, &out),
        Command::Kill(args) => control::kill(&args, &paths),
        Command::List(args) => show::list(args.format, &paths, &out),
        Command::Status(args) => show::status(&args, &paths, &out),
        Command::Exec(args) => return exec::exec(&args, &paths, &out),
        Command::Plan(args) => show::plan(&args, &paths, &out),
        Command::Reclaim(args) => control::reclaim(&args, &paths, &out),
        Command::Nspawn(_) | Command::NixosContainer(_) => Ok(exit::USAGE),
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
