//! `nixrun logs`, with journalctl inside as the oracle.
#![forbid(unsafe_code)]

use std::io::{BufRead, BufReader};
use std::os::unix::fs::symlink;
use std::process::{Child, ChildStdout, Stdio};

use blackbox::{Host, on_host, wait_for};
use fixture::Kind;

/// nixrun logs, in UTC as the containers are.
fn logs(host: &Host<'_>, args: &[&str]) -> String {
    let mut command = host.nixrun(&["logs"]);
    let output = command.args(args).env("TZ", "UTC").output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn journalctl(host: &Host<'_>, args: &str) -> String {
    let text = host.inside("base", &format!("TZ=UTC journalctl --no-pager --quiet --no-hostname {args}"));
    text.lines().filter(|line| !line.starts_with("-- ")).map(|line| format!("{line}\n")).collect()
}

/// Lines without the host's name, which changes while a container boots.
fn nameless(text: &str) -> String {
    let cut = |line: &str| match line.get(16..) {
        Some(rest) if !line.starts_with(' ') => {
            format!("{}{}\n", &line[..16], rest.split_once(' ').map_or("", |(_, rest)| rest))
        }
        _ => format!("{}\n", line.trim_start()),
    };
    text.lines().map(cut).collect()
}

fn follow(host: &Host<'_>, args: &[&str]) -> (Child, std::io::Lines<BufReader<ChildStdout>>) {
    let mut command = host.nixrun(&["logs", "-f"]);
    let mut child = command.args(args).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    (child, lines)
}

/// Reads on until a line has this.
fn expect(lines: &mut std::io::Lines<BufReader<ChildStdout>>, text: &str) -> Vec<String> {
    let mut all = Vec::new();
    for line in lines {
        let line = line.unwrap();
        let found = line.contains(text);
        all.push(line);
        if found {
            return all;
        }
    }
    panic!("{text} did not come: {all:?}");
}

/// journald has taken what was logged before.
fn settled(host: &Host<'_>) {
    host.inside("base", "journalctl --sync");
}

#[test]
fn a_containers_journal_is_what_journalctl_says() {
    on_host(|host| {
        host.install(Kind::Base, "base");
        let container = host.boot("base");
        let long = "long-0123456789".repeat(400);
        host.inside("base", &format!("echo {long} | systemd-cat -t packed -p err"));
        host.inside("base", "printf 'a\\033[31mb\\007c\\n' | systemd-cat -t bad");
        // A message of two lines, by journald's own protocol.
        let two = r"MESSAGE\n\007\0\0\0\0\0\0\0one\ntwo\nSYSLOG_IDENTIFIER=two\n";
        host.inside(
            "base",
            &format!("printf '{two}' | socat -u STDIN UNIX-SENDTO:/run/systemd/journal/socket"),
        );
        settled(host);
        let ours = logs(host, &["base"]);
        let theirs = journalctl(host, "--all");
        let (bad, ours): (Vec<&str>, Vec<&str>) = ours.lines().partition(|line| line.contains(" bad"));
        assert_eq!(bad.len(), 1);
        assert!(bad[0].ends_with(": ab\\x07c"), "{bad:?}");
        let theirs: String = theirs
            .lines()
            .filter(|line| !line.contains(" bad"))
            .map(|l| format!("{}\n", l.trim_start()))
            .collect();
        assert_eq!(nameless(&(ours.join("\n") + "\n")), theirs);
        assert!(theirs.contains(&long), "the packed one");
        // The last lines, and those of a unit.
        let last = journalctl(host, "-n 5");
        assert_eq!(logs(host, &["-n", "5", "base"]).lines().count(), last.lines().count());
        let unit = journalctl(host, "-u dbus");
        assert!(unit.lines().count() > 1, "{unit}");
        assert_eq!(nameless(&logs(host, &["-u", "dbus", "base"])), unit);
        assert_eq!(
            nameless(&logs(host, &["-u", "dbus.service", "-n", "1", "base"])),
            journalctl(host, "-u dbus -n 1")
        );
        // For a program.
        let json = logs(host, &["--json", "base"]);
        let lines: Vec<serde_json::Value> =
            json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let packed = lines.iter().find(|line| line["identifier"] == "packed").unwrap();
        assert_eq!((packed["message"].as_str(), packed["priority"].as_u64()), (Some(long.as_str()), Some(3)));
        assert_eq!(packed["host"], "base");
        // It is there when the container is not.
        assert_eq!(container.stop().code, Some(0));
        let after = logs(host, &["base"]);
        assert!(after.contains(&long) && after.contains("Reached target shutdown.target"), "{after}");
    });
}

#[test]
fn follow_sees_what_comes_through_rotation_and_a_new_start() {
    on_host(|host| {
        host.install(Kind::Base, "base");
        let container = host.boot("base");
        host.inside("base", "for i in $(seq 30); do echo line-$i; done | systemd-cat -t old");
        settled(host);
        let (mut child, mut lines) = follow(host, &["base"]);
        let first = expect(&mut lines, "line-30");
        assert!(first.len() <= 10, "{first:?}");
        host.inside("base", "echo before-rotation | systemd-cat -t new");
        let seen = expect(&mut lines, "before-rotation");
        assert!(!seen.iter().any(|line| line.contains(": line-")), "twice: {seen:?}");
        host.inside("base", "journalctl --rotate; echo after-rotation | systemd-cat -t new");
        let seen = expect(&mut lines, "after-rotation");
        assert!(!seen.iter().any(|line| line.contains("before-rotation")), "twice: {seen:?}");
        assert_eq!(container.stop().code, Some(0));
        let _container = host.boot("base");
        host.inside("base", "echo after-restart | systemd-cat -t new");
        expect(&mut lines, "after-restart");
        // It ends when nobody reads it.
        drop(lines);
        host.inside("base", "echo nobody | systemd-cat -t new");
        wait_for("its end", || child.try_wait().unwrap());
    });
}

#[test]
fn without_a_journal_it_is_the_console() {
    on_host(|host| {
        host.install(Kind::Mini, "mini");
        host.ok(&["start", "mini"]);
        let text = logs(host, &["mini"]);
        assert!(text.contains("<<< NixOS-shaped stage 2: "), "{text}");
        assert_eq!(logs(host, &["--console", "-n", "1", "mini"]).lines().count(), 1);
        let (mut child, mut lines) = follow(host, &["mini"]);
        expect(&mut lines, "NixOS-shaped stage 2");
        host.inside("mini", "printf 'from \\033[1minside\\033[0m\\n' > /dev/console");
        let seen = expect(&mut lines, "from ");
        assert_eq!(seen.last().map(String::as_str), Some("from inside"));
        child.kill().unwrap();
        child.wait().unwrap();
        let sentence = host.fails(1, &["logs", "-u", "a", "mini"]);
        assert!(sentence.contains("the container has no journal"), "{sentence}");
        host.ok(&["stop", "mini"]);
        let other = host.fails(1, &["logs", "mine"]);
        assert!(other.contains("did you mean \"mini\"?"), "{other}");
    });
}

/// What a container puts where its journal should be leads nowhere, and ends nothing.
#[test]
fn a_hostile_journal_shows_nothing_of_the_host() {
    on_host(|host| {
        host.install(Kind::Base, "base");
        assert_eq!(host.boot("base").stop().code, Some(0));
        let root = host.root_of("base");
        let id = std::fs::read_to_string(root.join("etc/machine-id")).unwrap();
        let directory = root.join("var/log/journal").join(id.trim());
        let before = logs(host, &["base"]);
        // A journal of the host's, by a link; and files that are none.
        let secret = host.path("secret.journal");
        let own = std::fs::read_dir(&directory)
            .unwrap()
            .flatten()
            .find(|e| e.file_name() == "system.journal")
            .unwrap();
        std::fs::copy(own.path(), &secret).unwrap();
        let bytes = std::fs::read(&secret).unwrap();
        std::fs::remove_file(own.path()).unwrap();
        symlink(&secret, own.path()).unwrap();
        assert!(host.sh(&format!("mkfifo {}/fifo.journal", directory.display())).is_empty());
        std::fs::create_dir(directory.join("directory.journal")).unwrap();
        assert!(!host.run(&["logs", "base"]).status.success(), "it has followed the link");
        // Cut short, and with holes.
        for (name, length) in [("a", 100), ("b", 4096), ("c", bytes.len() / 2)] {
            std::fs::write(directory.join(format!("{name}.journal")), &bytes[..length]).unwrap();
        }
        let cut = host.run(&["logs", "base"]);
        assert_ne!(cut.status.code(), Some(124), "it hangs");
        std::fs::write(directory.join("system@1.journal"), &bytes).unwrap();
        assert_eq!(logs(host, &["base"]).lines().last(), before.lines().last());
    });
}
