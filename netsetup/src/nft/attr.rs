//! A writer of nested netlink attributes, and the message header of nfnetlink.

use netlink_packet_core::NLA_F_NESTED;

use crate::socket::Body;

/// `NFPROTO_INET`: IPv4 and IPv6 together.
const NFPROTO_INET: u8 = 1;

/// The body of one nfnetlink message: `struct nfgenmsg`, then attributes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Attributes(Vec<u8>);

impl Body for Attributes {
    fn append(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&self.0);
    }
}

impl Attributes {
    /// A message about the `inet` family.
    pub(super) fn inet() -> Attributes {
        Attributes::new(NFPROTO_INET, 0)
    }

    /// `struct nfgenmsg { family, version = 0, res_id (big-endian) }`.
    pub(super) fn new(family: u8, resource: u16) -> Attributes {
        let [high, low] = resource.to_be_bytes();
        Attributes(vec![family, 0, high, low])
    }

    /// Attributes without a header, to be nested by hand.
    pub(super) fn bare() -> Attributes {
        Attributes(Vec::new())
    }

    /// Bytes as they are, padded to four.
    pub(super) fn bytes(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        self.0.extend_from_slice(&(4 + value.len() as u16).to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.pad()
    }

    /// A string with its terminating zero.
    pub(super) fn string(&mut self, kind: u16, value: &str) -> &mut Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.bytes(kind, &bytes)
    }

    /// A big-endian integer of 32 bits.
    pub(super) fn u32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    /// Attributes inside an attribute.
    pub(super) fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Attributes)) -> &mut Self {
        let start = self.0.len();
        self.bytes(kind | NLA_F_NESTED, &[]);
        fill(self);
        let length = (self.0.len() - start) as u16;
        self.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self
    }

    /// What was written so far.
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    fn pad(&mut self) -> &mut Self {
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }
}
