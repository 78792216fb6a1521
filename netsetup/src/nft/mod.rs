//! nftables by raw netlink: the small part of the language that the table `inet nixrun` is written in.
//!
//! Source of numbers and layouts: `linux/netfilter/nf_tables.h` and `linux/netfilter/nfnetlink.h` (Linux 6.18).
//! Integers in attributes are big-endian throughout; what is compared with a register has the register's order,
//! which is the host's for `meta`, `fib` and `ct`, and the network's for packet contents.

mod attr;
mod batch;
mod element;
mod expr;
mod foreign;
mod table;

pub use element::Element;
pub use foreign::foreign_forward_drops;
pub use table::TABLE;

pub(crate) use batch::{
    Owned, add_elements, delete_table, encode_add, remove_elements, replace_elements, replace_table,
    table_exists,
};
pub(crate) use table::LAYOUT;
