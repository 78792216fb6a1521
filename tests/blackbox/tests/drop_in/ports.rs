//! `--port`: what it takes, and where packets go while the container's address comes, changes and goes.

use std::fs;
use std::path::Path;

use blackbox::compare::{Case, compare, drop_in};
use blackbox::{Container, Host, on_host, probe_root, wait_for};

use super::SCRIPT;

#[test]
fn port_grammar() {
    const GOOD: [&str; 7] =
        ["80", "80:8080", "tcp:80", "tcp:80:8080", "udp:53", "udp:53:5353", "65535 --port=udp:65535"];
    const BAD: [&str; 15] = [
        "", ":", "0", "65536", "-1", "x", "80:", ":80", "80:0", "80:x", "80-90", "tcp:", "tcp:80:",
        "icmp:80", "1:2:3",
    ];
    on_host(|host| {
        let cases: Vec<Case> = GOOD
            .iter()
            .chain(&BAD)
            .map(|port| {
                let options: &'static str = Box::leak(format!("-n --port={port}").into_boxed_str());
                Case { name: "a port", options, inside: "echo started", ..SCRIPT }
            })
            .collect();
        compare(host, &cases);
    });
}

/// The page at a place, with or without a container's answer, for as long as it is another one than `expected`.
#[track_caller]
fn eventually(host: &Host<'_>, place: &str, expected: &str) {
    wait_for(&format!("{expected:?} at {place}"), || {
        (host.sh(&format!("curl -s -m 1 http://{place}/ || :")) == expected).then_some(())
    });
}

/// The container gives itself an address, another one, none, and one again.
fn follow(host: &Host<'_>, program: &Path) {
    const INIT: &str = "export B=/probe/busybox; $B mkdir /www; echo -n page > /www/index.html
        $B ip link set host0 up; $B httpd -p 80 -h /www
        while :; do [ -e /next ] && . /next && $B rm /next; $B sleep 0.05; done";
    let root = probe_root(host, "t");
    let mut command = host.command(program);
    command.args(["--register=no", "--keep-unit", "--quiet", "-n", "--port=tcp:8080:80", "-M", "t", "-D"]);
    command.arg(&root).args(["/probe/bash", "-c", INIT]).env("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "1");
    let container = Container::spawn(host, "t", command);
    wait_for("the link", || {
        host.sh("[ ! -e /proc/sys/net/ipv4/conf/ve-t ] || { ip link set ve-t up; ip addr replace 10.9.0.1/24 dev ve-t; echo up; }")
            .contains("up")
            .then_some(())
    });
    let next = |script: &str| {
        fs::write(root.join("new"), script.replace("ip ", "/probe/busybox ip ")).unwrap();
        fs::rename(root.join("new"), root.join("next")).unwrap();
        wait_for("the container to have done it", || (!root.join("next").exists()).then_some(()));
    };
    let forwarded = "192.0.2.1:8080";
    eventually(host, forwarded, "");
    next("ip addr add 10.9.0.2/24 dev host0; ip route add default via 10.9.0.1");
    eventually(host, forwarded, "page");
    next(
        "ip addr add 10.9.0.3/32 dev host0; ip addr del 10.9.0.2/24 dev host0; ip route add 10.9.0.0/24 dev host0",
    );
    eventually(host, "10.9.0.3", "page");
    eventually(host, forwarded, "page");
    next("ip addr flush dev host0");
    eventually(host, forwarded, "");
    next("ip addr add 10.9.0.4/24 dev host0; ip route add default via 10.9.0.1");
    eventually(host, forwarded, "page");
    container.signal(nix::sys::signal::Signal::SIGTERM);
    container.signal(nix::sys::signal::Signal::SIGTERM);
    container.wait();
    eventually(host, forwarded, "");
}

#[test]
fn forwards_follow_the_containers_addresses() {
    for ours in [true, false] {
        on_host(|host| {
            host.sh("ip link add outside type bridge; ip addr add 192.0.2.1/24 dev outside; ip link set outside up");
            let program = if ours { drop_in(host) } else { "systemd-nspawn".into() };
            follow(host, &program);
        });
    }
}
