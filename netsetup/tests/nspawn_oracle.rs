//! Names and MAC addresses against the real systemd-nspawn, run on a host of its own.

#![allow(clippy::print_stderr, reason = "a skipped test says so")]

mod common;

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::symlink;
use std::process::{Child, Command, Stdio};

use common::{Netns, assert_unchanged, config, on_host, paths, sh, snapshot, up};
use netsetup::{ExtraVeth, MovedLink, Nat, NetFacts, NetworkConfig, NetworkPlan, SubLink, names};

/// What nspawn makes: name and MAC address of the host's end, MAC address of the container's.
fn by_nspawn(name: &str) -> (String, String, String) {
    let nspawn = Nspawn::start(name, &["--network-veth"], "cat /sys/class/net/host0/address");
    let links = sh("ip -o link show type veth");
    let inside = nspawn.stop();
    let link = links.split([':', '@']).nth(1).unwrap().trim().to_owned();
    let mac = links.split("link/ether ").nth(1).unwrap().split(' ').next().unwrap().to_owned();
    (link, mac, inside.trim_end().to_owned())
}

/// A container of the real systemd-nspawn that has said what it had to say, and waits.
struct Nspawn {
    process: Child,
    cgroups: Vec<String>,
    root: String,
    inside: String,
}

impl Nspawn {
    /// Starts it; `say` is a shell command, whose output comes before the container waits.
    fn start(name: &str, options: &[&str], say: &str) -> Nspawn {
        // A root with nothing but the host's /usr.
        let root = format!("/run/root-{name}");
        fs::create_dir_all(format!("{root}/usr")).unwrap();
        fs::create_dir_all(format!("{root}/etc")).unwrap();
        fs::write(format!("{root}/etc/os-release"), "ID=test\n").unwrap();
        for directory in ["bin", "sbin", "lib", "lib64"] {
            symlink(format!("usr/{directory}"), format!("{root}/{directory}")).unwrap();
        }
        // It makes groups below its own and leaves them: it gets one that can be removed.
        let cgroups = cgroups(name);
        let enter: String =
            cgroups.iter().map(|cgroup| format!("echo $$ > {cgroup}/cgroup.procs; ")).collect();
        let mut process = Command::new("sh")
            .args(["-ec", &format!("{enter} exec systemd-nspawn \"$@\""), "sh"])
            .args(["-q", "-D", &root, "--bind-ro=/usr", "-M", name])
            .args(options)
            .args(["--register=no", "--keep-unit", "--pipe", "/bin/sh", "-c"])
            .arg(format!("{say}; echo; echo said; read line; true"))
            .env("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines().map(Result::unwrap);
        let mut inside = String::new();
        for line in lines.by_ref().take_while(|line| line != "said") {
            inside.push_str(&line);
            inside.push('\n');
        }
        Nspawn { process, cgroups, root, inside }
    }

    /// Ends it, and returns what it said.
    fn stop(mut self) -> String {
        drop(self.process.stdin.take());
        assert!(self.process.wait().unwrap().success(), "systemd-nspawn failed: {}", self.inside);
        fs::remove_dir_all(&self.root).unwrap();
        for cgroup in &self.cgroups {
            for group in ["/payload", "/supervisor", ""] {
                fs::remove_dir(format!("{cgroup}{group}")).unwrap();
            }
        }
        self.inside
    }
}

/// A new group in each hierarchy that systemd uses: the unified one, or on hybrid hosts that and its own.
fn cgroups(name: &str) -> Vec<String> {
    let roots = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd"];
    let roots = roots.into_iter().filter(|root| fs::exists(format!("{root}/cgroup.procs")).unwrap());
    let groups: Vec<String> =
        roots.map(|root| format!("{root}/netsetup-test-{}-{name}", std::process::id())).collect();
    groups.iter().for_each(|group| fs::create_dir(group).unwrap());
    groups
}

/// Says so where it is not.
fn is_installed() -> bool {
    let installed = Command::new("systemd-nspawn").arg("--version").output().is_ok();
    assert!(installed || std::env::var_os("NIXRUN_MUST_WORK").is_none(), "systemd-nspawn is not installed");
    if !installed {
        eprintln!("skipped: systemd-nspawn is not installed");
    }
    installed
}

#[test]
fn links_are_called_as_nspawn_calls_them() {
    on_host(|| {
        if !is_installed() {
            return;
        }
        // 12 bytes fit behind "ve-", 13 do not.
        for name in
            ["a", "first", "twelve-bytes", "thirteenbytes", "really-long-name", "really-long-long-name-2"]
        {
            let plan =
                NetworkPlan::new(&config(name, 1), &NetFacts::probe(&paths(), &config(name, 1)).unwrap());
            let veth = plan.unwrap().veth.unwrap();
            let ours = (veth.host.name, veth.host.mac.to_string(), veth.container.mac.to_string());
            assert_eq!(ours, by_nspawn(name), "of container {name}");
            assert_eq!(names::host_link_name(name, false).altname, veth.host.altname);
        }
    });
}

/// What `ip -d -o link` and `ip -o addr` say, without what differs on purpose: ours have an alias and a group, by which they
/// are known after a crash, and one queue each way; and without numbers that the kernel counts up.
fn essence(links: &str) -> Vec<String> {
    let one = |line: &str| {
        let mut words = line.split_whitespace().skip(1);
        let mut kept = Vec::new();
        while let Some(word) = words.next() {
            match word {
                // What the kernel tells with a delay of up to a second.
                "state" => drop(words.next()),
                "alias" | "group" | "numtxqueues" | "numrxqueues" | "link-netnsid" | "link-netns" => {
                    words.next();
                }
                // Timers, and the identities of bridges, which derive from the links' MAC addresses.
                _ if word.ends_with("_timer") => drop(words.next()),
                // systemd-nspawn makes ::1 itself, without a route to it in the main table besides the local one.
                "noprefixroute" | "\\" => {}
                _ => kept.push(word.split('@').next().unwrap_or_default()),
            }
        }
        kept.join(" ")
    };
    // systemd-nspawn 252 and 256 look for the MACVLAN link on the host to give it its alternative name.
    let links =
        links.replace("altname mv-a-long-named-if", "").replace("NO-CARRIER,", "").replace(",LOWER_UP", "");
    let mut lines: Vec<String> = links.lines().filter(|line| !line.trim().is_empty()).map(one).collect();
    lines.sort();
    lines
}

/// `/sys` of the test's own network namespace, and udev as it is on a host where it is done with every link.
fn with_udev() {
    sh("mkdir /run/cgroup; mount --rbind /sys/fs/cgroup /run/cgroup; mount -t sysfs sysfs /sys
        mount --rbind /run/cgroup /sys/fs/cgroup; umount -l /run/cgroup; rmdir /run/cgroup
        mkdir -p /run/udev/data /run/systemd/nspawn/locks /run/systemd/nspawn/propagate; touch /run/udev/control
        for i in /sys/class/net/*/ifindex; do echo I:1 > /run/udev/data/n$(cat $i); done");
}

const SHOW: &str = "ip -d -o link; ip -o addr";

/// Runs both with the same links, one after the other, and compares what is seen on either side.
#[track_caller]
fn assert_same(options: &[&str], config: &NetworkConfig) {
    let before = snapshot();
    let nspawn = Nspawn::start(&config.container, options, SHOW);
    let host = sh(SHOW);
    let theirs = (essence(&host), essence(&nspawn.stop()));
    assert_unchanged(&before);
    let container = Netns::new();
    let applied = up(config, &container);
    let ours = (essence(&sh(SHOW)), essence(&container.sh(SHOW)));
    applied.teardown(true).unwrap();
    assert_unchanged(&before);
    for (side, ours, theirs) in [("host", ours.0, theirs.0), ("container", ours.1, theirs.1)] {
        let only = |one: &[String], other: &[String]| -> Vec<String> {
            one.iter().filter(|line| !other.contains(line)).cloned().collect()
        };
        let differ = (only(&ours, &theirs), only(&theirs, &ours));
        assert_eq!(
            differ,
            (vec![], vec![]),
            "{options:?}, on the {side}: ours alone, and systemd-nspawn's alone"
        );
        assert!(ours.len() > 1, "nothing was compared");
    }
}

/// The veth pair of `--network-veth`, with what a front end for nspawn's options asks for.
fn nspawn_veth(name: &str, bridge: Option<&str>, make_bridge: bool) -> NetworkConfig {
    let mut config = config(name, 1);
    config.nat = Nat::No;
    let veth = config.veth.as_mut().unwrap();
    veth.container_link = "host0".into();
    (veth.up, veth.bridge, veth.make_bridge) = (false, bridge.map(Into::into), make_bridge);
    (veth.host_address, veth.host_address6) = (None, None);
    (veth.local_address, veth.local_address6) = (None, None);
    config
}

#[test]
fn links_are_as_nspawn_leaves_them() {
    on_host(|| {
        if !is_installed() {
            return;
        }
        // The host's ends are seen before they have a carrier or not.
        sh("mkdir /run/nixrun; ip link add br0 address 02:00:00:00:00:01 type bridge
            ip link add eth1 type veth peer name far1; ip link add a-long-named-if type veth peer name far2
            ip link property add dev eth1 altname an-alternative-name");
        with_udev();
        assert_same(&["--network-veth"], &nspawn_veth("first", None, false));
        assert_same(&["--network-bridge=br0"], &nspawn_veth("really-long-name", Some("br0"), false));
        assert_same(&["--network-zone=lan"], &nspawn_veth("web", Some("vz-lan"), true));

        let mut config = NetworkConfig::new("web");
        let extra = |host: &str, container: &str| ExtraVeth {
            host_link: host.into(),
            container_link: container.into(),
            bridge: None,
            up: false,
            host_address: None,
            host_address6: None,
            local_address: None,
            local_address6: None,
        };
        config.extra_veths = vec![extra("out0", "in0"), extra("both", "both"), extra("out1", "in1")];
        let pairs =
            ["--network-veth-extra=out0:in0", "--network-veth-extra=both", "--network-veth-extra=out1:in1"];
        assert_same(&pairs, &config);

        let mut config = NetworkConfig::new("web");
        let on = |parent: &str| SubLink { parent: parent.into(), container_link: None };
        config.macvlans = vec![on("eth1"), on("a-long-named-if")];
        assert_same(&["--network-macvlan=eth1", "--network-macvlan=a-long-named-if"], &config);

        let mut config = NetworkConfig::new("web");
        config.interfaces = vec![MovedLink { host_link: "eth1".into(), container_link: None }];
        assert_same(&["--network-interface=eth1"], &config);
    });
}

#[test]
fn a_zone_is_shared_with_nspawn() {
    on_host(|| {
        if !is_installed() {
            return;
        }
        sh("mkdir /run/nixrun");
        with_udev();
        let zone = || sh("ip -o link").contains("vz-lan");
        let container = Netns::new();
        let ours = up(&nspawn_veth("ours", Some("vz-lan"), true), &container);
        let nspawn = Nspawn::start("theirs", &["--network-zone=lan"], "true");
        assert!(sh("ip link show vb-theirs").contains("master vz-lan"));
        ours.teardown(true).unwrap();
        assert!(zone(), "nspawn's container is still in it");
        let ours = up(&nspawn_veth("ours", Some("vz-lan"), true), &container);
        nspawn.stop();
        assert!(zone(), "ours is still in it");
        ours.teardown(true).unwrap();
        assert!(!zone());
        // The other way round: the last one is nspawn's.
        let nspawn = Nspawn::start("theirs", &["--network-zone=lan"], "true");
        up(&nspawn_veth("ours", Some("vz-lan"), true), &container).teardown(true).unwrap();
        assert!(zone());
        nspawn.stop();
        assert!(!zone());
    });
}
