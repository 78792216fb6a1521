//! `run NAME -- CMD`, `root-login`, `login`: what nixos-container(8) does, without D-Bus.
#![forbid(unsafe_code)]

use std::io::Write;
use std::process::{Child, Command, Stdio};

use blackbox::{Container, Host, Pty, finish, nixrun_binary, on_host, wait_for};
use fixture::Kind;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

fn running(kind: Kind, name: &str, test: impl FnOnce(&Host<'_>, Container<'_>) + Send) {
    on_host(|host| {
        host.install(kind, name);
        let container = host.boot(name);
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

/// Output of a command that reads this.
fn fed(mut command: Command, input: &[u8]) -> (Option<i32>, Vec<u8>) {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
    let (mut stdin, input) = (child.stdin.take().unwrap(), input.to_owned());
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().unwrap();
    let _ = writer.join().unwrap();
    (output.status.code(), output.stdout)
}

#[test]
fn run_gives_a_command_roots_login_environment() {
    running(Kind::Base, "base", |host, container| {
        let out = host.ok(&[
            "run",
            "base",
            "--",
            "sh",
            "-c",
            "echo $HOME $USER $(id -u) $(pwd); cat /proc/self/comm",
        ]);
        assert_eq!(out, "/root root 0 /root\ncat\n");
        // Each word arrives as it is.
        let words = ["a b", "it's", "", "$HOME", "*", "x\ny", "\\"];
        let mut args = vec!["run", "base", "--", "printf", "[%s]"];
        args.extend(words);
        let expected: String = words.iter().map(|word| format!("[{word}]")).collect();
        assert_eq!(host.ok(&args), expected);
        for (argv, code) in [
            (&["sh", "-c", "exit 42"][..], 42),
            (&["sh", "-c", "kill -TERM $$"], 143),
            (&["no-such-command"], 127),
        ] {
            let args: Vec<&str> = ["run", "base", "--"].iter().chain(argv).copied().collect();
            assert_eq!(finish(&mut host.nixrun(&args)).code, Some(code), "{argv:?}");
        }
        // All bytes, and more of them than any buffer holds.
        let bytes: Vec<u8> = (0..3_000_000u32).map(|n| (n ^ (n >> 8)) as u8).collect();
        let (code, echoed) = fed(host.nixrun(&["run", "base", "--", "cat"]), &bytes);
        assert!(code == Some(0) && echoed == bytes, "{code:?}, {} bytes", echoed.len());
        let group = host.ok(&["run", "base", "--", "cat", "/proc/self/cgroup"]);
        assert!(group.contains("/nixrun-exec") || group.contains(".scope"), "{group}");
        container.stop();
        let sentence = host.fails(125, &["run", "base", "--", "true"]);
        assert!(sentence.starts_with("container base is not running"), "{sentence}");
    });
}

#[test]
fn root_login_takes_a_script_by_a_pipe_and_a_person_at_a_terminal() {
    running(Kind::Base, "base", |host, _container| {
        let script = b"echo $((6 * 7)); tty; echo $0 $HOME; exit 3\n";
        let (code, out) = fed(host.nixrun(&["root-login", "base"]), script);
        assert_eq!(
            (code, String::from_utf8(out).unwrap().as_str()),
            (Some(3), "42\nnot a tty\n-bash /root\n")
        );
        // The end of the input is the end of the shell, and the last command's status its own.
        assert_eq!(fed(host.nixrun(&["root-login", "base"]), b"false\n").0, Some(1));
        let mut terminal = Pty::spawn(&plain(host, &["root-login", "base"]), 31, 88);
        terminal.type_in("stty size; tty; echo $TERM-$((6 * 7))\n");
        terminal.expect("31 88");
        terminal.expect("/dev/pts/");
        terminal.expect("vt220-42");
        terminal.resize(20, 60);
        terminal
            .type_in("until [ \"$(stty size)\" = '20 60' ]; do sleep 0.02; done; echo resized-$((1 + 1))\n");
        terminal.expect("resized-2");
        // Job control: ^C ends the command and not the shell.
        terminal.type_in("echo be''gun; sleep 1000\n");
        terminal.expect("begun");
        terminal.type_in("\x03");
        terminal.type_in("echo still-$((1 + 1))\nexit 5\n");
        terminal.expect("still-2");
        assert_eq!(terminal.wait().0, Some(5));
    });
}

#[test]
fn login_asks_who_it_is() {
    running(Kind::Base, "base", |host, container| {
        let mut terminal = Pty::spawn(&plain(host, &["login", "base"]), 24, 80);
        terminal.expect("base login: ");
        // The sample's PAM asks who is root here for no password.
        terminal.type_in("root\n");
        terminal.type_in("tty; stty size; echo $USER-$((6 * 7))\n");
        terminal.expect("/dev/pts/");
        terminal.expect("24 80");
        terminal.expect("root-42");
        terminal.type_in("exit\n");
        assert!(terminal.wait().0.is_some());
        // A prompt that nobody answers holds nothing up.
        let mut forgotten = Pty::spawn(&plain(host, &["login", "base"]), 24, 80);
        forgotten.expect("login: ");
        assert_eq!(container.stop().code, Some(0));
    });
    on_host(|host| {
        let root = blackbox::probe_root(host, "mini");
        let args =
            ["run", "-D", root.to_str().unwrap(), "-M", "mini", "--", "/probe/busybox", "sleep", "100000"];
        let _container = host.spawn("mini", &args);
        wait_for("the container", || {
            host.run(&["exec", "mini", "/probe/busybox", "true"]).status.success().then_some(())
        });
        let sentence = host.fails(125, &["login", "mini"]);
        assert!(
            sentence.starts_with("cannot log in to container mini: there is no login program"),
            "{sentence}"
        );
    });
}

#[test]
fn without_su_it_is_roots_shell() {
    running(Kind::Mini, "mini", |host, _container| {
        assert_eq!(host.ok(&["run", "mini", "--", "sh", "-c", "echo $HOME $0"]), "/root sh\n");
        let (code, out) = fed(host.nixrun(&["root-login", "mini"]), b"echo $((6 * 7)); exit 4\n");
        assert_eq!((code, String::from_utf8_lossy(&out).as_ref()), (Some(4), "42\n"));
    });
}

#[test]
fn a_container_with_users_of_its_own_has_its_own_root() {
    on_host(|host| {
        let root = blackbox::probe_root(host, "t");
        let users = ["--private-users=3145728:65536", "--private-users-ownership=chown"];
        let mut args = vec!["nspawn", "--console=pipe", "--machine=t", "-D", root.to_str().unwrap()];
        args.extend(users);
        args.extend(["/probe/bash", "-c", "echo begun; exec /probe/busybox sleep 100000"]);
        let container = host.spawn("t", &args);
        wait_for("the container", || container.out().contains("begun").then_some(()));
        container.wait_ready();
        std::fs::create_dir_all(root.join("etc")).unwrap();
        std::fs::write(root.join("etc/passwd"), "root:x:0:0::/:/probe/bash\n").unwrap();
        let out = host.ok(&["run", "t", "--", "/probe/busybox", "cat", "/proc/self/uid_map"]);
        assert_eq!(out.split_whitespace().collect::<Vec<_>>(), ["0", "3145728", "65536"]);
        host.ok(&["kill", "t"]);
        container.wait();
    });
}

#[test]
fn a_container_and_a_root_are_not_both_named() {
    on_host(|host| {
        let dir = host.dir().to_str().unwrap().to_owned();
        let both = host.fails(2, &["run", "-D", &dir, "web", "--", "true"]);
        assert!(both.contains("\"web\" of one that runs cannot be used together"), "{both}");
        for neither in [&["run"][..], &["run", "--", "true"], &["run", "web"]] {
            let sentence = host.fails(2, neither);
            assert!(sentence.starts_with("give a container that runs and a command"), "{sentence}");
        }
    });
}

/// A nixrun with a command inside that has begun.
fn begun(host: &Host<'_>, container: &Container<'_>, name: &str, script: &str) -> Child {
    let script = format!("{script}\n: > /tmp/begun; while :; do sleep 0.1; done");
    let child = host.nixrun(&["exec", name, "--", "sh", "-c", &script]).stdin(Stdio::null()).spawn().unwrap();
    let file = format!("/proc/{}/root/tmp/begun", container.leader());
    wait_for("the command", || std::fs::remove_file(&file).ok());
    child
}

fn send(child: &Child, signal: Signal) {
    kill(Pid::from_raw(child.id() as i32), signal).unwrap();
}

#[test]
fn a_suspended_exec_does_not_hold_the_end_up() {
    running(Kind::Mini, "mini", |host, container| {
        let mut exec = begun(host, &container, "mini", "");
        send(&exec, Signal::SIGSTOP);
        assert_eq!(container.stop().code, Some(0));
        send(&exec, Signal::SIGCONT);
        assert!(matches!(exec.wait().unwrap().code(), Some(129 | 137 | 143)));
        // One that ends at once, with PID 1, and nothing to ask it.
        let container = host.boot("mini");
        let mut exec = begun(host, &container, "mini", "trap '' HUP TERM");
        send(&exec, Signal::SIGSTOP);
        kill(Pid::from_raw(container.leader()), Signal::SIGKILL).unwrap();
        assert_eq!(container.wait().code, Some(1));
        send(&exec, Signal::SIGCONT);
        assert_eq!(exec.wait().unwrap().code(), Some(137));
        assert!(host.processes().is_empty(), "{:?}", host.processes());
    });
}

#[test]
fn a_command_ends_with_who_waits_for_it() {
    running(Kind::Mini, "mini", |host, container| {
        let group =
            container.state().unwrap()["cgroup"].as_str().unwrap().to_owned() + "/nixrun-exec/cgroup.procs";
        let commands = || std::fs::read_to_string(&group).unwrap_or_default();
        for victim in ["nixrun", "attendant"] {
            let mut exec = begun(host, &container, "mini", "trap '' HUP TERM");
            let command = commands().lines().next().unwrap().to_owned();
            let stat = std::fs::read_to_string(format!("/proc/{command}/stat")).unwrap();
            let parent: i32 =
                stat.rsplit_once(')').unwrap().1.split_whitespace().nth(1).unwrap().parse().unwrap();
            assert_ne!(parent, exec.id() as i32, "a nixrun that is suspended would not reap it");
            let pid = if victim == "nixrun" { exec.id() as i32 } else { parent };
            kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
            let status = exec.wait().unwrap();
            assert!(victim == "nixrun" || status.code() == Some(137), "{victim}: {status:?}");
            wait_for("the end of the command", || commands().is_empty().then_some(()));
        }
        assert_eq!(container.stop().code, Some(0));
    });
}

/// systemd waits for every process there is, for 90 s.
#[test]
fn forgotten_commands_hold_up_neither_a_stop_nor_a_reboot_of_systemd() {
    running(Kind::Base, "base", |host, container| {
        let mut waiting = begun(host, &container, "base", "");
        let mut suspended = begun(host, &container, "base", "(sleep 0.5; kill -STOP $$) &");
        let mut shell = Pty::spawn(&plain(host, &["root-login", "base"]), 24, 80);
        shell.type_in("echo up-$((1 + 1))\n");
        shell.expect("up-2");
        let before = container.leader();
        host.ok(&["exec", "base", "--", "systemctl", "reboot"]);
        wait_for("the reboot", || {
            let state = container.state()?;
            (state["leader"]["pid"] != before && state["ready"] == true).then_some(())
        });
        for exec in [&mut waiting, &mut suspended] {
            assert!(exec.wait().unwrap().code().is_some_and(|code| code > 128));
        }
        assert!(shell.wait().0.is_some_and(|code| code > 128));
        let mut stubborn = begun(host, &container, "base", "trap '' HUP TERM");
        send(&stubborn, Signal::SIGSTOP);
        assert_eq!(container.stop().code, Some(0));
        send(&stubborn, Signal::SIGCONT);
        assert_eq!(stubborn.wait().unwrap().code(), Some(137));
    });
}
