//! The program in the kernel: installed in a thread that ends with the test, or in a child, without NO_NEW_PRIVS.

use std::io::Error;

use libc::{c_long, sock_filter, sock_fprog};

use runtime::seccomp::{Policy, compile};
use runtime::{available_capabilities, nspawn_default};

use super::skip;

/// Whether the kernel took the program, for the calling thread.
fn install(program: &[sock_filter]) -> bool {
    let prog = sock_fprog { len: program.len() as u16, filter: program.as_ptr().cast_mut() };
    // SAFETY: the kernel copies the filter that `prog` points to before the call returns.
    unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const prog) == 0 }
}

fn may_install() -> bool {
    let caps = available_capabilities().unwrap();
    if !caps.contains(caps::Capability::CAP_SYS_ADMIN) {
        return skip("a filter without NO_NEW_PRIVS needs CAP_SYS_ADMIN");
    }
    true
}

/// Calls that do nothing, with or without a filter, and what each gives: 0 for success.
fn harmless() -> Vec<(&'static str, i32)> {
    let error = |number: c_long, args: [c_long; 3]| {
        // SAFETY: every call below has arguments that make it do nothing: no pointer that is followed, no valid
        // command.
        let result = unsafe { libc::syscall(number, args[0], args[1], args[2], 0, 0) };
        if result >= 0 { 0 } else { Error::last_os_error().raw_os_error().unwrap() }
    };
    let socket = |protocol: i32| {
        error(libc::SYS_socket, [libc::AF_NETLINK.into(), libc::SOCK_RAW.into(), protocol.into()])
    };
    vec![
        ("getpid", error(libc::SYS_getpid, [0; 3])),
        ("mount", error(libc::SYS_mount, [0; 3])),
        ("reboot", error(libc::SYS_reboot, [0; 3])),
        ("ptrace", error(libc::SYS_ptrace, [-1, 0, 0])),
        ("landlock_create_ruleset", error(libc::SYS_landlock_create_ruleset, [0; 3])),
        ("bpf", error(libc::SYS_bpf, [-1, 0, 0])),
        ("keyctl", error(libc::SYS_keyctl, [-1, 0, 0])),
        ("swapon", error(libc::SYS_swapon, [0; 3])),
        ("syslog", error(libc::SYS_syslog, [-1, 0, 0])),
        ("mlock", error(libc::SYS_mlock, [0; 3])),
        ("open_tree_attr", error(467, [-1, 0, 0])),
        ("number 600", error(600, [0; 3])),
        ("x32 getpid", error(0x4000_0000 + libc::SYS_getpid, [0; 3])),
        ("socket NETLINK_ROUTE", socket(libc::NETLINK_ROUTE)),
        ("socket NETLINK_AUDIT", socket(libc::NETLINK_AUDIT)),
    ]
}

fn in_a_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    std::thread::spawn(move || {
        // SAFETY: only this thread's descriptor table changes: what it opens is closed with it.
        assert_eq!(unsafe { libc::unshare(libc::CLONE_FILES) }, 0);
        work()
    })
    .join()
    .unwrap()
}

#[test]
#[cfg(target_arch = "x86_64")]
fn the_kernel_answers_as_the_policy_says() {
    use libc::{EAFNOSUPPORT, EFAULT, EINVAL, EIO, ENOSYS, EPERM, ESRCH};
    if !may_install() {
        return;
    }
    let free = in_a_thread(harmless);
    let bound = in_a_thread(|| {
        assert!(install(&compile(&Policy::nspawn(nspawn_default(true)))), "{}", Error::last_os_error());
        harmless()
    });
    for ((name, without), (_, with)) in free.iter().zip(&bound) {
        let allowed: &[i32] = match *name {
            "getpid" | "socket NETLINK_ROUTE" => &[0],
            "mount" => &[EFAULT, EINVAL],
            "reboot" => &[EINVAL],
            "ptrace" => &[ESRCH, EIO],
            // EOPNOTSUPP where Landlock is built in but not enabled, ENOSYS where it is not.
            "landlock_create_ruleset" => &[EFAULT, EINVAL, libc::EOPNOTSUPP, ENOSYS],
            "open_tree_attr" | "number 600" | "x32 getpid" => &[ENOSYS],
            "socket NETLINK_AUDIT" => &[EAFNOSUPPORT],
            _ => &[EPERM],
        };
        assert!(allowed.contains(with), "{name}: {}", Error::from_raw_os_error(*with));
        // The answers that the filter changes would be others without it: the test sees the filter.
        if allowed == [EPERM] {
            assert_ne!(*without, EPERM, "{name} without a filter");
        }
    }
}

#[test]
fn the_kernel_opens_nothing_synchronously_where_syncs_are_suppressed() {
    if !may_install() {
        return;
    }
    let open = |flags: i32| {
        // SAFETY: the path is a C string; what is opened is closed with the thread's table of descriptors.
        let opened = unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_WRONLY | flags) };
        let error = if opened >= 0 { 0 } else { Error::last_os_error().raw_os_error().unwrap() };
        // SAFETY: no descriptor has this number, which only a call that is made can find out.
        (error, unsafe { libc::fsync(i32::MAX) })
    };
    let (free, bound) = in_a_thread(move || {
        let mut policy = Policy::nspawn(nspawn_default(true));
        policy.suppress_sync();
        let free = open(libc::O_SYNC);
        assert!(install(&compile(&policy)), "{}", Error::last_os_error());
        (free, [0, libc::O_SYNC, libc::O_DSYNC, libc::O_APPEND].map(open))
    });
    assert_eq!(free, (0, -1));
    assert_eq!(bound, [(0, 0), (libc::EINVAL, 0), (libc::EINVAL, 0), (0, 0)]);
}

/// int 0x80, the 32-bit entry of a 64-bit kernel: result, or a negated error.
#[cfg(target_arch = "x86_64")]
fn int80(number: u32, args: [u32; 3]) -> i32 {
    let result: i32;
    // SAFETY: rbx, which the compiler keeps for itself, is given back; the calls have no pointer that is followed.
    unsafe {
        std::arch::asm!(
            "xchg {first:r}, rbx",
            "int 0x80",
            "xchg {first:r}, rbx",
            first = inout(reg) u64::from(args[0]) => _,
            inlateout("eax") number as i32 => result,
            in("ecx") args[1],
            in("edx") args[2],
            lateout("r8") _, lateout("r9") _, lateout("r10") _, lateout("r11") _,
        );
    }
    result
}

/// Runs `work` in a forked child, which must not allocate; its exit status, or `None` when a signal ended it.
#[cfg(target_arch = "x86_64")]
fn in_a_child(work: impl FnOnce() -> u8) -> Option<i32> {
    // SAFETY: the child makes system calls and ends; it takes no lock that another thread may hold.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "fork: {}", Error::last_os_error());
    if child == 0 {
        let code = work();
        // SAFETY: ends the child without running what the parent registered.
        unsafe { libc::_exit(code.into()) }
    }
    let mut status = 0;
    // SAFETY: waits for the child made above and writes its status.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status))
}

#[test]
#[cfg(target_arch = "x86_64")]
fn calls_by_the_32_bit_entry_are_filtered_as_well() {
    if !may_install() {
        return;
    }
    if in_a_child(|| u8::from(int80(20, [0; 3]) <= 0)) != Some(0) {
        skip("this kernel runs no 32-bit system calls");
        return;
    }
    let program = compile(&Policy::nspawn(nspawn_default(true)));
    let failed = in_a_child(|| {
        if !install(&program) {
            return u8::MAX;
        }
        let netlink = |protocol| int80(359, [libc::AF_NETLINK as u32, libc::SOCK_RAW as u32, protocol]);
        let checks = [
            int80(20, [0; 3]) > 0,                        // getpid; 20 is writev on x86_64
            int80(357, [u32::MAX, 0, 0]) == -libc::EPERM, // bpf
            int80(288, [u32::MAX, 0, 0]) == -libc::EPERM, // keyctl; 288 is accept4 on x86_64
            int80(467, [0; 3]) == -libc::ENOSYS,          // open_tree_attr
            int80(88, [0; 3]) == -libc::EINVAL,           // reboot without its magic
            netlink(libc::NETLINK_AUDIT as u32) == -libc::EAFNOSUPPORT, // socket
            netlink(libc::NETLINK_ROUTE as u32) >= 0,
        ];
        checks.iter().position(|held| !held).map_or(0, |first| first as u8 + 1)
    });
    assert_eq!(failed, Some(0), "number of the first check that failed");
}
