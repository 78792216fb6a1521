//! The device filter: programs against their rules in an interpreter, and in the kernel on a cgroup of the test's own.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use proptest::prelude::*;
use runtime::devices::{DeviceAccess, DeviceKind, DeviceRule, compile, default_rules};
use runtime::sys::bpf::{attach_device_filter, load_device_filter};

const BLOCK: u32 = 1;
const CHAR: u32 = 2;
const MKNOD: u32 = 1;
const READ: u32 = 2;
const WRITE: u32 = 4;

/// What the program answers to an access; anything that it does not use of eBPF panics.
fn ask(program: &[u64], kind: u32, access: u32, major: u32, minor: u32) -> bool {
    let context = [access << 16 | kind, major, minor];
    let mut registers = [0_u64; 11];
    let mut at = 0;
    loop {
        let word = program[at];
        at += 1;
        let (to, from) = ((word >> 8 & 15) as usize, (word >> 12 & 15) as usize);
        let (offset, constant) = ((word >> 16) as i16, (word >> 32) as u32);
        let low = registers[to] as u32;
        match word as u8 {
            0x61 => {
                assert_eq!(from, 1, "load from the context");
                registers[to] = context[offset as usize / 4].into();
            }
            0xb7 => registers[to] = i64::from(constant as i32) as u64,
            0xbc => registers[to] = (registers[from] as u32).into(),
            0x54 => registers[to] = (low & constant).into(),
            0xa4 => registers[to] = (low ^ constant).into(),
            0x74 => registers[to] = (low >> constant).into(),
            0x4f => registers[to] |= registers[from],
            0x07 => registers[to] = registers[to].wrapping_add(i64::from(constant as i32) as u64),
            0x77 => registers[to] >>= constant,
            0x95 => return registers[0] != 0,
            code => panic!("instruction {code:#x}"),
        }
    }
}

fn allows(rule: &DeviceRule, kind: u32, access: u32, major: u32, minor: u32) -> bool {
    let has = |bit, right| access & bit == 0 || rule.access | right == rule.access;
    (rule.kind == DeviceKind::Any || (rule.kind == DeviceKind::Block) == (kind == BLOCK))
        && rule.major.is_none_or(|only| only == major)
        && rule.minor.is_none_or(|only| only == minor)
        && has(MKNOD, DeviceAccess::MKNOD)
        && has(READ, DeviceAccess::READ)
        && has(WRITE, DeviceAccess::WRITE)
}

fn any_rule() -> impl Strategy<Value = DeviceRule> {
    let kind = prop_oneof![Just(DeviceKind::Any), Just(DeviceKind::Block), Just(DeviceKind::Char)];
    let access = (any::<bool>(), any::<bool>(), any::<bool>()).prop_filter_map("no access", |(r, w, m)| {
        let rights =
            [(r, DeviceAccess::READ), (w, DeviceAccess::WRITE), (m, DeviceAccess::MKNOD)].into_iter();
        rights.filter(|(asked, _)| *asked).map(|(_, right)| right).reduce(|a, b| a | b)
    });
    (kind, prop::option::of(any_number()), prop::option::of(any_number()), access)
        .prop_map(|(kind, major, minor, access)| DeviceRule { kind, major, minor, access })
}

fn any_number() -> impl Strategy<Value = u32> {
    prop_oneof![0..3_u32, Just(0x8000_0000), Just(u32::MAX)]
}

proptest! {
    #[test]
    fn a_program_allows_what_one_of_its_rules_allows(
        rules in prop::collection::vec(any_rule(), 0..8),
        major in any_number(),
        minor in any_number(),
    ) {
        let program = compile(&rules);
        for kind in [BLOCK, CHAR] {
            for access in 1..8 {
                let expected = rules.iter().any(|rule| allows(rule, kind, access, major, minor));
                prop_assert_eq!(ask(&program, kind, access, major, minor), expected);
            }
        }
    }
}

#[test]
fn the_default_is_systemds_closed_policy() {
    let rules = default_rules();
    let program = compile(&rules);
    let everything = MKNOD | READ | WRITE;
    for (major, minor) in [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 2), (0, 0)] {
        assert!(ask(&program, CHAR, everything, major, minor), "c {major}:{minor}");
    }
    assert!(ask(&program, BLOCK, everything, 0, 0));
    for minor in [0, 7, 1023] {
        assert!(ask(&program, CHAR, READ | WRITE, 136, minor), "pts/{minor}");
        assert!(!ask(&program, CHAR, MKNOD, 136, minor), "a node of pts/{minor}");
    }
    // mem, port, kmsg, console, tty0, tun, fuse, kvm, an input device; disks, loop0, and a block device 1:3.
    let refused_char =
        [(1, 1), (1, 4), (1, 11), (5, 1), (4, 0), (10, 200), (10, 229), (10, 232), (13, 64), (137, 0)];
    let refused_block = [(8, 0), (7, 0), (259, 0), (1, 3), (5, 0)];
    for access in [MKNOD, READ, WRITE] {
        for (kind, list) in [(CHAR, &refused_char[..]), (BLOCK, &refused_block)] {
            for &(major, minor) in list {
                assert!(
                    !ask(&program, kind, access, major, minor),
                    "{kind} {major}:{minor}, access {access}"
                );
            }
        }
    }
    let with_tun = compile(&[&rules[..], &[DeviceRule::tun()]].concat());
    assert!(ask(&with_tun, CHAR, everything, 10, 200));
    assert!((80..160).contains(&program.len()), "{} instructions", program.len());
}

#[test]
fn no_rules_allow_nothing() {
    assert!(!ask(&compile(&[]), CHAR, READ, 1, 3));
}

#[test]
fn rules_read_as_in_devices_allow() {
    let shown: Vec<_> = default_rules().iter().map(ToString::to_string).collect();
    assert_eq!(shown[0], "c 1:3 rwm");
    assert_eq!(shown[shown.len() - 2..], ["b 0:0 rwm", "c 136:* rw"]);
    let all = DeviceRule { kind: DeviceKind::Any, major: None, minor: None, access: DeviceAccess::MKNOD };
    assert_eq!(all.to_string(), "a *:* m");
}

/// A cgroup of the unified hierarchy, gone when dropped.
struct Group(PathBuf);

impl Group {
    fn create() -> Option<Group> {
        let roots = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(Path::new);
        let root = roots.into_iter().find(|root| root.join("cgroup.controllers").exists())?;
        let path = root.join(format!("nixrun-test-sec-devices-{}", std::process::id()));
        fs::create_dir(&path).ok()?;
        Some(Group(path))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let removed = fs::remove_dir(&self.0);
        assert!(removed.is_ok() || std::thread::panicking(), "{}: {removed:?}", self.0.display());
    }
}

/// Each line does one thing to a device and prints what came of it.
const SCRIPT: &str = r#"
test -z "$1" || echo $$ > "$1/cgroup.procs" || exit 1
cd /run || exit 1
try() { name=$1; shift; if out=$("$@" 2>&1); then echo "$name=ok"; else echo "$name=${out##*: }"; fi }
read_of() { true < "$1"; }
update_of() { true <> "$1"; }
try "open null" update_of null
try "open urandom" read_of urandom
try "open pts" update_of "$2"
try "open kmsg" read_of kmsg
try "open mem" read_of mem
try "open 0:0" read_of nothing
try "mknod null" mknod made-null c 1 3
try "mknod 0:0 block" mknod made-nothing b 0 0
try "mknod kmsg" mknod made-kmsg c 1 11
try "mknod loop0" mknod made-loop b 7 0
try "mknod pts" mknod made-pts c 136 "${2##*/}"
try "mkfifo" mkfifo made-fifo
rm -f made-*
"#;

fn try_all(group: Option<&Path>, pts: &Path) -> BTreeMap<String, String> {
    let output = Command::new("sh")
        .args(["-c", SCRIPT, "sh"])
        .args([group.unwrap_or(Path::new("")), pts])
        .env("LC_ALL", "C")
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let lines = String::from_utf8(output.stdout).unwrap();
    lines.lines().filter_map(|line| line.split_once('=')).map(|(a, b)| (a.to_owned(), b.to_owned())).collect()
}

#[expect(clippy::print_stderr, reason = "a skip must be seen")]
fn skip(reason: &str) {
    assert!(std::env::var_os("NIXRUN_MUST_WORK").is_none(), "must work here, but {reason}");
    eprintln!("skipped: {reason}");
}

/// A tmpfs on /run of this thread's own, on which device nodes work, and some nodes in it.
fn own_nodes() {
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
    mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), none).unwrap();
    let nodes = [("null", 1, 3), ("urandom", 1, 9), ("kmsg", 1, 11), ("mem", 1, 1), ("nothing", 0, 0)];
    for (name, major, minor) in nodes {
        mknod(&Path::new("/run").join(name), SFlag::S_IFCHR, Mode::S_IRWXU, makedev(major, minor)).unwrap();
    }
}

fn filtered_by_the_kernel() {
    let Some(group) = Group::create() else {
        skip("there is no unified cgroup hierarchy to make a group in");
        return;
    };
    own_nodes();
    let pty = nix::pty::openpty(None, None).unwrap();
    let pts = nix::unistd::ttyname(&pty.slave).unwrap();
    let program = load_device_filter(&compile(&default_rules())).unwrap();
    attach_device_filter(File::open(&group.0).unwrap().as_fd(), program.as_fd()).unwrap();

    let free = try_all(None, &pts);
    let bound = try_all(Some(&group.0), &pts);
    for name in ["open null", "open urandom", "open pts", "mknod null", "mknod 0:0 block", "mkfifo"] {
        assert_eq!((&*free[name], &*bound[name]), ("ok", "ok"), "{name}");
    }
    for name in ["open kmsg", "open mem", "mknod kmsg", "mknod loop0", "mknod pts"] {
        assert_eq!(bound[name], "Operation not permitted", "{name}");
    }
    // The same is possible outside, so it is the filter that forbids it. (Some machines have no /dev/mem.)
    for name in ["open kmsg", "mknod kmsg", "mknod loop0", "mknod pts"] {
        assert_eq!(free[name], "ok", "{name} without a filter");
    }
    assert_eq!(bound["open 0:0"], "No such device or address");
}

#[test]
fn the_kernel_filters_as_the_rules_say() {
    if !nix::unistd::geteuid().is_root() {
        skip("cgroups and device nodes need root");
        return;
    }
    std::thread::spawn(filtered_by_the_kernel).join().unwrap();
}
