//! `nixrun top`: once, as JSON, or on a screen of its own that is redrawn.

use std::io::{self, IsTerminal, Stdin, Stdout};
use std::os::fd::AsFd;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::sys::signalfd::SignalFd;
use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
use runtime::HostPaths;

use super::{Result, printed, signals};
use crate::args::TopArgs;
use crate::exit;
use crate::ops::{self, Error};
use crate::output::{Colour, Output};
use crate::stats::Stats;
use crate::top::{Watch, render, summary};

/// How long `--once` looks.
const ONCE: Duration = Duration::from_millis(500);
/// What Ctrl-C types where it sends no signal.
const CTRL_C: u8 = 3;
/// The alternate screen without a cursor, and back (xterm's control sequences, which all terminals of today know).
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";

pub(super) fn top(args: &TopArgs, paths: &HostPaths, out: &Output) -> Result {
    for name in &args.names {
        ops::status(name, paths)?;
    }
    let mut watch = Watch::default();
    if args.once {
        watch.look(&args.names, paths);
        std::thread::sleep(ONCE);
        let all = watch.look(&args.names, paths);
        printed(match args.format.json {
            true => out.json_line(&all),
            false => out.text(render(&all, out.width(), out.colours())),
        })?;
        return Ok(exit::SUCCESS);
    }
    let waiting = Waiting::new(Duration::from_secs(args.interval))?;
    match args.format.json {
        true => lines(args, watch, &waiting, paths, out),
        false => screen(args, watch, &waiting, paths, out),
    }
}

/// An array a look, until a signal comes or the reader goes.
fn lines(args: &TopArgs, mut watch: Watch, waiting: &Waiting, paths: &HostPaths, out: &Output) -> Result {
    loop {
        printed(out.json_line(&watch.look(&args.names, paths)))?;
        let next = Instant::now() + waiting.interval;
        loop {
            match waiting.wait(next, None)? {
                Woken::Look => break,
                Woken::Leave => return Ok(exit::SUCCESS),
                Woken::Resized => {}
            }
        }
    }
}

fn screen(args: &TopArgs, mut watch: Watch, waiting: &Waiting, paths: &HostPaths, out: &Output) -> Result {
    if !waiting.stdout.is_terminal() {
        return Err(Error::Other(
            "cannot show a live table: stdout is no terminal; --once prints it once, --json for a program"
                .into(),
        ));
    }
    let screen = Screen::enter(*out)?;
    loop {
        let all = watch.look(&args.names, paths);
        let next = Instant::now() + waiting.interval;
        loop {
            printed(out.screen(frame(&all, out)))?;
            match waiting.wait(next, screen.keys())? {
                Woken::Look => break,
                Woken::Leave => return Ok(exit::SUCCESS),
                Woken::Resized => {}
            }
        }
    }
}

/// What is written over the screen: every line up to its end, and nothing below.
fn frame(all: &[Stats], out: &Output) -> String {
    let (width, height) = out.size().unwrap_or((80, 24));
    let title: String = format!("{}  q leaves", summary(all)).chars().take(width).collect();
    let table = render(all, Some(width), out.colours());
    let lines = [out.painted(title, Some(Colour::Faint)), String::new()];
    let lines = lines.iter().map(String::as_str).chain(table.lines()).take(height);
    let text: Vec<String> = lines.map(|line| format!("{line}\x1b[K")).collect();
    format!("\x1b[H{}\x1b[J", text.join("\r\n"))
}

/// Why the waiting was over.
enum Woken {
    /// It is time for the next look.
    Look,
    /// The window has another size.
    Resized,
    /// The user, or whoever read our output, has had enough.
    Leave,
}

/// Waits for the time to look, signals, and keys.
struct Waiting {
    signals: SignalFd,
    stdout: Stdout,
    interval: Duration,
}

impl Waiting {
    fn new(interval: Duration) -> std::result::Result<Waiting, Error> {
        let ends = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT];
        let signals = signals::take(&[&ends[..], &[Signal::SIGWINCH, Signal::SIGTSTP]].concat())?;
        Ok(Waiting { signals, stdout: io::stdout(), interval })
    }

    fn wait(&self, until: Instant, keys: Option<&Stdin>) -> std::result::Result<Woken, Error> {
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(Woken::Look);
            }
            let mut fds = vec![
                PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
                // POLLERR, which comes unasked, says that a pipe's reader has gone.
                PollFd::new(self.stdout.as_fd(), PollFlags::empty()),
            ];
            fds.extend(keys.map(|keys| PollFd::new(keys.as_fd(), PollFlags::POLLIN)));
            let timeout = PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
            match poll(&mut fds, timeout) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(Error::Other(format!("cannot wait for the next look: {errno}"))),
            }
            let is = |index: usize| fds.get(index).and_then(PollFd::any).unwrap_or(false);
            if is(1) || is(2) && keys.is_none_or(leaves) {
                return Ok(Woken::Leave);
            }
            if is(0)
                && let Ok(Some(info)) = self.signals.read_signal()
            {
                match info.ssi_signo as i32 {
                    libc::SIGWINCH => return Ok(Woken::Resized),
                    libc::SIGTSTP => {}
                    _ => return Ok(Woken::Leave),
                }
            }
        }
    }
}

/// Whether what was typed ends it; the end of the terminal does.
fn leaves(keys: &Stdin) -> bool {
    let mut typed = [0; 64];
    match nix::unistd::read(keys, &mut typed) {
        Ok(0) => true,
        Ok(length) => typed[..length].iter().any(|key| matches!(*key, b'q' | b'Q' | CTRL_C)),
        Err(errno) => errno != Errno::EINTR && errno != Errno::EAGAIN,
    }
}

/// The alternate screen, and a keyboard whose keys come one by one; both are as before when it is dropped.
struct Screen {
    out: Output,
    keyboard: Option<(Stdin, Termios)>,
}

impl Screen {
    fn enter(out: Output) -> std::result::Result<Screen, Error> {
        let failed = |errno: Errno| Error::Other(format!("cannot set up the terminal: {errno}"));
        let stdin = io::stdin();
        let before = stdin.is_terminal().then(|| tcgetattr(&stdin)).transpose().map_err(failed)?;
        if let Some(before) = &before {
            let mut raw = before.clone();
            raw.local_flags.remove(LocalFlags::ICANON | LocalFlags::ECHO | LocalFlags::ISIG);
            restore_on_panic(before.clone(), out);
            tcsetattr(&stdin, SetArg::TCSANOW, &raw).map_err(failed)?;
        }
        let screen = Screen { out, keyboard: before.map(|before| (stdin, before)) };
        printed(out.screen(ENTER.to_owned()))?;
        Ok(screen)
    }

    fn keys(&self) -> Option<&Stdin> {
        self.keyboard.as_ref().map(|(stdin, _)| stdin)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = self.out.screen(LEAVE.to_owned());
        if let Some((stdin, before)) = &self.keyboard {
            let _ = tcsetattr(stdin, SetArg::TCSANOW, before);
        }
    }
}

/// A panic ends the program without dropping anything.
fn restore_on_panic(before: Termios, out: Output) {
    let (before, say) = (Mutex::new(before), std::panic::take_hook());
    std::panic::set_hook(Box::new(move |info| {
        let _ = out.screen(LEAVE.to_owned());
        let before = before.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = tcsetattr(io::stdin(), SetArg::TCSANOW, &before);
        say(info);
    }));
}
