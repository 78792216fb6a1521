//! Launching real containers through the library, in mount and network namespaces of each test's own.

mod common;

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, Instant};

use common::{DETACHED, config, own_namespaces, root, run, start};
use nix::mount::{MsFlags, mount};
use runtime::supervisor::{Attached, Event};
use runtime::{Console, ErrorKind, HostFacts, HostPaths, Outcome, Plan};

#[test]
fn the_exit_status_comes_back() {
    let Some((_dir, root)) = root() else { return };
    assert_eq!(run(&config(&root, "status", "exit 7")), Outcome::Exited(7));
    assert_eq!(
        run(&config(&root, "killed", "busybox kill -9 $$; exit 0")),
        Outcome::Exited(0),
        "PID 1 cannot kill itself"
    );
    assert_eq!(run(&config(&root, "off", "busybox poweroff -f")), Outcome::PoweredOff);
    assert_eq!(run(&config(&root, "reboot", "busybox reboot -f")), Outcome::Rebooted);
}

#[test]
fn the_container_is_alone_and_ready_made() {
    let Some((_dir, root)) = root() else { return };
    let script = "b=/bin/busybox
        test $$ = 1 || exit 10
        test \"$($b hostname)\" = \"$($b cat /proc/sys/kernel/hostname)\" || exit 11
        test \"$($b ls /sys/class/net)\" = lo || exit 12
        $b touch /proc/sys/kernel/x 2>/dev/null && exit 13
        echo b > /proc/sysrq-trigger && exit 14
        $b mknod /tmp/sda b 8 0 2>/dev/null && exit 15
        ( $b ls /proc/1/fd > /tmp/fds; exit ); test \"$($b wc -l < /tmp/fds)\" = 3 || exit 16
        $b grep -q 'NoNewPrivs:.*0' /proc/self/status || exit 17
        $b grep -q 'SigIgn:.*0000000000000000' /proc/self/status || exit 18
        test \"$($b cat /proc/self/cgroup | $b grep ^0::)\" = 0::/ || exit 19
        $b test -e /run/host/container-manager || exit 20
        exit 0";
    assert_eq!(run(&config(&root, "alone", script)), Outcome::Exited(0));
}

/// pivot_root replaces the caller's root only: in a chroot it would leave the host's as the namespace's, for everyone
/// who enters it.
#[test]
fn a_container_of_a_chroot_has_no_way_to_the_hosts_root() {
    let Some((dir, root)) = root() else { return };
    fs::write(root.join("mark"), "").unwrap();
    let script = "/bin/busybox nsenter --mount=/proc/self/ns/mnt /bin/busybox test -e /mark";
    let config = config(&root, "chroot", script);
    let outcome = std::thread::spawn(move || {
        own_namespaces();
        let none: Option<&str> = None;
        let inner = dir.path().join("inner");
        fs::create_dir(&inner).unwrap();
        mount(Some("/"), &inner, none, MsFlags::MS_BIND | MsFlags::MS_REC, none).unwrap();
        nix::unistd::chroot(&inner).unwrap();
        run(&config)
    });
    assert_eq!(outcome.join().unwrap(), Outcome::Exited(0));
}

#[test]
fn a_missing_program_is_named_and_nothing_is_left() {
    let Some((_dir, root)) = root() else { return };
    let mut config = config(&root, "missing", "");
    config.payload.argv = vec!["/bin/no-such-program".into()];
    let error = start(&config).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PayloadMissing);
    assert!(error.to_string().contains("/bin/no-such-program"), "{error}");
    let plan = Plan::new(&config, &HostFacts::probe(&HostPaths::default()).unwrap()).unwrap();
    assert!(!plan.cgroup.payload.exists());
}

#[test]
fn a_symlink_in_the_place_of_an_api_file_system_is_refused_by_name() {
    let Some((dir, root)) = root() else { return };
    symlink(dir.path(), root.join("proc")).unwrap();
    let error = start(&config(&root, "symlink", "exit 0")).unwrap_err().to_string();
    assert!(error.contains("/proc proc") && error.contains("ELOOP"), "{error}");
}

#[test]
fn a_stop_before_the_program_listens_is_not_lost() {
    let Some((_dir, root)) = root() else { return };
    let script = "busybox() { /bin/busybox \"$@\"; }; busybox sleep 0.3; trap 'exit 5' TERM; while :; do busybox sleep 0.05; done";
    let supervisor = start(&config(&root, "early", script)).unwrap();
    supervisor.stopper().stop();
    let mut events = Vec::new();
    let end = supervisor.run(&DETACHED, |event| events.push(event)).unwrap();
    assert_eq!(end.outcome, Outcome::Exited(5));
    assert_eq!(events, [Event::NotListening(libc::SIGTERM), Event::Stopping(libc::SIGTERM)]);
}

#[test]
fn a_program_that_ignores_the_stop_is_killed_after_the_grace() {
    let Some((_dir, root)) = root() else { return };
    let script = "trap '' TERM; while :; do /bin/busybox sleep 1; done";
    let supervisor = start(&config(&root, "deaf", script)).unwrap();
    supervisor.stopper().stop();
    let attached = Attached { grace: Duration::from_millis(300), ..DETACHED };
    let end = supervisor.run(&attached, |_| {}).unwrap();
    assert_eq!(end.outcome, Outcome::Killed(libc::SIGKILL));
}

#[test]
fn a_dropped_supervisor_takes_the_container_with_it() {
    let Some((_dir, root)) = root() else { return };
    let supervisor =
        start(&config(&root, "drop", "/bin/busybox sleep 1000 & /bin/busybox sleep 1000")).unwrap();
    let (group, pid) = (supervisor.cgroup().to_path_buf(), supervisor.pid());
    assert!(Path::new(&format!("/proc/{pid}")).exists());
    drop(supervisor);
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
    assert!(!group.exists());
}

#[test]
fn a_group_with_another_containers_processes_is_left_alone() {
    let Some((_dir, root)) = root() else { return };
    let config = config(&root, "taken", "trap 'exit 4' TERM; while :; do /bin/busybox sleep 0.05; done");
    let first = start(&config).unwrap();
    let error = start(&config).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
    first.stopper().stop();
    assert_eq!(first.run(&DETACHED, |_| {}).unwrap().outcome, Outcome::Exited(4));
}

#[test]
fn the_end_of_the_launching_thread_ends_the_container() {
    let Some((_dir, root)) = root() else { return };
    let config = config(&root, "thread", "/bin/busybox sleep 1000");
    let supervisor = std::thread::spawn(move || start(&config).unwrap()).join().unwrap();
    let begun = Instant::now();
    let end = supervisor.run(&DETACHED, |_| {}).unwrap();
    assert_eq!(end.outcome, Outcome::Killed(libc::SIGKILL));
    assert!(begun.elapsed() < Duration::from_secs(500), "it ended by itself");
}

#[test]
fn the_console_is_a_terminal_whose_output_arrives() {
    use std::io::Read;
    let Some((dir, root)) = root() else { return };
    let mut config = config(&root, "console", "test -t 0 && test -t 1 && echo on the console; exit 3");
    config.console = Console::ReadOnly;
    let path = dir.path().join("output");
    let output = fs::File::create(&path).unwrap();
    let attached = Attached { output: Some(output.as_fd()), ..DETACHED };
    let end = start(&config).unwrap().run(&attached, |_| {}).unwrap();
    let mut text = String::new();
    fs::File::open(&path).unwrap().read_to_string(&mut text).unwrap();
    assert_eq!((end.outcome, text.as_str()), (Outcome::Exited(3), "on the console\r\n"));
}
