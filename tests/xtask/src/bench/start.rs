//! From `posix_spawn` of a runtime to its exit, around a program that only exits.

mod tools;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::Binaries;
use crate::Result;
use tools::{Tool, Tools};

/// What the container's network is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Network {
    /// A network namespace of its own with nothing but loopback.
    Loopback,
    /// The host's.
    Host,
    /// A veth pair, masquerade and one forwarded port.
    Veth,
}

/// One program's figure.
#[derive(Debug, Serialize)]
pub(super) struct Start {
    pub(super) tool: &'static str,
    pub(super) network: Network,
    pub(super) median_us: f64,
    /// A tenth of the runs were faster than this.
    pub(super) fast_us: f64,
    pub(super) rounds: usize,
}

/// How long the machine rests between two runs: the kernel frees namespaces in the background, and the next run is
/// not to pay for the one before.
const REST: Duration = Duration::from_millis(25);

/// Runs every program once a round, beginning with another one each time.
pub(super) fn measure(binaries: &Binaries, group: &Path, rounds: usize) -> Result<Vec<Start>> {
    let directory = tempfile::tempdir()?;
    let root = directory.path().join("root");
    make_root(&root, &binaries.exit)?;
    let mut tools = Tools::new(binaries, directory.path(), &root, group)?.all()?;
    for tool in &mut tools {
        rest()?;
        check(tool)?;
    }
    let mut times = vec![Vec::with_capacity(rounds); tools.len()];
    for round in 0..rounds {
        for index in 0..tools.len() {
            let index = (index + round) % tools.len();
            rest()?;
            times[index].push(once(&mut tools[index])?);
        }
    }
    let starts = tools.iter().zip(times).map(|(tool, mut times)| {
        times.sort();
        let us = |at: usize| times.get(at).map_or(f64::NAN, |time| time.as_secs_f64() * 1e6);
        let (median_us, fast_us) = (us(times.len() / 2), us(times.len() / 10));
        Start { tool: tool.name, network: tool.network, median_us, fast_us, rounds }
    });
    Ok(starts.collect())
}

/// Rests, and waits until the link of the last container is gone: until then its addresses are taken.
fn rest() -> Result<()> {
    std::thread::sleep(REST);
    // The calling thread's network namespace is the one to look at.
    while fs::read_to_string("/proc/thread-self/net/dev")?.contains("ve-") {
        std::thread::sleep(REST);
    }
    Ok(())
}

/// A root with what every runtime expects of one: mount points, and something like an operating system.
fn make_root(root: &Path, exit: &Path) -> Result<()> {
    for name in ["dev", "etc", "proc", "run", "sys", "tmp", "usr", "var"] {
        fs::create_dir_all(root.join(name))?;
    }
    fs::write(root.join("etc/os-release"), "ID=bench\n")?;
    fs::copy(exit, root.join("exit"))?;
    fs::set_permissions(root.join("exit"), fs::Permissions::from_mode(0o755))?;
    Ok(())
}

/// A run that nobody times, and whose words are heard when it fails.
fn check(tool: &mut Tool) -> Result<()> {
    tool.ready()?;
    let output = tool.command.stderr(Stdio::piped()).output()?;
    tool.command.stderr(Stdio::null());
    if output.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(format!("{} ({:?}) failed in a trial run, {}: {words}", tool.name, tool.network, output.status)
        .into())
}

fn once(tool: &mut Tool) -> Result<Duration> {
    tool.ready()?;
    let began = Instant::now();
    let status = tool.command.status()?;
    let time = began.elapsed();
    if status.success() {
        return Ok(time);
    }
    Err(format!("{} ({:?}) failed while it was measured: {status}", tool.name, tool.network).into())
}

/// A program with an environment that all share, its standard streams nowhere.
fn command(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}
