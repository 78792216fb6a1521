//! The command line: the quick way through one command's definition and the full definition must agree.

use std::ffi::OsString;

use clap::CommandFactory;
use netsetup::Nat;
use nixrun::args::{self, Command, Invocation};
use runtime::Console;

fn words(line: &str) -> Vec<OsString> {
    line.split(' ').map(OsString::from).collect()
}

fn parse(line: &str) -> Invocation {
    args::parse(words(line)).unwrap_or_else(|e| panic!("{line}: {e}"))
}

/// The message for a wrong command line.
fn refused(line: &str) -> String {
    let error = args::parse(words(line)).expect_err(line);
    assert!(error.use_stderr(), "{line}");
    assert_eq!(error.exit_code(), i32::from(nixrun::exit::USAGE));
    error.to_string()
}

#[test]
fn the_definition_is_consistent() {
    Invocation::command().debug_assert();
}

#[test]
fn every_command_is_under_a_heading_once() {
    let definition = args::definition();
    let shown = definition.get_subcommands().filter(|command| !command.is_hide_set());
    let mut commands: Vec<&str> = shown.map(clap::Command::get_name).collect();
    let mut headed: Vec<&str> = args::GROUPS.iter().flat_map(|(_, names)| *names).copied().collect();
    commands.sort_unstable();
    headed.sort_unstable();
    assert_eq!(headed, commands);
}

#[test]
fn help_lists_the_commands_under_their_headings() {
    let help = args::parse(words("nixrun --help")).unwrap_err().to_string();
    for (heading, names) in args::GROUPS {
        let (_, behind) = help.split_once(&format!("\n{heading}:\n")).unwrap();
        let first = behind.lines().next().unwrap();
        assert!(
            first.starts_with(&format!("  {} ", names[0])) && !first.trim_end().ends_with(names[0]),
            "{first}"
        );
    }
    assert!(help.lines().all(|line| line.chars().count() <= 130), "{help}");
}

#[test]
fn both_ways_agree() {
    for line in [
        "nixrun boot web",
        "nixrun boot -v --nat no --console pipe web --host-root /x",
        "nixrun boot web --nat=eth0 -q",
        "nixrun run -D /r",
        "nixrun run -qnD/r -p 80 --port udp:53 -M m --uuid 0123456789abcdef0123456789abcdef true -n",
        "nixrun run --directory=/r --private-network --network-bridge br0 --host-address 10.0.0.1 \
         --local-address 10.0.0.2/24 --host-address6 fc00::1 --local-address6 fc00::2 --nat no",
        "nixrun run -D /r -E A=1 -E B --chdir /tmp --bind /a:/b --bind-ro /c --tmpfs /d:size=1m --hostname h \
         --capability CAP_NET_ADMIN,CAP_SYS_TIME --drop-capability all --kill-signal SIGRTMIN+3 \
         --notify-ready=yes --console interactive -- sh -c -- x",
        "nixrun run -i /r.raw",
        "nixrun run -q web -- sh -c -- x",
        "nixrun start web --timeout 5",
        "nixrun stop web",
        "nixrun kill -s HUP web",
        "nixrun list --json",
        "nixrun status web",
        "nixrun exec web -E A=1 --chdir / -- ls -v --json",
        "nixrun plan web --json --nat no",
        "nixrun reclaim",
        "nixrun reclaim web --json",
        "nixrun doctor -vv",
    ] {
        // An option of every command before its name: the long way.
        let (program, rest) = line.split_once(' ').unwrap();
        let mut full = parse(&format!("{program} --host-root /x {rest}"));
        full.global.host_root = parse(line).global.host_root;
        assert_eq!(parse(line), full, "{line}");
    }
}

#[test]
fn options_may_stand_before_the_command() {
    let before = parse("nixrun --host-root /x -v boot web");
    assert_eq!(before, parse("nixrun boot web --host-root /x -v"));
    assert_eq!((before.global.host_root.to_str(), before.global.verbose), (Some("/x"), 1));
}

#[test]
fn defaults_are_the_documented_ones() {
    let Invocation { global, command: Command::Boot(boot) } = parse("nixrun boot web") else { panic!() };
    assert_eq!(global.host_root.to_str(), Some("/"));
    assert_eq!((global.verbose, global.quiet), (0, false));
    assert_eq!((boot.nat.nat, boot.console.console), (None, None));
    let Command::Run(run) = parse("nixrun run -D /r").command else { panic!() };
    assert!(
        run.command.is_empty() && !run.notify_ready && run.kill_signal.is_none() && run.machine.is_none()
    );
    let Command::Kill(kill) = parse("nixrun kill web").command else { panic!() };
    assert_eq!(kill.signal, None);
}

#[test]
fn values_are_typed() {
    let Command::Boot(boot) = parse("nixrun boot web --nat wan0 --console read-only").command else {
        panic!()
    };
    assert_eq!(
        (boot.nat.nat, boot.console.console),
        (Some(Nat::Interface("wan0".into())), Some(Console::ReadOnly))
    );
    let Command::Kill(kill) = parse("nixrun kill web --signal SIGRTMIN+3").command else { panic!() };
    assert_eq!(kill.signal, Some(37));
    let Command::Run(run) = parse("nixrun run -D /r -p 80 -p udp:1:2 --notify-ready yes").command else {
        panic!()
    };
    assert_eq!(run.network.port.len(), 2);
    assert!(run.notify_ready);
}

#[test]
fn everything_behind_the_command_belongs_to_it() {
    for line in ["nixrun run -D /r ls -D x --help", "nixrun run -D /r -- ls -D x --help"] {
        let Command::Run(run) = parse(line).command else { panic!() };
        assert_eq!(run.command, ["ls", "-D", "x", "--help"], "{line}");
    }
    // Whatever it is, once a `--` says where it begins.
    let Command::Run(run) = parse("nixrun run -D /r -- web -- true").command else { panic!() };
    assert_eq!((run.inside, run.command), (None, ["web", "--", "true"].map(OsString::from).to_vec()));
    for line in ["nixrun run web -- ls -v --json", "nixrun run web ls -v --json"] {
        let Command::Run(run) = parse(line).command else { panic!() };
        assert_eq!(run.inside.as_deref(), Some("web"), "{line}");
        assert_eq!(run.command, ["ls", "-v", "--json"], "{line}");
    }
    for line in ["nixrun exec web sh -c -v", "nixrun exec web -- sh -c -v"] {
        let Command::Exec(exec) = parse(line).command else { panic!() };
        assert_eq!(exec.command, ["sh", "-c", "-v"], "{line}");
    }
}

#[test]
fn wrong_lines_are_refused_with_advice() {
    for (line, advice) in [
        ("nixrun", "Usage: nixrun [OPTIONS] <COMMAND>"),
        ("nixrun bot web", "a similar subcommand exists: 'boot'"),
        ("nixrun boot", "<NAME>"),
        ("nixrun boot web mail", "unexpected argument 'mail'"),
        ("nixrun boot --consle pipe web", "a similar argument exists: '--console'"),
        ("nixrun boot web --console tty", "expected interactive, read-only or pipe"),
        ("nixrun boot web --nat a/b", "expected a link's name"),
        ("nixrun boot -q -v web", "cannot be used with"),
        ("nixrun run", "run NAME -- COMMAND"),
        ("nixrun run web", "run NAME -- COMMAND"),
        ("nixrun run web --", "run NAME -- COMMAND"),
        ("nixrun run -- true", "-D DIR or -i IMAGE"),
        ("nixrun run -D /r web -- true", "\"web\" of one that runs cannot be used together"),
        ("nixrun run -i /r web -- true", "cannot be used together"),
        ("nixrun run -D /r -i /r true", "cannot be used with"),
        ("nixrun run -M a web -- true", "are those of a new container"),
        ("nixrun run -D /r -p 0", "expected [tcp:|udp:|sctp:]"),
        ("nixrun run -D /r --bind a", "expected an absolute path"),
        ("nixrun run -D /r --bind /a:/b:ro", "in place of the option"),
        ("nixrun run -D /r --tmpfs a", "expected an absolute path"),
        ("nixrun run -D /r --chdir a", "expected an absolute path"),
        ("nixrun run -D /r -E =1", "expected KEY=VALUE"),
        ("nixrun run -D /r --uuid 1", "expected 32 hexadecimal digits"),
        ("nixrun run -D /r --capability CAP_FOO", "CAP_FOO"),
        ("nixrun run -D /r --kill-signal FOO", "expected a signal's name or number"),
        ("nixrun run -D /r --notify-ready perhaps", "expected yes or no"),
        ("nixrun run -D /r --network-bridge a:b", "expected a link's name"),
        ("nixrun run -D /r --local-address 10.0.0.2/40", "expected an IPv4 address"),
        ("nixrun run -D /r --local-address6 ::", "expected an IPv6 address"),
        ("nixrun run -D /r --host-address fc00::1", "invalid IPv4 address"),
        ("nixrun stop web --timeout soon", "invalid digit"),
        ("nixrun exec web", "<COMMAND>"),
    ] {
        let message = refused(line);
        assert!(message.contains(advice), "{line}: {message}");
    }
}

#[test]
fn help_and_version_go_to_stdout() {
    for line in ["nixrun --help", "nixrun boot --help", "nixrun help boot", "nixrun --version"] {
        let asked = args::parse(words(line)).expect_err(line);
        assert!(!asked.use_stderr(), "{line}");
        assert_eq!(asked.exit_code(), 0);
    }
    assert!(args::parse(words("nixrun --help")).unwrap_err().to_string().contains(nixrun::exit::TABLE));
}
