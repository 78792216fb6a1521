//! `nixrun exec`: its status, its streams, its terminal, and what becomes of it.
#![forbid(unsafe_code)]

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use blackbox::{Container, Host, Pty, finish, nixrun_binary, on_host, wait_for};
use fixture::Kind;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A host with `mini` running.
fn running(test: impl FnOnce(&Host<'_>, Container<'_>) + Send) {
    on_host(|host| {
        host.install(Kind::Mini, "mini");
        let container = host.boot("mini");
        test(host, container);
    });
}

/// nixrun without the shell in front that chooses the control group: for terminals.
fn plain(host: &Host<'_>, args: &[&str]) -> Command {
    let mut command = Command::new(nixrun_binary());
    command.arg("--host-root").arg(host.dir()).args(args);
    command.env("TERM", "vt220").env("PATH", "/usr/bin:/bin");
    command
}

#[test]
fn the_commands_status_is_ours() {
    running(|host, container| {
        for (argv, code) in [
            (&["true"][..], 0),
            (&["sh", "-c", "exit 42"], 42),
            (&["sh", "-c", "exit 133"], 133),
            (&["sh", "-c", "kill -TERM $$"], 143),
            (&["sh", "-c", "kill -KILL $$"], 137),
            (&["no-such-command"], 127),
            (&["/no/such/command"], 127),
            (&["/etc"], 126),
            (&["/etc/passwd"], 126),
        ] {
            let mut all = vec!["exec", "mini", "--"];
            all.extend(argv);
            let finished = finish(&mut host.nixrun(&all));
            assert_eq!(finished.code, Some(code), "{argv:?}: {finished:?}");
            assert_eq!(
                finished.err.lines().count(),
                usize::from(code == 126 || code == 127),
                "{argv:?}: {finished:?}"
            );
        }
        assert_eq!(host.run(&["exec", "other", "--", "true"]).status.code(), Some(125));
        container.stop();
        let sentence = host.fails(125, &["exec", "mini", "--", "true"]);
        assert!(sentence.starts_with("container mini is not running"), "{sentence}");
    });
}

#[test]
fn streams_environment_and_directory() {
    running(|host, _container| {
        let mut command = host.nixrun(&[
            "exec",
            "-E",
            "A=1",
            "--chdir",
            "/etc",
            "mini",
            "--",
            "sh",
            "-c",
            "cat; pwd; echo $A $container >&2",
        ]);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // More than a pipe holds.
        let text = "0123456789\n".repeat(20_000);
        let input = text.clone();
        let mut stdin = child.stdin.take().unwrap();
        let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), text + "/etc\n");
        assert_eq!(String::from_utf8(output.stderr).unwrap(), "1 systemd-nspawn\n");
        // A script by a pipe, as nixos-container root-login is used in nixpkgs' tests.
        let mut command = host.nixrun(&["exec", "mini", "--", "sh"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(b"grep -o \"/sys/fs/cgroup cgroup2\" /proc/mounts; tty\n")
            .unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), "/sys/fs/cgroup cgroup2\nnot a tty\n");
    });
}

#[test]
fn on_a_terminal_the_command_has_one_with_its_size() {
    running(|host, _container| {
        let mut terminal = Pty::spawn(&plain(host, &["exec", "mini", "--", "sh", "-i"]), 37, 91);
        terminal.type_in("tty; stty size; echo $TERM-$((6 * 7))\n");
        terminal.expect("/dev/pts/");
        terminal.expect("37 91");
        terminal.expect("vt220-42");
        terminal.resize(20, 60);
        wait_for("the new size inside", || {
            terminal.type_in("stty size\n");
            std::thread::sleep(Duration::from_millis(50));
            terminal.expect("\n");
            terminal.expect("#");
            terminal.seen.contains("20 60").then_some(())
        });
        // Job control: ^C ends the command and not the shell.
        terminal.type_in("sleep 1000\n");
        std::thread::sleep(Duration::from_millis(100));
        terminal.type_in("\x03");
        terminal.type_in("echo still-$((1 + 1))\nexit 5\n");
        terminal.expect("still-2");
        assert_eq!(terminal.wait().0, Some(5));
    });
}

#[test]
fn a_killed_exec_takes_its_command_along() {
    running(|host, container| {
        let mut exec = host.nixrun(&["exec", "mini", "--", "sleep", "987"]).spawn().unwrap();
        let inside = || host.inside("mini", "ps -o args");
        wait_for("the command", || inside().contains("sleep 987").then_some(()));
        kill(Pid::from_raw(exec.id() as i32), Signal::SIGKILL).unwrap();
        exec.wait().unwrap();
        wait_for("its end", || (!inside().contains("sleep 987")).then_some(()));
        // A signal that can be passed on is.
        let mut exec = host
            .nixrun(&[
                "exec",
                "mini",
                "--",
                "sh",
                "-c",
                "trap 'exit 9' TERM; : > /tmp/up; while :; do sleep 0.01; done",
            ])
            .spawn()
            .unwrap();
        wait_for("its trap", || (host.inside("mini", "ls /tmp") == "up\n").then_some(()));
        kill(Pid::from_raw(exec.id() as i32), Signal::SIGTERM).unwrap();
        assert_eq!(exec.wait().unwrap().code(), Some(9));
        assert_eq!(container.stop().code, Some(0));
    });
}

#[test]
fn a_running_exec_does_not_hold_the_stop_up() {
    running(|host, container| {
        let mut exec = host.nixrun(&[
            "exec",
            "mini",
            "--",
            "sh",
            "-c",
            "trap '' TERM HUP INT; echo up; while :; do sleep 1; done",
        ]);
        let mut exec = exec.stdout(Stdio::piped()).spawn().unwrap();
        let mut byte = [0; 2];
        std::io::Read::read_exact(exec.stdout.as_mut().unwrap(), &mut byte).unwrap();
        let began = std::time::Instant::now();
        assert_eq!(container.stop().code, Some(0));
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        assert_eq!(exec.wait().unwrap().code(), Some(137), "it ended with its container");
    });
}

#[test]
fn an_interactive_console_has_the_terminals_size_and_ends_by_escapes() {
    on_host(|host| {
        let root = blackbox::probe_root(host, "t");
        let dir = root.to_str().unwrap().to_owned();
        let args = ["run", "-D", &dir, "-M", "t", "--", "/probe/busybox", "sh", "-i"];
        let mut terminal = Pty::spawn(&plain(host, &args), 33, 77);
        terminal
            .type_in("/probe/busybox stty size; /probe/busybox readlink /proc/1/fd/0; echo in-$((3 * 7))\n");
        terminal.expect("33 77");
        terminal.expect("/dev/console");
        terminal.expect("in-21");
        // Two are not enough, nor are three with something between.
        terminal.type_in("\x1d\x1dx\x1d");
        std::thread::sleep(Duration::from_millis(1100));
        terminal.type_in("\n echo alive-$((2 * 2))\n");
        terminal.expect("alive-4");
        terminal.type_in("\x1d\x1d\x1d");
        assert_eq!(terminal.wait().0, Some(1));
        assert!(host.processes().is_empty(), "{:?}", host.processes());
    });
}

#[test]
fn a_command_whose_exec_dies_before_it_runs_never_runs() {
    running(|host, container| {
        let group =
            format!("{}/nixrun-exec/cgroup.procs", container.state().unwrap()["cgroup"].as_str().unwrap());
        // The child is held at its first step, which ties it to its parent; until then nothing does.
        let delay = ["-f", "-o", "/dev/null", "-e", "inject=prctl:delay_enter=700000:when=1"];
        let mut strace =
            host.traced(&delay, &["exec", "mini", "--", "sh", "-c", "echo > /tmp/ran"]).spawn().unwrap();
        let children = format!("/proc/{0}/task/{0}/children", strace.id());
        // strace's first children try out what the kernel can do.
        let exec = wait_for("nixrun", || {
            let pid: i32 = std::fs::read_to_string(&children).ok()?.trim().parse().ok()?;
            (std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?.trim() == "nixrun").then_some(pid)
        });
        wait_for("its child", || {
            std::fs::read_to_string(&group).is_ok_and(|pids| !pids.is_empty()).then_some(())
        });
        // Time enough for the child to be told to go.
        std::thread::sleep(Duration::from_millis(200));
        kill(Pid::from_raw(exec), Signal::SIGKILL).unwrap();
        strace.wait().unwrap();
        wait_for("the child's end", || {
            std::fs::read_to_string(&group).map_or(true, |pids| pids.is_empty()).then_some(())
        });
        assert_eq!(host.inside("mini", "ls /tmp"), "");
    });
}

/// What is nixrun still, with its memory and its descriptors of the host, is not for those inside to look into: neither
/// while it has entered a user namespace and is nobody there yet, nor once it has no more capabilities than they.
#[test]
fn root_inside_cannot_look_into_an_exec_that_has_not_become_its_command() {
    let users = ["--private-users=3145728:65536", "--private-users-ownership=chown"];
    let cases = [(&users[..], "setgroups"), (&["--drop-capability=CAP_SYS_PTRACE"][..], "execve")];
    for (options, held) in cases {
        on_host(|host| {
            let root = blackbox::probe_root(host, "t");
            let look = "b=/probe/busybox; echo begun
                while :; do for p in /proc/[0-9]*; do
                    exe=$($b readlink $p/exe) || continue
                    case $exe in */busybox|*/bash) ;; *) echo \"caught $exe\" ;; esac
                done; done";
            let mut args = vec!["nspawn", "--console=pipe", "--machine=t", "-D", root.to_str().unwrap()];
            args.extend(options);
            args.extend(["/probe/bash", "-c", look]);
            let container = host.spawn("t", &args);
            wait_for("the container", || container.out().contains("begun").then_some(()));
            container.wait_ready();
            let hold = format!("inject={held}:delay_enter=1000000");
            let exec = ["exec", "t", "--", "/probe/busybox", "true"];
            let traced = host.traced(&["-f", "-o", "/dev/null", "-e", &hold], &exec).output().unwrap();
            assert!(traced.status.success(), "{traced:?}");
            let caught: Vec<String> = container.out().lines().skip(1).map(str::to_owned).collect();
            assert!(caught.is_empty(), "{options:?}: {} times: {}", caught.len(), caught[0]);
            assert!(host.run(&["kill", "t"]).status.success());
            container.wait();
        });
    }
}

/// Until its program runs a container's process has directories of the host open, as a command of exec has: a link that the
/// container has put where it is to start must not lead there.
#[test]
fn no_working_directory_is_one_of_the_hosts() {
    on_host(|host| {
        let root = blackbox::probe_root(host, "t");
        let descriptors = 3..40;
        for number in descriptors.clone() {
            let link = root.join(format!("d{number}"));
            std::os::unix::fs::symlink(format!("/proc/self/fd/{number}"), link).unwrap();
        }
        let start = |more: &[&str], script: &str| {
            let mut args = vec!["nspawn", "--console=pipe", "--machine=t", "-D", root.to_str().unwrap()];
            args.extend(["--private-users=3145728:65536", "--private-users-ownership=chown"]);
            args.extend_from_slice(more);
            args.extend(["/probe/bash", "-c", script]);
            host.spawn("t", &args)
        };
        for number in descriptors.clone() {
            let finished = start(&[&format!("--chdir=/d{number}")], "/probe/busybox ls -a ..").wait();
            assert!(finished.code != Some(0) && finished.out.is_empty(), "{number}: {}", finished.out);
        }
        let container = start(&[], "echo begun; exec /probe/busybox sleep 100000");
        wait_for("the container", || container.out().contains("begun").then_some(()));
        container.wait_ready();
        for number in descriptors {
            let directory = format!("--chdir=/d{number}");
            let output = host.run(&["exec", &directory, "t", "--", "/probe/busybox", "ls", "-a", ".."]);
            let out = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(!output.status.success() && out.is_empty(), "{number}: {out}");
        }
        host.ok(&["kill", "t"]);
        container.wait();
    });
}
