//! Firewalls of the host that drop by policy what is forwarded, and pods' packets with it: told of, and opened for this
//! node's pod subnets where the settings say so.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use routelet_model::{Family, Node};
use routelet_netlink::Error;
use routelet_netlink::forward::{DroppingChain, Forwarding};

use crate::story::Story;

/// How long after rules were written others' changes are let go by: whoever keeps removing them is not fought in a loop.
const REST: Duration = Duration::from_secs(1);
/// How long after a failure it is looked again.
const AGAIN: Duration = Duration::from_secs(5);

/// How a chain that drops stands to this node's pods.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Rules of ours let their packets through.
    Open,
    /// It is not ours to open.
    Closed,
    /// It could not be opened, and why.
    Refused(String),
}

/// What is known of the host's firewalls.
pub(crate) struct Firewall {
    forwarding: Forwarding,
    /// Whether chains are to be opened.
    open: bool,
    subnets: Vec<IpNet>,
    /// The chains that drop, as they were told.
    told: BTreeMap<DroppingChain, Standing>,
    look_at: Option<Instant>,
    rest_until: Option<Instant>,
    failing: bool,
}

impl Firewall {
    /// Opens the firewalls of the calling thread's network namespace.
    pub(crate) fn open(open: bool) -> Result<Self, Error> {
        Ok(Self {
            forwarding: Forwarding::open()?,
            open,
            subnets: Vec::new(),
            told: BTreeMap::new(),
            look_at: None,
            rest_until: None,
            failing: false,
        })
    }

    /// The chains that drop, as they were last seen.
    pub(crate) fn dropping_chains(&self) -> &BTreeMap<DroppingChain, Standing> {
        &self.told
    }

    /// Waits until someone has changed rules or chains.
    pub(crate) async fn ready(&mut self) {
        self.forwarding.ready().await;
    }

    /// Orders a look, though nothing hints at a change: iptables-legacy changes without a word.
    pub(crate) fn audit(&mut self, now: Instant) {
        self.look_at = Some(now);
    }

    /// Looks and writes where something has changed; returns when there will be more to do, if that is known. `node` is
    /// this node, as far as it is known.
    pub(crate) fn follow(&mut self, node: Option<&Node>, now: Instant, story: &mut Story) -> Option<Instant> {
        if self.forwarding.changed() && self.look_at.is_none() {
            self.look_at = Some(self.rest_until.map_or(now, |rest| rest.max(now)));
        }
        let node = node?;
        if node.pod_subnets != self.subnets {
            self.subnets.clone_from(&node.pod_subnets);
            self.look_at = Some(now);
        }
        if self.look_at.is_some_and(|at| at <= now) {
            let looked = self.look(node, now, story);
            self.look_at = looked.is_err().then(|| now + AGAIN);
            if let Err(error) = &looked
                && !self.failing
            {
                tracing::warn!(%error, "cannot look for firewalls that drop what is forwarded, trying again");
            }
            self.failing = looked.is_err();
        }
        self.look_at
    }

    fn look(&mut self, node: &Node, now: Instant, story: &mut Story) -> Result<(), Error> {
        let wanted: &[IpNet] = if self.open { &self.subnets } else { &[] };
        let mut refused = BTreeMap::new();
        for opening in self.forwarding.open_for(wanted)? {
            match opening.failed {
                Some(error) => _ = refused.insert(opening.chain, error.to_string()),
                None => {
                    story.wrote_forward_rules(&opening.chain, opening.added, opening.removed);
                    self.rest_until = Some(now + REST);
                }
            }
        }
        let mut dropping = BTreeMap::new();
        for chain in self.forwarding.dropping()? {
            let sees = |subnet: &IpNet| chain.family.sees(Family::of_net(*subnet));
            if !self.subnets.iter().any(sees) {
                continue;
            }
            let standing = match refused.remove(&chain) {
                Some(error) => Standing::Refused(error),
                None if self.open && chain.firewall.is_opened_by_us() => Standing::Open,
                None => Standing::Closed,
            };
            dropping.insert(chain, standing);
        }
        for (chain, standing) in &dropping {
            if self.told.get(chain) != Some(standing) {
                story.forward_is_dropped(chain, standing, node);
            }
        }
        for chain in self.told.keys().filter(|chain| !dropping.contains_key(chain)) {
            story.forward_is_dropped_no_more(chain);
        }
        story.dropping_chains(&dropping);
        self.told = dropping;
        Ok(())
    }
}
