//! `nixrun exec`, `run` in a container that runs, `root-login` and `login`.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use nix::sys::signal::Signal;
use runtime::HostPaths;
use runtime::supervisor::Attached;
use runtime::sys::process::Ended;

use super::boot::terminal;
use super::signals;
use crate::args::{ExecArgs, LoginArgs, RunArgs};
use crate::exit;
use crate::nspawn::SetEnv;
use crate::ops::{self, Error, ExecRequest, Session};
use crate::output::Output;

pub(super) fn exec(args: &ExecArgs, paths: &HostPaths, out: &Output) -> u8 {
    let request = ExecRequest {
        name: args.name.clone(),
        argv: args.command.clone(),
        env: args.setenv.iter().map(SetEnv::resolve).collect(),
        cwd: args.chdir.clone(),
        terminal: terminal(),
        streams: None,
    };
    attach(out, |attached| ops::exec(&request, attached, paths))
}

/// `run` in a container that runs.
pub(super) fn run(args: &RunArgs, paths: &HostPaths, out: &Output) -> u8 {
    let name = args.inside.as_deref().unwrap_or_default();
    let session = Session::Command(args.command.clone());
    attach(out, |attached| ops::session(name, &session, terminal(), attached, paths))
}

pub(super) fn root_login(args: &LoginArgs, paths: &HostPaths, out: &Output) -> u8 {
    attach(out, |attached| ops::session(&args.name, &Session::RootShell, terminal(), attached, paths))
}

/// On a terminal of its own in any case, without which nobody is asked anything.
pub(super) fn login(args: &LoginArgs, paths: &HostPaths, out: &Output) -> u8 {
    attach(out, |attached| ops::session(&args.name, &Session::Prompt, true, attached, paths))
}

/// Connects our streams and signals with a command inside, to its end; its status is ours.
fn attach(out: &Output, run: impl FnOnce(&Attached<'_>) -> Result<Ended, Error>) -> u8 {
    match attached(run) {
        Ok(Ended::Exited(status)) => u8::try_from(status).unwrap_or(exit::FAILURE),
        Ok(Ended::Killed(signal)) => exit::of_signal(signal),
        Err(error) => {
            let code = match error.payload_missing() {
                Some(true) => exit::NOT_FOUND,
                Some(false) => exit::NOT_EXECUTABLE,
                None => exit::EXEC_FAILED,
            };
            out.error(error);
            code
        }
    }
}

fn attached(run: impl FnOnce(&Attached<'_>) -> Result<Ended, Error>) -> Result<Ended, Error> {
    // SIGTSTP, too: a Ctrl-Z is for the command, as a Ctrl-C is.
    let forwarded =
        [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGTSTP, Signal::SIGWINCH];
    let signals = signals::take(&forwarded)?;
    let (stdin, stdout) = (io::stdin(), io::stdout());
    run(&Attached {
        signals: Some(&signals),
        output: Some(stdout.as_fd()),
        input: Some(stdin.as_fd()),
        grace: Duration::MAX,
    })
}
