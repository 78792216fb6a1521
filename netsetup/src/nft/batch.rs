//! Transactions: nftables takes a batch of messages between a begin and an end, and commits it as a whole or not
//! at all.

use netlink_packet_core::{NLA_F_NESTED, NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL};
use nix::errno::Errno;

use super::attr::Attributes;
use super::element::{Element, encode_elements};
use super::expr::Rule;
use super::table::{Chain, MapOrSet, TABLE, chains};
use crate::error::Result;
use crate::socket::{Batch, Netfilter, Socket};

/// `NFNL_SUBSYS_NFTABLES`.
const SUBSYSTEM: u16 = 10;
const NFNL_MSG_BATCH_BEGIN: u16 = 0x10;
const NFNL_MSG_BATCH_END: u16 = 0x11;
/// `NFPROTO_UNSPEC`.
const UNSPEC: u8 = 0;

const NEWTABLE: u16 = SUBSYSTEM << 8;
const GETTABLE: u16 = SUBSYSTEM << 8 | 1;
const DELTABLE: u16 = SUBSYSTEM << 8 | 2;
const NEWCHAIN: u16 = SUBSYSTEM << 8 | 3;
const NEWRULE: u16 = SUBSYSTEM << 8 | 6;
const NEWSET: u16 = SUBSYSTEM << 8 | 9;
const NEWSETELEM: u16 = SUBSYSTEM << 8 | 12;
const DELSETELEM: u16 = SUBSYSTEM << 8 | 14;

/// The elements of one container, with its name.
pub(crate) type Owned<'a> = (&'a str, &'a [Element]);

/// Whether the table is there (somebody may have flushed the ruleset).
pub(crate) fn table_exists(socket: &mut Socket<Netfilter>) -> Result<bool> {
    match socket.request(GETTABLE, &table(), format!("look up the nftables table inet {TABLE}"), |_| Some(()))
    {
        Err(error) if error.errno() == Some(Errno::ENOENT) => Ok(false),
        found => found.map(|()| true),
    }
}

/// Adds a container's elements to the table. Fails with ENOENT when the table is not there.
pub(crate) fn add_elements(socket: &mut Socket<Netfilter>, owned: Owned<'_>) -> Result<()> {
    socket.transact(transaction(|batch| push_elements(batch, owned)), |_| {})
}

/// The bytes of [`add_elements`].
pub(crate) fn encode_add(owned: Owned<'_>) -> Vec<u8> {
    transaction(|batch| push_elements(batch, owned)).bytes().to_vec()
}

/// Makes the table anew, with the elements of all containers, in one transaction: whatever was there before is
/// replaced without a moment in between.
pub(crate) fn replace_table(socket: &mut Socket<Netfilter>, owned: &[Owned<'_>]) -> Result<()> {
    let create = |replace| {
        transaction(|batch| {
            push_table(batch, replace);
            owned.iter().for_each(|owned| push_elements(batch, *owned));
        })
    };
    // Most often there is none, and a transaction that deletes makes closing the socket slow.
    match socket.transact(create(false), |_| {}) {
        Err(error) if error.errno() == Some(Errno::EEXIST) => socket.transact(create(true), |_| {}),
        created => created,
    }
}

/// Deletes the table, if it is there.
pub(crate) fn delete_table() -> Result<()> {
    let mut socket = Socket::open()?;
    let batch = transaction(|batch| {
        batch.push(DELTABLE, 0, &table(), format!("delete the nftables table inet {TABLE}"));
    });
    let deleted = absent_is_fine(socket.transact(batch, |_| {}));
    socket.close_later();
    deleted.map(drop)
}

/// Removes a container's elements; those that are gone already are no error.
pub(crate) fn remove_elements(elements: &[Element]) -> Result<()> {
    let mut socket = Socket::open()?;
    let all: Vec<&Element> = elements.iter().collect();
    // One missing element fails the whole transaction (DESTROYSETELEM came with Linux 6.3): then one by one.
    let removed = absent_is_fine(remove(&mut socket, &all)).and_then(|all_removed| {
        let mut each = if all_removed { [].iter() } else { all.iter() };
        each.try_for_each(|element| absent_is_fine(remove(&mut socket, &[element])).map(drop))
    });
    socket.close_later();
    removed
}

/// Exchanges elements of a container for others in one transaction. Fails with ENOENT when one of the old is not there.
pub(crate) fn replace_elements(
    socket: &mut Socket<Netfilter>,
    old: &[Element],
    new: Owned<'_>,
) -> Result<()> {
    let old: Vec<&Element> = old.iter().collect();
    let batch = transaction(|batch| {
        push_removal(batch, &old);
        push_elements(batch, new);
    });
    socket.transact(batch, |_| {})
}

fn remove(socket: &mut Socket<Netfilter>, elements: &[&Element]) -> Result<()> {
    socket.transact(transaction(|batch| push_removal(batch, elements)), |_| {})
}

fn push_removal(batch: &mut Batch, elements: &[&Element]) {
    for (set, elements) in by_set(elements) {
        let doing = format!("remove {} from nftables", list(&elements));
        batch.push(DELSETELEM, 0, &encode_elements(set, &elements, None), doing);
    }
}

/// Whether it was there.
fn absent_is_fine(outcome: Result<()>) -> Result<bool> {
    match outcome {
        Err(error) if error.errno() == Some(Errno::ENOENT) => Ok(false),
        done => done.map(|()| true),
    }
}

fn transaction(fill: impl FnOnce(&mut Batch)) -> Batch {
    let mut batch = Batch::new();
    let frame = Attributes::new(UNSPEC, SUBSYSTEM);
    batch.push_unacknowledged(NFNL_MSG_BATCH_BEGIN, 0, &frame, "begin an nftables transaction");
    fill(&mut batch);
    batch.push_unacknowledged(NFNL_MSG_BATCH_END, 0, &frame, "commit an nftables transaction");
    batch
}

fn table() -> Attributes {
    let mut body = Attributes::inet();
    body.string(1, TABLE); // NFTA_TABLE_NAME
    body
}

fn push_table(batch: &mut Batch, replace: bool) {
    if replace {
        batch.push(DELTABLE, 0, &table(), "clear the nftables table");
    }
    let doing = format!("create the nftables table inet {TABLE}");
    batch.push(NEWTABLE, NLM_F_CREATE | NLM_F_EXCL, &table(), doing);
    for (id, set) in MapOrSet::ALL.into_iter().enumerate() {
        let doing = format!("create the nftables set {}", set.name());
        batch.push(NEWSET, NLM_F_CREATE, &set.encode(id as u32 + 1), doing);
    }
    let chains = chains();
    for chain in &chains {
        batch.push(
            NEWCHAIN,
            NLM_F_CREATE,
            &encode_chain(chain),
            format!("create the nftables chain {}", chain.name),
        );
    }
    for chain in &chains {
        for (i, rule) in chain.rules.iter().enumerate() {
            let doing = format!("create rule {} of the nftables chain {}", i + 1, chain.name);
            batch.push(NEWRULE, NLM_F_CREATE | NLM_F_APPEND, &encode_rule(chain.name, rule), doing);
        }
    }
}

fn encode_rule(chain: &str, rule: &Rule) -> Attributes {
    let mut body = Attributes::inet();
    // NFTA_RULE_TABLE, _CHAIN, _EXPRESSIONS
    body.string(1, TABLE).string(2, chain).bytes(4 | NLA_F_NESTED, rule.as_bytes());
    body
}

fn encode_chain(chain: &Chain) -> Attributes {
    let mut body = Attributes::inet();
    // NFTA_CHAIN_TABLE, _NAME, _HOOK { NFTA_HOOK_HOOKNUM, NFTA_HOOK_PRIORITY }, _TYPE
    body.string(1, TABLE).string(3, chain.name);
    if let Some(hook) = chain.hook {
        body.nest(4, |h| {
            h.u32(1, hook.number).u32(2, hook.priority as u32);
        });
        body.string(7, hook.kind);
    }
    body
}

fn push_elements(batch: &mut Batch, (owner, elements): Owned<'_>) {
    let elements: Vec<&Element> = elements.iter().collect();
    for (set, elements) in by_set(&elements) {
        let doing = format!("add {} to nftables", list(&elements));
        batch.push(NEWSETELEM, NLM_F_CREATE, &encode_elements(set, &elements, Some(owner)), doing);
    }
}

/// One message can hold elements of one set only, and as many as fit into an attribute's 64 KiB: a container that
/// has its name as their comment takes up to 180 bytes for each.
fn by_set<'a>(elements: &[&'a Element]) -> Vec<(MapOrSet, Vec<&'a Element>)> {
    let mut messages = Vec::new();
    for set in MapOrSet::ALL {
        let of_set: Vec<&Element> = elements.iter().copied().filter(|element| element.set() == set).collect();
        messages.extend(of_set.chunks(256).map(|chunk| (set, chunk.to_vec())));
    }
    messages
}

fn list(elements: &[&Element]) -> String {
    elements.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Protocol;
    use crate::fixture::bytes;

    #[test]
    #[cfg(target_endian = "little")]
    fn one_forward_is_one_transaction() {
        let to = "10.233.1.2:80".parse().unwrap();
        let forward = Element::Forward { protocol: Protocol::Tcp, host_address: None, host_port: 8080, to };
        let expected = bytes(
            "14000000 1000 0100 00000000 00000000   # length 20, NFNL_MSG_BATCH_BEGIN, REQUEST, sequence 0, port 0
             00 00 000a                             # nfgenmsg: AF_UNSPEC, version 0, NFNL_SUBSYS_NFTABLES
             64000000 0c0a 0104 01000000 00000000   # length 100, NFT_MSG_NEWSETELEM, REQUEST|CREATE, sequence 1
             01 00 0000                             # nfgenmsg: NFPROTO_INET
             0b00 0100 6e697872756e00 00            # NFTA_SET_ELEM_LIST_TABLE nixrun
             0d00 0200 666f72776172643400 000000    # NFTA_SET_ELEM_LIST_SET forward4
             3400 0380                              # NFTA_SET_ELEM_LIST_ELEMENTS, nested
             3000 0180                              # NFTA_LIST_ELEM, nested
             1000 0180  0c00 0100 06000000 1f900000 # NFTA_SET_ELEM_KEY { value: tcp, 8080 }
             1000 0280  0c00 0100 0ae90102 00500000 # NFTA_SET_ELEM_DATA { value: 10.233.1.2, 80 }
             0a00 0600 00 04 77656200 0000          # NFTA_SET_ELEM_USERDATA: comment of 4 bytes, web
             14000000 1100 0100 02000000 00000000   # NFNL_MSG_BATCH_END, sequence 2
             00 00 000a",
        );
        assert_eq!(encode_add(("web", &[forward])), expected);
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn rule_of_the_guard() {
        let body = encode_rule("guard", &chains()[2].rules[0]);
        let mut encoded = Vec::new();
        crate::socket::Body::append(&body, &mut encoded);
        let expected = bytes(
            "01 00 0000                                            # nfgenmsg: NFPROTO_INET
             0b00 0100 6e697872756e00 00                           # NFTA_RULE_TABLE nixrun
             0a00 0200 677561726400 0000                           # NFTA_RULE_CHAIN guard
             bc01 0480                                             # NFTA_RULE_EXPRESSIONS, nested
               2400 0180 0900 0100 6d65746100 000000               # meta
                 1400 0280 0800 0100 00000008 0800 0200 0000000f   #   DREG 8, KEY NFPROTO
               2c00 0180 0800 0100 636d7000                        # cmp
                 2000 0280 0800 0100 00000008 0800 0200 00000000   #   SREG 8, OP EQ
                   0c00 0380 0500 0100 02 000000                   #   DATA NFPROTO_IPV4
               3400 0180 0c00 0100 7061796c6f616400                # payload
                 2400 0280 0800 0100 00000008 0800 0200 00000001   #   DREG 8, BASE network header
                   0800 0300 00000010 0800 0400 00000004           #   OFFSET 16 (destination), LEN 4
               4400 0180 0c00 0100 6269747769736500                # bitwise
                 3400 0280 0800 0100 00000008 0800 0200 00000008   #   SREG 8, DREG 8
                   0800 0300 00000004                              #   LEN 4
                   0c00 0480 0800 0100 ff000000                    #   MASK 255.0.0.0
                   0c00 0580 0800 0100 00000000                    #   XOR 0
               2c00 0180 0800 0100 636d7000                        # cmp
                 2000 0280 0800 0100 00000008 0800 0200 00000000   #   SREG 8, OP EQ
                   0c00 0380 0800 0100 7f000000                    #   DATA 127.0.0.0
               2400 0180 0900 0100 6d65746100 000000               # meta
                 1400 0280 0800 0100 00000008 0800 0200 00000015   #   DREG 8, KEY IIFGROUP
               4400 0180 0c00 0100 6269747769736500                # bitwise
                 3400 0280 0800 0100 00000008 0800 0200 00000008   #   SREG 8, DREG 8
                   0800 0300 00000004                              #   LEN 4
                   0c00 0480 0800 0100 00ffffff                    #   MASK, in the host's order
                   0c00 0580 0800 0100 00000000                    #   XOR 0
               2c00 0180 0800 0100 636d7000                        # cmp
                 2000 0280 0800 0100 00000008 0800 0200 00000000   #   SREG 8, OP EQ
                   0c00 0380 0800 0100 0078696e                    #   DATA 'nix' group, in the host's order
               3000 0180 0e00 0100 696d6d65646961746500 0000       # immediate
                 1c00 0280 0800 0100 00000000                      #   DREG verdict
                   1000 0280 0c00 0280 0800 0100 00000000          #   DATA { VERDICT { CODE drop } }",
        );
        assert_eq!(encoded, expected);
    }

    #[test]
    fn many_elements_make_many_messages() {
        let elements: Vec<Element> = (1..=600)
            .map(|host_port| Element::Forward {
                protocol: Protocol::Udp,
                host_address: None,
                host_port,
                to: "10.0.0.2:1".parse().unwrap(),
            })
            .collect();
        let elements: Vec<&Element> = elements.iter().collect();
        let sizes: Vec<usize> = by_set(&elements).iter().map(|(_, chunk)| chunk.len()).collect();
        assert_eq!(sizes, [256, 256, 88]);
    }
}
