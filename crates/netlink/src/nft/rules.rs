//! The chains and rules of our table: what they are, and what of them the kernel has.
//!
//! A chain at a hook sees every packet that passes there. Raw ones come first, before connection tracking, where a
//! packet that is dropped costs least. All packets of the host pass them, so they look at what tells most packets apart
//! once, and leave the rest to chains that only the few see that it concerns.

use ipnet::{Ipv4Net, Ipv6Net};
use routelet_model::{Family, NftRules, NftSet, PerFamily, PrefixLens};

use crate::Error;
use crate::attributes::Attributes;
use crate::nft::compare::tells_all;
use crate::nft::expressions::{Expressions, Op, Side, Verdict};
use crate::nft::message::{HEADER, Kind, Message, Writer};
use crate::nft::set::Set;
use crate::nft::tunnels;

const NFTA_CHAIN_NAME: u16 = 3;
const NFTA_CHAIN_HOOK: u16 = 4;
const NFTA_CHAIN_POLICY: u16 = 5;
const NFTA_CHAIN_TYPE: u16 = 7;
const NFTA_CHAIN_FLAGS: u16 = 10;
const NFTA_HOOK_HOOKNUM: u16 = 1;
const NFTA_HOOK_PRIORITY: u16 = 2;

const NFTA_RULE_CHAIN: u16 = 2;
const NFTA_RULE_EXPRESSIONS: u16 = 4;
const NFTA_RULE_USERDATA: u16 = 7;
/// The type of user data that nft shows as a comment.
const COMMENT: u8 = 0;

/// `NF_IP_PRI_RAW` and `NF_IP_PRI_NAT_SRC` of linux/netfilter_ipv4.h.
const RAW: i32 = -300;
const SOURCE_NAT: i32 = 100;

const FROM_PODS: &str = "from_pods";
pub(super) const PREROUTING: &str = "prerouting";
pub(super) const OUTPUT: &str = "output";
const POSTROUTING: &str = "postrouting";
const MASQUERADE: &str = "masquerade";

/// A chain.
#[derive(Debug, Clone, Copy)]
struct Chain {
    name: &'static str,
    /// Type, hook (`NF_INET_…`) and priority; `None` where only rules lead to it.
    hook: Option<(&'static str, i32, i32)>,
}

/// A rule.
#[derive(Debug)]
struct Rule {
    chain: &'static str,
    comment: String,
    expressions: Expressions,
}

/// The ports that masqueraded packets of TCP and UDP leave from: the larger part of all that lies on one side of the
/// VXLAN port. Answers to that one would be taken for tunnel packets.
fn masquerade_ports(vxlan: u16) -> (u16, u16) {
    const UNPRIVILEGED: u16 = 1024;
    let below = vxlan.saturating_sub(UNPRIVILEGED);
    let above = u16::MAX - vxlan;
    if above >= below {
        (vxlan.saturating_add(1).max(UNPRIVILEGED), u16::MAX)
    } else {
        (UNPRIVILEGED, vxlan - 1)
    }
}

fn chains(rules: &NftRules) -> Vec<Chain> {
    let filter = |name, hook| Chain {
        name,
        hook: Some(("filter", hook, RAW)),
    };
    let plain = |name| Chain { name, hook: None };
    let mut chains = vec![plain(FROM_PODS), filter(PREROUTING, libc::NF_INET_PRE_ROUTING)];
    if rules.vxlan || rules.ipip {
        chains.extend(tunnels::CHAINS.map(plain));
        chains.push(filter(OUTPUT, libc::NF_INET_LOCAL_OUT));
    }
    if rules.masquerade {
        chains.push(plain(MASQUERADE));
        chains.push(Chain {
            name: POSTROUTING,
            hook: Some(("nat", libc::NF_INET_POST_ROUTING, SOURCE_NAT)),
        });
    }
    chains
}

/// The rules less what the sets tell of them already.
fn settings(rules: &NftRules) -> NftRules {
    NftRules {
        pod_prefix_lens: PerFamily::default(),
        ..*rules
    }
}

/// All rules, in order. The comment of the first one tells what all of them are to do, so that a later agent knows.
fn rules(rules: &NftRules) -> Vec<Rule> {
    let mut all = vec![Rule {
        chain: PREROUTING,
        comment: settings(rules).to_string(),
        expressions: Expressions::default()
            .incoming(rules.interface_prefix.as_str())
            .verdict(Verdict::Jump(FROM_PODS)),
    }];
    let mut add = |chain, comment: &str, expressions| {
        all.push(Rule {
            chain,
            comment: comment.to_owned(),
            expressions,
        });
    };
    let of = |family| Expressions::default().family(family);
    add(
        FROM_PODS,
        "a pod reaches no loopback but its own",
        of(Family::V4)
            .address(Op::Is, Side::Destination, LOOPBACK.into())
            .verdict(Verdict::Drop),
    );
    let own_only = "a pod sends from its own addresses only";
    add(
        FROM_PODS,
        own_only,
        of(Family::V4).spoofed().verdict(Verdict::Drop),
    );
    add(
        FROM_PODS,
        own_only,
        of(Family::V6)
            .address(Op::IsNot, Side::Source, LINK_LOCAL.into())
            .spoofed()
            .verdict(Verdict::Drop),
    );
    tunnels::rules(rules, &mut add);
    if rules.masquerade {
        for family in Family::ALL {
            let own_pods = Set::plain(NftSet::OwnPods, family);
            let mut leaving = of(family).in_set(Op::Is, Side::Source, own_pods);
            let of_pods = Set::all_of_pods(rules.pod_prefix_lens).filter(|set| set.family == family);
            let others = [NftSet::Nodes, NftSet::Except].map(|of| Set::plain(of, family));
            for set in of_pods.chain(others) {
                leaving = leaving.in_set(Op::IsNot, Side::Destination, set);
            }
            add(
                POSTROUTING,
                "from a pod to outside of the cluster",
                leaving.verdict(Verdict::Jump(MASQUERADE)),
            );
        }
        let ports = masquerade_ports(rules.port);
        for protocol in [libc::IPPROTO_TCP, libc::IPPROTO_UDP] {
            add(
                MASQUERADE,
                "not from the VXLAN port",
                Expressions::default().protocol(protocol).masquerade(Some(ports)),
            );
        }
        add(
            MASQUERADE,
            "without ports",
            Expressions::default().masquerade(None),
        );
    }
    all
}

/// 127.0.0.0/8: the kernel keeps it from pods, but not where route_localnet is on, as kube-proxy sets it.
const LOOPBACK: Ipv4Net = Ipv4Net::new_assert(std::net::Ipv4Addr::new(127, 0, 0, 0), 8);
/// fe80::/10: what has it goes no farther than the host.
const LINK_LOCAL: Ipv6Net = Ipv6Net::new_assert(std::net::Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10);

fn comment(text: &str) -> Vec<u8> {
    let mut data = vec![COMMENT, (text.len() + 1) as u8];
    data.extend(text.as_bytes());
    data.push(0);
    data
}

fn read_comment(data: &[u8]) -> Option<&str> {
    let [COMMENT, _, text @ .., 0] = data else {
        return None;
    };
    std::str::from_utf8(text).ok()
}

/// Understands what the [`settings`] display as.
fn parse(text: &str) -> Option<NftRules> {
    let words: Vec<&str> = text.split(' ').collect();
    let [
        "interface-prefix",
        prefix,
        "vni",
        vni,
        "port",
        port,
        "masquerade",
        masquerade,
        "vxlan",
        vxlan,
        "ipip",
        ipip,
    ] = words[..]
    else {
        return None;
    };
    Some(NftRules {
        interface_prefix: prefix.parse().ok()?,
        vnis: parse_vnis(vni)?,
        port: port.parse().ok()?,
        masquerade: masquerade.parse().ok()?,
        vxlan: vxlan.parse().ok()?,
        ipip: ipip.parse().ok()?,
        pod_prefix_lens: PerFamily::default(),
    })
}

fn parse_vnis(text: &str) -> Option<PerFamily<u32>> {
    let (v4, v6) = text.split_once(',').unwrap_or((text, text));
    Some(PerFamily {
        v4: v4.parse().ok()?,
        v6: v6.parse().ok()?,
    })
}

impl Chain {
    /// The attributes after the table's name.
    fn write(&self, message: &mut Writer) {
        message.text(NFTA_CHAIN_NAME, self.name);
        if let Some((kind, hook, priority)) = self.hook {
            message.nested(NFTA_CHAIN_HOOK, |data| {
                data.u32(NFTA_HOOK_HOOKNUM, hook as u32);
                data.u32(NFTA_HOOK_PRIORITY, priority as u32);
            });
            message.u32(NFTA_CHAIN_POLICY, libc::NF_ACCEPT as u32);
            message.text(NFTA_CHAIN_TYPE, kind);
        }
    }
}

impl Rule {
    fn message(self, table: &str) -> Message {
        Message::new(Kind::NewRule, table, |message| {
            message.text(NFTA_RULE_CHAIN, self.chain);
            message.nested(NFTA_RULE_EXPRESSIONS, |list| {
                list.0.extend(self.expressions.into_bytes());
            });
            message.bytes(NFTA_RULE_USERDATA, &comment(&self.comment));
        })
    }
}

/// A chain as the kernel has it, with its rules in order.
#[derive(Debug, Default)]
pub(crate) struct SeenChain {
    name: String,
    /// All of its attributes.
    attributes: Vec<u8>,
    has_hook: bool,
    flags: u32,
    rules: Vec<SeenRule>,
}

/// A rule as the kernel has it.
#[derive(Debug, Default)]
pub(crate) struct SeenRule {
    chain: String,
    expressions: Vec<u8>,
    userdata: Vec<u8>,
}

/// The request for all chains of the family, which a kernel does not filter by table.
pub(crate) fn get_chains(table: &str) -> Message {
    Message::new(Kind::GetChain, table, |_| {})
}

/// The request for the rules of the table.
pub(crate) fn get_rules(table: &str) -> Message {
    Message::new(Kind::GetRule, table, |_| {})
}

impl SeenChain {
    /// Reads a message of the answer to [`get_chains`].
    pub(crate) fn read(payload: &[u8]) -> Result<Self, Error> {
        let mut seen = Self {
            attributes: payload.get(HEADER..).unwrap_or_default().to_vec(),
            ..Self::default()
        };
        for attribute in Attributes::after(payload, HEADER)? {
            let attribute = attribute?;
            match attribute.kind {
                NFTA_CHAIN_NAME => seen.name = attribute.text().to_owned(),
                NFTA_CHAIN_HOOK => seen.has_hook = true,
                NFTA_CHAIN_FLAGS => seen.flags = attribute.u32_be()?,
                _ => {}
            }
        }
        Ok(seen)
    }

    /// Whether it is as the chain should be, its rules aside.
    fn is(&self, wanted: &Chain) -> bool {
        /// `NFT_CHAIN_BASE`: has a hook. Any other flag says that it is none of ours.
        const BASE: u32 = 1;
        let mut written = Writer::default();
        wanted.write(&mut written);
        self.name == wanted.name
            && self.has_hook == wanted.hook.is_some()
            && self.flags & !BASE == 0
            && tells_all(&written.0, &self.attributes)
    }
}

impl SeenRule {
    /// Reads a message of the answer to [`get_rules`].
    pub(crate) fn read(payload: &[u8]) -> Result<Self, Error> {
        let mut seen = Self::default();
        for attribute in Attributes::after(payload, HEADER)? {
            let attribute = attribute?;
            match attribute.kind {
                NFTA_RULE_CHAIN => seen.chain = attribute.text().to_owned(),
                NFTA_RULE_EXPRESSIONS => seen.expressions = attribute.value.to_vec(),
                NFTA_RULE_USERDATA => seen.userdata = attribute.value.to_vec(),
                _ => {}
            }
        }
        Ok(seen)
    }
}

/// Gives the rules to their chains.
pub(crate) fn join(mut chains: Vec<SeenChain>, rules: Vec<SeenRule>) -> Vec<SeenChain> {
    for rule in rules {
        if let Some(chain) = chains.iter_mut().find(|chain| chain.name == rule.chain) {
            chain.rules.push(rule);
        }
    }
    chains
}

/// What the chains do, if they are just what we would make beside sets of pod subnets of these lengths.
pub(crate) fn recognise(seen: &[SeenChain], pod_prefix_lens: PerFamily<PrefixLens>) -> Option<NftRules> {
    let first = seen
        .iter()
        .find(|chain| chain.name == PREROUTING)?
        .rules
        .first()?;
    let wanted = NftRules {
        pod_prefix_lens,
        ..parse(read_comment(&first.userdata)?)?
    };
    let chains = chains(&wanted);
    let all_are_right =
        seen.len() == chains.len() && seen.iter().all(|seen| chains.iter().any(|chain| seen.is(chain)));
    let mut rules = rules(&wanted);
    let rules_are_right = seen.iter().all(|chain| {
        let wanted: Vec<Rule> = rules.extract_if(.., |rule| rule.chain == chain.name).collect();
        wanted.len() == chain.rules.len()
            && wanted.into_iter().zip(&chain.rules).all(|(wanted, seen)| {
                comment(&wanted.comment) == seen.userdata
                    && tells_all(&wanted.expressions.into_bytes(), &seen.expressions)
            })
    });
    (all_are_right && rules_are_right).then_some(wanted)
}

/// The messages that take away what is there.
pub(crate) fn clear(table: &str, seen: &[SeenChain], but: Option<&NftRules>) -> Vec<Message> {
    let stay = but.map(chains).unwrap_or_default();
    let gone = seen
        .iter()
        .filter(|seen| !stay.iter().any(|chain| seen.is(chain)))
        .map(|seen| {
            Message::new(Kind::DelChain, table, |message| {
                message.text(NFTA_CHAIN_NAME, &seen.name);
            })
        });
    let rules = (!seen.is_empty()).then(|| Message::new(Kind::DelRule, table, |_| {}));
    rules.into_iter().chain(gone).collect()
}

/// The messages that make the chains and sets that are not there, and all rules.
pub(crate) fn create(table: &str, seen: &[SeenChain], wanted: &NftRules) -> Vec<Message> {
    let missing = chains(wanted)
        .into_iter()
        .filter(|chain| !seen.iter().any(|seen| seen.is(chain)))
        .map(|chain| Message::new(Kind::NewChain, table, |message| chain.write(message)));
    let sets = (1u32..).zip(Set::all_of_pods(wanted.pod_prefix_lens));
    let sets = sets.map(|(id, set)| set.create(table, id));
    let rules = rules(wanted).into_iter().map(|rule| rule.message(table));
    missing.chain(sets).chain(rules).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_rules_display_is_understood() {
        for (v4, v6) in [(4096, 4096), (4096, 4097), (0xff_ffff, 0xff_fffe)] {
            let rules = NftRules {
                interface_prefix: "cali".parse().unwrap(),
                vnis: PerFamily { v4, v6 },
                port: 4789,
                masquerade: true,
                vxlan: true,
                ipip: false,
                pod_prefix_lens: PerFamily::default(),
            };
            assert_eq!(parse(&rules.to_string()), Some(rules));
        }
        assert_eq!(parse("by hand"), None);
        assert_eq!(read_comment(&comment("by hand")), Some("by hand"));
    }

    #[test]
    fn no_packet_is_masqueraded_to_the_vxlan_port() {
        for (vxlan, ports) in [
            (4789, (4790, 65535)),
            (1, (1024, 65535)),
            (1024, (1025, 65535)),
            (33279, (33280, 65535)),
            (33280, (1024, 33279)),
            (65535, (1024, 65534)),
        ] {
            assert_eq!(masquerade_ports(vxlan), ports);
        }
    }
}
