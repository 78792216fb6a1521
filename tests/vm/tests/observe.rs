//! Watching containers on a host with every controller in version 2.

use std::time::Duration;

use vm::guest::{sh, wait_until, write};

/// How long something that must happen may take in a machine without KVM.
const SOON: Duration = Duration::from_secs(60);

#[test]
fn a_process_that_eats_its_memory_is_told_and_counted() {
    sh("ln -s /run/t/nixrun /usr/local/bin/nixrun");
    sh(
        "mkdir -p /var/ct/usr /var/ct/etc && for link in bin sbin lib lib64; do ln -s usr/$link /var/ct/$link; done",
    );
    sh("systemd-run -q --unit=events -p StandardOutput=file:/run/events.out nixrun events limited");
    wait_until("the listener", SOON, || !sh("ls /run/nixrun/.events 2>/dev/null || true").is_empty());
    // tail keeps what may be the last line, and there is no end of it.
    write("/var/ct/etc/eat", "tail /dev/zero\nexec sleep 1000\n");
    sh(
        "systemd-run -q --unit=limited -p Delegate=yes nixrun run -M limited --console=pipe -D /var/ct --bind-ro=/usr \
         --limit memory.max=32M --limit memory.swap.max=0 --limit cpu.max='50000 100000' --limit pids.max=50 \
         -- /bin/sh /etc/eat",
    );
    let events = || sh("cat /run/events.out");
    wait_until("an oom event", SOON, || events().contains(r#""event":"oom""#));
    let told = events();
    let oom = told.lines().find(|line| line.contains("oom")).unwrap_or_default();
    assert!(oom.contains(r#""detail":"1 killed""#), "{told}");
    assert!(told.lines().next().is_some_and(|line| line.contains(r#""event":"started""#)), "{told}");
    assert!(sh("journalctl -u limited --no-pager").contains("for want of memory"));

    let stats = sh("nixrun stats limited --json | tr -d ' \\n'");
    for part in [
        r#""memory":{"source":"cgroup","current":"#,
        r#""limit":33554432"#,
        r#""oom_kills":1"#,
        r#""pids":{"source":"cgroup""#,
        r#""limit":50"#,
        r#""io":{"source":"cgroup""#,
        r#""limit_usec_per_sec":500000"#,
    ] {
        assert!(stats.contains(part), "{part}: {stats}");
    }
    // The kernel's own figure for the most that there was: it came up to the limit.
    let group = sh("systemctl show -P ControlGroup limited");
    let peak = sh(&format!("cat /sys/fs/cgroup{group}/payload/memory.peak"));
    assert!(stats.contains(&format!(r#""peak":{peak},"#)), "{peak}: {stats}");
    assert!(peak.parse::<u64>().is_ok_and(|peak| peak > 30 << 20), "{peak}");
    let metrics = sh("nixrun metrics");
    assert!(metrics.contains("nixrun_container_oom_kills_total{name=\"limited\"} 1"), "{metrics}");
    assert!(metrics.contains("nixrun_container_memory_limit_bytes{name=\"limited\"} 33554432"), "{metrics}");

    // Its PID 1 listens to nothing.
    sh("nixrun kill limited");
    wait_until("the end to be told", SOON, || events().contains(r#""event":"exited""#));
    sh("systemctl stop events");
    assert_eq!(sh("ls -A /run/nixrun 2>/dev/null || true"), "", "something is left");
}
