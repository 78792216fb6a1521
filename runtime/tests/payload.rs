//! How PID 1 is run: as whom, from where, behind a stub, with which descriptors.

mod common;

use std::fs;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use common::{DETACHED, config, root, run, start};
use runtime::supervisor::Attached;
use runtime::{Console, ContainerConfig, ErrorKind, Outcome, Program, Supervisor};

fn stub(root: &Path, name: &str, script: &str) -> ContainerConfig {
    let mut config = config(root, name, script);
    config.payload.as_pid2 = true;
    config
}

/// Waits until the program has said that it is there, by a file in the root.
fn await_mark(root: &Path) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !root.join("mark").exists() {
        assert!(Instant::now() < deadline, "the program did not come up");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn signalled(supervisor: Supervisor, signal: i32) -> Outcome {
    let signal = format!("-{signal}");
    let done = std::process::Command::new("kill").args([&signal, &supervisor.pid().to_string()]).status();
    assert!(done.unwrap().success());
    supervisor.run(&DETACHED, |_| {}).unwrap().outcome
}

#[test]
fn a_stub_passes_the_programs_end_on() {
    let Some((_dir, root)) = root() else { return };
    assert_eq!(run(&stub(&root, "status", "exit 7")), Outcome::Exited(7));
    assert_eq!(
        run(&stub(&root, "killed", "busybox kill -9 $$")),
        Outcome::Exited(255),
        "systemd's EXIT_EXCEPTION"
    );
    assert_eq!(run(&stub(&root, "off", "/bin/busybox poweroff -f")), Outcome::PoweredOff);
}

#[test]
fn a_stub_is_pid_1_and_shows_nothing_of_ours() {
    let Some((_dir, root)) = root() else { return };
    let script = "b=/bin/busybox
        test $$ = 2 || exit 10
        test \"$($b cat /proc/1/comm)\" = nixrun-stub || exit 11
        test \"$($b tr -d '\\0' < /proc/1/cmdline)\" = nixrun-stub || exit 12
        $b tr '\\0' '\\n' < /proc/1/environ > /tmp/environ
        $b grep -qx container=systemd-nspawn /tmp/environ || exit 13
        test \"$($b grep -x container_uuid=.* /tmp/environ)\" = \"container_uuid=$container_uuid\" || exit 14
        test $($b grep -c . /tmp/environ) = 2 || exit 15
        test \"$($b ls /proc/1/fd | $b tr '\\n' ' ')\" = '0 1 2 ' || exit 16
        $b grep -q 'SigCgt:.*0003c0f000000002' /proc/1/status || exit 17
        $b grep -q 'SigBlk:.*0000000000000000' /proc/self/status || exit 18
        # Orphans are reaped: this one's parent is gone before it ends.
        ( $b sleep 0.1 & echo $! > /tmp/orphan )
        orphan=$($b cat /tmp/orphan)
        for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30; do
            test -e /proc/$orphan || exit 0; $b sleep 0.1
        done
        exit 19";
    assert_eq!(run(&stub(&root, "hidden", script)), Outcome::Exited(0));
}

#[test]
fn a_stub_understands_what_systemd_understands() {
    let Some((_dir, root)) = root() else { return };
    let script = "trap 'exit 3' TERM; : > /mark; while :; do /bin/busybox sleep 0.05; done";
    for (signal, expected) in [
        (37, Outcome::PoweredOff),
        (48, Outcome::PoweredOff),
        (2, Outcome::Rebooted),
        (39, Outcome::Rebooted),
        (50, Outcome::Rebooted),
    ] {
        let _ = fs::remove_file(root.join("mark"));
        let supervisor = start(&stub(&root, "signals", script)).unwrap();
        await_mark(&root);
        assert_eq!(signalled(supervisor, signal), expected, "signal {signal}");
    }
    // A shell that ignores the first signal listens to the second.
    let _ = fs::remove_file(root.join("mark"));
    let script = "trap '' TERM; trap 'exit 4' HUP; : > /mark; while :; do /bin/busybox sleep 0.05; done";
    let supervisor = start(&stub(&root, "hangup", script)).unwrap();
    await_mark(&root);
    assert_eq!(signalled(supervisor, 38), Outcome::PoweredOff);
}

#[test]
fn a_program_that_cannot_be_executed_is_named_from_behind_a_stub() {
    let Some((_dir, root)) = root() else { return };
    let mut config = stub(&root, "missing", "");
    config.payload.argv = vec!["/bin/no-such-program".into()];
    let error = start(&config).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PayloadMissing, "{error}");
    fs::write(root.join("bin/text"), "text").unwrap();
    config.payload.argv = vec!["/bin/text".into()];
    assert_eq!(start(&config).unwrap_err().kind(), ErrorKind::Payload);
}

#[test]
fn the_program_behind_a_stub_has_the_terminal() {
    let Some((dir, root)) = root() else { return };
    let script = "read -r pid _ _ _ group session tty _ < /proc/self/stat
        read -r _ _ _ _ _ _ stub _ < /proc/1/stat
        test -t 0 && test $tty != 0 && echo \"$$ $tty $stub\" | /bin/busybox sed 's/ [1-9][0-9]* / tty /'";
    let mut config = stub(&root, "terminal", script);
    config.console = Console::ReadOnly;
    let path = dir.path().join("output");
    let output = fs::File::create(&path).unwrap();
    let attached = Attached { output: Some(output.as_fd()), ..DETACHED };
    start(&config).unwrap().run(&attached, |_| {}).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "2 tty 0\r\n");
}

fn with_users(root: &Path) {
    fs::create_dir_all(root.join("etc")).unwrap();
    fs::write(
        root.join("etc/passwd"),
        "root:x:0:0::/root:/bin/sh\nada:x:1000:100::/home/ada:/bin/sh\nbroken:x:1:\n",
    )
    .unwrap();
    fs::write(root.join("etc/group"), "root:x:0:\nwheel:x:10:ada\nusers:x:100:\nvideo:x:12:bob,ada\n")
        .unwrap();
}

#[test]
fn another_user_than_root_has_its_ids_its_home_and_no_capabilities() {
    let Some((_dir, root)) = root() else { return };
    with_users(&root);
    let script = "b=/bin/busybox
        test \"$($b id -u):$($b id -g):$($b id -G)\" = '1000:100:100 10 12' || exit 10
        test \"$HOME $USER $LOGNAME\" = \"/home/ada $WHO $WHO\" || exit 11
        test \"$($b stat -c '%u:%g %a' /home/ada)\" = '1000:100 755' || exit 12
        test \"$($b stat -c '%u' /home)\" = 0 || exit 13
        $b grep -q 'CapEff:.*0000000000000000' /proc/self/status || exit 14
        $b grep -q 'CapInh:.*0000000000000000' /proc/self/status || exit 15
        $b grep -q 'CapBnd:.*0000000000000000' /proc/self/status && exit 16
        test \"$($b pwd)\" = / || exit 17
        exit 0";
    let mut config = config(&root, "user", script);
    for user in ["ada", "1000"] {
        config.payload.user = Some(user.into());
        config.payload.env = vec![("WHO".into(), user.into())];
        assert_eq!(run(&config), Outcome::Exited(0), "{user}");
        config.payload.as_pid2 = true;
    }
    // The terminal is the user's.
    config.payload.argv[3] = "test $(/bin/busybox stat -c %u:%g /dev/console) = 1000:100".into();
    config.console = Console::Passive;
    assert_eq!(run(&config), Outcome::Exited(0));
    // A number that nobody has.
    config.payload.user = Some("4711".into());
    config.payload.argv[3] = "test $(/bin/busybox id -u):$(/bin/busybox id -g):$HOME = 4711:4711:/".into();
    assert_eq!(run(&config), Outcome::Exited(0));
}

#[test]
fn a_user_that_the_container_does_not_have_is_refused() {
    let Some((_dir, root)) = root() else { return };
    with_users(&root);
    let mut config = config(&root, "nobody", "exit 0");
    let mut refused = |user: &str| {
        config.payload.user = Some(user.into());
        start(&config).unwrap_err().to_string()
    };
    assert!(refused("eve").contains("/etc/passwd does not have it"));
    assert!(refused("broken").contains("is broken"));
    // What the container has put in the file's place is not followed out, and not waited for.
    fs::remove_file(root.join("etc/passwd")).unwrap();
    std::os::unix::fs::symlink("/../../../../../../etc/passwd", root.join("etc/passwd")).unwrap();
    assert!(refused("daemon").contains("does not have it"));
    fs::remove_file(root.join("etc/passwd")).unwrap();
    nix::unistd::mkfifo(&root.join("etc/passwd"), nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    assert!(refused("ada").contains("does not have it"));
}

#[test]
fn the_working_directory_is_entered_as_the_user() {
    let Some((_dir, root)) = root() else { return };
    with_users(&root);
    fs::create_dir_all(root.join("srv")).unwrap();
    let mut config = config(&root, "cwd", "test \"$(/bin/busybox pwd)\" = /srv");
    config.payload.cwd = Some("/srv".into());
    config.payload.user = Some("ada".into());
    assert_eq!(run(&config), Outcome::Exited(0));
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    fs::set_permissions(root.join("srv"), private).unwrap();
    let error = start(&config).unwrap_err().to_string();
    assert!(error.contains("/srv") && error.contains("EACCES"), "{error}");
}

#[test]
fn a_login_shell_begins_at_home_and_an_init_is_found() {
    let Some((_dir, root)) = root() else { return };
    fs::create_dir_all(root.join("root")).unwrap();
    fs::create_dir_all(root.join("sbin")).unwrap();
    let script = "#!/bin/busybox sh
        echo \"$0 $# $LANG\" > /said\n";
    fs::write(root.join("sbin/init"), script).unwrap();
    let executable: fs::Permissions = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(root.join("sbin/init"), executable).unwrap();
    let mut config = config(&root, "init", "");
    config.payload.program = Program::Init;
    config.payload.argv = vec!["a".into(), "b".into()];
    assert_eq!(run(&config), Outcome::Exited(0));
    assert_eq!(fs::read_to_string(root.join("said")).unwrap(), "/sbin/init 2 \n");

    // busybox's shell reads the profile when its own name begins with a dash.
    fs::create_dir_all(root.join("etc")).unwrap();
    fs::write(root.join("etc/profile"), "/bin/busybox pwd > /said; exit 5\n").unwrap();
    config.payload.program = Program::Shell;
    config.payload.argv = Vec::new();
    assert_eq!(run(&config), Outcome::Exited(5));
    assert_eq!(fs::read_to_string(root.join("said")).unwrap(), "/root\n");

    fs::remove_file(root.join("sbin/init")).unwrap();
    config.payload.program = Program::Init;
    let error = start(&config).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PayloadMissing, "{error}");
    assert!(
        error.to_string().contains("/usr/lib/systemd/systemd, /lib/systemd/systemd, /sbin/init"),
        "{error}"
    );
}

#[test]
fn sockets_are_inherited_by_number() {
    let Some((_dir, root)) = root() else { return };
    // After these, descriptors 3 and 4 are open, be it by the test harness.
    let _files: Vec<fs::File> = (0..8).map(|_| fs::File::open("/etc/passwd").unwrap()).collect();
    let script = "b=/bin/busybox
        ( $b ls /proc/1/fd > /tmp/fds; exit )
        test \"$($b tr '\\n' ' ' < /tmp/fds)\" = \"$WANTED\" || exit 10
        test \"$LISTEN_FDS $LISTEN_PID\" = \"2 $$\" || exit 11
        $b readlink /proc/$$/fd/4 > /dev/null || exit 12
        exit 0";
    let mut config = config(&root, "sockets", script);
    config.payload.listen_fds = 2;
    config.payload.env = vec![("WANTED".into(), "0 1 2 3 4 ".into())];
    assert_eq!(run(&config), Outcome::Exited(0));
    config.payload.as_pid2 = true;
    config.payload.env = vec![("WANTED".into(), "0 1 2 ".into())];
    assert_eq!(run(&config), Outcome::Exited(0), "the stub keeps none");
    config.payload.listen_fds = 500;
    let error = start(&config).unwrap_err().to_string();
    assert!(error.contains("is not open"), "{error}");
}

#[test]
fn a_console_without_a_terminal_has_a_size_and_a_passive_one_no_reader() {
    let Some((dir, root)) = root() else { return };
    let path = dir.path().join("output");
    let output = fs::File::create(&path).unwrap();
    let attached = Attached { output: Some(output.as_fd()), ..DETACHED };
    let mut config = config(
        &root,
        "size",
        // Without a size busybox prints none, but an error, which must not get into the output.
        "b=/bin/busybox; while s=$($b stty size 2>/dev/null); test \"${s:-0 0}\" = '0 0'; do $b sleep 0.05; done; echo $s",
    );
    config.console = Console::ReadOnly;
    start(&config).unwrap().run(&attached, |_| {}).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "24 80\r\n");

    // More than any terminal holds: the writer waits, until it is ended.
    let script = "( /bin/busybox dd if=/dev/zero of=/dev/console bs=1M count=1; : > /written ) &
        /bin/busybox sleep 1; test -t 0 && test ! -e /written";
    config.payload.argv[3] = script.into();
    config.console = Console::Passive;
    assert_eq!(start(&config).unwrap().run(&attached, |_| {}).unwrap().outcome, Outcome::Exited(0));
    assert_eq!(fs::read_to_string(&path).unwrap(), "24 80\r\n");
}
