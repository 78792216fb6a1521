//! The base container as the NixOS unit `container@base.service`, under a real systemd on unified cgroups.

use std::path::Path;
use std::time::Duration;

use vm::guest::{self, Said, attempt, property, sh, wait_until, write};

const UNIT: &str = "container@base.service";

/// Release 1 and 2 of the container say so on their web page.
const PAGE: &str = "busybox wget -q -T 5 -O - http://10.233.3.2/";

/// Under emulation the container needs about eight seconds to be ready, ten times what it takes on hardware.
const PATIENCE: Duration = Duration::from_secs(90);

/// The unit as the NixOS module writes it, with nixrun for its start script and systemd-nspawn.
const TEMPLATE: &str = "
[Unit]
Description=Container '%i'
RequiresMountsFor=/var/lib/nixos-containers/%i

[Service]
Type=notify
EnvironmentFile=-/etc/nixos-containers/%i.conf
ExecStart=/usr/local/bin/nixrun boot %i
ExecReload=/usr/local/bin/nixrun exec %i -- bash --login -c \"${SYSTEM_PATH}/bin/switch-to-configuration test\"
ExecStopPost=/usr/local/bin/nixrun reclaim %i
Restart=on-failure
RestartForceExitStatus=133
SuccessExitStatus=133
TimeoutStartSec=1min
Slice=machine.slice
Delegate=true
KillMode=mixed
KillSignal=TERM
DevicePolicy=closed
SyslogIdentifier=container %i
";

/// A host with the unit and release 1 of the container, not started.
fn host() {
    guest::mount_closure();
    sh("ln -s /run/t/nixrun /usr/local/bin/nixrun");
    write("/etc/resolv.conf", "nameserver 192.0.2.53\n");
    write("/etc/systemd/system/container@.service", TEMPLATE);
    use_release(1);
    sh("systemctl daemon-reload");
}

fn use_release(release: u32) {
    sh(&format!("install -D -m 644 {}/{release}.conf /etc/nixos-containers/base.conf", guest::CLOSURE));
}

fn start() {
    sh(&format!("systemctl start {UNIT} || {{ journalctl -n 60 --no-hostname -u {UNIT} >&2; exit 1; }}"));
    assert_eq!(property(UNIT, "ActiveState"), "active");
}

fn stop() {
    sh(&format!("systemctl stop {UNIT}"));
    assert_eq!(property(UNIT, "ActiveState"), "inactive");
    assert_eq!(property(UNIT, "Result"), "success");
}

fn cgroup() -> String {
    format!("/sys/fs/cgroup{}", property(UNIT, "ControlGroup"))
}

/// The host's pid of the container's PID 1: the process of the payload that every other descends from.
fn leader() -> String {
    let payload = format!("{}/payload", cgroup());
    let pids = sh(&format!("cat $(find {payload} -name cgroup.procs)"));
    let is_init = |pid: &&str| sh(&format!("awk '$1 == \"NSpid:\" {{print $NF}}' /proc/{pid}/status")) == "1";
    pids.lines().find(is_init).unwrap_or_else(|| panic!("no PID 1 among {pids:?}")).to_owned()
}

/// Stable for as long as the pid is not used again: the process, not its number.
fn start_time(pid: &str) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit(')').next()?.split_whitespace().nth(19).map(str::to_owned)
}

fn exec(command: &str) -> Said {
    attempt(&format!("nixrun exec base -- {command}"))
}

#[track_caller]
fn inside(command: &str) -> String {
    sh(&format!("nixrun exec base -- {command}"))
}

#[test]
fn starts_and_is_ready_with_its_cgroups_below_the_unit() {
    host();
    start();
    assert_eq!(inside("systemctl is-system-running --wait"), "running");
    let main = property(UNIT, "MainPID");
    let group = property(UNIT, "ControlGroup");
    assert_eq!(group, "/machine.slice/container@base.service");
    assert_eq!(sh(&format!("cat /proc/{main}/cgroup")), format!("0::{group}/supervisor"));
    let leader = leader();
    assert_eq!(sh(&format!("cat /proc/{leader}/comm")), "systemd");
    assert_eq!(sh(&format!("cat /proc/{leader}/cgroup")), format!("0::{group}/payload/init.scope"));
    // The container sees itself at the root, with all that the unit has to share out among its services ...
    assert_eq!(inside("cat /proc/1/cgroup"), "0::/init.scope");
    let given = sh(&format!("cat {}/cgroup.controllers", cgroup()));
    assert!(given.contains("memory") && given.contains("cpu"), "{given}");
    assert_eq!(inside("cat /sys/fs/cgroup/cgroup.controllers"), given);
    // ... and its systemd does so with those it accounts for by default.
    assert_eq!(inside("cat /sys/fs/cgroup/cgroup.subtree_control"), "memory pids");
    assert!(sh(PAGE).contains("base release 1"), "{}", sh(PAGE));
}

#[test]
fn forwards_its_port_on_the_hosts_addresses() {
    host();
    sh(
        "ip link set lo up; ip link add outside type dummy && ip addr add 192.0.2.1/24 dev outside && ip link set outside up",
    );
    start();
    for address in ["192.0.2.1", "127.0.0.1"] {
        let page = sh(&format!("busybox wget -q -T 5 -O - http://{address}:8082/"));
        assert!(page.contains("base release 1"), "{address}: {page}");
    }
    stop();
}

#[test]
fn a_reload_switches_to_the_new_system_without_a_restart() {
    host();
    start();
    let (main, leader) = (property(UNIT, "MainPID"), leader());
    use_release(2);
    sh(&format!("systemctl reload {UNIT} || {{ journalctl -n 40 -u {UNIT} >&2; exit 1; }}"));
    wait_until("the page is of release 2", PATIENCE, || attempt(PAGE).stdout.contains("base release 2"));
    assert_eq!(property(UNIT, "MainPID"), main);
    assert_eq!(self::leader(), leader);
    assert_eq!(property(UNIT, "NRestarts"), "0");
}

#[test]
fn a_reboot_inside_restarts_the_unit() {
    host();
    start();
    let before = (property(UNIT, "MainPID"), inside("cat /proc/sys/kernel/random/boot_id"));
    inside("touch /var/lib/kept /run/lost");
    // The command may be ended with the container before it can say that it succeeded.
    let _ = exec("systemctl reboot");
    wait_until("the unit was restarted and is active", PATIENCE, || {
        property(UNIT, "NRestarts") == "1" && property(UNIT, "ActiveState") == "active"
    });
    // Only RestartForceExitStatus=133 restarts a unit that has not failed.
    let journal = sh(&format!("journalctl -u {UNIT} -o cat"));
    assert!(
        journal.contains("Scheduled restart job") && !journal.contains("Failed with result"),
        "{journal}"
    );
    let after = (property(UNIT, "MainPID"), inside("cat /proc/sys/kernel/random/boot_id"));
    assert_ne!(before.0, after.0);
    assert_ne!(before.1, after.1, "a new boot has a new boot id");
    assert!(exec("test -e /var/lib/kept").success);
    assert!(!exec("test -e /run/lost").success);
    assert!(sh(PAGE).contains("base release 1"));
}

#[test]
fn a_stop_is_clean_and_leaves_nothing() {
    host();
    let before = guest::footprint();
    start();
    assert_ne!(guest::footprint(), before, "a running container is seen");
    let leader = leader();
    let process = start_time(&leader);
    stop();
    assert_eq!(property(UNIT, "ExecMainStatus"), "0");
    assert_ne!(start_time(&leader), process, "the container's PID 1 is still there");
    guest::assert_nothing_left(&before, Duration::ZERO);
}

#[test]
fn a_poweroff_inside_stops_the_unit_for_good() {
    host();
    let before = guest::footprint();
    start();
    let _ = exec("systemctl poweroff");
    wait_until("the unit is inactive", PATIENCE, || property(UNIT, "ActiveState") == "inactive");
    assert_eq!(property(UNIT, "Result"), "success");
    assert_eq!(property(UNIT, "NRestarts"), "0");
    guest::assert_nothing_left(&before, Duration::ZERO);
}

#[test]
fn a_killed_supervisor_takes_its_container_with_it_and_the_unit_restarts() {
    host();
    let before = guest::footprint();
    start();
    let leader = leader();
    let process = start_time(&leader);
    sh(&format!("systemctl kill --kill-whom=main -s KILL {UNIT}"));
    wait_until("the unit was restarted and is active", PATIENCE, || {
        property(UNIT, "NRestarts") == "1" && property(UNIT, "ActiveState") == "active"
    });
    assert_ne!(start_time(&leader), process, "the old container is still there");
    assert!(sh(PAGE).contains("base release 1"));
    stop();
    guest::assert_nothing_left(&before, Duration::ZERO);
}

#[test]
fn a_killed_container_without_a_restart_is_reclaimed() {
    host();
    write(
        "/etc/systemd/system/container@base.service.d/alone.conf",
        "[Service]\nRestart=no\nExecStopPost=\n",
    );
    sh("systemctl daemon-reload");
    let before = guest::footprint();
    start();
    let payload = Path::new(&cgroup()).join("payload");
    assert!(payload.exists());
    sh(&format!("systemctl kill -s KILL {UNIT}"));
    wait_until("the unit has failed", PATIENCE, || property(UNIT, "ActiveState") == "failed");
    sh("nixrun reclaim base");
    assert!(!payload.exists());
    guest::assert_nothing_left(&before, Duration::from_secs(10));
    sh("nixrun reclaim base");
    sh(&format!("systemctl reset-failed {UNIT}"));
    start();
    stop();
}

#[test]
fn a_running_container_is_neither_booted_again_nor_by_systemd_nspawn() {
    host();
    start();
    let again = attempt("nixrun boot base");
    assert!(!again.success && again.stderr.contains("container base is running already"), "{again:?}");
    let nspawn = attempt("systemd-nspawn -q -M other -D /var/lib/nixos-containers/base /bin/sh -c true");
    assert!(!nspawn.success && nspawn.stderr.contains("busy"), "{nspawn:?}");
    assert_eq!(property(UNIT, "ActiveState"), "active");
    assert_eq!(property(UNIT, "NRestarts"), "0");
}

#[test]
fn the_units_device_policy_holds_inside() {
    host();
    start();
    assert!(exec("bash -c 'head -c 1 /dev/zero > /dev/null'").success);
    // The host's root disk: neither making the node nor opening one is allowed.
    let disk = sh("stat -c '%Hr %Lr' /dev/vda");
    let made = exec(&format!("mknod /dev/disk b {disk}"));
    assert!(!made.success && made.stderr.contains("not permitted"), "{made:?}");
    sh(&format!("mknod /proc/{}/root/dev/disk b {disk}", leader()));
    let opened = exec("head -c 1 /dev/disk");
    assert!(!opened.success && opened.stderr.contains("not permitted"), "{opened:?}");
}

/// The same container under the program that nixrun replaces: what fails here too is not nixrun's fault. KillMode as in
/// `container@`: a SIGTERM to the container's systemd as well would have it execute itself anew and lose the halt.
#[test]
fn systemd_nspawn_boots_the_container_as_the_oracle() {
    host();
    let root = "/var/lib/nixos-containers/base";
    sh(&format!(
        "mkdir -p {root}/usr/bin {root}/etc {root}/var/lib && touch {root}/etc/os-release {root}/etc/machine-id"
    ));
    sh(&format!(
        "systemd-run -q --unit=oracle -p Delegate=yes -p KillMode=mixed -p Type=notify -p EnvironmentFile=/etc/nixos-containers/base.conf \
         systemd-nspawn -q --keep-unit -M base -D {root} --private-network --notify-ready=yes \
         --kill-signal=SIGRTMIN+3 --bind-ro=/nix/store --bind-ro=/nix/var/nix/db '${{SYSTEM_PATH}}/init'"
    ));
    assert_eq!(property("oracle.service", "ActiveState"), "active");
    let leader = sh("machinectl show base -P Leader");
    assert_eq!(sh(&format!("nsenter -t {leader} -a systemctl is-system-running --wait")), "running");
    sh("systemctl stop oracle.service");
    assert_eq!(property("oracle.service", "ExecMainStatus"), "0");
}
