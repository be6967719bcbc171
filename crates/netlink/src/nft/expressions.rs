//! What a rule is made of: expressions, which load something into a register, compare it, and act.
//!
//! Numbers are those of linux/netfilter/nf_tables.h. Each match that fails ends the rule.

use std::net::IpAddr;

use ipnet::IpNet;
use routelet_model::Family;

use crate::nft::message::Writer;
use crate::nft::set::Set;

const NFTA_LIST_ELEM: u16 = 1;
const NFTA_EXPR_NAME: u16 = 1;
const NFTA_EXPR_DATA: u16 = 2;
const NFTA_DATA_VALUE: u16 = 1;
const NFTA_DATA_VERDICT: u16 = 2;

/// The registers in use, of 16 bytes each.
const REGISTER: u32 = 1;
const REGISTER_2: u32 = 2;
const VERDICT_REGISTER: u32 = 0;

/// Where in a packet to read.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Base {
    /// From the network header on.
    Network = 1,
    /// From the transport header on.
    Transport = 2,
}

/// Which address of a packet.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Side {
    Source,
    Destination,
}

/// Whether a match is to hold or not to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Op {
    Is = 0,
    IsNot = 1,
}

/// What becomes of a packet for which all of a rule holds.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Verdict {
    Drop,
    /// Back to the chain that jumped.
    Return,
    /// On with another chain, and back.
    Jump(&'static str),
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// The expressions of a rule, in the making.
#[derive(Debug, Default)]
pub(crate) struct Expressions(Writer);

impl Expressions {
    /// The bytes, as they stand in NFTA_RULE_EXPRESSIONS.
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.0.0
    }

    /// Came in by a link whose name begins so.
    pub(crate) fn incoming(self, prefix: &str) -> Self {
        const NFT_META_IIFNAME: u32 = 6;
        self.meta(NFT_META_IIFNAME).compare(Op::Is, prefix.as_bytes())
    }

    /// Is of this family.
    pub(crate) fn family(self, family: Family) -> Self {
        const NFT_META_NFPROTO: u32 = 15;
        let number = match family {
            Family::V4 => libc::NFPROTO_IPV4,
            Family::V6 => libc::NFPROTO_IPV6,
        };
        self.meta(NFT_META_NFPROTO).compare(Op::Is, &[number as u8])
    }

    /// Carries this protocol (IPPROTO_…).
    pub(crate) fn protocol(self, protocol: i32) -> Self {
        const NFT_META_L4PROTO: u32 = 16;
        self.meta(NFT_META_L4PROTO).compare(Op::Is, &[protocol as u8])
    }

    /// Goes to this port.
    pub(crate) fn port(self, port: u16) -> Self {
        self.payload(Base::Transport, 2, 2)
            .compare(Op::Is, &port.to_be_bytes())
    }

    /// Has these bytes there.
    pub(crate) fn bytes(self, op: Op, base: Base, offset: u32, bytes: &[u8]) -> Self {
        self.payload(base, offset, bytes.len() as u32).compare(op, bytes)
    }

    /// Has an address of the network.
    pub(crate) fn address(self, op: Op, side: Side, net: IpNet) -> Self {
        self.load_address(side, Family::of_net(net))
            .mask(&octets(net.netmask()))
            .compare(op, &octets(net.network()))
    }

    /// Has an address that is in the set.
    pub(crate) fn in_set(self, op: Op, side: Side, set: Set) -> Self {
        const NFTA_LOOKUP_SET: u16 = 1;
        const NFTA_LOOKUP_SREG: u16 = 2;
        const NFTA_LOOKUP_FLAGS: u16 = 5;
        let mut loaded = self.load_address(side, set.family);
        if let Some(prefix) = set.first_prefix() {
            loaded = loaded.mask(&octets(prefix.netmask()));
        }
        loaded.add("lookup", |data| {
            data.text(NFTA_LOOKUP_SET, &set.name());
            data.u32(NFTA_LOOKUP_SREG, REGISTER);
            data.u32(NFTA_LOOKUP_FLAGS, op as u32);
        })
    }

    /// Is from an address to which no route leads through the link that it came in by.
    pub(crate) fn spoofed(self) -> Self {
        const NFT_FIB_RESULT_OIF: u32 = 1;
        const NFTA_FIB_F_SADDR: u32 = 1;
        const NFTA_FIB_F_IIF: u32 = 8;
        const NFTA_FIB_F_PRESENT: u32 = 32;
        self.fib(
            NFT_FIB_RESULT_OIF,
            NFTA_FIB_F_SADDR | NFTA_FIB_F_IIF | NFTA_FIB_F_PRESENT,
        )
        .compare(Op::Is, &[0])
    }

    /// Is delivered to this host, be it by unicast, broadcast or multicast.
    pub(crate) fn delivered_here(self) -> Self {
        const NFT_FIB_RESULT_ADDRTYPE: u32 = 3;
        const NFTA_FIB_F_DADDR: u32 = 2;
        // What is sent on is unicast. The number is in the machine's byte order.
        let unicast = u32::from(libc::RTN_UNICAST);
        self.fib(NFT_FIB_RESULT_ADDRTYPE, NFTA_FIB_F_DADDR)
            .compare(Op::IsNot, &unicast.to_ne_bytes())
    }

    /// Keep out of connection tracking.
    pub(crate) fn no_track(mut self) -> Self {
        // It takes no data, and tells none.
        self.0.nested(NFTA_LIST_ELEM, |expression| {
            expression.text(NFTA_EXPR_NAME, "notrack")
        });
        self
    }

    /// Give it the address of the link that it leaves by, and a port that no one can guess; one of `ports`, where
    /// given, first and last.
    pub(crate) fn masquerade(self, ports: Option<(u16, u16)>) -> Self {
        const NFTA_MASQ_FLAGS: u16 = 1;
        const NFTA_MASQ_REG_PROTO_MIN: u16 = 2;
        const NFTA_MASQ_REG_PROTO_MAX: u16 = 3;
        const NF_NAT_RANGE_PROTO_SPECIFIED: u32 = 1 << 1;
        const NF_NAT_RANGE_PROTO_RANDOM_FULLY: u32 = 1 << 4;
        let Some((first, last)) = ports else {
            return self.add("masq", |data| {
                data.u32(NFTA_MASQ_FLAGS, NF_NAT_RANGE_PROTO_RANDOM_FULLY);
            });
        };
        self.immediate(REGISTER, first)
            .immediate(REGISTER_2, last)
            .add("masq", |data| {
                let flags = NF_NAT_RANGE_PROTO_SPECIFIED | NF_NAT_RANGE_PROTO_RANDOM_FULLY;
                data.u32(NFTA_MASQ_FLAGS, flags);
                data.u32(NFTA_MASQ_REG_PROTO_MIN, REGISTER);
                data.u32(NFTA_MASQ_REG_PROTO_MAX, REGISTER_2);
            })
    }

    /// Ends the rule.
    pub(crate) fn verdict(self, verdict: Verdict) -> Self {
        const NFTA_VERDICT_CODE: u16 = 1;
        const NFTA_VERDICT_CHAIN: u16 = 2;
        let (code, chain) = match verdict {
            Verdict::Drop => (libc::NF_DROP, None),
            Verdict::Return => (libc::NFT_RETURN, None),
            Verdict::Jump(chain) => (libc::NFT_JUMP, Some(chain)),
        };
        self.add("immediate", |data| {
            data.u32(NFTA_IMMEDIATE_DREG, VERDICT_REGISTER);
            data.nested(NFTA_IMMEDIATE_DATA, |data| {
                data.nested(NFTA_DATA_VERDICT, |verdict| {
                    verdict.u32(NFTA_VERDICT_CODE, code as u32);
                    if let Some(chain) = chain {
                        verdict.text(NFTA_VERDICT_CHAIN, chain);
                    }
                });
            });
        })
    }

    fn add(mut self, name: &str, write: impl FnOnce(&mut Writer)) -> Self {
        self.0.nested(NFTA_LIST_ELEM, |expression| {
            expression.text(NFTA_EXPR_NAME, name);
            expression.nested(NFTA_EXPR_DATA, write);
        });
        self
    }

    fn meta(self, key: u32) -> Self {
        const NFTA_META_DREG: u16 = 1;
        const NFTA_META_KEY: u16 = 2;
        self.add("meta", |data| {
            data.u32(NFTA_META_DREG, REGISTER);
            data.u32(NFTA_META_KEY, key);
        })
    }

    fn load_address(self, side: Side, family: Family) -> Self {
        let (offset, length) = match (family, side) {
            (Family::V4, Side::Source) => (12, 4),
            (Family::V4, Side::Destination) => (16, 4),
            (Family::V6, Side::Source) => (8, 16),
            (Family::V6, Side::Destination) => (24, 16),
        };
        self.payload(Base::Network, offset, length)
    }

    fn payload(self, base: Base, offset: u32, length: u32) -> Self {
        const NFTA_PAYLOAD_DREG: u16 = 1;
        const NFTA_PAYLOAD_BASE: u16 = 2;
        const NFTA_PAYLOAD_OFFSET: u16 = 3;
        const NFTA_PAYLOAD_LEN: u16 = 4;
        self.add("payload", |data| {
            data.u32(NFTA_PAYLOAD_DREG, REGISTER);
            data.u32(NFTA_PAYLOAD_BASE, base as u32);
            data.u32(NFTA_PAYLOAD_OFFSET, offset);
            data.u32(NFTA_PAYLOAD_LEN, length);
        })
    }

    fn mask(self, mask: &[u8]) -> Self {
        const NFTA_BITWISE_SREG: u16 = 1;
        const NFTA_BITWISE_DREG: u16 = 2;
        const NFTA_BITWISE_LEN: u16 = 3;
        const NFTA_BITWISE_MASK: u16 = 4;
        const NFTA_BITWISE_XOR: u16 = 5;
        self.add("bitwise", |data| {
            data.u32(NFTA_BITWISE_SREG, REGISTER);
            data.u32(NFTA_BITWISE_DREG, REGISTER);
            data.u32(NFTA_BITWISE_LEN, mask.len() as u32);
            data.nested(NFTA_BITWISE_MASK, |value| value.bytes(NFTA_DATA_VALUE, mask));
            data.nested(NFTA_BITWISE_XOR, |value| {
                value.bytes(NFTA_DATA_VALUE, &vec![0; mask.len()]);
            });
        })
    }

    fn compare(self, op: Op, value: &[u8]) -> Self {
        const NFTA_CMP_SREG: u16 = 1;
        const NFTA_CMP_OP: u16 = 2;
        const NFTA_CMP_DATA: u16 = 3;
        self.add("cmp", |data| {
            data.u32(NFTA_CMP_SREG, REGISTER);
            data.u32(NFTA_CMP_OP, op as u32);
            data.nested(NFTA_CMP_DATA, |data| data.bytes(NFTA_DATA_VALUE, value));
        })
    }

    fn fib(self, result: u32, flags: u32) -> Self {
        const NFTA_FIB_DREG: u16 = 1;
        const NFTA_FIB_RESULT: u16 = 2;
        const NFTA_FIB_FLAGS: u16 = 3;
        self.add("fib", |data| {
            data.u32(NFTA_FIB_DREG, REGISTER);
            data.u32(NFTA_FIB_RESULT, result);
            data.u32(NFTA_FIB_FLAGS, flags);
        })
    }

    fn immediate(self, register: u32, port: u16) -> Self {
        self.add("immediate", |data| {
            data.u32(NFTA_IMMEDIATE_DREG, register);
            data.nested(NFTA_IMMEDIATE_DATA, |data| {
                data.bytes(NFTA_DATA_VALUE, &port.to_be_bytes());
            });
        })
    }
}

const NFTA_IMMEDIATE_DREG: u16 = 1;
const NFTA_IMMEDIATE_DATA: u16 = 2;
