//! Prepared to Paused to running: the clone, and the child's reports.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair};

use crate::cgroup::Cgroup;
use crate::child::report::{self, Report, Words};
use crate::child::run;
use crate::child::script::{Op, Script};
use crate::config::Network;
use crate::error::{Doing, Error, ErrorKind};
use crate::plan::{Confinement, MountPlan};
use crate::prepare::Prepared;
use crate::supervisor::Supervisor;
use crate::sys::clone::{Child, clone_into};
use crate::sys::inroot::{Failure, call_name};
use crate::sys::process::{self, Ended};
use crate::users::{Users, idmap};

/// Held from the making of a channel until the child's end of it is closed here. Threads of one program launch
/// containers at the same time, and a child has a copy of every descriptor until it closes them: with the end that
/// belongs to another's child it would keep that one's parent from seeing that its program was executed.
static CHANNEL: Mutex<()> = Mutex::new(());

/// A child that a script runs in: ended and reaped on drop, unless it was let go.
#[derive(Debug)]
pub(crate) struct Launched {
    child: Child,
    /// The process that made the mounts of a container with a user namespace, and cloned its first process.
    maker: Option<Child>,
    /// The process that waits for a command of `exec`, which is not our child then, and where it says how that ended.
    attendant: Option<(Child, OwnedFd)>,
    channel: OwnedFd,
    reaped: bool,
    /// What a file system said last about why it could not be mounted.
    words: Option<String>,
    /// What the child started without, one sentence each.
    pub(crate) warnings: Vec<String>,
}

impl Launched {
    /// Clones into new namespaces and a control group; the child starts on `script` at once.
    pub(crate) fn start(script: &Script, namespaces: u64, cgroup: BorrowedFd<'_>) -> Result<Launched, Error> {
        Launched::start_in(script, namespaces, Some(cgroup))
    }

    /// Clones a process that itself clones a command of `exec`, and waits until it has; `status` is our end of where it will
    /// say how the command ended.
    pub(crate) fn attended(script: &Script, status: OwnedFd) -> Result<Launched, Error> {
        let mut launched = Launched::start_in(script, 0, None)?;
        let pid = loop {
            match launched.report()? {
                Some(Report::Cloned { pid }) => break pid,
                Some(Report::Failed { op, failure }) => {
                    return Err(launched.failed(script, &[], op, failure));
                }
                Some(Report::Exec | Report::Skipped { .. } | Report::Ended { .. }) => {}
                None => return Err(launched.died()),
            }
        };
        let pidfd = process::pidfd_open(pid).doing(|| "open the command".to_owned())?;
        // It has not been reaped while nothing is said of its end, and so the pid is its own.
        let mut said = [PollFd::new(status.as_fd(), PollFlags::POLLIN)];
        let over = poll(&mut said, PollTimeout::ZERO).is_ok_and(|ready| ready > 0);
        let attendant = std::mem::replace(&mut launched.child, Child { pidfd, pid });
        if over {
            launched.child = attendant;
            return Err(launched.died());
        }
        launched.attendant = Some((attendant, status));
        Ok(launched)
    }

    fn start_in(script: &Script, namespaces: u64, cgroup: Option<BorrowedFd<'_>>) -> Result<Launched, Error> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let alone = CHANNEL.lock().unwrap_or_else(PoisonError::into_inner);
        let (channel, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)
            .doing(|| "make the channel to the container's first process".to_owned())?;
        let ends = [theirs.as_raw_fd(), channel.as_raw_fd()];
        let child = clone_into(namespaces, cgroup, || run::run(script, ends))
            .doing(|| "create the container's namespaces".to_owned())?;
        drop(theirs);
        drop(alone);
        Ok(Launched {
            child,
            maker: None,
            attendant: None,
            channel,
            reaped: false,
            words: None,
            warnings: Vec::new(),
        })
    }

    /// Waits until the container's first process has been cloned in its user namespace, and gives that its ids.
    fn enter_users(
        &mut self,
        script: &Script,
        mounts: &[MountPlan],
        range: crate::plan::IdRange,
    ) -> Result<(), Error> {
        let pid = loop {
            match self.report()? {
                Some(Report::Cloned { pid }) => break pid,
                Some(Report::Failed { op, failure }) => return Err(self.failed(script, mounts, op, failure)),
                Some(Report::Skipped { op, failure }) => {
                    self.warnings.push(sentence(&script.purpose(op, mounts), failure));
                }
                Some(Report::Exec | Report::Ended { .. }) | None => return Err(self.died()),
            }
        };
        // The pid is still the child's: nobody but us can reap it.
        let pidfd = process::pidfd_open(pid).doing(|| "open the container's first process".to_owned())?;
        self.maker = Some(std::mem::replace(&mut self.child, Child { pidfd, pid }));
        idmap::write_maps(pid, idmap::Map::of(range))?;
        // EPIPE or ECONNRESET: the child ended before; its last record says why.
        let _ = send(self.channel.as_raw_fd(), b"i", MsgFlags::MSG_NOSIGNAL);
        Ok(())
    }

    /// Waits for the end of the process that made the mounts: what it has left to do must be done before the program
    /// runs.
    fn reap_maker(&mut self) -> Result<(), Error> {
        let Some(maker) = self.maker.take() else { return Ok(()) };
        let ended = process::wait(maker.pidfd.as_fd())
            .doing(|| "wait for the one that made the container's mounts".to_owned())?;
        if ended != Ended::Exited(0) {
            // Its last record, or the child's, says why.
            let _ = process::pidfd_send_signal(self.child.pidfd.as_fd(), libc::SIGKILL);
        }
        Ok(())
    }

    /// The next record, or the end of file.
    fn report(&mut self) -> Result<Option<Report>, Error> {
        loop {
            let mut record = [0; report::LONGEST];
            let length = match recv(self.channel.as_raw_fd(), &mut record, MsgFlags::empty()) {
                // ECONNRESET: the child ended without having read GO. Told once, before what it had sent.
                Err(nix::errno::Errno::EINTR | nix::errno::Errno::ECONNRESET) => continue,
                result => result.doing(|| "read the report of the container's first process".to_owned())?,
            };
            let record = record.get(..length).unwrap_or_default();
            match Words::decode(record) {
                Some(words) => self.words = Some(words),
                None => return Ok(Report::decode(record)),
            }
        }
    }

    pub(crate) fn pid(&self) -> libc::pid_t {
        self.child.pid
    }

    pub(crate) fn pidfd(&self) -> BorrowedFd<'_> {
        self.child.pidfd.as_fd()
    }

    /// What the kernel's schedulers and its OOM killer make of the child. Done here, with our privileges: it may have
    /// given up its own, and what goes wrong can be said.
    pub(crate) fn schedule(&self, confinement: &Confinement) -> Result<(), Error> {
        if let Some(score) = confinement.oom_score_adjust {
            let file = format!("/proc/{}/oom_score_adj", self.pid());
            std::fs::write(&file, score.to_string())
                .doing(|| format!("adjust the OOM score of the container to {score}"))?;
        }
        if let Some(cpus) = &confinement.cpu_affinity {
            let doing = || format!("bind the container to the CPUs {cpus:?}");
            let mut set = nix::sched::CpuSet::new();
            for cpu in cpus {
                set.set(*cpu as usize).doing(doing)?;
            }
            nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(self.pid()), &set).doing(doing)?;
        }
        Ok(())
    }

    /// Says GO and waits until the program is executed or why it is not.
    /// `mounts` are those of the script's plan.
    pub(crate) fn go(&mut self, script: &Script, mounts: &[MountPlan]) -> Result<(), Error> {
        // EPIPE or ECONNRESET: the child ended before; its last record says why.
        let _ = send(self.channel.as_raw_fd(), b"!", MsgFlags::MSG_NOSIGNAL);
        self.wait_for_hangup()?;
        let mut executed = false;
        loop {
            match self.report()? {
                Some(Report::Exec) => executed = true,
                Some(Report::Failed { op, failure }) => return Err(self.failed(script, mounts, op, failure)),
                Some(Report::Skipped { op, failure }) => {
                    self.warnings.push(sentence(&script.purpose(op, mounts), failure));
                }
                Some(Report::Cloned { .. } | Report::Ended { .. }) => {}
                None if executed => return Ok(()),
                None => return Err(self.died()),
            }
        }
    }

    /// Sleeps until the child's end of the channel is closed, by exec or by its end, and what it said is all there:
    /// woken by each record, we would take processor time from a child that is about to execute its program.
    fn wait_for_hangup(&self) -> Result<(), Error> {
        // Without any event asked for, a hang-up is still told.
        let mut channel = [PollFd::new(self.channel.as_fd(), PollFlags::empty())];
        loop {
            match poll(&mut channel, PollTimeout::NONE) {
                Err(nix::errno::Errno::EINTR) => {}
                result => {
                    return result.map(drop).doing(|| "wait for the container's first process".to_owned());
                }
            }
        }
    }

    fn failed(&mut self, script: &Script, mounts: &[MountPlan], op: u16, failure: Failure) -> Error {
        let _ = self.reap();
        let errno = nix::errno::Errno::from_raw(failure.errno);
        if failure.call == libc::SYS_execve as i32 {
            let program = script.image.program();
            let missing = errno == nix::errno::Errno::ENOENT;
            let kind = if missing { ErrorKind::PayloadMissing } else { ErrorKind::Payload };
            return Error::new(kind, format!("cannot execute {program} in the container: {errno}")).hint(
                match errno {
                    nix::errno::Errno::ENOENT => {
                        "it, its interpreter or its loader does not exist below the container's root"
                    }
                    nix::errno::Errno::EACCES => "it is not an executable file",
                    _ => "check the file with `file`",
                },
            );
        }
        let kind = if errno == nix::errno::Errno::EPERM { ErrorKind::Permission } else { ErrorKind::System };
        let text = sentence(&script.purpose(op, mounts), failure);
        let is_overlay =
            matches!(script.ops.get(usize::from(op)), Some(Op::Overlay { .. } | Op::OverlayRoot { .. }));
        match self.words.take() {
            Some(words) => Error::new(kind, format!("{text}; the kernel says: {words}")),
            // Most of its reasons go into the kernel's log alone.
            None if is_overlay && failure.call == libc::SYS_fsconfig as i32 => Error::new(kind, text)
                .hint("the kernel's log says what overlayfs does not take: `dmesg | grep overlayfs`"),
            None => Error::new(kind, text),
        }
    }

    fn died(&mut self) -> Error {
        let who = if self.attendant.is_some() { "the command" } else { "the container's first process" };
        let how = match self.reap() {
            Ok(Ended::Exited(status)) => format!("exited with status {status}"),
            Ok(Ended::Killed(signal)) => format!("was killed by signal {signal}"),
            Err(error) => error.to_string(),
        };
        Error::new(ErrorKind::System, format!("{who} {how} before it could execute its program"))
    }

    /// Waits for the end of the child.
    pub(crate) fn reap(&mut self) -> Result<Ended, Error> {
        self.reaped = true;
        match self.attendant.take() {
            Some((attendant, status)) => self.hear_of_end(&attendant, &status),
            None => process::wait(self.child.pidfd.as_fd())
                .doing(|| "wait for the container's first process".to_owned()),
        }
    }

    /// Waits until the attendant says how the command ended. One that was killed itself takes the command along.
    fn hear_of_end(&self, attendant: &Child, status: &OwnedFd) -> Result<Ended, Error> {
        let mut record = [0; report::SIZE];
        let said = loop {
            match recv(status.as_raw_fd(), &mut record, MsgFlags::empty()) {
                Err(nix::errno::Errno::EINTR) => {}
                Ok(length) => break Report::decode(record.get(..length).unwrap_or_default()),
                Err(_) => break None,
            }
        };
        let ended = match said {
            Some(Report::Ended { killed: false, status }) => Ended::Exited(status),
            Some(Report::Ended { killed: true, status }) => Ended::Killed(status),
            _ => {
                let _ = process::pidfd_send_signal(self.child.pidfd.as_fd(), libc::SIGKILL);
                Ended::Killed(libc::SIGKILL)
            }
        };
        // It ends by itself.
        let _ = process::wait(attendant.pidfd.as_fd());
        Ok(ended)
    }
}

fn sentence(purpose: &str, failure: Failure) -> String {
    let errno = nix::errno::Errno::from_raw(failure.errno);
    format!("cannot {purpose}: {} failed with {errno:?} ({})", call_name(failure.call), errno.desc())
}

impl Drop for Launched {
    fn drop(&mut self) {
        if let (Some((attendant, status)), false) = (self.attendant.take(), self.reaped) {
            // It kills the command when it sees our end closed, and reaps it.
            drop(status);
            let _ = process::wait(attendant.pidfd.as_fd());
            return;
        }
        let child = (!self.reaped).then_some(&self.child);
        for process in child.into_iter().chain(&self.maker) {
            let _ = process::pidfd_send_signal(process.pidfd.as_fd(), libc::SIGKILL);
            let _ = process::wait(process.pidfd.as_fd());
        }
    }
}

/// A container whose namespaces exist and whose program waits for [`Paused::resume`]. Dropping it kills it.
#[derive(Debug)]
pub struct Paused {
    launched: Launched,
    prepared: Prepared,
    cgroup: Cgroup,
}

impl Prepared {
    /// Clones the container. Its mounts are made while the caller goes on, with its network for one.
    ///
    /// # Errors
    /// When the kernel refuses a namespace.
    pub fn launch(self, cgroup: Cgroup) -> Result<Paused, Error> {
        let flags = match self.users {
            None => self.plan.namespaces.clone_flags(),
            // The others are made where they belong to the user namespace.
            Some(_) => libc::CLONE_NEWNS as u64,
        };
        let range = self.users.as_ref().map(Users::range);
        if let Some(range) = range {
            cgroup.give_to(range.base)?;
        }
        let mut launched = Launched::start(&self.script, flags, cgroup.payload())?;
        // The child makes its mounts meanwhile, and executes nothing before GO.
        self.fill_rest()?;
        if let Some(range) = range {
            launched.enter_users(&self.script, &self.plan.mounts, range)?;
        }
        launched.schedule(&self.plan.confinement)?;
        Ok(Paused { launched, prepared: self, cgroup })
    }
}

impl Paused {
    /// What the container was made from.
    #[must_use]
    pub fn prepared(&self) -> &Prepared {
        &self.prepared
    }

    /// PID of the container's PID 1 in our pid namespace.
    #[must_use]
    pub fn pid(&self) -> libc::pid_t {
        self.launched.pid()
    }

    /// The container's network namespace, and the one that it joins before it has done so.
    ///
    /// # Errors
    /// When /proc is not mounted, or the namespace to join is gone.
    pub fn netns(&self) -> Result<OwnedFd, Error> {
        if let Network::Join(path) = &self.prepared.plan.namespaces.network {
            return crate::prepare::namespace::network(path);
        }
        // The pid is still the child's: nobody but us can reap it.
        let path = format!("/proc/{}/ns/net", self.pid());
        Ok(File::open(&path).doing(|| format!("open {path}"))?.into())
    }

    /// Lets the program start, and returns once it has been executed.
    ///
    /// # Errors
    /// What went wrong in the container before, in the plan's words; the container is gone then.
    pub fn resume(mut self) -> Result<Supervisor, Error> {
        // The child is making its mounts meanwhile.
        let mut rules = crate::devices::default_rules();
        rules.extend(&self.prepared.plan.devices);
        self.cgroup.restrict_devices(&crate::devices::compile(&rules))?;
        self.launched.reap_maker()?;
        self.prepared.remove_places()?;
        self.launched.go(&self.prepared.script, &self.prepared.plan.mounts)?;
        Supervisor::new(self.launched, self.prepared, self.cgroup)
    }
}

#[cfg(test)]
#[allow(clippy::print_stdout, reason = "why a test was skipped")]
mod tests {
    use std::sync::Barrier;
    use std::time::Duration;

    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    use super::*;
    use crate::child::script::Op;

    /// A group to clone into, and a script that waits for GO; nothing without root.
    fn waiting() -> Option<(File, Script)> {
        if !nix::unistd::geteuid().is_root() {
            assert!(std::env::var_os("NIXRUN_MUST_WORK").is_none(), "this test needs root");
            println!("skipped: needs root");
            return None;
        }
        let facts = crate::host::HostFacts::probe(&crate::HostPaths::default()).unwrap();
        let own = facts.cgroup.map(|group| group.own).unwrap();
        let mut script = Script::default();
        script.push(Op::Await, "wait");
        Some((File::open(own).unwrap(), script))
    }

    /// Many at once, as an embedding program launches them; each is told to go on while the others still wait.
    #[test]
    fn a_child_does_not_hold_the_channel_of_another() {
        let Some((group, script)) = waiting() else { return };
        const THREADS: usize = 8;
        for _ in 0..8 {
            let (together, all_there) = (Barrier::new(THREADS), Barrier::new(THREADS));
            let turn = Mutex::new(());
            std::thread::scope(|scope| {
                for _ in 0..THREADS {
                    scope.spawn(|| {
                        together.wait();
                        let mut launched = Launched::start(&script, 0, group.as_fd()).unwrap();
                        all_there.wait();
                        let _turn = turn.lock().unwrap();
                        let _ = send(launched.channel.as_raw_fd(), b"!", MsgFlags::MSG_NOSIGNAL);
                        let mut fds = [PollFd::new(launched.channel.as_fd(), PollFlags::empty())];
                        let timeout = PollTimeout::try_from(Duration::from_secs(20)).unwrap();
                        assert_eq!(poll(&mut fds, timeout), Ok(1), "another child holds the channel");
                        launched.reap().unwrap();
                    });
                }
            });
        }
    }

    /// The case that PR_SET_PDEATHSIG cannot cover: a parent that died before the child had asked for it.
    #[test]
    fn a_child_whose_parent_is_gone_does_not_wait_for_it() {
        let Some((group, script)) = waiting() else { return };
        let mut launched = Launched::start(&script, 0, group.as_fd()).unwrap();
        // What the kernel does with the parent's end when the parent dies.
        launched.channel = File::open("/dev/null").unwrap().into();
        let mut fds = [PollFd::new(launched.pidfd(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(Duration::from_secs(20)).unwrap();
        assert_eq!(poll(&mut fds, timeout), Ok(1), "the child still waits");
    }
}
