//! The pretend host against a shell that changes it.
#![forbid(unsafe_code)]

use std::net::IpAddr;

use support::{Error, HOST4, Host, OUTSIDE4, may_run};

fn on_host(test: impl FnOnce(&Host) -> Result<(), Error> + Send) {
    let root = nix::unistd::geteuid().is_root();
    if may_run(root.then_some(()).ok_or_else(|| "namespaces need root".to_owned())) {
        Host::with(test).unwrap();
    }
}

#[test]
fn a_snapshot_shows_each_kind_of_thing_that_is_left() {
    on_host(|host| {
        let _outside = host.outside()?;
        let before = host.snapshot()?;
        assert_eq!(before.difference(&host.snapshot()?), "");
        for (change, sign) in [
            ("ip link add left type bridge", "+ links: "),
            ("ip addr add 10.9.9.9/32 dev eth0", "+ addresses: "),
            ("ip route add 10.8.8.8 via 203.0.113.2", "+ routes: 10.8.8.8 "),
            ("nft add table inet left", "+ nftables: table inet left"),
            ("echo 1 > /proc/sys/net/ipv4/ip_forward", "- settings: ipv4/ip_forward:0"),
            ("mount -t tmpfs tmpfs /mnt", "+ mounts: "),
            ("mount --bind /mnt /mnt", "+ mounts: "),
            ("touch /run/left", "+ files: /run/left "),
        ] {
            let before = host.snapshot()?;
            host.sh(change)?;
            let difference = before.difference(&host.snapshot()?);
            assert!(difference.contains(sign), "{change}: {difference}");
        }
        std::fs::create_dir(host.cgroup().join("left")).unwrap();
        let difference = before.difference(&host.snapshot()?);
        assert!(difference.contains("+ control groups: "), "{difference}");
        assert!(before.require_same(&host.snapshot()?, "after all that").is_err());
        Ok(())
    });
}

#[test]
fn the_outside_and_the_host_reach_each_other() {
    on_host(|host| {
        let outside = host.outside()?;
        let served = outside.serve_once((OUTSIDE4, 9000).into())?;
        host.sh(&format!("bash -c 'exec 3<>/dev/tcp/{OUTSIDE4}/9000; echo GET >&3; grep -q outside <&3'"))?;
        assert_eq!(served.asked_by()?, IpAddr::from(HOST4));
        Ok(())
    });
}

#[test]
fn what_was_started_ends_with_the_host() {
    let (sender, children) = std::sync::mpsc::channel();
    let mut group = None;
    on_host(|host| {
        group = Some(host.cgroup().to_owned());
        let child = host.command("sleep").arg("1000").spawn().map_err(Error::doing("start sleep"))?;
        // Only a process that is in the group already ends with it.
        while host.sh(&format!("cat {}/cgroup.procs", host.cgroup().display()))?.is_empty() {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        sender.send(child).map_err(|_| Error::Unexpected("nobody waits".to_owned()))
    });
    if let Some(group) = group {
        let status = children.recv().unwrap().wait().unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
        assert!(!group.exists(), "{} was left", group.display());
    }
}
