//! `nixrun start`: the same as `boot`, in a process of its own that stays behind.

use std::fs::{self, OpenOptions};
use std::io::Read;
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use runtime::{Console, HostPaths};

use super::Result;
use crate::args::{Global, StartArgs};
use crate::ops::{self, Error, Planned};
use crate::output::Output;
use crate::exit;

/// How often to look whether the background process has ended before it was ready.
const LOOK: Duration = Duration::from_millis(50);

pub(super) fn start(args: &StartArgs, global: &Global, paths: &HostPaths, out: &Output) -> Result {
    if let Some(error) = ops::already_running(&args.name, paths) {
        return Err(error);
    }
    // Whatever is wrong with the configuration is said here, not in a log.
    let request = ops::boot_request(&args.name, args.nat.nat.clone(), Console::ReadOnly, paths)?;
    Planned::new(&request, paths)?;
    let directory = tempdir(paths)?;
    let socket_path = directory.join(format!("start-{}", std::process::id()));
    let failed = |what: &str, error: std::io::Error| Error::Other(format!("cannot {what}: {error}"));
    let socket = UnixDatagram::bind(&socket_path).map_err(|error| failed("bind a notify socket", error))?;
    let result = background(args, global, paths, &socket_path).and_then(|(mut child, log)| {
        let result = wait(args, &socket, &mut child, &log);
        if result.is_ok() {
            out.info(format_args!("Container {} is ready; its console is logged to {}.", args.name, log.display()));
        }
        result
    });
    let _ = fs::remove_file(&socket_path);
    let _ = fs::remove_dir(&directory);
    // With the container that could not start the directory of all of them is ours to remove, if it was the last.
    let _ = directory.parent().map(fs::remove_dir);
    result.map(|()| exit::SUCCESS)
}

fn tempdir(paths: &HostPaths) -> std::result::Result<std::path::PathBuf, Error> {
    let directory = paths.join("/run/nixrun/.start");
    fs::create_dir_all(&directory)
        .map_err(|error| Error::Other(format!("cannot make {}: {error}", directory.display())))?;
    Ok(directory)
}

fn background(
    args: &StartArgs,
    global: &Global,
    paths: &HostPaths,
    socket: &std::path::Path,
) -> std::result::Result<(Child, std::path::PathBuf), Error> {
    let directory = paths.join("/var/log/nixrun");
    let log = directory.join(format!("{}.log", args.name));
    let failed = |error| Error::Other(format!("cannot write the log {}: {error}", log.display()));
    fs::create_dir_all(&directory).map_err(failed)?;
    let file = OpenOptions::new().create(true).append(true).open(&log).map_err(failed)?;
    let copy = file.try_clone().map_err(failed)?;
    let child = Command::new("/proc/self/exe")
        .arg("boot")
        .arg("--host-root")
        .arg(&global.host_root)
        .arg("--nat")
        .arg(args.nat.nat.to_string())
        .args(["--console=read-only", "--background"])
        .arg("--")
        .arg(&args.name)
        .env("NOTIFY_SOCKET", socket)
        .stdin(Stdio::null())
        .stdout(file)
        .stderr(copy)
        .spawn()
        .map_err(|error| Error::Other(format!("cannot start nixrun in the background: {error}")))?;
    Ok((child, log))
}

fn wait(
    args: &StartArgs,
    socket: &UnixDatagram,
    child: &mut Child,
    log: &std::path::Path,
) -> std::result::Result<(), Error> {
    let failed = |error: std::io::Error| Error::Other(format!("cannot wait for container {}: {error}", args.name));
    socket.set_read_timeout(Some(LOOK)).map_err(failed)?;
    let deadline = Instant::now() + Duration::from_secs(args.timeout);
    let mut buffer = [0; 4096];
    loop {
        if let Ok(length) = socket.recv(&mut buffer) {
            if buffer.get(..length).unwrap_or_default().split(|b| *b == b'\n').any(|line| line == b"READY=1") {
                return Ok(());
            }
            continue;
        }
        if let Some(status) = child.try_wait().map_err(failed)? {
            return Err(Error::Other(format!(
                "container {} ended before it was ready ({status}): {}",
                args.name,
                last_line(log)
            )));
        }
        if Instant::now() >= deadline {
            // SIGTERM first would wait for a shutdown that may not come: its end is what was asked for.
            let _ = child.kill();
            let _ = child.wait();
            return Err(Error::Other(format!(
                "container {} was not ready within {} s and was ended; its log is {}",
                args.name,
                args.timeout,
                log.display()
            )));
        }
    }
}

fn last_line(log: &std::path::Path) -> String {
    let mut text = String::new();
    let _ = fs::File::open(log).and_then(|mut file| file.read_to_string(&mut text));
    let line = text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("its log is empty");
    line.strip_prefix("nixrun: ").unwrap_or(line).to_owned()
}
