//! The nixrun command.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use nixrun::{args, commands, output};
use runtime::sys::alloc::Bump;

#[global_allocator]
static ALLOCATOR: Bump = Bump::new();

fn main() -> ExitCode {
    ALLOCATOR.populate();
    ExitCode::from(match args::parse(std::env::args_os()) {
        Ok(invocation) => commands::dispatch(invocation),
        Err(message) => output::usage(&message),
    })
}
