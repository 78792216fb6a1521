//! From the start of a runtime to the container's READY=1, of roots that have booted before.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fixture::{Fixture, Kind, nspawn};
use nix::mount::{MsFlags, mount};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Serialize;

use crate::Result;

/// Medians of one sample container.
#[derive(Debug, Serialize)]
pub(super) struct Boot {
    pub(super) fixture: String,
    pub(super) nixrun_ms: f64,
    pub(super) nspawn_ms: f64,
    pub(super) rounds: usize,
}

/// How long a container may take to get ready or to stop.
const PATIENCE: Duration = Duration::from_secs(120);
/// As between starts.
const REST: Duration = Duration::from_millis(200);

/// Boots mini and base under both runtimes in turn.
pub(super) fn measure(nixrun: &Path, rounds: usize) -> Result<Vec<Boot>> {
    [(Kind::Mini, 3 * rounds), (Kind::Base, rounds)]
        .into_iter()
        .map(|(kind, rounds)| one(nixrun, &fixture::build(kind, 1)?, rounds))
        .collect()
}

fn one(nixrun: &Path, fixture: &Fixture, rounds: usize) -> Result<Boot> {
    let directory = tempfile::tempdir()?;
    let hosts = ["nixrun", "nspawn"].map(|name| directory.path().join(name));
    for host in &hosts {
        fixture::install(fixture, host, &fixture.name)?;
        // As the real /run. Both are unmounted with the namespace.
        mount(Some("tmpfs"), &host.join("run"), Some("tmpfs"), MsFlags::empty(), Some("mode=755"))?;
    }
    let mut times = [Vec::new(), Vec::new()];
    // The first boots fill the roots and the page cache, and are not counted.
    for round in 0..=rounds {
        for turn in 0..2 {
            std::thread::sleep(REST);
            let which = (turn + round) % 2;
            let time = match which {
                0 => boot_nixrun(nixrun, fixture, &hosts[0])?,
                _ => boot_nspawn(fixture, &hosts[1])?,
            };
            if round > 0 {
                times[which].push(time);
            }
        }
    }
    let [nixrun_ms, nspawn_ms] = times.map(|mut times| {
        times.sort();
        times.get(times.len() / 2).map_or(f64::NAN, |time| time.as_secs_f64() * 1e3)
    });
    Ok(Boot { fixture: fixture.kind.clone(), nixrun_ms, nspawn_ms, rounds })
}

fn boot_nspawn(fixture: &Fixture, host: &Path) -> Result<Duration> {
    let container = nspawn::Container::boot(fixture, host)?;
    let time = container.ready_after;
    container.stop()?;
    Ok(time)
}

fn boot_nixrun(nixrun: &Path, fixture: &Fixture, host: &Path) -> Result<Duration> {
    let socket_path = Path::new("/run/nixrun-bench-notify");
    let socket = UnixDatagram::bind(socket_path)?;
    socket.set_read_timeout(Some(Duration::from_millis(500)))?;
    let log = fs::File::create(host.join("console"))?;
    let began = Instant::now();
    let mut child = Command::new(nixrun)
        .arg("--host-root")
        .arg(host)
        .args(["boot", "--console=read-only", &fixture.name])
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("NOTIFY_SOCKET", socket_path)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()?;
    let ready = wait_ready(&socket, &mut child, began);
    // What the container says from here on goes nowhere, instead of filling a queue that nobody reads.
    fs::remove_file(socket_path)?;
    drop(socket);
    // Whatever came of it, the container ends.
    let signal = if ready.is_ok() { Signal::SIGTERM } else { Signal::SIGKILL };
    kill(Pid::from_raw(child.id() as i32), signal)?;
    let status = child.wait()?;
    let ready = ready.map_err(|error| {
        let console = fs::read_to_string(host.join("console")).unwrap_or_default();
        format!("{error}: {}", console.trim_end().lines().last().unwrap_or_default())
    })?;
    if !status.success() {
        return Err(format!("nixrun boot {} ended with {status}", fixture.name).into());
    }
    Ok(ready)
}

fn wait_ready(socket: &UnixDatagram, child: &mut Child, began: Instant) -> Result<Duration> {
    let mut buffer = [0; 4096];
    while began.elapsed() < PATIENCE {
        if let Ok(length) = socket.recv(&mut buffer) {
            if buffer[..length].split(|byte| *byte == b'\n').any(|line| line == b"READY=1") {
                return Ok(began.elapsed());
            }
        } else if let Some(status) = child.try_wait()? {
            return Err(format!("nixrun boot ended with {status} before the container was ready").into());
        }
    }
    Err("the container was not ready in time".into())
}
