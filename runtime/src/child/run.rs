//! The interpreter of a [`Script`]: one loop, each operation a few raw system calls.

use std::convert::Infallible;
use std::ffi::CStr;
use std::os::fd::RawFd;

use super::mounts::{
    attach, attach_and_close, attach_root, bind, bind_in, leave_chroot, make_target, mask, move_mount,
    new_fs, new_overlay, overlay_root, pivot, set_attributes, unmount,
};
use super::report::{Report, Words};
use super::script::{Op, Script};
use crate::sys::clone::clone_sibling;
use crate::sys::inroot::{self, Failure};

pub(super) type Done = Result<(), Failure>;

/// `TIOCSCTTY` (asm-generic/ioctls.h), whose type differs between libcs.
pub(super) const TIOCSCTTY: u64 = 0x540e;

/// Exit status of a child that could not execute its program; the parent goes by the report, not by this.
const FAILED: i32 = 127;

/// Runs the script in a freshly cloned child, with the child's end of the SEQPACKET pair and its copy of the parent's.
pub(crate) fn run(script: &Script, [channel, parents]: [RawFd; 2]) -> Infallible {
    // First of all: while we hold it ourselves, the parent's death is no end of file.
    close(parents);
    // Our end of the pipe to the process that cloned us.
    let mut cloner = -1;
    let mut index = 0;
    while let Some(op) = script.ops.get(index) {
        let result = match *op {
            Op::Split { namespaces, aside } => split(script, channel, namespaces).map(|writer| {
                cloner = writer.unwrap_or(-1);
                index += if writer.is_some() { aside } else { 0 };
            }),
            Op::Release => {
                close(cloner);
                Ok(())
            }
            Op::End => exit(0),
            op => perform(script, channel, op),
        };
        match result {
            Ok(()) => {}
            Err(failure) if matches!(op, Op::Offer(_)) => {
                send(channel, Report::Skipped { op: index as u16, failure });
            }
            Err(failure) => {
                send(channel, Report::Failed { op: index as u16, failure });
                exit(FAILED);
            }
        }
        index += 1;
    }
    exit(FAILED)
}

/// Returns in the copy at once, with the end of a pipe, and in the original once that is closed: by the copy, or by its
/// end, in which case there is nothing left to do but to end, too.
fn split(script: &Script, channel: RawFd, namespaces: u64) -> Result<Option<RawFd>, Failure> {
    let mut pipe = [-1; 2];
    call(libc::SYS_pipe2, [pipe.as_mut_ptr() as u64, libc::O_CLOEXEC as u64, 0, 0, 0])?;
    let [reader, writer] = pipe;
    match clone_sibling(namespaces)? {
        0 => {
            close(reader);
            // The descriptor of before leads to the mounts of the other.
            let flags = (libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC) as u64;
            let root = value(libc::SYS_openat, [libc::AT_FDCWD as u64, address(c"/"), flags, 0, 0])?;
            call(libc::SYS_dup3, [root as u64, script.root as u64, libc::O_CLOEXEC as u64, 0, 0])?;
            close(root);
            Ok(Some(writer))
        }
        pid => {
            close(writer);
            send(channel, Report::Cloned { pid });
            let mut byte = 0u8;
            value(libc::SYS_read, [reader as u64, (&raw mut byte) as u64, 1, 0, 0])?;
            Ok(None)
        }
    }
}

fn perform(script: &Script, channel: RawFd, op: Op) -> Done {
    let root = script.root;
    match op {
        Op::DieWithParent => prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as u64),
        Op::Undumpable => prctl(libc::PR_SET_DUMPABLE, 0),
        Op::FileOwner { id } => own_files_as(id),
        Op::LeaveChroot => leave_chroot(),
        Op::PrivateTree => set_attributes(libc::AT_FDCWD, c"/", true, 0, libc::MS_PRIVATE),
        Op::Stage { tree } => move_mount(tree, c"", libc::AT_FDCWD, c"/"),
        Op::AttachRoot => attach_root(root),
        Op::OverlayRoot { overlay } => overlay_root(script, channel, overlay),
        Op::Attach { tree, target } => attach(script, tree, target),
        Op::NewFs { fstype, attributes, target } => {
            let tree = new_fs(channel, script.get(fstype), attributes)?;
            attach_and_close(script, tree, target)
        }
        Op::NewFsOutside { fstype, attributes, at } => {
            let tree = new_fs(channel, script.get(fstype), attributes)?;
            let result = move_mount(tree, c"", libc::AT_FDCWD, script.get(at));
            close(tree);
            result
        }
        Op::Bind { source, recursive, attributes, target } => {
            bind(script, root, script.get(source), recursive, attributes, target)
        }
        Op::BindIn { tree, source, recursive, attributes, target } => {
            bind_in(script, tree, source, recursive, attributes, target)
        }
        Op::Overlay { overlay, attributes, target } => {
            let tree = new_overlay(script, channel, overlay, attributes)?;
            attach_and_close(script, tree, target)
        }
        Op::Mask { attributes, target } => mask(script, attributes, target),
        Op::SetAttributes { path, attributes, propagation, recursive } => {
            set_attributes(root, script.get(path), recursive, attributes, propagation)
        }
        Op::MakeTarget { target } => make_target(script, target),
        Op::Unmount { path } => unmount(root, script.get(path)),
        Op::Remove { path } => call(libc::SYS_unlinkat, [root as u64, address(script.get(path)), 0, 0, 0]),
        Op::Offer(offer) => super::files::offer(script, root, &offer),
        Op::MakeDirectory { path } => {
            inroot::open(root, script.get(path), libc::O_PATH, inroot::Make::Directory(0o755), true)
                .map(close)
        }
        Op::Pivot { staged } => pivot(root, staged),
        // By `run`.
        Op::Split { .. } | Op::Release | Op::End => Ok(()),
        Op::Attend { group, status } => super::attend::attend(channel, group, status),
        Op::AwaitIds => read_byte(channel),
        Op::BecomeRoot => become_root(),
        Op::Join { fd, namespaces } => call(libc::SYS_setns, [fd as u64, namespaces as u64, 0, 0, 0]),
        Op::Hostname { name } => {
            let name = script.get(name);
            call(libc::SYS_sethostname, [address(name), name.count_bytes() as u64, 0, 0, 0])
        }
        Op::NewSession => call(libc::SYS_setsid, [0; 5]),
        Op::Console { path, control } => {
            let fd = inroot_open(script, path)?;
            standard_streams(fd, control)
        }
        Op::Terminal { fd } => standard_streams(fd, true),
        // KEYCTL_JOIN_SESSION_KEYRING without a name. ENOSYS where the kernel was built without keyrings.
        Op::NewKeyring => ignore(call(libc::SYS_keyctl, [1, 0, 0, 0, 0]), &[libc::ENOSYS, libc::EPERM]),
        Op::Limit { resource, soft, hard } => {
            let limit = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
            call(libc::SYS_prlimit64, [0, u64::from(resource), (&raw const limit) as u64, 0, 0])
        }
        Op::ClearGroups => call(libc::SYS_setgroups, [0; 5]),
        Op::Umask => call(libc::SYS_umask, [0o022, 0, 0, 0, 0]),
        Op::Await => wait_for_go(channel),
        Op::DefaultSignals => default_signals(),
        Op::Filter => install_filter(&script.filter),
        Op::Bounding { mask } => set_bounding(mask),
        Op::Home { path, uid, gid } => make_home(script, path, [uid, gid]),
        Op::SetUser { uid, gid, terminal } => set_user(script, [uid, gid], terminal),
        Op::Capabilities { mask, ambient } => set_capabilities(mask, ambient),
        Op::Personality { domain } => set_personality(domain),
        Op::NoNewPrivileges => call(libc::SYS_prctl, [libc::PR_SET_NO_NEW_PRIVS as u64, 1, 0, 0, 0]),
        Op::Chdir { path, must } => {
            let result = change_directory(script.get(path));
            if must { result } else { Ok(()) }
        }
        Op::Streams(streams) => take_streams(streams),
        Op::CloseDescriptors { inherited } => close_descriptors(channel, inherited),
        Op::Stub(stub) => super::stub::fork(script, &stub),
        Op::Exec => exec(script, channel),
    }
}

/// What is made on a mount with mapped ids belongs to whoever makes it, if the mount has an id for that one, which it
/// has not for the host's root. Capabilities that a change of user would take along (securebits in capabilities(7)) are
/// kept.
fn own_files_as(id: u32) -> Done {
    const SECBIT_NO_SETUID_FIXUP: u64 = 1 << 2;
    prctl(libc::PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP)?;
    // Neither tells an error; both return the id of before (setfsuid(2)).
    value(libc::SYS_setfsgid, [u64::from(id), 0, 0, 0, 0])?;
    value(libc::SYS_setfsuid, [u64::from(id), 0, 0, 0, 0])?;
    Ok(())
}

/// The groups first: dropping them takes CAP_SETGID.
fn become_root() -> Done {
    call(libc::SYS_setgroups, [0; 5])?;
    call(libc::SYS_setresgid, [0; 5])?;
    call(libc::SYS_setresuid, [0; 5])
}

fn inroot_open(script: &Script, path: super::script::Str) -> Result<RawFd, Failure> {
    let flags = libc::O_RDWR | libc::O_NOCTTY;
    inroot::open(script.root, script.get(path), flags, inroot::Make::Nothing, false)
}

fn standard_streams(fd: RawFd, control: bool) -> Done {
    if control {
        call(libc::SYS_ioctl, [fd as u64, TIOCSCTTY, 0, 0, 0])?;
    }
    for standard in 0..3u64 {
        call(libc::SYS_dup3, [fd as u64, standard, 0, 0, 0])?;
    }
    Ok(())
}

/// By read(2), as reports go by write(2): calls on sockets may be denied by the filter.
fn read_byte(channel: RawFd) -> Done {
    let mut byte = 0u8;
    loop {
        match value(libc::SYS_read, [channel as u64, (&raw mut byte) as u64, 1, 0, 0]) {
            Ok(0) => exit(FAILED),
            Ok(_) => return Ok(()),
            Err(failure) if failure.errno == libc::EINTR => {}
            Err(failure) => return Err(failure),
        }
    }
}

fn wait_for_go(channel: RawFd) -> Done {
    read_byte(channel)?;
    let mut byte = 0u8;
    // A command of `exec` is told to go as soon as it is cloned: its parent may have died before PDEATHSIG was set.
    // Whoever dies from now on kills us; whoever died before has closed the channel (do_exit closes files first).
    let flags = (libc::MSG_PEEK | libc::MSG_DONTWAIT) as u64;
    match value(libc::SYS_recvfrom, [channel as u64, (&raw mut byte) as u64, 1, flags, 0]) {
        Ok(0) => exit(FAILED),
        // An error other than EAGAIN: a filter that allows no such call.
        _ => Ok(()),
    }
}

/// By the raw calls: libc refuses to touch the signals that it keeps for itself, and those may be ignored, too, by
/// whoever started us.
fn default_signals() -> Done {
    // The kernel's `struct sigaction`, all zeroes: SIG_DFL, no flags, nothing blocked. Its size differs between
    // architectures; none is longer than this.
    let default = [0u64; 4];
    // The size of the kernel's sigset_t, which the calls want to hear.
    let size = 8u64;
    for signal in 1..=64 {
        // EINVAL: SIGKILL and SIGSTOP have no disposition to reset.
        let arguments = [signal, default.as_ptr() as u64, 0, size, 0];
        ignore(call(libc::SYS_rt_sigaction, arguments), &[libc::EINVAL])?;
    }
    let none = 0u64;
    let arguments = [libc::SIG_SETMASK as u64, (&raw const none) as u64, 0, size, 0];
    call(libc::SYS_rt_sigprocmask, arguments)
}

/// Installs the filter without NO_NEW_PRIVS, which CAP_SYS_ADMIN permits: with it, sudo and every setuid wrapper
/// inside the container would fail.
fn install_filter(filter: &[libc::sock_filter]) -> Done {
    if filter.is_empty() {
        return Ok(());
    }
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
    call(libc::SYS_seccomp, [u64::from(libc::SECCOMP_SET_MODE_FILTER), 0, (&raw const program) as u64, 0, 0])
}

/// The kernel's `struct __user_cap_header_struct` and two `__user_cap_data_struct`, version 3.
#[repr(C)]
struct CapHeader {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct CapData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

fn set_bounding(mask: u64) -> Done {
    for capability in 0..64u64 {
        if mask & (1 << capability) == 0 {
            match prctl(libc::PR_CAPBSET_DROP, capability) {
                // A number beyond the kernel's last capability.
                Err(failure) if failure.errno == libc::EINVAL => break,
                result => result?,
            }
        }
    }
    Ok(())
}

/// A user other than root gets what survives its exec, as under systemd-nspawn.
fn set_capabilities(mask: u64, ambient: u64) -> Done {
    // SAFETY: geteuid takes nothing and cannot fail.
    let held = if unsafe { libc::geteuid() } == 0 { mask } else { ambient };
    // PR_CAP_AMBIENT_CLEAR_ALL is 4; an ambient capability would survive a setuid program's drop of its own.
    call(libc::SYS_prctl, [libc::PR_CAP_AMBIENT as u64, 4, 0, 0, 0])?;
    let header = CapHeader { version: 0x2008_0522, pid: 0 };
    let half =
        |bits: u64| CapData { effective: bits as u32, permitted: bits as u32, inheritable: bits as u32 };
    let data = [half(held), half(held >> 32)];
    call(libc::SYS_capset, [(&raw const header) as u64, (&raw const data) as u64, 0, 0, 0])?;
    for capability in (0..64u64).filter(|capability| ambient & (1 << capability) != 0) {
        // PR_CAP_AMBIENT_RAISE.
        call(libc::SYS_prctl, [libc::PR_CAP_AMBIENT as u64, 2, capability, 0, 0])?;
    }
    Ok(())
}

/// The kind of machine is the low byte; above it are flags, such as the one against address randomisation, which stay.
fn set_personality(domain: u64) -> Done {
    let current = value(libc::SYS_personality, [0xffff_ffff, 0, 0, 0, 0])?;
    call(libc::SYS_personality, [current as u32 as u64 & !0xff | domain, 0, 0, 0, 0])
}

/// As nspawn: one that is missing is made, and belongs to the user; whatever else is there stays as it is. A root that
/// cannot be written to has none.
fn make_home(script: &Script, path: super::script::Str, [uid, gid]: [u32; 2]) -> Done {
    let (path, flags) = (script.get(path), libc::O_PATH | libc::O_CLOEXEC);
    let open = |make| inroot::open(script.root, path, flags, make, true);
    match open(inroot::Make::Nothing) {
        Ok(fd) => {
            close(fd);
            return Ok(());
        }
        Err(failure) if failure.errno == libc::ENOENT => {}
        Err(_) => return Ok(()),
    }
    let home = match open(inroot::Make::Directory(0o755)) {
        // A dangling symlink; or a file on the way.
        Err(failure) if matches!(failure.errno, libc::EROFS | libc::EEXIST | libc::ENOTDIR) => return Ok(()),
        result => result?,
    };
    let arguments = [home as u64, address(c""), u64::from(uid), u64::from(gid), libc::AT_EMPTY_PATH as u64];
    let result = call(libc::SYS_fchownat, arguments);
    close(home);
    result
}

fn set_user(script: &Script, [uid, gid]: [u32; 2], terminal: bool) -> Done {
    let (user, group) = (u64::from(uid), u64::from(gid));
    for standard in 0..if terminal { 3u64 } else { 0 } {
        // So that the program can open its terminal by name.
        let _ = call(libc::SYS_fchown, [standard, user, group, 0, 0]);
    }
    // What of the permitted set is wanted is chosen afterwards.
    prctl(libc::PR_SET_KEEPCAPS, 1)?;
    let groups = &script.groups;
    call(libc::SYS_setgroups, [groups.len() as u64, groups.as_ptr() as u64, 0, 0, 0])?;
    call(libc::SYS_setresgid, [group, group, group, 0, 0])?;
    call(libc::SYS_setresuid, [user, user, user, 0, 0])
}

/// No link of the container leads through /proc/self/fd into directories of the host that we have open still. We stand in
/// the root: pivot_root and setns(2) have seen to that.
fn change_directory(path: &CStr) -> Done {
    let flags = libc::O_PATH | libc::O_DIRECTORY;
    let directory = inroot::open(libc::AT_FDCWD, path, flags, inroot::Make::Nothing, true)?;
    let result = call(libc::SYS_fchdir, [directory as u64, 0, 0, 0, 0]);
    close(directory);
    result
}

/// All but the channel, which its flag closes, and what the program is to inherit. Closed at once, since the path of the
/// program may be a link through /proc/self/fd as well.
fn take_streams(streams: [RawFd; 3]) -> Done {
    for (place, stream) in streams.into_iter().enumerate() {
        call(libc::SYS_dup3, [stream as u64, place as u64, 0, 0, 0])?;
    }
    Ok(())
}

fn close_descriptors(channel: RawFd, inherited: u32) -> Done {
    let (first, channel) = (3 + u64::from(inherited), channel as u64);
    for (from, to) in [(first, channel.saturating_sub(1)), (first.max(channel + 1), u64::from(u32::MAX))] {
        if from <= to {
            call(libc::SYS_close_range, [from, to, 0, 0, 0])?;
        }
    }
    for descriptor in 3..first {
        call(libc::SYS_fcntl, [descriptor, libc::F_SETFD as u64, 0, 0, 0])?;
    }
    Ok(())
}

fn exec(script: &Script, channel: RawFd) -> Done {
    send(channel, Report::Exec);
    let image = &script.image;
    let mut failure = Failure { call: libc::SYS_execve as i32, errno: libc::ENOENT };
    for (index, path) in image.candidates().iter().enumerate() {
        // SAFETY: `path` and the entries of both NULL-terminated arrays are C strings owned by `image`.
        unsafe { libc::execve(path.as_ptr(), image.argv(index), image.envp()) };
        let last = Failure::last(libc::SYS_execve);
        // As a shell: what is not there is passed over, what may not be executed is remembered.
        match last.errno {
            libc::ENOENT | libc::ENOTDIR => {}
            libc::EACCES => failure = last,
            _ => return Err(last),
        }
    }
    Err(failure)
}

pub(super) fn send(channel: RawFd, report: Report) {
    let record = report.encode();
    // SAFETY: the kernel reads the record's bytes. A parent that is gone cannot be told: the result is of no use.
    unsafe { libc::write(channel, record.as_ptr().cast(), record.len()) };
}

/// Passes on what a file system's context has to say, a message a read (at most eight are kept).
pub(super) fn explain(channel: RawFd, context: RawFd) {
    let mut words = Words::new();
    for _ in 0..8 {
        let room = words.room();
        let (address, size) = (room.as_mut_ptr() as u64, room.len() as u64);
        let Ok(length) = value(libc::SYS_read, [context as u64, address, size, 0, 0]) else { return };
        let record = words.encode(length.unsigned_abs() as usize);
        // SAFETY: the kernel reads the record's bytes. As with `send`, nobody could be told of a failure.
        unsafe { libc::write(channel, record.as_ptr().cast(), record.len()) };
    }
}

pub(super) fn exit(status: i32) -> ! {
    // SAFETY: _exit runs no handlers and no destructors, which belong to the parent.
    unsafe { libc::_exit(status) }
}

pub(super) fn close(fd: RawFd) {
    // SAFETY: every caller passes a descriptor that it opened and does not use again.
    unsafe { libc::close(fd) };
}

fn prctl(option: i32, argument: u64) -> Done {
    call(libc::SYS_prctl, [option as u64, argument, 0, 0, 0])
}

pub(super) fn address(string: &CStr) -> u64 {
    string.as_ptr() as u64
}

pub(super) fn call(number: libc::c_long, arguments: [u64; 5]) -> Done {
    value(number, arguments).map(|_| ())
}

pub(super) fn value(number: libc::c_long, a: [u64; 5]) -> Result<RawFd, Failure> {
    // SAFETY: every pointer among the arguments comes from a live reference of the caller, and the kernel keeps none.
    let result = unsafe { libc::syscall(number, a[0], a[1], a[2], a[3], a[4], 0u64) };
    if result < 0 { Err(Failure::last(number)) } else { Ok(result as RawFd) }
}

fn ignore(result: Done, errors: &[i32]) -> Done {
    match result {
        Err(failure) if errors.contains(&failure.errno) => Ok(()),
        result => result,
    }
}
