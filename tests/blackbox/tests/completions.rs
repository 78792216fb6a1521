//! Completion by the real shells, and the manual pages by the real man.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use blackbox::{Host, Pty, nixrun_binary, on_host};

/// A host with two containers, and nixrun in the PATH of what is run there.
fn with_containers(test: impl FnOnce(&Host<'_>) + Send) {
    on_host(|host| {
        host.write("etc/nixos-containers/nextcloud.conf", "SYSTEM_PATH=/nix/store/x\n", 0o644);
        host.write("etc/nixrun/mail.json", "{}\n", 0o644);
        fs::create_dir_all(host.path("bin")).unwrap();
        symlink(nixrun_binary(), host.path("bin/nixrun")).unwrap();
        test(host);
    });
}

fn shell(host: &Host<'_>, program: &str, args: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(args).env_clear().env("TERM", "vt100").env("HOME", host.path("home")).env("PS1", "next> ");
    command.env("PATH", format!("{}:/usr/bin:/bin", host.path("bin").display()));
    command
}

/// What the shell offers for the last of these words: bash's own machinery is asked as it would be on a Tab.
fn bash(host: &Host<'_>, words: &[&str]) -> BTreeSet<String> {
    let root = format!("--host-root={}", host.dir().display());
    let all: Vec<String> = ["nixrun", &root].iter().chain(words).map(|word| format!("'{word}'")).collect();
    let script = format!(
        "source <(nixrun completions bash)
         COMP_WORDS=({}); COMP_CWORD={}
         _clap_complete_nixrun nixrun {} before
         printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        all.join(" "),
        all.len() - 1,
        all[all.len() - 1],
    );
    let output = shell(host, "bash", &["--norc", "--noprofile", "-c", &script]).output().unwrap();
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

fn set(words: &[&str]) -> BTreeSet<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

#[test]
fn bash_is_offered_commands_containers_options_and_files() {
    with_containers(|host| {
        let commands: BTreeSet<String> = nixrun::args::definition()
            .get_subcommands()
            .filter(|one| !one.is_hide_set())
            .map(|one| one.get_name().to_owned())
            .collect();
        let offered = bash(host, &[""]);
        let missing: Vec<_> = commands.difference(&offered).collect();
        assert!(missing.is_empty(), "without {missing:?}");
        assert_eq!(bash(host, &["start", "ne"]), set(&["nextcloud"]));
        for command in ["stop", "update", "exec", "login", "logs", "top", "destroy", "export", "plan"] {
            let offered = bash(host, &[command, ""]);
            assert!(set(&["nextcloud", "mail"]).is_subset(&offered), "{command}: {offered:?}");
        }
        assert!(!bash(host, &["create", ""]).contains("mail"), "the name of a new one is none of these");
        assert_eq!(bash(host, &["stop", "--ti"]), set(&["--timeout"]));
        assert_eq!(bash(host, &["completions", "z"]), set(&["zsh"]));
        assert_eq!(bash(host, &["cp", "ma"]), set(&["mail:"]));
        host.write("somewhere/maintained", "", 0o644);
        let word = host.path("somewhere/main").to_str().unwrap().to_owned();
        assert_eq!(bash(host, &["cp", &word]), set(&[&format!("{word}tained")]));
        // A line that is wrong offers nothing, and says nothing.
        assert_eq!(bash(host, &["no-such-command", "x"]), BTreeSet::new());
    });
}

/// A line that two Tabs make right.
fn line(host: &Host<'_>) -> String {
    format!("nixrun --host-root={} status --js\tne\t\n", host.dir().display())
}

#[test]
fn a_tab_in_bash_completes_the_name_of_a_container() {
    with_containers(|host| {
        let mut terminal = Pty::spawn(&shell(host, "bash", &["--norc", "--noprofile", "-i"]), 24, 200);
        terminal.expect("next> ");
        terminal.type_in("source <(nixrun completions bash)\n");
        // What is typed before the shell asks for it is lost.
        terminal.expect("next> ");
        terminal.type_in(&line(host));
        terminal.expect("\"name\": \"nextcloud\"");
    });
}

#[test]
fn a_tab_in_zsh_completes_the_name_of_a_container() {
    with_containers(|host| {
        let mut terminal = Pty::spawn(&shell(host, "zsh", &["-f", "-i"]), 24, 200);
        terminal.expect("next> ");
        terminal.type_in("autoload -U compinit; compinit -D -u; source <(nixrun completions zsh)\n");
        terminal.expect("next> ");
        terminal.type_in(&line(host));
        terminal.expect("\"name\": \"nextcloud\"");
    });
}

#[test]
fn fish_is_offered_containers_and_options_with_what_they_are_for() {
    with_containers(|host| {
        let ask = |line: &str| {
            let script = format!("nixrun completions fish | source; complete -C '{line}'");
            let output = shell(host, "fish", &["--no-config", "-c", &script]).output().unwrap();
            String::from_utf8(output.stdout).unwrap()
        };
        let root = host.dir().display();
        assert_eq!(ask(&format!("nixrun --host-root={root} start ne")), "nextcloud\n");
        let timeout = ask("nixrun stop --time");
        assert!(timeout.starts_with("--timeout\tKill what is still there"), "{timeout}");
        assert!(ask("nixrun sta").contains("status\tShow the state of one container"));
    });
}

#[test]
fn completion_is_answered_to_scripts_alone() {
    let command = |value: &str, args: &[&str]| {
        Command::new(nixrun_binary()).args(args).env("NIXRUN_COMPLETE", value).output().unwrap()
    };
    let output = command("tcsh", &["--", "nixrun", "sta"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("NIXRUN_COMPLETE"));
    assert_eq!(command("bash", &["list"]).status.code(), Some(2));
}

#[test]
fn the_manual_has_a_page_for_every_command_and_man_likes_them() {
    on_host(|host| {
        let directory = host.path("man8");
        host.ok(&["man", directory.to_str().unwrap()]);
        let read = || -> Vec<(String, Vec<u8>)> {
            let entries = fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path());
            let mut files: Vec<_> = entries
                .map(|path| {
                    (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(&path).unwrap())
                })
                .collect();
            files.sort();
            files
        };
        let pages = read();
        let names: BTreeSet<String> = pages.iter().map(|(name, _)| name.clone()).collect();
        let expected = nixrun::args::definition();
        let expected =
            expected.get_subcommands().filter(|one| !one.is_hide_set() && one.get_name() != "help");
        let mut expected: BTreeSet<String> =
            expected.map(|one| format!("nixrun-{}.8", one.get_name())).collect();
        expected.insert("nixrun.8".to_owned());
        assert_eq!(names, expected);
        for name in &names {
            let page = directory.join(name);
            let checked =
                host.command("groff").args(["-K", "utf8", "-man", "-ww", "-z"]).arg(&page).output().unwrap();
            assert!(checked.stderr.is_empty(), "{name}: {}", String::from_utf8_lossy(&checked.stderr));
        }
        let create = host.sh(&format!("man -l -P cat {}/nixrun-create.8", directory.display()));
        for word in ["NIXRUN-CREATE(8)", "--system-path", "EXIT STATUS", "SEE ALSO"] {
            assert!(create.contains(word), "{word}: {create}");
        }
        host.ok(&["man", directory.to_str().unwrap()]);
        assert_eq!(read(), pages, "the same again");
    });
}
