//! Watching containers: what happens to them, what they use, what they are.
#![forbid(unsafe_code)]

use std::fs;

use blackbox::{Container, Host, Snapshot, on_host, wait_for};
use fixture::Kind;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// Nothing of what was watched or did the watching is left.
#[track_caller]
fn unchanged(host: &Host<'_>, before: &Snapshot) {
    before.assert_same(&host.snapshot(), "after watching");
    assert!(!host.path("run/nixrun").exists(), "/run/nixrun is left");
}

/// A `nixrun events` that listens.
fn listen<'h>(host: &'h Host<'h>, names: &[&str]) -> Container<'h> {
    let count = || {
        fs::read_dir(host.path("run/nixrun/.events")).map_or(0, |entries| {
            entries.flatten().filter(|entry| !entry.file_name().to_string_lossy().starts_with('.')).count()
        })
    };
    let before = count();
    let listener = host.spawn("events", &[&["events"], names].concat());
    wait_for("the listener", || (count() > before).then_some(()));
    listener
}

/// What it has printed, once there are so many lines.
fn heard(host: &Host<'_>, listener: &Container<'_>, lines: usize) -> Vec<Value> {
    wait_for(&format!("{lines} events"), || (listener.out().lines().count() >= lines).then_some(()));
    host.json_lines("events", &listener.out())
}

/// Container, event and detail of each.
fn told(events: &[Value]) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let one = |event: &Value| {
        [&event["name"], &event["event"], &event["detail"]].map(text).join(" ").trim_end().to_owned()
    };
    events.iter().map(one).collect()
}

#[test]
fn events_are_told_as_they_happen_and_nothing_is_left() {
    on_host(|host| {
        host.install(Kind::Mini, "mini");
        host.install(Kind::Mini, "other");
        // The first start makes directories that stay.
        for name in ["mini", "other"] {
            host.boot(name).stop();
        }
        let before = host.snapshot();
        let (all, one) = (listen(host, &[]), listen(host, &["other"]));
        let mini = host.boot("mini");
        assert_eq!(told(&heard(host, &all, 2)), ["mini started", "mini ready"], "told at once");
        mini.stop();
        let other = host.boot("other");
        kill(Pid::from_raw(other.leader()), Signal::SIGKILL).unwrap();
        other.wait();
        let events = heard(host, &all, 6);
        let told_all = told(&events);
        assert!(told_all[2].starts_with("mini exited "), "{told_all:?}");
        let others = ["other started", "other ready", "other exited killed by SIGKILL"];
        assert_eq!(told_all[3..], others);
        assert_eq!(told(&heard(host, &one, 3)), others, "only of those that were named");
        let times: Vec<&str> = events.iter().filter_map(|event| event["time"].as_str()).collect();
        assert!(times.is_sorted() && times.len() == 6, "{times:?}");
        let now = host.sh("date -u +%Y-%m-%dT%H:%M:%S");
        assert!(times[0].len() == "2026-01-02T03:04:05.678901Z".len() && times[5][..19] <= *now.trim_end());
        assert_eq!((all.stop().code, one.stop().code), (Some(0), Some(0)));
        unchanged(host, &before);
    });
}

#[test]
fn a_killed_listener_or_supervisor_is_no_trouble() {
    on_host(|host| {
        host.install(Kind::Mini, "mini");
        host.boot("mini").stop();
        let before = host.snapshot();
        let dead = listen(host, &[]);
        dead.signal(Signal::SIGKILL);
        dead.wait();
        assert!(host.path("run/nixrun/.events").exists(), "nobody has noticed yet");
        let mini = host.boot("mini");
        wait_for("the dead one's FIFO to go", || (!host.path("run/nixrun/.events").exists()).then_some(()));
        let listener = listen(host, &["mini"]);
        mini.signal(Signal::SIGKILL);
        mini.wait();
        host.ok(&["reclaim", "mini"]);
        assert_eq!(told(&heard(host, &listener, 1)), ["mini exited its nixrun was killed"]);
        listener.stop();
        unchanged(host, &before);
    });
}

#[test]
fn events_end_with_their_reader_and_refuse_what_is_no_name() {
    on_host(|host| {
        let before = host.snapshot();
        // The shell's reader goes at once: nothing has to happen for events to notice.
        let nixrun = blackbox::nixrun_binary().display();
        let root = host.dir().display();
        let code = host.path("code");
        let code = code.display();
        let events = format!("timeout 20 {nixrun} --host-root {root} events");
        assert_eq!(host.sh(&format!("{{ {events}; echo $? > {code}; }} | true; cat {code}")), "0\n");
        let error = host.fails(1, &["events", "no_name"]);
        assert!(error.contains("no_name"), "{error}");
        unchanged(host, &before);
    });
}
