//! The unit that NixOS writes for a container, as its module has it: preStart, a script that ends in systemd-nspawn,
//! postStart, a program that finishes the network as PID 1. With nixrun under systemd-nspawn's name, and with the real
//! one as the control: whatever is asserted here holds for both.

use std::time::Duration;

use vm::guest::{self, attempt, property, sh, wait_until, write};

const UNIT: &str = "container@base.service";
const PAGE: &str = "busybox wget -q -T 5 -O - http://10.233.3.2/";
const PATIENCE: Duration = Duration::from_secs(90);

/// `PROGRAM` stands for systemd-nspawn.
const TEMPLATE: &str = "
[Unit]
Description=Container '%i'
RequiresMountsFor=/var/lib/nixos-containers/%i

[Service]
Type=notify
Environment=root=/var/lib/nixos-containers/%i INSTANCE=%i SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1
EnvironmentFile=-/etc/nixos-containers/%i.conf
ExecStartPre=/etc/container/pre-start
ExecStart=/etc/container/start PROGRAM
ExecStartPost=/etc/container/post-start
ExecReload=/etc/container/reload
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

const PRE_START: &str = "#!/bin/bash
set -e
machinectl terminate \"$INSTANCE\" 2> /dev/null || true
if [ \"$PRIVATE_NETWORK\" = 1 ]; then
  ip link del dev \"ve-$INSTANCE\" 2> /dev/null || true
  ip link del dev \"vb-$INSTANCE\" 2> /dev/null || true
fi
";

const START: &str = "#!/bin/bash
set -e
program=$1
mkdir -p \"$root\"/{usr/bin,etc,var/lib}
mkdir -p -m 0700 \"$root\"/var/lib/private \"$root\"/root /run/nixos-containers
[ -e \"$root\"/etc/os-release ] || [ -h \"$root\"/etc/os-release ] || touch \"$root\"/etc/os-release
[ -e \"$root\"/etc/machine-id ] || touch \"$root\"/etc/machine-id
mkdir -p -m 0755 /nix/var/nix/{profiles,gcroots}/per-container/\"$INSTANCE\"
flags=()
if [ \"$PRIVATE_NETWORK\" = 1 ]; then flags+=(--private-network); fi
if [ -n \"$HOST_ADDRESS$LOCAL_ADDRESS$HOST_ADDRESS6$LOCAL_ADDRESS6\" ]; then flags+=(--network-veth); fi
if [ -n \"$HOST_PORT\" ]; then
  IFS=, read -ra ports <<< \"$HOST_PORT\"
  for port in \"${ports[@]}\"; do flags+=(\"--port=$port\"); done
fi
exec \"$program\" \\
  --keep-unit -M \"$INSTANCE\" -D \"$root\" \"${flags[@]}\" \\
  --notify-ready=yes --kill-signal=SIGRTMIN+3 \\
  --bind-ro=/nix/store:/nix/store --bind-ro=/nix/var/nix/db:/nix/var/nix/db \\
  --bind-ro=/nix/var/nix/daemon-socket:/nix/var/nix/daemon-socket \\
  --bind=\"/nix/var/nix/profiles/per-container/$INSTANCE:/nix/var/nix/profiles\" \\
  --bind=\"/nix/var/nix/gcroots/per-container/$INSTANCE:/nix/var/nix/gcroots\" \\
  --link-journal=try-guest \\
  --setenv PRIVATE_NETWORK=\"$PRIVATE_NETWORK\" --setenv PRIVATE_USERS=\"$PRIVATE_USERS\" \\
  --setenv HOST_BRIDGE=\"$HOST_BRIDGE\" --setenv HOST_ADDRESS=\"$HOST_ADDRESS\" \\
  --setenv LOCAL_ADDRESS=\"$LOCAL_ADDRESS\" --setenv HOST_ADDRESS6=\"$HOST_ADDRESS6\" \\
  --setenv LOCAL_ADDRESS6=\"$LOCAL_ADDRESS6\" --setenv LOCAL_MAC_ADDRESS=\"$LOCAL_MAC_ADDRESS\" \\
  --setenv HOST_PORT=\"$HOST_PORT\" --setenv PATH=\"$PATH\" \\
  $EXTRA_NSPAWN_FLAGS \\
  \"$(cat /run/closure/container-init)\" \"${SYSTEM_PATH:-/nix/var/nix/profiles/system}/init\"
";

const POST_START: &str = "#!/bin/bash
set -e
link=ve-$INSTANCE
ip link set dev \"$link\" up
if [ -n \"$HOST_ADDRESS\" ]; then ip addr add \"$HOST_ADDRESS\" dev \"$link\"; fi
if [ -n \"$LOCAL_ADDRESS\" ]; then ip route add \"$LOCAL_ADDRESS\" dev \"$link\"; fi
if [ -n \"$HOST_ADDRESS6\" ]; then ip -6 addr add \"$HOST_ADDRESS6\" dev \"$link\"; fi
if [ -n \"$LOCAL_ADDRESS6\" ]; then ip -6 route add \"$LOCAL_ADDRESS6\" dev \"$link\"; fi
";

/// What `nixos-container run NAME -- bash --login -c ...` comes to, but for its su: NixOS's begins no session, and the
/// container's here would.
const RELOAD: &str = "#!/bin/bash
set -e
leader=$(machinectl show \"$INSTANCE\" -p Leader)
exec nsenter -t \"${leader#Leader=}\" -m -u -i -n -p -- /run/current-system/sw/bin/bash --login -c \\
  \"$SYSTEM_PATH/bin/switch-to-configuration test\"
";

fn host(program: &str) {
    guest::mount_closure();
    sh(
        "ln -s /run/t/nixrun /usr/local/bin/systemd-nspawn && mkdir -p /srv/shared && echo shared > /srv/shared/file",
    );
    write("/etc/systemd/system/container@.service", &TEMPLATE.replace("PROGRAM", program));
    for (name, text) in
        [("pre-start", PRE_START), ("start", START), ("post-start", POST_START), ("reload", RELOAD)]
    {
        write(&format!("/etc/container/{name}"), text);
    }
    // The start script makes the directory, and nobody removes it.
    sh("chmod +x /etc/container/* && mkdir -m 0700 /run/nixos-containers");
    use_release(1);
    sh("systemctl daemon-reload");
}

fn use_release(release: u32) {
    let conf = sh(&format!("cat {}/{release}.conf", guest::CLOSURE));
    let flags =
        "EXTRA_NSPAWN_FLAGS=\"--bind=/srv/shared:/mnt/shared --setenv=FLAG=given --capability=CAP_SYS_TIME\"";
    write("/etc/nixos-containers/base.conf", &format!("{conf}\n{flags}\n"));
}

#[track_caller]
fn inside(command: &str) -> String {
    let leader = sh("machinectl show base -P Leader");
    let tools = "/run/current-system/sw/bin";
    sh(&format!("nsenter -t {leader} -m -u -i -n -p -- {tools}/env -i PATH={tools} {command}"))
}

/// From start to stop by `program`. Returns what the machine was before.
fn life(program: &str) -> String {
    host(program);
    let before = guest::footprint();
    sh(&format!("systemctl start {UNIT} || {{ journalctl -n 60 --no-hostname -u {UNIT} >&2; exit 1; }}"));
    let status = sh(&format!("systemctl status {UNIT}"));
    assert!(
        status.contains("active (running)") && status.contains("Status: \"Container running"),
        "{status}"
    );
    assert_eq!(inside("systemctl is-system-running --wait"), "running");
    // What the module's own programs made of nspawn's network, and nothing beside it.
    assert_eq!(
        inside("ip -br -4 address show dev eth0 scope global").split_whitespace().last(),
        Some("10.233.3.2/32")
    );
    assert_eq!(inside("ip -4 route"), "default via 10.233.3.1 dev eth0 \n10.233.3.1 dev eth0 scope link");
    assert_eq!(sh("ip -br -4 address show dev ve-base").split_whitespace().last(), Some("10.233.3.1/32"));
    assert!(sh(PAGE).contains("base release 1"));
    // EXTRA_NSPAWN_FLAGS, word by word.
    assert_eq!(inside("cat /mnt/shared/file"), "shared");
    let leader = sh("machinectl show base -P Leader");
    assert!(sh(&format!("tr '\\0' '\\n' < /proc/{leader}/environ")).lines().any(|line| line == "FLAG=given"));

    let main = property(UNIT, "MainPID");
    use_release(2);
    sh(&format!("systemctl reload {UNIT} || {{ journalctl -n 40 -u {UNIT} >&2; exit 1; }}"));
    wait_until("the page is of release 2", PATIENCE, || attempt(PAGE).stdout.contains("base release 2"));
    assert_eq!((property(UNIT, "MainPID"), sh("machinectl show base -P Leader")), (main, leader));

    let _ = attempt("machinectl reboot base");
    wait_until("the unit was restarted and is active", PATIENCE, || {
        property(UNIT, "NRestarts") == "1" && property(UNIT, "ActiveState") == "active"
    });
    let journal = sh(&format!("journalctl -u {UNIT} -o cat"));
    assert!(
        journal.contains("Scheduled restart job") && !journal.contains("Failed with result"),
        "{journal}"
    );
    wait_until("the page is there again", PATIENCE, || attempt(PAGE).stdout.contains("base release 2"));

    sh(&format!("systemctl stop {UNIT}"));
    assert_eq!(property(UNIT, "ActiveState"), "inactive");
    assert_eq!((property(UNIT, "Result"), property(UNIT, "ExecMainStatus")), ("success".into(), "0".into()));
    let journal = sh(&format!("journalctl -u {UNIT} -o cat"));
    assert!(journal.contains("Container base has been shut down."), "{journal}");
    assert!(!attempt("machinectl show base").success);
    before
}

#[test]
fn nixrun_in_place_of_systemd_nspawn_serves_the_unit() {
    let before = life("/usr/local/bin/systemd-nspawn");
    guest::assert_nothing_left(&before, Duration::from_secs(10));
}

#[test]
fn systemd_nspawn_serves_the_unit_as_the_oracle() {
    // Its nftables tables stay.
    let _ = life("/usr/bin/systemd-nspawn");
}
