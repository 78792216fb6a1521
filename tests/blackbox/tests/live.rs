//! `pause`, `resume` and `set`: a container that is changed while it runs.
#![forbid(unsafe_code)]

use std::fs;
use std::time::{Duration, Instant};

use blackbox::{Container, Host, finish, on_host, wait_for};
use fixture::Kind;
use nix::sys::signal::Signal;

fn running(test: impl FnOnce(&Host<'_>, Container<'_>) + Send) {
    on_host(|host| {
        host.install(Kind::Mini, "mini");
        let container = host.boot("mini");
        test(host, container);
    });
}

fn phase(container: &Container<'_>) -> String {
    container
        .status()
        .map(|status| status["phase"].as_str().unwrap_or_default().to_owned())
        .unwrap_or_default()
}

/// What the kernel says of the container's group.
fn frozen(container: &Container<'_>) -> bool {
    let group = container.state().unwrap()["cgroup"].as_str().unwrap().to_owned();
    fs::read_to_string(format!("{group}/cgroup.events")).unwrap().contains("frozen 1")
}

#[test]
fn a_paused_container_does_nothing_until_it_is_resumed() {
    running(|host, container| {
        let mut counter = host
            .nixrun(&["exec", "mini", "--", "sh", "-c", "while :; do echo >> /tmp/count; sleep 0.005; done"])
            .spawn()
            .unwrap();
        let count = || {
            fs::metadata(format!("/proc/{}/root/tmp/count", container.leader())).map_or(0, |file| file.len())
        };
        wait_for("the counter", || (count() > 3).then_some(()));
        host.ok(&["pause", "mini"]);
        assert!(frozen(&container));
        assert_eq!(phase(&container), "paused");
        assert!(host.ok(&["list"]).contains("paused"));
        let before = count();
        host.ok(&["pause", "mini"]);
        assert_eq!(count(), before);
        for command in
            [&["exec", "mini", "--", "true"][..], &["run", "mini", "--", "true"], &["root-login", "mini"]]
        {
            let sentence = host.fails(125, command);
            assert!(sentence.starts_with("container mini is paused"), "{sentence}");
        }
        host.ok(&["resume", "mini"]);
        assert!(!frozen(&container));
        assert_eq!(phase(&container), "running");
        wait_for("the counter to go on", || (count() > before).then_some(()));
        host.ok(&["resume", "mini"]);
        assert_eq!(container.stop().code, Some(0));
        counter.wait().unwrap();
        let sentence = host.fails(1, &["pause", "mini"]);
        assert!(sentence.starts_with("container mini is not running"), "{sentence}");
        assert!(host.fails(1, &["resume", "mine"]).contains("did you mean \"mini\"?"));
    });
}

#[test]
fn a_paused_container_can_be_stopped_and_killed() {
    running(|host, container| {
        host.ok(&["pause", "mini"]);
        let began = Instant::now();
        // The supervisor alone hears of it: Ctrl-C, or systemctl stop.
        container.signal(Signal::SIGTERM);
        let finished = container.wait();
        assert_eq!(finished.code, Some(0), "{}", finished.err);
        assert!(finished.err.contains("Container mini has been shut down."), "{}", finished.err);
        let container = host.boot("mini");
        host.ok(&["pause", "mini"]);
        let stopped = finish(&mut host.nixrun(&["stop", "mini"]));
        assert!(stopped.code == Some(0) && stopped.err.is_empty(), "{stopped:?}");
        assert_eq!(container.wait().code, Some(0));
        let container = host.boot("mini");
        host.ok(&["pause", "mini"]);
        host.ok(&["kill", "mini"]);
        container.wait();
        assert!(began.elapsed() < Duration::from_secs(60), "it waited for the grace period");
    });
}

#[test]
fn settings_are_made_for_the_next_start_or_not_at_all() {
    on_host(|host| {
        host.install(Kind::Mini, "mini");
        let file = host.path("etc/nixrun/mini.json");
        let read = || fs::read_to_string(&file).unwrap_or_default();
        let said = host.ok(&["set", "mini", "hostname=other", "oomScoreAdjust=100"]);
        assert_eq!(
            said,
            "hostname=other: takes effect at the next start\noomScoreAdjust=100: takes effect at the next start\n"
        );
        let before = read();
        assert!(before.contains("\"hostname\": \"other\""), "{before}");
        let container = host.boot("mini");
        assert_eq!(host.inside("mini", "hostname"), "other\n");
        // Not while it runs: the new one is for the next start.
        host.ok(&["set", "mini", "hostname="]);
        assert_eq!(host.inside("mini", "hostname"), "other\n");
        let before = read();
        assert!(!before.contains("hostname"), "{before}");
        for (args, sentence) in [
            // This machine has no controllers in its version 2 hierarchy.
            (&["mini", "hostname=x", "pids.max=100"][..], "does not have the controller pids"),
            (&["--live", "mini", "memory.max=1G"], "does not have the controller memory"),
            (&["--live", "mini", "hostname=x"], "it cannot change while container mini runs"),
            (&["mini", "resources.memroy.max=1G"], "did you mean \"memory\"?"),
            (&["mini", "memory.max=lots"], "memory.max=lots"),
            // Right in itself, and in contradiction to NAME.conf.
            (&["mini", "hostAddress=10.9.9.9"], "contradicts"),
            (&["mine", "hostname=x"], "did you mean \"mini\"?"),
        ] {
            let args: Vec<&str> = ["set"].iter().chain(args).copied().collect();
            let said = host.fails(1, &args);
            assert!(said.contains(sentence), "{args:?}: {said}");
            assert_eq!(read(), before, "{args:?}");
        }
        assert_eq!(container.stop().code, Some(0));
        let said = host.fails(1, &["set", "--live", "mini", "memory.max=1G"]);
        assert!(said.starts_with("container mini is not running"), "{said}");
        // For the next start it may be set where it cannot be now.
        host.ok(&["set", "mini", "pids.max=100"]);
        assert!(read().contains("\"pids\""), "{}", read());
    });
}

#[test]
fn what_nixos_declares_is_not_changed() {
    on_host(|host| {
        host.install(Kind::Mini, "mini");
        let conf = host.path("etc/nixos-containers/mini.conf");
        let store = host.path("etc/static.conf");
        fs::rename(&conf, &store).unwrap();
        std::os::unix::fs::symlink(&store, &conf).unwrap();
        let said = host.fails(1, &["set", "mini", "hostname=x"]);
        assert!(said.contains("is a link, as NixOS makes them") && said.contains("--live"), "{said}");
        assert!(!host.path("etc/nixrun").exists());
    });
}
