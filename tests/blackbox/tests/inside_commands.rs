//! `run NAME -- CMD`, `root-login`, `login`: what nixos-container(8) does, without D-Bus.
#![forbid(unsafe_code)]

use std::io::Write;
use std::process::{Command, Stdio};

use blackbox::{Container, Host, Pty, finish, nixrun_binary, on_host, wait_for};
use fixture::Kind;

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
