//! systemd-networkd beside nixrun: what nixrun has set up is left alone with the files that it ships, and what it makes
//! as systemd-nspawn does is networkd's as ever.

use std::time::Duration;

use vm::guest::{self, attempt, sh, wait_until, write};

const PATIENCE: Duration = Duration::from_secs(90);

/// The state of a link's set-up, as networkd sees it.
fn state(link: &str) -> String {
    attempt(&format!("networkctl list --no-legend {link} | awk '{{print $NF}}'")).stdout
}

fn host() {
    guest::mount_closure();
    sh("ln -s /run/t/nixrun /usr/local/bin/nixrun");
    sh(&format!("install -D -m 644 {}/1.conf /etc/nixos-containers/base.conf", guest::CLOSURE));
    sh("systemctl unmask systemd-networkd.service systemd-networkd.socket");
    sh("systemctl start systemd-networkd.service");
}

#[test]
fn with_its_files_networkd_leaves_the_links_of_boot_alone_and_sees_to_those_of_nspawn() {
    write("/etc/udev/rules.d/70-nixrun.rules", include_str!("../../../dist/udev/rules.d/70-nixrun.rules"));
    let network = include_str!("../../../dist/systemd/network/70-nixrun.network");
    write("/etc/systemd/network/70-nixrun.network", network);
    sh("udevadm control --reload");
    host();
    sh("systemd-run -q --wait --collect nixrun start base");
    wait_until("networkd leaves the link alone", PATIENCE, || state("ve-base") == "unmanaged");
    assert!(sh("ip -4 address show ve-base").contains("10.233.3.1/32"));
    assert_eq!(sh("ip -4 -o address show ve-base | wc -l"), "1");

    sh(
        "mkdir -p /var/box/usr/bin /var/box/etc && cp /usr/bin/busybox /var/box/usr/bin && ln -s usr/bin /var/box/bin",
    );
    sh("systemd-run -q --unit=box nixrun nspawn -q -n -D /var/box -M box /bin/busybox sleep 600");
    wait_until("networkd sees to the other link", PATIENCE, || {
        !["", "pending", "initialized", "unmanaged"].contains(&state("ve-box").as_str())
    });
}

/// What the files are for.
#[test]
fn without_them_networkd_adds_an_address_of_its_own() {
    host();
    sh("systemd-run -q --wait --collect nixrun start base");
    wait_until("networkd has the link", PATIENCE, || {
        !["", "pending", "initialized", "unmanaged"].contains(&state("ve-base").as_str())
    });
}
