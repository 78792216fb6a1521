//! The system call filter: a [`Policy`] by name, compiled to one seccomp BPF program.
//!
//! The policy is systemd-nspawn's (`src/nspawn/nspawn-seccomp.c`): what is allowed is listed; what libsystemd knows
//! beyond that gets EPERM; what it does not know gets ENOSYS, so that programs fall back as on an older kernel.
//! nspawn loads two filters for each architecture; here all is one program, which the kernel runs once a call, of
//! this shape: load the architecture, go to its part, search the number by a balanced tree of ranges.
//!
//! Decided on purpose:
//! - x32 numbers, part of `AUDIT_ARCH_X86_64`, get ENOSYS, as from a kernel without x32; nspawn filters them by name.
//! - Every call of an architecture that the program has no part for gets ENOSYS; nspawn lets it through unfiltered.
//!   None such exists on the machines we build for.
//! - On 32-bit x86, `socketcall` hands its arguments over in memory, where no filter can look: sockets for audit
//!   can be made by it. libseccomp then drops the rule for the direct `socket` too; here it is kept.
//! - The program does not need `NO_NEW_PRIVS`, which would break setuid programs in the container: install it while
//!   `CAP_SYS_ADMIN` is held.

mod groups;
mod program;
mod set;
mod syscalls;

use caps::Capability;
use libc::sock_filter;
use seccompiler::{BpfProgram, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompRule};

use self::program::{ARCHITECTURE, ARGUMENTS, Backward, IF_ANY_BIT, IF_AT_LEAST, IF_EQUAL, Label, NUMBER};
use self::set::{BY_SLOT, KNOWN, NO_CALL, SyscallSet, index_of, number_of_slot};
use self::syscalls::{SYSCALLS, X};
use crate::caps::CapSet;

/// Why a filter cannot be what was asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SeccompError {
    /// Neither a system call of any architecture here nor a group.
    #[error(
        "the system call filter cannot be changed: {name:?} is neither a system call nor a group; {}",
        match nearest {
            Some(nearest) => format!("did you mean {nearest:?}?"),
            None => "`systemd-analyze syscall-filter` lists both".to_owned(),
        }
    )]
    Unknown {
        /// The name as given.
        name: String,
        /// What it is perhaps a slip of the keyboard for.
        nearest: Option<&'static str>,
    },
}

/// A system call convention: numbers and registers of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Abi {
    /// 64-bit x86, without x32.
    X86_64,
    /// 32-bit x86, by itself or under a 64-bit kernel.
    I386,
    /// 64-bit Arm.
    Aarch64,
    /// 32-bit Arm (EABI), by itself or under a 64-bit kernel.
    Arm,
}

impl Abi {
    /// What programs of the machine that this was built for may use, the most used one first.
    pub const LOCAL: &'static [Abi] = if cfg!(target_arch = "x86_64") {
        &[Abi::X86_64, Abi::I386]
    } else if cfg!(target_arch = "aarch64") {
        &[Abi::Aarch64, Abi::Arm]
    } else if cfg!(target_arch = "x86") {
        &[Abi::I386]
    } else if cfg!(target_arch = "arm") {
        &[Abi::Arm]
    } else {
        panic!("the system call tables have no column for this architecture")
    };

    /// The kernel's name for it in `struct seccomp_data` (`AUDIT_ARCH_*` in linux/audit.h).
    #[must_use]
    pub const fn audit_arch(self) -> u32 {
        const LITTLE_ENDIAN: u32 = 0x4000_0000;
        const SIXTY_FOUR_BITS: u32 = 0x8000_0000;
        match self {
            Abi::X86_64 => LITTLE_ENDIAN | SIXTY_FOUR_BITS | libc::EM_X86_64 as u32,
            Abi::I386 => LITTLE_ENDIAN | libc::EM_386 as u32,
            Abi::Aarch64 => LITTLE_ENDIAN | SIXTY_FOUR_BITS | libc::EM_AARCH64 as u32,
            Abi::Arm => LITTLE_ENDIAN | libc::EM_ARM as u32,
        }
    }
}

/// Number of the system call `name`, where `abi` has it and libsystemd knows it.
#[must_use]
pub fn number(abi: Abi, name: &str) -> Option<u32> {
    index_of(name.as_bytes()).map(|index| SYSCALLS[index].1[abi as usize]).filter(|&number| number != X)
}

/// The system calls that `name` stands for: itself, or the members of a group such as `@mount` or `@known`.
#[must_use]
pub fn members(name: &str) -> Option<impl Iterator<Item = &'static str>> {
    SyscallSet::named(name).map(SyscallSet::names)
}

/// The calls that a user means by `name`.
fn named(name: &str) -> Result<SyscallSet, SeccompError> {
    let unknown = || SeccompError::Unknown { name: name.to_owned(), nearest: SyscallSet::nearest(name) };
    SyscallSet::named(name).ok_or_else(unknown)
}

/// What happens to a system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is done.
    Allow,
    /// It is done, but EAFNOSUPPORT for a socket of the audit protocol: audit takes that for a kernel without it.
    AllowExceptAudit,
    /// It succeeds without being done.
    Nothing,
    /// It succeeds without being done, but EBADF where its first argument can be no descriptor.
    NothingOnFile,
    /// The same where it is denied: EPERM then.
    NothingOnFileOrDenied,
    /// It is done, but EINVAL with `O_SYNC` or `O_DSYNC` in its second argument.
    OpenWithoutSync,
    /// It is done, but EINVAL with `O_SYNC` or `O_DSYNC` in its third argument.
    OpenatWithoutSync,
    /// It fails with EPERM: known, and not allowed.
    NotPermitted,
    /// It fails with ENOSYS: not known.
    NotImplemented,
}

/// Which system calls a container may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    allowed: SyscallSet,
    denied: SyscallSet,
    suppress_sync: bool,
}

/// Calls that `suppress_sync` makes do nothing.
const SYNC: SyscallSet = SyscallSet::of("@sync");
/// Those of them that take no descriptor.
const SYNC_WITHOUT_FILE: SyscallSet = SyscallSet::of("msync sync");

/// What nspawn 257 allows whatever the capabilities. Left out on purpose there: `@cpu-emulation` `@keyring` `@obsolete`
/// `@pkey` `@swap`, bpf, fanotify_*, kexec_*, lookup_dcookie, nfsservctl, open_by_handle_at, perf_event_open and
/// quotactl, none of which knows of namespaces.
const ALWAYS: SyscallSet = SyscallSet::of(
    "@aio @basic-io @chown @default @file-system @io-event @ipc @mount @network-io @process @resources @setuid \
     @signal @sync @timer arm_fadvise64_64 brk cachestat capget capset copy_file_range fadvise64 fadvise64_64 flock \
     get_mempolicy getcpu getpriority getrandom ioctl ioprio_get kcmp madvise mincore mprotect mremap \
     name_to_handle_at oldolduname olduname personality readahead readdir remap_file_pages \
     sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr sched_getparam \
     sched_getscheduler sched_rr_get_interval sched_rr_get_interval_time64 sched_yield seccomp sendfile \
     sendfile64 setdomainname setfsgid setfsgid32 setfsuid setfsuid32 sethostname setpgid setsid splice sysinfo \
     tee umask uname userfaultfd vmsplice",
);

/// What nspawn allows to a container that has the capability.
static WITH_CAPABILITY: [(Capability, SyscallSet); 9] = [
    (Capability::CAP_SYS_TIME, SyscallSet::of("@clock")),
    (Capability::CAP_SYS_MODULE, SyscallSet::of("@module")),
    (Capability::CAP_SYS_RAWIO, SyscallSet::of("@raw-io")),
    (Capability::CAP_IPC_LOCK, SyscallSet::of("@memlock")),
    (Capability::CAP_SYS_PACCT, SyscallSet::of("acct")),
    (Capability::CAP_SYS_PTRACE, SyscallSet::of("process_vm_readv process_vm_writev ptrace")),
    (Capability::CAP_SYS_BOOT, SyscallSet::of("reboot")),
    (Capability::CAP_SYSLOG, SyscallSet::of("syslog")),
    (Capability::CAP_SYS_TTY_CONFIG, SyscallSet::of("vhangup")),
];

impl Policy {
    /// systemd-nspawn's policy for a container with these capabilities.
    #[must_use]
    pub fn nspawn(caps: CapSet) -> Policy {
        let held = WITH_CAPABILITY.iter().filter(|(capability, _)| caps.contains(*capability));
        let allowed = held.fold(ALWAYS, |allowed, (_, calls)| allowed.union(calls));
        Policy { allowed, denied: SyscallSet::EMPTY, suppress_sync: false }
    }

    /// Allows a system call or a group in addition, unless it is denied.
    ///
    /// # Errors
    /// [`SeccompError::Unknown`].
    pub fn allow(&mut self, name: &str) -> Result<(), SeccompError> {
        self.allowed = self.allowed.union(&named(name)?);
        Ok(())
    }

    /// Denies a system call or a group, whatever else allows it, before or after (nspawn's order).
    ///
    /// # Errors
    /// [`SeccompError::Unknown`].
    pub fn deny(&mut self, name: &str) -> Result<(), SeccompError> {
        self.denied = self.denied.union(&named(name)?);
        Ok(())
    }

    /// Makes fsync(2) and its kind succeed without doing anything, whatever is denied, as far as the descriptor is not
    /// negative. `O_SYNC` and `O_DSYNC` are
    /// EINVAL for open(2) and openat(2), and openat2(2), whose flags lie in memory, is not there: programs try
    /// again without (systemd's `seccomp_suppress_sync`).
    pub fn suppress_sync(&mut self) {
        self.suppress_sync = true;
    }

    /// The names of what is allowed, in alphabetical order.
    pub fn allowed(&self) -> impl Iterator<Item = &'static str> {
        self.allowed.difference(&self.denied).names()
    }

    /// What happens to the call that `abi` numbers `number`. The compiled program does the same.
    #[must_use]
    pub fn verdict(&self, abi: Abi, number: u32) -> Verdict {
        let found = SYSCALLS.iter().position(|(_, numbers)| number != X && numbers[abi as usize] == number);
        found.map_or(Verdict::NotImplemented, |index| self.verdict_of(index))
    }

    fn verdict_of(&self, index: usize) -> Verdict {
        const SOCKET: usize = index_of(b"socket").expect("socket is in the table");
        const OPEN: usize = index_of(b"open").expect("open is in the table");
        const OPENAT: usize = index_of(b"openat").expect("openat is in the table");
        const OPENAT2: usize = index_of(b"openat2").expect("openat2 is in the table");
        match self.allowed.contains(index) && !self.denied.contains(index) {
            _ if self.suppress_sync && SYNC_WITHOUT_FILE.contains(index) => Verdict::Nothing,
            true if self.suppress_sync && SYNC.contains(index) => Verdict::NothingOnFile,
            false if self.suppress_sync && SYNC.contains(index) => Verdict::NothingOnFileOrDenied,
            _ if self.suppress_sync && index == OPENAT2 => Verdict::NotImplemented,
            true if self.suppress_sync && index == OPEN => Verdict::OpenWithoutSync,
            true if self.suppress_sync && index == OPENAT => Verdict::OpenatWithoutSync,
            true if index == SOCKET => Verdict::AllowExceptAudit,
            true => Verdict::Allow,
            false if KNOWN.contains(index) => Verdict::NotPermitted,
            false => Verdict::NotImplemented,
        }
    }

    /// The numbers of `abi` as ranges: where each begins, and what happens to it; the first begins at 0, the last
    /// has no end.
    fn ranges(&self, abi: Abi) -> Vec<(u32, Verdict)> {
        let mut ranges: Vec<(u32, Verdict)> = Vec::with_capacity(256);
        for (slot, &index) in BY_SLOT[abi as usize].iter().enumerate() {
            let verdict = match index {
                NO_CALL => Verdict::NotImplemented,
                index => self.verdict_of(index.into()),
            };
            if ranges.last().is_none_or(|&(_, last)| last != verdict) {
                ranges.push((number_of_slot(slot), verdict));
            }
        }
        ranges
    }
}

/// The policy as a program for seccomp(2), for every system call convention of the machine this was built for.
#[must_use]
pub fn compile(policy: &Policy) -> Vec<sock_filter> {
    compile_for(policy, Abi::LOCAL)
}

/// The policy as a program for seccomp(2), for these conventions; of any other, every call gets ENOSYS.
#[must_use]
pub fn compile_for(policy: &Policy, abis: &[Abi]) -> Vec<sock_filter> {
    let mut program = Backward::new();
    let mut entries = Vec::with_capacity(abis.len());
    for &abi in abis.iter().rev() {
        let mut tree = Tree { program: &mut program, leaves: [None; VERDICTS] };
        let root = tree.grow(&policy.ranges(abi));
        entries.push((abi, program.load(NUMBER, root)));
    }
    let mut next = program.ret(errno(libc::ENOSYS));
    for (abi, entry) in entries {
        next = program.branch(IF_EQUAL, abi.audit_arch(), entry, next);
    }
    program.load(ARCHITECTURE, next);
    program.finish()
}

/// Number of [`Verdict`]s.
const VERDICTS: usize = Verdict::NotImplemented as usize + 1;

/// The search of one architecture's numbers.
struct Tree<'a> {
    program: &'a mut Backward,
    /// Where each verdict was written last.
    leaves: [Option<Label>; VERDICTS],
}

impl Tree<'_> {
    fn grow(&mut self, ranges: &[(u32, Verdict)]) -> Label {
        if let [(_, verdict)] = ranges {
            return self.leaf(*verdict);
        }
        let (low, high) = ranges.split_at(ranges.len() / 2);
        let high_label = self.grow(high);
        let low_label = self.grow(low);
        self.program.branch(IF_AT_LEAST, high[0].0, high_label, low_label)
    }

    /// A verdict that is too far away is written again: that costs an instruction as a long jump does, and no time.
    fn leaf(&mut self, verdict: Verdict) -> Label {
        if let Some(label) = self.leaves[verdict as usize].filter(|&label| self.program.is_near(label)) {
            return label;
        }
        let label = match verdict {
            Verdict::Allow => self.program.ret(libc::SECCOMP_RET_ALLOW),
            Verdict::Nothing => self.program.ret(errno(0)),
            Verdict::NothingOnFile => self.nothing_on_file(libc::EBADF),
            Verdict::NothingOnFileOrDenied => self.nothing_on_file(libc::EPERM),
            Verdict::OpenWithoutSync => self.without_sync(1),
            Verdict::OpenatWithoutSync => self.without_sync(2),
            Verdict::NotPermitted => self.program.ret(errno(libc::EPERM)),
            Verdict::NotImplemented => self.program.ret(errno(libc::ENOSYS)),
            Verdict::AllowExceptAudit => {
                self.program.ret(libc::SECCOMP_RET_ALLOW);
                self.program.ret(errno(libc::EAFNOSUPPORT));
                self.program.prepend(&audit_socket())
            }
        };
        self.leaves[verdict as usize] = Some(label);
        label
    }

    /// Success, or `otherwise` for a negative descriptor.
    fn nothing_on_file(&mut self, otherwise: i32) -> Label {
        let done = self.program.ret(errno(0));
        let refuse = self.program.ret(errno(otherwise));
        let negative = self.program.branch(IF_AT_LEAST, 1 << 31, refuse, done);
        self.program.load(ARGUMENTS[0], negative)
    }

    /// EINVAL when the argument has the bit of `O_DSYNC`, which `O_SYNC` has, too.
    fn without_sync(&mut self, argument: usize) -> Label {
        let allow = self.program.ret(libc::SECCOMP_RET_ALLOW);
        let refuse = self.program.ret(errno(libc::EINVAL));
        let test = self.program.branch(IF_ANY_BIT, libc::O_DSYNC as u32, refuse, allow);
        self.program.load(ARGUMENTS[argument], test)
    }
}

/// socket(AF_NETLINK, _, NETLINK_AUDIT): goes on after itself when it is that, skips an instruction when not. The
/// arguments are ints, so the kernel ignores their upper halves, and so must this.
fn audit_socket() -> BpfProgram {
    let is = |argument, value: i32| {
        SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value as u64)
            .expect("a system call has arguments 0 and 2")
    };
    SeccompRule::new(vec![is(0, libc::AF_NETLINK), is(2, libc::NETLINK_AUDIT)])
        .expect("a rule with conditions is valid")
        .into()
}

const fn errno(code: i32) -> u32 {
    libc::SECCOMP_RET_ERRNO | code as u32
}
