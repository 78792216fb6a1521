//! Containers in the background without systemd: start, stop, restart, the restart policy and its keeper, and what goes
//! wrong with each.
#![forbid(unsafe_code)]

use std::fs;
use std::path::Path;
use std::process::Stdio;

use blackbox::{Host, PATIENT, finish, on_host, script, wait_for};
use fixture::Kind;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

fn status(host: &Host<'_>, name: &str) -> Option<Value> {
    serde_json::from_slice(&host.run(&["status", "--json", name]).stdout).ok()
}

fn pid(status: &Value, key: &str) -> Pid {
    Pid::from_raw(i32::try_from(status[key].as_i64().unwrap_or_default()).unwrap())
}

/// Waits until the container runs under another PID 1 than this one.
fn restarted(host: &Host<'_>, name: &str, leader: Pid) -> Value {
    wait_for("another PID 1", || {
        let status = status(host, name)?;
        (status["phase"] == "running" && pid(&status, "leader") != leader).then_some(status)
    })
}

/// The keeper's process, if the container has one.
fn keeper(host: &Host<'_>, name: &str) -> Option<Pid> {
    let text = fs::read_to_string(host.path(&format!("run/nixrun/.keepers/{name}"))).ok()?;
    let process: Value = serde_json::from_str(&text).ok()?;
    Some(pid(&process, "pid"))
}

fn is_alive(process: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.starts_with(" Z"))
}

/// The supervisor has ended, and PID 1 with it: of a killed one the kernel is at it until soon after its group is empty.
#[track_caller]
fn assert_gone(status: &Value) {
    assert!(!is_alive(pid(status, "supervisor")), "{status}");
    wait_for("the end of PID 1", || (!is_alive(pid(status, "leader"))).then_some(()));
}

fn log(host: &Host<'_>, name: &str) -> String {
    fs::read_to_string(host.path(&format!("var/log/nixrun/{name}.log"))).unwrap_or_default()
}

/// Runs a test with a container that was started and stopped once, so that what stays of it is there, and compares the host
/// afterwards.
fn unchanged(host: &Host<'_>, test: impl FnOnce()) {
    fs::create_dir_all(host.path("var/log/nixrun")).unwrap();
    let before = host.snapshot();
    test();
    fs::remove_dir_all(host.path("var/log/nixrun")).unwrap();
    fs::create_dir_all(host.path("var/log/nixrun")).unwrap();
    before.assert_same(&host.snapshot(), "afterwards");
}

#[test]
fn start_and_restart_of_a_running_container() {
    on_host(|host| {
        script(host, "box", PATIENT, json!({}));
        unchanged(host, || {
            host.ok(&["start", "box"]);
            let first = status(host, "box").unwrap();
            assert_eq!(keeper(host, "box"), None, "without a policy there is nothing to keep");
            let again = finish(&mut host.nixrun(&["start", "box"]));
            assert_eq!(
                (again.code, again.err.as_str()),
                (Some(0), "nixrun: Container box is running already.\n")
            );
            assert_eq!(status(host, "box").unwrap()["leader"], first["leader"]);
            host.ok(&["restart", "box"]);
            let second = restarted(host, "box", pid(&first, "leader"));
            assert_gone(&first);
            host.ok(&["terminate", "box"]);
            assert!(!is_alive(pid(&second, "supervisor")));
            let sentence = host.fails(1, &["terminate", "box"]);
            assert_eq!(sentence, "container box is not running; start it with `nixrun start box`");
            // One that does not run is started.
            host.ok(&["restart", "box"]);
            host.ok(&["stop", "box"]);
        });
    });
}

#[test]
fn a_policy_starts_again_what_failed_and_a_stop_ends_it() {
    on_host(|host| {
        script(host, "box", PATIENT, json!({"restart": "on-failure"}));
        unchanged(host, || {
            host.ok(&["start", "box"]);
            let first = status(host, "box").unwrap();
            let keeper_process = keeper(host, "box").expect("a keeper");
            // PID 1 fails.
            host.ok(&["kill", "--signal=USR1", "box"]);
            let second = restarted(host, "box", pid(&first, "leader"));
            assert!(log(host, "box").contains("ended (exit status 7); it is started again in 100ms"));
            // The supervisor is killed, and its container with it.
            kill(pid(&second, "supervisor"), Signal::SIGKILL).unwrap();
            let third = restarted(host, "box", pid(&second, "leader"));
            // A container ends with its supervisor.
            assert_gone(&second);
            assert!(log(host, "box").contains("its nixrun was killed by SIGKILL"));
            assert_eq!(keeper(host, "box"), Some(keeper_process));
            // It ends well: that is no failure.
            kill(pid(&third, "leader"), Signal::SIGTERM).unwrap();
            wait_for("the keeper's end", || (!is_alive(keeper_process)).then_some(()));
            assert_eq!(status(host, "box").unwrap()["phase"], "stopped");
        });
    });
}

#[test]
fn what_was_asked_to_end_is_not_started_again() {
    on_host(|host| {
        script(host, "box", PATIENT, json!({"restart": "always"}));
        let asks: [&dyn Fn(&Value); 4] = [
            &|_| drop(host.ok(&["stop", "box"])),
            &|_| drop(host.ok(&["terminate", "box"])),
            &|_| drop(host.ok(&["kill", "box"])),
            // By the supervisor's own way, as systemd does with a scope.
            &|status| kill(pid(status, "supervisor"), Signal::SIGTERM).unwrap(),
        ];
        for ask in asks {
            unchanged(host, || {
                host.ok(&["start", "box"]);
                let status = status(host, "box").unwrap();
                let keeper = keeper(host, "box").expect("a keeper");
                // An end that nobody asked for.
                kill(pid(&status, "leader"), Signal::SIGTERM).unwrap();
                let status = restarted(host, "box", pid(&status, "leader"));
                ask(&status);
                wait_for("the keeper's end", || (!is_alive(keeper)).then_some(()));
                assert_gone(&status);
            });
        }
    });
}

#[test]
fn a_container_that_fails_again_and_again_is_given_up() {
    on_host(|host| {
        // Good for one start.
        let once = format!("if [ -e /failing ]; then exit 9; fi; > /failing; {PATIENT}");
        script(host, "box", &once, json!({"restart": "on-failure"}));
        unchanged(host, || {
            host.ok(&["start", "box"]);
            let keeper = keeper(host, "box").expect("a keeper");
            host.ok(&["kill", "--signal=USR1", "box"]);
            wait_for("the keeper's end", || (!is_alive(keeper)).then_some(()));
            let log = log(host, "box");
            let runs = log.matches("Container box failed with error code").count();
            assert_eq!(runs, 5, "{log}");
            assert!(log.contains("was started 5 times within 10 s and is not started again."), "{log}");
            for pause in ["100ms", "200ms", "400ms", "800ms"] {
                assert!(log.contains(&format!("it is started again in {pause}.")), "{pause}: {log}");
            }
        });
    });
}

#[test]
fn a_stop_between_two_starts_ends_the_waiting() {
    on_host(|host| {
        let once = format!("if [ -e /failing ]; then exit 9; fi; > /failing; {PATIENT}");
        script(host, "box", &once, json!({"restart": "always"}));
        unchanged(host, || {
            host.ok(&["start", "box"]);
            let keeper = keeper(host, "box").expect("a keeper");
            host.ok(&["kill", "--signal=USR1", "box"]);
            wait_for("the longest pause", || log(host, "box").contains("in 800ms").then_some(()));
            host.ok(&["stop", "box"]);
            assert!(!is_alive(keeper));
            assert_eq!(status(host, "box").unwrap()["phase"], "stopped");
        });
    });
}

#[test]
fn a_killed_keeper_leaves_its_container_alone_and_a_stop_cleans_up() {
    on_host(|host| {
        script(host, "box", PATIENT, json!({"restart": "always"}));
        unchanged(host, || {
            host.ok(&["start", "box"]);
            let status_before = status(host, "box").unwrap();
            let keeper = keeper(host, "box").expect("a keeper");
            kill(keeper, Signal::SIGKILL).unwrap();
            wait_for("the keeper's end", || (!is_alive(keeper)).then_some(()));
            assert_eq!(status(host, "box").unwrap()["leader"], status_before["leader"]);
            host.ok(&["stop", "box"]);
        });
    });
}

#[test]
fn a_container_that_is_never_ready_is_ended() {
    on_host(|host| {
        let script_text = format!("echo the last words; {PATIENT}");
        for policy in ["no", "always"] {
            script(
                host,
                "box",
                &script_text,
                json!({"notifyReady": true, "restart": policy, "startTimeout": 1}),
            );
            unchanged(host, || {
                let sentence = host.fails(1, &["start", "box"]);
                let wanted = "container box was not ready within 1 s and was ended; its log ";
                assert!(sentence.starts_with(wanted), "{sentence}");
                assert!(sentence.ends_with("box.log ends with: the last words"), "{sentence}");
                assert_eq!(status(host, "box").unwrap()["phase"], "stopped");
                // The command line wins.
                let sentence = host.fails(1, &["start", "--timeout=2", "box"]);
                assert!(sentence.contains("within 2 s") && !sentence.contains("failed"), "{sentence}");
            });
        }
    });
}

#[test]
fn an_interrupted_start_leaves_nothing() {
    on_host(|host| {
        script(host, "box", &format!("echo up; {PATIENT}"), json!({"notifyReady": true}));
        unchanged(host, || {
            let mut command = host.nixrun(&["start", "box"]);
            let start = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
            wait_for("the container", || log(host, "box").contains("up").then_some(()));
            kill(Pid::from_raw(start.id().cast_signed()), Signal::SIGINT).unwrap();
            let ended = start.wait_with_output().unwrap();
            let words = String::from_utf8_lossy(&ended.stderr).into_owned();
            assert_eq!(ended.status.code(), Some(1), "{words}");
            assert!(
                words.contains("the start of container box was interrupted, and it was ended"),
                "{words}"
            );
        });
    });
}

#[test]
fn a_container_that_ignores_the_stop_is_killed_and_a_second_stop_does_not_hurry_it() {
    on_host(|host| {
        let stubborn = "trap 'echo asked' TERM; echo listening; while :; do /probe/busybox sleep 0.02; done";
        for policy in ["no", "always"] {
            script(host, "box", stubborn, json!({"restart": policy}));
            unchanged(host, || {
                host.ok(&["start", "box"]);
                wait_for("PID 1 to listen", || log(host, "box").contains("listening").then_some(()));
                let status = status(host, "box").unwrap();
                let mut patient = host.nixrun(&["stop", "--timeout=60", "box"]).spawn().unwrap();
                wait_for("the stop", || log(host, "box").contains("asked").then_some(()));
                // Its own patience is over first, and that kills; its asking alone must not.
                let stopped = finish(&mut host.nixrun(&["stop", "--timeout=1", "box"]));
                assert_eq!(stopped.code, Some(0), "{}", stopped.err);
                assert!(
                    stopped.err.contains("container box did not shut down within 1 s and was killed"),
                    "{}",
                    stopped.err
                );
                assert_eq!(log(host, "box").matches("asked").count(), 1);
                assert_eq!(patient.wait().unwrap().code(), Some(0));
                assert!(!is_alive(pid(&status, "supervisor")));
            });
        }
    });
}

#[test]
fn a_supervisor_that_hangs_is_killed_at_last() {
    on_host(|host| {
        script(host, "box", PATIENT, json!({}));
        unchanged(host, || {
            host.ok(&["start", "box"]);
            let status = status(host, "box").unwrap();
            kill(pid(&status, "supervisor"), Signal::SIGSTOP).unwrap();
            let stopped = finish(&mut host.nixrun(&["stop", "--timeout=0", "box"]));
            assert_eq!(stopped.code, Some(0), "{}", stopped.err);
            assert_gone(&status);
        });
    });
}

#[test]
fn a_frozen_container_shuts_down_in_good_order() {
    on_host(|host| {
        script(host, "box", &PATIENT.replace("exit 0", "echo bye; exit 0"), json!({}));
        host.ok(&["start", "box"]);
        for by_signal in [false, true] {
            host.ok(&["start", "box"]);
            let status = status(host, "box").unwrap();
            let group = Path::new(status["cgroup"].as_str().unwrap()).to_owned();
            fs::write(group.join("cgroup.freeze"), "1").unwrap();
            wait_for("the frost", || {
                fs::read_to_string(group.join("cgroup.events")).ok()?.contains("frozen 1").then_some(())
            });
            if by_signal {
                kill(pid(&status, "supervisor"), Signal::SIGTERM).unwrap();
                wait_for("the end", || (!is_alive(pid(&status, "supervisor"))).then_some(()));
            } else {
                host.ok(&["stop", "box"]);
            }
        }
        assert_eq!(log(host, "box").matches("bye").count(), 2, "{}", log(host, "box"));
    });
}

#[test]
fn two_starts_at_once_are_one() {
    on_host(|host| {
        host.install(Kind::Mini, "mini");
        let starts: Vec<_> =
            (0..4).map(|_| host.nixrun(&["start", "mini"]).stderr(Stdio::piped()).spawn().unwrap()).collect();
        let mut already = 0;
        for start in starts {
            let ended = start.wait_with_output().unwrap();
            let words = String::from_utf8_lossy(&ended.stderr).into_owned();
            assert_eq!(ended.status.code(), Some(0), "{words}");
            already += usize::from(words.contains("is running already"));
        }
        assert_eq!(already, 3);
        host.ok(&["stop", "mini"]);
        assert!(!host.path("run/nixrun").exists());
    });
}
