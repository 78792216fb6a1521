//! Forwards that a program passes on, and forwards that follow the addresses of their container, with real packets.

mod common;

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use common::{Netns, assert_unchanged, config, forward, on_host, outside, paths, sh, snapshot, try_up, up};
use netsetup::{Applied, ForwardTo, Nat, NetworkConfig, Protocol, reclaim, resources_for};

const WAIT: Duration = Duration::from_secs(10);

/// A server that sends back what it gets, and at the end of it the address that it came from.
fn echo(address: &str) {
    let listener = TcpListener::bind(address).unwrap();
    thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.unwrap();
            thread::spawn(move || {
                let from = client.peer_addr().unwrap().ip().to_canonical();
                let mut buffer = [0; 4096];
                while let Ok(length @ 1..) = client.read(&mut buffer) {
                    client.write_all(&buffer[..length]).unwrap();
                }
                let _ = client.write_all(from.to_string().as_bytes());
            });
        }
    });
}

fn echo_udp(address: &str) {
    let socket = UdpSocket::bind(address).unwrap();
    thread::spawn(move || {
        let mut buffer = [0; 64];
        loop {
            let (length, from) = socket.recv_from(&mut buffer).unwrap();
            socket.send_to(&buffer[..length], from).unwrap();
        }
    });
}

/// What comes back for `text`, each direction closed by itself.
fn ask(server: &str, text: &[u8]) -> std::io::Result<String> {
    let server: SocketAddr = server.parse().unwrap();
    let mut stream = TcpStream::connect_timeout(&server, WAIT)?;
    stream.set_read_timeout(Some(WAIT))?;
    let mut reader = stream.try_clone()?;
    let reading = thread::spawn(move || {
        let mut all = Vec::new();
        reader.read_to_end(&mut all).map(|_| all)
    });
    stream.write_all(text)?;
    stream.shutdown(Shutdown::Write)?;
    reading.join().unwrap().map(|all| String::from_utf8(all).unwrap())
}

fn ask_udp(server: &str, text: &[u8]) -> std::io::Result<Vec<u8>> {
    let socket = UdpSocket::bind(if server.starts_with('[') { "[::1]:0" } else { "127.0.0.1:0" })?;
    socket.set_read_timeout(Some(WAIT))?;
    socket.connect(server)?;
    socket.send(text)?;
    let mut answer = [0; 64];
    let length = socket.recv(&mut answer)?;
    Ok(answer[..length].to_vec())
}

#[track_caller]
fn assert_answers(server: &str, as_whom: &str) {
    assert_eq!(ask(server, b"hello ").map_err(|e| e.to_string()), Ok(format!("hello {as_whom}")), "{server}");
}

/// Attended, as the cli does once the program runs.
#[track_caller]
fn attended(config: &NetworkConfig, container: &Netns) -> Applied {
    let mut applied = up(config, container);
    assert_eq!(applied.attend(), Vec::<String>::new());
    applied
}

fn refused(server: &str) -> bool {
    ask(server, b"").is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}

#[track_caller]
fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < WAIT, "{what}");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn ipv6_loopback_leads_in_by_a_relay() {
    on_host(|| {
        sh("mkdir /run/nixrun");
        let before = snapshot();
        let container = Netns::new();
        let mut config = config("web", 1);
        config.forwards = vec![forward(Protocol::Tcp, 8080, 80), forward(Protocol::Udp, 5353, 53)];
        config.forwards.push(forward(Protocol::Tcp, 8081, 81));
        let applied = attended(&config, &container);
        container.run(|| {
            echo("[::]:80");
            echo_udp("[::]:53");
        });
        assert_answers("[::1]:8080", "fc00:1::1");
        assert_answers("127.0.0.1:8080", "10.233.1.1");
        for text in [b"one".as_slice(), b"two"] {
            assert_eq!(ask_udp("[::1]:5353", text).unwrap(), text);
        }
        // More than fits into any buffer on the way, in both directions at once.
        let much = "0123456789abcdef".repeat(64 * 1024);
        assert_eq!(ask("[::1]:8080", much.as_bytes()).unwrap(), format!("{much}fc00:1::1"));
        // Nobody listens behind this one: the connection is made, and reset.
        let error = ask("[::1]:8081", b"?").unwrap_err().kind();
        assert!(matches!(error, ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{error}");
        applied.teardown(true).unwrap();
        assert!(refused("[::1]:8080"));
        drop(container);
        assert_unchanged(&before);
    });
}

#[test]
fn a_relay_leads_from_either_family_to_the_other() {
    on_host(|| {
        let (v4, v6) = (Netns::new(), Netns::new());
        let (mut first, mut second) = (config("four", 1), config("six", 2));
        let veth = first.veth.as_mut().unwrap();
        (veth.host_address6, veth.local_address6) = (None, None);
        first.forwards = vec![forward(Protocol::Tcp, 8080, 80)];
        let veth = second.veth.as_mut().unwrap();
        (veth.host_address, veth.local_address) = (None, None);
        second.forwards = vec![forward(Protocol::Tcp, 8081, 80), forward(Protocol::Udp, 8081, 80)];
        let _up = (attended(&first, &v4), attended(&second, &v6));
        v4.run(|| echo("10.233.1.2:80"));
        v6.run(|| {
            echo("[fc00:2::2]:80");
            echo_udp("[fc00:2::2]:80");
        });
        assert_answers("[::1]:8080", "10.233.1.1");
        assert_answers("127.0.0.1:8080", "10.233.1.1");
        assert_answers("127.0.0.1:8081", "fc00:2::1");
        assert_answers("[::1]:8081", "fc00:2::1");
        assert_eq!(ask_udp("127.0.0.1:8081", b"x").unwrap(), b"x");
    });
}

#[test]
fn a_relay_makes_way_for_a_program_of_the_host_and_for_other_addresses() {
    on_host(|| {
        let container = Netns::new();
        let mut config = config("web", 1);
        let veth = config.veth.as_mut().unwrap();
        (veth.host_address6, veth.local_address6) = (None, None);
        config.forwards = vec![forward(Protocol::Tcp, 631, 80)];
        echo("[::1]:631");
        let mut applied = up(&config, &container);
        let notes = applied.attend();
        assert!(notes.len() == 1 && notes[0].contains("tcp port [::1]:631"), "{notes:?}");
        assert_answers("[::1]:631", "::1");
        drop(applied);
        // One address of the host is just that one.
        let other = Netns::new();
        config.forwards[0].host_port = 8080;
        config.forwards[0].host_address = Some("127.0.0.1".parse().unwrap());
        let _up = attended(&config, &other);
        other.run(|| echo("10.233.1.2:80"));
        assert_answers("127.0.0.1:8080", "10.233.1.1");
        assert!(refused("[::1]:8080"));
    });
}

#[test]
fn forwards_between_containers_turn_around_at_the_host() {
    on_host(|| {
        let (web, client) = (Netns::new(), Netns::new());
        let mut server = config("web", 1);
        server.forwards = vec![forward(Protocol::Tcp, 8080, 80)];
        let _up = (attended(&server, &web), attended(&config("client", 2), &client));
        web.run(|| echo("[::]:80"));
        client.run(|| {
            assert_answers("10.233.2.1:8080", "10.233.2.2");
            assert_answers("[fc00:2::1]:8080", "fc00:2::2");
        });
    });
}

/// As systemd-nspawn sets a container up: a pair without addresses, which are the container's business.
fn bare(name: &str) -> NetworkConfig {
    let mut bare = config(name, 1);
    let veth = bare.veth.as_mut().unwrap();
    veth.container_link = "host0".into();
    (veth.host_address, veth.host_address6, veth.local_address, veth.local_address6) =
        (None, None, None, None);
    bare.nat = Nat::No;
    bare.forward_to = ForwardTo::Current;
    bare.forwards = vec![forward(Protocol::Tcp, 8080, 80)];
    bare
}

#[test]
fn forwards_follow_the_addresses_of_the_container() {
    on_host(|| {
        sh("mkdir /run/nixrun");
        let before = snapshot();
        let (outside, container) = (outside(), Netns::new());
        let applied = attended(&bare("web"), &container);
        container.run(|| echo("[::]:80"));
        sh(
            "ip link set ve-web up; ip addr add 10.9.0.1/24 dev ve-web; ip addr add fd09::1/64 dev ve-web nodad",
        );
        assert!(refused("203.0.113.1:8080"));
        container
            .sh("ip link set host0 up; ip addr add 10.9.0.2/24 dev host0; ip route add default via 10.9.0.1
             ip addr add fd09::2/64 dev host0 nodad; ip route add default via fd09::1");
        eventually("an IPv4 forward", || outside.run(|| ask("203.0.113.1:8080", b"").is_ok()));
        eventually("an IPv6 forward", || outside.run(|| ask("[2001:db8::1]:8080", b"").is_ok()));
        assert_answers("127.0.0.1:8080", "10.9.0.1");
        assert_answers("[::1]:8080", "fd09::1");
        // Another address, and the first one goes.
        container
            .sh("ip addr add 10.9.0.3/24 dev host0; ip addr del 10.9.0.2/24 dev host0 2>/dev/null || true
                      ip addr replace 10.9.0.3/24 dev host0; ip route replace default via 10.9.0.1");
        eventually("the new address", || sh("nft list map inet nixrun forward4").contains("10.9.0.3"));
        assert_answers("203.0.113.1:8080", "203.0.113.1");
        // None of that family.
        container.sh("ip addr flush dev host0 scope global; ip addr add fd09::2/64 dev host0 nodad");
        eventually("no IPv4 forward", || !sh("nft list map inet nixrun forward4").contains("10.9.0"));
        // Somebody flushes the ruleset, and the address changes.
        sh("nft flush ruleset");
        container.sh("ip addr add 10.9.0.4/24 dev host0");
        eventually("the table again", || {
            sh("nft list ruleset").contains("10.9.0.4") && ask("127.0.0.1:8080", b"").is_ok()
        });
        applied.teardown(true).unwrap();
        sh("ip link del eth0");
        drop((container, outside));
        assert_unchanged(&before);
    });
}

#[test]
fn the_first_address_with_global_scope_counts() {
    on_host(|| {
        let container = Netns::new();
        // There before the container's program could be seen at all.
        let mut applied = up(&bare("web"), &container);
        container.sh(
            "ip addr add 169.254.7.7/16 scope link dev host0; ip addr add 127.7.7.7/32 scope global dev host0
             ip addr add 10.9.0.2/24 dev host0
             ip addr add 10.9.0.9/24 dev host0; ip link set host0 up",
        );
        assert_eq!(applied.attend(), Vec::<String>::new());
        eventually("a forward", || sh("nft list map inet nixrun forward4").contains("10.9.0.2"));
        let map = sh("nft list map inet nixrun forward4; nft list map inet nixrun forward6");
        assert!(
            !map.contains("127.7")
                && !map.contains("169.254")
                && !map.contains("10.9.0.9")
                && !map.contains("fe80"),
            "{map}"
        );
    });
}

#[test]
fn what_follows_is_reclaimed_and_its_port_is_claimed_before_it_leads_anywhere() {
    on_host(|| {
        sh("mkdir /run/nixrun");
        let before = snapshot();
        let (first, second) = (Netns::new(), Netns::new());
        let applied = attended(&bare("web"), &first);
        let mut other = bare("other");
        other.forwards[0].host_address = None;
        let error = try_up(&other, &second).unwrap_err().to_string();
        assert!(error.contains("port 8080") && error.contains("web"), "{error}");
        first.sh("ip link set host0 up; ip addr add 10.9.0.2/24 dev host0");
        eventually("a forward", || sh("nft list map inet nixrun forward4").contains("10.9.0.2"));
        // As after SIGKILL: nothing is undone.
        applied.keep();
        let reclaimed = reclaim(&paths(), "web", &resources_for("web")).unwrap();
        assert_eq!(reclaimed.removed.len(), 2, "{reclaimed:?}");
        drop((first, second));
        assert_unchanged(&before);
    });
}

#[test]
fn sctp_is_forwarded_by_the_kernel_alone() {
    on_host(|| {
        let container = Netns::new();
        let mut config = config("web", 1);
        config.forwards = vec![forward(Protocol::Sctp, 3868, 3868)];
        let _up = attended(&config, &container);
        let map = sh("nft list map inet nixrun forward4");
        assert!(map.contains("sctp . 3868") && map.contains("10.233.1.2 . 3868"), "{map}");
        let mut loopback = config.clone();
        loopback.forwards[0].host_address = Some(IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]));
        assert!(
            try_up(&loopback, &Netns::new())
                .unwrap_err()
                .to_string()
                .contains("only tcp and udp are relayed")
        );
    });
}
