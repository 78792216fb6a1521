//! Many containers in the background without systemd: those that start with the host, and slots of units.
#![forbid(unsafe_code)]

use std::fs;
use std::path::Path;

use blackbox::{Host, PATIENT, finish, on_host, probe_root, script, wait_for};
use fixture::Kind;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

/// A PID 1 that takes a while to become ready, and writes down between what it does so: the host's file /shared/order.
const SLOW: &str =
    "echo +$NAME >> /shared/order; /probe/busybox sleep 0.05; echo -$NAME >> /shared/order; exec /probe/pid1";

fn slow(host: &Host<'_>, name: &str, more: Value) {
    let base = host.path("roots/base");
    if !base.exists() {
        fs::create_dir_all(host.path("shared")).unwrap();
        probe_root(host, "base");
        // The one of the sample container, which says READY=1.
        let mini = fixture::build(Kind::Mini, 1).unwrap();
        let store = fs::read_dir(mini.nix.join("store")).unwrap().map(|entry| entry.unwrap().path());
        // What it is made from has the name, too.
        let mut programs = store.map(|path| path.join("bin/fixture-pid1"));
        fs::copy(programs.find(|program| program.is_file()).unwrap(), base.join("probe/pid1")).unwrap();
    }
    let root = host.path("roots").join(name);
    for directory in ["probe", "usr/bin", "etc"] {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    for program in ["busybox", "bash", "pid1"] {
        fs::hard_link(base.join("probe").join(program), root.join("probe").join(program)).unwrap();
    }
    let root = Path::new("/").join(root.strip_prefix(host.dir()).unwrap());
    let mut document = json!({
        "root": root, "command": ["/probe/bash", "-c", SLOW], "notifyReady": true, "environment": {"NAME": name},
        "autoStart": true, "bindMounts": {"/shared": {"hostPath": "/shared", "isReadOnly": false}}
    });
    document.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    host.write(&format!("etc/nixrun/{name}.json"), &document.to_string(), 0o644);
}

/// What the containers of [`slow`] did, in order.
fn order(host: &Host<'_>) -> Vec<String> {
    let text = fs::read_to_string(host.path("shared/order")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// How many were starting at the same time at most.
fn most(order: &[String]) -> i32 {
    let mut now = 0;
    let counts = order.iter().map(|line| {
        now += if line.starts_with('+') { 1 } else { -1 };
        now
    });
    counts.max().unwrap_or_default()
}

#[test]
fn a_hundred_containers_start_a_few_at_a_time() {
    on_host(|host| {
        let names: Vec<String> = (0..100).map(|i| format!("c{i:03}")).collect();
        names.iter().for_each(|name| slow(host, name, json!({})));
        slow(host, "idle", json!({"autoStart": false}));
        let mut command = host.nixrun(&["autostart", "--jobs=6", "--json"]);
        let done = finish(&mut command);
        assert_eq!(done.code, Some(0), "{}{}", done.out, done.err);
        let rows: Vec<Value> = serde_json::from_str(&done.out).unwrap();
        let started: Vec<&str> = rows.iter().filter_map(|row| row["name"].as_str()).collect();
        assert_eq!(started, names);
        assert!(rows.iter().all(|row| row["result"] == "started"), "{rows:?}");
        let order = order(host);
        assert_eq!(order.len(), 200);
        assert!((2..=6).contains(&most(&order)), "{}", most(&order));
        let list: Vec<Value> = serde_json::from_str(&host.ok(&["list", "--json"])).unwrap();
        assert_eq!(list.iter().filter(|one| one["phase"] == "running").count(), 100);
        // A second one finds them all.
        let again = host.ok(&["autostart"]);
        assert_eq!(again.matches("already running").count(), 100, "{again}");
    });
}

#[test]
fn autostart_goes_by_what_is_required_and_says_what_was_not_started() {
    on_host(|host| {
        slow(host, "web", json!({"requires": ["db"]}));
        slow(host, "db", json!({"requires": ["disk"], "autoStart": false}));
        slow(host, "disk", json!({"autoStart": false}));
        host.ok(&["autostart"]);
        assert_eq!(order(host), ["+disk", "-disk", "+db", "-db", "+web", "-web"]);

        script(host, "bad", "exit 3", json!({"notifyReady": true, "autoStart": true}));
        slow(host, "on-bad", json!({"requires": ["bad"]}));
        slow(host, "one", json!({"requires": ["two"]}));
        slow(host, "two", json!({"requires": ["one"]}));
        slow(host, "lost", json!({"requires": ["wbe"]}));
        host.write("etc/nixrun/broken.json", "{", 0o644);
        let done = finish(&mut host.nixrun(&["autostart", "--json"]));
        assert_eq!((done.code, done.err.as_str()), (Some(1), ""));
        let rows: Vec<Value> = serde_json::from_str(&done.out).unwrap();
        let of = |name: &str| {
            let row =
                rows.iter().find(|row| row["name"] == name).unwrap_or_else(|| panic!("{name}: {rows:?}"));
            (
                row["result"].as_str().unwrap().to_owned(),
                row["detail"].as_str().unwrap_or_default().to_owned(),
            )
        };
        assert_eq!(of("web").0, "already-running");
        let (result, detail) = of("bad");
        assert!(
            result == "failed" && detail.contains("ended before it was ready (exit status: 3)"),
            "{detail}"
        );
        assert_eq!(of("on-bad"), ("skipped".into(), "it requires bad, which was not started".into()));
        for name in ["one", "two"] {
            assert_eq!(of(name), ("failed".into(), "it requires itself: one -> two -> one".into()));
        }
        let (result, detail) = of("lost");
        assert!(
            result == "failed" && detail.contains("\"wbe\"") && detail.ends_with("mean \"web\"?"),
            "{detail}"
        );
        let (result, detail) = of("broken");
        assert!(result == "failed" && detail.contains("broken.json"), "{detail}");
    });
}

#[test]
fn units_that_systemd_starts_at_once_take_turns() {
    on_host(|host| {
        host.write("etc/nixrun.json", r#"{"startJobs": 2}"#, 0o644);
        let manager = std::os::unix::net::UnixDatagram::bind(host.path("run/manager")).unwrap();
        let names: Vec<String> = (0..12).map(|i| format!("u{i:02}")).collect();
        names.iter().for_each(|name| slow(host, name, json!({})));
        let before = host.snapshot();
        let boots: Vec<_> = names
            .iter()
            .map(|name| {
                let mut command = host.nixrun(&["boot", name]);
                command.env("NOTIFY_SOCKET", host.path("run/manager"));
                blackbox::Container::spawn(host, name, command)
            })
            .collect();
        // As systemd does, or the socket would be full.
        let reader = std::thread::spawn(move || {
            let (mut buffer, mut ready, mut waited) = ([0; 4096], 0, 0);
            while ready < 12 {
                let length = manager.recv(&mut buffer).unwrap();
                let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
                ready += text.lines().filter(|line| *line == "READY=1").count();
                let waits = "EXTEND_TIMEOUT_USEC=30000000\nSTATUS=Waiting: 2 containers are starting.";
                waited += usize::from(text == waits);
            }
            (waited, manager)
        });
        let (waited, _manager) = reader.join().unwrap();
        assert!(waited > 0, "nobody had to wait");
        assert!(most(&order(host)) <= 2, "{:?}", order(host));
        assert!(!host.path("run/nixrun/.slots").exists(), "slots are given back with the readiness");
        for boot in boots {
            assert_eq!(boot.stop().code, Some(0));
        }
        before.assert_same(&host.snapshot(), "after all have ended");
    });
}

#[test]
fn who_waits_for_a_slot_can_be_stopped_and_a_killed_holder_gives_it_back() {
    on_host(|host| {
        host.write("etc/nixrun.json", r#"{"startJobs": 1}"#, 0o644);
        let _manager = std::os::unix::net::UnixDatagram::bind(host.path("run/manager")).unwrap();
        script(host, "first", PATIENT, json!({"notifyReady": true}));
        script(host, "second", PATIENT, json!({}));
        let before = host.snapshot();
        let boot = |name: &str| {
            let mut command = host.nixrun(&["boot", name]);
            command.env("NOTIFY_SOCKET", host.path("run/manager"));
            blackbox::Container::spawn(host, name, command)
        };
        let first = boot("first");
        let _ = first.leader();
        let second = boot("second");
        wait_for("a start of the second", || host.path("run/nixrun/.slots/0").exists().then_some(()));
        assert!(second.state().is_none());
        let ended = second.stop();
        assert!(matches!(ended.code, None | Some(0)), "{ended:?}");
        let second = boot("second");
        first.signal(Signal::SIGKILL);
        assert_eq!(first.wait().code, None);
        let _ = second.leader();
        assert_eq!(second.stop().code, Some(0));
        host.ok(&["reclaim"]);
        before.assert_same(&host.snapshot(), "after reclaim");
    });
}
