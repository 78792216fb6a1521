//! systemd-nspawn's command line, as nixrun takes it, beside systemd-nspawn itself.
#![forbid(unsafe_code)]

use std::path::Path;
use std::process::Command;

use blackbox::compare::drop_in;
use blackbox::{COMPARABLE, Finished, Host, finish, nixrun_binary, nspawn, on_host, probe_root};
use nixrun::systemd_nspawn::OPTIONS;

/// Options that `--help` shows: the words with which its lines begin.
fn shown(help: &str) -> Vec<String> {
    let options = |line: &str| -> Vec<String> {
        let words = line.split_whitespace().take_while(|word| word.starts_with('-'));
        words.map(|word| word.split(['=', '[']).next().unwrap_or_default().to_owned()).collect()
    };
    help.lines().flat_map(options).collect()
}

#[test]
fn every_option_of_the_installed_systemd_nspawn_is_known() {
    let help = finish(Command::new("systemd-nspawn").arg("--help"));
    let theirs = shown(&help.out);
    assert!(theirs.len() > 80, "not the help of systemd-nspawn: {help:?}");
    let ours = finish(Command::new(nixrun_binary()).args(["nspawn", "--help"]));
    let ours = shown(&ours.out);
    for option in theirs {
        let known = OPTIONS.iter().any(|entry| {
            option.strip_prefix("--").is_some_and(|name| name == entry.long)
                || entry.short.is_some_and(|letter| option == format!("-{letter}"))
        });
        assert!(known && ours.contains(&option), "{option} has no row in the table of options");
    }
}

/// What both say to a command line that is wrong, by itself or for a root that is not there.
fn both_refuse(host: &Host<'_>, words: &[&str]) -> (Finished, Finished) {
    let tail = ["-D", "/nonexistent/root", "true"];
    let run = |mut command: Command| {
        let finished = finish(command.args(words).args(tail).env("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "1"));
        assert!(finished.code.is_some(), "{words:?}: {finished:?}");
        finished
    };
    let mut ours = host.command(nixrun_binary());
    ours.arg("nspawn");
    (run(host.command("systemd-nspawn")), run(ours))
}

/// The sentence of systemd-nspawn without what strerror(3) adds.
fn core(sentence: &str) -> &str {
    let line = sentence.lines().last().unwrap_or_default();
    let reasons = [": Invalid argument", ": Numerical result out of range", ": No such device or address"];
    let line = reasons.iter().find_map(|reason| line.strip_suffix(reason)).unwrap_or(line);
    line.trim_end_matches('.').trim_start_matches("systemd-nspawn: ")
}

#[test]
fn what_is_wrong_is_refused_in_the_same_words() {
    on_host(|host| {
        for option in [
            "--network-veth-extra=",
            "--network-veth-extra=a:b:c",
            "--network-interface=",
            "--network-interface=:b",
            "--network-macvlan=",
            "--network-ipvlan=",
            "--network-bridge=",
            "--network-bridge=a/b",
            "--network-zone=aaaaaaaaaaaaaaaaaaaaa",
            "--port=",
            "--port=x",
            "--port=tcp:0",
            "--port=1:2:3",
            "--port=65536",
            "--port=icmp:80",
            "--port=tcp:",
            "--private-users=x",
            "--private-users=-1",
            "--private-users=",
            "--uuid=",
            "--uuid=0",
            "--uuid=x",
            "--uuid=00000000000000000000000000000000",
            "--machine=a/b",
            "--machine=a_b",
            "--hostname=a_b",
            "--oom-score-adjust=2000",
            "--oom-score-adjust=",
            "--oom-score-adjust=x",
            "--cpu-affinity=x",
            "--personality=foo",
            "--personality=",
            "--kill-signal=",
            "--kill-signal=FOO",
            "--kill-signal=99",
            "--volatile=x",
            "--volatile=",
            "--resolv-conf=",
            "--resolv-conf=foo",
            "--timezone=",
            "--timezone=foo",
            "--link-journal=",
            "--link-journal=foo",
            "--console=",
            "--console=foo",
            "--capability=foo",
            "--drop-capability=foo",
            "--ambient-capability=foo",
            "--bind=",
            "--bind=a",
            "--bind=/a:b",
            "--bind=+a:/b",
            "--bind=:",
            "--bind-ro=",
            "--bind-ro=a",
            "--tmpfs=",
            "--tmpfs=a",
            "--overlay=",
            "--overlay=/a",
            "--overlay=a:b:c",
            "--overlay-ro=",
            "--overlay-ro=/a",
            "--inaccessible=",
            "--inaccessible=x",
            "--pivot-root=",
            "--pivot-root=/a:b:c",
            "--pivot-root=a",
            "--chdir=",
            "--chdir=x",
            "--setenv=",
            "--setenv==x",
            "--setenv=1=2",
            "--set-credential=",
            "--set-credential=a",
            "--set-credential=a/b:c",
            "--load-credential=",
            "--load-credential=a",
            "--settings=",
            "--settings=foo",
            "--quiet=1",
            "--boot=yes",
            "--bin=/x",
            "--net",
        ] {
            let (theirs, ours) = both_refuse(host, &[option]);
            assert_eq!((theirs.code, ours.code), (Some(1), Some(1)), "{option}: {theirs:?} {ours:?}");
            let ours = ours.err.replace("nixrun nspawn: ", "");
            assert!(ours.starts_with(core(&theirs.err)), "{option}: {:?}, but ours {ours:?}", theirs.err);
            assert_eq!(ours.lines().count(), 1, "{option}: {ours}");
        }
        for words in [
            &["-a", "-b"][..],
            &["-b", "-a"],
            &["-p", "tcp:80:80", "-p", "tcp:80:81"],
            &["--set-credential=a:c", "--set-credential=a:c"],
            &["-y"],
            &["--rlimit"],
            &["--rlimit=FOO=1"],
            &["--rlimit=NOFILE=x"],
            &["--rlimit=="],
        ] {
            let (theirs, ours) = both_refuse(host, words);
            assert_eq!((theirs.code, ours.code), (Some(1), Some(1)), "{words:?}: {theirs:?} {ours:?}");
            let ours = ours.err.replace("nixrun nspawn: ", "");
            assert!(ours.starts_with(core(&theirs.err)), "{words:?}: {:?}, but ours {ours:?}", theirs.err);
        }
    });
}

/// Every option of systemd's own test of them, without a value, with two quotes, and with bytes that mean nothing.
#[test]
fn every_option_refuses_nothing_and_garbage() {
    on_host(|host| {
        for entry in OPTIONS.iter().filter(|entry| !entry.long.is_empty()) {
            let name = entry.long;
            // Options that v256 takes with any value, or that have none.
            let any = [
                "directory",
                "template",
                "image",
                "user",
                "setenv",
                "machine",
                "hostname",
                "capability",
                "drop-capability",
                "ambient-capability",
                "slice",
                "property",
                "selinux-context",
                "selinux-apifs-context",
                "network-namespace-path",
                "system-call-filter",
                "cpu-affinity",
                "verity-data",
                "oci-bundle",
                "image-policy",
                "background",
                "volatile",
                "private-users-chown",
            ];
            if matches!(entry.argument, nixrun::systemd_nspawn::options::Argument::No) || any.contains(&name)
            {
                continue;
            }
            for word in [format!("--{name}=''"), format!("--{name}=%$š")] {
                // Quotes can name a link.
                let link = name.starts_with("network-") && word.contains('\'');
                let mut ours = host.command(nixrun_binary());
                let ours = finish(ours.args(["nspawn", &word, "-D", "/nonexistent/root", "true"]));
                assert_eq!(ours.code, Some(1), "{word}: {ours:?}");
                assert!(link || !ours.err.contains("/nonexistent"), "{word} was taken: {ours:?}");
            }
        }
    });
}

#[test]
fn what_is_right_gets_as_far_as_the_root() {
    on_host(|host| {
        for option in [
            "--private-users=65536",
            "--private-users=131072:65536",
            "--private-users",
            "--private-users=no",
            "--hostname=",
            "--machine=",
            "--cpu-affinity=",
            "--cpu-affinity=0-1,3",
            "--capability=",
            "--capability=all",
            "--capability=CAP_NET_ADMIN,cap_chown",
            "--system-call-filter=",
            "--system-call-filter=~@clock foo",
            "--slice=a",
            "--network-namespace-path=",
            "--bind=/a:/b:norbind",
            "--bind=+/a:/b",
            "--bind=:/x",
            "--bind=a:/b",
            r"--bind=/a\:b:/c",
            "--overlay=/a:/b",
            "--overlay=/a::/c",
            "--tmpfs=/a:size=1M",
            "--resolv-conf=yes",
            "--timezone=off",
            "--link-journal=try-host",
            "--console=autopipe",
            "--volatile",
            "--volatile=overlay",
            "--settings=trusted",
            "--rlimit=NOFILE=1:2",
            "--rlimit=RLIMIT_CPU=infinity",
            "--kill-signal=SIGRTMIN+3",
            "--kill-signal=15",
            "--setenv=A",
            "--uuid=f28f129b51874b1280a89421ec4b4ad4",
            "--chdir=/a",
            "--bind-r=/a",
            "--set-credential=a:",
            "--no-pager",
            "--keep-unit",
            "--as-pid2",
            "--notify-ready=1",
            "--private-users-ownership=map",
        ] {
            let (theirs, ours) = both_refuse(host, &[option]);
            for finished in [&theirs, &ours] {
                assert_eq!(finished.code, Some(1), "{option}: {finished:?}");
                let reached = finished.err.contains("/nonexistent/root");
                assert!(reached, "{option}: {finished:?}");
            }
        }
    });
}

#[test]
fn lists_go_to_stdout_and_end_well() {
    for word in [
        "--help",
        "-h",
        "--version",
        "--rlimit=help",
        "--capability=help",
        "--kill-signal=help",
        "--resolv-conf=help",
        "--timezone=help",
        "--console=help",
        "--volatile=help",
    ] {
        let theirs = finish(Command::new("systemd-nspawn").arg(word));
        let ours = finish(Command::new(nixrun_binary()).args(["nspawn", word]));
        assert_eq!((theirs.code, ours.code), (Some(0), Some(0)), "{word}: {ours:?}");
        assert!(!ours.out.is_empty() && ours.err.is_empty(), "{word}: {ours:?}");
    }
    // A list names what the other names.
    for word in
        ["--rlimit=help", "--resolv-conf=help", "--timezone=help", "--volatile=help", "--console=help"]
    {
        let lines = |mut command: Command| {
            let mut lines: Vec<String> = finish(command.arg(word)).out.lines().map(str::to_owned).collect();
            lines.sort();
            lines
        };
        let mut ours = Command::new(nixrun_binary());
        ours.arg("nspawn");
        assert_eq!(lines(Command::new("systemd-nspawn")), lines(ours), "{word}");
    }
}

/// nixrun under systemd-nspawn's name, with the options that make the two comparable.
fn called(host: &Host<'_>, root: &Path, args: &[&str]) -> Command {
    let mut command = host.command(drop_in(host));
    command.args(COMPARABLE).arg("-D").arg(root).args(args).env("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "1");
    command
}

#[test]
fn ends_are_told_alike() {
    on_host(|host| {
        let root = probe_root(host, "root");
        for (args, script) in [
            (&["-M", "c"][..], "exit 0"),
            (&["-M", "c"], "exit 7"),
            (&["-M", "c"], "exit 133"),
            (&["-qM", "c"], "exit 3"),
            (&["-M", "c", "--console=pipe"], "echo out; echo err >&2; exit 4"),
            (&["-M", "c", "--as-pid2"], "exit 5"),
            (&["-M", "c", "--setenv=A=b c", "-E", "B=1"], "echo $A $B"),
            (&["-M", "c", "--chdir=/etc", "--hostname=other"], "pwd; /probe/busybox hostname"),
            (&["-M", "c", "--private-network"], "/probe/busybox ip -o link | /probe/busybox cut -d: -f2"),
        ] {
            let tail = ["/probe/bash", "-c", script];
            let theirs = finish(nspawn(host, &root, args).args(tail));
            let ours = finish(called(host, &root, args).args(tail));
            assert_eq!(ours.code, theirs.code, "{args:?} {script}: {ours:?} {theirs:?}");
            assert_eq!(ours.out.trim_end(), theirs.out.trim_end(), "{args:?} {script}");
            let line = |err: &str| -> Vec<String> {
                let ours = |line: &&str| line.starts_with("Container c ") || *line == "err";
                err.lines().filter(ours).map(str::to_owned).collect()
            };
            assert_eq!(line(&ours.err), line(&theirs.err), "{args:?} {script}: {ours:?} {theirs:?}");
            let spawning = format!("Spawning container c on {}.", root.display());
            let said = |finished: &Finished| finished.err.lines().any(|line| line == spawning);
            assert_eq!(said(&ours), said(&theirs), "{args:?} {script}: {ours:?} {theirs:?}");
        }
    });
}

#[test]
fn a_root_that_is_none_is_refused_alike() {
    on_host(|host| {
        let root = probe_root(host, "root");
        std::fs::create_dir(host.path("empty")).expect("a directory");
        for (root, args) in
            [(host.path("empty"), &["true"][..]), (host.path("empty"), &["-b"]), (root, &["-b"])]
        {
            let theirs = finish(nspawn(host, &root, &[]).args(args));
            let ours = finish(called(host, &root, &[]).args(args));
            assert_eq!((ours.code, theirs.code), (Some(1), Some(1)), "{args:?}: {ours:?} {theirs:?}");
            assert_eq!(ours.err, theirs.err, "{args:?}");
        }
    });
}

#[test]
fn a_settings_file_is_found_as_systemd_nspawn_finds_it() {
    on_host(|host| {
        let root = probe_root(host, "web");
        let beside = root.with_file_name("web.nspawn");
        let text = "[Exec]\nEnvironment=FROM=file\nParameters=/probe/bash -c 'echo $FROM'\nBoot=no\n\
                    [Files]\nTemporaryFileSystem=/etc\n";
        std::fs::write(&beside, text).expect("a file");
        for args in
            [&[][..], &["--settings=no", "/probe/bash", "-c", "echo none $FROM"], &["--settings=override"]]
        {
            let theirs = finish(nspawn(host, &root, &["-q"]).args(args));
            let ours = finish(called(host, &root, &["-q"]).args(args));
            assert_eq!((&ours.out, ours.code), (&theirs.out, theirs.code), "{args:?}: {ours:?} {theirs:?}");
            let warned = |finished: &Finished| finished.err.contains("TemporaryFileSystem=");
            assert_eq!(warned(&ours), warned(&theirs), "{args:?}: {ours:?} {theirs:?}");
        }
    });
}

#[test]
fn a_plan_of_a_command_line_changes_nothing() {
    on_host(|host| {
        let root = probe_root(host, "root");
        let root = root.to_str().expect("a path in UTF-8");
        let before = host.snapshot();
        let plan =
            host.ok(&["plan", "--nspawn", "--", "-M", "planned", "-D", root, "--private-network", "true"]);
        assert!(plan.contains("planned"), "{plan}");
        before.assert_same(&host.snapshot(), "after a plan");
        let sentence = host.fails(1, &["plan", "--nspawn", "--", "--bind=a"]);
        assert!(sentence.contains("--bind(-ro)= argument a"), "{sentence}");
    });
}
