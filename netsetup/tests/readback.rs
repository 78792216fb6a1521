//! What `apply` makes, read back with ip and nft; what it leaves: nothing.

mod common;

use common::{Netns, config, forward, on_host, paths, sh, snapshot, up};
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
        println!("{table}");
        assert!(sh("ip link show ve-a-container-with-a-long-name").contains("altname"));
        drop(container);
        applied.teardown(true).unwrap();
        assert_eq!(snapshot(), before);
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
        assert_eq!(snapshot(), before);
        // Again: nothing to do.
        assert!(reclaim(&paths(), "web", &resources_for("web")).unwrap().removed.is_empty());
    });
}
