//! Which system calls the running kernel has, found out without doing anything.

use nix::errno::Errno;

/// The system calls that starting a container needs, with the first kernel that has each (man-pages).
pub const CALLS: &[(&str, libc::c_long, &str)] = &[
    ("open_tree", libc::SYS_open_tree, "5.2"),
    ("move_mount", libc::SYS_move_mount, "5.2"),
    ("fsopen", libc::SYS_fsopen, "5.2"),
    ("clone3", libc::SYS_clone3, "5.3"),
    ("pidfd_open", libc::SYS_pidfd_open, "5.3"),
    ("openat2", libc::SYS_openat2, "5.6"),
    ("close_range", libc::SYS_close_range, "5.9"),
    ("mount_setattr", libc::SYS_mount_setattr, "5.12"),
    ("seccomp", libc::SYS_seccomp, "3.17"),
];

/// Whether the kernel has the system call, which must be one of [`CALLS`]. A seccomp filter over this process that
/// answers ENOSYS makes it look as if it had not, and rightly so.
#[must_use]
pub fn has_call(number: libc::c_long) -> bool {
    if !CALLS.iter().any(|(_, known, _)| *known == number) {
        return false;
    }
    // SAFETY: each of CALLS rejects these arguments before it acts: -1 is no descriptor, no set of flags, no
    // operation and no size that any of them takes, and no pointer is followed before that is found out.
    let result = unsafe { libc::syscall(number, -1i64, -1i64, -1i64, -1i64, -1i64, -1i64) };
    result >= 0 || Errno::last() != Errno::ENOSYS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_kernel_has_what_the_other_tests_need() {
        for (name, number, _) in CALLS {
            assert!(has_call(*number), "{name}");
        }
    }

    #[test]
    fn no_other_call_is_made() {
        assert!(!has_call(libc::SYS_close));
    }
}
