//! `nixrun exec`.

use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::time::Duration;

use nix::sys::signal::Signal;
use runtime::HostPaths;
use runtime::supervisor::Attached;
use runtime::sys::process::Ended;

use super::signals;
use crate::args::ExecArgs;
use crate::exit;
use crate::nspawn::SetEnv;
use crate::ops::{self, Error, ExecRequest};
use crate::output::Output;

pub(super) fn exec(args: &ExecArgs, paths: &HostPaths, out: &Output) -> u8 {
    match attempt(args, paths) {
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

fn attempt(args: &ExecArgs, paths: &HostPaths) -> Result<Ended, Error> {
    let request = ExecRequest {
        name: args.name.clone(),
        argv: args.command.clone(),
        env: args.setenv.iter().map(SetEnv::resolve).collect(),
        cwd: args.chdir.clone(),
        terminal: io::stdin().is_terminal() && io::stdout().is_terminal(),
    };
    // SIGTSTP, too: while we are stopped nobody reaps the command, and until then the kernel lets the container's PID 1
    // not end; a Ctrl-Z here would hold up a stop there.
    let forwarded =
        [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGTSTP, Signal::SIGWINCH];
    let signals = signals::take(&forwarded)?;
    let (stdin, stdout) = (io::stdin(), io::stdout());
    let attached = Attached {
        signals: Some(&signals),
        output: Some(stdout.as_fd()),
        input: Some(stdin.as_fd()),
        grace: Duration::MAX,
    };
    ops::exec(&request, &attached, paths)
}
