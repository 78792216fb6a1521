//! Capability names, nspawn's default set, and what this process has.

use caps::Capability;
use runtime::{CapSet, CapsError, available_capabilities, nspawn_default};

#[test]
fn the_known_set_is_the_crates() {
    let bits = caps::all().iter().fold(0, |bits, capability| bits | capability.bitmask());
    assert_eq!(CapSet::ALL.bits(), bits);
    assert_eq!(CapSet::from_bits(u64::MAX), CapSet::ALL);
}

#[test]
fn names_are_read_in_every_usual_form() {
    let net_admin = CapSet::of(&[Capability::CAP_NET_ADMIN]);
    for form in ["CAP_NET_ADMIN", "cap_net_admin", "net_admin", " NET_ADMIN ", "12", "CAP_NET_ADMIN,,none"] {
        assert_eq!(CapSet::parse(form).unwrap(), net_admin, "{form:?}");
    }
    assert_eq!(CapSet::parse("all").unwrap(), CapSet::ALL);
    assert_eq!(CapSet::parse("").unwrap(), CapSet::EMPTY);
    let two = CapSet::parse("CAP_CHOWN,CAP_BPF").unwrap();
    assert_eq!(two.bits(), 1 << 0 | 1 << 39);
}

#[test]
fn a_wrong_name_is_named() {
    for (list, wrong) in [("CAP_CHOWN,CAP_FOO", "CAP_FOO"), ("41", "41"), ("-1", "-1"), ("CAP_", "CAP_")] {
        let CapsError::Unknown { name, .. } = CapSet::parse(list).unwrap_err() else { panic!("{list}") };
        assert_eq!(name, wrong);
    }
    let text = CapSet::parse("net_amin").unwrap_err().to_string();
    assert!(text.contains("\"net_amin\" is not a capability"), "{text}");
}

#[test]
fn what_is_printed_reads_back() {
    for set in [CapSet::EMPTY, CapSet::ALL, nspawn_default(true), CapSet::from_bits(0x1555)] {
        assert_eq!(CapSet::parse(&set.to_string()).unwrap(), set, "{set}");
    }
    assert_eq!(CapSet::from_bits(0b11).to_string(), "CAP_CHOWN,CAP_DAC_OVERRIDE");
    assert_eq!(
        serde_json::to_string(&CapSet::from_bits(0b11)).unwrap(),
        "[\"CAP_CHOWN\",\"CAP_DAC_OVERRIDE\"]"
    );
}

#[test]
fn sets_combine() {
    let (low, high) = (CapSet::from_bits(0b0011), CapSet::from_bits(0b0110));
    assert_eq!(low.union(high).bits(), 0b0111);
    assert_eq!(low.intersection(high).bits(), 0b0010);
    assert_eq!(low.difference(high).bits(), 0b0001);
    assert_eq!(low.iter().collect::<Vec<_>>(), [Capability::CAP_CHOWN, Capability::CAP_DAC_OVERRIDE]);
}

/// The masks that systemd-nspawn shows in `CapBnd` of `/proc/1/status`, with and without `--private-network`. Where
/// the host has no `CAP_SYS_RESOURCE` itself, systemd 252 shows 0xfcecafff and 0xfcecbfff.
#[test]
fn the_default_set_is_nspawns() {
    assert_eq!(nspawn_default(false).bits(), 0xfdec_afff);
    assert_eq!(nspawn_default(true).bits(), 0xfdec_bfff);
}

#[test]
fn available_is_what_the_kernel_shows() {
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
    let mask = |field| {
        let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        u64::from_str_radix(line.trim(), 16).unwrap()
    };
    assert_eq!(available_capabilities().unwrap(), CapSet::from_bits(mask("CapPrm:") & mask("CapBnd:")));
}
