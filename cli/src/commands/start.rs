//! `nixrun start`: the same as `boot`, in a process of its own that stays behind.

use std::fs::{self, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use runtime::{Console, HostPaths};

use super::Result;
use crate::args::{AutostartArgs, Global, RestartArgs, StartArgs, TerminateArgs};
use crate::exit;
use crate::ops::{self, BootOptions, Error, Planned};
use crate::output::Output;

/// How often to look whether the background process has ended before it was ready.
const LOOK: Duration = Duration::from_millis(50);
/// How often to try to bind the notify socket while other starts come and go.
const BIND_TRIES: u32 = 100;
/// A log longer than this, in bytes, makes way at the next start: one older one is kept.
const LONGEST_LOG: u64 = 16 << 20;
/// How much of the end of a log is searched for its last line, in bytes.
const LOG_END: u64 = 64 * 1024;

pub(super) fn start(args: &StartArgs, global: &Global, paths: &HostPaths, out: &Output) -> Result {
    if let Some(error) = ops::already_running(&args.name, paths) {
        return Err(error);
    }
    // Whatever is wrong with the configuration is said here, not in a log.
    let options = BootOptions { nat: args.nat.nat.clone(), console: None };
    let request = ops::boot_request(&args.name, &options, Console::ReadOnly, paths)?;
    Planned::new(&request, paths)?;
    let directory = paths.join("/run/nixrun/.start");
    let socket_path = directory.join(format!("start-{}", std::process::id()));
    let socket = bind(&socket_path, &directory).map_err(|error| {
        Error::Other(format!("cannot bind a notify socket at {}: {error}", socket_path.display()))
    })?;
    let result = background(args, global, paths, &socket_path).and_then(|(mut child, log)| {
        let result = wait(args, paths, &socket, &mut child, &log);
        if result.is_ok() {
            out.info(format_args!(
                "Container {} is ready; its console is logged to {}.",
                args.name,
                log.display()
            ));
        }
        result
    });
    let _ = fs::remove_file(&socket_path);
    let _ = fs::remove_dir(&directory);
    // With the container that could not start the directory of all of them is ours to remove, if it was the last.
    let _ = directory.parent().map(fs::remove_dir);
    result.map(|()| exit::SUCCESS)
}

fn bind(path: &std::path::Path, directory: &std::path::Path) -> std::io::Result<UnixDatagram> {
    // Of a start that was killed, when our process id has come round again.
    let _ = fs::remove_file(path);
    for _ in 0..BIND_TRIES {
        // NotFound: the last of other starts removes the directory, here between two of our steps.
        match fs::create_dir_all(directory).and_then(|()| UnixDatagram::bind(path)) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            result => return result,
        }
    }
    UnixDatagram::bind(path)
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
    // What a console shows is not for everybody.
    if fs::metadata(&log).is_ok_and(|found| found.len() > LONGEST_LOG) {
        fs::rename(&log, log.with_extension("log.1")).map_err(failed)?;
    }
    let file = OpenOptions::new().create(true).append(true).mode(0o640).open(&log).map_err(failed)?;
    let copy = file.try_clone().map_err(failed)?;
    let child = Command::new("/proc/self/exe")
        .arg("boot")
        .arg("--host-root")
        .arg(&global.host_root)
        .args(args.nat.nat.iter().flat_map(|nat| ["--nat".to_owned(), nat.to_string()]))
        .arg("--background")
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
    paths: &HostPaths,
    socket: &UnixDatagram,
    child: &mut Child,
    log: &std::path::Path,
) -> std::result::Result<(), Error> {
    let failed =
        |error: std::io::Error| Error::Other(format!("cannot wait for container {}: {error}", args.name));
    socket.set_read_timeout(Some(LOOK)).map_err(failed)?;
    let deadline = Instant::now() + Duration::from_secs(args.timeout);
    let mut buffer = [0; 4096];
    loop {
        // What else comes, even without end, does not put the deadline off.
        let message =
            socket.recv(&mut buffer).ok().and_then(|length| buffer.get(..length)).unwrap_or_default();
        if message.split(|b| *b == b'\n').any(|line| line == b"READY=1") {
            return Ok(());
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
            let left = match ops::reclaim(Some(&args.name), paths) {
                Ok(_) => String::new(),
                Err(error) => format!("; cleaning up failed: {error}"),
            };
            return Err(Error::Other(format!(
                "container {} was not ready within {} s and was ended; its log is {}{left}",
                args.name,
                args.timeout,
                log.display()
            )));
        }
    }
}

fn last_line(log: &std::path::Path) -> String {
    let mut bytes = Vec::new();
    let _ = fs::File::open(log).and_then(|mut file| {
        let length = file.seek(SeekFrom::End(0))?;
        file.seek(SeekFrom::Start(length.saturating_sub(LOG_END)))?;
        file.read_to_end(&mut bytes)
    });
    let text = String::from_utf8_lossy(&bytes);
    let line = text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("its log is empty");
    // The container wrote it: no escape sequence of its goes to the administrator's terminal.
    line.strip_prefix("nixrun: ").unwrap_or(line).replace(char::is_control, "")
}

pub(super) fn restart(_args: &RestartArgs, _global: &Global, _paths: &HostPaths, _out: &Output) -> Result {
    super::missing("restart")
}

pub(super) fn terminate(_args: &TerminateArgs, _paths: &HostPaths, _out: &Output) -> Result {
    super::missing("terminate")
}

pub(super) fn autostart(
    _args: &AutostartArgs,
    _global: &Global,
    _paths: &HostPaths,
    _out: &Output,
) -> Result {
    super::missing("autostart")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_of_any_log_is_text() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        assert_eq!(last_line(&log), "its log is empty");
        fs::write(&log, b"\xff\xfe\nnixrun: it \x1b[31mfailed\x07\r\n \n").unwrap();
        assert_eq!(last_line(&log), "it [31mfailed");
    }

    #[test]
    fn a_socket_of_a_killed_start_is_no_obstacle() {
        let dir = tempfile::tempdir().unwrap();
        let (directory, path) = (dir.path().join("a/.start"), dir.path().join("a/.start/start-1"));
        drop(bind(&path, &directory).unwrap());
        assert!(path.exists());
        bind(&path, &directory).unwrap();
    }
}
