//! nixrun as a library: containers of a program that embeds it, here of this test, and of the example.
#![forbid(unsafe_code)]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use blackbox::{Host, SOON, example_binary, on_host, wait_for};
use fixture::Kind;
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::{Mode, umask};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use nixrun::embed::{Container, Event, Launch, Streams};
use runtime::sys::process::Ended;
use runtime::{ContainerConfig, HostPaths, Outcome, Payload};

/// A name of this process's own: the groups of all tests' containers are below one.
fn name(of: &str) -> String {
    format!("{of}-{}", std::process::id())
}

/// Configures containers as `mini`, which have run once: what the first start of a root makes is there.
fn configured(host: &Host<'_>, names: &[String]) -> HostPaths {
    let paths = HostPaths::below(host.dir());
    for name in names {
        host.install(Kind::Mini, name);
        let container = Launch::configured(name, &paths).unwrap().start().unwrap();
        container.wait_ready(SOON).unwrap();
    }
    paths
}

/// A shell script as PID 1 of a root directory.
fn script(host: &Host<'_>, name: &str, script: &str) -> Launch {
    let root = host.path(&format!("var/{name}"));
    fs::create_dir_all(root.join("bin")).unwrap();
    if !root.join("bin/sh").exists() {
        fs::copy("/bin/busybox", root.join("bin/sh")).unwrap();
    }
    let argv = ["/bin/sh", "-c", script].map(Into::into).to_vec();
    let config = ContainerConfig::new(name, root, Payload::new(argv));
    Launch::new(config, None, &HostPaths::below(host.dir()))
}

/// What of this thread and its process a library has no business with.
fn own() -> Vec<String> {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap();
    let kept = ["Umask", "SigBlk", "SigIgn", "SigCgt", "Seccomp", "CapEff", "NoNewPrivs"];
    let mut own: Vec<String> = status
        .lines()
        .filter(|line| kept.iter().any(|key| line.starts_with(&format!("{key}:"))))
        .map(str::to_owned)
        .collect();
    own.push(fs::read_to_string("/proc/self/limits").unwrap());
    for link in ["cwd", "root", "fd/0", "fd/1", "fd/2", "ns/net", "ns/mnt", "ns/pid_for_children"] {
        own.push(format!("{link}: {:?}", fs::read_link(format!("/proc/thread-self/{link}")).unwrap()));
    }
    own.push(fs::read_to_string("/proc/thread-self/cgroup").unwrap());
    own
}

#[test]
fn a_container_outlives_the_thread_that_started_it_and_the_program_is_as_before() {
    on_host(|host| {
        let name = name("outlives");
        let paths = configured(host, std::slice::from_ref(&name));
        umask(Mode::from_bits_truncate(0o077));
        let (before, of_host) = (own(), host.snapshot());
        let launch = Launch::configured(&name, &paths).unwrap();
        let starter = || {
            let before = own();
            let container = launch.start().unwrap();
            assert_eq!(own(), before, "the thread that started it");
            container
        };
        let container = thread::scope(|scope| scope.spawn(starter).join().unwrap());
        let events = container.events();
        container.wait_ready(SOON).unwrap();
        assert_eq!(own(), before, "while it runs");
        let state = host.path(&format!("run/nixrun/{name}/state"));
        assert_eq!(fs::metadata(state).unwrap().permissions().mode() & 0o777, 0o644);
        commands(&container);
        let end = container.stop().unwrap();
        assert_eq!((end.outcome, end.cleanup), (Outcome::PoweredOff, Vec::new()));
        let seen: Vec<Event> = events.into_iter().collect();
        assert!(seen.contains(&Event::Ready) && seen.contains(&Event::Stopping(37)), "events: {seen:?}");
        // Whoever asks later gets the same answer.
        assert_eq!(container.wait_timeout(Duration::ZERO).unwrap().unwrap().outcome, Outcome::PoweredOff);
        assert_eq!(container.stop().unwrap().outcome, Outcome::PoweredOff);
        let group = container.state().cgroup.clone();
        drop(container);
        assert!(!group.exists(), "the control group is left");
        assert_eq!(own(), before, "afterwards");
        of_host.assert_same(&host.snapshot(), "after the end");
    });
}

fn commands(container: &Container) {
    let output = container.command(["sh", "-c", "echo out $A; pwd; echo err >&2; exit 3"]);
    let output = output.env("A", "1").cwd("/etc").output().unwrap();
    assert_eq!(output.status, Ended::Exited(3));
    assert_eq!((&output.stdout[..], &output.stderr[..]), (&b"out 1\n/etc\n"[..], &b"err\n"[..]));
    // More than a pipe holds, in and out.
    let (input, mut to_input) = std::io::pipe().unwrap();
    let (output, to_output) = std::io::pipe().unwrap();
    let text = b"0123456789abcdef".repeat(20_000);
    let sent = text.clone();
    let writer = thread::spawn(move || to_input.write_all(&sent).map(|()| drop(to_input)));
    let reader = thread::spawn(move || std::io::read_to_string(output).unwrap());
    let streams = Streams::new(input.as_fd(), to_output.as_fd(), to_output.as_fd()).unwrap();
    drop((input, to_output));
    assert_eq!(container.command(["cat"]).run(streams).unwrap(), Ended::Exited(0));
    writer.join().unwrap().unwrap();
    assert_eq!(reader.join().unwrap().as_bytes(), text);
    let error = container.command(["no-such-command"]).output().unwrap_err();
    assert_eq!(error.payload_missing(), Some(true), "{error}");
}

#[test]
fn eight_at_once() {
    on_host(|host| {
        let names: Vec<String> = (0..8).map(|number| name(&format!("many{number}"))).collect();
        let paths = configured(host, &names);
        for (number, name) in names.iter().enumerate() {
            let (host_end, inside) =
                (format!("10.233.90.{}", 2 * number), format!("10.233.91.{}", 2 * number));
            host.set_conf(
                name,
                &[
                    ("HOST_ADDRESS", Some(&host_end)),
                    ("LOCAL_ADDRESS", Some(&inside)),
                    ("HOST_ADDRESS6", None),
                    ("LOCAL_ADDRESS6", None),
                    ("HOST_PORT", None),
                ],
            );
        }
        let before = host.snapshot();
        let together = Barrier::new(names.len());
        thread::scope(|scope| {
            for name in &names {
                let (paths, together) = (&paths, &together);
                scope.spawn(move || {
                    let launch = Launch::configured(name, paths).unwrap();
                    together.wait();
                    let container = launch.start().unwrap();
                    container.wait_ready(SOON).unwrap();
                    let output = container.command(["hostname"]).output().unwrap();
                    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), name);
                    // All run before any ends.
                    together.wait();
                    assert_eq!(container.stop().unwrap().outcome, Outcome::PoweredOff);
                });
            }
        });
        before.assert_same(&host.snapshot(), "after the last one's end");
    });
}

/// A program may wait for any child, and the kernel gives it ours; how that ended is known all the same.
#[test]
fn a_program_that_waits_for_any_child_does_not_take_the_end_away() {
    on_host(|host| {
        let name = name("reaped");
        // Whoever comes first has it: until it was the program's wait.
        for _ in 0..100 {
            let container = script(host, &name, "exit 7").start().unwrap();
            let pid = Pid::from_raw(container.state().leader.pid);
            let ours = WaitStatus::Exited(pid, 7);
            let taken = thread::spawn(|| waitpid(None, None));
            assert_eq!(container.wait().unwrap().outcome, Outcome::Exited(7));
            if taken.join().unwrap() == Ok(ours) {
                return;
            }
        }
        panic!("the program's wait never came first");
    });
}

#[test]
fn a_dropped_handle_is_the_end_and_one_let_go_is_not() {
    on_host(|host| {
        let name = name("dropped");
        let before = host.snapshot();
        let container = script(host, &name, "while :; do sleep 1000; done").start().unwrap();
        let state = container.state().clone();
        container.detach();
        assert!(state.leader.open().is_some(), "one that was let go runs on");
        let error = script(host, &name, "true").start().unwrap_err().to_string();
        assert!(error.contains("is running already"), "{error}");
        kill(Pid::from_raw(state.leader.pid), Signal::SIGKILL).unwrap();
        let again =
            wait_for("the end of it", || script(host, &name, "while :; do sleep 1000; done").start().ok());
        let (leader, group) = (again.state().leader, again.state().cgroup.clone());
        drop(again);
        assert!(leader.open().is_none() && !group.exists(), "it is still there");
        fs::remove_dir_all(host.path(&format!("var/{name}"))).unwrap();
        before.assert_same(&host.snapshot(), "after a drop");
    });
}

#[test]
fn what_does_not_work_is_an_error() {
    on_host(|host| {
        let name = name("fails");
        let error = Launch::configured("none-such", &HostPaths::below(host.dir())).unwrap_err().to_string();
        assert!(error.contains("none-such"), "{error}");
        let mut config = ContainerConfig::new(&name, "/nowhere", Payload::new(vec!["/bin/sh".into()]));
        let paths = HostPaths::below(host.dir());
        Launch::new(config.clone(), None, &paths).start().unwrap_err();
        config.rootfs = host.path("var/empty");
        fs::create_dir_all(&config.rootfs).unwrap();
        let error = Launch::new(config, None, &paths).start().unwrap_err();
        assert_eq!(error.payload_missing(), Some(true), "{error}");
        // Ended before it was ready; and one that never is.
        let paths = configured(host, std::slice::from_ref(&name));
        let container = Launch::configured(&name, &paths).unwrap().start().unwrap();
        let pid = Pid::from_raw(container.state().leader.pid);
        // Before the container's init can have said so: it cannot run.
        kill(pid, Signal::SIGSTOP).unwrap();
        if container.wait_ready(Duration::ZERO).is_err() {
            let error = container.wait_ready(Duration::from_millis(10)).unwrap_err().to_string();
            assert!(error.contains("was not ready within 10ms"), "{error}");
            kill(pid, Signal::SIGKILL).unwrap();
            let error = container.wait_ready(SOON).unwrap_err().to_string();
            assert!(error.contains("its PID 1 was killed by signal 9"), "{error}");
        }
    });
}

#[test]
fn a_stop_is_escalated_and_a_kill_is_at_once() {
    on_host(|host| {
        let name = name("deaf");
        let deaf = "trap '' TERM; while :; do sleep 1000; done";
        let container = script(host, &name, deaf).grace(Duration::from_millis(100)).start().unwrap();
        let ends: Vec<Outcome> = thread::scope(|scope| {
            let stops: Vec<_> = (0..3).map(|_| scope.spawn(|| container.stop().unwrap().outcome)).collect();
            stops.into_iter().map(|stop| stop.join().unwrap()).collect()
        });
        assert_eq!(ends, [Outcome::Killed(9); 3]);
        let container = script(host, &name, deaf).grace(Duration::MAX).start().unwrap();
        thread::scope(|scope| {
            let stop = scope.spawn(|| container.stop().unwrap().outcome);
            assert_eq!(container.kill().unwrap().outcome, Outcome::Killed(9));
            assert_eq!(stop.join().unwrap(), Outcome::Killed(9));
        });
    });
}

/// From outside: a signal to the supervisor's process would be this test's.
#[test]
fn the_commands_stop_and_kill_a_container_of_a_program() {
    on_host(|host| {
        let name = name("outside");
        let paths = configured(host, std::slice::from_ref(&name));
        let start = || {
            let container = Launch::configured(&name, &paths).unwrap().start().unwrap();
            container.wait_ready(SOON).unwrap();
            container
        };
        let container = start();
        host.ok(&["stop", &name]);
        assert_eq!(container.wait().unwrap().outcome, Outcome::PoweredOff);
        let container = start();
        host.ok(&["kill", &name]);
        assert_eq!(container.wait().unwrap().outcome, Outcome::Killed(9));
        let deaf = script(host, &name, "trap '' TERM; while :; do sleep 1000; done").start().unwrap();
        host.ok(&["stop", "--timeout", "0", &name]);
        assert_eq!(deaf.wait().unwrap().outcome, Outcome::Killed(9));
    });
}

#[test]
fn the_example_keeps_three_running() {
    on_host(|host| {
        let names = ["web", "mail", "db"].map(name);
        configured(host, &names);
        for (number, name) in names.iter().enumerate() {
            let (outer, inner) = (format!("10.233.92.{}", 2 * number), format!("10.233.93.{}", 2 * number));
            let none = [("HOST_ADDRESS6", None), ("LOCAL_ADDRESS6", None), ("HOST_PORT", None)];
            host.set_conf(name, &[("HOST_ADDRESS", Some(&outer)), ("LOCAL_ADDRESS", Some(&inner))]);
            host.set_conf(name, &none);
        }
        let before = host.snapshot();
        let mut example: Command = host.command(example_binary("supervisor"));
        example.arg(host.dir()).args(&names).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut example = example.spawn().unwrap();
        let mut lines = BufReader::new(example.stdout.take().unwrap()).lines().map(Result::unwrap);
        let pid = |line: &str| line.rsplit(' ').next().unwrap().parse().map(Pid::from_raw).unwrap();
        let ready: Vec<String> = lines.by_ref().take(3).collect();
        let first = ready.iter().find(|line| line.starts_with(&names[0])).unwrap();
        kill(pid(first), Signal::SIGKILL).unwrap();
        assert_eq!(lines.next().unwrap(), format!("{} ended: Killed(9)", names[0]));
        let again = lines.next().unwrap();
        assert!(again.starts_with(&format!("{} is ready", names[0])) && pid(&again) != pid(first), "{again}");
        assert_eq!(host.inside(&names[2], "hostname").trim(), names[2]);
        // The end of its standard input is the end of all.
        drop(example.stdin.take());
        assert_eq!(lines.next(), None);
        assert!(example.wait().unwrap().success());
        before.assert_same(&host.snapshot(), "after the example");
    });
}
