//! Expressions of rules. A rule is a list of them; the first that does not match ends it.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::attr::Attributes;

const NFTA_LIST_ELEM: u16 = 1;
const NFTA_EXPR_NAME: u16 = 1;
const NFTA_EXPR_DATA: u16 = 2;
const NFTA_DATA_VALUE: u16 = 1;
const NFTA_DATA_VERDICT: u16 = 2;

/// A register of four bytes, counted from `NFT_REG32_00`. A value of 16 bytes takes four of them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reg(pub(super) u32);

impl Reg {
    /// `NFT_REG32_00` is 8.
    fn number(self) -> u32 {
        8 + self.0
    }
}

/// `NFT_META_*`.
#[derive(Debug, Clone, Copy)]
pub(super) enum Meta {
    /// Name of the link the packet came in by.
    IifName = 6,
    /// Name of the link it leaves by.
    OifName = 7,
    /// IPv4 or IPv6.
    NfProto = 15,
    /// Transport protocol.
    L4Proto = 16,
    /// Group of the link it came in by.
    IifGroup = 21,
    /// Group of the link it leaves by.
    OifGroup = 22,
}

/// `NFPROTO_IPV4`, `NFPROTO_IPV6`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ip {
    V4 = 2,
    V6 = 10,
}

/// Where an address stands in the header.
#[derive(Debug, Clone, Copy)]
pub(super) enum Side {
    Source,
    Destination,
}

/// What becomes of a packet that matched.
#[derive(Debug, Clone, Copy)]
pub(super) enum Verdict {
    /// `NF_DROP`.
    Drop,
    /// Back to the chain that jumped here.
    Return,
    /// `NFT_JUMP`.
    Jump(&'static str),
}

/// A rule under construction.
#[derive(Debug)]
pub(super) struct Rule(Attributes);

impl Rule {
    pub(super) fn new() -> Rule {
        Rule(Attributes::bare())
    }

    /// The value of `NFTA_RULE_EXPRESSIONS`.
    pub(super) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    fn expr(mut self, name: &str, fill: impl FnOnce(&mut Attributes)) -> Rule {
        self.0.nest(NFTA_LIST_ELEM, |expr| {
            expr.string(NFTA_EXPR_NAME, name).nest(NFTA_EXPR_DATA, fill);
        });
        self
    }

    /// Loads a packet's property.
    pub(super) fn meta(self, key: Meta, to: Reg) -> Rule {
        // NFTA_META_DREG, NFTA_META_KEY
        self.expr("meta", |e| {
            e.u32(1, to.number()).u32(2, key as u32);
        })
    }

    /// Loads bytes of the packet: base 1 is the network header, 2 the transport header.
    fn payload(self, base: u32, offset: u32, length: u32, to: Reg) -> Rule {
        // NFTA_PAYLOAD_DREG, _BASE, _OFFSET, _LEN
        self.expr("payload", |e| {
            e.u32(1, to.number()).u32(2, base).u32(3, offset).u32(4, length);
        })
    }

    /// Loads an address.
    pub(super) fn address(self, ip: Ip, side: Side, to: Reg) -> Rule {
        let (offset, length) = match (ip, side) {
            (Ip::V4, Side::Source) => (12, 4),
            (Ip::V4, Side::Destination) => (16, 4),
            (Ip::V6, Side::Source) => (8, 16),
            (Ip::V6, Side::Destination) => (24, 16),
        };
        self.payload(1, offset, length, to)
    }

    /// Loads the destination port of TCP or UDP.
    pub(super) fn destination_port(self, to: Reg) -> Rule {
        self.payload(2, 2, 2, to)
    }

    fn cmp(self, of: Reg, equal: bool, value: &[u8]) -> Rule {
        // NFTA_CMP_SREG, NFTA_CMP_OP (NFT_CMP_EQ, NFT_CMP_NEQ), NFTA_CMP_DATA
        self.expr("cmp", |e| {
            e.u32(1, of.number()).u32(2, u32::from(!equal)).nest(3, |d| {
                d.bytes(NFTA_DATA_VALUE, value);
            });
        })
    }

    fn mask(self, reg: Reg, mask: &[u8]) -> Rule {
        let length = mask.len() as u32;
        let zero = vec![0; mask.len()];
        // NFTA_BITWISE_SREG, _DREG, _LEN, _MASK, _XOR
        self.expr("bitwise", |e| {
            e.u32(1, reg.number()).u32(2, reg.number()).u32(3, length);
            e.nest(4, |d| {
                d.bytes(NFTA_DATA_VALUE, mask);
            });
            e.nest(5, |d| {
                d.bytes(NFTA_DATA_VALUE, &zero);
            });
        })
    }

    /// Only IPv4, or only IPv6: what must stand before every look into an address in a table for both.
    pub(super) fn only(self, ip: Ip) -> Rule {
        self.meta(Meta::NfProto, Reg(0)).cmp(Reg(0), true, &[ip as u8])
    }

    /// Only packets whose address lies in an IPv4 network.
    pub(super) fn within4(self, side: Side, network: Ipv4Addr, prefix: u8) -> Rule {
        let mask = (u32::MAX << (32 - prefix)).to_be_bytes();
        self.only(Ip::V4).address(Ip::V4, side, Reg(0)).mask(Reg(0), &mask).cmp(
            Reg(0),
            true,
            &network.octets(),
        )
    }

    /// Only packets whose address lies in an IPv6 network.
    pub(super) fn within6(self, side: Side, network: Ipv6Addr, prefix: u8) -> Rule {
        let mask = (u128::MAX << (128 - prefix)).to_be_bytes();
        self.only(Ip::V6).address(Ip::V6, side, Reg(0)).mask(Reg(0), &mask).cmp(
            Reg(0),
            true,
            &network.octets(),
        )
    }

    /// Only packets whose link's group, under a mask, is (or is not) this one.
    pub(super) fn group(self, which: Meta, mask: u32, group: u32, equal: bool) -> Rule {
        let loaded = self.meta(which, Reg(0));
        let masked = if mask == u32::MAX { loaded } else { loaded.mask(Reg(0), &mask.to_ne_bytes()) };
        masked.cmp(Reg(0), equal, &group.to_ne_bytes())
    }

    /// Only packets to an address of the host itself.
    pub(super) fn for_host(self) -> Rule {
        const RTN_LOCAL: u32 = 2;
        // NFTA_FIB_DREG, NFTA_FIB_RESULT = NFT_FIB_RESULT_ADDRTYPE, NFTA_FIB_FLAGS = NFTA_FIB_F_DADDR
        self.expr("fib", |e| {
            e.u32(1, Reg(0).number()).u32(2, 3).u32(3, 2);
        })
        .cmp(Reg(0), true, &RTN_LOCAL.to_ne_bytes())
    }

    /// Only connections whose destination was translated.
    pub(super) fn translated(self) -> Rule {
        const IPS_DST_NAT: u32 = 1 << 5;
        // NFTA_CT_DREG, NFTA_CT_KEY = NFT_CT_STATUS
        self.expr("ct", |e| {
            e.u32(1, Reg(0).number()).u32(2, 2);
        })
        .mask(Reg(0), &IPS_DST_NAT.to_ne_bytes())
        .cmp(Reg(0), false, &0u32.to_ne_bytes())
    }

    /// Only packets whose key, loaded from `Reg(0)` on, is in a set.
    pub(super) fn in_set(self, set: &str) -> Rule {
        // NFTA_LOOKUP_SET, NFTA_LOOKUP_SREG
        self.expr("lookup", |e| {
            e.string(1, set).u32(2, Reg(0).number());
        })
    }

    /// Looks the key up in a map, and sends the packet to the address and port it holds.
    pub(super) fn dnat_by_map(self, ip: Ip, map: &str) -> Rule {
        // The port stands in the register behind the address.
        let port = Reg(if ip == Ip::V4 { 1 } else { 4 });
        // NFTA_LOOKUP_SET, _SREG, _DREG
        self.expr("lookup", |e| {
            e.string(1, map).u32(2, Reg(0).number()).u32(3, Reg(0).number());
        })
        // NFTA_NAT_TYPE = NFT_NAT_DNAT, _FAMILY, _REG_ADDR_MIN, _REG_PROTO_MIN
        .expr("nat", |e| {
            e.u32(1, 1).u32(2, ip as u32).u32(3, Reg(0).number()).u32(5, port.number());
        })
    }

    /// Gives the packet the address of the link it leaves by.
    pub(super) fn masquerade(self) -> Rule {
        self.expr("masq", |_| {})
    }

    /// Ends the rule.
    pub(super) fn verdict(self, verdict: Verdict) -> Rule {
        const NFT_JUMP: i32 = -3;
        const NFT_RETURN: i32 = -5;
        let code = match verdict {
            Verdict::Drop => 0,
            Verdict::Return => NFT_RETURN,
            Verdict::Jump(_) => NFT_JUMP,
        };
        // NFTA_IMMEDIATE_DREG = NFT_REG_VERDICT, NFTA_IMMEDIATE_DATA { NFTA_VERDICT_CODE, NFTA_VERDICT_CHAIN }
        self.expr("immediate", |e| {
            e.u32(1, 0).nest(2, |d| {
                d.nest(NFTA_DATA_VERDICT, |v| {
                    v.u32(1, code as u32);
                    if let Verdict::Jump(chain) = verdict {
                        v.string(2, chain);
                    }
                });
            });
        })
    }
}
