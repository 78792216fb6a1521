//! Containers that are made: names, addresses, settings, and what of it is left when nixrun is killed.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::fs;
use std::process::Stdio;

use blackbox::{Host, on_host};
use fixture::Kind;

/// A host with a store, and the path of a system in it.
fn system(host: &Host<'_>) -> String {
    let built = host.install(Kind::Mini, "template");
    fs::remove_file(host.path("etc/nixos-containers/template.conf")).unwrap();
    built.system.to_str().unwrap().to_owned()
}

fn conf(host: &Host<'_>, name: &str) -> String {
    fs::read_to_string(host.path(&format!("etc/nixos-containers/{name}.conf"))).unwrap()
}

#[test]
fn a_created_container_boots_and_is_known_to_every_command() {
    on_host(|host| {
        let system = system(host);
        let err = host.run(&["create", "web", "--system-path", &system, "--port", "8080:80", "--auto-start"]);
        let err = String::from_utf8(err.stderr).unwrap();
        assert_eq!(err, "nixrun: host IP is 10.233.1.1, container IP is 10.233.1.2\n");
        assert_eq!(
            conf(host, "web"),
            "PRIVATE_NETWORK=1\nHOST_ADDRESS=10.233.1.1\nLOCAL_ADDRESS=10.233.1.2\nHOST_BRIDGE=\nHOST_PORT=tcp:8080:80\n\
             AUTO_START=1\n"
        );
        let profile = host.path("nix/var/nix/profiles/per-container/web");
        assert_eq!(fs::read_link(profile.join("system")).unwrap().to_str(), Some("system-1-link"));
        assert_eq!(fs::read_link(profile.join("system-1-link")).unwrap().to_str(), Some(system.as_str()));
        assert_eq!(host.ok(&["show-ip", "web"]), "10.233.1.2\n");
        let error = host.fails(1, &["show-host-key", "web"]);
        assert!(error.contains("no SSH host key"), "{error}");
        host.write(
            "var/lib/nixos-containers/web/etc/ssh/ssh_host_rsa_key.pub",
            "ssh-rsa AAAA root@web\n",
            0o644,
        );
        assert_eq!(host.ok(&["show-host-key", "web"]), "ssh-rsa AAAA root@web\n");

        let container = host.boot("web");
        assert_eq!(host.inside("web", "hostname"), "web\n");
        container.stop();
        host.ok(&["destroy", "web"]);
    });
}

#[test]
fn names_are_made_unique_and_addresses_distinct() {
    on_host(|host| {
        let system = system(host);
        let create = |name: &str| {
            host.ok(&["create", name, "--ensure-unique-name", "--system-path", &system]).trim().to_owned()
        };
        let names = [create("foo"), create("foo"), create("foo")];
        assert_eq!(names, ["foo", "foo-0", "foo-1"]);
        let addresses: BTreeSet<String> = names.iter().map(|name| host.ok(&["show-ip", name])).collect();
        assert_eq!(addresses.len(), 3, "{addresses:?}");
        let error = host.fails(1, &["create", "foo", "--system-path", &system]);
        assert!(
            error.contains("foo.conf is there already") && error.contains("--ensure-unique-name"),
            "{error}"
        );
        // A root without a configuration is somebody's data.
        fs::create_dir_all(host.root_of("bar")).unwrap();
        assert_eq!(create("bar"), "bar-0");
    });
}

#[test]
fn eight_at_once_get_eight_addresses() {
    on_host(|host| {
        let system = system(host);
        let begun: Vec<_> = (0..8)
            .map(|_| {
                let args = ["create", "many", "--ensure-unique-name", "--json", "--system-path", &system];
                host.nixrun(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
            })
            .collect();
        let mut seen = BTreeSet::new();
        for child in begun {
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            let created: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
            seen.insert((created["name"].to_string(), created["localAddress"].to_string()));
        }
        let addresses: BTreeSet<_> = seen.iter().map(|(_, address)| address).collect();
        assert_eq!((seen.len(), addresses.len()), (8, 8), "{seen:?}");
    });
}

#[test]
fn a_pool_leaves_out_what_the_host_has_and_says_when_it_is_full() {
    on_host(|host| {
        let system = system(host);
        host.write(
            "etc/nixrun.json",
            r#"{"addressPool": "10.77.0.0/22", "addressPool6": "fd77:1:2::/48"}"#,
            0o644,
        );
        // Four networks, of which the two in the middle are given out; the host has one of them.
        host.sh(
            "ip link add pool0 type veth peer name pool1 && ip link set pool1 up && ip addr add 10.77.1.9/24 dev pool0 && ip link set pool0 up",
        );
        let create = |name: &str| host.run(&["create", name, "--system-path", &system]);
        assert!(create("one").status.success());
        let conf = conf(host, "one");
        assert!(conf.contains("HOST_ADDRESS=10.77.2.1\nLOCAL_ADDRESS=10.77.2.2\n"), "{conf}");
        assert!(conf.contains("HOST_ADDRESS6=fd77:1:2:1::1\nLOCAL_ADDRESS6=fd77:1:2:1::2\n"), "{conf}");
        let before = host.snapshot();
        let error = host.fails(1, &["create", "two", "--system-path", &system]);
        assert!(
            error.contains("all of the pool 10.77.0.0/22 are taken") && error.contains("addressPool"),
            "{error}"
        );
        before.assert_same(&host.snapshot(), "after a create that failed");
        // A route through a larger network is a way out and takes nothing.
        host.sh("ip addr del 10.77.1.9/24 dev pool0 && ip addr add 10.1.2.3/8 dev pool0");
        assert!(host.ok(&["create", "two", "--json", "--system-path", &system]).contains("10.77.1.2"));
        host.sh("ip link del pool0");
    });
}

#[test]
fn settings_by_key_reach_the_container() {
    on_host(|host| {
        let system = system(host);
        let set = [
            "--set",
            "ephemeral=true",
            "--set",
            r#"tmpfs=["/var/log"]"#,
            "--set",
            "environment.GREETING=hello",
        ];
        host.ok(&[&["create", "web", "--system-path", &system][..], &set].concat());
        let json = fs::read_to_string(host.path("etc/nixrun/web.json")).unwrap();
        assert!(json.starts_with("{\n  \"ephemeral\": true,\n  \"tmpfs\": ["), "{json}");
        assert!(!host.root_of("web").exists(), "an ephemeral container has no root directory");
        let container = host.boot("web");
        assert_eq!(
            host.inside("web", "stat -fc %T /var/log; tr '\\0' '\\n' < /proc/1/environ | grep GREETING"),
            "tmpfs\nGREETING=hello\n"
        );
        container.stop();
        host.ok(&["destroy", "web"]);
        assert!(!host.path("etc/nixrun").exists());
    });
}

#[test]
fn what_is_wrong_is_said_before_anything_is_made() {
    on_host(|host| {
        let system = system(host);
        host.ok(&["create", "there", "--system-path", &system]);
        let before = host.snapshot();
        let long = "x".repeat(65);
        let cases: &[(&[&str], i32, &str)] = &[
            (&["create", "bad_name", "--system-path", &system], 1, "only letters, digits, - and ."),
            (&["create", &long, "--system-path", &system], 1, "longer than 64 bytes"),
            (&["create", "-x", "--system-path", &system], 2, "-x"),
            (&["create", "../x", "--system-path", &system], 1, "cannot name a container"),
            (&["create", "web", "--system-path", "/nix/store/none"], 1, "/nix/store/none"),
            (&["create", "web", "--system-path", "/etc"], 1, "store"),
            (&["create", "web", "--system-path", &system, "--set", "memroy.max=1G"], 1, "memroy.max=1G"),
            (
                &["create", "web", "--system-path", &system, "--set", "memory.maxx=1G"],
                1,
                "did you mean \"max\"?",
            ),
            (
                &["create", "web", "--system-path", &system, "--host-address", "10.9.9.1"],
                1,
                "--local-address",
            ),
            (&["create", "web", "--system-path", &system, "--set", "command=[\"sh\"]"], 1, "command"),
            (
                &["create", "web", "--system-path", &system, "--bridge", "br0", "--set", "hostBridge=br1"],
                1,
                "contradicts",
            ),
            (&["create", "web", "--system-path", &system, "--config", "x"], 2, "--config"),
        ];
        for (args, code, words) in cases {
            let output = host.run(args);
            let err = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(*code), "{args:?}: {err}");
            assert!(err.contains(words), "{args:?}: {err}");
        }
        before.assert_same(&host.snapshot(), "after refused creates");
    });
}

#[test]
fn a_long_name_gets_the_links_of_systemd_nspawn() {
    on_host(|host| {
        let system = system(host);
        for (name, link) in [("really-long-container-name", None), ("first", Some("ve-first"))] {
            host.ok(&["create", name, "--system-path", &system]);
            let container = host.boot(name);
            let links = host.sh("ip -o link");
            match link {
                Some(link) => assert!(links.contains(&format!("{link}@")), "{links}"),
                None => assert!(
                    links.contains("ve-really-l") && links.contains(&format!("altname ve-{name}")),
                    "{links}"
                ),
            }
            container.stop();
        }
    });
}

/// Every command that takes the name of a container that is there, with the other words that it wants.
const NAMED: &[&[&str]] = &[
    &["boot", "wbe"],
    &["cp", "wbe:/etc/hostname", "/nowhere"],
    &["destroy", "wbe"],
    &["diff", "wbe"],
    &["exec", "wbe", "--", "true"],
    &["export", "wbe", "/nowhere/wbe.nixrun"],
    &["generations", "wbe"],
    &["inspect", "wbe"],
    &["kill", "wbe"],
    &["login", "wbe"],
    &["logs", "wbe"],
    &["pause", "wbe"],
    &["plan", "wbe"],
    &["reload", "wbe"],
    &["restart", "wbe"],
    &["resume", "wbe"],
    &["rollback", "wbe"],
    &["root-login", "wbe"],
    &["run", "wbe", "--", "true"],
    &["set", "wbe", "hostname=a"],
    &["show-host-key", "wbe"],
    &["show-ip", "wbe"],
    &["start", "wbe"],
    &["stats", "wbe"],
    &["status", "wbe"],
    &["stop", "wbe"],
    &["terminate", "wbe"],
    &["top", "--once", "wbe"],
    &["update", "wbe", "--system-path", "/nix/store/x"],
];

#[test]
fn every_command_brings_the_nearest_name_to_mind() {
    on_host(|host| {
        let system = system(host);
        host.ok(&["create", "web", "--system-path", &system]);
        let before = host.snapshot();
        let mut wrong = Vec::new();
        for args in NAMED {
            let output = host.run(args);
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            let refused = output.status.code().is_some_and(|code| code != 0 && code != 124);
            if !refused || !said.contains("did you mean \"web\"?") || said.lines().count() != 1 {
                wrong.push(format!("{args:?} ({}): {said}", output.status));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        before.assert_same(&host.snapshot(), "after commands on a container that is not there");
    });
}
