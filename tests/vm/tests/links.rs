//! Links of kinds that only this machine's kernel has, in containers of nixrun and of systemd-nspawn.

use vm::guest::{attempt, sh};

/// A root with the guest's own programs, and nixrun where a user has it.
fn host() {
    sh("ln -s /run/t/nixrun /usr/local/bin/nixrun");
    sh("mkdir -p /var/ct/usr /var/ct/etc && echo ID=test > /var/ct/etc/os-release && \
        for link in bin sbin lib lib64; do ln -s usr/$link /var/ct/$link; done");
}

/// What a script in a container says, under both runtimes.
#[track_caller]
fn same_of_both(options: &str, script: &str) -> String {
    let of = |runtime: &str| {
        let said = attempt(&format!(
            "udevadm settle; systemd-run -q --pipe --wait --collect -p Delegate=yes {runtime} -q --keep-unit -M links \
             --register=no --console=pipe -D /var/ct --bind-ro=/usr {options} /bin/sh -ec '{script}'"
        ));
        assert!(said.success, "{runtime}: {said:?}");
        said.stdout
    };
    let theirs = of("systemd-nspawn");
    assert_eq!(of("nixrun nspawn"), theirs, "nixrun's and systemd-nspawn's, of {options}");
    theirs
}

#[test]
fn an_ipvlan_link_is_nspawns() {
    host();
    sh("ip link add wire type dummy && ip link set wire up");
    let said = same_of_both(
        "--network-ipvlan=wire",
        "ip -br link show dev iv-wire; ip -d link show dev iv-wire | grep -o ipvlan.*mode.l2",
    );
    assert!(said.contains("iv-wire@") && said.contains("mode l2"), "{said}");
}

#[test]
fn a_dummy_and_a_vlan_move_in_and_come_back() {
    host();
    sh(
        "ip link add wire type dummy && ip link add base type dummy && ip link add link base name vlan7 type vlan id 7",
    );
    let said = same_of_both(
        "--network-interface=wire:lan0 --network-interface=vlan7",
        "ip -br link show dev lan0; ip -d link show dev vlan7 | grep -o vlan.protocol.*id.7",
    );
    assert!(said.contains("lan0") && said.contains("id 7"), "{said}");
    sh("ip link show dev wire && ip link show dev vlan7");
    assert_eq!(sh("ls /run/nixrun /run/systemd/nspawn-network-zone 2>/dev/null || true"), "");
}
