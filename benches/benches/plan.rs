//! What is worked out before anything is made: the host's facts, both plans, the system call filter.
#![forbid(unsafe_code)]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use netsetup::{Forward, NetFacts, NetworkConfig, NetworkPlan, Protocol, Veth};
use runtime::seccomp::{Policy, compile};
use runtime::{ContainerConfig, HostFacts, HostPaths, Network, Payload, Plan, nspawn_default};

fn plans(criterion: &mut Criterion) {
    let paths = HostPaths::default();
    criterion.bench_function("host facts", |bencher| {
        bencher.iter(|| HostFacts::probe(black_box(&paths)).unwrap())
    });

    let facts = HostFacts::probe(&paths).unwrap();
    let payload = Payload::new(vec!["/init".into()]);
    let mut config = ContainerConfig::new("bench", "/var/lib/nixos-containers/bench", payload);
    config.network = Network::Private;
    criterion.bench_function("container plan", |bencher| {
        bencher.iter(|| Plan::new(black_box(&config), &facts).unwrap());
    });

    let (network, facts) = (network(), NetFacts::default());
    criterion.bench_function("network plan", |bencher| {
        bencher.iter(|| NetworkPlan::new(black_box(&network), &facts).unwrap());
    });
}

fn filter(criterion: &mut Criterion) {
    let policy = Policy::nspawn(nspawn_default(true));
    criterion.bench_function("system call filter", |bencher| bencher.iter(|| compile(black_box(&policy))));
}

/// IPv4 and IPv6, masquerade, one forward.
fn network() -> NetworkConfig {
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
        Forward { protocol: Protocol::Tcp, host_address: None, host_port: 8080, container_port: 80 };
    NetworkConfig { veth: Some(veth), forwards: vec![forward], ..NetworkConfig::new("bench") }
}

criterion_group!(benches, plans, filter);
criterion_main!(benches);
