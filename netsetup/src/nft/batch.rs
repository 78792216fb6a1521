//! Transactions: nftables takes a batch of messages between a begin and an end, and commits it as a whole or not
//! at all.

use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE};
use nix::errno::Errno;

use super::attr::Attributes;
use super::element::{Element, encode_elements};
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
    let batch = transaction(|batch| {
        push_table(batch);
        owned.iter().for_each(|owned| push_elements(batch, *owned));
    });
    socket.transact(batch, |_| {})
}

/// Deletes the table, if it is there.
pub(crate) fn delete_table(socket: &mut Socket<Netfilter>) -> Result<()> {
    let batch = transaction(|batch| {
        batch.push(DELTABLE, 0, &table(), format!("delete the nftables table inet {TABLE}"));
    });
    absent_is_fine(socket.transact(batch, |_| {})).map(drop)
}

/// Removes a container's elements; those that are gone already are no error.
pub(crate) fn remove_elements(socket: &mut Socket<Netfilter>, elements: &[Element]) -> Result<()> {
    let all: Vec<&Element> = elements.iter().collect();
    // One missing element fails the whole transaction (DESTROYSETELEM came with Linux 6.3): then one by one.
    if absent_is_fine(remove(socket, &all))? {
        return Ok(());
    }
    all.iter().try_for_each(|element| absent_is_fine(remove(socket, &[element])).map(drop))
}

fn remove(socket: &mut Socket<Netfilter>, elements: &[&Element]) -> Result<()> {
    let batch = transaction(|batch| {
        for (set, elements) in by_set(elements) {
            let doing = format!("remove {} from nftables", list(&elements));
            batch.push(DELSETELEM, 0, &encode_elements(set, &elements, None), doing);
        }
    });
    socket.transact(batch, |_| {})
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

fn push_table(batch: &mut Batch) {
    // Deleting needs a table, so add it first: this order works whether it is there or not.
    batch.push(NEWTABLE, NLM_F_CREATE, &table(), "prepare the nftables table");
    batch.push(DELTABLE, 0, &table(), "clear the nftables table");
    batch.push(NEWTABLE, NLM_F_CREATE, &table(), format!("create the nftables table inet {TABLE}"));
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
            let mut body = Attributes::inet();
            // NFTA_RULE_TABLE, _CHAIN, _EXPRESSIONS
            body.string(1, TABLE).string(2, chain.name);
            body.bytes(4 | netlink_packet_core::NLA_F_NESTED, rule.as_bytes());
            let doing = format!("create rule {} of the nftables chain {}", i + 1, chain.name);
            batch.push(NEWRULE, NLM_F_CREATE | NLM_F_APPEND, &body, doing);
        }
    }
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
