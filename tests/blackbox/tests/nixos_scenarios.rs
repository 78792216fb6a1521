//! What the tests of NixOS's own containers assert, as far as a runtime decides it: the sample containers, configured by
//! NAME.conf and /etc/nixrun/NAME.json. Each test has its scenario's name; docs/testing.md says where the others are.
#![forbid(unsafe_code)]

use std::io::Write as _;
use std::process::Stdio;

use blackbox::{Host, nixrun_binary, on_host, wait_for};
use fixture::Kind;

/// NAME.conf without a network's addresses and ports.
const BARE: [(&str, Option<&str>); 5] = [
    ("HOST_PORT", None),
    ("HOST_ADDRESS", None),
    ("HOST_ADDRESS6", None),
    ("LOCAL_ADDRESS", None),
    ("LOCAL_ADDRESS6", None),
];

/// Configures a sample container with these lines of a network, and typed configuration beside them.
fn install(host: &Host<'_>, kind: Kind, name: &str, conf: &[(&str, &str)], json: &str) {
    host.install(kind, name);
    host.set_conf(name, &BARE);
    for (key, value) in conf {
        host.set_conf(name, &[(key, Some(value))]);
    }
    if !json.is_empty() {
        host.write(&format!("etc/nixrun/{name}.json"), json, 0o644);
    }
}

/// Whether one packet there and back arrives.
fn pings(host: &Host<'_>, address: &str) -> bool {
    host.sh(&format!("busybox ping -c 1 -W 2 {address} > /dev/null 2>&1 && echo yes || echo no")) == "yes\n"
}

/// What a container's web server, or a forward to it, answers; empty for nothing.
fn page(host: &Host<'_>, place: &str) -> String {
    host.sh(&format!("curl -s -m 2 http://{place}/ || :"))
}

#[track_caller]
fn reached(host: &Host<'_>, addresses: &[&str], expected: bool) {
    for address in addresses {
        assert_eq!(pings(host, address), expected, "ping {address}");
        let place = if address.contains(':') { format!("[{address}]") } else { (*address).to_owned() };
        assert_eq!(page(host, &place).contains("release 1"), expected, "a page from {address}");
    }
}

#[test]
fn bridge() {
    on_host(|host| {
        host.sh("ip link add br0 type bridge; ip addr add 192.168.0.1/24 dev br0
             ip addr add fc00::1/7 dev br0 nodad; ip link set br0 up");
        let addresses =
            [("HOST_BRIDGE", "br0"), ("LOCAL_ADDRESS", "192.168.0.100/24"), ("LOCAL_ADDRESS6", "fc00::2/7")];
        install(host, Kind::Mini, "webserver", &addresses, "");
        install(host, Kind::Mini, "web-noip", &[("HOST_BRIDGE", "br0")], "");
        let (webserver, noip) = (host.boot("webserver"), host.boot("web-noip"));
        for name in ["webserver", "web-noip"] {
            assert!(host.inside(name, "ip -o link show dev eth0").contains("LOWER_UP"), "{name}");
            assert!(host.ok(&["status", name]).contains("running"), "{name}");
        }
        reached(host, &["192.168.0.100", "fc00::2"], true);
        assert_eq!(webserver.stop().code, Some(0));
        reached(host, &["192.168.0.100", "fc00::2"], false);
        assert_eq!(noip.stop().code, Some(0));
    });
}

#[test]
fn ephemeral() {
    on_host(|host| {
        let addresses = [("HOST_ADDRESS", "10.231.136.1"), ("LOCAL_ADDRESS", "10.231.136.2")];
        install(host, Kind::Mini, "webserver", &addresses, r#"{"ephemeral": true}"#);
        let container = host.boot("webserver");
        assert!(!host.root_of("webserver").exists(), "a directory that stays");
        reached(host, &["10.231.136.2"], true);
        assert_eq!(host.inside("webserver", "echo kept > /root/kept; cat /root/kept"), "kept\n");
        assert_eq!(container.stop().code, Some(0));
        assert!(!host.root_of("webserver").exists(), "a directory that stays");
        // The directory itself is the unit's, which removes it; nothing of the container is in it.
        assert_eq!(host.sh("find /run/nixos-containers -name kept"), "");
        let container = host.boot("webserver");
        assert_eq!(host.inside("webserver", "ls /root"), "");
        container.stop();
    });
}

#[test]
fn extra_veth() {
    on_host(|host| {
        host.sh("ip link add br0 type bridge; ip link set br0 up
             ip link add br1 type bridge; ip addr add 192.168.2.1/24 dev br1; ip link set br1 up");
        let json = r#"{"extraVeths": {
            "veth1": {"hostBridge": "br1", "localAddress": "192.168.2.100/24"},
            "veth2": {"hostAddress": "192.168.3.1", "localAddress": "192.168.3.100"}
        }}"#;
        let main = [("HOST_ADDRESS", "192.168.1.1"), ("LOCAL_ADDRESS", "192.168.1.100")];
        install(host, Kind::Mini, "webserver", &main, json);
        let container = host.boot("webserver");
        for link in ["veth1", "veth2"] {
            let (outside, inside) = (
                host.sh(&format!("ip link show {link}")),
                host.inside("webserver", &format!("ip link show {link}")),
            );
            assert!(outside.contains("state UP") && inside.contains("LOWER_UP"), "{outside}{inside}");
        }
        assert!(host.sh("ip link show veth1").contains("master br1"));
        for address in ["192.168.1.100", "192.168.2.100", "192.168.3.100"] {
            assert!(pings(host, address), "{address}");
        }
        assert_eq!(container.stop().code, Some(0));
        for address in ["192.168.1.100", "192.168.2.100", "192.168.3.100"] {
            assert!(!pings(host, address), "{address}");
        }
        let links = host.sh("ip -o link; ip route");
        assert!(!links.contains("veth") && !links.contains("ve-") && !links.contains("192.168.3"), "{links}");
    });
}

#[test]
fn hosts() {
    on_host(|host| {
        host.write("etc/hosts", "127.0.0.1 localhost\n", 0o644);
        let simple = [("HOST_ADDRESS", "10.10.0.1"), ("LOCAL_ADDRESS", "10.10.0.254")];
        install(host, Kind::Mini, "simple", &simple, "");
        host.sh("ip link add br0 type bridge; ip addr add 10.11.0.1/24 dev br0; ip link set br0 up");
        let netmask = [("HOST_BRIDGE", "br0"), ("LOCAL_ADDRESS", "10.11.0.254/24")];
        install(host, Kind::Mini, "netmask", &netmask, "");
        let containers = [host.boot("simple"), host.boot("netmask")];
        // The hosts file of this host is not this machine's.
        let file = host.path("etc/hosts");
        let ping = |name: &str| {
            let script = format!(
                "busybox mount -o bind {} /etc/hosts; busybox ping -c 1 -W 2 {name}.containers",
                file.display()
            );
            host.sh(&format!("unshare -m sh -c '{script}' | grep -o '([0-9.]*)' | head -1"))
        };
        assert_eq!(ping("simple"), "(10.10.0.254)\n");
        assert_eq!(ping("netmask"), "(10.11.0.254)\n");
        for container in containers {
            assert_eq!(container.stop().code, Some(0));
        }
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "127.0.0.1 localhost\n");
    });
}

#[test]
fn ip() {
    on_host(|host| {
        let v4 = [("HOST_ADDRESS", "10.231.136.1"), ("LOCAL_ADDRESS", "10.231.136.2")];
        let v6 = [("HOST_ADDRESS6", "fc00::2"), ("LOCAL_ADDRESS6", "fc00::1")];
        install(host, Kind::Mini, "webserver4", &v4, "");
        install(host, Kind::Mini, "webserver6", &v6, "");
        for (name, address) in [("webserver4", "10.231.136.2"), ("webserver6", "fc00::1")] {
            host.ok(&["start", name]);
            // Right after the start, without another try.
            reached(host, &[address], true);
            assert!(host.ok(&["list"]).contains(address));
            assert_eq!(host.ok(&["show-ip", name]).trim(), address);
        }
        for (name, address) in [("webserver4", "10.231.136.2"), ("webserver6", "fc00::1")] {
            host.ok(&["stop", name]);
            reached(host, &[address], false);
        }
    });
}

#[test]
fn macvlans() {
    on_host(|host| {
        // The other machine, at the far end of eth1; it has no address of its own by which the host could be reached.
        host.sh("ip netns add machine; ip link add eth1 type veth peer name far1 netns machine; ip link set eth1 up
             ip -n machine addr add 192.168.1.20/24 dev far1; ip -n machine link set far1 up
             ip link add link eth1 name mv-eth1-host type macvlan mode bridge
             ip addr add 192.168.1.1/24 dev mv-eth1-host; ip link set mv-eth1-host up");
        let (one, two) = ("192.168.1.2", "192.168.1.3");
        let containers = [("test1", one), ("test2", two)].map(|(name, address)| {
            install(host, Kind::Mini, name, &[("MACVLANS", "eth1")], "");
            let container = host.boot(name);
            host.inside(name, &format!("ip addr add {address}/24 dev mv-eth1; ip link set mv-eth1 up"));
            container
        });
        for address in [one, two] {
            assert!(pings(host, address), "the host pings {address}");
            host.sh(&format!("ip netns exec machine busybox ping -c 1 -W 5 {address}"));
        }
        for (name, other) in [("test1", two), ("test2", one)] {
            for address in [other, "192.168.1.1", "192.168.1.20"] {
                host.inside(name, &format!("ping -c 1 -W 5 {address} > /dev/null"));
            }
        }
        for container in containers {
            assert_eq!(container.stop().code, Some(0));
        }
        host.sh("ip netns del machine");
    });
}

#[test]
fn names() {
    on_host(|host| {
        let names = ["first", "second", "really-long-name", "really-long-long-name-2"];
        let containers: Vec<_> = names
            .iter()
            .enumerate()
            .map(|(n, name)| {
                let addresses = [1, 2].map(|last| format!("192.168.{n}.{last}"));
                let conf = [("HOST_ADDRESS", addresses[0].as_str()), ("LOCAL_ADDRESS", &addresses[1])];
                install(host, Kind::Mini, name, &conf, "");
                host.boot(name)
            })
            .collect();
        for link in ["ve-first", "ve-second", "ve-really-lFYWO", "ve-really-l3QgY"] {
            host.sh(&format!("ip link show dev {link}"));
        }
        for container in containers {
            assert_eq!(container.stop().code, Some(0));
        }
        assert_eq!(host.sh("ip -o link | grep -c ve- || :").trim(), "0");
    });
}

#[test]
fn portforward() {
    on_host(|host| {
        host.sh(
            "ip link add outside type bridge; ip addr add 192.0.2.1/24 dev outside; ip link set outside up",
        );
        let conf = [
            ("HOST_ADDRESS", "192.168.0.1"),
            ("LOCAL_ADDRESS", "192.168.0.100"),
            ("HOST_PORT", "tcp:10080:80"),
        ];
        install(host, Kind::Mini, "webserver", &conf, "");
        // From the host itself, by its own address on the link, by another of its addresses, and by its loopback.
        let places = ["192.168.0.1:10080", "192.0.2.1:10080", "127.0.0.1:10080"];
        for _ in 0..2 {
            host.ok(&["start", "webserver"]);
            for place in places {
                assert!(page(host, place).contains("mini release 1"), "{place}");
            }
            host.ok(&["stop", "webserver"]);
            for place in places {
                assert_eq!(page(host, place), "", "{place} after the stop");
            }
        }
    });
}

#[test]
fn reloadable() {
    on_host(|host| {
        install(host, Kind::Base, "client", &[], "");
        let next = fixture::build(Kind::Base, 2).expect("the fixture builds");
        let container = host.boot("client");
        let page = || host.inside("client", "curl -s http://127.0.0.1/");
        wait_for("the web server", || page().contains("release 1").then_some(()));
        let leader = container.leader();
        let switch = format!("{}/bin/switch-to-configuration", next.system.display());
        host.ok(&["exec", "client", "--", &switch, "test"]);
        wait_for("the new web server", || page().contains("release 2").then_some(()));
        assert!(host.inside("client", "cat /etc/os-release").contains("25.11.2"));
        assert_eq!(container.leader(), leader);
        assert_eq!(container.stop().code, Some(0));
    });
}

#[test]
fn restart_networking() {
    on_host(|host| {
        let bridge = "ip link add br0 type bridge; ip addr add 192.168.1.1/24 dev br0; ip link set br0 up";
        host.sh(bridge);
        let conf = [("HOST_BRIDGE", "br0"), ("LOCAL_ADDRESS", "192.168.1.122/24")];
        install(host, Kind::Mini, "webserver", &conf, "");
        let container = host.boot("webserver");
        assert!(pings(host, "192.168.1.122"));
        // What a switch of the host's configuration does to its bridge: a port more, a port less, and all of it anew.
        host.sh(
            "ip link add eth1 type veth peer name far1; ip link set eth1 master br0; ip link set eth1 up",
        );
        assert!(pings(host, "192.168.1.122"), "with another port");
        host.sh("ip link del eth1");
        assert!(pings(host, "192.168.1.122"), "without it again");
        host.sh(&format!("ip link del br0; {bridge}"));
        wait_for("the container on the new bridge", || pings(host, "192.168.1.122").then_some(()));
        assert_eq!(container.stop().code, Some(0));
    });
}

#[test]
fn tmpfs() {
    on_host(|host| {
        let json = r#"{"tmpfs": ["/var", "/var/log", "/some/random/path"]}"#;
        install(host, Kind::Base, "tmpfs", &[], json);
        // What lies in the root on the host is not seen inside.
        let root = host.root_of("tmpfs");
        host.sh(&format!(
            "mkdir -p {0}/var/log; echo h > {0}/var/hidden; echo h > {0}/var/log/hidden",
            root.display()
        ));
        let container = host.boot("tmpfs");
        for unit in ["var.mount", "var-log.mount", "some-random-path.mount"] {
            let state = host.inside("tmpfs", &format!("systemctl show -P ActiveState -P What {unit}"));
            assert!(state.contains("active") && state.contains("tmpfs"), "{unit}: {state}");
        }
        for path in ["/var", "/var/log", "/some/random/path"] {
            let seen = host
                .inside("tmpfs", &format!("ls {path} | grep hidden || echo none; echo x > {path}/written"));
            assert_eq!(seen, "none\n", "{path}");
            assert!(!root.join(&path[1..]).join("written").exists(), "{path} is the host's");
        }
        // A directory that is no mount is the root's.
        host.inside("tmpfs", "echo x > /root/written");
        assert!(root.join("root/written").exists());
        assert_eq!(container.stop().code, Some(0));
    });
}

#[test]
fn unified_hierarchy() {
    on_host(|host| {
        install(host, Kind::Base, "test-container", &[], "");
        let container = host.boot("test-container");
        // As a pipe feeds a root shell.
        let mut shell = host
            .nixrun(&["exec", "test-container", "--", "bash", "--login"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        shell.stdin.take().unwrap().write_all(b"stat --file-system --format %T /sys/fs/cgroup\n").unwrap();
        let said = shell.wait_with_output().unwrap();
        assert_eq!(String::from_utf8_lossy(&said.stdout), "cgroup2fs\n");
        assert_eq!(container.stop().code, Some(0));
    });
}

#[test]
fn nested() {
    on_host(|host| {
        std::fs::copy(nixrun_binary(), host.path("nixrun-binary")).unwrap();
        let json = r#"{"nested": true, "bindMounts": {"/nixrun": {"hostPath": "/nixrun-binary"}}}"#;
        install(host, Kind::Base, "container", &[], json);
        let container = host.boot("container");
        let inside = |script: &str| host.inside("container", script);
        // The inner one is of the same system, with a network of its own in that of the outer one.
        inside(
            "mkdir -p /etc/nixos-containers /var/lib/nixos-containers
             printf 'SYSTEM_PATH=%s\\nPRIVATE_NETWORK=1\\nHOST_ADDRESS=10.1.0.1\\nLOCAL_ADDRESS=10.1.0.2\\n' \
                 $(readlink -f /run/current-system) > /etc/nixos-containers/nested.conf
             /nixrun start nested || { cat /var/log/nixrun/nested.log; exit 1; }",
        );
        for (shell, name) in [("", "container"), ("/nixrun exec nested -- ", "nested")] {
            assert_eq!(inside(&format!("{shell}systemctl is-system-running --wait")), "running\n", "{name}");
            let said = inside(&format!("{shell}systemd-run --wait --pipe -q echo from a unit"));
            assert_eq!(said, "from a unit\n", "{name}");
        }
        assert!(inside("curl -s http://10.1.0.2/").contains("base release 1"));
        inside("/nixrun stop nested");
        assert_eq!(container.stop().code, Some(0));
    });
}
