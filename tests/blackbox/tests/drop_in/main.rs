//! Every option of systemd-nspawn that nixrun takes in its place: what a program inside sees, under either.
#![forbid(unsafe_code)]

mod files;
mod known;
mod ports;
mod processes;
mod test13;

use blackbox::compare::{Case, compare};
use blackbox::on_host;

use known::*;

/// Everything is looked at.
const REPORT: Case =
    Case { name: "", options: "", before: "", inside: "", after: "", env: &[], report: true, known: &[] };

/// Only what the scripts print.
const SCRIPT: Case = Case { report: false, ..REPORT };

#[test]
fn links() {
    on_host(|host| {
        // /sys of this host, and udev as it is when it is done with every link.
        host.sh("ip link add br0 type bridge; ip link set br0 up
             mkdir /run/cgroup; mount --rbind /sys/fs/cgroup /run/cgroup; mount -t sysfs sysfs /sys
             mount --rbind /run/cgroup /sys/fs/cgroup; umount -l /run/cgroup; rmdir /run/cgroup
             mkdir -p /run/udev/data; touch /run/udev/control
             echo I:1 > /run/udev/data/n$(cat /sys/class/net/br0/ifindex)");
        compare(
            host,
            &[
                Case { name: "a network of its own", options: "--private-network", ..REPORT },
                Case { name: "veth", options: "--network-veth", ..REPORT },
                Case {
                    name: "on a bridge, by a long name",
                    options: "-n --network-bridge=br0 -M a-really-long-name",
                    ..REPORT
                },
                Case { name: "a zone", options: "--network-zone=lan", ..REPORT },
                Case {
                    name: "further pairs",
                    options: "--network-veth-extra=one:two --network-veth-extra=three",
                    ..REPORT
                },
                Case { name: "macvlan", options: "--network-macvlan=br0", ..REPORT },
                Case {
                    name: "a link that moves in",
                    options: "--network-interface=eth7",
                    before: "ip link show eth7 >/dev/null 2>&1 || ip link add eth7 type veth peer name far7
                             echo I:1 > /run/udev/data/n$(cat /sys/class/net/eth7/ifindex)",
                    after: "ip -o link show eth7 | grep -c eth7",
                    ..REPORT
                },
                Case {
                    name: "a network namespace",
                    options: "--network-namespace-path=/run/netns/other",
                    before: "ip netns del other 2>/dev/null || true; ip netns add other; ip -n other link add in0 address 02:00:00:00:00:07 type bridge",
                    after: "ip netns del other",
                    ..REPORT
                },
                Case {
                    name: "a MAC address",
                    options: "-n",
                    env: &[("SYSTEMD_NSPAWN_NETWORK_MAC", "02:00:00:00:00:17")],
                    known: MAC,
                    ..REPORT
                },
            ],
        );
    });
}
