//! The floor of the comparison: what the kernel alone needs to start and end a container. One clone3 into the
//! namespaces that nixrun asks for, the mounts of nixrun's plan by the fewest system calls there are for each,
//! pivot_root, exec, wait. No check, no device node, no control group, no state file, no capability, no seccomp.
//!
//! ```text
//! floor ROOT net|host STEP... -- PROGRAM
//!
//! t TARGET          a tmpfs
//! k TARGET TYPE     a file system of the kernel's: proc, sysfs, devpts, mqueue, cgroup2
//! b TARGET SOURCE   a bind mount
//! r TARGET          make the mount there read-only
//! p                 pivot_root
//! s TARGET          make the tree there shared
//! ```
//! Paths are relative to the root, absolute ones those of the host's tree. A mount point that is not there is made: a directory, or an empty file where a file
//! is bound, which is made as well when it is not there.
#![no_main]

use std::mem::zeroed;
use std::ptr::null;

use libc::{c_char, c_int, c_ulong};

type Arguments = *const *const c_char;

/// C's entry point: Rust's own runtime would be part of what is measured.
// SAFETY: the symbol that the C library's start-up code calls, with its signature.
#[unsafe(no_mangle)]
extern "C" fn main(argc: i32, argv: Arguments) -> i32 {
    if argc < 5 {
        return 2;
    }
    let network = if text(argument(argv, 2)) == b"net" { libc::CLONE_NEWNET } else { 0 };
    let namespaces = libc::CLONE_NEWNS
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWCGROUP
        | network;
    // SAFETY: clone_args is plain data for which all zeroes is a valid value.
    let mut clone: libc::clone_args = unsafe { zeroed() };
    clone.flags = namespaces as u64;
    clone.exit_signal = libc::SIGCHLD as u64;
    // SAFETY: without CLONE_VM the child continues on a copy of this stack, as after fork.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const clone, size_of::<libc::clone_args>()) };
    match pid {
        -1 => 3,
        0 => child(argc as usize, argv),
        pid => wait(pid as libc::pid_t),
    }
}

fn wait(pid: libc::pid_t) -> i32 {
    let mut status: c_int = 0;
    // SAFETY: the kernel writes one int.
    let waited = unsafe { libc::waitpid(pid, &raw mut status, 0) };
    if waited == pid && libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { 4 }
}

fn child(argc: usize, argv: Arguments) -> ! {
    // SAFETY: every path is a NUL-terminated string, and mount takes null for what it does not need.
    unsafe {
        ok(libc::mount(null(), c"/".as_ptr(), null(), libc::MS_REC | libc::MS_PRIVATE, null()));
        let root = argument(argv, 1);
        ok(libc::mount(root, root, null(), libc::MS_BIND, null()));
        ok(libc::chdir(root));
    }
    let mut at = 3;
    while at < argc && text(argument(argv, at)) != b"--" {
        at += step(argv, at);
    }
    // SAFETY: argv ends with a null, so that the tail behind `--` is a list of arguments, too.
    unsafe {
        libc::execv(argument(argv, at + 1), argv.add(at + 1));
        libc::_exit(127)
    }
}

/// Does one step, and returns how many arguments it took.
fn step(argv: Arguments, at: usize) -> usize {
    let kind = text(argument(argv, at))[0];
    let target = || argument(argv, at + 1);
    let third = || argument(argv, at + 2);
    match kind {
        b't' => mount(c"tmpfs".as_ptr(), target(), c"tmpfs".as_ptr(), 0),
        b'k' => mount(third(), target(), third(), 0),
        b'b' => mount(third(), target(), null(), libc::MS_BIND),
        b'r' => mount(null(), target(), null(), libc::MS_REMOUNT | libc::MS_BIND | libc::MS_RDONLY),
        b's' => mount(null(), target(), null(), libc::MS_REC | libc::MS_SHARED),
        b'p' => pivot(),
        _ => fail(),
    }
    match kind {
        b'p' => 1,
        b'k' | b'b' => 3,
        _ => 2,
    }
}

fn mount(source: *const c_char, target: *const c_char, fstype: *const c_char, flags: c_ulong) {
    // SAFETY: each pointer is null or a NUL-terminated string.
    if unsafe { libc::mount(source, target, fstype, flags, null()) } == 0 {
        return;
    }
    // What is needed lies in a tmpfs of ours and is not there yet.
    if flags & libc::MS_BIND != 0 && text(source) != text(target) && !is_directory(source) {
        file(source);
        file(target);
    } else {
        parents(target);
        // SAFETY: `target` is a NUL-terminated string.
        unsafe { libc::mkdir(target, 0o755) };
    }
    // SAFETY: as above.
    ok(unsafe { libc::mount(source, target, fstype, flags, null()) });
}

fn is_directory(path: *const c_char) -> bool {
    // SAFETY: `path` is a NUL-terminated string, and stat is plain data that the kernel writes.
    unsafe {
        let mut stat: libc::stat = zeroed();
        libc::stat(path, &raw mut stat) == 0 && stat.st_mode & libc::S_IFMT == libc::S_IFDIR
    }
}

/// Makes an empty file, and the directories around it, where there is none. What fails here fails the mount.
fn file(path: *const c_char) {
    parents(path);
    // SAFETY: `path` is a NUL-terminated string; the descriptor is closed as the only use of it.
    unsafe { libc::close(libc::open(path, libc::O_RDONLY | libc::O_CREAT, 0o600)) };
}

/// Makes the directories around `path`, from the outermost on.
fn parents(path: *const c_char) {
    let mut parent = [0u8; 256];
    for (at, byte) in text(path).iter().take(255).enumerate() {
        if *byte == b'/' && at > 0 {
            // SAFETY: the copy so far ends with a zero.
            unsafe { libc::mkdir(parent.as_ptr().cast(), 0o755) };
        }
        parent[at] = *byte;
    }
}

fn pivot() {
    // SAFETY: NUL-terminated paths only.
    unsafe {
        ok(libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()) as c_int);
        ok(libc::umount2(c".".as_ptr(), libc::MNT_DETACH));
        ok(libc::chdir(c"/".as_ptr()));
    }
}

/// The argument `at`, which the caller knows to be there or behind the last one.
fn argument(argv: Arguments, at: usize) -> *const c_char {
    // SAFETY: the caller stays within argv, or asks for its terminating null.
    unsafe { *argv.add(at) }
}

fn text<'a>(string: *const c_char) -> &'a [u8] {
    if string.is_null() {
        fail();
    }
    // SAFETY: argv's strings are NUL-terminated and live as long as the process.
    unsafe { std::ffi::CStr::from_ptr(string) }.to_bytes()
}

fn ok(result: c_int) {
    if result < 0 {
        fail();
    }
}

fn fail() -> ! {
    // SAFETY: a NUL-terminated string, and a call that does not return.
    unsafe {
        libc::perror(c"floor".as_ptr());
        libc::_exit(5)
    }
}
