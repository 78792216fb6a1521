//! What this machine's kernel has that the one which runs the other tests may lack: each test here makes one such
//! thing, so that a test of nixrun which needs it belongs in this machine, and fails for its own reasons.

use vm::guest::{attempt, sh};

#[test]
fn a_dummy_link_stands_for_a_physical_one() {
    sh("ip link add wire type dummy && ip addr add 192.0.2.1/24 dev wire && ip link set wire up");
    assert!(sh("ip -o link show wire").contains("UP"));
}

#[test]
fn two_links_are_bonded_into_one_and_none_is_there_before() {
    let there = attempt("ip link show bond0");
    assert!(!there.success, "the module was loaded without max_bonds=0: {there:?}");
    sh("ip link add bond7 type bond mode active-backup miimon 100");
    for link in ["left", "right"] {
        sh(&format!("ip link add {link} type dummy && ip link set {link} master bond7"));
    }
    sh("ip link set bond7 up");
    assert_eq!(sh("cat /sys/class/net/bond7/bonding/slaves"), "left right");
}

#[test]
fn a_vlan_lies_on_a_link() {
    sh("ip link add wire type dummy && ip link set wire up");
    sh("ip link add link wire name wire.7 type vlan id 7 && ip link set wire.7 up");
    assert!(sh("ip -d link show wire.7").contains("vlan protocol 802.1Q id 7"));
}

#[test]
fn macvlan_and_ipvlan_are_born_in_another_namespace() {
    sh("ip netns add inside && ip link add wire type dummy && ip link set wire up");
    sh("ip link add mv-wire link wire netns inside type macvlan mode bridge");
    sh("ip link del wire && ip link add wire type dummy && ip link set wire up");
    sh("ip link add iv-wire link wire netns inside type ipvlan mode l2");
    assert!(sh("ip -n inside -d link show iv-wire").contains("ipvlan  mode l2"));
}

#[test]
fn sctp_connects_over_loopback_and_nftables_knows_its_ports() {
    sh("ip link set lo up");
    sh("socat -u SCTP-LISTEN:7,bind=127.0.0.1 CREATE:/run/heard & \
        until grep -q ' 7 ' /proc/net/sctp/eps; do sleep 0.05; done; \
        echo over sctp | socat -u - SCTP:127.0.0.1:7; wait");
    assert_eq!(sh("cat /run/heard"), "over sctp");
    sh("nft 'add table inet t; add chain inet t c { type nat hook prerouting priority dstnat; }; \
        add rule inet t c sctp dport 9 dnat ip to 127.0.0.1:7'");
}

#[test]
fn a_disk_image_with_a_partition_table_is_attached() {
    sh("truncate -s 64M /run/image && echo 'type=L' | sfdisk -q /run/image");
    let device = sh("losetup -fP --show /run/image");
    sh(&format!("mke2fs -q -t ext4 {device}p1 && mount {device}p1 /mnt && touch /mnt/there && umount /mnt"));
}
