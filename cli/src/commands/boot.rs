//! `nixrun boot` and `nixrun run`: start, supervise, say how it ended.

use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use runtime::supervisor::{Attached, Event, HostNotify};
use runtime::{Console, HostPaths, Outcome};

use super::{Result, signals};
use crate::admission::{self, Progress, Slot};
use crate::args::{BootArgs, RunArgs};
use crate::dbus::scope::Scope;
use crate::json::Restart;
use crate::ops::{self, BootOptions, Error, Planned, Request};
use crate::output::Output;
use crate::service::keeper::{self, Kept as KeptContainer};
use crate::{events, exit, signals as names};

/// How long a container may take to shut down; systemd's own default for a service.
const GRACE: Duration = Duration::from_secs(90);
/// Shortest time between two starts of a container that reboots.
const RESTART_INTERVAL: Duration = Duration::from_millis(500);

pub(super) fn boot(args: &BootArgs, paths: &HostPaths, out: &Output) -> Result {
    let console = if terminal() { Console::Interactive } else { Console::ReadOnly };
    let options = BootOptions { nat: args.nat.nat.clone(), console: args.console.console };
    if args.background {
        // Away from the terminal of whoever said `start`. Fails only for a leader, who is away already.
        let _ = nix::unistd::setsid();
    }
    if let Some(policy) = args.keep {
        return keep(args, policy, paths, out);
    }
    let restart = args.background || !in_unit();
    let admission = !args.background;
    let manner =
        Manner { restart, kept: args.kept, admission, talkative: true, grace: GRACE, announce: None };
    foreground(&manner, paths, out, || ops::boot_request(&args.name, &options, console, paths))
}

/// Stays beside the process that boots the container, and starts another one when its policy says so.
fn keep(args: &BootArgs, policy: Restart, paths: &HostPaths, out: &Output) -> Result {
    let signals = signals::take(&[Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT])?;
    let kept = KeptContainer {
        name: &args.name,
        policy,
        start_timeout: Duration::from_secs(args.keep_timeout),
        signals: &signals,
        starter: std::env::var_os("NOTIFY_SOCKET").as_deref().and_then(HostNotify::new),
    };
    let supervisor = || {
        let mut command = Command::new("/proc/self/exe");
        command.arg("boot").arg("--host-root").arg(paths.root()).args(["--background", "--kept"]);
        command.args(args.nat.nat.iter().flat_map(|nat| ["--nat".to_owned(), nat.to_string()]));
        command.arg("--").arg(&args.name).stdin(Stdio::null());
        command
    };
    keeper::keep(&kept, &supervisor, paths, out)
}

/// A new container. A command's output goes where ours goes; a terminal gets a pty, so that job control works inside.
pub(super) fn run(args: &RunArgs, paths: &HostPaths, out: &Output) -> Result {
    let console = if terminal() { Console::Interactive } else { Console::Pipe };
    let manner = Manner {
        restart: !in_unit(),
        kept: false,
        admission: false,
        talkative: false,
        grace: GRACE,
        announce: None,
    };
    foreground(&manner, paths, out, || ops::run_request(args, console))
}

/// How a container is run.
#[derive(Debug, Clone)]
pub(super) struct Manner {
    /// Whether a reboot starts it again; a unit does that itself, on exit code 133.
    pub(super) restart: bool,
    /// Whether a keeper is to hear that the end was asked for.
    pub(super) kept: bool,
    /// Whether, in a unit, it waits until not too many others are starting.
    pub(super) admission: bool,
    /// Whether warnings and an ordinary end are worth a line, as with nspawn; after `run` of a command they are not.
    pub(super) talkative: bool,
    /// How long it may take to shut down before it is killed.
    pub(super) grace: Duration,
    /// What is said before the first start.
    pub(super) announce: Option<String>,
}

/// What one start leaves to the next one of the same process.
struct Kept<'a> {
    /// What is still to be said.
    announce: Option<&'a str>,
    /// The scope that we are in.
    scope: Option<Scope>,
    /// Our turn to start; given back once the container is ready.
    slot: Option<Slot>,
}

/// Whether a service manager started us and will see how we end.
fn in_unit() -> bool {
    std::env::var_os("NOTIFY_SOCKET").is_some()
}

pub(super) fn terminal() -> bool {
    io::stdin().is_terminal() && io::stdout().is_terminal()
}

/// Runs the container, again as long as it reboots: the request is made anew each time, because a reboot is how
/// an update of its configuration takes effect. A unit restarts us instead.
pub(super) fn foreground(
    manner: &Manner,
    paths: &HostPaths,
    out: &Output,
    request: impl Fn() -> std::result::Result<Request, Error>,
) -> Result {
    let signals = signals::take(&[Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGWINCH])?;
    let notify = std::env::var_os("NOTIFY_SOCKET").as_deref().and_then(HostNotify::new);
    let (stdin, stdout) = (io::stdin(), io::stdout());
    let attached = Attached {
        signals: Some(&signals),
        output: Some(stdout.as_fd()),
        input: Some(stdin.as_fd()),
        grace: manner.grace,
    };
    let mut kept = Kept { announce: manner.announce.as_deref(), scope: None, slot: None };
    loop {
        let begun = Instant::now();
        let request = request()?;
        let name = request.container.name.clone();
        if let Some(notify) = notify.as_ref().filter(|_| manner.admission) {
            kept.slot = admission::admit(notify, signals.as_fd(), paths);
            if kept.slot.is_none() {
                out.note(format_args!("Container {name} was asked to stop before its turn to start."));
                return Ok(exit::SUCCESS);
            }
        }
        let (outcome, asked) = once(&request, &attached, &mut kept, notify.as_ref(), manner, paths, out)?;
        let code = ended(&name, outcome, manner, out);
        if asked && manner.kept {
            return Ok(exit::ASKED);
        }
        if outcome != Outcome::Rebooted || !manner.restart {
            return Ok(code);
        }
        events::tell(paths, &name, events::Kind::Restarted, None);
        // An init that does nothing but reboot must not take the host's time.
        std::thread::sleep(RESTART_INTERVAL.saturating_sub(begun.elapsed()));
    }
}

/// One run: how it ended, and whether somebody had asked for its end.
fn once(
    request: &Request,
    attached: &Attached<'_>,
    kept: &mut Kept<'_>,
    notify: Option<&HostNotify>,
    manner: &Manner,
    paths: &HostPaths,
    out: &Output,
) -> std::result::Result<(Outcome, bool), Error> {
    if !request.container.integration.credentials.is_empty() {
        // Nor does a core dump of ours hold them, or another process of the same user read them.
        let _ = nix::sys::prctl::set_dumpable(false);
    }
    // Planned before anything is asked of systemd, so that whatever is wrong with the request is said first.
    let mut planned = Planned::new(request, paths)?;
    if ops::enter_scope(request, paths, &mut kept.scope)? {
        planned = Planned::new(request, paths)?;
    }
    for warning in planned.notes.iter().chain(&planned.container.warnings) {
        if manner.talkative { out.warning(warning) } else { out.info(warning) }
    }
    if let Some(line) = kept.announce.take() {
        out.note(line);
    }
    let ready_at_once = !planned.container.notify_ready;
    let running = planned.start(paths)?;
    for warning in running.supervisor().warnings() {
        if manner.talkative { out.warning(warning) } else { out.info(warning) }
    }
    if let Some(notify) = notify {
        let ready = if ready_at_once { "READY=1\n" } else { "" };
        let pid = running.supervisor().pid();
        notify.send(&format!("{ready}STATUS=Container running.\nX_NSPAWN_LEADER_PID={pid}"));
    }
    running.warnings().iter().for_each(|warning| out.warning(warning));
    let name = running.supervisor().name().to_owned();
    let mut asked = false;
    let Kept { scope, slot, .. } = kept;
    if ready_at_once {
        *slot = None;
    }
    let (progress, group) = (Progress::default(), running.supervisor().cgroup().to_owned());
    let mut finished = std::thread::scope(|threads| {
        if let Some(notify) = notify.filter(|_| slot.is_some()) {
            threads.spawn(|| progress.tell(notify, &group));
        }
        let finished = running.supervise(attached, scope.as_mut(), paths, |event| {
            asked |= matches!(event, Event::Stopping(_) | Event::NotListening(_) | Event::Killing);
            if event == Event::Ready {
                *slot = None;
                progress.end();
            }
            report(&name, &event, notify, out);
        });
        progress.end();
        finished
    })?;
    *slot = None;
    // A reboot that a stop met on its way: whoever asked for the stop waits for our end.
    if asked && manner.restart && finished.outcome == Outcome::Rebooted {
        finished.outcome = Outcome::PoweredOff;
    }
    if let Some(notify) = notify {
        // Whoever began the end, in nspawn's words. With a start of our own to come it is no end for the unit.
        notify.send(match finished.outcome {
            Outcome::Rebooted if manner.restart => "STATUS=Restarting...",
            Outcome::Rebooted => "STOPPING=1\nSTATUS=Restarting...",
            _ => "STOPPING=1\nSTATUS=Terminating...",
        });
    }
    finished.cleanup.iter().for_each(|error| out.warning(error));
    Ok((finished.outcome, asked))
}

fn report(name: &str, event: &Event, notify: Option<&HostNotify>, out: &Output) {
    let tell = |message: &str| notify.map(|notify| notify.send(message));
    match event {
        Event::Ready => {
            out.info(format_args!("Container {name} is ready."));
            tell("READY=1");
        }
        Event::Status(status) => {
            out.debug(format_args!("{name}: {status}"));
            tell(&format!("STATUS=Container running: {status}"));
        }
        Event::Stopping(signal) => {
            out.info(format_args!("Asked container {name} to shut down, by {}.", names::name(*signal)));
            tell("STOPPING=1");
        }
        Event::NotListening(_) => {
            out.info(format_args!("Container {name} is shut down as soon as its init listens."));
            tell("STOPPING=1");
        }
        Event::Warning(sentence) => out.warning(sentence),
        Event::Note(sentence) => out.info(sentence),
        Event::OomKilled(count) => out.warning(format_args!(
            "the kernel killed {count} processes of container {name} for want of memory"
        )),
        Event::Killing => out.note(format_args!("Killing container {name}.")),
        _ => {}
    }
}

/// The line that nspawn prints (tests of nixpkgs look for it), and the exit code.
fn ended(name: &str, outcome: Outcome, manner: &Manner, out: &Output) -> u8 {
    let ordinary =
        |line: std::fmt::Arguments<'_>| if manner.talkative { out.note(line) } else { out.info(line) };
    match outcome {
        Outcome::PoweredOff => {
            out.note(format_args!("Container {name} has been shut down."));
            exit::SUCCESS
        }
        Outcome::Rebooted => {
            out.note(format_args!("Container {name} is being rebooted."));
            exit::REBOOT
        }
        Outcome::Exited(0) => {
            ordinary(format_args!("Container {name} exited successfully."));
            exit::SUCCESS
        }
        Outcome::Exited(status) => {
            ordinary(format_args!("Container {name} failed with error code {status}."));
            exit::of_pid1(u8::try_from(status).unwrap_or(exit::FAILURE))
        }
        Outcome::Killed(signal) => {
            let signal = names::name(signal);
            let signal = signal.strip_prefix("SIG").unwrap_or(&signal);
            out.error(format_args!("Container {name} terminated by signal {signal}."));
            exit::FAILURE
        }
    }
}
