//! Names and MAC addresses that depend on nothing but the container's name and the machine id. They equal those
//! of systemd-nspawn, so that firewall rules, DHCP leases and SLAAC addresses survive a move to nixrun.
//!
//! Source: systemd v256, `src/nspawn/nspawn-network.c` (`shorten_ifname`, `generate_mac`).

use std::hash::Hasher;

use siphasher::sip::SipHasher24;

/// Longest name of a link in bytes, `IFNAMSIZ` without its terminating zero.
pub const LINK_NAME_MAX: usize = 15;

/// `SHORTEN_IFNAME_HASH_KEY`.
const SHORTEN_KEY: [u8; 16] = hex(b"e190a404a8ef4b518cccc33a9f11fca2");
/// `HOST_HASH_KEY`: the MAC address of the host's end.
const HOST_KEY: [u8; 16] = hex(b"1a376fc746ec450bada3d53106605db1");
/// `CONTAINER_HASH_KEY`: the MAC address of the container's end.
const CONTAINER_KEY: [u8; 16] = hex(b"c3c4f919b557b21ce6cf1427039ceea2");
/// `VETH_EXTRA_HOST_HASH_KEY` and `VETH_EXTRA_CONTAINER_HASH_KEY`: those of further pairs.
const EXTRA_HOST_KEY: [u8; 16] = hex(b"48c7f6b7ea9d4c9eb728d4de91d5bf66");
const EXTRA_CONTAINER_KEY: [u8; 16] = hex(b"af501761cef94d35840d2b2054bece59");
/// `MACVLAN_HASH_KEY`.
const MACVLAN_KEY: [u8; 16] = hex(b"00136dbc66834481bb0cf9511f24a66f");

/// The 64 characters of the URL-safe alphabet of RFC 4648.
const BASE64_URL: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Name of a link, and the alternative name that carries the full one when it was too long for a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostLinkName {
    /// The name, such as `ve-NAME`, shortened to [`LINK_NAME_MAX`] bytes.
    pub name: String,
    /// The unshortened name, when it differs.
    pub altname: Option<String>,
}

/// Names the host's end of `container`'s veth pair: `vb-` when a bridge takes it, `ve-` otherwise.
#[must_use]
pub fn host_link_name(container: &str, bridged: bool) -> HostLinkName {
    shortened(format!("{}{container}", if bridged { "vb-" } else { "ve-" }))
}

/// Names a link in the container after its parent on the host: `prefix` is `mv-` for MACVLAN, `iv-` for IPVLAN.
#[must_use]
pub fn sub_link_name(prefix: &str, parent: &str) -> HostLinkName {
    shortened(format!("{prefix}{parent}"))
}

fn shortened(full: String) -> HostLinkName {
    if full.len() <= LINK_NAME_MAX {
        return HostLinkName { name: full, altname: None };
    }
    let hash = siphash24(full.as_bytes(), &SHORTEN_KEY);
    let mut name = full.as_bytes()[..LINK_NAME_MAX - 4].to_vec();
    name.extend([18, 12, 6, 0].map(|shift| BASE64_URL[(hash >> shift) as usize & 63]));
    HostLinkName { name: String::from_utf8_lossy(&name).into_owned(), altname: Some(full) }
}

/// MAC address of the host's end. Without a machine id it depends on the name alone, so it is stable all the same.
#[must_use]
pub fn host_mac(container: &str, machine_id: Option<[u8; 16]>) -> [u8; 6] {
    mac(container, machine_id, &HOST_KEY, 0)
}

/// MAC address of the container's end.
#[must_use]
pub fn container_mac(container: &str, machine_id: Option<[u8; 16]>) -> [u8; 6] {
    mac(container, machine_id, &CONTAINER_KEY, 0)
}

/// MAC addresses of the host's and the container's end of the further veth pair with this index, from 0 on.
#[must_use]
pub fn extra_macs(container: &str, machine_id: Option<[u8; 16]>, index: usize) -> ([u8; 6], [u8; 6]) {
    let end = |key| mac(container, machine_id, key, index);
    (end(&EXTRA_HOST_KEY), end(&EXTRA_CONTAINER_KEY))
}

/// MAC address of the MACVLAN link with this index, from 0 on.
#[must_use]
pub fn macvlan_mac(container: &str, machine_id: Option<[u8; 16]>, index: usize) -> [u8; 6] {
    mac(container, machine_id, &MACVLAN_KEY, index)
}

fn mac(container: &str, machine_id: Option<[u8; 16]>, key: &[u8; 16], index: usize) -> [u8; 6] {
    let mut input = machine_id.unwrap_or_default().to_vec();
    input.extend_from_slice(container.as_bytes());
    if index > 0 {
        input.extend((index as u64).to_le_bytes());
    }
    let [a, b, c, d, e, f, ..] = siphash24(&input, key).to_le_bytes();
    // Neither multicast nor assigned by a vendor: ether_addr_mark_random().
    [a & 0xfe | 0x02, b, c, d, e, f]
}

fn siphash24(input: &[u8], key: &[u8; 16]) -> u64 {
    let mut hasher = SipHasher24::new_with_key(key);
    hasher.write(input);
    hasher.finish()
}

/// Parses a machine id as `/etc/machine-id` has it: 32 hexadecimal digits; anything else (`uninitialized`, an
/// empty file) is none.
pub(crate) fn parse_machine_id(text: &str) -> Option<[u8; 16]> {
    let digits: [u8; 32] = text.trim_end().as_bytes().try_into().ok()?;
    digits.iter().all(u8::is_ascii_hexdigit).then(|| hex(&digits))
}

const fn hex(digits: &[u8; 32]) -> [u8; 16] {
    let mut bytes = [0; 16];
    let mut i = 0;
    while i < 32 {
        let digit = match digits[i] {
            d @ b'0'..=b'9' => d - b'0',
            d => (d | 0x20) - b'a' + 10,
        };
        bytes[i / 2] = bytes[i / 2] << 4 | digit;
        i += 1;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_stay_whole() {
        assert_eq!(host_link_name("first", false), HostLinkName { name: "ve-first".into(), altname: None });
        // 15 bytes fit, 16 do not.
        assert_eq!(host_link_name("twelve-bytes", true).name, "vb-twelve-bytes");
        assert_eq!(host_link_name("thirteenbytes", true).altname.as_deref(), Some("vb-thirteenbytes"));
    }

    #[test]
    fn long_names_are_those_of_nixpkgs_containers_names_test() {
        let first = host_link_name("really-long-name", false);
        let second = host_link_name("really-long-long-name-2", false);
        assert_eq!((first.name.as_str(), second.name.as_str()), ("ve-really-l3QgY", "ve-really-lFYWO"));
        assert_eq!(first.altname.as_deref(), Some("ve-really-long-name"));
    }

    #[test]
    fn macs_are_local_unicast_and_differ_by_end_name_and_machine() {
        let id = Some([7; 16]);
        let all = [
            host_mac("a", id),
            container_mac("a", id),
            host_mac("b", id),
            host_mac("a", None),
            host_mac("a", Some([8; 16])),
        ];
        for (i, one) in all.iter().enumerate() {
            assert_eq!(one[0] & 3, 2);
            assert!(all[i + 1..].iter().all(|other| other != one));
        }
    }

    #[test]
    fn machine_id_is_32_hex_digits_or_none() {
        assert_eq!(parse_machine_id("00112233445566778899AABBccddeeff\n").map(|id| id[9..13].to_vec()), {
            Some(vec![0x99, 0xaa, 0xbb, 0xcc])
        });
        assert_eq!(parse_machine_id(""), None);
        assert_eq!(parse_machine_id("uninitialized\n"), None);
        assert_eq!(parse_machine_id("0011223344556677889900zzccddeeff"), None);
    }
}
