//! A command inside a running container: in all its namespaces and its control group, with its capabilities and
//! its system call filter. Needs no D-Bus and nothing of the container but its PID 1.

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

use crate::caps::CapSet;
use crate::child::script::{Op, Script};
use crate::error::{Doing, Error, ErrorKind};
use crate::host::c_path;
use crate::instance::State;
use crate::launch::Launched;
use crate::prepare::{Inherited, confine, execute, image};
use crate::supervisor::{Attached, Terminal};
use crate::sys::inroot::{self, Make};
use crate::sys::process::{self, Ended};
use crate::sys::pty;

/// A command to run inside a container.
#[derive(Debug, Clone)]
pub struct Command {
    /// Program, as a path inside or a name to look up in `PATH`, and its arguments.
    pub argv: Vec<OsString>,
    /// Its environment, complete.
    pub env: Vec<(OsString, OsString)>,
    /// Working directory inside.
    pub cwd: PathBuf,
    /// Whether it gets a terminal of the container's own.
    pub terminal: bool,
    /// Its standard input, output and error where it gets no terminal; ours when absent.
    pub streams: Option<Streams>,
}

/// What a command has as standard input, output and error.
#[derive(Debug, Clone)]
pub struct Streams([Arc<OwnedFd>; 3]);

impl Streams {
    /// Of descriptors that stay the caller's.
    ///
    /// # Errors
    /// When there is no room for copies of them.
    pub fn new(
        input: BorrowedFd<'_>,
        output: BorrowedFd<'_>,
        error: BorrowedFd<'_>,
    ) -> Result<Streams, Error> {
        // The copies are above the places that they are to take, where one would overwrite another.
        let copy = |stream: BorrowedFd<'_>| {
            let copy = stream.try_clone_to_owned();
            copy.map(Arc::new).doing(|| "copy a descriptor for the command".to_owned())
        };
        Ok(Streams([copy(input)?, copy(output)?, copy(error)?]))
    }
}

/// The namespaces to enter besides the pid namespace, which only a child can be born into.
const NAMESPACES: i32 =
    libc::CLONE_NEWNS | libc::CLONE_NEWUTS | libc::CLONE_NEWIPC | libc::CLONE_NEWNET | libc::CLONE_NEWCGROUP;

/// Runs a command in the container until it ends.
///
/// # Errors
/// [`ErrorKind::NotFound`] when the container is gone, [`ErrorKind::PayloadMissing`] and [`ErrorKind::Payload`] when
/// the command does not exist or cannot be executed.
pub fn run(state: &State, command: &Command, attached: &Attached<'_>) -> Result<Ended, Error> {
    let gone = || Error::new(ErrorKind::NotFound, format!("container {} is not running", state.name));
    let leader = state.leader.open().ok_or_else(gone)?;
    let group = group(state)?;
    let terminal = command.terminal.then(|| open_terminal(state, &leader)).transpose()?;
    let (status, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
        .doing(|| "make the channel to who waits for the command".to_owned())?;
    let attend = Op::Attend { group: group.as_raw_fd(), status: [theirs.as_raw_fd(), status.as_raw_fd()] };
    let script =
        script(state, command, leader.as_fd(), attend, terminal.as_ref().map(|(_, peer)| peer.as_fd()))?;
    // First, so that the command finds its terminal in the right size.
    let view = Terminal::new(terminal.as_ref().map(|(master, _)| master), attached)?;
    let mut launched = Launched::attended(&script, status)?;
    // Its end is to be the end of the file.
    drop(theirs);
    match launched.schedule(&state.confinement) {
        // A container whose OOM score is lower than ours: it takes CAP_SYS_RESOURCE, which its supervisor had.
        Err(error) if error.kind() == ErrorKind::Permission => {}
        result => result?,
    }
    launched.go(&script, &[])?;
    view.run(&mut launched, attached)
}

fn group(state: &State) -> Result<File, Error> {
    let path = state.cgroup.join(crate::cgroup::COMMANDS);
    match fs::create_dir(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            return Err(error).doing(|| format!("make the control group {}", path.display()));
        }
        Ok(()) => crate::cgroup::give(&path, state.users.map_or(0, |users| users.base))?,
        _ => {}
    }
    File::open(&path).doing(|| format!("open {}", path.display()))
}

/// A pty of the container's own devpts, so that programs inside find their terminal by name.
fn open_terminal(state: &State, leader: &OwnedFd) -> Result<(OwnedFd, OwnedFd), Error> {
    let doing = || format!("open a terminal in container {}", state.name);
    let root = File::open(format!("/proc/{}/root", state.leader.pid)).doing(doing)?;
    // The path just opened is the leader's only if the leader still lives.
    process::pidfd_send_signal(leader.as_fd(), 0).doing(doing)?;
    let flags = libc::O_PATH | libc::O_DIRECTORY;
    let devpts = inroot::open(root.as_raw_fd(), c"dev/pts", flags, Make::Nothing, false)
        .map(inroot::owned)
        .map_err(|failure| nix::errno::Errno::from_raw(failure.errno))
        .doing(doing)?;
    let (master, _) = pty::open(devpts.as_fd()).doing(doing)?;
    let peer = pty::peer(master.as_fd()).doing(doing)?;
    if let Some(users) = state.users {
        let owner = nix::unistd::Uid::from_raw(users.base);
        nix::unistd::fchown(&peer, Some(owner), None).doing(doing)?;
    }
    Ok((master, peer))
}

fn script(
    state: &State,
    command: &Command,
    leader: BorrowedFd<'_>,
    attend: Op,
    terminal: Option<BorrowedFd<'_>>,
) -> Result<Script, Error> {
    let mut script = Script::default();
    // Only children of who has entered the pid namespace are inside it; the one that waits for the command is not.
    script.push(
        Op::Join { fd: leader.as_raw_fd(), namespaces: libc::CLONE_NEWPID },
        format!("enter container {}", state.name),
    );
    script.push(attend, format!("start a process in container {}", state.name));
    // Whoever waits for it ends it with nixrun, and may itself be killed.
    script.push(Op::DieWithParent, "tie the command to nixrun");
    // Until its program runs it has descriptors of the host, and a copy of our memory. Root inside could trace it from the
    // moment on at which it has no more rights than that: once it is in the user namespace, and nobody there yet, or
    // has the container's capabilities. What is not dumpable is judged by the user namespace that nixrun was executed in.
    script.push(Op::Undumpable, "hide nixrun's memory from the container");
    script.push(Op::Umask, "set the umask");
    // With capabilities over them all: the kernel takes the user namespace first, in whichever order they are named.
    let user = if state.users.is_some() { libc::CLONE_NEWUSER } else { 0 };
    let join = Op::Join { fd: leader.as_raw_fd(), namespaces: NAMESPACES | user };
    script.push(join, format!("enter the namespaces of container {}", state.name));
    if user == 0 {
        script.push(Op::ClearGroups, "drop the supplementary groups");
    } else {
        script.push(Op::BecomeRoot, "become the container's root");
        // A change of credentials clears it (prctl(2), PR_SET_PDEATHSIG).
        script.push(Op::DieWithParent, "tie the command to nixrun");
    }
    // Without a terminal of its own, too: it has no business in the session of ours, where it would get every Ctrl-C
    // twice, from the terminal and from us.
    script.push(Op::NewSession, "start a session");
    if let Some(terminal) = terminal {
        script.push(Op::Terminal { fd: terminal.as_raw_fd() }, "take the terminal");
    }
    if let Some(Streams(streams)) = command.streams.as_ref().filter(|_| terminal.is_none()) {
        let streams = std::array::from_fn(|place| streams[place].as_raw_fd());
        script.push(Op::Streams(streams), "take the standard streams");
    }
    script.push(Op::NewKeyring, "join a new session keyring");
    let path = script.string(&c_path(&command.cwd)?);
    script.push(Op::Chdir { path, must: true }, format!("change to the directory {}", command.cwd.display()));
    let capabilities = CapSet::from_bits(state.capabilities);
    confine(&mut script, capabilities, &state.confinement, Inherited::default())?;
    execute(&mut script, None);
    script.image = image(&command.argv, &command.env)?;
    Ok(script)
}
