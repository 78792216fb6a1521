//! Links of the host in a NixOS container: `INTERFACES` and `MACVLANS`.
#![forbid(unsafe_code)]

use blackbox::{Host, on_host};
use fixture::Kind;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The sample container with links of the host and without a veth pair.
fn install(host: &Host<'_>, name: &str, links: &[(&str, Option<&str>)]) {
    host.install(Kind::Mini, name);
    let addresses = ["HOST_ADDRESS", "HOST_ADDRESS6", "LOCAL_ADDRESS", "LOCAL_ADDRESS6", "HOST_PORT"];
    let without: Vec<(&str, Option<&str>)> = addresses.iter().map(|key| (*key, None)).collect();
    host.set_conf(name, &without);
    host.set_conf(name, links);
}

/// A wire from `eth1` to another machine, a bridge on it there so that it is not gone with a namespace.
fn wire(host: &Host<'_>) {
    host.sh("ip link add eth1 type veth peer name far1; ip link set far1 up; ip link property add dev eth1 altname lan-port");
}

#[test]
fn an_interface_moves_into_a_container_and_back() {
    on_host(|host| {
        wire(host);
        install(host, "mini", &[("INTERFACES", Some("eth1:lan0"))]);
        assert_eq!(host.boot("mini").stop().code, Some(0));
        let before = host.snapshot();
        let plan = host.ok(&["plan", "mini"]);
        assert!(plan.contains("eth1 moves in, and back at the end; inside it is lan0"), "{plan}");
        let container = host.boot("mini");
        container.wait_ready();
        let inside = host.sh(&format!("nsenter -t {} -n ip link show lan-port", container.leader()));
        assert!(inside.contains(": lan0@"), "{inside}");
        assert_eq!(host.sh("ip -br link show type veth | grep -c eth1 || true").trim(), "0");
        // Nobody else gets it.
        install(host, "other", &[("INTERFACES", Some("eth1"))]);
        let refused = host.fails(1, &["boot", "other"]);
        assert!(refused.contains("the interface eth1 has moved into container mini"), "{refused}");
        host.sh(&format!("rm {}", host.path("etc/nixos-containers/other.conf").display()));
        assert_eq!(container.stop().code, Some(0));
        before.assert_same(&host.snapshot(), "after the stop");
    });
}

#[test]
fn an_interface_survives_a_crash() {
    on_host(|host| {
        wire(host);
        install(host, "mini", &[("INTERFACES", Some("eth1"))]);
        assert_eq!(host.boot("mini").stop().code, Some(0));
        let before = host.snapshot();
        let crash = || {
            let container = host.boot("mini");
            container.wait_ready();
            kill(Pid::from_raw(container.supervisor()), Signal::SIGKILL).unwrap();
            container
        };
        let crashed = crash();
        blackbox::wait_for("nixrun to end", || crashed.is_gone().then_some(()));
        let reclaimed = host.ok(&["reclaim", "mini"]);
        assert!(reclaimed.contains("links"), "{reclaimed}");
        before.assert_same(&host.snapshot(), "after the reclaim");
        let crashed = crash();
        blackbox::wait_for("nixrun to end", || crashed.is_gone().then_some(()));
        // The next start finds it where it was left.
        let container = host.boot("mini");
        container.wait_ready();
        host.sh(&format!("nsenter -t {} -n ip link show eth1", container.leader()));
        assert_eq!(container.stop().code, Some(0));
        before.assert_same(&host.snapshot(), "after the stop");
    });
}

#[test]
fn macvlans_of_two_containers_reach_each_other() {
    on_host(|host| {
        wire(host);
        host.sh("ip link set eth1 up");
        install(host, "one", &[("MACVLANS", Some("eth1"))]);
        install(host, "two", &[("MACVLANS", Some("eth1:lan0"))]);
        let (one, two) = (host.boot("one"), host.boot("two"));
        one.wait_ready();
        two.wait_ready();
        // What the container's own configuration does.
        host.sh(&format!(
            "nsenter -t {} -n sh -ec 'ip addr add 192.168.7.1/24 dev mv-eth1; ip link set mv-eth1 up'
             nsenter -t {} -n sh -ec 'ip addr add 192.168.7.2/24 dev lan0; ip link set lan0 up
                 busybox ping -c 1 -W 5 192.168.7.1'",
            one.leader(),
            two.leader()
        ));
        assert_eq!(one.stop().code, Some(0));
        assert_eq!(two.stop().code, Some(0));
    });
}
