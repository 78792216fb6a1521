//! The host's side: a hostile root, networks beside the plain one, what list, status, plan and doctor say, and
//! systemd inside.
#![forbid(unsafe_code)]

use std::fs;
use std::os::unix::fs::symlink;

use blackbox::{Host, finish, on_host, wait_for};
use fixture::Kind;

/// Everything below a directory with its content's checksum.
fn tree(host: &Host<'_>, dir: &str) -> String {
    host.sh(&format!("cd {}; find {dir} -printf '%p %y %m %u %l %s\\n' | sort; find {dir} -type f -exec cksum {{}} + | sort", host.dir().display()))
}

#[test]
fn a_hostile_root_reaches_nothing_outside() {
    // What the container may have left in its root, relative to it; OUT is a directory of the host.
    let roots = [
        "ln -s OUT etc",
        "ln -s OUT usr",
        "mkdir usr; ln -s OUT/made usr/bin",
        "ln -s OUT var",
        "ln -s OUT root",
        "mkdir etc; ln -s OUT/machine-id etc/machine-id; ln -s OUT/os-release etc/os-release; ln -s OUT/resolv.conf etc/resolv.conf",
        "ln -s ../../../../out etc",
        "ln -s OUT nix",
        "mkdir -p nix/var; ln -s OUT nix/store; ln -s OUT nix/var/nix",
        "for d in tmp dev proc sys run; do ln -s OUT $d; done",
        "mkdir proc sys dev; ln -s OUT dev/pts; ln -s OUT dev/console; ln -s OUT sys/fs; ln -s OUT proc/sys",
        "mkdir etc; mkfifo etc/machine-id; mkfifo etc/os-release; mkfifo etc/resolv.conf",
        "mkdir etc; ln -s loop2 etc/machine-id; ln -s machine-id etc/loop2; ln -s loop loop; ln -s /loop root",
        "touch tmp",
        "touch dev run",
    ];
    for half in roots.chunks(roots.len().div_ceil(2)) {
        on_host(|host| {
            host.install(Kind::Mini, "mini");
            fs::create_dir_all(host.path("out/sub")).unwrap();
            for (file, text) in [
                ("machine-id", "0123456789abcdef0123456789abcdef\n"),
                ("os-release", "ID=host\n"),
                ("resolv.conf", "host\n"),
            ] {
                fs::write(host.path("out").join(file), text).unwrap();
            }
            let outside = tree(host, "out");
            for script in half {
                let root = host.root_of("mini");
                let script = script.replace("OUT", host.path("out").to_str().unwrap());
                host.sh(&format!("rm -rf {0}; mkdir -p {0}; cd {0}; {script}", root.display()));
                // It may boot or be refused; a container that hangs is not for it to decide.
                let container = host.spawn("mini", &["boot", "mini"]);
                let ready = wait_for("an end or readiness", || {
                    let ready = container.state().is_some_and(|state| state["ready"] == true);
                    let ended = container.is_gone();
                    // The fixture's own stage 2 may stumble over its root; that is not nixrun's business.
                    let stuck = container.state().is_some()
                        && !ended
                        && !ready
                        && container.out().contains("No such file");
                    (ready || ended || stuck).then_some(ready)
                });
                if ready {
                    let uuid = container.state().unwrap()["uuid"].to_string();
                    assert!(!uuid.contains("01234567-89ab"), "{script}: the host's machine id was read");
                }
                let _ = host.run(&["kill", "mini"]);
                let finished = container.wait();
                assert!(!finished.err.contains("panicked"), "{script}: {}", finished.err);
                assert_eq!(tree(host, "out"), outside, "{script}: {}", finished.err);
                assert!(host.processes().is_empty(), "{script}: {:?}", host.processes());
            }
        });
    }
}

#[test]
fn a_bridge_a_long_name_and_two_containers_at_once() {
    on_host(|host| {
        host.sh("ip link add br0 type bridge; ip addr add 10.233.2.1/24 dev br0; ip link set br0 up");
        let long = "a-container-with-a-long-name";
        for (name, last) in [("one", 2), (long, 3)] {
            host.install(Kind::Mini, name);
            host.set_conf(
                name,
                &[
                    ("HOST_BRIDGE", Some("br0")),
                    ("HOST_ADDRESS", None),
                    ("HOST_ADDRESS6", None),
                    ("LOCAL_ADDRESS6", None),
                    ("HOST_PORT", None),
                    ("LOCAL_ADDRESS", Some(&format!("10.233.2.{last}/24"))),
                ],
            );
        }
        let (one, other) = (host.boot("one"), host.boot(long));
        let links = host.sh("ip -o link");
        assert!(links.contains("vb-one@") && links.contains("master br0"), "{links}");
        // The short name is nspawn's hash of the long one, which stays as an alternative name.
        let by_alternative = host.sh(&format!("ip -o link show dev vb-{long}"));
        assert!(
            by_alternative.contains(": vb-a-contai")
                && by_alternative.contains(&format!("altname vb-{long}")),
            "{by_alternative}"
        );
        // A file's names are not the interface's business: both reach each other and the host.
        assert_eq!(
            host.inside(
                "one",
                "ping -c 1 -W 2 10.233.2.3 > /dev/null && ping -c 1 -W 2 10.233.2.1 > /dev/null && echo yes"
            ),
            "yes\n"
        );
        assert!(host.inside("one", "ip -4 -o addr show dev eth0").contains("10.233.2.2/24"));
        assert_eq!(one.stop().code, Some(0));
        assert_eq!(other.stop().code, Some(0));
        let links = host.sh("ip -o link");
        assert!(!links.contains("vb-"), "{links}");
    });
}

#[test]
fn a_container_with_the_hosts_network_or_with_loopback_only() {
    on_host(|host| {
        host.install(Kind::Mini, "mini");
        let none = ["HOST_PORT", "HOST_ADDRESS", "HOST_ADDRESS6", "LOCAL_ADDRESS", "LOCAL_ADDRESS6"]
            .map(|key| (key, None));
        host.set_conf("mini", &none);
        let container = host.boot("mini");
        let links = |host: &Host<'_>| host.inside("mini", "ls /proc/sys/net/ipv4/conf");
        assert_eq!(links(host), "all\ndefault\nlo\n");
        assert!(host.inside("mini", "ip -o link show dev lo").contains("LOWER_UP"));
        container.stop();
        host.set_conf("mini", &[("PRIVATE_NETWORK", Some("0")), ("COPY_RESOLV_CONF", Some("0"))]);
        fs::remove_file(host.root_of("mini").join("etc/resolv.conf")).unwrap();
        let container = host.boot("mini");
        let ours = fs::read_link("/proc/thread-self/ns/net").unwrap();
        assert_eq!(host.inside("mini", "readlink /proc/self/ns/net").trim(), ours.to_str().unwrap());
        assert!(!host.root_of("mini").join("etc/resolv.conf").exists());
        container.stop();
    });
}

#[test]
fn list_status_and_plan_have_their_keys() {
    on_host(|host| {
        host.install(Kind::Mini, "mini");
        host.install(Kind::Mini, "spare");
        let container = host.boot("mini");
        let list: serde_json::Value = serde_json::from_str(&host.ok(&["list", "--json"])).unwrap();
        let keys = [
            "addresses",
            "autoStart",
            "cgroup",
            "configuration",
            "declarative",
            "generation",
            "leader",
            "name",
            "phase",
            "processes",
            "program",
            "root",
            "supervisor",
            "system",
            "uptime",
            "uuid",
        ];
        let found: Vec<&String> = list[0].as_object().unwrap().keys().collect();
        assert_eq!(found, keys);
        assert_eq!(
            (&list[0]["name"], &list[0]["phase"], &list[0]["leader"]),
            (&"mini".into(), &"running".into(), &container.leader().into())
        );
        assert_eq!(list[0]["addresses"], serde_json::json!(["10.233.2.2", "fc00:233:2::2"]));
        assert_eq!((&list[1]["name"], &list[1]["phase"]), (&"spare".into(), &"stopped".into()));
        let table = host.ok(&["list"]);
        assert!(
            table.starts_with("NAME ") && table.contains("running") && table.contains("10.233.2.2"),
            "{table}"
        );
        let status: serde_json::Value =
            serde_json::from_str(&host.ok(&["status", "--json", "mini"])).unwrap();
        assert_eq!((&status["uuid"], &status["cgroup"]), (&list[0]["uuid"], &list[0]["cgroup"]));
        assert!(host.ok(&["status", "mini"]).contains("10.233.2.2"));
        // The address is taken by the one that runs, which a plan finds as well.
        let sentence = host.fails(1, &["plan", "spare"]);
        assert!(sentence.contains("10.233.2.2 is already held by container mini"), "{sentence}");
        let other = [("HOST_PORT", None), ("LOCAL_ADDRESS", Some("10.233.9.2")), ("LOCAL_ADDRESS6", None)];
        host.set_conf("spare", &other);
        let before = host.snapshot();
        let plan: serde_json::Value = serde_json::from_str(&host.ok(&["plan", "--json", "spare"])).unwrap();
        assert_eq!(plan["container"]["hostname"], "spare");
        assert_eq!(plan["container"]["mounts"][0]["target"], "/");
        assert!(plan["network"].is_object(), "{plan}");
        before.assert_same(&host.snapshot(), "after a plan");
        container.stop();
    });
}

#[test]
fn doctor_looks_and_changes_nothing() {
    on_host(|host| {
        let before = host.snapshot();
        let checks = finish(&mut host.nixrun(&["doctor", "--json"]));
        let checks: serde_json::Value = serde_json::from_str(&checks.out).unwrap();
        assert!(checks.as_array().is_some_and(|checks| checks.len() > 5), "{checks}");
        assert!(finish(&mut host.nixrun(&["doctor"])).out.lines().count() > 5);
        before.assert_same(&host.snapshot(), "after doctor");
    });
}

#[test]
fn systemd_inside_runs_is_entered_stops_and_reboots() {
    on_host(|host| {
        host.install(Kind::Base, "base");
        let container = host.boot("base");
        let said = |script: &str| host.inside("base", script);
        assert_eq!(
            said("systemctl is-system-running --wait; systemctl --failed --no-legend --plain"),
            "running\n"
        );
        assert_eq!(said("systemd-detect-virt --container"), "systemd-nspawn\n");
        // A group of its own below the container's: that one has no processes once systemd has given it controllers.
        let group = said("sed -n 's/^0:://p' /proc/self/cgroup");
        assert!(group.starts_with('/') && group.trim() != "/", "{group}");
        assert_eq!(
            said("cat /etc/machine-id | tr -d -"),
            container.state().unwrap()["uuid"].as_str().unwrap().replace('-', "") + "\n"
        );
        // Setuid programs work: no NO_NEW_PRIVS.
        assert_eq!(
            said(
                "setpriv --reuid 65534 --regid 65534 --clear-groups sh -c 'grep -h NoNewPrivs /proc/self/status'"
            ),
            "NoNewPrivs:\t0\n"
        );
        // A command as a unit, by the container's own systemd and D-Bus.
        assert_eq!(said("systemd-run --wait --pipe -q echo yes"), "yes\n");
        let first = container.leader();
        assert_eq!(host.run(&["exec", "base", "--", "systemctl", "reboot"]).status.code(), Some(0));
        wait_for("another leader", || {
            let state = container.state()?;
            (state["leader"]["pid"] != first && state["ready"] == true).then_some(())
        });
        let finished = container.stop();
        assert_eq!(finished.code, Some(0), "{}", finished.err);
        assert!(finished.err.ends_with("nixrun: Container base has been shut down.\n"), "{}", finished.err);
        assert!(host.processes().is_empty());
    });
}

#[test]
fn symlinks_of_the_host_are_the_hosts_business() {
    on_host(|host| {
        host.install(Kind::Mini, "mini");
        // /etc/resolv.conf is a link to a file of resolved on many hosts.
        host.write("var/resolved/stub", "nameserver 192.0.2.99\n", 0o644);
        fs::remove_file(host.path("etc/resolv.conf")).unwrap();
        symlink("../var/resolved/stub", host.path("etc/resolv.conf")).unwrap();
        let container = host.boot("mini");
        assert_eq!(host.inside("mini", "tail -n +2 /etc/resolv.conf"), "nameserver 192.0.2.99\n");
        container.stop();
        // No file at all is said and does no harm.
        fs::remove_file(host.path("etc/resolv.conf")).unwrap();
        let container = host.boot("mini");
        assert!(container.err().contains("the host has no /etc/resolv.conf"), "{}", container.err());
        container.stop();
    });
}
