//! Hearing of events.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use runtime::HostPaths;

use super::{DIRECTORY, Event};

/// How often to make the directory again while other listeners come and go.
const TRIES: u32 = 100;

/// Hears of everything that happens to the containers of a host from [`subscribe`] on. An iterator waits for the next
/// event without end; [`Listener::wait`] has a limit, and the descriptor can be polled for input. Dropping it ends the
/// subscription.
#[derive(Debug)]
pub struct Listener {
    fifo: File,
    path: PathBuf,
    paths: HostPaths,
    /// What was read and not returned yet.
    buffer: Vec<u8>,
}

/// Begins to listen. Needs to be able to write to /run/nixrun, as root can.
///
/// # Errors
/// When the FIFO cannot be made.
pub fn subscribe(paths: &HostPaths) -> io::Result<Listener> {
    let directory = paths.join(DIRECTORY);
    for _ in 1..TRIES {
        // NotFound: the last of other listeners removes the directory, here between two of our steps.
        match listen(&directory, paths) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            result => return result,
        }
    }
    listen(&directory, paths)
}

fn listen(directory: &Path, paths: &HostPaths) -> io::Result<Listener> {
    fs::create_dir_all(directory)?;
    remove_unfinished(directory, paths);
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let name = format!("{}-{:x}", std::process::id(), since.as_nanos());
    let unfinished = directory.join(format!(".{name}"));
    let path = directory.join(&name);
    mkfifo(&unfinished, Mode::S_IRUSR | Mode::S_IWUSR)?;
    // Writers see it once it is read: they remove what nobody reads. Open for writing, too, so that it never ends.
    let opened = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(&unfinished);
    let fifo = opened.and_then(|fifo| fs::rename(&unfinished, &path).map(|()| fifo));
    let fifo = fifo.inspect_err(|_| {
        let _ = fs::remove_file(&unfinished);
    })?;
    Ok(Listener { fifo, path, paths: paths.clone(), buffer: Vec::new() })
}

/// Removes what listeners left that were killed before anybody could see them.
fn remove_unfinished(directory: &Path, paths: &HostPaths) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.strip_prefix('.')?.split_once('-')).map(|(pid, _)| pid);
        if pid.is_some_and(|pid| !paths.proc(pid).exists()) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// The directories go with the last listener.
pub(super) fn tidy(paths: &HostPaths) {
    let directory = paths.join(DIRECTORY);
    let _ = fs::remove_dir(&directory);
    let _ = directory.parent().map(fs::remove_dir);
}

impl Listener {
    /// Waits for the next event, without end or for so long; `None` when there was none.
    ///
    /// # Errors
    /// When the FIFO cannot be read.
    pub fn wait(&mut self, timeout: Option<Duration>) -> io::Result<Option<Event>> {
        let deadline = timeout.map(|timeout| Instant::now() + timeout);
        loop {
            if let Some(event) = self.take() {
                return Ok(Some(event));
            }
            if self.fill()? {
                continue;
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Ok(None);
            }
            // Rounded up, or the last part of a millisecond would be waited for in a loop.
            let left = left.map(|left| left + Duration::from_millis(1));
            let timeout = left.map_or(PollTimeout::NONE, |left| left.try_into().unwrap_or(PollTimeout::MAX));
            match poll(&mut [PollFd::new(self.fifo.as_fd(), PollFlags::POLLIN)], timeout) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Reads more; `false` when nothing was there.
    fn fill(&mut self) -> io::Result<bool> {
        let mut chunk = [0; 4096];
        match self.fifo.read(&mut chunk) {
            Ok(length) => self.buffer.extend_from_slice(&chunk[..length]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        Ok(true)
    }

    /// The first event that was read. Lines that are none, as a later version's may be, are passed over.
    fn take(&mut self) -> Option<Event> {
        while let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.buffer.drain(..=end).collect();
            if let Ok(event) = serde_json::from_slice(&line) {
                return Some(event);
            }
        }
        None
    }

    /// Ends as a killed process does.
    #[cfg(test)]
    pub(super) fn die(self) {
        let mut this = std::mem::ManuallyDrop::new(self);
        this.fifo = File::open("/dev/null").unwrap();
    }
}

impl Iterator for Listener {
    type Item = io::Result<Event>;

    fn next(&mut self) -> Option<Self::Item> {
        self.wait(None).transpose()
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fifo.as_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
        tidy(&self.paths);
    }
}
