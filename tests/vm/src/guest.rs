//! What tests use inside the machine. Everything here panics elsewhere, because it changes the host it runs on.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// Where the payload's files are: the test binary, and `nixrun` where it was given.
pub const PAYLOAD: &str = "/run/t";

/// Where the closure's disk is mounted.
pub const CLOSURE: &str = "/run/closure";

/// Set by the machine's agent, and by nothing else.
const MARK: &str = "NIXRUN_IN_VM";

/// Panics unless it is called in a virtual machine of this package.
///
/// # Panics
/// Outside the virtual machine.
pub fn assert_in_machine() {
    let marked = std::env::var(MARK).as_deref() == Ok("1");
    assert!(
        marked && Path::new("/usr/lib/nixrun-vm/agent").exists(),
        "this test changes the machine it runs on: run it with `cargo xtask vm test`"
    );
}

/// What a program printed and how it ended.
#[derive(Debug)]
pub struct Said {
    /// Whether it ended with 0.
    pub success: bool,
    /// Exit status, or -1 when a signal ended it.
    pub status: i32,
    /// Its standard output, trimmed.
    pub stdout: String,
    /// Its standard error, trimmed.
    pub stderr: String,
}

/// Runs a command line (text for sh) to its end.
///
/// # Panics
/// Outside the virtual machine, and when sh cannot be started.
#[must_use]
pub fn attempt(command: &str) -> Said {
    assert_in_machine();
    let output = Command::new("sh").args(["-c", command]).output();
    let output = output.unwrap_or_else(|error| panic!("starting sh for `{command}`: {error}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    Said {
        success: output.status.success(),
        status: output.status.code().unwrap_or(-1),
        stdout: text(&output.stdout),
        stderr: text(&output.stderr),
    }
}

/// Runs a command line that must succeed and returns its standard output, trimmed.
///
/// # Panics
/// Outside the virtual machine, and when the command fails, with all it said.
#[track_caller]
pub fn sh(command: &str) -> String {
    let said = attempt(command);
    assert!(said.success, "`{command}` ended with {}:\n{}\n{}", said.status, said.stdout, said.stderr);
    said.stdout
}

/// Waits until `condition` holds.
///
/// # Panics
/// Outside the virtual machine, and when it does not hold within `timeout`.
#[track_caller]
pub fn wait_until(what: &str, timeout: Duration, mut condition: impl FnMut() -> bool) {
    assert_in_machine();
    let deadline = Instant::now() + timeout;
    while !condition() {
        assert!(Instant::now() < deadline, "waited {} s until {what}", timeout.as_secs());
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A property of a systemd unit, such as `ActiveState`.
///
/// # Panics
/// Outside the virtual machine, and when systemctl fails.
#[track_caller]
#[must_use]
pub fn property(unit: &str, name: &str) -> String {
    sh(&format!("systemctl show -P {name} {unit}"))
}

/// Writes a file, with the directories above it.
///
/// # Panics
/// Outside the virtual machine, and when it cannot be written.
#[track_caller]
pub fn write(path: &str, text: &str) {
    assert_in_machine();
    let parent = Path::new(path).parent().unwrap_or(Path::new("/"));
    let written = fs::create_dir_all(parent).and_then(|()| fs::write(path, text));
    written.unwrap_or_else(|error| panic!("writing {path}: {error}"));
}

/// Makes the closure's disk the machine's /nix: its store read-only, its database and the rest writable.
///
/// # Panics
/// Outside the virtual machine, and when the test was started without a closure.
#[track_caller]
pub fn mount_closure() {
    fs::create_dir_all(CLOSURE).unwrap_or_else(|error| panic!("creating {CLOSURE}: {error}"));
    sh(&format!(
        "mount -t ext4 -o ro /dev/vdc {CLOSURE} && mount --bind {CLOSURE}/store /nix/store && \
         cp -a {CLOSURE}/var/nix/db/. /nix/var/nix/db/ && mkdir -p /nix/var/nix/daemon-socket"
    ));
}

/// The links, addresses, rules, mounts, cgroups and files that a container may leave behind, as sorted lines:
/// equal before and after means that it left nothing.
///
/// # Panics
/// Outside the virtual machine, and when one of the lists cannot be had.
#[must_use]
pub fn footprint() -> String {
    [
        "ip -br link | sed 's/@[^ ]*//' | sort",
        "ip -br address | sed 's/@[^ ]*//' | sort",
        "ip route show table all | sort; ip -6 route show table all | sort",
        "nft list ruleset",
        "cut -d' ' -f4- /proc/self/mountinfo | sort",
        "find /sys/fs/cgroup -type d -path '*/machine.slice/*' | sort",
        "find /run -xdev '(' -path /run/udev -o -path /run/systemd -o -path /run/log ')' -prune -o -print | sort",
        // The directories themselves are systemd's, and stay once something has used them.
        "find /run/systemd/machines /run/systemd/nspawn ! -type d 2>/dev/null | sort",
        "sysctl net.ipv4.ip_forward net.ipv6.conf.all.forwarding net.ipv4.conf.all.route_localnet",
    ]
    .map(|command| format!("$ {command}\n{}\n", sh(command)))
    .concat()
}

/// Checks that the machine is again what it was when [`footprint`] gave `before`, at the latest after `patience`.
///
/// # Panics
/// Outside the virtual machine, and when it is not, with the lines that are missing (-) and new (+).
#[track_caller]
pub fn assert_nothing_left(before: &str, patience: Duration) {
    let deadline = Instant::now() + patience;
    let mut now = footprint();
    while now != before && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(100));
        now = footprint();
    }
    let changes: Vec<String> = only_in(before, &now, '-').chain(only_in(&now, before, '+')).collect();
    assert!(now == before, "the machine is not as it was:\n{}", changes.join("\n"));
}

fn only_in(text: &str, other: &str, sign: char) -> impl Iterator<Item = String> {
    let has = |line: &&str| !other.lines().any(|found| found == *line);
    text.lines().filter(has).map(|line| format!("{sign} {line}")).collect::<Vec<_>>().into_iter()
}
