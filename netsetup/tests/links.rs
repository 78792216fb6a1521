//! Links beyond the one veth pair: what `apply` makes, what goes through it, and that the host gets its own back.

mod common;

use common::{Netns, assert_unchanged, bridge, on_host, outside, paths, sh, snapshot, try_up, up};
use netsetup::{ExtraVeth, MovedLink, NetworkConfig, SubLink, Veth, reclaim, resources_for};

/// As NixOS's `extraVeths`, with a /32 on both ends.
fn extra(name: &str, number: u8) -> ExtraVeth {
    ExtraVeth {
        host_link: name.into(),
        container_link: name.into(),
        bridge: None,
        up: true,
        host_address: Some([192, 168, number, 1].into()),
        host_address6: Some(format!("fd00:{number}::1").parse().unwrap()),
        local_address: Some(format!("192.168.{number}.2/32").parse().unwrap()),
        local_address6: Some(format!("fd00:{number}::2/128").parse().unwrap()),
    }
}

/// As `--network-veth` and `--network-zone=`.
fn plain(name: &str, bridge: Option<&str>, make_bridge: bool, up: bool) -> NetworkConfig {
    let veth = Veth {
        container_link: "host0".into(),
        bridge: bridge.map(Into::into),
        make_bridge,
        up,
        container_mac: None,
        host_address: None,
        host_address6: None,
        local_address: None,
        local_address6: None,
    };
    NetworkConfig { veth: Some(veth), ..NetworkConfig::new(name) }
}

fn moving(name: &str, host_link: &str, container_link: Option<&str>) -> NetworkConfig {
    let link = MovedLink { host_link: host_link.into(), container_link: container_link.map(Into::into) };
    NetworkConfig { interfaces: vec![link], ..NetworkConfig::new(name) }
}

fn macvlan(name: &str, parent: &str) -> NetworkConfig {
    let link = SubLink { parent: parent.into(), container_link: None };
    NetworkConfig { macvlans: vec![link], ..NetworkConfig::new(name) }
}

/// A link of the host, and the namespace that its other end is in, so that it outlives tests of losing it.
fn wired(name: &str) -> Netns {
    let other = Netns::new();
    sh(&format!("ip link add {name} type veth peer name up0 netns {}", other.path()));
    other.sh("ip link set up0 up");
    other
}

#[track_caller]
fn assert_refused(config: &NetworkConfig, words: &str) {
    let error = try_up(config, &Netns::new()).expect_err("nobody should get this").to_string();
    assert!(error.contains(words), "{error}");
}

#[test]
fn further_pairs_are_complete() {
    on_host(|| {
        bridge("br1");
        let mut config = common::config("web", 1);
        let bridged = ExtraVeth {
            bridge: Some("br1".into()),
            host_address6: None,
            local_address: Some("192.168.8.2/24".parse().unwrap()),
            local_address6: None,
            ..extra("veth2", 8)
        };
        config.extra_veths = vec![extra("veth1", 7), bridged];
        let container = Netns::new();
        sh("ip addr add 192.168.8.1/24 dev br1");
        let applied = up(&config, &container);
        let link = sh("ip link show veth2");
        assert!(link.contains("master br1") && link.contains("state UP"), "{link}");
        assert!(sh("ip link show veth1").contains("state UP"));
        for name in ["eth0", "veth1", "veth2"] {
            assert!(container.sh(&format!("ip link show {name}")).contains("state UP"));
        }
        assert_eq!(
            container.sh("ip -4 route"),
            "default via 10.233.1.1 dev eth0 \n10.233.1.1 dev eth0 scope link \n\
             192.168.7.1 dev veth1 scope link \n192.168.8.0/24 dev veth2 proto kernel scope link src 192.168.8.2 \n\
             192.168.8.1 dev veth2 scope link \n"
        );
        sh("for a in 10.233.1.2 192.168.7.2 192.168.8.2; do busybox ping -c 1 -W 5 $a; done
            busybox ping -6 -c 1 -W 5 fd00:7::2");
        container.sh("busybox ping -c 1 -W 5 192.168.7.1; busybox ping -6 -c 1 -W 5 fd00:7::1");
        applied.teardown(true).unwrap();
        assert!(!sh("ip -o link").contains("veth"));
    });
}

#[test]
fn further_pairs_alone_are_reached_and_reclaimed() {
    on_host(|| {
        sh("mkdir /run/nixrun");
        let before = snapshot();
        let mut config = NetworkConfig::new("web");
        config.extra_veths = vec![extra("veth1", 7)];
        let container = Netns::new();
        let applied = up(&config, &container);
        sh("busybox ping -c 1 -W 5 192.168.7.2");
        // Another container may not have the address, nor the name.
        let mut other = NetworkConfig::new("other");
        other.extra_veths = vec![extra("veth2", 7)];
        assert_refused(&other, "address 192.168.7.2 is already held by container web");
        other.extra_veths = vec![extra("veth1", 8)];
        assert_refused(&other, "the name veth1 is already taken by container web");
        let plan =
            netsetup::NetworkPlan::new(&config, &netsetup::NetFacts::probe(&paths(), &config).unwrap());
        applied.keep();
        reclaim(&paths(), "web", &plan.unwrap().resources()).unwrap();
        assert_unchanged(&before);
    });
}

#[test]
fn a_zone_lives_as_long_as_its_containers() {
    on_host(|| {
        sh("mkdir /run/nixrun /run/systemd");
        let before = snapshot();
        let (one, two) = (Netns::new(), Netns::new());
        let zone = |name| plain(name, Some("vz-lan"), true, true);
        let up_one = up(&zone("one"), &one);
        let up_two = up(&zone("two"), &two);
        for link in ["vb-one", "vb-two"] {
            assert!(sh(&format!("ip link show {link}")).contains("master vz-lan"));
        }
        one.sh("ip addr add 192.168.7.1/24 dev host0");
        two.sh("ip addr add 192.168.7.2/24 dev host0");
        one.sh("busybox ping -c 1 -W 5 192.168.7.2");
        // Without waiting for links: a zone's must be gone by then.
        up_one.teardown(false).unwrap();
        assert!(sh("ip -o link").contains("vz-lan"));
        up_two.teardown(false).unwrap();
        assert!(!sh("ip -o link").contains("vz-lan"));
        assert_unchanged(&before);
        // The last one crashes.
        let config = zone("three");
        let plan =
            netsetup::NetworkPlan::new(&config, &netsetup::NetFacts::probe(&paths(), &config).unwrap());
        up(&config, &Netns::new()).keep();
        let removed = reclaim(&paths(), "three", &plan.unwrap().resources()).unwrap().removed;
        assert_eq!(removed.len(), 2, "{removed:?}");
        assert_unchanged(&before);
    });
}

#[test]
fn a_zone_that_cannot_be_joined_leaves_no_bridge() {
    on_host(|| {
        sh("mkdir /run/nixrun /run/systemd");
        let before = snapshot();
        let container = Netns::new();
        container.sh("ip link add host0 type bridge");
        let error = try_up(&plain("one", Some("vz-lan"), true, true), &container).unwrap_err().to_string();
        assert!(error.starts_with("cannot create the veth pair vb-one"), "{error}");
        assert_unchanged(&before);
        sh("ip link add vz-lan type veth peer name other");
        assert_refused(
            &plain("one", Some("vz-lan"), true, true),
            "the bridge vz-lan is a link of another kind",
        );
    });
}

#[test]
fn many_come_and_go_in_one_zone() {
    on_host(|| {
        sh("mkdir /run/nixrun /run/systemd");
        let before = snapshot();
        std::thread::scope(|scope| {
            for number in 1..=4 {
                scope.spawn(move || {
                    for _ in 0..5 {
                        let config = plain(&format!("web{number}"), Some("vz-lan"), true, true);
                        up(&config, &Netns::new()).teardown(true).unwrap();
                    }
                });
            }
        });
        assert_unchanged(&before);
    });
}

#[test]
fn links_move_in_and_come_back() {
    on_host(|| {
        let _other = wired("eth1");
        sh("mkdir /run/nixrun; ip link property add dev eth1 altname a-name-with-more-than-15-bytes");
        let before = snapshot();
        let container = Netns::new();
        let applied = up(&moving("web", "a-name-with-more-than-15-bytes", Some("lan0")), &container);
        assert!(!sh("ip -o link").contains("eth1"));
        let inside = container.sh("ip link show a-name-with-more-than-15-bytes");
        assert!(inside.contains(": lan0@") && inside.contains("altname"), "{inside}");
        assert_refused(
            &moving("other", "eth1", None),
            "the interface eth1 has moved into container web; stop that first (`nixrun reclaim web` if it crashed)",
        );
        // The container's root renames it; its processes end, and nothing else keeps the namespace.
        container.sh("ip link set lan0 name strange0; ip link set strange0 up");
        drop(container);
        applied.teardown(false).unwrap();
        assert_unchanged(&before);
    });
}

#[test]
fn a_link_keeps_its_name_where_the_new_one_is_its_alternative_name() {
    on_host(|| {
        let _other = wired("eth1");
        sh("ip link property add dev eth1 altname lan0");
        let container = Netns::new();
        let _up = up(&moving("web", "eth1", Some("lan0")), &container);
        assert!(container.sh("ip link show lan0").contains(": eth1@"));
    });
}

#[test]
fn links_swap_their_names_and_swap_them_back() {
    on_host(|| {
        let _others = (wired("eth1"), wired("eth2"));
        sh("mkdir /run/nixrun");
        let before = snapshot();
        let mut config = moving("web", "eth1", Some("eth2"));
        config.interfaces.push(MovedLink { host_link: "eth2".into(), container_link: Some("eth1".into()) });
        let mac =
            |link: &str| sh(&format!("ip -br link show {link}")).split_whitespace().nth(2).map(str::to_owned);
        let mac_of_eth1 = mac("eth1").unwrap();
        let container = Netns::new();
        let applied = up(&config, &container);
        assert!(container.sh("ip -br link show eth2").contains(&mac_of_eth1));
        applied.teardown(true).unwrap();
        assert_unchanged(&before);
    });
}

#[test]
fn a_crash_loses_no_link() {
    on_host(|| {
        let _other = wired("eth1");
        sh("mkdir /run/nixrun");
        let before = snapshot();
        let container = Netns::new();
        up(&moving("web", "eth1", Some("lan0")), &container).keep();
        // The container is dead; a virtual link would be, too.
        drop(container);
        assert!(!sh("ip -o link").contains("eth1"));
        reclaim(&paths(), "web", &resources_for("web")).unwrap();
        assert_unchanged(&before);
        // The next start gets it back by itself.
        up(&moving("web", "eth1", Some("lan0")), &Netns::new()).keep();
        let container = Netns::new();
        let applied = up(&moving("web", "eth1", None), &container);
        assert!(container.sh("ip -o link").contains("eth1"));
        applied.teardown(true).unwrap();
        assert_unchanged(&before);
    });
}

#[test]
fn what_became_of_a_link_is_told() {
    on_host(|| {
        let _others = (wired("eth1"), wired("eth2"));
        sh("mkdir /run/nixrun");
        // Somebody takes its name meanwhile: it comes back all the same.
        let container = Netns::new();
        let applied = up(&moving("web", "eth1", Some("lan0")), &container);
        sh("ip link add eth1 type bridge");
        let errors = applied.teardown(true).unwrap_err().to_string();
        assert_eq!(
            errors,
            "link eth1 of the host did not come back from container web: its name is taken by another link, so it is \
             called lan0 now; `ip link set lan0 name eth1` once that is free"
        );
        sh("ip link show lan0; ip link del eth1; ip link set lan0 name eth1");
        let applied = up(&moving("web", "eth1", None), &container);
        sh("ip link add eth1 type bridge");
        let errors = applied.teardown(true).unwrap_err().to_string();
        assert!(errors.contains("so it is called dev"), "{errors}");
        // The container deletes it.
        let applied = up(&moving("web", "eth2", None), &container);
        container.sh("ip link del eth2");
        let errors = applied.teardown(true).unwrap_err().to_string();
        assert!(errors.starts_with("link eth2 of the host did not come back"), "{errors}");
        assert!(sh("find /run/nixrun -mindepth 1").is_empty());
    });
}

#[test]
fn links_that_cannot_move_are_refused() {
    on_host(|| {
        let _other = wired("eth1");
        bridge("br0");
        sh("ip link set eth1 master br0; mkdir -p /run/udev/data; mkdir /run/nixrun");
        let before = snapshot();
        assert_refused(&moving("web", "eth9", None), "the interface eth9 does not exist on the host");
        assert_refused(&moving("web", "lo", None), "the loopback link lo stays where it is");
        assert_refused(&moving("web", "br0", None), "is a bridge, which the kernel moves to no other");
        assert_refused(&moving("web", "eth1", None), "the interface eth1 is in use as a port of br0");
        sh("ip link set eth1 nomaster; touch /run/udev/control");
        assert_refused(&moving("web", "eth1", None), "the interface eth1 is not initialized by udev yet");
        sh("ip link set eth1 master br0; rm /run/udev/control");
        assert_unchanged(&before);
        sh(
            "ip link set eth1 nomaster; touch /run/udev/control /run/udev/data/n$(cat /sys/class/net/eth1/ifindex || ip -o link show eth1 | cut -d: -f1)",
        );
        let _up = up(&moving("web", "eth1", None), &Netns::new());
    });
}

#[test]
fn macvlans_of_one_parent_reach_each_other_and_the_outside() {
    on_host(|| {
        let outside = outside();
        sh("mkdir /run/nixrun");
        let before = snapshot();
        let (one, two) = (Netns::new(), Netns::new());
        let (up_one, up_two) = (up(&macvlan("one", "eth0"), &one), up(&macvlan("two", "eth0"), &two));
        let link = one.sh("ip -d link show mv-eth0");
        assert!(link.contains("macvlan mode bridge") && link.contains("state DOWN"), "{link}");
        // What the container does itself.
        one.sh("ip addr add 203.0.113.11/24 dev mv-eth0; ip link set mv-eth0 up");
        two.sh("ip addr add 203.0.113.12/24 dev mv-eth0; ip link set mv-eth0 up");
        one.sh("busybox ping -c 1 -W 5 203.0.113.12; busybox ping -c 1 -W 5 203.0.113.2");
        outside.sh("busybox ping -c 1 -W 5 203.0.113.12");
        up_one.teardown(true).unwrap();
        assert!(!one.sh("ip -o link").contains("mv-eth0"));
        up_two.teardown(true).unwrap();
        assert_unchanged(&before);
    });
}

#[test]
fn a_macvlan_has_the_long_name_of_its_parent_as_an_alternative_one() {
    on_host(|| {
        let _other = wired("a-long-named-if");
        let mut config = macvlan("web", "a-long-named-if");
        config
            .macvlans
            .push(SubLink { parent: "a-long-named-if".into(), container_link: Some("lan0".into()) });
        let container = Netns::new();
        let _up = up(&config, &container);
        let link = container.sh("ip link show mv-a-long-named-if");
        assert!(link.contains(": mv-a-long-n") && link.contains("altname mv-a-long-named-if"), "{link}");
        container.sh("ip link show lan0");
    });
}

#[test]
fn an_ipvlan_is_made_or_what_the_kernel_lacks_is_named() {
    on_host(|| {
        let _outside = outside();
        sh("mkdir /run/nixrun");
        let before = snapshot();
        let mut config = NetworkConfig::new("web");
        config.ipvlans = vec![SubLink { parent: "eth0".into(), container_link: None }];
        let container = Netns::new();
        match try_up(&config, &container) {
            Ok(applied) => {
                let link = container.sh("ip -d link show iv-eth0");
                assert!(link.contains("ipvlan  mode l2"), "{link}");
                applied.teardown(true).unwrap();
            }
            Err(error) => assert_eq!(
                error.to_string(),
                "cannot create the link iv-eth0 on eth0: the kernel has no IPVLAN links; load or build the module \
                 ipvlan (CONFIG_IPVLAN)"
            ),
        }
        assert_unchanged(&before);
    });
}

#[test]
fn a_pair_that_stays_down_is_left_to_the_container_and_the_host() {
    on_host(|| {
        let container = Netns::new();
        let _up = up(&plain("web", None, false, false), &container);
        for link in [sh("ip link show ve-web"), container.sh("ip link show host0")] {
            assert!(link.contains("<BROADCAST,MULTICAST>"), "{link}");
        }
        assert_eq!(sh("ip -4 addr show ve-web; ip -6 addr show ve-web"), "");
        assert!(container.sh("ip link show lo").contains("LOOPBACK,UP"));
    });
}

/// How often the thread that attends to the network has slept.
fn sleeps() -> u64 {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten().map(|task| task.path());
    let named = |path: &std::path::Path| {
        std::fs::read_to_string(path.join("comm")).is_ok_and(|name| name == "nixrun-network\n")
    };
    let status =
        tasks.filter(|path| named(path)).flat_map(|path| std::fs::read_to_string(path.join("status")));
    let count = |status: String| {
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
        line.trim().parse::<u64>().ok()
    };
    status.filter_map(count).sum()
}

#[test]
fn ports_return_to_bridges_that_are_made_anew() {
    on_host(|| {
        bridge("br0");
        bridge("br1");
        let mut config = plain("web", Some("br0"), false, true);
        let bridged = ExtraVeth {
            bridge: Some("br1".into()),
            host_address: None,
            host_address6: None,
            local_address: None,
            local_address6: None,
            ..extra("veth1", 7)
        };
        config.extra_veths = vec![bridged];
        let container = Netns::new();
        let mut applied = up(&config, &container);
        assert_eq!(applied.attend(), Vec::<String>::new());
        for (name, port) in [("br0", "vb-web"), ("br1", "veth1"), ("br0", "vb-web")] {
            sh(&format!("ip link del {name}"));
            assert!(!sh(&format!("ip link show {port}")).contains("master"));
            bridge(name);
            let limit = std::time::Instant::now() + std::time::Duration::from_secs(20);
            while !sh(&format!("ip link show {port}")).contains(&format!("master {name}")) {
                assert!(std::time::Instant::now() < limit, "{port} did not come back to {name}");
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
        }
        // Other links do not wake it, whatever they are called.
        sh("for i in 1 2 3; do ip link set br0 mtu 140$i; done; sleep 0.2");
        let before = sleeps();
        sh(
            "for n in br br00 br2 web; do ip link add name $n type bridge; ip link set dev $n up; ip link del dev $n; done",
        );
        assert_eq!(sleeps(), before);
        applied.teardown(true).unwrap();
    });
}
