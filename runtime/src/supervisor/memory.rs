//! Processes that the kernel has killed for want of memory, as the memory controller counts them.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// A group's `memory.events`: the kernel says POLLPRI when a number in it has changed since it was read.
#[derive(Debug)]
pub(super) struct OomKills {
    file: File,
    seen: u64,
}

impl OomKills {
    /// Of this group and those below it; `None` where the memory controller is not there.
    pub(super) fn of(group: &Path) -> Option<OomKills> {
        let file = File::open(group.join("memory.events")).ok()?;
        let seen = count(&file)?;
        Some(OomKills { file, seen })
    }

    /// How many there were since the last call; `None` when the group is gone.
    pub(super) fn new_ones(&mut self) -> Option<u64> {
        let now = count(&self.file)?;
        let new = now.saturating_sub(self.seen);
        self.seen = now;
        Some(new)
    }
}

impl AsFd for OomKills {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// `oom_kill` of memory.events (cgroup-v2.rst).
fn count(file: &File) -> Option<u64> {
    let mut text = [0; 512];
    let length = file.read_at(&mut text, 0).ok()?;
    let text = std::str::from_utf8(&text[..length]).ok()?;
    text.lines().find_map(|line| line.strip_prefix("oom_kill "))?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn only_new_kills_are_counted() {
        let group = tempfile::tempdir().unwrap();
        assert!(OomKills::of(group.path()).is_none(), "no memory controller");
        let file = group.path().join("memory.events");
        let write = |kills: u64| {
            let text = format!("low 0\nhigh 3\nmax 9\noom 2\noom_kill {kills}\noom_group_kill 7\n");
            fs::write(&file, text).unwrap();
        };
        write(1);
        let mut kills = OomKills::of(group.path()).unwrap();
        assert_eq!(kills.new_ones(), Some(0), "those from before");
        write(4);
        assert_eq!((kills.new_ones(), kills.new_ones()), (Some(3), Some(0)));
        fs::write(&file, "").unwrap();
        assert_eq!(kills.new_ones(), None, "a group that is gone has nothing to read");
    }
}
