//! `cargo xtask demo`: the sample container, booted and shown.

mod check;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fixture::{Fixture, Kind};

use crate::Result;
use crate::vm::{NIXRUN_TARGET, build, require_rust_target};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Do it unattended, on a host of its own made of namespaces, check everything, and leave nothing
    #[arg(long)]
    check: bool,
    /// Build nixrun without optimisation, which takes a fraction of the time
    #[arg(long)]
    debug: bool,
}

/// The sample container.
const NAME: &str = "nextcloud";
/// How long it may take to get ready on a busy machine: its first boot creates a database.
const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    if !nix::unistd::geteuid().is_root() {
        return Err("the demo needs root: it boots a container".into());
    }
    let begun = Instant::now();
    let nixrun = build_nixrun(args.debug)?;
    let built = begun.elapsed();
    let fixture = fixture::build(Kind::Web, 1)?;
    let sample = begun.elapsed() - built;
    if args.check {
        println!("{}", check::check(&nixrun, &fixture)?);
        return Ok(ExitCode::SUCCESS);
    }
    println!("built nixrun in {} and the sample container in {}", seconds(built), seconds(sample));
    show(&nixrun, &fixture)
}

pub(crate) fn build_nixrun(debug: bool) -> Result<PathBuf> {
    require_rust_target(NIXRUN_TARGET)?;
    let mut arguments = vec!["build", "--package", "nixrun", "--bin", "nixrun", "--target", NIXRUN_TARGET];
    if !debug {
        println!("building nixrun with all optimisations, which takes a minute or two the first time");
        arguments.push("--release");
    }
    let built = build(&arguments, "bin")?;
    built.into_iter().next().map(|(_, path)| path).ok_or_else(|| "cargo built no nixrun".into())
}

/// Boots the container on this very host and stays until Ctrl-C, which the terminal sends to nixrun as well.
fn show(nixrun: &Path, fixture: &Fixture) -> Result<ExitCode> {
    let host_root = Path::new("target/demo").to_path_buf();
    fs::create_dir_all(&host_root)?;
    fixture::install(fixture, &host_root, NAME)?;
    let host_root = fs::canonicalize(host_root)?;
    // The host's own /run, so that nixrun sees whether systemd runs here.
    let _ = fs::remove_dir(host_root.join("run"));
    let _ = std::os::unix::fs::symlink("/run", host_root.join("run"));
    // The shell delivers Ctrl-C to the whole group; nixrun acts on it, and we wait for nixrun. SIGTERM is for us
    // alone, and passed on.
    let (interrupted, terminated) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    signal_hook::flag::register(signal_hook::consts::SIGINT, interrupted)?;
    signal_hook::flag::register(signal_hook::consts::SIGTERM, terminated.clone())?;
    let log = host_root.join("console.log");
    let mut booted = Booted::start(nixrun, &host_root, &log)?;
    let ready = booted.wait_ready()?;
    let answer = wait_for_page("127.0.0.1:8080", PATIENCE)?;
    let page = booted.begun.elapsed();
    println!("{NAME} was ready {} after `nixrun boot {NAME}`, its page {}", seconds(ready), seconds(page));
    println!("  open        http://127.0.0.1:8080/   (it says {})", answer.trim());
    println!(
        "  look inside {} --host-root {} exec {NAME} -- systemctl status",
        nixrun.display(),
        host_root.display()
    );
    println!("  console     {}", log.display());
    println!("Ctrl-C shuts it down.");
    let status = loop {
        if let Some(status) = booted.child.try_wait()? {
            break status;
        }
        if terminated.swap(false, Ordering::Relaxed) {
            booted.terminate()?;
        }
        std::thread::sleep(Duration::from_millis(100));
    };
    println!("{NAME} was shut down ({status}).");
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A `nixrun boot` in the background.
struct Booted {
    child: Child,
    begun: Instant,
    socket: UnixDatagram,
    path: PathBuf,
    log: PathBuf,
}

impl Booted {
    fn start(nixrun: &Path, host_root: &Path, log: &Path) -> Result<Booted> {
        let path = host_root.join(format!("notify-{}", std::process::id()));
        let socket = UnixDatagram::bind(&path)?;
        socket.set_read_timeout(Some(Duration::from_millis(50)))?;
        let file = fs::File::create(log)?;
        let begun = Instant::now();
        let child = Command::new(nixrun)
            .arg("--host-root")
            .arg(host_root)
            .args(["boot", NAME])
            .env("NOTIFY_SOCKET", &path)
            .stdin(std::process::Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()?;
        Ok(Booted { child, begun, socket, path, log: log.to_path_buf() })
    }

    /// How long the container took to say that it is ready.
    fn wait_ready(&mut self) -> Result<Duration> {
        let mut buffer = [0; 4096];
        while self.begun.elapsed() < PATIENCE {
            if let Ok(length) = self.socket.recv(&mut buffer) {
                if buffer[..length].split(|byte| *byte == b'\n').any(|line| line == b"READY=1") {
                    return Ok(self.begun.elapsed());
                }
            } else if let Some(status) = self.child.try_wait()? {
                return Err(format!("nixrun ended before {NAME} was ready ({status}): {}", self.log()).into());
            }
        }
        Err(format!("{NAME} was not ready within {}: {}", seconds(PATIENCE), self.log()).into())
    }

    /// Asks nixrun to shut the container down, by its pid, and waits.
    fn stop(mut self) -> Result<(ExitStatus, Duration)> {
        let begun = Instant::now();
        self.terminate()?;
        let status = self.child.wait()?;
        Ok((status, begun.elapsed()))
    }

    fn terminate(&self) -> Result<()> {
        let pid = nix::unistd::Pid::from_raw(self.child.id().try_into()?);
        Ok(nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM)?)
    }

    fn log(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }
}

impl Drop for Booted {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
        // Reaped already unless an error is on its way out.
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// The body of `GET /`, as soon as it is a 200.
fn wait_for_page(address: &str, patience: Duration) -> Result<String> {
    let begun = Instant::now();
    loop {
        let error = match get(address, "/") {
            Ok(body) => return Ok(body),
            Err(error) => error,
        };
        if begun.elapsed() > patience {
            return Err(
                format!("http://{address}/ gave no page within {}: {error}", seconds(patience)).into()
            );
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

pub(crate) fn get(address: &str, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&address.parse()?, Duration::from_secs(2))?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {NAME}\r\n\r\n")?;
    let mut response = String::new();
    stream.read_to_string(&mut response)?;
    let (head, body) = response.split_once("\r\n\r\n").ok_or("an answer that is no HTTP")?;
    match head.split(' ').nth(1) {
        Some("200") => Ok(body.to_owned()),
        _ => Err(format!("status {:?}", head.lines().next().unwrap_or_default()).into()),
    }
}

fn seconds(duration: Duration) -> String {
    format!("{:.2} s", duration.as_secs_f64())
}
