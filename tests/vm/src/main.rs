//! `vm-runner BINARY [ARGUMENT...]`: runs a test binary in a fresh virtual machine and ends with its status.
//!
//! Made to be cargo's target runner:
//! ```sh
//! export CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER=target/debug/vm-runner
//! cargo nextest run -p vm --test '*'      # a machine for each test
//! cargo test -p vm --test '*'             # a machine for each file
//! ```
//! Environment: `NIXRUN_VM` the cache directory (target/vm); `NIXRUN_VM_FILES` files to put beside the binary,
//! separated by colons; `NIXRUN_VM_CLOSURE` the closure's disk; `NIXRUN_VM_TIMEOUT` seconds (240).

#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use vm::{Cache, Error, Runner};

/// Not a status that libtest gives: the machine failed, not the test.
const NO_RESULT: u8 = 125;

fn main() -> ExitCode {
    match run() {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            #[expect(clippy::print_stderr, reason = "the program's one message")]
            {
                eprintln!("vm-runner: {error}");
            }
            ExitCode::from(NO_RESULT)
        }
    }
}

fn run() -> Result<u8, Error> {
    let mut arguments = std::env::args_os().skip(1);
    let Some(binary) = arguments.next().map(PathBuf::from) else {
        return Err(Error::Input("usage: vm-runner BINARY [ARGUMENT...]".into()));
    };
    let arguments: Vec<OsString> = arguments.collect();
    if arguments.iter().any(|argument| argument == "--list") {
        // Listing runs no test, and a machine would make it a hundred times slower.
        let source = Command::new(&binary).args(arguments).exec();
        return Err(Error::Start { doing: "list the tests", program: binary.display().to_string(), source });
    }
    let arguments: Vec<String> =
        arguments.iter().map(|argument| argument.to_string_lossy().into_owned()).collect();
    let runner = Runner::open(Cache::open(&vm::cache::default_directory())?)?;
    let mut files = vec![binary.clone()];
    if let Some(more) = std::env::var_os("NIXRUN_VM_FILES") {
        files.extend(std::env::split_paths(&more));
    }
    let closure = std::env::var_os("NIXRUN_VM_CLOSURE").map(PathBuf::from);
    let payload = runner.payload(&files)?;
    let ended = runner.run_binary(&payload, closure.as_deref(), &binary, &arguments, std::io::stdout())?;
    ended.status
}
