//! A container that stands still while its files are read.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long the kernel may take to stop every process.
const STOP: Duration = Duration::from_secs(10);
/// How often to look.
const LOOK: Duration = Duration::from_millis(2);

/// A frozen control group; it goes on when this is dropped, unless it stood still before.
#[derive(Debug)]
pub(super) struct Frozen {
    group: PathBuf,
    ours: bool,
}

/// Whether a group was told to stand still.
pub(super) fn is_frozen(group: &Path) -> bool {
    fs::read_to_string(group.join("cgroup.freeze")).is_ok_and(|text| text.trim() == "1")
}

impl Frozen {
    /// Stops every process in the group and in those below it, and waits until they stand.
    pub(super) fn new(group: &Path) -> io::Result<Frozen> {
        let frozen = Frozen { group: group.to_owned(), ours: !is_frozen(group) };
        if frozen.ours {
            fs::write(group.join("cgroup.freeze"), "1")?;
        }
        let begun = Instant::now();
        while !fs::read_to_string(group.join("cgroup.events"))?.lines().any(|line| line == "frozen 1") {
            if begun.elapsed() > STOP {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "a process of it does not stop"));
            }
            std::thread::sleep(LOOK);
        }
        Ok(frozen)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        if self.ours {
            let _ = thaw(&self.group);
        }
    }
}

/// Lets a group go on; one that is gone needs nothing.
pub(crate) fn thaw(group: &Path) -> io::Result<()> {
    match fs::write(group.join("cgroup.freeze"), "0") {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}
