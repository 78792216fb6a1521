//! The virtual machine itself: that it is the host which the other tests take it for.

use std::time::Duration;

use vm::guest::{attempt, property, sh, wait_until};

#[test]
fn systemd_257_is_pid_1_and_nothing_failed() {
    assert_eq!(sh("cat /proc/1/comm"), "systemd");
    let version = sh("systemctl --version | head -n 1");
    assert!(version.starts_with("systemd 257"), "{version}");
    assert_eq!(sh("systemctl --failed --no-legend --plain"), "");
    assert!(sh("uname -r").starts_with("6.12."), "{}", sh("uname -r"));
}

#[test]
fn cgroups_are_unified_with_the_controllers_containers_use() {
    assert_eq!(sh("stat -f -c %T /sys/fs/cgroup"), "cgroup2fs");
    let controllers = sh("cat /sys/fs/cgroup/cgroup.controllers");
    for wanted in ["cpu", "io", "memory", "pids"] {
        assert!(controllers.split(' ').any(|found| found == wanted), "{wanted} in {controllers}");
    }
}

#[test]
fn a_network_namespace_is_reached_through_masquerade() {
    // Two namespaces with the machine between them; the outer one has no route back to the inner one.
    sh("ip netns add inner && ip netns add outer");
    sh("ip link add to-inner type veth peer name eth0 netns inner");
    sh("ip link add to-outer type veth peer name eth0 netns outer");
    sh("ip addr add 10.0.1.1/24 dev to-inner && ip link set to-inner up");
    sh("ip addr add 192.0.2.1/24 dev to-outer && ip link set to-outer up");
    sh("ip -n inner addr add 10.0.1.2/24 dev eth0 && ip -n inner link set eth0 up");
    sh("ip -n inner route add default via 10.0.1.1");
    sh("ip -n outer addr add 192.0.2.2/24 dev eth0 && ip -n outer link set eth0 up");
    sh("sysctl -q net.ipv4.ip_forward=1");
    sh("ip netns exec outer busybox httpd -p 192.0.2.2:80 -h /run");
    let ask = "ip netns exec inner busybox wget -q -T 2 -O /dev/null http://192.0.2.2/";
    let without = attempt(ask);
    assert!(!without.success, "reached without masquerade: {without:?}");
    sh("nft add table ip t && nft 'add chain ip t post { type nat hook postrouting priority srcnat; }'");
    sh("nft add rule ip t post oifname to-outer masquerade");
    // busybox httpd answers 404 for a directory without index.html, which is an answer all the same.
    let with = attempt(ask);
    assert!(with.success || with.stderr.contains("404"), "{with:?}");
}

#[test]
fn ext4_and_tmpfs_can_be_mounted_with_an_id_map() {
    for (kind, dir) in [("ext4", "/var/mapped"), ("tmpfs", "/run/mapped")] {
        sh(&format!("mkdir -p {dir}/from {dir}/to && touch {dir}/from/file"));
        sh(&format!("mount --bind -o X-mount.idmap=b:0:100000:65536 {dir}/from {dir}/to"));
        assert_eq!(sh(&format!("stat -c %u {dir}/to/file")), "100000", "{kind}");
    }
}

#[test]
fn a_unit_with_delegation_owns_its_cgroup() {
    sh("systemd-run -q --unit=delegated -p Delegate=yes sleep 1000");
    let group = property("delegated.service", "ControlGroup");
    sh(&format!("mkdir /sys/fs/cgroup{group}/payload && mkdir /sys/fs/cgroup{group}/supervisor"));
    let main = property("delegated.service", "MainPID");
    sh(&format!("echo {main} > /sys/fs/cgroup{group}/supervisor/cgroup.procs"));
    sh(&format!("echo +pids > /sys/fs/cgroup{group}/cgroup.subtree_control"));
    sh("systemctl stop delegated.service");
    assert!(!std::path::Path::new(&format!("/sys/fs/cgroup{group}")).exists());
}

#[test]
fn systemd_nspawn_boots_a_container_as_the_oracle() {
    // The guest's own /usr read-only below an empty root, as a NixOS container has the host's store.
    sh("mkdir -p /var/ct/usr /var/ct/etc /var/ct/var && cp -a /etc/passwd /etc/group /var/ct/etc/ && \
        touch /var/ct/etc/machine-id /var/ct/etc/os-release");
    sh("for link in bin sbin lib lib64; do ln -s usr/$link /var/ct/$link; done");
    sh(
        "systemd-run -q --unit=oracle -p Delegate=yes -p Type=notify systemd-nspawn -q --keep-unit -M oracle \
        -D /var/ct --bind-ro=/usr --private-network --notify-ready=yes -b systemd.unit=basic.target",
    );
    assert_eq!(property("oracle.service", "ActiveState"), "active");
    let list = sh("machinectl list --no-legend");
    assert!(list.contains("oracle"), "{list}");
    sh("machinectl poweroff oracle");
    wait_until("the container is gone", Duration::from_secs(30), || {
        property("oracle.service", "ActiveState") == "inactive"
    });
}
