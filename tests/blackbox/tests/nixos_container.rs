//! nixrun in the place of nixpkgs' nixos-container: its command line, output and exit codes, as nixpkgs' own tests and
//! people's scripts use them.
#![forbid(unsafe_code)]

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Output;

use blackbox::{Host, nixrun_binary, on_host};
use fixture::Kind;

fn tool(host: &Host<'_>, args: &[&str]) -> Output {
    host.run(&[&["nixos-container"][..], args].concat())
}

/// Standard output of an action that succeeds.
#[track_caller]
fn ok(host: &Host<'_>, args: &[&str]) -> String {
    let output = tool(host, args);
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{args:?}: {err}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_life_of_imperative_containers_as_nixpkgs_tests_it() {
    on_host(|host| {
        let built = host.install(Kind::Base, "template");
        fs::remove_file(host.path("etc/nixos-containers/template.conf")).unwrap();
        let system = built.system.to_str().unwrap();
        let create = || {
            ok(host, &["create", "foo", "--ensure-unique-name", "--system-path", system])
                .trim_end()
                .to_owned()
        };
        let (first, second) = (create(), create());
        assert_ne!(first, second);
        assert_eq!(ok(host, &["list"]), format!("{first}\n{second}\n"));
        // The root of one of them is a bind mount.
        let (root, elsewhere) = (host.root_of(&first), host.path("id2-bindmount"));
        fs::rename(host.root_of(&second), &elsewhere).unwrap();
        host.sh(&format!("mount --bind {} {}", elsewhere.display(), root.display()));
        assert_ne!(ok(host, &["show-ip", &first]), ok(host, &["show-ip", &second]));
        host.write("nested-bindmount/dummy", "important data\n", 0o644);
        for name in [&first, &second] {
            let place = host.root_of(name).join("very/important/data");
            fs::create_dir_all(&place).unwrap();
            host.sh(&format!("mount --bind {} {}", host.path("nested-bindmount").display(), place.display()));
        }

        assert_eq!(ok(host, &["status", &first]), "down\n");
        ok(host, &["start", &first]);
        assert_eq!(ok(host, &["status", &first]), "up\n");
        assert_eq!(ok(host, &["run", &first, "--", "uname"]), "Linux\n");
        assert_eq!(ok(host, &["run", &first, "--", "echo", "a b", "$HOME"]), "a b $HOME\n");
        let code = tool(host, &["run", &first, "--", "sh", "-c", "exit 42"]).status.code();
        assert_eq!(code, Some(42));
        ok(host, &["stop", &first]);
        assert_eq!(ok(host, &["status", &first]), "down\n");
        ok(host, &["start", &first]);

        for name in [&first, &second] {
            ok(host, &["destroy", name]);
            assert!(!host.root_of(name).exists(), "{name}");
        }
        assert_eq!(fs::read_to_string(host.path("nested-bindmount/dummy")).unwrap(), "important data\n");
        assert_eq!(ok(host, &["list"]), "");
    });
}

#[test]
fn words_and_codes_are_those_of_nixos_container() {
    on_host(|host| {
        let built = host.install(Kind::Mini, "mini");
        for (args, code, out, err) in [
            (&["status", "nope"][..], 2, "gone\n", "container ‘nope’ does not exist"),
            (&["destroy", "nope"], 0, "", ""),
            (&["start", "nope"], 2, "", "container ‘nope’ does not exist"),
            (&["show-ip", "nope"], 2, "", "container ‘nope’ does not exist"),
            (&["show-host-key", "mini"], 1, "", ""),
            (&["show-ip", "mini"], 0, "10.233.2.2\n", ""),
            (&["list"], 0, "mini\n", ""),
            (&["fly", "mini"], 255, "", "unknown action ‘fly’"),
            (&["start", "a_b"], 255, "", "invalid container name"),
            (&[], 255, "", "no action specified"),
            (&["--hel"], 0, "Usage: nixos-container list\n", ""),
            (&["run", "mini", "ls", "-l"], 1, "", "Option l is ambiguous (local-address, log-format)"),
        ] {
            let output = tool(host, args);
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let (said, wrong) = (text(&output.stdout), text(&output.stderr));
            assert_eq!(output.status.code(), Some(code), "{args:?}: {said}{wrong}");
            assert!(said.starts_with(out), "{args:?}: {said}");
            let expected = if err.is_empty() { String::new() } else { format!("nixos-container: {err}\n") };
            assert_eq!(wrong, expected, "{args:?}");
        }
        // A declared one, which lies in the store.
        let conf = host.path("etc/nixos-containers/mini.conf");
        fs::rename(&conf, host.path("static.conf")).unwrap();
        symlink(host.path("static.conf"), &conf).unwrap();
        let output = tool(host, &["destroy", "mini"]);
        assert!(!output.status.success());
        let wrong = String::from_utf8(output.stderr).unwrap();
        assert_eq!(
            wrong,
            "nixos-container: cannot destroy declarative container (remove it from your configuration.nix instead)\n"
        );
        assert!(conf.exists());
        // What is created is said as it is there.
        let output = tool(host, &["create", "new", "--system-path", built.system.to_str().unwrap()]);
        let wrong = String::from_utf8(output.stderr).unwrap();
        assert_eq!(wrong, "nixos-container: host IP is 10.233.1.1, container IP is 10.233.1.2\n");
        let text = fs::read_to_string(host.path("etc/nixos-containers/new.conf")).unwrap();
        assert!(text.starts_with("PRIVATE_NETWORK=1\nHOST_ADDRESS=10.233.1.1\n"), "{text}");
    });
}

#[test]
fn a_link_of_that_name_is_enough() {
    on_host(|host| {
        let link = host.path("nixos-container");
        symlink(nixrun_binary(), &link).unwrap();
        let output = host.command(&link).arg("--help").output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && said.starts_with("Usage: nixos-container list\n"), "{said}");
        let output = host.command(&link).args(["fly", "away"]).output().unwrap();
        assert_eq!(output.status.code(), Some(255));
    });
}
