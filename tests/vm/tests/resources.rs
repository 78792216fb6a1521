//! Limits of the control group, enforced by a kernel that has every controller in version 2.

use vm::guest::{Said, attempt, sh};

/// A root with the guest's own programs, and nixrun where a user has it.
fn host() {
    sh("ln -s /run/t/nixrun /usr/local/bin/nixrun");
    sh(
        "mkdir -p /var/ct/usr /var/ct/etc && for link in bin sbin lib lib64; do ln -s usr/$link /var/ct/$link; done",
    );
}

/// Runs a script in a container, from a unit with these properties. The test's own unit has other processes.
fn container_in(unit: &str, options: &str, script: &str) -> Said {
    attempt(&format!(
        "systemd-run -q --pipe --wait --collect {unit} nixrun run -M limited --console=pipe -D /var/ct --bind-ro=/usr {options} \
         -- /bin/sh -c '{script}'"
    ))
}

/// The same in a scope that nixrun asks systemd for, since its unit has not been delegated to it.
fn container(options: &str, script: &str) -> Said {
    container_in("-p Delegate=no", options, script)
}

#[track_caller]
fn printed(options: &str, script: &str) -> String {
    let said = container(options, script);
    assert!(said.success, "{said:?}");
    said.stdout
}

#[test]
fn what_takes_too_much_memory_is_killed_and_the_rest_lives() {
    host();
    // tail keeps what may be the last line, and there is no end of it.
    let script = "tail /dev/zero; echo tail ended with $?; grep ^oom_kill /sys/fs/cgroup/memory.events; cat /sys/fs/cgroup/memory.max";
    let out = printed("--limit memory.max=32M --limit memory.swap.max=0", script);
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[0], "tail ended with 137", "{out}");
    assert!(lines[1].starts_with("oom_kill ") && lines[1] != "oom_kill 0", "{out}");
    assert_eq!(lines.last(), Some(&"33554432"), "{out}");
}

#[test]
fn no_more_processes_than_allowed_and_the_container_cannot_change_it() {
    host();
    let script = "echo max > /sys/fs/cgroup/pids.max || echo kept
        for i in 1 2 3 4 5 6 7 8 9; do sleep 100 & done; cat /sys/fs/cgroup/pids.max";
    // The shell that cannot fork ends, which ends the container.
    let said = container("--limit pids.max=6", script);
    assert!(!said.success && said.stderr.contains("fork"), "{said:?}");
    assert_eq!(said.stdout, "kept", "{said:?}");
    let enough = container("--limit pids.max=60", script);
    assert_eq!((enough.success, enough.stdout.as_str()), (true, "kept\n60"), "{enough:?}");
}

#[test]
fn every_limit_is_what_was_asked_for() {
    host();
    let script = "cd /sys/fs/cgroup; cat cpu.max cpu.weight memory.high memory.swap.max cpuset.cpus cpuset.cpus.effective io.max
        grep Cpus_allowed_list /proc/self/status";
    // / lies on the first disk, which is 254:0.
    let disk = sh("stat -c %Hr:%Lr /dev/vda");
    let options = "--limit \"cpu.max=30000 200000\" --limit cpu.weight=77 --limit memory.high=300M --limit memory.swap.max=1M \
        --limit cpuset.cpus=0 --limit \"io.max=/ rbps=1M wiops=100\"";
    let expected = format!(
        "30000 200000\n77\n314572800\n1048576\n0\n0\n{disk} rbps=1048576 wbps=max riops=max wiops=100\nCpus_allowed_list:\t0"
    );
    assert_eq!(printed(options, script), expected);
    // In a unit that was delegated, too.
    let in_unit = container_in("-p Delegate=yes", options, script);
    assert_eq!(in_unit.stdout, expected, "{in_unit:?}");
    // exec's commands are in the same group.
    sh(
        "systemd-run -q --unit=held -p Delegate=yes nixrun run -M limited -D /var/ct --bind-ro=/usr --limit cpuset.cpus=0 -- /bin/sleep 1000",
    );
    vm::guest::wait_until("the container runs", std::time::Duration::from_secs(60), || {
        attempt("nixrun exec limited -- /bin/true").success
    });
    assert_eq!(
        sh("nixrun exec limited -- /bin/grep Cpus_allowed_list /proc/self/status"),
        "Cpus_allowed_list:\t0"
    );
    sh("systemctl kill -s KILL held.service");
}

#[test]
fn a_unit_with_other_processes_shares_out_no_controllers() {
    host();
    let said = attempt(
        "nixrun run -M limited --console=pipe -D /var/ct --bind-ro=/usr --limit memory.max=32M -- /bin/echo started",
    );
    assert!(!said.success && said.stdout.is_empty(), "{said:?}");
    assert!(
        said.stderr.contains("other processes sit in /sys/fs/cgroup/system.slice/nixrun-test.service"),
        "{said:?}"
    );
    // Without a limit that needs them, the container does without.
    assert_eq!(
        sh("nixrun run -M limited --console=pipe -D /var/ct --bind-ro=/usr -- /bin/echo started"),
        "started"
    );
}
