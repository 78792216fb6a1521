//! The console of a container that `start` began: a file on the host, with what the container printed.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use runtime::HostPaths;

use super::line::LogLine;
use crate::ops::{Error, Result};

/// How much is read at a time, in bytes; a longer line is shown in parts.
const CHUNK: usize = 64 << 10;

/// A log file that is read, and followed when a new one takes its place.
#[derive(Debug)]
pub(super) struct ConsoleLog {
    path: PathBuf,
    file: File,
    position: u64,
    changes: Option<Inotify>,
}

impl ConsoleLog {
    pub(super) fn open(name: &str, backlog: Option<usize>, paths: &HostPaths) -> Result<ConsoleLog> {
        let path = paths.join("/var/log/nixrun").join(format!("{name}.log"));
        let file = File::open(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Error::Other(format!(
                "container {name} has logged nothing that can be found: it has no journal, and its console goes to whoever \
                 started it; `nixrun start {name}` keeps it in {}",
                path.display()
            )),
            _ => failed(&path, &error),
        })?;
        let position = match backlog {
            Some(lines) => tail(&file, lines).map_err(|error| failed(&path, &error))?,
            None => 0,
        };
        Ok(ConsoleLog { path, file, position, changes: None })
    }

    pub(super) fn read(&mut self, each: &mut dyn FnMut(&LogLine) -> Result<()>) -> Result<()> {
        if let Some(changes) = &self.changes {
            while changes.read_events().is_ok() {}
        }
        loop {
            self.read_file(each)?;
            // `start` puts a file that has grown too long aside.
            let ours = self.file.metadata().map(|found| found.ino());
            let Ok(file) = File::open(&self.path) else { return Ok(()) };
            if file.metadata().map(|found| found.ino()).ok() == ours.ok() {
                return Ok(());
            }
            (self.file, self.position, self.changes) = (file, 0, None);
        }
    }

    fn read_file(&mut self, each: &mut dyn FnMut(&LogLine) -> Result<()>) -> Result<()> {
        let length = self.file.metadata().map_err(|error| failed(&self.path, &error))?.len();
        if length < self.position {
            self.position = 0;
        }
        let mut chunk = vec![0; CHUNK];
        loop {
            let filled =
                fill(&self.file, self.position, &mut chunk).map_err(|error| failed(&self.path, &error))?;
            let read = &chunk[..filled];
            let whole = match read.iter().rposition(|byte| *byte == b'\n') {
                Some(end) => end + 1,
                None if filled == CHUNK => CHUNK,
                // The rest of the line has not been written yet.
                None => return Ok(()),
            };
            for line in
                read[..whole].strip_suffix(b"\n").unwrap_or(&read[..whole]).split(|byte| *byte == b'\n')
            {
                each(&LogLine { message: String::from_utf8_lossy(line).into_owned(), ..LogLine::default() })?;
            }
            self.position += whole as u64;
        }
    }

    pub(super) fn changes(&mut self) -> Vec<BorrowedFd<'_>> {
        if self.changes.is_none() {
            let changes = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).ok();
            let what = AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_MOVE_SELF;
            self.changes = changes.filter(|changes| changes.add_watch(&self.path, what).is_ok());
        }
        self.changes.iter().map(AsFd::as_fd).collect()
    }
}

/// Where the last lines begin.
fn tail(file: &File, lines: usize) -> io::Result<u64> {
    let mut end = file.metadata()?.len();
    // The newline at the very end ends a line and begins none.
    let mut left = lines.saturating_add(1);
    let mut chunk = vec![0; CHUNK];
    while end > 0 {
        let begin = end.saturating_sub(CHUNK as u64);
        let length = (end - begin) as usize;
        let filled = fill(file, begin, &mut chunk[..length])?;
        for (at, _) in chunk[..filled].iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
            left -= 1;
            if left == 0 {
                return Ok(begin + at as u64 + 1);
            }
        }
        end = begin;
    }
    Ok(0)
}

fn fill(file: &File, position: u64, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], position + filled as u64) {
            Ok(0) => break,
            Ok(length) => filled += length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

fn failed(path: &std::path::Path, error: &io::Error) -> Error {
    Error::Other(format!("cannot read the log {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_log_is_read_from_its_last_lines_on_and_followed_into_the_next_file() {
        let dir = tempfile::tempdir().unwrap();
        let paths = HostPaths::below(dir.path());
        let path = paths.join("/var/log/nixrun/a.log");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        assert!(ConsoleLog::open("a", None, &paths).unwrap_err().to_string().contains("nixrun start a"));
        let long = "x".repeat(CHUNK + 7);
        fs::write(&path, format!("one\ntwo\n{long}\nthree\nfo")).unwrap();
        let read = |log: &mut ConsoleLog| {
            let mut lines = Vec::new();
            log.read(&mut |line| {
                lines.push(line.message.clone());
                Ok(())
            })
            .unwrap();
            lines
        };
        let all = read(&mut ConsoleLog::open("a", None, &paths).unwrap());
        assert_eq!(
            (&all[..2], all[2].len() + all[3].len()),
            (&["one".to_owned(), "two".to_owned()][..], long.len())
        );
        let mut log = ConsoleLog::open("a", Some(1), &paths).unwrap();
        assert_eq!(read(&mut log), ["three"]);
        let mut file = fs::OpenOptions::new().append(true).open(&path).unwrap();
        io::Write::write_all(&mut file, b"ur\nfive\n").unwrap();
        assert_eq!(read(&mut log), ["four", "five"]);
        fs::rename(&path, path.with_extension("log.1")).unwrap();
        io::Write::write_all(&mut file, b"six\n").unwrap();
        fs::write(&path, "seven\n").unwrap();
        assert_eq!(read(&mut log), ["six", "seven"]);
        assert_eq!(read(&mut ConsoleLog::open("a", Some(0), &paths).unwrap()), [""; 0]);
    }
}
