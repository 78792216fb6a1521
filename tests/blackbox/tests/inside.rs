//! What a container sees, compared with the same probe under systemd-nspawn, and with the specification where the
//! two differ on purpose.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::path::Path;

use blackbox::{Arch, Finished, Host, call, finish, nspawn, on_host, probe_root, usr_root};
use fixture::Kind;

/// Runs one script as PID 1 under both runtimes, with the same options; what each printed.
fn both(host: &Host<'_>, options: &[&str], script: &str) -> (String, String) {
    let root = probe_root(host, "t");
    host.write("etc/os-release", "ID=nixos\n", 0o644);
    let tail = ["--", "/probe/bash", "-c", script];
    let mut ours = host.nixrun(&["run", "-M", "t", "--console=read-only", "-D"]);
    let ours = finish(ours.arg(&root).args(options).args(tail));
    let mut options = options.to_vec();
    options.extend(["-M", "t", "--console=read-only"]);
    let theirs = finish(nspawn(host, &root, &options).args(tail));
    let text = |finished: &Finished| {
        assert_eq!(finished.code, Some(0), "{}{}", finished.out, finished.err);
        finished.out.replace('\r', "")
    };
    (text(&ours), text(&theirs))
}

/// Lines that only one of the two has.
fn only<'a>(one: &'a str, other: &str) -> Vec<&'a str> {
    let other: BTreeSet<&str> = other.lines().collect();
    one.lines().filter(|line| !other.contains(line)).collect()
}

/// A line a mount: place, flags of the mount, type, and of a tmpfs its size.
const MOUNTS: &str = r#"
    while read -r _ _ _ root point options rest; do
        rest=${rest#*- }; set -- $rest
        case $1 in tmpfs) more=$3 ;; devpts) more=$3 ;; *) more= ;; esac
        case $1 in ext4|overlay|xfs|btrfs) type=host ;; *) type=$1 ;; esac
        echo "$point $options $type $more"
    done < /proc/self/mountinfo
"#;

/// Section 3.3 of the reference beside what the real nspawn 252 does.
fn compare_mounts(options: &[&str], only_ours: &[&str], only_theirs: &[&str]) {
    on_host(|host| {
        let (ours, theirs) = both(host, options, MOUNTS);
        let have = |line: &str| Path::new(line.split(' ').next().unwrap_or_default()).exists();
        // Which entries /proc has is the kernel's choice.
        let expected: Vec<&&str> =
            only_ours.iter().filter(|line| !line.starts_with("/proc/") || have(line)).collect();
        let mut found = only(&ours, &theirs);
        let mut missing = only(&theirs, &ours);
        found.retain(|line| !expected.iter().any(|wanted| line.starts_with(**wanted)));
        missing.retain(|line| !only_theirs.iter().any(|known| line.starts_with(known)));
        assert!(found.is_empty(), "nixrun alone has {found:#?}\n{ours}\n--- nspawn:\n{theirs}");
        assert!(missing.is_empty(), "nspawn alone has {missing:#?}\n{ours}");
        for wanted in expected {
            assert!(ours.lines().any(|line| line.starts_with(*wanted)), "{wanted} is missing:\n{ours}");
        }
    });
}

/// Masks that are real here and not mounted at all by nspawn 252; and its os-release, mounted read-only by itself.
const MASKS: &[&str] = &[
    "/proc/kallsyms ro,nosuid,nodev,noexec tmpfs",
    "/proc/kcore ro,nosuid,nodev,noexec tmpfs",
    "/proc/keys ro,nosuid,nodev,noexec tmpfs",
    "/proc/sysrq-trigger ro,nosuid,nodev,noexec tmpfs",
    "/proc/timer_list ro,nosuid,nodev,noexec tmpfs",
    "/run/host/os-release ro,relatime",
    "/dev/console rw,nosuid,noexec,relatime devpts",
];

/// nspawn mounts some things twice, once before and once after it makes them read-only, and offers a directory to
/// `machinectl bind`.
const TWICE: &[&str] =
    &["/run/host/os-release r", "/run/host/incoming r", "/proc/sys/kernel/random/boot_id rw,"];

#[test]
fn mounts_with_a_network_of_its_own() {
    compare_mounts(&["--private-network"], MASKS, TWICE);
}

#[test]
fn mounts_with_the_hosts_network() {
    // nspawn 252 leaves room for version 1 groups and, on hosts that have it, SELinux.
    compare_mounts(&[], MASKS, &[TWICE, &["/sys/fs/selinux "]].concat());
}

#[test]
fn masks_hide_what_they_cover() {
    on_host(|host| {
        let script = r#"
            for name in kallsyms kcore keys sysrq-trigger timer_list; do
                [ -e /proc/$name ] || continue
                # CAP_DAC_OVERRIDE opens it; there is nothing in it, and nothing can be put there.
                [ -z "$(/probe/busybox head -c 1 /proc/$name)" ] || echo "$name can be read"
                (echo h > /proc/$name) 2>/dev/null && echo "$name can be written"
                [ "$(/probe/busybox stat -c %a /proc/$name)" = 0 ] || echo "$name has a mode"
            done
            (echo 1 > /proc/sys/kernel/panic) 2>/dev/null && echo "/proc/sys is writable"
            (echo x > /proc/irq/default_smp_affinity) 2>/dev/null && echo "/proc/irq is writable"
            (: > /sys/kernel/x) 2>/dev/null && echo "/sys is writable"
            (: > /run/host/x) 2>/dev/null && echo "/run/host is writable"
            (echo 0 > /proc/sys/net/ipv4/ip_forward) || echo "/proc/sys/net is not writable"
            echo done
        "#;
        let (ours, theirs) = both(host, &["--private-network"], script);
        assert_eq!(ours, "done\n");
        // The oracle shows that the probe finds what is not hidden.
        assert!(
            !Path::new("/proc/timer_list").exists() || theirs.contains("timer_list can be read"),
            "{theirs}"
        );
    });
}

#[test]
fn pid_1_has_nspawns_environment_in_nspawns_order() {
    on_host(|host| {
        let script = "/probe/busybox tr '\\0' '\\n' < /proc/1/environ";
        let options = [
            "--setenv=A=1",
            "--setenv=HOME=/x",
            "--uuid=00112233-4455-6677-8899-aabbccddeeff",
            "--notify-ready=no",
        ];
        let (ours, theirs) = both(host, &options, script);
        // os-release is the host's, and ours is the one below --host-root: none.
        // nspawn at times ends its console with an empty line of its own.
        let skipped = |line: &&str| {
            line.is_empty() || line.starts_with("container_host_") || line.starts_with("NOTIFY_SOCKET=")
        };
        let lines = |text: &str| -> Vec<String> {
            text.lines().filter(|line| !skipped(line)).map(str::to_owned).collect()
        };
        assert_eq!(lines(&ours), lines(&theirs));
    });
}

#[test]
fn a_booted_container_has_the_rest_of_the_environment() {
    on_host(|host| {
        host.install(Kind::Mini, "mini");
        let container = host.boot("mini");
        let environ = std::fs::read(format!("/proc/{}/environ", container.leader())).unwrap();
        let environ = String::from_utf8(environ).unwrap();
        let has = |wanted: &str| environ.split('\0').any(|line| line == wanted);
        // The shell that was PID 1 before has sorted them its own way.
        for wanted in [
            "container=systemd-nspawn",
            "NOTIFY_SOCKET=/run/host/notify",
            "LANG=C.UTF-8",
            "HOME=/root",
            "USER=root",
            "LOGNAME=root",
            "container_host_id=nixos",
            "container_host_version_id=25.11",
            "PRIVATE_NETWORK=1",
        ] {
            assert!(has(wanted), "{wanted}: {environ:?}");
        }
        for not in ["HOST_ADDRESS=", "LOCAL_ADDRESS=", "HOST_BRIDGE=", "HOST_PORT="] {
            assert!(!environ.contains(not), "{not}: {environ:?}");
        }
        let uuid = container.state().unwrap()["uuid"].as_str().unwrap().to_owned();
        assert!(has(&format!("container_uuid={uuid}")), "{environ:?}");
        let files = host
            .inside("mini", "cat /run/host/container-uuid /run/host/container-manager /run/host/os-release");
        let release = std::fs::read_to_string(host.path("etc/os-release")).unwrap();
        assert_eq!(files, format!("{uuid}\nsystemd-nspawn\n{release}"));
        let modes = host.inside(
            "mini",
            "stat -c %a:%F /run/host/container-uuid /run/host/container-manager /run/host/notify",
        );
        assert_eq!(modes, "444:regular file\n444:regular file\n200:socket\n");
        container.stop();

        // The root's own machine id is what the container is known by.
        let id = "0123456789abcdef0123456789abcdef";
        host.write("var/lib/nixos-containers/mini/etc/machine-id", &format!("{id}\n"), 0o444);
        let container = host.boot("mini");
        assert_eq!(container.state().unwrap()["uuid"], "01234567-89ab-cdef-0123-456789abcdef");
    });
}

#[test]
fn process_attributes_are_nspawns() {
    on_host(|host| {
        let script = r#"
            B=/probe/busybox
            $B grep -E '^(Cap|NoNewPrivs|Seccomp:|SigBlk|SigCgt|Umask|Groups|Uid|Gid)' /proc/1/status
            $B cat /proc/1/limits
            umask; $B cat /proc/sys/kernel/hostname
            $B readlink /proc/1/cwd; $B readlink /proc/1/root
            $B cat /proc/1/cgroup /proc/1/loginuid /proc/1/oom_score_adj /proc/1/personality
            # Session and group leader with a terminal: pid, group, session, and the terminal's group.
            read -r pid _ _ _ group session tty _ < /proc/1/stat; echo "leader $pid $group $session"; [ $tty != 0 ] && echo tty
            for fd in /proc/1/fd/*; do [ ${fd##*/} -lt 255 ] && echo "fd ${fd##*/}"; done
            for fd in 0 1 2; do [ -t $fd ] && echo "isatty $fd"; done
            $B grep -c . /proc/keys || :
        "#;
        // The caller's signals, mask and umask are not the container's.
        let (ours, theirs) = both(host, &["--private-network"], script);
        let theirs = theirs.lines().filter(|l| l.parse::<u32>().is_err()).collect::<Vec<_>>().join("\n");
        let ours = ours.lines().filter(|l| l.parse::<u32>().is_err()).collect::<Vec<_>>().join("\n");
        assert_eq!(ours, theirs);
        assert!(
            ours.contains("NoNewPrivs:\t0") && ours.contains("Seccomp:\t2") && ours.contains("isatty 2"),
            "{ours}"
        );
        // Without a network of its own there is no CAP_NET_ADMIN.
        let caps = "/probe/busybox grep Cap /proc/1/status";
        let (ours, theirs) = both(host, &[], caps);
        assert_eq!(ours, theirs);
    });
}

#[test]
fn what_the_caller_has_is_not_inherited() {
    on_host(|host| {
        let root = probe_root(host, "t");
        let caller = format!(
            "trap '' HUP USR1 PIPE; umask 077; exec 9</etc/hostname 8>/dev/null; export SECRET=1;
             exec {} --host-root {} run -D {} -- \"$@\"",
            blackbox::nixrun_binary().display(),
            host.dir().display(),
            root.display()
        );
        // Programs that touch neither signals nor descriptors of their own.
        let probe = |argv: &[&str]| finish(host.command("bash").args(["-c", &caller, "bash"]).args(argv));
        let status = probe(&["/probe/busybox", "cat", "/proc/self/status"]).out;
        let zero = "0000000000000000";
        for line in ["Umask:\t0022", &format!("SigBlk:\t{zero}"), &format!("SigIgn:\t{zero}"), "Groups:\t "] {
            assert!(status.lines().any(|found| found == line), "{line:?}: {status}");
        }
        // 3 is the directory that is being listed.
        assert_eq!(probe(&["/probe/busybox", "ls", "/proc/self/fd"]).out, "0\n1\n2\n3\n");
        let environment = probe(&["/probe/busybox", "env"]).out;
        assert!(environment.contains("container=") && !environment.contains("SECRET"), "{environment}");
    });
}

#[test]
fn devices_are_nspawns_and_no_others_can_be_made() {
    on_host(|host| {
        let script = r#"
            B=/probe/busybox
            for node in /dev/* /dev/char/* /run/host/inaccessible/*; do
                case $node in */pts|*/shm|*/mqueue|*/net) continue ;; esac
                if [ -L $node ]; then echo "$node -> $($B readlink $node)"
                else echo "$node $($B stat -c '%F %t:%T %a %u' $node)"; fi
            done
        "#;
        let (ours, theirs) = both(host, &["--private-network"], script);
        let known = |line: &&str| {
            !["/dev/console ", "/dev/core "].iter().any(|k| line.starts_with(k)) && !line.contains("net/tun")
        };
        let differences: Vec<&str> =
            only(&ours, &theirs).into_iter().chain(only(&theirs, &ours)).filter(known).collect();
        assert!(differences.is_empty(), "{differences:#?}\n{ours}\n{theirs}");
        // nspawn 252 has a link there; from 253 on it is the pty itself.
        assert!(ours.contains("/dev/console character special file 88:0 620 0"), "{ours}");

        let root = probe_root(host, "u");
        // A node that somebody else has made: the kernel log, which the host can read.
        host.sh(&format!("mknod {0}/probe/kmsg c 1 11; head -c 0 {0}/probe/kmsg", root.display()));
        let script = r#"
            B=/probe/busybox
            try() { $B mknod /dev/$1 $2 $3 $4 2>/dev/null && echo "made $1"; : 2>/dev/null < /dev/$1 && echo "opened $1"; }
            try null2 c 1 3; try mem c 1 1; try kmsg c 1 11; try vda b 254 0; try loop b 7 0; try console2 c 5 1
            try any c 10 1; try tun c 10 200
            : 2>/dev/null < /probe/kmsg && echo "opened the kernel log"
            echo > /dev/null && echo "null works"; $B head -c 1 /dev/urandom > /dev/null && echo "urandom works"
        "#;
        let dir = root.to_str().unwrap();
        let finished = finish(&mut host.nixrun(&["run", "-D", dir, "--", "/probe/bash", "-c", script]));
        let found: Vec<&str> = finished.out.lines().collect();
        assert_eq!(found, ["made null2", "opened null2", "null works", "urandom works"], "{}", finished.err);
    });
}

#[test]
fn the_control_group_is_the_containers_own() {
    on_host(|host| {
        let script = r#"
            B=/probe/busybox
            $B cat /proc/self/cgroup | $B grep ^0::
            $B stat -f -c %T /sys/fs/cgroup; $B stat -c '%a %u' /sys/fs/cgroup
            $B mkdir /sys/fs/cgroup/sub && echo $$ > /sys/fs/cgroup/sub/cgroup.procs && $B cat /proc/self/cgroup | $B grep ^0::
            $B cat /sys/fs/cgroup/cgroup.procs /sys/fs/cgroup/sub/cgroup.procs | $B head -1
        "#;
        let (ours, theirs) = both(host, &["--private-network"], script);
        assert_eq!(ours, theirs);
        assert!(ours.contains("0::/\n") && ours.contains("0::/sub\n"), "{ours}");
    });
}

#[test]
fn every_namespace_is_new_and_exec_enters_them_all() {
    on_host(|host| {
        host.install(Kind::Mini, "mini");
        let container = host.boot("mini");
        let leader = container.leader();
        let names = ["mnt", "pid", "net", "uts", "ipc", "cgroup"];
        let links = host
            .inside("mini", "for n in mnt pid net uts ipc cgroup user; do readlink /proc/self/ns/$n; done");
        for (name, of_exec) in names.iter().zip(links.lines()) {
            let read = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/{name}")).unwrap();
            let of_leader = read(&leader.to_string());
            assert_ne!(of_leader, read("thread-self"), "{name} is the host's");
            assert_eq!(of_leader.to_str(), Some(of_exec), "exec is in another {name}");
        }
        let group = |pid: &str| std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
        assert!(group(&leader.to_string()).contains("/nixrun/mini"), "{}", group(&leader.to_string()));
        // The same identity as PID 1: capabilities, filter, umask.
        let status = |who: &str| {
            host.inside(
                "mini",
                &format!("grep -E '^(Cap|Seccomp:|NoNew|Umask|Groups|SigBlk)' /proc/{who}/status"),
            )
        };
        assert_eq!(status("1"), status("self"));
        assert_eq!(host.inside("mini", "hostname"), "mini\n");
    });
}

/// Calls whose answer does not depend on the machine, with arguments that make them do nothing: number on x86_64,
/// number on i386, first argument.
const CALLS: &[(&str, u32, u32, i32)] = &[
    ("getpid", 39, 20, 0),
    ("reboot", 169, 88, 0),
    ("ptrace", 101, 26, 0xffff),
    ("bpf", 321, 357, -1),
    ("keyctl", 250, 288, -1),
    ("add_key", 248, 286, 0),
    ("kexec_load", 246, 283, 0),
    ("open_by_handle_at", 304, 342, -1),
    ("perf_event_open", 298, 336, 0),
    ("swapon", 167, 87, 0),
    ("syslog", 103, 103, -1),
    ("init_module", 175, 128, 0),
    ("fanotify_init", 300, 338, -1),
    ("quotactl", 179, 131, -1),
    ("settimeofday", 164, 79, 0),
    ("iopl", 172, 110, 0),
    ("mlock", 149, 150, 0),
    ("acct", 163, 51, -1),
    ("vhangup_is_allowed", 153, 111, 0),
    ("userfaultfd", 323, 374, -1),
    ("io_uring_setup", 425, 425, 0),
    ("mount", 165, 21, 0),
    ("no such call", 600, 600, 0),
    ("nor this", 1023, 1023, 0),
];

#[test]
fn system_calls_are_filtered_as_nspawn_does_on_both_architectures() {
    on_host(|host| {
        let root = probe_root(host, "t");
        let mut script = String::new();
        for (name, wide, narrow, first) in CALLS {
            let places = [("64", Arch::X86_64, wide), ("32", Arch::I386, narrow)];
            for (bits, arch, number) in places {
                let file = format!("probe/call-{number}-{bits}");
                host.program(&root.join(&file), &call(arch, *number, *first));
                script += &format!("/{file} 2>/dev/null; echo '{name} {bits}' $?\n");
            }
        }
        host.program(&root.join("probe/calls"), script.as_bytes());
        let tail = ["--", "/probe/bash", "/probe/calls"];
        let ours =
            finish(host.nixrun(&["run", "-D", root.to_str().unwrap(), "--private-network"]).args(tail));
        let theirs = finish(nspawn(host, &root, &["--private-network", "--console=pipe", "-q"]).args(tail));
        assert_eq!(ours.code, Some(0), "{}", ours.err);
        assert_eq!(ours.out.replace('\r', ""), theirs.out.replace('\r', ""), "{}", theirs.err);
        // The comparison sees something: known calls are EPERM (1), unknown ones ENOSYS (38), others neither.
        for line in
            ["getpid 64 0", "bpf 64 1", "bpf 32 1", "no such call 64 38", "reboot 64 22", "keyctl 32 1"]
        {
            assert!(ours.out.lines().any(|found| found.trim_end() == line), "{line}: {}", ours.out);
        }
    });
}

#[test]
fn sockets_of_the_audit_subsystem_do_not_exist() {
    on_host(|host| {
        let root = usr_root(host, "t");
        // AF_NETLINK is 16, SOCK_RAW 3; NETLINK_ROUTE 0, NETLINK_AUDIT 9. EAFNOSUPPORT is 97.
        let script = "for (0, 9) { print socket(my $s, 16, 3, $_) ? 0 : $!+0, ' ' }";
        let tail = ["--bind-ro=/usr", "--", "/usr/bin/perl", "-e", script];
        let ours = finish(host.nixrun(&["run", "-D", root.to_str().unwrap()]).args(tail));
        let theirs = finish(nspawn(host, &root, &["--console=pipe", "-q"]).args(tail));
        assert_eq!((ours.out.as_str(), ours.out.as_str()), ("0 97 ", theirs.out.as_str()), "{}", ours.err);
    });
}

#[test]
fn the_store_is_read_only_and_the_profiles_are_not() {
    on_host(|host| {
        host.install(Kind::Mini, "mini");
        let container = host.boot("mini");
        let script = r#"
            for d in store var/nix/db var/nix/daemon-socket; do touch /nix/$d/x 2>/dev/null && echo "$d is writable"; done
            for d in profiles gcroots; do touch /nix/var/nix/$d/x || echo "$d is not writable"; done
            readlink /nix/var/nix/gcroots/booted-system
        "#;
        assert_eq!(host.inside("mini", script), "/run/booted-system\n");
        for kind in ["profiles", "gcroots"] {
            assert!(host.path("nix/var/nix").join(kind).join("per-container/mini/x").exists(), "{kind}");
        }
        // Root without a user namespace could make the mount writable again, here as under nspawn: a limit that
        // only user namespaces lift. The propagation is the host's, one way.
        host.sh(&format!("mkdir {0}/nix/var/nix/gcroots/per-container/mini/m; mount -t tmpfs t {0}/nix/var/nix/gcroots/per-container/mini/m", host.dir().display()));
        host.inside("mini", "mkdir /tmp/p && mount -t tmpfs t /tmp/p");
        let seen = std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        assert!(!seen.contains("/tmp/p "), "a mount made inside has reached the host: {seen}");
        host.sh(&format!("umount {}/nix/var/nix/gcroots/per-container/mini/m", host.dir().display()));
        container.stop();
    });
}
