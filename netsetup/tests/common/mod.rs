//! A host of its own for each test: a thread in new network and mount namespaces, with /run empty. Other programs
//! (ip, nft) that a test starts from it see the same host.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of it")]
#![allow(clippy::print_stderr, reason = "a skipped test says so")]

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::Duration;

use netsetup::{Applied, Forward, NetFacts, NetPaths, NetworkConfig, NetworkPlan, Protocol, Veth};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};

/// Runs a test on a host of its own; skips it, saying so, where namespaces cannot be made.
pub fn on_host(test: impl FnOnce() + Send + 'static) {
    let host = thread::Builder::new().name("host".into()).spawn(move || {
        if let Err(errno) = enter_host() {
            assert!(std::env::var_os("NIXRUN_MUST_WORK").is_none(), "cannot make namespaces: {errno}");
            eprintln!("skipped: cannot make network and mount namespaces: {errno}");
            return;
        }
        sh("ip link set lo up");
        test();
    });
    if let Err(panic) = host.unwrap().join() {
        std::panic::resume_unwind(panic);
    }
}

fn enter_host() -> nix::Result<()> {
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)?;
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), none)
}

/// A network namespace; it lives as long as this value, or a process or link in it.
pub struct Netns(OwnedFd);

impl Netns {
    pub fn new() -> Netns {
        let make = || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            OwnedFd::from(File::open("/proc/thread-self/ns/net").unwrap())
        };
        Netns(thread::spawn(make).join().unwrap())
    }

    /// Runs `job` inside.
    pub fn run<T: Send>(&self, job: impl FnOnce() -> T + Send) -> T {
        let inside = || {
            setns(&self.0, CloneFlags::CLONE_NEWNET).unwrap();
            job()
        };
        thread::scope(|scope| match scope.spawn(inside).join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    }

    /// Runs a shell command inside.
    pub fn sh(&self, command: &str) -> String {
        self.run(|| sh(command))
    }

    /// A path that `ip link ... netns PATH` takes.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// What a shell command prints; it must succeed.
#[track_caller]
pub fn sh(command: &str) -> String {
    let output = Command::new("sh").args(["-ec", command]).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command}: {out}{err}");
    out.into_owned()
}

/// Everything of the host that netsetup could change, line by line, once it has settled: the kernel tells the
/// state of a link's carrier some time after it changed.
pub fn snapshot() -> Vec<String> {
    let mut last = state();
    loop {
        thread::sleep(Duration::from_millis(100));
        let now = state();
        if now == last {
            return now;
        }
        last = now;
    }
}

fn state() -> Vec<String> {
    sh("ip link; ip -4 addr; ip -6 addr; ip -4 route show table all; ip -6 route show table all; ip rule
        nft list ruleset
        grep -r . /proc/sys/net/ipv4/conf /proc/sys/net/ipv6/conf /proc/sys/net/ipv4/ip_forward 2>/dev/null |
            grep -v stable_secret | sort
        find /run | sort")
    .lines()
    .filter(|line| !line.contains("valid_lft") && !line.contains("expires"))
    .map(|line| line.replace(" tentative", ""))
    .collect()
}

/// Panics with the lines that differ from those of a snapshot.
#[track_caller]
pub fn assert_unchanged(before: &[String]) {
    let after = snapshot();
    let missing = |from: &[String], to: &[String]| {
        let lines: Vec<String> = from.iter().filter(|line| !to.contains(line)).cloned().collect();
        lines.join("\n")
    };
    assert!(before == after, "gone:\n{}\nnew:\n{}", missing(before, &after), missing(&after, before));
}

/// Makes a bridge that stays as it is whatever joins it, except for its carrier: a MAC address of its own, and no
/// IPv6 address from it.
pub fn bridge(name: &str) {
    sh(&format!(
        "ip link add {name} address 02:00:00:00:00:01 type bridge; ip link set {name} up addrgenmode none"
    ));
}

pub fn paths() -> NetPaths {
    NetPaths { state_dir: PathBuf::from("/run/nixrun"), ..NetPaths::default() }
}

/// A container as NixOS configures one: a /32 on both ends, and the same for IPv6.
pub fn config(name: &str, number: u8) -> NetworkConfig {
    NetworkConfig {
        veth: Some(Veth {
            container_link: "eth0".into(),
            bridge: None,
            make_bridge: false,
            up: true,
            container_mac: None,
            host_address: Some(format!("10.233.{number}.1").parse().unwrap()),
            host_address6: Some(format!("fc00:{number}::1").parse().unwrap()),
            local_address: Some(format!("10.233.{number}.2/32").parse().unwrap()),
            local_address6: Some(format!("fc00:{number}::2/128").parse().unwrap()),
        }),
        ..NetworkConfig::new(name)
    }
}

pub fn forward(protocol: Protocol, host_port: u16, container_port: u16) -> Forward {
    Forward { protocol, host_address: None, host_port, container_port }
}

/// Probes, plans and applies.
pub fn try_up(config: &NetworkConfig, netns: &Netns) -> netsetup::Result<Applied> {
    let facts = NetFacts::probe(&paths(), config)?;
    let plan = NetworkPlan::new(config, &facts)?;
    netsetup::apply(&plan, &paths(), netns.as_fd())
}

#[track_caller]
pub fn up(config: &NetworkConfig, netns: &Netns) -> Applied {
    match try_up(config, netns) {
        Ok(applied) => applied,
        Err(error) => panic!("{error}"),
    }
}

/// A network namespace that stands for the world outside, at the other end of the host's eth0:
/// 203.0.113.1 and 2001:db8::1 on the host, .2 and ::2 outside. It has no route to the containers.
pub fn outside() -> Netns {
    let outside = Netns::new();
    sh(&format!(
        "ip link add eth0 type veth peer name up0 netns {}
         ip addr add 203.0.113.1/24 dev eth0; ip addr add 2001:db8::1/64 dev eth0 nodad
         ip addr add fe80::1/64 dev eth0 nodad; ip link set eth0 up addrgenmode none",
        outside.path()
    ));
    outside
        .sh("ip link set lo up; ip addr add 203.0.113.2/24 dev up0; ip addr add 2001:db8::2/64 dev up0 nodad
         ip link set up0 up");
    outside
}
