//! Containers in the background under systemd: the unit of dist/ and NixOS's own as `start`, `stop`, `restart` and
//! `terminate` see them, many at once, and a clock that jumps.

use std::time::Duration;

use vm::guest::{self, Said, attempt, property, sh, wait_until, write};

const UNIT: &str = include_str!("../../../dist/systemd/system/container@.service");
const AUTOSTART: &str = include_str!("../../../dist/systemd/system/nixrun-autostart.service");
const PATIENCE: Duration = Duration::from_secs(90);

/// A PID 1 that is ready, and then goes on as [`PATIENT`].
const READY: &str = "exec systemd-notify --ready --exec \\; /shared/patient";

/// Ends when it is asked to, or fails.
const PATIENT: &str = "#!/bin/bash\ntrap 'exit 0' TERM; trap 'exit 7' USR1; while :; do sleep 0.1; done\n";

fn host() {
    sh("ln -s /run/t/nixrun /usr/bin/nixrun; mkdir -p /var/shared");
    write("/var/shared/patient", PATIENT);
    write("/var/shared/deaf", &PATIENT.replace("exit 0", ":"));
    sh("chmod +x /var/shared/patient /var/shared/deaf");
    write("/etc/systemd/system/container@.service", UNIT);
    write("/etc/systemd/system/nixrun-autostart.service", AUTOSTART);
    sh("systemctl daemon-reload");
}

/// A container on the guest's own programs whose PID 1 is this script of bash.
fn container(name: &str, script: &str, more: &str) {
    sh(&format!(
        "mkdir -p /var/ct/{name}/usr /var/ct/{name}/etc && cd /var/ct/{name} && \
         for link in bin sbin lib lib64; do ln -sfn usr/$link $link; done"
    ));
    let command = script.replace('\\', "\\\\").replace('"', "\\\"");
    write(
        &format!("/etc/nixrun/{name}.json"),
        &format!(
            r#"{{"root": "/var/ct/{name}", "command": ["/usr/bin/bash", "-c", "{command}"], "notifyReady": true,
                "killSignal": "SIGTERM", "environment": {{"NAME": "{name}"}},
                "bindMounts": {{"/usr": {{"hostPath": "/usr"}}, "/shared": {{"hostPath": "/var/shared", "isReadOnly": false}}}}
                {more}}}"#
        ),
    );
}

fn unit(name: &str) -> String {
    format!("container@{name}.service")
}

fn state(name: &str) -> String {
    property(&unit(name), "ActiveState")
}

fn refused(command: &str) -> String {
    let Said { success, stderr, .. } = attempt(command);
    assert!(!success, "{command} succeeded");
    stderr
}

#[test]
fn a_unit_is_started_and_ended_like_any_container() {
    host();
    container("box", READY, "");
    // The root's mount points are made by the first start.
    sh("nixrun start box && nixrun stop box");
    let before = guest::footprint();
    sh("nixrun start box");
    assert_eq!(
        (state("box").as_str(), property(&unit("box"), "Slice").as_str()),
        ("active", "machine.slice")
    );
    let main = property(&unit("box"), "MainPID");
    assert_eq!(
        sh("nixrun status --json box | grep -o '\"supervisor\": [0-9]*'"),
        format!("\"supervisor\": {main}")
    );
    assert!(attempt("nixrun start box").stderr.contains("Container box is running already."));
    assert_eq!(property(&unit("box"), "MainPID"), main);
    sh("nixrun restart box");
    assert_eq!((state("box").as_str(), property(&unit("box"), "NRestarts").as_str()), ("active", "0"));
    assert_ne!(property(&unit("box"), "MainPID"), main);
    // Whoever ends it, systemd does not start it again, and it has not failed.
    for end in [
        "nixrun stop box",
        "nixrun terminate box",
        "nixrun kill box",
        "machinectl terminate box",
        "systemctl stop box@",
    ] {
        let end = end.replace("box@", &unit("box"));
        sh(&end);
        wait_until("the unit is inactive", PATIENCE, || state("box") == "inactive");
        guest::assert_nothing_left(&before, Duration::from_secs(10));
        sh("nixrun start box");
    }
    // A failure is restarted by the unit's own policy, and a stop in its pause ends it.
    write("/etc/systemd/system/container@box.service.d/pause.conf", "[Service]\nRestartSec=1h\n");
    sh("systemctl daemon-reload; nixrun kill --signal=USR1 box");
    wait_until("the pause", PATIENCE, || property(&unit("box"), "SubState") == "auto-restart");
    sh("nixrun stop box");
    assert_ne!(state("box"), "activating");
    let words = refused("nixrun start --nat=no box");
    assert!(words.contains("set nat in /etc/nixrun/box.json"), "{words}");
}

#[test]
fn a_unit_that_fails_or_stands_still_is_told_in_its_own_words() {
    host();
    let before = guest::footprint();
    container("bad", "exit 3", "");
    write("/etc/systemd/system/container@.service.d/once.conf", "[Service]\nRestart=no\n");
    write("/etc/systemd/system/container@idle.service.d/short.conf", "[Service]\nTimeoutStartSec=3\n");
    sh("systemctl daemon-reload");
    let words = refused("nixrun start bad");
    let wanted = "container bad did not start: container@bad.service failed (exit status 3";
    assert!(words.contains(wanted) && words.contains("see `journalctl -u container@bad.service`"), "{words}");
    container("idle", "sleep 1000", "");
    let words = refused("nixrun start idle");
    assert!(words.contains("it was not ready in time, by TimeoutStartSec="), "{words}");
    // Our own limit comes first.
    sh("rm /etc/systemd/system/container@idle.service.d/short.conf; systemctl daemon-reload");
    let words = refused("nixrun start --timeout=2 idle");
    assert!(words.contains("container idle was not ready within 2 s and was ended"), "{words}");
    assert_eq!(state("idle"), "inactive");
    // One that ignores the stop.
    container("deaf", &READY.replace("patient", "deaf"), "");
    sh("nixrun start deaf");
    let stopped = attempt("nixrun stop --timeout=1 deaf");
    assert!(
        stopped.success && stopped.stderr.contains("did not shut down within 1 s and was killed"),
        "{stopped:?}"
    );
    assert_ne!(state("deaf"), "active");
    sh("systemctl reset-failed; rm -r /etc/systemd/system/container@.service.d; systemctl daemon-reload");
    guest::assert_nothing_left(&before, Duration::from_secs(10));
}

#[test]
fn twenty_units_at_once_take_turns_and_none_is_late() {
    host();
    write("/etc/nixrun.json", r#"{"startJobs": 2}"#);
    // Two seconds each, two at a time: the last one waits for twenty, and its unit gives it ten.
    write(
        "/etc/systemd/system/container@.service.d/short.conf",
        "[Service]\nTimeoutStartSec=10\nRestart=no\n",
    );
    sh("systemctl daemon-reload");
    let slow = format!("echo +$NAME >> /shared/order; sleep 2; echo -$NAME >> /shared/order; {READY}");
    let names: Vec<String> = (0..20).map(|i| format!("c{i:02}")).collect();
    names.iter().for_each(|name| container(name, &slow, ""));
    let units: Vec<String> = names.iter().map(|name| unit(name)).collect();
    sh(&format!("systemctl start {} || {{ journalctl -n 60 --no-hostname >&2; exit 1; }}", units.join(" ")));
    for name in &names {
        assert_eq!(state(name), "active", "{name}");
    }
    let order = sh("cat /var/shared/order");
    let (mut now, mut most) = (0, 0);
    for line in order.lines() {
        now += if line.starts_with('+') { 1 } else { -1 };
        most = most.max(now);
    }
    assert_eq!((order.lines().count(), most), (40, 2), "{order}");
    assert!(!attempt("test -e /run/nixrun/.slots").success, "slots are left");
    sh(&format!("systemctl stop {}", units.join(" ")));
}

#[test]
fn a_clock_that_jumps_changes_nothing() {
    host();
    container("box", READY, r#", "autoStart": true"#);
    sh("nixrun start box");
    for date in ["2040-01-01", "1990-01-01"] {
        sh(&format!("date -s {date}"));
        let text = sh("nixrun status --json box");
        let uptime = text.split("\"uptime\":").nth(1).and_then(|rest| rest.split([',', '}']).next()).unwrap();
        assert!(uptime.trim().parse::<u64>().unwrap() < 600, "{text}");
        sh("nixrun restart box");
        assert_eq!(state("box"), "active");
        let stopped = attempt("nixrun stop --timeout=30 box");
        assert!(stopped.success && stopped.stderr.is_empty(), "{stopped:?}");
        sh("systemctl start nixrun-autostart.service");
        assert_eq!(state("box"), "active");
        sh("systemctl stop nixrun-autostart.service");
        assert_eq!(state("box"), "active", "what it has started is not its own");
    }
}

#[test]
fn without_such_a_unit_a_supervisor_of_our_own_is_started() {
    host();
    sh("rm /etc/systemd/system/container@.service; systemctl daemon-reload");
    container("box", READY, r#", "restart": "on-failure""#);
    sh("nixrun start box && nixrun stop box");
    let before = guest::footprint();
    sh("nixrun start box");
    let leader = || sh("nixrun status --json box | grep -o '\"leader\": [0-9]*'");
    let first = leader();
    sh("nixrun kill --signal=USR1 box");
    let again = |first: &str| {
        let status = attempt("nixrun status --json box").stdout;
        status.contains("\"phase\": \"running\"") && !status.contains(&format!("{first},"))
    };
    wait_until("another PID 1", PATIENCE, || again(&first));
    sh("nixrun stop box");
    wait_until("the keeper's end", PATIENCE, || !attempt("test -e /run/nixrun/.keepers").success);
    guest::assert_nothing_left(&before, Duration::from_secs(10));
}
