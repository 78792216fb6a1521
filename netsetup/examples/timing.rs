//! How long each step of a container's network takes, as tenth percentiles and medians over many containers in namespaces of their own:
//! `cargo run --release -p netsetup --example timing`. Needs root.
#![allow(clippy::print_stdout, reason = "its purpose")]

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

use netsetup::{Forward, Nat, NetFacts, NetPaths, NetworkConfig, NetworkPlan, Protocol, Veth};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

const ROUNDS: usize = 50;
/// Containers that live meanwhile: the cost must not grow with them.
const LIVING: u8 = 50;

fn main() {
    let none: Option<&str> = None;
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).expect("namespaces");
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).expect("private mounts");
    mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), none).expect("a tmpfs on /run");
    run("veth, addresses, routes", &Nat::No, 0);
    run("with masquerade", &Nat::Auto, 0);
    run("with masquerade and a forward", &Nat::Auto, 1);
    // The first of them stays: what follows is not first in, last out.
    let living: Vec<_> = (100..100 + LIVING).map(|number| (number, netns())).collect();
    let guards: Vec<_> =
        living.iter().map(|(number, netns)| up(&config(*number, &Nat::Auto, 1), netns)).collect();
    run(&format!("among {LIVING} others"), &Nat::Auto, 1);
    drop(guards);
}

fn run(what: &str, nat: &Nat, forwards: u16) {
    let paths = NetPaths::default();
    let mut times = [const { Vec::new() }; 4];
    for round in 1..=ROUNDS {
        // Another name each time: an earlier link lives on for as long as the kernel takes.
        let config = config(round as u8, nat, forwards);
        let netns = netns();
        let start = Instant::now();
        let facts = NetFacts::probe(&paths, &config).expect("facts");
        let probed = Instant::now();
        let plan = NetworkPlan::new(&config, &facts).expect("a plan");
        let planned = Instant::now();
        let applied = netsetup::apply(&plan, &paths, netns.as_fd()).expect("a network");
        let done = Instant::now();
        drop(netns);
        applied.teardown(false).expect("a clean end");
        let steps = [probed - start, planned - probed, done - planned, done.elapsed()];
        times.iter_mut().zip(steps).for_each(|(times, step)| times.push(step));
        // The kernel goes on deleting links, under the lock that the next round needs too.
        thread::sleep(Duration::from_millis(50));
    }
    let [probe, plan, apply, teardown] = times.map(|mut times| {
        times.sort();
        format!("{}/{}", times[ROUNDS / 10].as_micros(), times[ROUNDS / 2].as_micros())
    });
    println!("{what}: probe {probe} us, plan {plan} us, apply {apply} us, teardown {teardown} us");
}

fn up(config: &NetworkConfig, netns: &OwnedFd) -> netsetup::Applied {
    let facts = NetFacts::probe(&NetPaths::default(), config).expect("facts");
    let plan = NetworkPlan::new(config, &facts).expect("a plan");
    netsetup::apply(&plan, &NetPaths::default(), netns.as_fd()).expect("a network")
}

fn netns() -> OwnedFd {
    let make = || {
        unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace");
        File::open("/proc/thread-self/ns/net").expect("its file").into()
    };
    thread::spawn(make).join().expect("a thread")
}

fn config(number: u8, nat: &Nat, forwards: u16) -> NetworkConfig {
    NetworkConfig {
        veth: Some(Veth {
            container_link: "eth0".into(),
            bridge: None,
            make_bridge: false,
            up: true,
            container_mac: None,
            host_address: format!("10.233.{number}.1").parse().ok(),
            host_address6: format!("fc00:{number}::1").parse().ok(),
            local_address: format!("10.233.{number}.2/32").parse().ok(),
            local_address6: format!("fc00:{number}::2/128").parse().ok(),
        }),
        nat: nat.clone(),
        forwards: (0..forwards)
            .map(|i| Forward {
                protocol: Protocol::Tcp,
                host_address: None,
                host_port: 8000 + u16::from(number) + i,
                container_port: 80,
            })
            .collect(),
        ..NetworkConfig::new(format!("bench{number}"))
    }
}
