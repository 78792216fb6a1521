//! Chains of other nftables tables that stand in the way: a drop in any table wins over an accept in ours.

use super::attr::Attributes;
use super::table::TABLE;
use crate::error::Result;
use crate::socket::{Netfilter, Socket};

/// `NFT_MSG_GETCHAIN` of `NFNL_SUBSYS_NFTABLES`.
const GETCHAIN: u16 = 10 << 8 | 4;
const NFTA_CHAIN_TABLE: u16 = 1;
const NFTA_CHAIN_NAME: u16 = 3;
const NFTA_CHAIN_HOOK: u16 = 4;
const NFTA_CHAIN_POLICY: u16 = 5;
const NFTA_HOOK_HOOKNUM: u16 = 1;
/// `NF_INET_FORWARD`.
const FORWARD: u32 = 2;
/// `NF_DROP`.
const DROP: u32 = 0;
/// `NFPROTO_UNSPEC`: every family.
const ANY: u8 = 0;

/// The chains of other tables that hook forwarded packets and drop them by policy, as nft(8) names them:
/// `inet filter forward`. Needs CAP_NET_ADMIN; changes nothing.
///
/// # Errors
/// When the kernel does not show its chains.
pub fn foreign_forward_drops() -> Result<Vec<String>> {
    let mut socket = Socket::<Netfilter>::open()?;
    let mut found = Vec::new();
    let doing = "list the chains of nftables".to_owned();
    socket.dump(GETCHAIN, &Attributes::new(ANY, 0), doing, |chain| found.extend(drops_forwarded(chain)))?;
    Ok(found)
}

/// The chain's name, if it is one of those: `struct nfgenmsg`, then attributes.
fn drops_forwarded(message: &[u8]) -> Option<String> {
    let (header, attributes) = message.split_at_checked(4)?;
    let family = match header.first()? {
        1 => "inet",
        2 => "ip",
        10 => "ip6",
        _ => return None,
    };
    let hook = find(attributes, NFTA_CHAIN_HOOK)?;
    let forwards = number(find(hook, NFTA_HOOK_HOOKNUM)?)? == FORWARD;
    let drops = number(find(attributes, NFTA_CHAIN_POLICY)?)? == DROP;
    let (table, chain) =
        (text(find(attributes, NFTA_CHAIN_TABLE)?), text(find(attributes, NFTA_CHAIN_NAME)?));
    let ours = family == "inet" && table == TABLE;
    (forwards && drops && !ours).then(|| format!("{family} {table} {chain}"))
}

/// The value of the first attribute of this type.
fn find(mut attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let [l0, l1, k0, k1] = *attributes.first_chunk()?;
        let length = usize::from(u16::from_ne_bytes([l0, l1]));
        let value = attributes.get(4..length)?;
        // The two highest bits are flags: nested, byte order.
        if u16::from_ne_bytes([k0, k1]) & 0x3fff == wanted {
            return Some(value);
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
}

fn number(value: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(*value.first_chunk()?))
}

fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value).trim_end_matches('\0').to_owned()
}
