//! The program inside: a shell script that tells what it sees, in sections.

use std::path::Path;

use super::{Known, ours, theirs};
use crate::{Arch, Host, call};

/// Differences that every case shows, as far as the kernel has what they are about.
pub(super) const KNOWN: &[Known] = &[
    ours("mounts", "/proc/kallsyms ro", MASKS),
    ours("mounts", "/proc/kcore ro", MASKS),
    ours("mounts", "/proc/keys ro", MASKS),
    ours("mounts", "/proc/sysrq-trigger ro", MASKS),
    ours("mounts", "/proc/timer_list ro", MASKS),
    theirs("mounts", "/run/host/os-release r", TWICE),
    ours("mounts", "/run/host/os-release ro", "one mount, read-only from the start"),
    theirs("mounts", "/run/host/incoming r", "for machinectl bind: not registered, nixrun offers none"),
    theirs("mounts", "/proc/sys/kernel/random/boot_id rw", TWICE),
    ours("mounts", "/dev/console rw,nosuid,noexec,relatime devpts", CONSOLE),
    theirs("mounts", "/dev/console ", CONSOLE),
    ours("mounts", "/run/host/credentials ro,nosuid,nodev,noexec,relatime ramfs ro,mode=500", CREDENTIALS),
    theirs("mounts", "/run/host/credentials r", CREDENTIALS),
    theirs("mounts", "/sys/fs/selinux ", "v252 mounts it on hosts that have it"),
    ours("devices", "/dev/console ", CONSOLE),
    theirs("devices", "/dev/console ", CONSOLE),
    theirs("status", "SigIgn:\t0000000080000004", SIGNALS),
    ours("status", "SigIgn:\t0000000000000004", SIGNALS),
    ours("devices", "/run/host/container-manager ", FILES),
    theirs("devices", "/run/host/container-manager ", FILES),
    ours("devices", "/run/host/container-uuid ", FILES),
    theirs("devices", "/run/host/container-uuid ", FILES),
    ours("devices", "/run/host/notify socket", FILES),
    theirs("devices", "/run/host/notify socket", FILES),
    ours("addresses", "lo inet6 ::1/128", LOOPBACK),
    theirs("addresses", "lo inet6 ::1/128", LOOPBACK),
    ours("devices", "/dev/core ", "v252 makes the link only where /proc/kcore is; v256 always"),
];

const SIGNALS: &str = "systemd-nspawn leaves a signal ignored that its caller's libc keeps for itself";
const FILES: &str = "the modes are v256's; v252 has 644 and 755";
const LOOPBACK: &str = "systemd-nspawn adds the address itself; here the kernel does, with the same effect";
const CREDENTIALS: &str = "v252 makes it with 0700, and mounts it a second time to make it read-only";
const MASKS: &str = "v256 means to mask it, and by its source mounts nothing; here it is masked";
const TWICE: &str = "systemd-nspawn mounts it twice, once before it makes it read-only";
const CONSOLE: &str = "v252 has a link to a pty there; from v253 on it is the pty itself";

/// Calls whose answer does not depend on the machine, with a first argument that makes them do nothing; number on
/// x86_64.
const CALLS: &[(&str, u32, i32)] = &[
    ("acct", 163, -1),
    ("add_key", 248, 0),
    ("bpf", 321, -1),
    ("clock_settime", 227, -1),
    ("fanotify_init", 300, -1),
    ("fsync", 74, -1),
    ("init_module", 175, 0),
    ("iopl", 172, 0),
    ("keyctl", 250, -1),
    ("mlock", 149, 0),
    ("mount", 165, 0),
    ("open_by_handle_at", 304, -1),
    ("perf_event_open", 298, 0),
    ("ptrace", 101, 0xffff),
    ("quotactl", 179, -1),
    ("reboot", 169, 0),
    ("swapon", 167, 0),
    ("sync", 162, 0),
    ("syslog", 103, -1),
    ("no_such_call", 1023, 0),
];

/// Tells everything; each section is named by a line `== NAME`.
const REPORT: &str = r#"
echo "== mounts"
while read -r _ _ _ _ point options rest; do
    rest=${rest#*- }; set -- $rest
    case $1 in tmpfs|devpts|overlay|ramfs) more=$3 ;; *) more= ;; esac
    case $1 in ext4|xfs|btrfs) type=host ;; *) type=$1 ;; esac
    case $1 in overlay) more= ;; esac
    echo "$point $options $type $more"
done < /proc/self/mountinfo
echo "== namespaces"
for n in mnt pid net uts ipc cgroup user; do echo "$n $($B readlink /proc/self/ns/$n)"; done
echo "== status"
$B grep -E '^(Cap|NoNewPrivs|Seccomp:|SigIgn|Umask|Groups|Uid|Gid|Cpus_allowed_list)' /proc/$$/status
echo "== limits"; $B cat /proc/$$/limits
echo "== environment"; $B tr '\0' '\n' < /proc/$$/environ
echo "== identity"
echo "pid $$"; $B hostname; $B uname -m; pwd
for f in oom_score_adj personality loginuid uid_map gid_map cgroup; do echo "$f $($B cat /proc/$$/$f)"; done
[ -t 0 ] && echo "stdin is a terminal"; [ -t 1 ] && echo "stdout is a terminal"
echo "== descriptors"
for fd in /proc/$$/fd/*; do [ ${fd##*/} -lt 250 ] && [ -e $fd ] && echo "${fd##*/}"; done
echo "== devices"
for node in /dev/* /dev/char/* /dev/net/* /run/host/* /run/host/inaccessible/*; do
    case $node in */pts|*/shm|*/mqueue|*/net|*\**) continue ;; esac
    if [ -L $node ]; then echo "$node -> $($B readlink $node)"
    else echo "$node $($B stat -c '%F %t:%T %a %u:%g' $node)"; fi
done
echo "== links"
$B ip -o link | while read -r _ name rest; do echo "${name%%@*} ${rest%% mtu*} ${rest##*link/}"; done
echo "== addresses"
$B ip -o addr | while read -r _ name rest; do case $rest in *tentative*|*fe80*) ;; *) echo "$name $rest" ;; esac; done
echo "== routes"; $B ip route; $B ip -6 route | $B grep -v fe80
echo "== cgroup"; $B stat -f -c %T /sys/fs/cgroup; $B stat -c '%a %u:%g' /sys/fs/cgroup /sys/fs/cgroup/cgroup.procs
echo "== writable"
for f in /proc/sys/kernel/panic /proc/sys/net/ipv4/ip_forward /proc/irq/default_smp_affinity; do
    (: >> $f) 2>/dev/null && echo $f
done
for d in / /usr /etc /sys /sys/kernel /run /run/host /tmp /dev /proc/sys; do
    (: > $d/.probe) 2>/dev/null && echo $d && $B rm -f $d/.probe
done
echo "== calls"
for c in /probe/calls/*; do $c 2>/dev/null; echo "${c##*/} $?"; done
"#;

/// The script, with this busybox; what `inside` prints is the section of that name.
#[must_use]
pub fn script(busybox: &str, inside: &str, report: bool) -> String {
    let report = if report { REPORT } else { "" };
    format!("export B={busybox}\n{report}echo '== inside'\n{inside}\necho '== end'\n")
}

/// The programs in /probe/calls, by name.
pub fn calls() -> impl Iterator<Item = (&'static str, Vec<u8>)> {
    CALLS.iter().map(|(name, number, first)| (*name, call(Arch::X86_64, *number, *first)))
}

/// Puts the script into a root.
pub(super) fn install(host: &Host<'_>, root: &Path, inside: &str, report: bool) {
    if report {
        std::fs::create_dir_all(root.join("probe/calls")).expect("a directory for programs");
        for (name, program) in calls() {
            host.program(&root.join("probe/calls").join(name), &program);
        }
    }
    host.program(&root.join("probe/report"), script("/probe/busybox", inside, report).as_bytes());
}

/// Lines `section: line`, with what differs between any two runs taken out.
#[must_use]
pub fn lines(out: &str) -> Vec<String> {
    let mut section = "";
    let mut lines = Vec::new();
    for line in out.split('\n').map(|line| line.trim_end_matches(['\r', ' '])) {
        match line.strip_prefix("== ") {
            Some(name) => section = name,
            None if line.is_empty() => {}
            None => lines.extend(told(section, line).map(|line| format!("{section}: {line}"))),
        }
    }
    lines
}

fn told(section: &str, line: &str) -> Option<String> {
    match section {
        "namespaces" => {
            let (name, inside) = line.split_once(' ')?;
            let host = std::fs::read_link(format!("/proc/thread-self/ns/{name}")).ok()?;
            Some(format!("{name} {}", if host.as_os_str() == inside { "the host's" } else { "its own" }))
        }
        // Random where the root has no machine id.
        "environment" if line.starts_with("container_uuid=") => Some("container_uuid".to_owned()),
        _ => Some(line.to_owned()),
    }
}
