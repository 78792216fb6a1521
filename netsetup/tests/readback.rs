//! What `apply` makes, read back with ip and nft; what it leaves: nothing.

mod common;

use std::os::fd::AsFd;

use common::{Netns, assert_unchanged, bridge, config, forward, on_host, paths, sh, snapshot, up};
use netsetup::{Protocol, reclaim, resources_for};

#[test]
fn both_ends_are_complete() {
    on_host(|| {
        let container = Netns::new();
        let applied = up(&config("web", 1), &container);

        let link = sh("ip -d link show ve-web");
        for part in ["<BROADCAST,MULTICAST,UP,LOWER_UP>", "alias nixrun:web", "group 1852405761"] {
            assert!(link.contains(part), "{part} in {link}");
        }
        assert!(sh("ip -4 addr show ve-web").contains("inet 10.233.1.1/32 scope global ve-web"));
        assert!(sh("ip -6 addr show ve-web").contains("inet6 fc00:1::1/128 scope global nodad"));
        assert_eq!(sh("ip -4 route show dev ve-web"), "10.233.1.2 scope link \n");
        assert!(sh("ip -6 route show dev ve-web").contains("fc00:1::2 metric 1024"));

        let container_v6 = container.sh("ip -6 addr show eth0");
        for addresses in [sh("ip -6 addr show ve-web"), container_v6] {
            // Usable at once: nothing is being tested for duplicates.
            assert!(addresses.contains("fe80::") && !addresses.contains("tentative"), "{addresses}");
        }

        assert!(container.sh("ip link show lo").contains("LOOPBACK,UP"));
        assert!(container.sh("ip link show eth0").contains("LOWER_UP"));
        assert!(container.sh("ip -4 addr show eth0").contains("inet 10.233.1.2/32 scope global eth0"));
        assert!(container.sh("ip -6 addr show eth0").contains("inet6 fc00:1::2/128 scope global nodad"));
        let routes = container.sh("ip route");
        assert_eq!(routes, "default via 10.233.1.1 dev eth0 \n10.233.1.1 dev eth0 scope link \n");
        let routes = container.sh("ip -6 route");
        assert!(routes.contains("default via fc00:1::1 dev eth0 metric 1024"), "{routes}");
        assert!(routes.contains("fc00:1::1 dev eth0 metric 1024"), "{routes}");
        applied.keep();
    });
}

#[test]
fn nothing_remains() {
    on_host(|| {
        let _outside = common::outside();
        sh("mkdir /run/nixrun");
        let before = snapshot();
        let mut config = config("a-container-with-a-long-name", 1);
        config.forwards = vec![forward(Protocol::Tcp, 8080, 80), forward(Protocol::Udp, 53, 53)];
        let container = Netns::new();
        let applied = up(&config, &container);
        assert_ne!(snapshot(), before);
        let table = sh("nft list table inet nixrun");
        for line in [
            "tcp . 8080 comment \"a-container-with-a-long-name\" : 10.233.1.2 . 80",
            "udp . 53 comment \"a-container-with-a-long-name\" : fc00:1::2 . 53",
            "\"ve-a-contaiiirS\" . \"ve-a-contaiiirS\" comment",
            "dnat ip to ip daddr . meta l4proto . th dport map @forward_at4",
            "ip daddr 127.0.0.0/8 iifgroup 1852405760/24 drop",
            "iifgroup 1852405761 oifgroup != 1852405760/24 jump private",
        ] {
            assert!(table.contains(line), "{line} in {table}");
        }
        assert!(sh("ip link show ve-a-container-with-a-long-name").contains("altname"));
        drop(container);
        applied.teardown(true).unwrap();
        assert_unchanged(&before);
    });
}

#[test]
fn reclaim_removes_what_a_crash_left() {
    on_host(|| {
        let _outside = common::outside();
        sh("mkdir /run/nixrun");
        let before = snapshot();
        let mut config = config("web", 1);
        config.forwards = vec![forward(Protocol::Tcp, 8080, 80)];
        let container = Netns::new();
        up(&config, &container).keep();
        let reclaimed = reclaim(&paths(), "web", &resources_for("web")).unwrap();
        assert_eq!(reclaimed.removed.len(), 2);
        assert_unchanged(&before);
        // Again: nothing to do.
        assert!(reclaim(&paths(), "web", &resources_for("web")).unwrap().removed.is_empty());
    });
}

#[test]
fn containers_router_advertisements_are_ignored() {
    on_host(|| {
        let accept = || sh("cat /proc/sys/net/ipv6/conf/ve-web/accept_ra").trim_end().to_owned();
        let mut config = config("web", 1);
        // The host forwards: it ignores them by itself.
        let applied = up(&config, &Netns::new());
        assert_eq!(sh("cat /proc/sys/net/ipv6/conf/all/forwarding"), "1\n");
        applied.teardown(true).unwrap();
        // It does not: it would listen to them.
        config.nat = netsetup::Nat::No;
        let container = Netns::new();
        let applied = up(&config, &container);
        assert_eq!(accept(), "0");
        applied.teardown(true).unwrap();
    });
}

#[test]
fn settings_of_the_host_come_back_one_by_one() {
    on_host(|| {
        let _outside = common::outside();
        bridge("other");
        bridge("lan");
        sh("mkdir /run/nixrun
            cd /proc/sys/net
            echo 1 > ipv4/conf/other/forwarding; echo 0 > ipv4/conf/all/accept_redirects
            echo 1 > ipv6/conf/lan/forwarding; echo 0 > ipv6/conf/other/accept_ra; echo 2 > ipv6/conf/lan/accept_ra");
        let before = snapshot();
        let (one, two) = (Netns::new(), Netns::new());
        let up_one = up(&config("one", 1), &one);
        let ra =
            |link: &str| sh(&format!("cat /proc/sys/net/ipv6/conf/{link}/accept_ra")).trim_end().to_owned();
        assert_eq!([ra("eth0"), ra("other"), ra("lan")], ["2", "0", "2"]);
        // The second changes nothing; the first out restores nothing.
        let up_two = up(&config("two", 2), &two);
        up_one.teardown(true).unwrap();
        assert_eq!(sh("cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv6/conf/all/forwarding"), "1\n1\n");
        assert_eq!(ra("eth0"), "2");
        up_two.teardown(true).unwrap();
        assert_unchanged(&before);
    });
}

#[test]
fn default_route_from_a_router_advertisement_survives() {
    on_host(|| {
        let _outside = common::outside();
        // As the kernel adds it: proto ra, expiring.
        sh("ip -6 route add default via 2001:db8::2 dev eth0 proto ra expires 600");
        let _up = up(&config("web", 1), &Netns::new());
        assert!(sh("ip -6 route show default").contains("via 2001:db8::2"));
        assert_eq!(sh("cat /proc/sys/net/ipv6/conf/eth0/accept_ra"), "2\n");
    });
}

#[test]
fn forwarding_that_is_on_is_left_alone() {
    on_host(|| {
        sh("echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding");
        let applied = up(&config("web", 1), &Netns::new());
        assert_eq!(sh("cat /run/nixrun/.network/state.json"), r#"{"layout":1,"sysctls":[],"bridges":[]}"#);
        applied.teardown(true).unwrap();
        assert_eq!(sh("cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv6/conf/all/forwarding"), "1\n1\n");
    });
}

#[test]
fn bridge_without_forwards_touches_nothing_of_the_host() {
    on_host(|| {
        bridge("br0");
        sh("mkdir /run/nixrun");
        let rest =
            || snapshot().into_iter().filter(|line| !line.contains("br0:") && !line.contains("dev br0"));
        let before: Vec<String> = rest().collect();
        let mut config = config("web", 1);
        config.veth.as_mut().unwrap().bridge = Some("br0".into());
        let applied = up(&config, &Netns::new());
        assert_eq!(sh("cat /proc/sys/net/ipv4/ip_forward; nft list ruleset"), "0\n");
        applied.teardown(true).unwrap();
        assert_eq!(rest().collect::<Vec<_>>(), before);
    });
}

#[test]
fn loopback_comes_up_without_a_veth() {
    on_host(|| {
        let container = Netns::new();
        let mut config = config("web", 1);
        config.veth = None;
        let before = snapshot();
        let _up = up(&config, &container);
        assert!(container.sh("ip link show lo").contains("LOOPBACK,UP"));
        assert_eq!(container.sh("ip -o link").lines().count(), 1);
        assert_unchanged(&before);
    });
}

#[test]
fn dying_instance_gives_up_its_name() {
    on_host(|| {
        let mut config = config("a-container-with-a-long-name", 1);
        config.forwards = vec![forward(Protocol::Tcp, 8080, 80)];
        // The earlier instance's namespace is still there, as if a process lingered in it; its supervisor crashed.
        let earlier = Netns::new();
        up(&config, &earlier).keep();
        let container = Netns::new();
        let _up = up(&config, &container);
        assert!(container.sh("ip -4 addr show eth0").contains("10.233.1.2"));
        assert!(!earlier.sh("ip -o link").contains("eth0"));
    });
}

#[test]
fn an_address_is_free_as_soon_as_its_container_has_ended() {
    on_host(|| {
        // Its link outlives it a little: the kernel has not got round to its namespace yet.
        let earlier = Netns::new();
        up(&config("one", 1), &earlier).teardown(false).unwrap();
        assert!(sh("ip -o link").contains("ve-one"));
        let container = Netns::new();
        let _up = up(&config("two", 1), &container);
        for route in ["ip -4 route get 10.233.1.2", "ip -6 route get fc00:1::2"] {
            assert!(sh(route).contains("dev ve-two"), "{}", sh(route));
        }
        container.sh("busybox ping -c 1 -W 2 10.233.1.1; busybox ping -6 -c 1 -W 2 fc00:1::1");
        sh("ip link del ve-one");
        sh("busybox ping -c 1 -W 2 10.233.1.2; busybox ping -6 -c 1 -W 2 fc00:1::2");
    });
}

#[test]
fn somebody_elses_link_is_left_alone() {
    on_host(|| {
        let facts = netsetup::NetFacts::probe(&paths(), &config("web", 1)).unwrap();
        let plan = netsetup::NetworkPlan::new(&config("web", 1), &facts).unwrap();
        // nspawn's, say; it appears between plan and apply.
        sh("ip link add ve-web type veth peer name host0; mkdir /run/nixrun");
        let before = snapshot();
        let container = Netns::new();
        let error = netsetup::apply(&plan, &paths(), container.as_fd()).unwrap_err();
        assert!(error.to_string().contains("the name ve-web is already taken by link ve-web"), "{error}");
        assert_unchanged(&before);
        assert!(reclaim(&paths(), "web", &resources_for("web")).unwrap().removed.is_empty());
        assert_unchanged(&before);
    });
}

#[test]
fn conflicts_are_found_before_anything_is_made() {
    on_host(|| {
        let _outside = common::outside();
        let mut first = config("one", 1);
        first.forwards = vec![forward(Protocol::Tcp, 8080, 80)];
        let one = Netns::new();
        let _one = up(&first, &one);
        let before = snapshot();
        let refused = |change: fn(&mut netsetup::NetworkConfig)| {
            let mut second = config("two", 2);
            change(&mut second);
            let error = common::try_up(&second, &Netns::new()).unwrap_err().to_string();
            assert_unchanged(&before);
            error
        };
        let error =
            refused(|c| c.veth.as_mut().unwrap().local_address = Some("10.233.1.2/32".parse().unwrap()));
        assert!(error.contains("10.233.1.2 is already held by container one"), "{error}");
        let error =
            refused(|c| c.veth.as_mut().unwrap().local_address = Some("203.0.113.1/32".parse().unwrap()));
        assert!(error.contains("203.0.113.1 is already held by link eth0"), "{error}");
        let error =
            refused(|c| c.veth.as_mut().unwrap().local_address6 = Some("2001:db8::1/128".parse().unwrap()));
        assert!(error.contains("2001:db8::1 is already held by link eth0"), "{error}");
        let error = refused(|c| c.forwards = vec![forward(Protocol::Tcp, 8080, 81)]);
        assert!(error.contains("port 8080 (tcp) of the host is already used by container one"), "{error}");
        let _tcp = std::net::TcpListener::bind("127.0.0.1:631").unwrap();
        let error = refused(|c| c.forwards = vec![forward(Protocol::Tcp, 631, 80)]);
        assert!(error.contains("a program on the host that listens on 127.0.0.1"), "{error}");
        let _udp = std::net::UdpSocket::bind("[::]:53").unwrap();
        let error = refused(|c| c.forwards = vec![forward(Protocol::Udp, 53, 53)]);
        assert!(error.contains("port 53 (udp) of the host is already used by a program"), "{error}");
        // Another address of the host, another protocol: no conflict.
        let mut third = config("three", 3);
        third.forwards = vec![forward(Protocol::Tcp, 631, 80), forward(Protocol::Udp, 8080, 80)];
        third.forwards[0].host_address = Some("203.0.113.1".parse().unwrap());
        let _three = up(&third, &Netns::new());
    });
}

#[test]
fn failure_halfway_leaves_nothing() {
    on_host(|| {
        let _outside = common::outside();
        sh("mkdir /run/nixrun");
        let before = snapshot();
        let mut config = config("web", 1);
        config.forwards = vec![forward(Protocol::Tcp, 8080, 80)];
        // The container's end cannot have this name: its namespace has such a link already.
        let container = Netns::new();
        container.sh("ip link add eth0 type bridge");
        let error = common::try_up(&config, &container).unwrap_err();
        assert!(error.to_string().starts_with("cannot create the veth pair ve-web (host), eth0"), "{error}");
        assert_unchanged(&before);
        // The last step fails: somebody else has the route by then.
        let facts = netsetup::NetFacts::probe(&paths(), &config).unwrap();
        let plan = netsetup::NetworkPlan::new(&config, &facts).unwrap();
        sh("ip route add 10.233.1.2 dev eth0");
        let before = snapshot();
        let error = netsetup::apply(&plan, &paths(), Netns::new().as_fd()).unwrap_err();
        assert!(
            error.to_string().starts_with("cannot add the route to 10.233.1.2 through ve-web: EEXIST"),
            "{error}"
        );
        assert_unchanged(&before);
    });
}

#[test]
fn many_come_and_go_at_once() {
    on_host(|| {
        let _outside = common::outside();
        sh("mkdir /run/nixrun");
        let before = snapshot();
        std::thread::scope(|scope| {
            for number in 1..=6 {
                scope.spawn(move || {
                    for _ in 0..5 {
                        let mut config = config(&format!("web{number}"), number);
                        config.forwards = vec![forward(Protocol::Tcp, 8000 + u16::from(number), 80)];
                        up(&config, &Netns::new()).teardown(true).unwrap();
                    }
                });
            }
        });
        assert_unchanged(&before);
    });
}

#[test]
fn crash_during_teardown_is_made_good() {
    on_host(|| {
        sh("mkdir /run/nixrun");
        let before = snapshot();
        let mut config = config("web", 1);
        config.forwards = vec![forward(Protocol::Tcp, 8080, 80)];
        up(&config, &Netns::new()).keep();
        // It had removed this much, and was writing something.
        sh("nft delete table inet nixrun; rm /run/nixrun/.network/claims/address-10.233.1.2
            echo 0 > /proc/sys/net/ipv4/ip_forward; touch /run/nixrun/.network/.state.json");
        reclaim(&paths(), "web", &resources_for("web")).unwrap();
        assert_unchanged(&before);
    });
}

#[test]
fn of_two_plans_for_one_port_the_second_fails() {
    on_host(|| {
        let plan = |name: &str, number: u8| {
            let mut config = config(name, number);
            config.forwards = vec![forward(Protocol::Tcp, 8080, 80)];
            let facts = netsetup::NetFacts::probe(&paths(), &config).unwrap();
            netsetup::NetworkPlan::new(&config, &facts).unwrap()
        };
        // Neither sees the other.
        let (one, two) = (plan("one", 1), plan("two", 2));
        let container = Netns::new();
        let _one = netsetup::apply(&one, &paths(), container.as_fd()).unwrap();
        let before = snapshot();
        let error = netsetup::apply(&two, &paths(), Netns::new().as_fd()).unwrap_err();
        assert!(
            error.to_string().contains("port 8080 (tcp) of the host is already used by container one"),
            "{error}"
        );
        assert_unchanged(&before);
    });
}

#[test]
fn bridge_stays_guarded_until_the_last_container_leaves() {
    on_host(|| {
        bridge("br0");
        let bridged = |name: &str, number: u8, forwards: u16| {
            let mut config = config(name, number);
            config.veth.as_mut().unwrap().bridge = Some("br0".into());
            config.forwards = (0..forwards).map(|_| forward(Protocol::Tcp, 8080, 80)).collect();
            config
        };
        let first = up(&bridged("one", 1, 1), &Netns::new());
        let second = up(&bridged("two", 2, 0), &Netns::new());
        first.teardown(true).unwrap();
        // 127.0.0.1 is still open to the bridge, so the guard must be there, also after a flush.
        assert_eq!(sh("cat /proc/sys/net/ipv4/conf/br0/route_localnet"), "1\n");
        sh("nft flush ruleset");
        let third = up(&config("three", 3), &Netns::new());
        assert!(sh("nft list set inet nixrun loopback").contains("br0"));
        third.teardown(true).unwrap();
        second.teardown(true).unwrap();
        assert_eq!(sh("cat /proc/sys/net/ipv4/conf/br0/route_localnet; nft list ruleset"), "0\n");
    });
}
