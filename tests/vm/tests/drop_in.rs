//! The same command lines under systemd-nspawn 257 and under nixrun in its place, on control groups of version 2 and under
//! a systemd: what a program inside sees.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use blackbox::compare::{Known, differences, ours, probe, theirs};
use vm::guest::{attempt, sh, write};

/// Of every case. The specification is v256.
const KNOWN: &[Known] = &[
    ours("mounts", "/dev/pts rw", MODE),
    theirs("mounts", "/dev/pts rw", MODE),
    ours("mounts", "/run/host/os-release ro", FLAGS),
    theirs("mounts", "/run/host/os-release ro", FLAGS),
    theirs("mounts", "/run/host/unix-export rw", MACHINED),
    theirs("devices", "/run/host/unix-export directory", MACHINED),
    theirs("mounts", "/run/host/incoming ro", MACHINED),
    theirs(
        "mounts",
        "/proc/sys/kernel/random/boot_id rw",
        "it is mounted twice, once before it is read-only",
    ),
    ours("devices", "/run/host/inaccessible directory", "v257 makes it 0555; v252 makes it 0755"),
    theirs("devices", "/run/host/inaccessible directory", "v257 makes it 0555; v252 makes it 0755"),
    ours("addresses", "lo inet6 ::1/128", LOOPBACK),
    theirs("addresses", "lo inet6 ::1/128", LOOPBACK),
    theirs("devices", "/dev/fuse ", FUSE),
    theirs("devices", "/dev/char/10:229 ", FUSE),
];

const COPY: &[Known] = &[
    ours("mounts", "/ rw,relatime overlay", "systemd-nspawn copies the root"),
    theirs("mounts", "/ rw,noatime host", "systemd-nspawn copies the root"),
];
const INACCESSIBLE: &[Known] = &[
    ours("mounts", "/etc/os-release ro,nosuid,nodev tmpfs", "the flags of the /run that it is from stay"),
    theirs("mounts", "/etc/os-release ro tmpfs", "the flags of the /run that it is from stay"),
];
const IDENTITY: &[Known] = &[
    ours("status", "Cap", "v257 takes CAP_NET_BIND_SERVICE from the host's own ids, too; v252 does not"),
    theirs("status", "Cap", "v257 takes CAP_NET_BIND_SERVICE from the host's own ids, too; v252 does not"),
];
const SHIFTED: &[Known] = &[
    ours("mounts", "/usr ro,noatime,idmapped", MAPPED),
    theirs("mounts", "/usr ro,noatime ", MAPPED),
    ours("inside", "/usr 0:0", MAPPED),
    theirs("inside", "/usr 65534:65534", MAPPED),
    ours("devices", "/run/host/container-", OWNER),
    theirs("devices", "/run/host/container-", OWNER),
    ours("devices", "/run/host/incoming directory", OWNER),
    theirs("devices", "/run/host/incoming directory", OWNER),
    ours("devices", "/run/host/os-release regular", OWNER),
    theirs("devices", "/run/host/os-release regular", OWNER),
];
const MAPPED: &str = "bind mounts have the container's ids by default";
const OWNER: &str = "belongs to the container's root instead of to nobody";
const LOOPBACK: &str = "systemd-nspawn adds the address itself; here the kernel does, with the same effect";
const MODE: &str = "0600 is what Debian 13 builds its systemd with, 0620 is upstream's and NixOS's";
const FLAGS: &str = "v257 takes more away from a file that can only be read";
const MACHINED: &str = "for what systemd-machined offers: not registered, nixrun makes none";
const FUSE: &str = "new in v257; nixrun has it with --nested";

/// A root with the guest's own programs and the probe, and nixrun by the other's name.
fn host() {
    sh("mkdir -p /run/in && ln -s /run/t/nixrun /run/in/systemd-nspawn");
    sh("mkdir -p /var/ct/usr /var/ct/etc /var/ct/probe/calls && echo ID=test > /var/ct/etc/os-release && \
        for link in bin sbin lib lib64; do ln -s usr/$link /var/ct/$link; done");
    for (name, program) in probe::calls() {
        let path = format!("/var/ct/probe/calls/{name}");
        fs::write(&path, program).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
}

/// What the probe tells under one of the two, called from a unit that was delegated to it.
fn told(program: &str, options: &str) -> Vec<String> {
    let said = attempt(&format!(
        "systemd-run -q --pipe --wait --collect -p Delegate=yes {program} -q --keep-unit -M t --register=no \
         --console=pipe -D /var/ct --bind-ro=/usr {options} /bin/bash /probe/report"
    ));
    assert!(said.success, "{program} {options}: {said:?}");
    probe::lines(&said.stdout)
}

/// Compares cases: options, what is printed inside, and differences that are meant.
#[track_caller]
fn compare(cases: &[(&str, &str, &[Known])]) {
    let mut problems = String::new();
    for (options, inside, known) in cases {
        write("/var/ct/probe/report", &probe::script("/usr/bin/busybox", inside, true));
        let theirs = told("systemd-nspawn", options);
        let ours = told("/run/in/systemd-nspawn", options);
        let found = differences(KNOWN, known, &ours, &theirs);
        if !found.is_empty() {
            let _ = writeln!(problems, "\n--- {options}\n{found}");
        }
    }
    assert!(problems.is_empty(), "{problems}");
}

#[test]
fn what_is_seen_without_options_and_with_a_network() {
    host();
    compare(&[("", "", &[]), ("--private-network", "", &[]), ("-n --hostname=inside", "", &[])]);
}

#[test]
fn mounts() {
    host();
    sh("mkdir -p /srv/a/sub /srv/b && echo a > /srv/a/file && mount -t tmpfs sub /srv/a/sub");
    compare(&[
        ("--bind=/srv/a:/m --bind-ro=/srv/a:/n:norbind --tmpfs=/t:size=1m", "cat /m/file; ls /n/sub", &[]),
        ("--overlay=/srv/a:/srv/b:/o --overlay-ro=+/etc:/srv/a:/p", "cat /o/file /p/file", &[]),
        ("--ephemeral", ": > /new && echo written", COPY),
        (
            "--inaccessible=/etc/os-release --bind=/tmp:/tmp/x",
            "stat -c '%a %u' /etc/os-release",
            INACCESSIBLE,
        ),
    ]);
}

#[test]
fn privileges() {
    host();
    compare(&[
        ("--capability=CAP_SYS_TIME --drop-capability=CAP_SYS_CHROOT", "", &[]),
        ("--system-call-filter=@keyring --system-call-filter=~@mount --no-new-privileges=yes", "", &[]),
        ("--rlimit=NOFILE=1000:2000 --oom-score-adjust=300 --setenv=A=b --chdir=/usr --as-pid2", "pwd", &[]),
    ]);
}

#[test]
fn user_namespaces() {
    host();
    let owners = "stat -c '%n %u:%g' / /usr /run /dev/console /run/host/notify";
    compare(&[
        ("--private-users=identity", owners, IDENTITY),
        ("--private-users=655360 --private-users-ownership=map --private-network", owners, SHIFTED),
        ("-U -n", owners, SHIFTED),
    ]);
}
