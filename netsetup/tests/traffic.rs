//! Real packets between three network namespaces: the host, a container, the world outside.

mod common;

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use common::{Netns, config, forward, on_host, outside, paths, sh, up};
use netsetup::{Nat, Protocol, reclaim, resources_for};

const WAIT: Duration = Duration::from_secs(3);
/// Long enough for a packet that is dropped to have arrived, had it not been.
const NEVER: Duration = Duration::from_millis(300);

/// A TCP server that tells each client the address it came from.
fn serve_tcp(address: &str) {
    let listener = TcpListener::bind(address).unwrap();
    thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.unwrap();
            let from = client.peer_addr().unwrap().ip().to_canonical();
            client.write_all(from.to_string().as_bytes()).unwrap();
        }
    });
}

fn serve_udp(address: &str) {
    let socket = UdpSocket::bind(address).unwrap();
    thread::spawn(move || {
        loop {
            let (_, from) = socket.recv_from(&mut [0; 64]).unwrap();
            socket.send_to(from.ip().to_canonical().to_string().as_bytes(), from).unwrap();
        }
    });
}

/// As whom the server at this address sees us.
fn seen_by(server: &str) -> std::io::Result<IpAddr> {
    seen_within(server, WAIT)
}

fn seen_within(server: &str, timeout: Duration) -> std::io::Result<IpAddr> {
    let server: SocketAddr = server.parse().unwrap();
    let mut stream = TcpStream::connect_timeout(&server, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.parse().unwrap())
}

fn seen_by_udp(server: &str) -> std::io::Result<IpAddr> {
    let local = if server.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" };
    let socket = UdpSocket::bind(local)?;
    socket.set_read_timeout(Some(WAIT))?;
    socket.connect(server)?;
    socket.send(b"?")?;
    let mut answer = [0; 64];
    let length = socket.recv(&mut answer)?;
    Ok(std::str::from_utf8(&answer[..length]).unwrap().parse().unwrap())
}

#[track_caller]
fn assert_seen(seen: std::io::Result<IpAddr>, as_whom: &str) {
    assert_eq!(seen.map_err(|error| error.to_string()), Ok(as_whom.parse().unwrap()));
}

#[track_caller]
fn assert_unreachable(seen: std::io::Result<IpAddr>) {
    let error = seen.expect_err("nobody should answer");
    let kinds = [
        ErrorKind::TimedOut,
        ErrorKind::WouldBlock,
        ErrorKind::NetworkUnreachable,
        ErrorKind::HostUnreachable,
    ];
    assert!(kinds.contains(&error.kind()), "{error}");
}

#[test]
fn container_reaches_outside_masqueraded() {
    on_host(|| {
        let (outside, container) = (outside(), Netns::new());
        outside.run(|| {
            serve_tcp("203.0.113.2:80");
            serve_tcp("[2001:db8::2]:80");
            serve_udp("203.0.113.2:53");
        });
        let _up = up(&config("web", 1), &container);
        assert_seen(container.run(|| seen_by("203.0.113.2:80")), "203.0.113.1");
        assert_seen(container.run(|| seen_by("[2001:db8::2]:80")), "2001:db8::1");
        assert_seen(container.run(|| seen_by_udp("203.0.113.2:53")), "203.0.113.1");
    });
}

#[test]
fn host_and_container_reach_each_other_as_they_are() {
    on_host(|| {
        let container = Netns::new();
        let _up = up(&config("web", 1), &container);
        container.run(|| {
            serve_tcp("10.233.1.2:80");
            serve_tcp("[fc00:1::2]:80");
        });
        serve_tcp("10.233.1.1:81");
        assert_seen(seen_by("10.233.1.2:80"), "10.233.1.1");
        assert_seen(seen_by("[fc00:1::2]:80"), "fc00:1::1");
        assert_seen(container.run(|| seen_by("10.233.1.1:81")), "10.233.1.2");
    });
}

#[test]
fn forwards_lead_in_from_everywhere() {
    on_host(|| {
        let (outside, container) = (outside(), Netns::new());
        let mut config = config("web", 1);
        config.forwards = vec![forward(Protocol::Tcp, 8080, 80), forward(Protocol::Udp, 5353, 53)];
        let applied = up(&config, &container);
        container.run(|| {
            serve_tcp("[::]:80");
            serve_udp("[::]:53");
        });
        // From outside, with the client's own address.
        assert_seen(outside.run(|| seen_by("203.0.113.1:8080")), "203.0.113.2");
        assert_seen(outside.run(|| seen_by("[2001:db8::1]:8080")), "2001:db8::2");
        assert_seen(outside.run(|| seen_by_udp("203.0.113.1:5353")), "203.0.113.2");
        assert_seen(outside.run(|| seen_by_udp("[2001:db8::1]:5353")), "2001:db8::2");
        // From the host, at its own addresses.
        assert_seen(seen_by("203.0.113.1:8080"), "203.0.113.1");
        assert_seen(seen_by("[2001:db8::1]:8080"), "2001:db8::1");
        assert_seen(seen_by("10.233.1.1:8080"), "10.233.1.1");
        // From the host, at 127.0.0.1: only the host's address can be answered. [::1] is refused at once.
        assert_seen(seen_by("127.0.0.1:8080"), "10.233.1.1");
        assert_seen(seen_by_udp("127.0.0.1:5353"), "10.233.1.1");
        assert_eq!(seen_by("[::1]:8080").unwrap_err().kind(), ErrorKind::ConnectionRefused);
        // From the container itself, at the host's addresses.
        assert_seen(container.run(|| seen_by("203.0.113.1:8080")), "10.233.1.1");
        assert_seen(container.run(|| seen_by("[2001:db8::1]:8080")), "fc00:1::1");
        // Nothing else leads in.
        assert_eq!(seen_by("127.0.0.1:80").unwrap_err().kind(), ErrorKind::ConnectionRefused);
        assert_eq!(
            outside.run(|| seen_by("203.0.113.1:80")).unwrap_err().kind(),
            ErrorKind::ConnectionRefused
        );
        applied.teardown(true).unwrap();
        assert_eq!(
            outside.run(|| seen_by("203.0.113.1:8080")).unwrap_err().kind(),
            ErrorKind::ConnectionRefused
        );
    });
}

#[test]
fn forward_of_one_address_leaves_the_others_alone() {
    on_host(|| {
        let container = Netns::new();
        sh("ip link add dummy type bridge; ip addr add 192.0.2.1/32 dev dummy; ip link set dummy up");
        let mut config = config("web", 1);
        config.forwards = vec![forward(Protocol::Tcp, 8080, 80), forward(Protocol::Tcp, 8080, 81)];
        config.forwards[1].host_address = Some("192.0.2.1".parse().unwrap());
        config.forwards.remove(0);
        let _up = up(&config, &container);
        container.run(|| serve_tcp("10.233.1.2:81"));
        assert_seen(seen_by("192.0.2.1:8080"), "192.0.2.1");
        for other in ["10.233.1.1:8080", "127.0.0.1:8080"] {
            assert_eq!(seen_by(other).unwrap_err().kind(), ErrorKind::ConnectionRefused);
        }
    });
}

#[test]
fn container_reaches_nothing_on_the_hosts_loopback() {
    on_host(|| {
        let container = Netns::new();
        let mut config = config("web", 1);
        config.forwards = vec![forward(Protocol::Tcp, 8080, 80)];
        let _up = up(&config, &container);
        // As a container's root would: 127.0.0.1 sent out through eth0, and packets that claim to come from it.
        serve_tcp("127.0.0.1:631");
        serve_udp("10.233.1.1:53");
        container.sh(
            "ip addr del 127.0.0.1/8 dev lo; ip route del local 127.0.0.0/8 table local 2>/dev/null || true
             echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet
             ip route add 127.0.0.0/8 via 10.233.1.1 src 10.233.1.2",
        );
        assert_unreachable(container.run(|| seen_within("127.0.0.1:631", NEVER)));
        // The attack is a real one: without the guard it succeeds.
        sh("nft flush chain inet nixrun guard");
        assert_seen(container.run(|| seen_within("127.0.0.1:631", WAIT)), "10.233.1.2");
    });
}

#[test]
fn container_cannot_claim_to_be_the_hosts_loopback() {
    on_host(|| {
        let container = Netns::new();
        let mut config = config("web", 1);
        config.forwards = vec![forward(Protocol::Tcp, 8080, 80)];
        let _up = up(&config, &container);
        sh("for f in all ve-web; do echo 0 > /proc/sys/net/ipv4/conf/$f/rp_filter; done");
        let server = UdpSocket::bind("10.233.1.1:53").unwrap();
        server.set_read_timeout(Some(NEVER)).unwrap();
        container.sh(
            "ip addr add 127.0.0.2/32 dev eth0; ip route del local 127.0.0.0/8 table local 2>/dev/null || true
             echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet",
        );
        let spoof = || {
            container.run(|| UdpSocket::bind("127.0.0.2:0").unwrap().send_to(b"!", "10.233.1.1:53")).unwrap();
            server.recv_from(&mut [0; 8]).map(|(_, from)| from.ip())
        };
        assert_unreachable(spoof());
        sh("nft flush chain inet nixrun guard");
        assert_seen(spoof(), "127.0.0.2");
    });
}

#[test]
fn two_containers_reach_each_other_and_share_a_host_address() {
    on_host(|| {
        let (outside, one, two) = (outside(), Netns::new(), Netns::new());
        let (mut first, mut second) = (config("one", 1), config("two", 2));
        first.forwards = vec![forward(Protocol::Tcp, 8081, 80)];
        second.forwards = vec![forward(Protocol::Tcp, 8082, 80)];
        second.veth.as_mut().unwrap().host_address = first.veth.as_ref().unwrap().host_address;
        let up_one = up(&first, &one);
        let _up_two = up(&second, &two);
        one.run(|| serve_tcp("10.233.1.2:80"));
        two.run(|| serve_tcp("10.233.2.2:80"));
        // Directly and by the forward, with their own addresses.
        assert_seen(one.run(|| seen_by("10.233.2.2:80")), "10.233.1.2");
        assert_seen(two.run(|| seen_by("203.0.113.1:8081")), "10.233.2.2");
        assert_seen(seen_by("127.0.0.1:8082"), "10.233.1.1");
        // One stops, the other goes on.
        up_one.teardown(true).unwrap();
        assert_seen(outside.run(|| seen_by("203.0.113.1:8082")), "203.0.113.2");
        assert_eq!(seen_by("127.0.0.1:8081").unwrap_err().kind(), ErrorKind::ConnectionRefused);
    });
}

#[test]
fn without_nat_the_outside_sees_the_container() {
    on_host(|| {
        let (outside, container) = (outside(), Netns::new());
        outside.sh("ip route add 10.233.1.2 via 203.0.113.1");
        outside.run(|| serve_tcp("203.0.113.2:80"));
        // The administrator routes.
        sh("echo 1 > /proc/sys/net/ipv4/ip_forward");
        let mut config = config("web", 1);
        config.nat = Nat::No;
        let _up = up(&config, &container);
        assert_seen(container.run(|| seen_by("203.0.113.2:80")), "10.233.1.2");
        // Somebody else masquerades; this one is still not.
        let other = Netns::new();
        let _other = up(&common::config("other", 2), &other);
        assert_seen(container.run(|| seen_by("203.0.113.2:80")), "10.233.1.2");
        assert_seen(other.run(|| seen_by("203.0.113.2:80")), "203.0.113.1");
    });
}

#[test]
fn routable_addresses_are_kept() {
    on_host(|| {
        let (outside, container) = (outside(), Netns::new());
        outside.sh("ip route add 2001:db8:1::2 via 2001:db8::1");
        outside.run(|| serve_tcp("[2001:db8::2]:80"));
        let mut config = config("web", 1);
        config.veth.as_mut().unwrap().local_address6 = Some("2001:db8:1::2/128".parse().unwrap());
        let _up = up(&config, &container);
        assert_seen(container.run(|| seen_by("[2001:db8::2]:80")), "2001:db8:1::2");
    });
}

#[test]
fn nat_to_one_interface_spares_the_others() {
    on_host(|| {
        let (outside, container, lan) = (outside(), Netns::new(), Netns::new());
        outside.run(|| serve_tcp("203.0.113.2:80"));
        sh(&format!(
            "ip link add eth1 type veth peer name up0 netns {}
             ip addr add 198.51.100.1/24 dev eth1; ip link set eth1 up",
            lan.path()
        ));
        lan.sh("ip addr add 198.51.100.2/24 dev up0; ip link set up0 up; ip route add 10.233.1.2 via 198.51.100.1");
        lan.run(|| serve_tcp("198.51.100.2:80"));
        let mut config = config("web", 1);
        config.nat = Nat::Interface("eth0".into());
        let _up = up(&config, &container);
        assert_seen(container.run(|| seen_by("203.0.113.2:80")), "203.0.113.1");
        assert_seen(container.run(|| seen_by("198.51.100.2:80")), "10.233.1.2");
    });
}

#[test]
fn bridged_container_is_reached_by_its_forwards() {
    on_host(|| {
        let (outside, container, neighbour) = (outside(), Netns::new(), Netns::new());
        sh("ip link add br0 type bridge; ip addr add 192.168.7.1/24 dev br0; ip link set br0 up");
        let bridged = |name: &str, number: u8| {
            let mut config = config(name, number);
            let veth = config.veth.as_mut().unwrap();
            veth.bridge = Some("br0".into());
            veth.local_address = Some(format!("192.168.7.{number}/24").parse().unwrap());
            veth.host_address = Some("192.168.7.1".parse().unwrap());
            (veth.local_address6, veth.host_address6) = (None, None);
            config
        };
        let mut config = bridged("web", 2);
        config.forwards = vec![forward(Protocol::Tcp, 8080, 80)];
        let up_web = up(&config, &container);
        let _up_neighbour = up(&bridged("next", 3), &neighbour);
        container.run(|| serve_tcp("192.168.7.2:80"));
        assert!(sh("ip link show vb-web").contains("master br0"));
        assert_eq!(container.sh("ip route | head -1"), "default via 192.168.7.1 dev eth0 \n");
        assert_seen(neighbour.run(|| seen_by("192.168.7.2:80")), "192.168.7.3");
        assert_seen(outside.run(|| seen_by("203.0.113.1:8080")), "203.0.113.2");
        assert_seen(seen_by("127.0.0.1:8080"), "192.168.7.1");
        // Through the host and back into the same bridge, from the neighbour and from itself. With br_netfilter
        // the packets never leave the bridge, and the neighbour keeps its address.
        assert!(neighbour.run(|| seen_by("203.0.113.1:8080")).is_ok());
        sh("echo 0 > /proc/sys/net/bridge/bridge-nf-call-iptables || true");
        assert_seen(neighbour.run(|| seen_by("203.0.113.1:8080")), "192.168.7.1");
        assert_seen(container.run(|| seen_by("192.168.7.1:8080")), "192.168.7.1");
        up_web.teardown(true).unwrap();
        assert_eq!(seen_by("127.0.0.1:8080").unwrap_err().kind(), ErrorKind::ConnectionRefused);
    });
}

#[test]
fn flushed_ruleset_is_made_again_with_everybodys_forwards() {
    on_host(|| {
        let (one, two, three) = (Netns::new(), Netns::new(), Netns::new());
        let (mut first, mut second) = (config("one", 1), config("two", 2));
        first.forwards = vec![forward(Protocol::Tcp, 8081, 80)];
        second.forwards = vec![forward(Protocol::Tcp, 8082, 80)];
        let _one = up(&first, &one);
        one.run(|| serve_tcp("10.233.1.2:80"));
        sh("nft flush ruleset");
        assert_eq!(seen_by("127.0.0.1:8081").unwrap_err().kind(), ErrorKind::ConnectionRefused);
        let _two = up(&second, &two);
        assert_seen(seen_by("127.0.0.1:8081"), "10.233.1.1");
        // A container without elements of its own notices too.
        sh("nft flush ruleset");
        let _three = up(&config("three", 3), &three);
        assert_seen(seen_by("127.0.0.1:8081"), "10.233.1.1");
        // Teardown without a table is no error.
        sh("nft flush ruleset");
        reclaim(&paths(), "two", &resources_for("two")).unwrap();
    });
}
