//! Scenarios of NixOS's containers that need this machine's kernel or a systemd that is in charge.

use std::time::Duration;

use vm::guest::{self, attempt, property, sh, wait_until, write};

/// Under emulation the container needs about eight seconds to be ready, ten times what it takes on hardware.
const PATIENCE: Duration = Duration::from_secs(90);

/// A root with the guest's own programs, and nixrun where a user has it.
fn host() {
    sh("ln -s /run/t/nixrun /usr/local/bin/nixrun; ip link set lo up");
    sh("mkdir -p /var/ct/usr /var/ct/etc && echo ID=test > /var/ct/etc/os-release && \
        for link in bin sbin lib lib64; do ln -s usr/$link /var/ct/$link; done");
}

/// A container that goes on until it is stopped, as a unit; `script` is its PID 1's.
fn begin(how: &str, options: &str, script: &str) {
    write("/var/ct/etc/script", &format!("set -e; {script}\ntouch /run/up; exec sleep infinity\n"));
    sh(&format!(
        "systemd-run -q --unit=ct -p Delegate=yes -p KillMode=mixed nixrun {how} -M ct --console=pipe -D /var/ct \
         --bind-ro=/usr {options} -- /bin/sh /etc/script"
    ));
    wait_until("the container's program is there", PATIENCE, || {
        assert!(property("ct.service", "ActiveState") == "active", "{}", sh("journalctl -u ct -o cat"));
        attempt("nixrun exec ct -- /bin/test -e /run/up").success
    });
}

#[test]
fn sctp_is_forwarded() {
    host();
    sh("ip link add outside type dummy && ip addr add 192.0.2.1/24 dev outside && ip link set outside up");
    begin(
        "run",
        "-n --host-address=10.9.0.1 --local-address=10.9.0.2 --port=sctp:3868:3869",
        "socat -u SCTP-LISTEN:3869,fork OPEN:/run/heard,creat,append & until grep -q ' 3869 ' /proc/net/sctp/eps; do sleep 0.05; done",
    );
    for address in ["192.0.2.1:3868", "10.9.0.1:3868", "10.9.0.2:3869"] {
        sh(&format!("echo to {address} | socat -u - SCTP:{address}"));
        wait_until("it has arrived", PATIENCE, || {
            attempt(&format!("nixrun exec ct -- /bin/grep -qx 'to {address}' /run/heard")).success
        });
    }
    sh("systemctl stop ct.service");
    assert!(!attempt("echo x | socat -u - SCTP:192.0.2.1:3868,connect-timeout=1").success);
}

#[test]
fn physical_interfaces() {
    host();
    // Two links of the host become a bond inside, with a bridge on it.
    sh("ip link add wire1 type dummy && ip link add wire2 type dummy");
    let before = sh("ip -br link | awk '{print $1}' | sort");
    begin(
        "nspawn --keep-unit --register=no",
        "--network-interface=wire1 --network-interface=wire2",
        "ip link add bond0 type bond mode active-backup; ip link add br0 type bridge
         for link in wire1 wire2; do ip link set $link master bond0; done
         ip link set bond0 master br0; ip addr add 10.10.0.1/24 dev br0
         for link in wire1 wire2 bond0 br0; do ip link set $link up; done",
    );
    assert!(!attempt("ip link show wire1").success);
    let inside =
        sh("nixrun exec ct -- /bin/sh -c 'ip link show wire1; ip link show bond0; ip addr show br0'");
    for words in ["master bond0", "master br0", "10.10.0.1/24"] {
        assert!(inside.contains(words), "{words}: {inside}");
    }
    sh("systemctl stop ct.service");
    wait_until("the links are back", PATIENCE, || sh("ip -br link | awk '{print $1}' | sort") == before);
}

#[test]
fn require_bind_mounts() {
    guest::mount_closure();
    host();
    // As NixOS writes it: what is bound is required, so that its file system is mounted with the container, and the
    // container stops with it.
    sh(&format!(
        "install -D -m 644 {0}/1.conf /etc/nixos-containers/base.conf && \
         sed -i 's,^EXTRA_NSPAWN_FLAGS=.*,EXTRA_NSPAWN_FLAGS=\"--bind=/srv/data:/srv/data\",' /etc/nixos-containers/base.conf",
        guest::CLOSURE
    ));
    write("/etc/systemd/system/srv-data.mount", "[Mount]\nWhat=tmpfs\nWhere=/srv/data\nType=tmpfs\n");
    write(
        "/etc/systemd/system/container@.service",
        "[Unit]\nRequiresMountsFor=/srv/data\n[Service]\nType=notify\nExecStart=/usr/local/bin/nixrun boot %i\n\
         Delegate=true\nKillMode=mixed\nKillSignal=TERM\nSuccessExitStatus=133\n",
    );
    sh("systemctl daemon-reload");
    let unit = "container@base.service";
    sh(&format!("systemctl start {unit} || {{ journalctl -n 60 -u {unit} >&2; exit 1; }}"));
    assert_eq!(property("srv-data.mount", "ActiveState"), "active");
    let seen = sh(
        "nixrun exec base -- sh -c 'grep -c \" /srv/data .* tmpfs \" /proc/self/mountinfo; touch /srv/data/there'",
    );
    assert_eq!(seen, "1");
    sh("test -e /srv/data/there");
    sh("systemctl stop srv-data.mount");
    assert_eq!(property(unit, "ActiveState"), "inactive");
    assert_eq!(property(unit, "Result"), "success");
}

#[test]
fn nested() {
    guest::mount_closure();
    host();
    sh(&format!("install -D -m 644 {}/1.conf /etc/nixos-containers/base.conf", guest::CLOSURE));
    write(
        "/etc/nixrun/base.json",
        r#"{"nested": true, "bindMounts": {"/nixrun": {"hostPath": "/run/t/nixrun"}}}"#,
    );
    sh("systemd-run -q --unit=outer -p Delegate=yes -p KillMode=mixed -p Type=notify nixrun boot base || \
        { journalctl -n 60 -u outer >&2; exit 1; }");
    write(
        "/run/inner",
        "set -e; mkdir -p /etc/nixos-containers /var/lib/nixos-containers\n\
         printf 'SYSTEM_PATH=%s\\nPRIVATE_NETWORK=1\\nHOST_ADDRESS=10.1.0.1\\nLOCAL_ADDRESS=10.1.0.2\\n' \
            $(readlink -f /run/current-system) > /etc/nixos-containers/nested.conf\n\
         /nixrun start nested || { cat /var/log/nixrun/nested.log; exit 1; }\n\
         /nixrun exec nested -- systemctl is-system-running --wait\n\
         /nixrun exec nested -- cat /sys/fs/cgroup/cgroup.controllers | grep -o memory\n\
         curl -s http://10.1.0.2/; /nixrun stop nested\n",
    );
    let said = attempt("nixrun exec base -- bash -s < /run/inner");
    assert!(said.success, "{said:?}");
    for words in ["running", "memory", "base release 1"] {
        assert!(said.stdout.contains(words), "{words}: {said:?}");
    }
    assert_eq!(sh("nixrun exec base -- systemctl is-system-running --wait"), "running");
    sh("systemctl stop outer.service");
    assert_eq!(property("outer.service", "Result"), "success");
}
