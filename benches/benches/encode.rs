//! A container's network as netlink messages: the veth pair, addresses, routes, and elements of the nftables table.
#![forbid(unsafe_code)]

use std::fs::File;
use std::hint::black_box;
use std::os::fd::AsFd;

use criterion::{Criterion, criterion_group, criterion_main};
use netsetup::{Forward, NetFacts, NetworkConfig, NetworkPlan, Protocol, Veth};

fn encode(criterion: &mut Criterion) {
    // Only its number goes into the messages.
    let netns = File::open("/proc/self/ns/net").unwrap();
    for forwards in [1, 100] {
        let plan = NetworkPlan::new(&config(forwards), &NetFacts::default()).unwrap();
        criterion.bench_function(&format!("netlink, {forwards} forwards"), |bencher| {
            bencher.iter(|| netsetup::encode(black_box(&plan), netns.as_fd()));
        });
    }
}

fn config(forwards: u16) -> NetworkConfig {
    let veth = Veth {
        container_link: "eth0".into(),
        bridge: None,
        make_bridge: false,
        up: true,
        container_mac: None,
        host_address: "10.233.1.1".parse().ok(),
        host_address6: "fc00::1".parse().ok(),
        local_address: "10.233.1.2/32".parse().ok(),
        local_address6: "fc00::2/128".parse().ok(),
    };
    let forward =
        |port| Forward { protocol: Protocol::Tcp, host_address: None, host_port: port, container_port: 80 };
    let forwards = (8000..8000 + forwards).map(forward).collect();
    NetworkConfig { veth: Some(veth), forwards, ..NetworkConfig::new("bench") }
}

criterion_group!(benches, encode);
criterion_main!(benches);
