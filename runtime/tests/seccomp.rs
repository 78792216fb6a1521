//! The system call filter: tables against the kernel's headers and systemd, programs against the policy, in an
//! interpreter here and in the kernel.

#[path = "seccomp/interpreter.rs"]
mod interpreter;
#[path = "seccomp/kernel.rs"]
mod kernel;
#[path = "seccomp/nspawn.rs"]
mod nspawn;

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use caps::Capability;
use interpreter::{Answer, Call, ask};
use proptest::prelude::*;
use runtime::seccomp::{Abi, Policy, SeccompError, Verdict, compile, compile_for, members, number};
use runtime::{CapSet, nspawn_default};

const EVERY_ABI: [Abi; 4] = [Abi::X86_64, Abi::I386, Abi::Aarch64, Abi::Arm];

/// Says why a test does nothing here; `false`, for a caller that decides.
#[expect(clippy::print_stderr, reason = "a skip must be seen")]
pub(crate) fn skip(reason: &str) -> bool {
    assert!(std::env::var_os("NIXRUN_MUST_WORK").is_none(), "must work here, but {reason}");
    eprintln!("skipped: {reason}");
    false
}

fn answer(policy: &Policy, abi: Abi, number: u32) -> Answer {
    match policy.verdict(abi, number) {
        Verdict::Allow | Verdict::AllowExceptAudit => Answer::Allow,
        // Without flags in its arguments.
        Verdict::OpenWithoutSync | Verdict::OpenatWithoutSync => Answer::Allow,
        Verdict::Nothing | Verdict::NothingOnFile | Verdict::NothingOnFileOrDenied => Answer::Errno(0),
        Verdict::NotPermitted => Answer::Errno(libc::EPERM),
        Verdict::NotImplemented => Answer::Errno(libc::ENOSYS),
    }
}

/// All numbers in use, some beyond, and the ends of what a number can be.
fn numbers() -> impl Iterator<Item = u32> {
    (0..1024).chain(0xe_fff0..0xf_0020).chain(0x4000_0000..0x4000_0400).chain(u32::MAX - 9..=u32::MAX)
}

fn assert_program_does(policy: &Policy, abis: &[Abi]) {
    let program = [compile_for(policy, abis)];
    assert!(program[0].len() <= 4096, "the kernel takes 4096 instructions, not {}", program[0].len());
    for abi in EVERY_ABI {
        for number in numbers() {
            let expected =
                if abis.contains(&abi) { answer(policy, abi, number) } else { Answer::Errno(libc::ENOSYS) };
            let call = Call { number, arch: abi.audit_arch(), args: [0; 6] };
            assert_eq!(ask(&program, &call), expected, "{abi:?} {number}");
        }
    }
}

#[test]
fn the_program_does_what_the_policy_says_for_every_call() {
    let single = (0..=40).map(|bit| CapSet::from_bits(1 << bit));
    for caps in single.chain([CapSet::EMPTY, CapSet::ALL, nspawn_default(false), nspawn_default(true)]) {
        let policy = Policy::nspawn(caps);
        assert_program_does(&policy, &[Abi::X86_64, Abi::I386]);
        assert_program_does(&policy, &[Abi::Aarch64, Abi::Arm]);
        assert_program_does(&policy, &EVERY_ABI);
    }
    assert_program_does(&Policy::nspawn(CapSet::EMPTY), &[]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_program_does_what_its_policy_says(
        changes in proptest::collection::vec((any::<bool>(), any::<prop::sample::Index>()), 0..300),
        caps in any::<u64>(),
        suppress_sync in any::<bool>(),
    ) {
        let known: Vec<_> = members("@known").unwrap().collect();
        let mut policy = Policy::nspawn(CapSet::from_bits(caps));
        for (allow, which) in changes {
            let name = which.get(&known);
            if allow { policy.allow(name) } else { policy.deny(name) }.unwrap();
        }
        if suppress_sync {
            policy.suppress_sync();
        }
        assert_program_does(&policy, &EVERY_ABI);
    }
}

/// What the default container may do, written down by hand, on both kinds of architecture.
#[test]
fn nspawns_policy() {
    let policy = Policy::nspawn(nspawn_default(true));
    let allowed = "read openat2 clone3 execve mount fsmount mount_setattr open_tree pivot_root setns unshare bind socket \
        io_uring_setup reboot ptrace process_vm_readv vhangup seccomp landlock_create_ruleset sethostname userfaultfd \
        setuid capset name_to_handle_at statx mknodat memfd_create timerfd_create arch_prctl socketcall set_tls";
    let refused = "bpf keyctl add_key swapon kexec_load open_by_handle_at perf_event_open quotactl fanotify_init mlock \
        mlock2 init_module finit_module iopl ioperm clock_settime settimeofday adjtimex syslog acct pkey_alloc uselib \
        modify_ldt lookup_dcookie memfd_secret process_mrelease stime";
    for abi in EVERY_ABI {
        for (names, expected) in [(allowed, Answer::Allow), (refused, Answer::Errno(libc::EPERM))] {
            let here = names.split_ascii_whitespace().filter_map(|name| Some((name, number(abi, name)?)));
            let mut seen = 0;
            for (name, number) in here {
                assert_eq!(answer(&policy, abi, number), expected, "{abi:?} {name}");
                seen += 1;
            }
            assert!(seen > 15, "{abi:?}: {seen} names");
        }
        // nfsservctl, open_tree_attr (6.15), listns (6.19), and no call at all.
        let nfsservctl = [180, 169, 42, 169][abi as usize];
        for unknown in [nfsservctl, 467, 470, 600, 0x4000_0027, u32::MAX] {
            assert_eq!(answer(&policy, abi, unknown), Answer::Errno(libc::ENOSYS), "{abi:?} {unknown}");
        }
    }
}

#[test]
fn capabilities_widen_it() {
    use Capability::*;
    let calls = [
        (CAP_SYS_TIME, "clock_settime settimeofday adjtimex"),
        (CAP_SYS_MODULE, "init_module finit_module delete_module"),
        (CAP_SYS_RAWIO, "ioperm iopl"),
        (CAP_IPC_LOCK, "mlock mlock2 mlockall munlock munlockall"),
        (CAP_SYS_PACCT, "acct"),
        (CAP_SYS_PTRACE, "ptrace"),
        (CAP_SYS_BOOT, "reboot"),
        (CAP_SYSLOG, "syslog"),
        (CAP_SYS_TTY_CONFIG, "vhangup"),
    ];
    for (capability, names) in calls {
        for name in names.split(' ') {
            let number = number(Abi::X86_64, name).unwrap();
            for (caps, expected) in [
                (CapSet::of(&[capability]), Answer::Allow),
                (CapSet::ALL.difference(CapSet::of(&[capability])), Answer::Errno(libc::EPERM)),
            ] {
                assert_eq!(
                    answer(&Policy::nspawn(caps), Abi::X86_64, number),
                    expected,
                    "{name} with {caps}"
                );
            }
        }
    }
}

#[test]
fn names_and_groups_change_it() {
    let mut policy = Policy::nspawn(CapSet::EMPTY);
    let ask = |policy: &Policy, name| answer(policy, Abi::X86_64, number(Abi::X86_64, name).unwrap());
    policy.allow("@keyring").unwrap();
    policy.deny("ptrace").unwrap();
    policy.allow("ptrace").unwrap();
    policy.deny("@swap").unwrap();
    policy.deny("@mount").unwrap();
    assert_eq!(ask(&policy, "keyctl"), Answer::Allow);
    assert_eq!(ask(&policy, "ptrace"), Answer::Errno(libc::EPERM), "what is denied stays denied");
    assert_eq!(ask(&policy, "mount"), Answer::Errno(libc::EPERM));
    assert!(policy.allowed().any(|name| name == "keyctl") && !policy.allowed().any(|name| name == "mount"));
    for wrong in ["@nothing", "reed", "", "@"] {
        let before = policy.clone();
        assert!(matches!(policy.allow(wrong), Err(SeccompError::Unknown { name, .. }) if name == wrong));
        assert!(policy.deny(wrong).is_err());
        assert_eq!(policy, before);
    }
}

#[test]
fn a_slip_of_the_keyboard_is_recognised() {
    let mut policy = Policy::nspawn(CapSet::EMPTY);
    for (typed, meant) in [("fsyncc", "fsync"), ("@muont", "@mount"), ("Keyctl", "keyctl")] {
        let said = policy.allow(typed).unwrap_err().to_string();
        assert!(
            said.ends_with(&format!(
                "{typed:?} is neither a system call nor a group; did you mean {meant:?}?"
            )),
            "{said}"
        );
    }
    let said = policy.allow("@nothing-like-it").unwrap_err().to_string();
    assert!(said.ends_with("`systemd-analyze syscall-filter` lists both"), "{said}");
}

#[test]
fn suppressed_syncs_succeed_and_synchronous_files_cannot_be_opened() {
    const O_SYNC: u64 = 0o4_010_000;
    let mut policy = Policy::nspawn(nspawn_default(true));
    policy.suppress_sync();
    policy.deny("fsync").unwrap();
    for abi in EVERY_ABI {
        let ask = |name: &str, args| {
            let number = number(abi, name)?;
            Some(ask(&[compile_for(&policy, &EVERY_ABI)], &Call { number, arch: abi.audit_arch(), args }))
        };
        let mut seen = 0;
        for name in "fsync fdatasync msync sync syncfs sync_file_range sync_file_range2".split(' ') {
            let Some(answer) = ask(name, [9; 6]) else { continue };
            assert_eq!(answer, Answer::Errno(0), "{abi:?} {name}");
            let takes_file = name != "sync" && name != "msync";
            let expected = match name {
                "fsync" => libc::EPERM,
                _ if takes_file => libc::EBADF,
                _ => 0,
            };
            let expected = Answer::Errno(expected);
            assert_eq!(ask(name, [0xffff_ffff, 0, 0, 0, 0, 0]), Some(expected), "{abi:?} {name}");
            seen += 1;
        }
        assert!(seen >= 6, "{abi:?}: {seen} calls");
        for (flags, expected) in [
            (O_SYNC, Answer::Errno(libc::EINVAL)),
            (0o10_000 | 0o2, Answer::Errno(libc::EINVAL)),
            (0o102, Answer::Allow),
            (0o10_000 << 32, Answer::Allow),
        ] {
            // The argument beside the flags holds the same bits and means nothing.
            assert!(ask("open", [O_SYNC, flags, O_SYNC, 0, 0, 0]).is_none_or(|found| found == expected));
            assert_eq!(
                ask("openat", [O_SYNC, O_SYNC, flags, O_SYNC, 0, 0]),
                Some(expected),
                "{abi:?} {flags:o}"
            );
        }
        assert_eq!(ask("openat2", [0; 6]), Some(Answer::Errno(libc::ENOSYS)));
        assert_eq!(ask("write", [O_SYNC; 6]), Some(Answer::Allow));
    }
}

#[test]
fn audit_sockets_are_refused_whatever_the_upper_halves_hold() {
    let policy = Policy::nspawn(nspawn_default(true));
    let mut deny = policy.clone();
    deny.deny("socket").unwrap();
    for abi in EVERY_ABI {
        let ask = |policy: &Policy, args| {
            let number = number(abi, "socket").unwrap();
            ask(&[compile_for(policy, &EVERY_ABI)], &Call { number, arch: abi.audit_arch(), args })
        };
        let refused = Answer::Errno(libc::EAFNOSUPPORT);
        for (args, expected) in [
            ([16, 3, 9, 0, 0, 0], refused),
            ([16, 0x8_0002, 9, 7, 7, 7], refused),
            ([0xdead_0000_0010, 3, 0xffff_ffff_0000_0009, 0, 0, 0], refused),
            ([16, 3, 0, 0, 0, 0], Answer::Allow),
            ([2, 3, 9, 0, 0, 0], Answer::Allow),
            ([16, 9, 16, 0, 0, 0], Answer::Allow),
        ] {
            assert_eq!(ask(&policy, args), expected, "{abi:?} {args:?}");
            assert_eq!(ask(&deny, args), Answer::Errno(libc::EPERM));
        }
    }
}

/// The cost of a system call is a load, a jump, a load, one comparison a level, and an answer; and the kernel limits
/// all filters of a process together.
#[test]
fn the_program_is_short() {
    let length = compile(&Policy::nspawn(nspawn_default(true))).len();
    assert!((100..300).contains(&length), "{length} instructions");
}

/// What nobody asked for costs nothing: without changes the program is to the byte what it was before there were any.
#[test]
fn the_default_program_is_the_same_whatever_can_be_asked_for() {
    let bytes = |caps| {
        let program = compile_for(&Policy::nspawn(caps), &[Abi::X86_64, Abi::I386]);
        // FNV-1a, over the fields: the structure's padding has no value.
        program
            .iter()
            .flat_map(|i| [u64::from(i.code), i.jt.into(), i.jf.into(), i.k.into()])
            .fold(0xcbf2_9ce4_8422_2325u64, |hash, field| (hash ^ field).wrapping_mul(0x0100_0000_01b3))
    };

    assert_eq!(bytes(nspawn_default(true)), 1_236_292_666_644_729);
    assert_eq!(bytes(CapSet::ALL), 10_629_242_820_320_165_992);
}

/// Every number of the kernel headers installed here is in the table, where libsystemd knows the name.
#[test]
fn numbers_are_the_kernels() {
    let headers = [
        (Abi::X86_64, "/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
        (Abi::I386, "/usr/include/x86_64-linux-gnu/asm/unistd_32.h"),
        (Abi::Aarch64, "/usr/lib/linux/uapi/arm64/asm/unistd_64.h"),
    ];
    let mut checked = 0;
    for (abi, path) in headers {
        let Ok(text) = std::fs::read_to_string(path) else { continue };
        let defined = text.lines().filter_map(|line| line.strip_prefix("#define __NR_")?.split_once(' '));
        let defined: BTreeMap<&str, u32> =
            defined.map(|(name, n)| (name, n.trim().parse().unwrap())).collect();
        for name in members("@known").unwrap() {
            match (number(abi, name), defined.get(name)) {
                (Some(ours), Some(&theirs)) => assert_eq!(ours, theirs, "{abi:?} {name}"),
                (None, Some(theirs)) => panic!("{abi:?} {name} is {theirs} in {path} and has no number here"),
                // The headers may be older than the table; a call from before 5.1 must be there.
                (Some(ours), None) => {
                    assert!(ours >= 424 || ours == 335 && name == "uretprobe", "{abi:?} {name}")
                }
                (None, None) => {}
            }
            checked += 1;
        }
    }
    if checked == 0 {
        skip("no kernel headers (linux-libc-dev) for x86 or arm64 are installed");
    }
}

#[test]
fn some_numbers_of_architectures_without_headers_here() {
    let arm =
        [("read", 3), ("socket", 281), ("arm_fadvise64_64", 270), ("clone3", 435), ("set_tls", 0xf_0005)];
    for (name, expected) in arm {
        assert_eq!(number(Abi::Arm, name), Some(expected), "{name}");
    }
    let aarch64 = [("read", 63), ("openat", 56), ("socket", 198), ("newfstatat", 79), ("clone3", 435)];
    for (name, expected) in aarch64 {
        assert_eq!(number(Abi::Aarch64, name), Some(expected), "{name}");
    }
    assert_eq!(number(Abi::Aarch64, "open"), None);
}

/// The groups of `systemd-analyze syscall-filter`, by name, with groups inside groups resolved.
fn systemds_groups(text: &str) -> BTreeMap<&str, BTreeSet<&str>> {
    let mut listed: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut group = None;
    for line in text.lines() {
        match line.trim() {
            name if line.starts_with('@') => group = Some(name),
            member if line.starts_with("    ") && !member.starts_with('#') => {
                listed.entry(group.unwrap()).or_default().push(member);
            }
            _ => {}
        }
    }
    fn resolve<'a>(listed: &BTreeMap<&'a str, Vec<&'a str>>, name: &str, into: &mut BTreeSet<&'a str>) {
        for member in &listed[name] {
            match member.starts_with('@') {
                true => resolve(listed, member, into),
                false => into.extend([*member]),
            }
        }
    }
    let mut groups = BTreeMap::new();
    for name in listed.keys() {
        resolve(&listed, name, groups.entry(*name).or_default());
    }
    groups
}

#[test]
fn groups_are_systemds() {
    let output = |argument| Command::new("systemd-analyze").args([argument, "--no-pager"]).output();
    let (Ok(version), Ok(filter)) = (output("--version"), output("syscall-filter")) else {
        skip("systemd-analyze is not installed");
        return;
    };
    let version = String::from_utf8(version.stdout).unwrap();
    let version: u32 = version.split([' ', '.', '~']).nth(1).unwrap().parse().unwrap();
    if !(252..=257).contains(&version) {
        skip("the groups are compared with systemd 252 to 257 only");
        return;
    }
    // Listed by 257 and not yet by 252.
    let newer: BTreeSet<_> = "cachestat file_getattr file_setattr getxattrat landlock_add_rule landlock_create_ruleset \
        landlock_restrict_self listmount listxattrat lsm_get_self_attr lsm_list_modules lsm_set_self_attr mseal \
        removexattrat seccomp setxattrat statmount uretprobe breakpoint get_tls set_tls usr26 usr32"
        .split_ascii_whitespace()
        .collect();
    let text = String::from_utf8(filter.stdout).unwrap();
    let groups = systemds_groups(&text);
    assert!(groups.len() >= 29, "{} groups", groups.len());
    for (group, theirs) in groups {
        let ours: BTreeSet<_> = members(group).unwrap_or_else(|| panic!("no group {group}")).collect();
        for name in ours.difference(&theirs) {
            assert!(newer.contains(name), "{group} has {name} here, not in systemd {version}");
        }
        for name in theirs.difference(&ours) {
            let elsewhere = EVERY_ABI.iter().all(|&abi| number(abi, name).is_none());
            assert!(elsewhere, "{group} has {name} in systemd {version}, not here");
        }
    }
}
