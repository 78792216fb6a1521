//! User namespaces as a user sees them, with systemd-nspawn's `-U` as the oracle.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use blackbox::{Host, finish, nspawn, on_host, probe_root};
use fixture::Kind;
use nix::libc;
use nix::sys::signal::Signal;

/// Runs one script as PID 1 under both, each in a root of its own; what each printed.
fn both(host: &Host<'_>, options: &[&str], script: &str) -> (String, String) {
    host.write("etc/os-release", "ID=nixos\n", 0o644);
    let (first, second) = (probe_root(host, "ours"), probe_root(host, "theirs"));
    let options = [options, &["-M", "probe", "--console=read-only"]].concat();
    blackbox::both(host, [&first, &second], &options, script)
}

#[test]
fn ids_and_capabilities_are_nspawns() {
    on_host(|host| {
        let script = r#"
            B=/probe/busybox
            $B grep -E '^(Cap|NoNewPrivs|Seccomp:|Uid|Gid|Groups)' /proc/1/status
            $B cat /proc/1/uid_map /proc/1/gid_map /proc/1/setgroups
            $B stat -c '%n %u:%g %a' /dev/pts /dev/pts/ptmx /dev/null /dev/shm /run /run/host /tmp /sys/fs/cgroup \
                /sys/fs/cgroup/cgroup.procs /sys/fs/cgroup/cgroup.subtree_control /sys/fs/cgroup/cgroup.type /proc/1/fd/0
            $B ls /run/host | $B grep -v -e unix-export
        "#;
        for options in [
            ["-U", "--private-network"],
            ["-U", "--notify-ready=no"],
            ["--private-users=identity", "--private-network"],
        ] {
            let (ours, theirs) = both(host, &options, script);
            let lines = |text: &str| {
                text.lines().map(str::to_owned).filter(|line| !line.is_empty()).collect::<Vec<_>>()
            };
            assert_eq!(lines(&ours), lines(&theirs), "{options:?}");
            assert!(ours.contains(" 65536"), "{ours}");
        }
    });
}

/// A line a mount: place, flags, type, and of a tmpfs its options.
const MOUNTS: &str = r#"
    while read -r _ _ _ root point options rest; do
        rest=${rest#*- }; set -- $rest
        case $1 in tmpfs|devpts) more=$3 ;; *) more= ;; esac
        case $1 in ext4|overlay|xfs|btrfs) type=host ;; *) type=$1 ;; esac
        echo "$point $options $type $more"
    done < /proc/self/mountinfo
"#;

#[test]
fn mounts_are_nspawns() {
    on_host(|host| {
        for options in [["-U", "--private-network"], ["-U", "--notify-ready=no"]] {
            let (ours, theirs) = both(host, &options, MOUNTS);
            let set = |text: &str| text.lines().map(str::to_owned).collect::<BTreeSet<_>>();
            // Real masks, and what nspawn 252 mounts twice or does not have yet.
            let known = [
                "/proc/kallsyms ",
                "/proc/kcore ",
                "/proc/keys ",
                "/proc/sysrq-trigger ",
                "/proc/timer_list ",
                "/run/host/os-release ",
                "/dev/console ",
                "/run/host/incoming ",
                "/run/host/unix-export ",
                "/proc/sys/kernel/random/boot_id rw,",
                "/sys/fs/selinux ",
            ];
            let differs = |one: &str, other: &str| -> Vec<String> {
                set(one)
                    .difference(&set(other))
                    .filter(|line| !line.is_empty() && !known.iter().any(|k| line.starts_with(k)))
                    .cloned()
                    .collect()
            };
            let (more, less) = (differs(&ours, &theirs), differs(&theirs, &ours));
            assert!(
                more.is_empty() && less.is_empty(),
                "{options:?}: nixrun alone {more:#?}, nspawn alone {less:#?}\n{theirs}"
            );
        }
    });
}

/// Entries for users and groups, on files of every type that can have them, beside what has none.
const ACLS: &str = r#"
    set -e; cd "$1"; mkdir -p d/sub; touch d/file d/plain d/suid; mkfifo d/fifo; mknod d/null c 1 3; ln -s file d/link
    chown 1000:100 d/file d/suid; chmod 6755 d/suid
    setfacl -m u:7:rwx,u:8:r,g:9:rx d/file d/suid d/fifo d/null d/sub .
    setfacl -d -m u:7:rwx,g:65533:rx d d/sub
    # More than fit into a small buffer.
    for id in $(seq 2000 2200); do echo "u:$id:r"; done | setfacl -M - d/sub
    # One that was given away up to its owner when the process that did it was killed.
    touch d/half; setfacl -m u:7:rwx,u:$(($2 + 8)):r d/half; chown $(($2 + 5)):$(($2 + 5)) d/half
"#;

#[test]
fn access_control_lists_are_given_as_nspawn_gives_them() {
    on_host(|host| {
        let base = 0x40_0000_u32;
        host.write("etc/os-release", "ID=nixos\n", 0o644);
        host.write("acls", ACLS, 0o755);
        let script = host.path("acls");
        let mut lists = Vec::new();
        for name in ["ours", "theirs"] {
            let root = probe_root(host, name);
            host.sh(&format!("sh {} {} {base}", script.display(), root.display()));
            let users = format!("--private-users={base}:65536");
            let options =
                [&users, "--private-users-chown", "--link-journal=no", "--console=read-only", "-M", "probe"];
            let mut command = if name == "ours" {
                let mut command = host.nixrun(&["nspawn", "--register=no", "--keep-unit", "-D"]);
                command.arg(&root).args(options);
                command
            } else {
                nspawn(host, &root, &options)
            };
            let finished = finish(command.args(["--", "/probe/busybox", "true"]));
            assert_eq!(finished.code, Some(0), "{name}: {}{}", finished.out, finished.err);
            let list = "getfacl -pn . d d/*; stat -c '%n %a %u:%g' d d/*";
            let text = host.sh(&format!("cd {}; {list}", root.display()));
            lists.push(text.lines().map(str::to_owned).collect::<Vec<_>>());
        }
        let (ours, theirs) = (&lists[0], &lists[1]);
        assert!(theirs.contains(&format!("default:group:{}:r-x", base + 65533)), "{theirs:?}");
        let both = ours.iter().zip(theirs).filter(|(ours, theirs)| ours != theirs);
        assert_eq!((both.collect::<Vec<_>>(), ours.len()), (vec![], theirs.len()));
    });
}

#[test]
fn the_same_range_is_picked_and_none_twice() {
    on_host(|host| {
        let map = "read -r _ base _ < /proc/self/uid_map; echo $base";
        let (ours, theirs) = both(host, &["-U"], map);
        assert_eq!(ours.trim(), theirs.trim());
        let base: u32 = ours.trim().parse().unwrap();
        // Locked, by whichever of the two.
        let lock = host.path("run/systemd/nspawn-uid").join(base.to_string());
        assert!(!lock.exists(), "the lock went with the container");
        let root = probe_root(host, "third");
        let run = |options: &[&str]| {
            let args = [
                &[
                    "nspawn",
                    "-q",
                    "--keep-unit",
                    "--register=no",
                    "-M",
                    "probe",
                    "-D",
                    root.to_str().unwrap(),
                ],
                options,
            ];
            let mut command = host.nixrun(&args.concat());
            finish(command.args(["--console=pipe", "--", "/probe/bash", "-c", map]))
                .out
                .trim()
                .parse::<u32>()
                .unwrap()
        };
        host.write(&format!("run/systemd/nspawn-uid/{base}"), "", 0o600);
        let held = fs::File::options().read(true).write(true).open(&lock).unwrap();
        // As systemd does: make_lock_file() in its lock-util.c.
        let whole = libc::flock { l_type: libc::F_WRLCK as i16, l_whence: 0, l_start: 0, l_len: 0, l_pid: 0 };
        nix::fcntl::fcntl(&held, nix::fcntl::FcntlArg::F_OFD_SETLK(&whole)).unwrap();
        assert_ne!(run(&["-U"]), base, "somebody else's range was taken");
        drop(held);
        assert_eq!(run(&["-U"]), base);
        host.write("etc/passwd", &format!("somebody:x:{}:100::/:/bin/sh\n", base + 7), 0o644);
        assert_ne!(run(&["-U"]), base, "a range with a user of the host in it was taken");
        // Files that belong to a range decide, before the name does.
        host.write("etc/passwd", "", 0o644);
        let owned = 0x6000_0000;
        std::os::unix::fs::chown(&root, Some(owned), Some(owned)).unwrap();
        assert_eq!(run(&["-U"]), owned);
    });
}

/// Boots a NixOS system with these settings, looks at it, and stops it.
fn booted(settings: &[(&str, Option<&str>)], base: u32, health: &str) {
    on_host(|host| {
        host.install(Kind::Base, "base");
        host.set_conf("base", settings);
        let container = host.boot("base");
        let state = container.state().unwrap();
        let range = &state["users"];
        if base == 0 {
            assert_eq!(range["base"], 0, "{state}");
        } else {
            assert!(range["base"].as_u64().unwrap() >= u64::from(base), "{state}");
        }
        let inside = host.inside(
            "base",
            "systemctl is-system-running --wait; systemctl --failed --no-legend; id -u; readlink /proc/self/ns/user;
             cat /proc/self/cgroup | grep ^0::; stat -c %u:%g / /etc /nix/store /nix/var/nix/gcroots /root;
             touch /nix/store/x 2>/dev/null && echo the store is writable; touch /nix/var/nix/gcroots/x && echo written;
             mount -o remount,bind,rw /nix/store 2>/dev/null && echo the store is remounted; true",
        );
        let user = fs::read_link(format!("/proc/{}/ns/user", container.leader())).unwrap();
        let owners = "0:0\n".repeat(5);
        let expected = format!("{health}\n0\n{}\n0::/nixrun-exec\n{owners}written\n", user.display());
        assert_eq!(inside, expected, "{}", container.out());
        assert_ne!(user, fs::read_link("/proc/self/ns/user").unwrap());
        // What the container wrote to a mapped mount is root's on the host.
        let written = host.path("nix/var/nix/gcroots/per-container/base/x");
        assert_eq!(fs::metadata(&written).unwrap().uid(), 0);
        assert_eq!(fs::metadata(host.root_of("base")).unwrap().uid(), 0);
        let terminal = host.sh(&format!(
            "script -qec '{} --host-root {} exec base -- stat -c %u:%F -L /dev/fd/0' /dev/null",
            blackbox::nixrun_binary().display(),
            host.dir().display()
        ));
        assert!(terminal.contains("0:character special file"), "{terminal:?}");
        let finished = container.stop();
        assert_eq!(finished.code, Some(0), "{}", finished.err);
        assert!(!host.path("run/systemd/nspawn-uid").join(range["base"].to_string()).exists());
    });
}

#[test]
fn a_nixos_system_runs_with_picked_ids() {
    booted(&[("PRIVATE_USERS", Some("pick"))], 524_288, "running");
}

#[test]
fn a_nixos_system_runs_with_the_hosts_ids() {
    booted(&[("PRIVATE_USERS", Some("identity"))], 0, "running");
}

#[test]
fn a_nixos_system_runs_with_picked_ids_on_the_hosts_network() {
    let none = [
        "PRIVATE_NETWORK",
        "HOST_ADDRESS",
        "LOCAL_ADDRESS",
        "HOST_ADDRESS6",
        "LOCAL_ADDRESS6",
        "HOST_PORT",
        "HOST_BRIDGE",
    ];
    let mut settings: Vec<_> = none.iter().map(|key| (*key, None)).collect();
    settings.push(("PRIVATE_USERS", Some("pick")));
    // Its web server may not listen on port 80 of the host's network; nor may it under systemd-nspawn.
    booted(&settings, 524_288, "degraded\n● httpd.service loaded failed failed Web server");
}

#[test]
fn a_killed_supervisors_range_is_reclaimed() {
    on_host(|host| {
        host.install(Kind::Mini, "mini");
        host.set_conf("mini", &[("PRIVATE_USERS", Some("pick"))]);
        host.boot("mini").stop();
        let before = host.snapshot();
        let container = host.boot("mini");
        let base = container.state().unwrap()["users"]["base"].to_string();
        let leader = container.leader();
        let lock = host.path("run/systemd/nspawn-uid").join(&base);
        assert!(lock.exists());
        container.signal(Signal::SIGKILL);
        drop(container.wait());
        blackbox::wait_for("the end of PID 1", || {
            (!Path::new(&format!("/proc/{leader}")).exists()).then_some(())
        });
        assert!(lock.exists(), "the dead have no hands");
        let said = host.ok(&["reclaim", "mini"]);
        assert!(said.contains(&format!("nspawn-uid/{base}")), "{said}");
        assert!(!lock.exists());
        before.assert_same(&host.snapshot(), "after a reclaim");
    });
}
