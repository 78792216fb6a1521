//! Start, readiness, stop, kill, reboot: exit codes, lines, notifications.
#![forbid(unsafe_code)]

use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use blackbox::{Container, Host, finish, nspawn, on_host, probe_root, usr_root, wait_for};
use fixture::Kind;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

#[test]
fn mini_boots_and_stops_and_the_host_is_as_before() {
    on_host(|host| {
        host.install(Kind::Mini, "mini");
        // The first boot makes the root and the per-container directories, which stay.
        assert_eq!(host.boot("mini").stop().code, Some(0));
        let before = host.snapshot();
        let container = host.boot("mini");
        assert!(container.out().contains("<<< NixOS-shaped stage 2: "), "{}", container.out());
        let finished = container.stop();
        assert_eq!(finished.code, Some(0));
        assert!(finished.err.ends_with("nixrun: Container mini has been shut down.\n"), "{}", finished.err);
        before.assert_same(&host.snapshot(), "after the stop");
    });
}

/// What PID 1 does, and how both runtimes then end: exit code and line.
const ENDS: &[(&str, i32, &str)] = &[
    ("exit 0", 0, "Container NAME exited successfully."),
    ("exit 7", 7, "Container NAME failed with error code 7."),
    ("exit 255", 255, "Container NAME failed with error code 255."),
    ("/probe/busybox reboot -f", 133, "Container NAME is being rebooted."),
    ("/probe/busybox poweroff -f", 0, "Container NAME has been shut down."),
    ("/probe/busybox halt -f", 0, "Container NAME has been shut down."),
];

#[test]
fn a_container_ends_with_nspawns_exit_codes_and_lines() {
    on_host(|host| {
        let root = probe_root(host, "t");
        for (script, code, line) in ENDS {
            // Under a unit, as with --keep-unit: what nspawn is told there.
            let argv = ["--", "/probe/bash", "-c", script];
            let dir = root.to_str().unwrap();
            let mut ours = host.nixrun(&["-v", "run", "-D", dir, "-M", "ours"]);
            let ours = finish(ours.args(argv).env("NOTIFY_SOCKET", "/nowhere"));
            let theirs = finish(nspawn(host, &root, &["-M", "theirs"]).args(argv));
            for (finished, name) in [(&ours, "ours"), (&theirs, "theirs")] {
                let line = line.replace("NAME", name);
                assert_eq!(finished.code, Some(*code), "{script} under {name}: {}", finished.err);
                assert!(finished.err.contains(&line), "{script} under {name}: {:?}", finished.err);
            }
        }
        // A code that means a reboot cannot come from PID 1 itself.
        let dir = root.to_str().unwrap();
        let ours = finish(&mut host.nixrun(&["run", "-D", dir, "--", "/probe/bash", "-c", "exit 133"]));
        assert_eq!(ours.code, Some(1), "{}", ours.err);
        let theirs = finish(nspawn(host, &root, &["-M", "t"]).args(["/probe/bash", "-c", "exit 133"]));
        assert_eq!(theirs.code, Some(1), "{}", theirs.err);
    });
}

#[test]
fn a_pid_1_that_a_signal_ends_is_an_error() {
    on_host(|host| {
        host.install(Kind::Mini, "mini");
        let container = host.boot("mini");
        kill(Pid::from_raw(container.leader()), Signal::SIGKILL).unwrap();
        let finished = container.wait();
        assert_eq!(finished.code, Some(1));
        assert!(finished.err.contains("Container mini terminated by signal KILL."), "{}", finished.err);
    });
}

/// A service manager's end of NOTIFY_SOCKET.
struct Manager(UnixDatagram);

impl Manager {
    fn new(host: &Host<'_>) -> Manager {
        let socket = UnixDatagram::bind(host.path("run/manager")).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Manager(socket)
    }

    fn next(&self) -> String {
        let mut buffer = [0; 4096];
        let length = self.0.recv(&mut buffer).expect("a notification");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    /// Waits for a message with this line; all that came up to it.
    fn until(&self, line: &str) -> String {
        let mut all = String::new();
        while !all.lines().any(|seen| seen == line) {
            all += &self.next();
            all += "\n";
        }
        all
    }
}

#[test]
fn a_unit_hears_what_happens() {
    on_host(|host| {
        host.install(Kind::Mini, "mini");
        let manager = Manager::new(host);
        let mut command = host.nixrun(&["boot", "mini"]);
        command.env("NOTIFY_SOCKET", host.path("run/manager"));
        let container = Container::spawn(host, "mini", command);
        let said = manager.until("READY=1");
        let leader = format!("X_NSPAWN_LEADER_PID={}", container.leader());
        assert!(said.lines().any(|line| line == "STATUS=Container running."), "{said}");
        assert!(said.lines().any(|line| line == leader), "{leader}: {said}");
        // PID 1's own words come along.
        manager.until("STATUS=Container running: Ready.");
        container.signal(Signal::SIGTERM);
        manager.until("STOPPING=1");
        assert_eq!(container.wait().code, Some(0));
        manager.until("STATUS=Terminating...");

        // A container that ends by itself has stopped, too.
        let mut command = host.nixrun(&["boot", "mini"]);
        command.env("NOTIFY_SOCKET", host.path("run/manager"));
        let container = Container::spawn(host, "mini", command);
        manager.until("READY=1");
        kill(Pid::from_raw(container.leader()), Signal::SIGTERM).unwrap();
        manager.until("STOPPING=1");
        assert_eq!(container.wait().code, Some(0));
    });
}

#[test]
fn only_pid_1_is_believed_to_be_ready() {
    on_host(|host| {
        let root = usr_root(host, "t");
        let script = r#"
            use IO::Socket::UNIX;
            sub notify { IO::Socket::UNIX->new(Type => SOCK_DGRAM, Peer => $ENV{NOTIFY_SOCKET})->send($_[0]) }
            $SIG{TERM} = sub { exit 0 };
            my $child = fork;
            if (!$child) { notify("READY=1\nSTATUS=a lie"); exit 0 }
            waitpid $child, 0;
            notify("STATUS=the truth");
            $SIG{USR1} = sub { notify("READY=1") };
            sleep 1 while 1;
        "#;
        let manager = Manager::new(host);
        let mut command =
            host.nixrun(&["run", "-D", root.to_str().unwrap(), "-M", "t", "--notify-ready=yes"]);
        command.args(["--bind-ro=/usr", "--", "/usr/bin/perl", "-e", script]);
        command.env("NOTIFY_SOCKET", host.path("run/manager"));
        let container = Container::spawn(host, "t", command);
        let said = manager.until("STATUS=Container running: the truth");
        assert!(!said.contains("a lie") && !said.contains("READY"), "{said}");
        assert_eq!(container.status().unwrap()["phase"], "starting");
        kill(Pid::from_raw(container.leader()), Signal::SIGUSR1).unwrap();
        manager.until("READY=1");
        wait_for("status to say so", || (container.status()?["phase"] == "running").then_some(()));
        assert_eq!(container.stop().code, Some(0));
    });
}

#[test]
fn a_reboot_inside_starts_again_in_the_foreground() {
    on_host(|host| {
        host.install(Kind::Mini, "mini");
        let container = host.boot("mini");
        let first = container.leader();
        let boot_id = |host: &Host| host.inside("mini", "cat /proc/sys/kernel/random/boot_id");
        let uuid = container.status().unwrap()["uuid"].clone();
        let id = boot_id(host);
        kill(Pid::from_raw(first), Signal::SIGINT).unwrap();
        wait_for("another leader", || {
            let state = container.state()?;
            (state["leader"]["pid"] != first && state["ready"] == true).then_some(())
        });
        assert!(container.err().contains("Container mini is being rebooted."), "{}", container.err());
        assert_ne!(boot_id(host), id, "every boot has an id of its own");
        let _ = uuid;
        assert_eq!(container.stop().code, Some(0));
    });
}

#[test]
fn a_reboot_under_a_unit_is_exit_code_133() {
    on_host(|host| {
        host.install(Kind::Mini, "mini");
        let manager = Manager::new(host);
        let mut command = host.nixrun(&["boot", "mini"]);
        command.env("NOTIFY_SOCKET", host.path("run/manager"));
        let container = Container::spawn(host, "mini", command);
        manager.until("READY=1");
        kill(Pid::from_raw(container.leader()), Signal::SIGINT).unwrap();
        let finished = container.wait();
        assert_eq!(finished.code, Some(133), "{}", finished.err);
        assert!(finished.err.contains("Container mini is being rebooted."), "{}", finished.err);
        let said = manager.until("STATUS=Restarting...");
        assert!(said.lines().any(|line| line == "STOPPING=1"), "{said}");
    });
}

/// A PID 1 that takes its time with the stop signal: `trap`'s body runs on SIGRTMIN+3.
fn stubborn<'h>(host: &'h Host<'h>, prologue: &str, on_stop: &str) -> Container<'h> {
    let root = probe_root(host, "t");
    let script = format!(
        "{prologue}; trap '{on_stop}' RTMIN+3; echo listening; while :; do /probe/busybox sleep 0.05; done"
    );
    let dir = root.to_str().unwrap().to_owned();
    host.spawn(
        "t",
        &["run", "-D", &dir, "-M", "t", "--kill-signal=SIGRTMIN+3", "--", "/probe/bash", "-c", &script],
    )
}

#[test]
fn the_first_sigterm_asks_and_the_second_kills() {
    on_host(|host| {
        let container = stubborn(host, ":", "echo asked");
        wait_for("PID 1 to listen", || container.out().contains("listening").then_some(()));
        container.signal(Signal::SIGTERM);
        wait_for("SIGRTMIN+3 inside", || container.out().contains("asked").then_some(()));
        assert!(!container.is_gone());
        container.signal(Signal::SIGINT);
        let finished = container.wait();
        assert_eq!(finished.code, Some(1), "{}", finished.err);
        assert!(finished.err.contains("Killing container t."), "{}", finished.err);
    });
}

/// A closed terminal asks, too, instead of ending the container on the spot.
#[test]
fn a_hangup_asks_and_a_reboot_does_not_undo_the_stop() {
    on_host(|host| {
        let container = stubborn(host, ":", "/probe/busybox reboot -f");
        wait_for("PID 1 to listen", || container.out().contains("listening").then_some(()));
        container.signal(Signal::SIGHUP);
        let finished = container.wait();
        assert_eq!(finished.code, Some(0), "{}", finished.err);
        assert!(finished.err.contains("Container t has been shut down."), "{}", finished.err);
    });
}

/// Until a command is reaped the kernel lets its container's PID 1 not end.
#[test]
fn a_suspended_exec_does_not_hold_up_the_stop() {
    on_host(|host| {
        let container = stubborn(host, ":", "exit 0");
        wait_for("PID 1 to listen", || container.out().contains("listening").then_some(()));
        let state = wait_for("the state", || container.state());
        let mut exec = host.nixrun(&["exec", "t", "--", "/probe/busybox", "sleep", "1000"]);
        let mut exec = exec.stdin(std::process::Stdio::null()).spawn().unwrap();
        let group = state["cgroup"].as_str().unwrap().to_owned() + "/nixrun-exec/cgroup.procs";
        let runs = |pid: &str| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.starts_with(b"/probe/busybox\0sleep\0")
        };
        wait_for("the command", || std::fs::read_to_string(&group).ok()?.lines().any(runs).then_some(()));
        kill(Pid::from_raw(exec.id() as i32), Signal::SIGTSTP).unwrap();
        assert_eq!(container.stop().code, Some(0));
        // Asked to end, by SIGHUP and SIGTERM, or killed with PID 1, which ends as soon.
        assert!(matches!(exec.wait().unwrap().code(), Some(129 | 137 | 143)));
    });
}

#[test]
fn a_stop_before_init_listens_is_not_lost() {
    on_host(|host| {
        let container = stubborn(host, "echo stage 2; /probe/busybox sleep 0.5", "exit 0");
        wait_for("stage 2", || container.out().contains("stage 2").then_some(()));
        container.signal(Signal::SIGTERM);
        let finished = container.wait();
        assert_eq!(finished.code, Some(0), "{}", finished.err);
        assert!(finished.out.contains("listening"), "the signal waited for its listener: {}", finished.out);
    });
}

#[test]
fn stop_kills_after_its_timeout_and_says_so() {
    on_host(|host| {
        let container = stubborn(host, ":", "echo asked");
        wait_for("PID 1 to listen", || container.out().contains("listening").then_some(()));
        let began = Instant::now();
        let stopped = finish(&mut host.nixrun(&["stop", "--timeout=1", "t"]));
        assert_eq!(stopped.code, Some(0), "{}", stopped.err);
        assert!(
            stopped.err.contains("container t did not shut down within 1 s and was killed"),
            "{}",
            stopped.err
        );
        assert!(began.elapsed() >= Duration::from_secs(1));
        assert!(container.is_gone() && container.out().contains("asked"));
        assert_eq!(container.wait().code, Some(1));
    });
}

#[test]
fn stop_and_kill_from_elsewhere() {
    on_host(|host| {
        host.install(Kind::Mini, "mini");
        let container = host.boot("mini");
        host.ok(&["kill", "--signal=USR1", "mini"]);
        let finished = container.wait();
        assert_eq!(finished.code, Some(3), "PID 1 exits 3 on SIGUSR1: {}", finished.err);
        let before = host.snapshot();

        let container = host.boot("mini");
        host.inside("mini", "sleep 1000 > /dev/null 2>&1 &");
        let group = container.state().unwrap()["cgroup"].as_str().unwrap().to_owned();
        host.ok(&["kill", "mini"]);
        assert!(container.is_gone(), "kill waits for the supervisor");
        assert!(!std::path::Path::new(&group).exists(), "{group}");
        assert_eq!(container.wait().code, Some(1));
        before.assert_same(&host.snapshot(), "after kill");

        let container = host.boot("mini");
        host.ok(&["stop", "mini"]);
        assert!(container.is_gone(), "stop waits for the supervisor");
        assert_eq!(container.wait().code, Some(0));
        before.assert_same(&host.snapshot(), "after stop");
        let sentence = host.fails(1, &["stop", "mini"]);
        assert_eq!(sentence, "container mini is not running; start it with `nixrun start mini`");
    });
}

#[test]
fn start_returns_when_ready_and_stop_ends_it() {
    on_host(|host| {
        host.install(Kind::Mini, "mini");
        assert_eq!(host.boot("mini").stop().code, Some(0));
        let before = host.snapshot();
        let started = finish(&mut host.nixrun(&["start", "mini"]));
        let log = || std::fs::read_to_string(host.path("var/log/nixrun/mini.log")).unwrap_or_default();
        assert_eq!(started.code, Some(0), "{}{}", started.err, log());
        let status: serde_json::Value =
            serde_json::from_str(&host.ok(&["status", "--json", "mini"])).unwrap();
        assert_eq!(status["phase"], "running");
        assert!(log().contains("<<< NixOS-shaped stage 2: "), "{}", log());
        // A reboot is nixrun's own business here: nobody else would start it again.
        let first = status["leader"].as_i64().unwrap();
        kill(Pid::from_raw(first as i32), Signal::SIGINT).unwrap();
        wait_for("another leader", || {
            let status: serde_json::Value =
                serde_json::from_str(&host.ok(&["status", "--json", "mini"])).ok()?;
            (status["leader"] != first && status["phase"] == "running").then_some(())
        });
        host.ok(&["stop", "mini"]);
        std::fs::remove_dir_all(host.path("var/log")).unwrap();
        before.assert_same(&host.snapshot(), "after start and stop");
    });
}

#[test]
fn start_says_why_a_container_did_not_get_ready() {
    on_host(|host| {
        host.install(Kind::Mini, "mini");
        std::fs::create_dir_all(host.root_of("mini")).unwrap();
        std::fs::create_dir_all(host.path("nix/var/nix/profiles/per-container/mini")).unwrap();
        std::fs::create_dir_all(host.path("nix/var/nix/gcroots/per-container/mini")).unwrap();
        let before = host.snapshot();
        // No directory can be made below it.
        std::fs::write(host.root_of("mini").join("var"), "").unwrap();
        let sentence = host.fails(1, &["start", "mini"]);
        assert!(
            sentence.starts_with("container mini ended before it was ready (exit status: 1): "),
            "{sentence}"
        );
        assert!(sentence.contains("/var/lib"), "the reason of the background process: {sentence}");
        host.sh(&format!("rm -r {}", host.path("var/log").display()));
        before.assert_same(&host.snapshot(), "after a start that failed");
    });
}

#[test]
fn a_supervisor_that_is_killed_takes_its_container_along() {
    on_host(|host| {
        host.install(Kind::Mini, "mini");
        assert_eq!(host.boot("mini").stop().code, Some(0));
        let before = host.snapshot();
        let container = host.boot("mini");
        let group = container.state().unwrap()["cgroup"].as_str().unwrap().to_owned();
        let began = Instant::now();
        container.signal(Signal::SIGKILL);
        assert_eq!(container.wait().code, None);
        wait_for("the container to end", || {
            let processes = std::fs::read_to_string(format!("{group}/cgroup.procs")).unwrap_or_default();
            processes.is_empty().then_some(())
        });
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
        let list: serde_json::Value = serde_json::from_str(&host.ok(&["list", "--json"])).unwrap();
        assert_eq!(list[0]["phase"], "crashed");
        let sentence = host.fails(1, &["stop", "mini"]);
        assert!(sentence.ends_with("clean up with `nixrun reclaim mini`"), "{sentence}");
        let reclaimed = host.ok(&["reclaim", "--json"]);
        let reclaimed: serde_json::Value = serde_json::from_str(&reclaimed).unwrap();
        assert_eq!(reclaimed[0]["name"], "mini");
        before.assert_same(&host.snapshot(), "after reclaim");
        // And so does the next boot, without being asked.
        let container = host.boot("mini");
        container.signal(Signal::SIGKILL);
        container.wait();
        assert_eq!(host.boot("mini").stop().code, Some(0));
        before.assert_same(&host.snapshot(), "after the next boot and stop");
    });
}

#[test]
fn sigterm_before_the_container_is_ready_ends_it() {
    on_host(|host| {
        host.install(Kind::Mini, "mini");
        assert_eq!(host.boot("mini").stop().code, Some(0));
        let before = host.snapshot();
        for pause in [0, 1, 2, 5, 10, 20, 30, 45] {
            let container = host.spawn("mini", &["boot", "mini"]);
            std::thread::sleep(Duration::from_millis(pause));
            container.signal(Signal::SIGTERM);
            let finished = container.wait();
            // Before nixrun has taken its signals over, SIGTERM does what it always does.
            assert!(matches!(finished.code, None | Some(0)), "after {pause} ms: {finished:?}");
            before.assert_same(&host.snapshot(), &format!("after SIGTERM at {pause} ms"));
        }
    });
}
