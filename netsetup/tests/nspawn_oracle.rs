//! Names and MAC addresses against the real systemd-nspawn, run on a host of its own.

#![allow(clippy::print_stderr, reason = "a skipped test says so")]

mod common;

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};

use common::{config, on_host, paths, sh};
use netsetup::{NetFacts, NetworkPlan, names};

/// What nspawn makes: name and MAC address of the host's end, MAC address of the container's.
fn by_nspawn(name: &str) -> (String, String, String) {
    // A root with nothing but the host's /usr.
    fs::create_dir_all("/run/root/usr").unwrap();
    fs::create_dir_all("/run/root/etc").unwrap();
    fs::write("/run/root/etc/os-release", "ID=test\n").unwrap();
    for directory in ["bin", "sbin", "lib", "lib64"] {
        symlink(format!("usr/{directory}"), format!("/run/root/{directory}")).unwrap();
    }
    // It makes groups below its own and leaves them: it gets one that can be removed.
    let cgroups = cgroups();
    let enter: String = cgroups.iter().map(|cgroup| format!("echo $$ > {cgroup}/cgroup.procs; ")).collect();
    let mut nspawn = Command::new("sh")
        .args(["-ec", &format!("{enter} exec systemd-nspawn \"$@\""), "sh"])
        .args(["-q", "-D", "/run/root", "--bind-ro=/usr", "--network-veth", "-M", name])
        .args(["--register=no", "--keep-unit", "--pipe", "/bin/sh", "-c"])
        .arg("cat /sys/class/net/host0/address; read line")
        .env("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut inside = String::new();
    BufReader::new(nspawn.stdout.take().unwrap()).read_line(&mut inside).unwrap();
    let links = sh("ip -o link show type veth");
    drop(nspawn.stdin.take());
    nspawn.wait().unwrap();
    fs::remove_dir_all("/run/root").unwrap();
    for cgroup in cgroups {
        for group in ["/payload", "/supervisor", ""] {
            fs::remove_dir(format!("{cgroup}{group}")).unwrap();
        }
    }
    let link = links.split([':', '@']).nth(1).unwrap().trim().to_owned();
    let mac = links.split("link/ether ").nth(1).unwrap().split(' ').next().unwrap().to_owned();
    (link, mac, inside.trim_end().to_owned())
}

/// A new group in each hierarchy that systemd uses: the unified one, or on hybrid hosts that and its own.
fn cgroups() -> Vec<String> {
    let roots = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd"];
    let roots = roots.into_iter().filter(|root| fs::exists(format!("{root}/cgroup.procs")).unwrap());
    let groups: Vec<String> =
        roots.map(|root| format!("{root}/netsetup-test-{}", std::process::id())).collect();
    groups.iter().for_each(|group| fs::create_dir(group).unwrap());
    groups
}

#[test]
fn links_are_called_as_nspawn_calls_them() {
    on_host(|| {
        if Command::new("systemd-nspawn").arg("--version").output().is_err() {
            assert!(std::env::var_os("NIXRUN_MUST_WORK").is_none(), "systemd-nspawn is not installed");
            eprintln!("skipped: systemd-nspawn is not installed");
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
