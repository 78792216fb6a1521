//! nixrun killed, or failing, at every stage: the container is gone, and after a reclaim or the next boot the host is
//! what it was.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "which points were tried belongs in the log")]

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use blackbox::{Container, Host, Point, Snapshot, calls, on_host, wait_for};
use fixture::Kind;

/// Calls that change something outside the process, or on whose answer a change hangs.
const EFFECTS: &[&str] = &[
    "bpf",
    "clone3",
    "exit_group",
    "fchmod",
    "fchmodat",
    "flock",
    "fsmount",
    "ftruncate",
    "ioctl",
    "kill",
    "mkdir",
    "mkdirat",
    "mknodat",
    "mount_setattr",
    "open",
    "open_tree",
    "openat",
    "openat2",
    "pidfd_send_signal",
    "poll",
    "pread64",
    "read",
    "recvfrom",
    "recvmsg",
    "rename",
    "renameat",
    "rmdir",
    "sendmsg",
    "sendto",
    "setns",
    "setsockopt",
    "signalfd4",
    "socket",
    "socketpair",
    "symlink",
    "symlinkat",
    "unlink",
    "unlinkat",
    "waitid",
    "write",
];

/// Calls that are few and dangerous: every one of them is tried.
const DENSE: &[&str] = &[
    "bpf",
    "clone3",
    "exit_group",
    "flock",
    "mkdir",
    "rename",
    "rmdir",
    "setns",
    "symlink",
    "unlink",
    "waitid",
];

/// The calls of a whole life of the container, start and end apart.
fn trace(host: &Host<'_>) -> (Vec<Point>, Vec<Point>) {
    let file = host.path("output/trace");
    let output = file.to_str().unwrap().to_owned();
    let container = Container::spawn(host, "mini", host.traced(&["-o", &output], &["boot", "mini"]));
    wait_ready(host, &container);
    // strace writes line by line; what is there now belongs to the start.
    let started = wait_for("the trace to settle", || {
        let before = calls(&file).len();
        std::thread::sleep(Duration::from_millis(100));
        (calls(&file).len() == before).then_some(before)
    });
    host.ok(&["stop", "mini"]);
    container.wait();
    let mut start = calls(&file);
    let end = start.split_off(started);
    assert!(start.len() > 200 && end.len() > 20, "{} and {} calls", start.len(), end.len());
    (start, end)
}

/// Whether the container gets ready; it does not when nixrun ends before.
fn wait_ready(host: &Host<'_>, container: &Container<'_>) -> bool {
    wait_for("the container to be ready or gone", || {
        let state = std::fs::read(host.path("run/nixrun/mini/state")).unwrap_or_default();
        let state: serde_json::Value = serde_json::from_slice(&state).unwrap_or_default();
        let alive = state["supervisor"]["pid"].as_i64().is_some_and(|pid| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            !stat.is_empty() && !stat.contains(") Z")
        });
        // What is published last may be late; the fixture's PID 1 is itself once it is about to be ready.
        let comm =
            std::fs::read_to_string(format!("/proc/{}/comm", state["leader"]["pid"])).unwrap_or_default();
        let ready = state["ready"] == true || comm.trim() == "fixture-pid1";
        match (container.is_gone(), ready && alive) {
            (true, _) => Some(false),
            (false, true) => Some(true),
            (false, false) => None,
        }
    })
}

/// Every dense point, and of the others each `step`th.
fn choose(points: &[Point], step: usize) -> Vec<Point> {
    let effects: Vec<&Point> = points.iter().filter(|point| EFFECTS.contains(&point.name.as_str())).collect();
    let dense = effects.iter().filter(|point| DENSE.contains(&point.name.as_str()));
    let spread = effects.iter().step_by(step);
    let chosen: BTreeSet<Point> = dense.chain(spread).map(|point| (*point).clone()).collect();
    chosen.into_iter().collect()
}

/// Boots with one fault; whether it came to a running container, which is stopped then, and what nixrun said.
fn boot_with(host: &Host<'_>, fault: &str, follow: bool) -> (bool, String) {
    let fault = format!("inject={fault}");
    let mut strace = vec!["-o", "/dev/null", "-e", &fault];
    if follow {
        strace.push("-f");
    }
    let container = Container::spawn(host, "mini", host.traced(&strace, &["boot", "mini"]));
    let ran = wait_ready(host, &container);
    if ran {
        // A nixrun that dies of this is what is being tried.
        let _ = host.run(&["stop", "--timeout=5", "mini"]);
    }
    let finished = container.wait();
    (ran && finished.code == Some(0), finished.err)
}

/// nixrun is dead: so is its container, soon.
fn assert_dead(host: &Host<'_>, point: &str) {
    let began = Instant::now();
    wait_for(&format!("the container to die after {point}"), || host.processes().is_empty().then_some(()));
    assert!(began.elapsed() < Duration::from_secs(5), "{point}: it took {:?}", began.elapsed());
}

fn kill_at(host: &Host<'_>, before: &Snapshot, points: &[Point]) {
    for (number, Point { name, nth }) in points.iter().enumerate() {
        let point = format!("SIGKILL at {name} {nth}");
        boot_with(host, &format!("{name}:signal=KILL:when={nth}"), false);
        assert_dead(host, &point);
        // By turns what an administrator does and what the next start does.
        if number % 3 == 2 {
            assert_eq!(host.boot("mini").stop().code, Some(0), "boot after {point}");
        } else {
            host.ok(&["reclaim"]);
        }
        before.assert_same(&host.snapshot(), &format!("after {point}"));
    }
    println!("{} points", points.len());
}

fn prepared(test: impl FnOnce(&Host<'_>, Snapshot, Vec<Point>, Vec<Point>) + Send) {
    on_host(|host| {
        host.install(Kind::Mini, "mini");
        // Forwarding is to be turned on and off again.
        host.sh("echo 0 > /proc/sys/net/ipv4/ip_forward; echo 0 > /proc/sys/net/ipv6/conf/all/forwarding");
        assert_eq!(host.boot("mini").stop().code, Some(0));
        let before = host.snapshot();
        let (start, end) = trace(host);
        before.assert_same(&host.snapshot(), "after a traced boot");
        test(host, before, start, end);
    });
}

#[test]
fn killed_at_any_stage_of_the_first_half_of_a_start() {
    prepared(|host, before, start, _| {
        let points = choose(&start, 9);
        kill_at(host, &before, &points[..points.len() / 2]);
    });
}

#[test]
fn killed_at_any_stage_of_the_second_half_of_a_start() {
    prepared(|host, before, start, _| {
        let points = choose(&start, 9);
        kill_at(host, &before, &points[points.len() / 2..]);
    });
}

#[test]
fn killed_at_any_stage_of_a_stop() {
    prepared(|host, before, _, end| kill_at(host, &before, &choose(&end, 4)));
}

/// One fault after another; each ends in a sentence or does no harm, and either way nothing is left.
fn fail_at(host: &Host<'_>, before: &Snapshot, faults: &[String], follow: bool, must_fail: bool) {
    for fault in faults {
        let (ran, said) = boot_with(host, fault, follow);
        assert!(!must_fail || !ran, "{fault} went unnoticed");
        if !ran {
            let sentences =
                said.lines().filter(|line| line.starts_with("nixrun: ") && !line.contains("warning: "));
            assert_eq!(sentences.count(), 1, "{fault}: {said}");
            assert!(!said.contains("panicked"), "{fault}: {said}");
        }
        assert_dead(host, fault);
        // A fault that hit the clean-up is a warning then, and what stayed is reclaim's.
        if said.contains("nixrun: warning: cannot ") {
            host.ok(&["reclaim"]);
        }
        before.assert_same(&host.snapshot(), &format!("after {fault}: {said}"));
    }
}

#[test]
fn a_call_of_nixrun_that_fails_leaves_nothing() {
    prepared(|host, before, start, _| {
        let error = |name: &str| match name {
            "mkdir" | "mkdirat" | "symlink" | "symlinkat" | "write" | "rename" | "mknodat" => "ENOSPC",
            "open" | "openat" | "openat2" | "socket" | "socketpair" => "EMFILE",
            _ => "EPERM",
        };
        // A read that fails is a file that cannot be read; killing and waiting belong to the end; what cannot be
        // removed stays, for reclaim.
        let skip = [
            "unlink",
            "unlinkat",
            "rmdir",
            "read",
            "exit_group",
            "poll",
            "pidfd_send_signal",
            "ioctl",
            "flock",
        ];
        let points = choose(&start, 13);
        let faults: Vec<String> = points
            .iter()
            // A thread that cannot leave the container's network must not go on: nixrun aborts there, on purpose.
            .filter(|point| !skip.contains(&point.name.as_str()) && (point.name != "setns" || point.nth == 1))
            .map(|Point { name, nth }| format!("{name}:error={}:when={nth}", error(name)))
            .collect();
        fail_at(host, &before, &faults, false, false);
        println!("{} faults", faults.len());
    });
}

#[test]
fn a_call_of_the_containers_first_process_that_fails_leaves_nothing() {
    prepared(|host, before, _, _| {
        // strace counts for each process by itself; nixrun's own calls of these are fewer or none.
        let faults: Vec<String> = [
            "clone3:error=EPERM",
            "clone3:error=ENOSPC",
            "move_mount:error=EINVAL:when=1",
            "move_mount:error=EPERM:when=9",
            "fsmount:error=EPERM",
            "pivot_root:error=EINVAL",
            "umount2:error=EBUSY:when=1",
            "sethostname:error=EPERM",
            "setsid:error=EPERM",
            "chdir:error=ENOENT",
            "close_range:error=ENOSYS",
            "seccomp:error=EACCES",
            "capset:error=EPERM",
            "mount_setattr:error=EINVAL:when=1",
            "open_tree:error=ENOENT:when=1",
            "setgroups:error=EPERM",
            "prlimit64:error=EPERM",
            "rt_sigaction:error=EFAULT:when=20",
            "move_mount:signal=KILL:when=5",
            "pivot_root:signal=KILL",
            "seccomp:signal=KILL",
        ]
        .map(str::to_owned)
        .into();
        fail_at(host, &before, &faults, true, true);
    });
}

#[test]
fn what_a_failed_start_cannot_remove_is_reclaimed() {
    prepared(|host, before, _, _| {
        let (ran, said) = boot_with(host, "umount2:error=EBUSY", true);
        assert!(!ran && said.contains("umount2"), "{said}");
        assert!(host.path("run/nixrun/mini/journal").exists());
        host.ok(&["reclaim"]);
        before.assert_same(&host.snapshot(), "after a reclaim");
    });
}

#[test]
fn reclaim_is_as_good_as_the_state_it_finds() {
    prepared(|host, before, _, _| {
        // A torn journal, and one that is not there at all: names are enough.
        for spoil in [
            ": > run/nixrun/mini/journal",
            "rm run/nixrun/mini/journal",
            "rm run/nixrun/mini/state",
            "echo '{' >> run/nixrun/mini/journal",
        ] {
            let container = host.boot("mini");
            container.signal(nix::sys::signal::Signal::SIGKILL);
            container.wait();
            assert_dead(host, spoil);
            host.sh(&format!("cd {}; {spoil}", host.dir().display()));
            host.ok(&["reclaim", "mini"]);
            // Without its journal the group's place is not known; the next boot, which makes it, removes it.
            assert_eq!(host.boot("mini").stop().code, Some(0), "{spoil}");
            before.assert_same(&host.snapshot(), &format!("after {spoil:?}, a reclaim and a boot"));
            // Again, with nothing to do.
            host.ok(&["reclaim", "mini"]);
            before.assert_same(&host.snapshot(), "after a reclaim of nothing");
        }
    });
}

#[test]
fn a_reclaim_that_is_killed_is_finished_by_the_next() {
    prepared(|host, before, _, _| {
        for point in [
            "rmdir:signal=KILL:when=1",
            "unlink:signal=KILL:when=2",
            "sendto:signal=KILL:when=3",
            "unlink:signal=KILL:when=6",
        ] {
            let container = host.boot("mini");
            container.signal(nix::sys::signal::Signal::SIGKILL);
            container.wait();
            assert_dead(host, point);
            let inject = format!("inject={point}");
            let _ = host.traced(&["-o", "/dev/null", "-e", &inject], &["reclaim"]).output();
            host.ok(&["reclaim"]);
            before.assert_same(&host.snapshot(), &format!("after a reclaim killed at {point} and another"));
        }
    });
}

/// All that is made beside a container's root and its links at once: ids, temporary directories, an overlay's, a bridge.
#[test]
fn killed_at_any_stage_with_a_user_namespace_and_everything_that_is_made_on_the_host() {
    on_host(|host| {
        let root = blackbox::probe_root(host, "t");
        let options = [
            "nspawn",
            "--console=pipe",
            "--ephemeral",
            "--private-users=pick",
            "--network-zone=z",
            "--port=18080:80",
            "--bind=:/made",
            "--overlay=+/probe::/over",
            "--machine=t",
            "-D",
            root.to_str().unwrap(),
            "/probe/bash",
            "-c",
            "[ -x /over/bash ] && : > /made/file && read -r _ base _ < /proc/self/uid_map && exit $((base == 0))",
        ];
        host.sh("echo 0 > /proc/sys/net/ipv4/ip_forward; echo 0 > /proc/sys/net/ipv6/conf/all/forwarding");
        for path in ["var/tmp", "output"] {
            std::fs::create_dir_all(host.path(path)).unwrap();
        }
        let life = |strace: &[&str]| host.traced(strace, &options).output().unwrap();
        let whole = life(&["-o", "/dev/null"]);
        assert!(whole.status.success(), "{whole:?}");
        let (file, before) = (host.path("output/trace"), host.snapshot());
        assert!(life(&["-o", file.to_str().unwrap()]).status.success());
        before.assert_same(&host.snapshot(), "after a traced life");
        let points = choose(&calls(&file), 24);
        for (number, Point { name, nth }) in points.iter().enumerate() {
            let point = format!("SIGKILL at {name} {nth}");
            let inject = format!("inject={name}:signal=KILL:when={nth}");
            life(&["-o", "/dev/null", "-e", &inject]);
            assert_dead(host, &point);
            if number % 3 == 2 {
                assert!(life(&["-o", "/dev/null"]).status.success(), "a start after {point}");
            } else {
                host.ok(&["reclaim"]);
            }
            before.assert_same(&host.snapshot(), &format!("after {point}"));
        }
        println!("{} points", points.len());
    });
}
