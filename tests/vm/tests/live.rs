//! A running container whose limits change, on control groups that have every controller in version 2.

use std::time::Duration;

use vm::guest::{attempt, sh, wait_until, write};

const FILE: &str = "/etc/nixrun/box.json";

/// A container of the guest's own programs, in a unit that systemd has delegated.
fn running() {
    sh("ln -s /run/t/nixrun /usr/local/bin/nixrun");
    sh(
        "mkdir -p /var/ct/usr /var/ct/etc && for link in bin sbin lib lib64; do ln -s usr/$link /var/ct/$link; done",
    );
    write(
        FILE,
        r#"{"root": "/var/ct", "bindMounts": {"/usr": {"hostPath": "/usr", "isReadOnly": true}},
            "command": ["/bin/sh", "-c", "trap 'exit 0' TERM; while :; do sleep 1 & wait $!; done"],
            "resources": {"memory": {"max": "512M"}}}"#,
    );
    start();
}

fn start() {
    sh("systemd-run -q --unit=held --collect -p Delegate=yes nixrun boot box");
    wait_until("the container runs", Duration::from_secs(60), || {
        attempt("nixrun exec box -- /bin/true").success
    });
}

fn stop() {
    sh("nixrun stop box");
    wait_until("the unit is gone", Duration::from_secs(30), || {
        !attempt("systemctl is-active held.service").success
    });
}

/// The files of the container's group, as it sees them.
fn limits() -> String {
    sh("nixrun exec box -- /bin/sh -c 'cd /sys/fs/cgroup; cat memory.max pids.max cpu.max'")
}

#[test]
fn limits_change_at_once_and_for_good() {
    running();
    assert_eq!(limits(), "536870912\nmax\nmax 100000");
    let said = sh("nixrun set box memory.max=256M pids.max=50 hostname=other");
    assert_eq!(
        said,
        "memory.max=256M: has taken effect, and does at every start\n\
         pids.max=50: has taken effect, and does at every start\n\
         hostname=other: takes effect at the next start"
    );
    assert_eq!(limits(), "268435456\n50\nmax 100000");
    assert_eq!(
        sh("nixrun set --live box 'cpu.max=50000/100000' memory.max=1G"),
        "cpu.max=50000/100000: has taken effect, until the container ends\n\
         memory.max=1G: has taken effect, until the container ends"
    );
    assert_eq!(limits(), "1073741824\n50\n50000 100000");
    // One that the kernel does not take: neither the file nor the others change.
    let before = sh(&format!("cat {FILE}"));
    let refused = attempt("nixrun set box pids.max=70 cpuset.cpus=4000");
    assert!(!refused.success && refused.stderr.contains("nothing has been changed"), "{refused:?}");
    assert_eq!((limits().as_str(), sh(&format!("cat {FILE}"))), ("1073741824\n50\n50000 100000", before));
    // No value is no limit.
    sh("nixrun set box pids.max=");
    assert_eq!(limits(), "1073741824\nmax\n50000 100000");
    stop();
    start();
    assert_eq!(limits(), "268435456\nmax\nmax 100000");
    assert_eq!(sh("nixrun exec box -- /bin/hostname"), "other");
    stop();
}

#[test]
fn a_paused_container_is_stopped_with_its_unit() {
    running();
    sh("nixrun pause box");
    assert!(sh("nixrun status box").contains("paused"));
    sh("nixrun resume box");
    assert!(attempt("nixrun exec box -- /bin/true").success);
    sh("nixrun pause box && timeout 60 systemctl stop held.service");
    wait_until("the unit is gone", Duration::from_secs(30), || {
        !attempt("systemctl is-active held.service").success
    });
    assert!(!attempt("nixrun exec box -- /bin/true").success);
}
