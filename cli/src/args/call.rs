//! Command lines that clap does not read.

use std::ffi::OsString;
use std::path::Path;

use super::{Global, NspawnArgs};
use crate::nixos_container;
use crate::systemd_nspawn::PROGRAM;

/// A call in the manner of systemd-nspawn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// What getopt's messages and `--help` call the program.
    pub program: String,
    /// Options of every command.
    pub global: Global,
    /// The words behind the program's name.
    pub words: Vec<OsString>,
}

impl Call {
    /// Recognises one without clap: `systemd-nspawn …`, or `nixrun nspawn …` with options of every command before
    /// `nspawn`.
    #[must_use]
    pub fn of_nspawn(words: &[OsString]) -> Option<Call> {
        Call::of(words, PROGRAM, "nspawn")
    }

    /// The same of `nixos-container …` and `nixrun nixos-container …`.
    #[must_use]
    pub fn of_nixos_container(words: &[OsString]) -> Option<Call> {
        Call::of(words, nixos_container::PROGRAM, nixos_container::PROGRAM)
    }

    fn of(words: &[OsString], name: &str, command: &str) -> Option<Call> {
        let (program, mut rest) = words.split_first()?;
        let mut global = Global { host_root: "/".into(), verbose: 0, quiet: false };
        if Path::new(program).file_name() == Some(name.as_ref()) {
            let program = program.to_string_lossy().into_owned();
            return Some(Call { program, global, words: rest.to_vec() });
        }
        loop {
            let (word, behind) = rest.split_first()?;
            rest = behind;
            match word.to_str()? {
                word if word == command => {
                    return Some(Call {
                        words: rest.to_vec(),
                        ..Call::of_command(&global, Default::default())
                    });
                }
                "--host-root" => {
                    let (root, behind) = rest.split_first()?;
                    (global.host_root, rest) = (root.into(), behind);
                }
                "-v" | "--verbose" => global.verbose = global.verbose.saturating_add(1),
                "-q" | "--quiet" => global.quiet = true,
                _ => return None,
            }
        }
    }

    /// What clap has read.
    #[must_use]
    pub fn of_command(global: &Global, args: NspawnArgs) -> Call {
        Call { program: "nixrun nspawn".to_owned(), global: global.clone(), words: args.words }
    }
}
