//! A terminal in front of a program: what a person at a keyboard sees and types.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::{Winsize, openpty};

use crate::wait_for;

/// A program on a terminal of its own.
#[derive(Debug)]
pub struct Pty {
    master: File,
    /// What it has printed.
    pub seen: String,
    child: Child,
}

impl Pty {
    /// Starts a program on a terminal of this size, which becomes its controlling terminal.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn spawn(command: &Command, rows: u16, columns: u16) -> Pty {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        let pair = openpty(Some(&size), None).expect("a terminal");
        // setsid(1) makes the terminal the session's, so that SIGWINCH and SIGINT come.
        let mut session = Command::new("setsid");
        session.args(["--ctty", "--wait"]).arg(command.get_program()).args(command.get_args()).env_clear();
        for (key, value) in command.get_envs() {
            session.envs(value.map(|value| (key, value)));
        }
        let copy = |fd: &OwnedFd| Stdio::from(fd.try_clone().expect("a copy of the terminal"));
        let child = session
            .current_dir("/")
            .stdin(copy(&pair.slave))
            .stdout(copy(&pair.slave))
            .stderr(copy(&pair.slave))
            .spawn()
            .expect("setsid starts");
        Pty { master: pair.master.into(), seen: String::new(), child }
    }

    /// Types.
    ///
    /// # Panics
    /// When nobody is there to read.
    pub fn type_in(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).expect("the terminal takes input");
    }

    /// Waits until `text` was printed since the last call, and forgets what came up to there, which it returns.
    ///
    /// # Panics
    /// When it does not come.
    #[track_caller]
    pub fn expect(&mut self, text: &str) -> String {
        let mut all = String::new();
        wait_for(&format!("{text:?} on the terminal, after {:?}", self.seen), || {
            self.read();
            all.clone_from(&self.seen);
            self.seen.find(text).map(|at| self.seen.drain(..at + text.len()).collect())
        })
    }

    fn read(&mut self) {
        let mut ready = [PollFd::new(self.master.as_fd(), PollFlags::POLLIN)];
        if poll(&mut ready, PollTimeout::from(20u8)).is_ok_and(|n| n > 0) {
            let mut buffer = [0; 4096];
            let length = self.master.read(&mut buffer).unwrap_or(0);
            self.seen += &String::from_utf8_lossy(&buffer[..length]);
        }
    }

    /// Gives the terminal another size, as a window that is dragged does.
    ///
    /// # Panics
    /// When stty fails.
    pub fn resize(&self, rows: u16, columns: u16) {
        let terminal = self.master.as_fd().try_clone_to_owned().expect("a copy of the terminal");
        let done = Command::new("stty")
            .args(["rows", &rows.to_string(), "columns", &columns.to_string()])
            .stdin(Stdio::from(terminal))
            .status();
        assert!(done.is_ok_and(|status| status.success()), "stty sets the size");
    }

    /// Waits for the program's end; its exit code.
    ///
    /// # Panics
    /// When it takes too long.
    #[track_caller]
    pub fn wait(mut self) -> (Option<i32>, String) {
        let status = wait_for("the end of the program on the terminal", || {
            self.read();
            self.child.try_wait().expect("our child")
        });
        self.read();
        (status.code(), self.seen.clone())
    }
}

impl Drop for Pty {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
