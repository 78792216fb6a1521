//! What happens to containers, told to whoever listens. Nothing is kept: `nixrun events`, or a program that embeds
//! nixrun, puts a FIFO into [`DIRECTORY`], and whoever does something to a container writes a line of JSON into each that
//! is there.
//!
//! A FIFO and no socket: it holds some hundred events for a reader that is late, where a datagram socket holds ten
//! (`net.unix.max_dgram_qlen`), and its path may have any length.

mod listener;
mod time;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::time::SystemTime;

use runtime::{HostPaths, Outcome};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use listener::{Listener, subscribe};
pub use time::rfc3339;

use crate::signals;

/// Where listeners have their FIFOs, below the host's root.
pub const DIRECTORY: &str = "/run/nixrun/.events";

/// The longest line that the kernel writes into a FIFO whole or not at all (pipe(7)).
const LONGEST: usize = libc::PIPE_BUF;

/// Something that happened to a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Event {
    /// When, as in RFC 3339, in UTC with microseconds.
    pub time: String,
    /// The container.
    pub name: String,
    /// What.
    pub event: Kind,
    /// More about it, such as how the container ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Kind {
    /// `create` or `import` made it.
    Created,
    /// Its PID 1 runs.
    Started,
    /// Its PID 1 said that it is ready.
    Ready,
    /// Its PID 1 ended, and it can be started again; the detail says how.
    Exited,
    /// The kernel killed processes of it for want of memory; the detail says how many.
    Oom,
    /// It is started again, by its restart policy or because it asked for a reboot.
    Restarted,
    /// It was frozen.
    Paused,
    /// It goes on.
    Resumed,
    /// It has another system, by `update` or `rollback`; the detail is its store path.
    Updated,
    /// Settings were changed by `set`.
    Changed,
    /// `destroy` removed it.
    Destroyed,
}

/// Tells everybody who listens. Never waits and never fails: who does not keep up misses it. Costs one failing system
/// call when nobody listens.
pub fn tell(paths: &HostPaths, name: &str, event: Kind, detail: Option<&str>) {
    let Ok(entries) = fs::read_dir(paths.join(DIRECTORY)) else { return };
    let line = line(name, event, detail);
    let mut dead = false;
    for entry in entries.flatten() {
        // With a dot before it nobody reads it yet.
        if !entry.file_name().as_encoded_bytes().starts_with(b".") {
            dead |= deliver(&entry.path(), &line).is_err_and(|error| is_dead(&error));
        }
    }
    if dead {
        listener::tidy(paths);
    }
}

/// How a container ended, in words: the detail of [`Kind::Exited`].
#[must_use]
pub fn ended(outcome: Outcome) -> String {
    match outcome {
        Outcome::Exited(status) => format!("exited with status {status}"),
        Outcome::PoweredOff => "powered off".to_owned(),
        Outcome::Rebooted => "asked for a reboot".to_owned(),
        Outcome::Killed(signal) => format!("killed by {}", signals::name(signal)),
    }
}

/// An event as a line, without its detail if that is too long.
fn line(name: &str, event: Kind, detail: Option<&str>) -> Vec<u8> {
    let time = rfc3339(SystemTime::now());
    let with = |detail: Option<&str>| {
        let detail = detail.map(str::to_owned);
        let event = Event { time: time.clone(), name: name.to_owned(), event, detail };
        let mut line = serde_json::to_vec(&event).unwrap_or_default();
        line.push(b'\n');
        line
    };
    let line = with(detail);
    if line.len() > LONGEST { with(None) } else { line }
}

/// Writes the line if there is room for it. A FIFO that nobody reads is removed.
fn deliver(fifo: &Path, line: &[u8]) -> io::Result<()> {
    let open = |options: &mut OpenOptions| -> io::Result<File> {
        let file = options.custom_flags(libc::O_NONBLOCK | libc::O_NOFOLLOW).open(fifo)?;
        match file.metadata()?.file_type().is_fifo() {
            true => Ok(file),
            false => Err(io::ErrorKind::InvalidInput.into()),
        }
    };
    let mut writer = open(OpenOptions::new().write(true)).inspect_err(|error| {
        if is_dead(error) {
            let _ = fs::remove_file(fifo);
        }
    })?;
    // A reader of our own: should the last one go now, there is no SIGPIPE, which may kill a program that embeds us.
    let _reader = open(OpenOptions::new().read(true))?;
    writer.write_all(line)
}

/// Whether opening a FIFO failed because nobody reads it.
fn is_dead(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ENXIO)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn host() -> (tempfile::TempDir, HostPaths) {
        let dir = tempfile::tempdir().unwrap();
        let paths = HostPaths::below(dir.path());
        (dir, paths)
    }

    #[test]
    fn everybody_hears_it_in_order_and_nothing_is_left() {
        let (dir, paths) = host();
        tell(&paths, "web", Kind::Created, None);
        let mut listeners = [subscribe(&paths).unwrap(), subscribe(&paths).unwrap()];
        tell(&paths, "web", Kind::Started, None);
        tell(&paths, "web", Kind::Exited, Some(&ended(Outcome::Killed(9))));
        for listener in &mut listeners {
            let first = listener.wait(Some(Duration::ZERO)).unwrap().unwrap();
            assert_eq!((first.name.as_str(), first.event, first.detail), ("web", Kind::Started, None));
            let second = listener.wait(None).unwrap().unwrap();
            assert_eq!((second.event, second.detail.as_deref()), (Kind::Exited, Some("killed by SIGKILL")));
            assert!(first.time <= second.time);
            assert_eq!(listener.wait(Some(Duration::ZERO)).unwrap(), None);
        }
        drop(listeners);
        assert!(!dir.path().join("run/nixrun").exists());
    }

    #[test]
    fn a_dead_listeners_fifo_goes_with_the_next_event_and_a_full_one_stops_nobody() {
        let (dir, paths) = host();
        let (dead, mut full) = (subscribe(&paths).unwrap(), subscribe(&paths).unwrap());
        dead.die();
        let directory = dir.path().join("run/nixrun/.events");
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 2);
        let long = "x".repeat(3000);
        for _ in 0..100 {
            tell(&paths, "web", Kind::Changed, Some(&long));
        }
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 1);
        let mut heard = 0;
        while full.wait(Some(Duration::ZERO)).unwrap().is_some() {
            heard += 1;
        }
        assert!((10..100).contains(&heard), "{heard}");
        tell(&paths, "web", Kind::Changed, Some(&"x".repeat(LONGEST)));
        assert_eq!(full.next().unwrap().unwrap().detail, None, "too long a detail is left out");
        full.die();
        tell(&paths, "web", Kind::Changed, None);
        assert!(!dir.path().join("run/nixrun").exists());
    }

    #[test]
    fn what_is_no_fifo_is_left_alone() {
        let (dir, paths) = host();
        let _listener = subscribe(&paths).unwrap();
        let file = dir.path().join("run/nixrun/.events/file");
        fs::write(&file, "kept").unwrap();
        tell(&paths, "web", Kind::Ready, None);
        assert_eq!(fs::read(&file).unwrap(), b"kept");
    }
}
