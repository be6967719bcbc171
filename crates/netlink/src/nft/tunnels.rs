//! The rules about the tunnel's outer packets: only nodes send them, and they are not tracked.
//!
//! What is no tunnel packet is told by one match at each hook. Of those that are, all but a stranger's are nodes', which one
//! look into a set tells.

use routelet_model::{Family, NftRules, NftSet, PerFamily};

use crate::nft::expressions::{Base, Expressions, Op, Side, Verdict};
use crate::nft::rules::{OUTPUT, PREROUTING};
use crate::nft::set::Set;

const GUARD: &str = "guard";
const IN: &str = "tunnel_in";
const OUT: &str = "tunnel_out";
/// The chains that only rules lead to.
pub(super) const CHAINS: [&str; 3] = [GUARD, IN, OUT];

/// Where the VXLAN network identifier stands: after the headers of UDP and four bytes of flags.
const VNI_OFFSET: u32 = 8 + 4;

/// Adds them: chain, comment and what the rule consists of.
pub(super) fn rules(rules: &NftRules, add: &mut dyn FnMut(&'static str, &str, Expressions)) {
    let vxlan = || Expressions::default().protocol(libc::IPPROTO_UDP);
    let ipip = || Expressions::default().protocol(libc::IPPROTO_IPIP);
    for (chain, next) in [(PREROUTING, IN), (OUTPUT, OUT)] {
        if rules.vxlan {
            let packets = vxlan().port(rules.port);
            add(chain, "VXLAN", packets.verdict(Verdict::Jump(next)));
        }
        if rules.ipip {
            add(chain, "IPIP", ipip().verdict(Verdict::Jump(next)));
        }
    }
    for (chain, side) in [(IN, Side::Source), (OUT, Side::Destination)] {
        // IPIP has no IPv6.
        for family in Family::ALL
            .into_iter()
            .filter(|f| rules.vxlan || rules.ipip && *f == Family::V4)
        {
            let nodes = Set::plain(NftSet::Nodes, family);
            let nodes = Expressions::default().family(family).in_set(Op::Is, side, nodes);
            add(
                chain,
                "the tunnel's own packets are not tracked",
                nodes.no_track().verdict(Verdict::Return),
            );
        }
    }
    let only_nodes = "only nodes send into the tunnel";
    if rules.vxlan {
        add(
            IN,
            only_nodes,
            vxlan().delivered_here().verdict(Verdict::Jump(GUARD)),
        );
        // What is too short to say whose it is, as the first piece of a packet may be, is dropped.
        let mut others = Expressions::default();
        for vni in vnis(rules) {
            let [_, vni @ ..] = vni.to_be_bytes();
            others = others.bytes(Op::IsNot, Base::Transport, VNI_OFFSET, &vni);
        }
        add(GUARD, "another VXLAN's", others.verdict(Verdict::Return));
        add(GUARD, "no node's", Expressions::default().verdict(Verdict::Drop));
    }
    if rules.ipip {
        add(IN, only_nodes, ipip().delivered_here().verdict(Verdict::Drop));
    }
}

/// Each of the VNIs once.
fn vnis(rules: &NftRules) -> impl Iterator<Item = u32> {
    let PerFamily { v4, v6 } = rules.vnis;
    std::iter::once(v4).chain((v6 != v4).then_some(v6))
}
