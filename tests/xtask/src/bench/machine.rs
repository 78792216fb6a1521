//! Where and with what it was measured.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde::Serialize;

use crate::Result;

/// The machine, the date and the versions.
#[derive(Debug, Serialize)]
pub(super) struct Machine {
    /// In UTC, to the minute.
    pub(super) date: String,
    pub(super) cpu: String,
    pub(super) cpus: usize,
    pub(super) kernel: String,
    /// Load average of the last minute when the measurement began.
    pub(super) load: f64,
    /// First line of each program's `--version`.
    pub(super) versions: Vec<(String, String)>,
}

impl Machine {
    pub(super) fn read(nixrun: &Path) -> Result<Machine> {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo")?;
        let field = |name: &str| {
            let line = cpuinfo.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.split_once(": ")).map(|(_, value)| value.trim().to_owned())
        };
        let programs =
            [nixrun, "bwrap".as_ref(), "crun".as_ref(), "runc".as_ref(), "systemd-nspawn".as_ref()];
        let versions = programs.iter().map(|program| version(program)).collect::<Result<_>>()?;
        Ok(Machine {
            date: first_line(Command::new("date").args(["-u", "+%Y-%m-%d %H:%M"]))?,
            cpu: field("model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            cpus: std::thread::available_parallelism()?.get(),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            load: fs::read_to_string("/proc/loadavg")?.split(' ').next().unwrap_or_default().parse()?,
            versions,
        })
    }

    /// Whether something else keeps a processor busy: medians are then those of waiting for it.
    pub(super) fn is_busy(&self) -> bool {
        self.load > 0.5
    }

    pub(super) fn warn(&self) {
        if self.is_busy() {
            eprintln!(
                "cargo xtask bench: the load average is {}: something else runs here, so the figures are too high \
                 and the ratios rough",
                self.load
            );
        }
    }
}

fn version(program: &Path) -> Result<(String, String)> {
    let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let line = first_line(Command::new(program).arg("--version"))?;
    let version = line.split(' ').find(|word| word.starts_with(|c: char| c.is_ascii_digit()));
    Ok((name, version.unwrap_or(&line).to_owned()))
}

fn first_line(command: &mut Command) -> Result<String> {
    let output = command.output().map_err(|error| format!("cannot run {command:?}: {error}"))?;
    Ok(String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().trim().to_owned())
}
