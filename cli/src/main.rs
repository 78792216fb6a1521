//! The nixrun command.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use nixrun::{args, commands, completion, output};
use runtime::sys::alloc::Bump;

#[global_allocator]
static ALLOCATOR: Bump = Bump::new();

fn main() -> ExitCode {
    ALLOCATOR.populate();
    let words: Vec<_> = std::env::args_os().collect();
    if let Some(call) = args::Call::of_nspawn(&words) {
        return ExitCode::from(commands::nspawn(call));
    }
    if let Some(call) = args::Call::of_nixos_container(&words) {
        return ExitCode::from(commands::nixos_container(&call));
    }
    if let Some(asked) = std::env::var_os(completion::VARIABLE) {
        return ExitCode::from(commands::complete(&asked, &words));
    }
    ExitCode::from(match args::parse(words) {
        Ok(invocation) => commands::dispatch(invocation),
        Err(message) => output::usage(&message),
    })
}
