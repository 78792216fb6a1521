//! systemd-machined and a container of nixrun's: what `machinectl`, `systemctl -M` and `journalctl -M` do with it, and
//! what becomes of it where systemd-machined does not do its part.

use std::time::Duration;

use vm::guest::{self, attempt, property, sh, wait_until, write};

const SCOPE: &str = "machine-base.scope";

/// Under emulation the container needs about eight seconds to be ready, ten times what it takes on hardware.
const PATIENCE: Duration = Duration::from_secs(90);

fn host() {
    guest::mount_closure();
    sh("ln -s /run/t/nixrun /usr/local/bin/nixrun");
    sh(&format!("install -D -m 644 {}/1.conf /etc/nixos-containers/base.conf", guest::CLOSURE));
}

/// As from a shell: in a unit that was not delegated to us, where nixrun asks for a scope.
fn start() {
    sh(
        "systemd-run -q --wait --collect --pipe nixrun start base || { cat /var/log/nixrun/base.log >&2; exit 1; }",
    );
    assert_eq!(property(SCOPE, "ActiveState"), "active");
}

fn registered() -> bool {
    attempt("machinectl show base").success
}

#[track_caller]
fn wait_for_registration() {
    wait_until("the container is registered", PATIENCE, registered);
}

fn log() -> String {
    sh("cat /var/log/nixrun/base.log")
}

#[track_caller]
fn wait_for_the_end() {
    wait_until("the container has ended", PATIENCE, || {
        property(SCOPE, "ActiveState") == "inactive" && !attempt("test -e /run/nixrun/base").success
    });
    assert!(!registered());
}

#[test]
fn machinectl_lists_shows_and_enters_it() {
    host();
    start();
    wait_for_registration();
    let list = sh("machinectl list --no-legend");
    assert!(list.starts_with("base") && list.contains("container systemd-nspawn nixos"), "{list}");
    let leader = sh("machinectl show base -P Leader");
    assert_eq!(leader, sh("nixrun status base --json | sed -n 's/.*\"leader\": \\([0-9]*\\),/\\1/p'"));
    let shown = sh("machinectl show base");
    for line in ["Unit=machine-base.scope", "Class=container", "RootDirectory=/var/lib/nixos-containers/base"]
    {
        assert!(shown.lines().any(|found| found == line), "{line}: {shown}");
    }
    let status = sh("machinectl status base");
    assert!(status.contains("Iface: ve-base") && status.contains("Address: 10.233.3.2"), "{status}");

    assert_eq!(sh("systemctl -M base is-system-running --wait"), "running");
    assert!(sh("journalctl -M base -o cat").contains("Reached target multi-user.target"));
    let inside = "/run/current-system/sw/bin";
    let said = sh(&format!("machinectl -q shell base {inside}/bash -c 'echo $(hostname) is running'"));
    assert!(said.contains("base is running"), "{said}");
    // A login waits for somebody to type a name.
    sh("(sleep 600 | machinectl -q login base) > /run/login 2>&1 &");
    wait_until("a login is offered", PATIENCE, || sh("cat /run/login").contains("base login:"));

    write("/root/there", "over\n");
    sh(
        "machinectl copy-to base /root/there /root/copied && machinectl copy-from base /root/copied /root/back",
    );
    assert_eq!(sh("cat /var/lib/nixos-containers/base/root/copied /root/back"), "over\nover");
    sh("machinectl bind --mkdir base /usr/share/base-files /mnt/bound");
    assert!(attempt(&format!("nixrun exec base -- {inside}/test -d /mnt/bound")).success);
    assert!(sh("getent ahostsv4 base").contains("10.233.3.2"));
}

#[test]
fn machinectl_ends_it_in_every_way() {
    host();
    let before = guest::footprint();
    start();
    wait_for_registration();
    let first = sh("machinectl show base -P Leader");
    sh("machinectl reboot base");
    wait_until("another PID 1 runs", PATIENCE, || {
        let leader = attempt("machinectl show base -P Leader");
        leader.success && leader.stdout != first
    });
    wait_until("it is ready", PATIENCE, || sh("nixrun list").contains("running"));
    sh("machinectl poweroff base");
    wait_for_the_end();
    assert!(log().ends_with("Container base has been shut down."), "{}", log());

    start();
    wait_for_registration();
    // systemd asks the one who has the scope, so that the container can shut its services down.
    sh("machinectl terminate base");
    wait_for_the_end();
    assert!(log().contains("Asked container base") || log().ends_with("has been shut down."), "{}", log());

    start();
    wait_for_registration();
    sh("machinectl kill --kill-whom=leader -s KILL base");
    wait_for_the_end();
    assert!(log().ends_with("Container base terminated by signal KILL."), "{}", log());
    guest::assert_nothing_left(&before, Duration::from_secs(10));
}

#[test]
fn without_machined_it_starts_and_stops_all_the_same() {
    host();
    sh("systemctl mask --runtime --now systemd-machined.service");
    start();
    wait_until("the reason is in the log", PATIENCE, || log().contains("cannot register container base"));
    assert!(log().contains("systemd-machined.service is masked"), "{}", log());
    sh("nixrun stop base");
    wait_for_the_end();
}

/// A machined that starts again believes its files, and stops the units of the dead machines in them.
#[test]
fn a_machined_that_was_away_at_the_end_does_not_stop_the_next_start() {
    host();
    start();
    wait_for_registration();
    sh("systemctl stop systemd-machined.service");
    assert!(attempt("test -e /run/systemd/machines/base").success);
    sh("nixrun stop base");
    assert!(log().ends_with("Container base has been shut down."), "{}", log());
    assert_eq!(sh("ls -A /run/systemd/machines"), "");
    start();
    wait_for_registration();
    assert!(sh("nixrun list").contains("running"));
    sh("nixrun stop base");
    wait_for_the_end();
}

#[test]
fn a_machined_that_hangs_delays_neither_start_nor_end() {
    host();
    sh("systemctl kill -s STOP systemd-machined.service");
    start();
    sh("nixrun stop base");
    wait_until("the scope has ended", PATIENCE, || property(SCOPE, "ActiveState") == "inactive");
    assert!(log().ends_with("Container base has been shut down."), "{}", log());
    sh("systemctl kill -s CONT systemd-machined.service");
}

#[test]
fn a_killed_nixrun_leaves_no_registration_to_the_next_start() {
    host();
    start();
    wait_for_registration();
    sh("kill -KILL $(nixrun status base --json | sed -n 's/.*\"supervisor\": \\([0-9]*\\),/\\1/p')");
    wait_until("the scope has ended", PATIENCE, || property(SCOPE, "ActiveState") == "inactive");
    start();
    wait_for_registration();
    sh("nixrun stop base");
    wait_for_the_end();
}

#[test]
fn the_scope_has_its_slice_and_properties() {
    host();
    sh(
        "mkdir -p /var/box/usr/bin /var/box/etc && cp /usr/bin/busybox /var/box/usr/bin && ln -s usr/bin /var/box/bin",
    );
    sh("systemd-run -q --unit=shell nixrun nspawn -q -D /var/box -M box -S other.slice \
        --property=MemoryMax=64M --property=CPUQuota=50% --property=TasksMax=77 --property=AllowedCPUs=0 \
        --property=DeviceAllow='/dev/fuse rw' /bin/busybox sleep 600");
    let scope = "machine-box.scope";
    wait_until("the container is registered", PATIENCE, || attempt("machinectl show box").success);
    for (name, value) in [
        ("Slice", "other.slice"),
        ("MemoryMax", "67108864"),
        ("CPUQuotaPerSecUSec", "500ms"),
        ("TasksMax", "77"),
        ("AllowedCPUs", "0"),
        ("Delegate", "yes"),
        ("DeviceAllow", "/dev/fuse rw"),
    ] {
        assert_eq!(property(scope, name), value, "{name}");
    }
    let group = format!("/sys/fs/cgroup{}", property(scope, "ControlGroup"));
    assert!(group.ends_with("/other.slice/machine-box.scope"), "{group}");
    for (file, value) in
        [("memory.max", "67108864"), ("cpu.max", "50000 100000"), ("pids.max", "77"), ("cpuset.cpus", "0")]
    {
        assert_eq!(sh(&format!("cat {group}/{file}")), value, "{file}");
    }
    let refused =
        attempt("nixrun nspawn -q -D /var/box -M other --property=ExecStart=/bin/sh /bin/busybox true");
    assert!(!refused.success && refused.stderr.contains("\"ExecStart\" cannot be set"), "{refused:?}");
    sh(&format!("systemctl stop {scope}"));
    wait_until("it is gone", PATIENCE, || !attempt("machinectl show box").success);
}
