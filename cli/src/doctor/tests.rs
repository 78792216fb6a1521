//! Every check on fake hosts, and the whole on this one.

use std::fs;
use std::path::PathBuf;

use runtime::{CapSet, CgroupFacts};

use super::*;

struct Host {
    dir: tempfile::TempDir,
}

impl Host {
    fn new(files: &[(&str, &str)]) -> Host {
        let host = Host { dir: tempfile::tempdir().unwrap() };
        for (path, text) in files {
            let path = host.path(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        host
    }

    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path.trim_start_matches('/'))
    }

    fn paths(&self) -> HostPaths {
        HostPaths::below(self.dir.path()).with_proc(self.path("/proc"))
    }

    fn kernel(&self, name: &str) -> Check {
        one(kernel::checks(&self.paths()), name)
    }

    fn network(&self, name: &str, drops: Option<&[String]>) -> Check {
        one(network::checks(&self.paths(), drops), name)
    }
}

fn one(checks: Vec<Check>, name: &str) -> Check {
    let found = checks.iter().find(|check| check.name == name);
    found.unwrap_or_else(|| panic!("no {name} among {checks:?}")).clone()
}

fn status(check: &Check) -> Status {
    assert_eq!(check.fix.is_none(), check.status == Status::Ok, "{check:?}");
    check.status
}

#[test]
fn kernel_versions() {
    for (release, expected) in [
        ("6.1.0-28-amd64\n", Status::Ok),
        ("6.18.3", Status::Ok),
        ("10.0", Status::Ok),
        ("6.0.19", Status::Warn),
        ("5.15.0", Status::Warn),
        ("", Status::Warn),
    ] {
        let check = Host::new(&[("/proc/sys/kernel/osrelease", release)]).kernel("kernel");
        assert_eq!(status(&check), expected, "{check:?}");
    }
}

#[test]
fn modules_are_found_wherever_they_are() {
    let release = ("/proc/sys/kernel/osrelease", "6.1.0\n");
    let built_in =
        ("/proc/kallsyms", "0 t veth_newlink\n0 t nf_tables_newtable\t[nf_tables]\n0 t veth_newlink2\n");
    let loadable =
        ("/lib/modules/6.1.0/modules.dep", "kernel/net/bridge/bridge.ko.xz: kernel/net/llc/llc.ko.xz\n");
    let host = Host::new(&[release, built_in, loadable]);
    assert_eq!(status(&host.kernel("kernel veth")), Status::Ok);
    assert_eq!(status(&host.kernel("kernel nf_tables")), Status::Ok);
    let bridge = host.kernel("kernel bridge");
    assert_eq!((status(&bridge), bridge.detail.as_str()), (Status::Ok, "is loaded when it is needed"));
    assert_eq!(status(&host.kernel("kernel nft_masq")), Status::Fail);
    assert_eq!(status(&Host::new(&[release]).kernel("kernel veth")), Status::Warn);
}

#[test]
fn seccomp_filters_are_needed() {
    let host = Host::new(&[("/proc/sys/kernel/seccomp/actions_avail", "kill_process errno allow\n")]);
    assert_eq!(status(&host.kernel("seccomp filters")), Status::Ok);
    assert_eq!(status(&Host::new(&[]).kernel("seccomp filters")), Status::Fail);
}

#[test]
fn capabilities_are_required_or_only_missed() {
    let all = CapSet::ALL;
    assert_eq!(status(&host::capabilities(all)), Status::Ok);
    let resource = host::capabilities(all.difference(CapSet::parse("CAP_SYS_RESOURCE").unwrap()));
    assert_eq!(status(&resource), Status::Warn);
    assert!(resource.detail.starts_with("CAP_SYS_RESOURCE not available"), "{resource:?}");
    let none = host::capabilities(CapSet::EMPTY);
    assert_eq!(status(&none), Status::Fail);
    assert!(none.detail.contains("CAP_SYS_ADMIN"), "{none:?}");
}

#[test]
fn control_group_layouts() {
    let host = Host::new(&[("/unified/own/cgroup.kill", ""), ("/cgroup/own/cgroup.procs", "")]);
    let facts = |mount: &str, own: &str, delegated: bool, is_root| CgroupFacts {
        mount: host.path(mount),
        own: host.path(own),
        delegated: delegated.then(|| host.path(own)),
        is_root,
    };
    let statuses = |facts: Option<CgroupFacts>, systemd| {
        host::cgroups(facts.as_ref(), systemd).iter().map(status).collect::<Vec<_>>()
    };
    assert_eq!(statuses(None, true), [Status::Fail]);
    let hybrid = facts("/unified", "/unified/own", true, false);
    assert_eq!(statuses(Some(hybrid.clone()), true), [Status::Warn, Status::Ok, Status::Ok]);
    let old = facts("/cgroup", "/cgroup/own", false, false);
    assert_eq!(statuses(Some(old), true), [Status::Ok, Status::Ok, Status::Fail]);
    let root = facts("/unified", "/unified", false, true);
    assert_eq!(statuses(Some(root.clone()), false), [Status::Warn, Status::Ok, Status::Ok]);

    let place =
        |facts: CgroupFacts, systemd| one(host::cgroups(Some(&facts), systemd), "place of containers").detail;
    assert!(place(hybrid, true).starts_with("below the delegated unit /"));
    assert_eq!(place(root.clone(), true), "a scope of its own, asked from systemd");
    assert!(place(root, false).starts_with("below /"));
}

#[test]
fn forwarding_may_be_off_but_not_missing() {
    let host = Host::new(&[("/proc/sys/net/ipv4/ip_forward", "0\n")]);
    let check = host.network("IPv4 forwarding", None);
    assert_eq!(status(&check), Status::Ok);
    assert!(check.detail.starts_with("off"), "{check:?}");
    assert_eq!(status(&host.network("IPv6 forwarding", None)), Status::Warn);
    let host = Host::new(&[("/proc/sys/net/ipv6/conf/all/forwarding", "1\n")]);
    assert_eq!(host.network("IPv6 forwarding", None).detail, "on");
}

#[test]
fn other_firewalls_are_named() {
    let host = Host::new(&[]);
    assert_eq!(status(&host.network("nftables", None)), Status::Warn);
    assert_eq!(status(&host.network("nftables", Some(&[]))), Status::Ok);
    let check = host.network("nftables", Some(&["inet filter forward".to_owned()]));
    assert_eq!(status(&check), Status::Warn);
    assert!(check.detail.starts_with("inet filter forward drops"), "{check:?}");

    assert_eq!(status(&host.network("legacy iptables", None)), Status::Ok);
    let host =
        Host::new(&[("/proc/net/ip_tables_names", "nat\n"), ("/proc/net/ip6_tables_names", "filter\n")]);
    let check = host.network("legacy iptables", None);
    assert_eq!(status(&check), Status::Warn);
    assert!(check.detail.starts_with("ip6tables-legacy has"), "{check:?}");
}

#[test]
fn networkd_claims_the_links_unless_told_otherwise() {
    let vendor = (
        "/usr/lib/systemd/network/80-container-ve.network",
        "[Match]\nName=ve-*\n[Network]\nDHCPServer=yes\n",
    );
    let runs = ("/run/systemd/netif/state", "");
    let unmanaged = "[Match]\nName = vb-* ve-*\n[Link]\nUnmanaged = yes\n";
    let check = |files: &[(&str, &str)]| Host::new(files).network("systemd-networkd", None);

    assert_eq!(check(&[vendor]).detail, "does not run");
    let claimed = check(&[vendor, runs]);
    assert_eq!(status(&claimed), Status::Warn);
    assert!(claimed.detail.contains("80-container-ve.network gives"), "{claimed:?}");
    assert_eq!(status(&check(&[runs])), Status::Ok);
    assert_eq!(
        status(&check(&[vendor, runs, ("/etc/systemd/network/10-nixrun.network", unmanaged)])),
        Status::Ok
    );
    assert_eq!(
        status(&check(&[vendor, runs, ("/etc/systemd/network/90-late.network", unmanaged)])),
        Status::Warn
    );
    assert_eq!(
        status(&check(&[vendor, runs, ("/etc/systemd/network/80-container-ve.network", "")])),
        Status::Ok
    );
    let other = ("/etc/systemd/network/10-other.network", "[Match]\nName=veth* eth0\n");
    assert_eq!(status(&check(&[vendor, runs, other])), Status::Warn);
    let greedy = ("/etc/systemd/network/10-all.network", "[Match]\nName=*\n[Network]\nDHCP=yes\n");
    assert!(check(&[runs, greedy]).detail.contains("10-all.network gives"));
}

#[test]
fn network_manager_takes_the_links_unless_told_otherwise() {
    let runs = ("/run/NetworkManager/devices/1", "");
    let check = |files: &[(&str, &str)]| Host::new(files).network("NetworkManager", None);
    assert_eq!(check(&[]).detail, "does not run");
    assert_eq!(status(&check(&[runs])), Status::Warn);
    let rule = "ENV{ID_NET_DRIVER}==\"veth\", ENV{NM_UNMANAGED}=\"1\"\n";
    assert_eq!(status(&check(&[runs, ("/usr/lib/udev/rules.d/85-nm-unmanaged.rules", rule)])), Status::Ok);
    let comment = format!("# {rule}");
    assert_eq!(status(&check(&[runs, ("/etc/udev/rules.d/85-nm-unmanaged.rules", &comment)])), Status::Warn);
    let keyfile = "[keyfile]\nunmanaged-devices=interface-name:ve-*\n";
    assert_eq!(status(&check(&[runs, ("/etc/NetworkManager/conf.d/nixrun.conf", keyfile)])), Status::Ok);
}

#[test]
fn the_report_shows_what_to_do() {
    let checks = [
        Check::ok("kernel", "6.1"),
        Check::warn("a b", "odd", "mend it"),
        Check::fail("c", "gone", "get it"),
    ];
    assert_eq!(
        report(&checks, false),
        "ok    kernel  6.1\nwarn  a b     odd\n              -> mend it\nFAIL  c       gone\n              -> get it\n"
    );
    assert_eq!(worst(&checks), Status::Fail);
    assert_eq!((worst(&checks[..2]), worst(&[])), (Status::Warn, Status::Ok));
    let json = serde_json::to_value(&checks[1]).unwrap();
    assert_eq!(json, serde_json::json!({"name": "a b", "status": "warn", "detail": "odd", "fix": "mend it"}));
}

/// The machine that runs the tests has the kernel that the other tests need.
#[test]
fn this_machine_has_the_system_calls() {
    let checks = doctor(&HostPaths::default(), None);
    for check in checks.iter().filter(|check| check.name.starts_with("system call ")) {
        assert_eq!(check.status, Status::Ok, "{check:?}");
    }
}
