//! What is left of sandboxes that are gone: which leases and host veths are nobody's, by all that the API and the kernel
//! say, and for how long they have been so.
//!
//! The API does not know containers, and a Pod may be missing there though it runs (a static pod whose mirror pod was
//! refused or is not there yet) or have no address yet. So none of the two is believed alone: a lease is somebody's as
//! long as either has anything of its container or its address.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use routelet_cni::{Attachment, Lease};
use routelet_model::IfName;

/// Something that nobody has any more.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Leak {
    /// A lease of host-local.
    Lease(Lease),
    /// A host veth that the CNI plugin has made.
    Veth(HostVeth),
}

impl Leak {
    /// What it is, in the metric's words.
    pub(crate) const LEASE: &str = "lease";
    /// The same.
    pub(crate) const VETH: &str = "veth";

    /// What it is, in the metric's words.
    pub(crate) fn what(&self) -> &'static str {
        match self {
            Self::Lease(_) => Self::LEASE,
            Self::Veth(_) => Self::VETH,
        }
    }
}

/// A host veth of the plugin's, by what is written on it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct HostVeth {
    pub(crate) name: IfName,
    /// Its interface index: one that is made anew has another.
    pub(crate) index: u32,
    pub(crate) attachment: Attachment,
    /// The addresses that its pod was given.
    pub(crate) addresses: Vec<IpAddr>,
}

/// All that is known at one moment.
#[derive(Debug, Default)]
pub(crate) struct Evidence {
    /// host-local's leases of the network.
    pub(crate) leases: Vec<Lease>,
    /// The plugin's host veths, of whatever network.
    pub(crate) veths: Vec<HostVeth>,
    /// Addresses of this node's Pods, in whatever state they are.
    pub(crate) pod_addresses: BTreeSet<IpAddr>,
    /// Names that these Pods' host veths have.
    pub(crate) pod_veths: BTreeSet<IfName>,
    /// Host veths whose Pod the API had and has no more, and that no route leads to any more. The veth of a pod that the
    /// API never had is not among them.
    pub(crate) abandoned: BTreeSet<IfName>,
}

impl Evidence {
    /// What is nobody's. `leads_anywhere` says whether the kernel would send packets to an address on to anyone.
    pub(crate) fn leaks(&self, network: &str, mut leads_anywhere: impl FnMut(IpAddr) -> bool) -> Vec<Leak> {
        let veths = self.veths.iter().filter(|veth| {
            veth.attachment.network == network
                && self.abandoned.contains(&veth.name)
                && !self.pod_veths.contains(&veth.name)
        });
        let leases = self.leases.iter().filter(|lease| {
            !self.pod_addresses.contains(&lease.address)
                && !self.veths.iter().any(|veth| veth.has(lease))
                && !leads_anywhere(lease.address)
        });
        let leases = leases.cloned().map(Leak::Lease);
        veths.cloned().map(Leak::Veth).chain(leases).collect()
    }
}

impl HostVeth {
    /// Whether the lease may be that of the pod behind it.
    fn has(&self, lease: &Lease) -> bool {
        self.attachment.container_id == lease.container_id || self.addresses.contains(&lease.address)
    }
}

/// How long each leak has been seen at every look. What is made anew, be it for the same pod, is another one: a lease by the
/// time it was written, a veth by its index.
#[derive(Debug, Default)]
pub(crate) struct Sightings(BTreeMap<Leak, Instant>);

impl Sightings {
    /// Takes a look's leaks, and returns those that have been nobody's for at least `after`, with the time that they have
    /// been so.
    pub(crate) fn note(&mut self, leaks: Vec<Leak>, after: Duration, now: Instant) -> Vec<(Leak, Duration)> {
        let before = std::mem::take(&mut self.0);
        let since = |leak: &Leak| before.get(leak).copied().unwrap_or(now);
        self.0 = leaks
            .into_iter()
            .map(|leak| (leak.clone(), since(&leak)))
            .collect();
        let seen = self.0.iter().map(|(leak, since)| (leak.clone(), now - *since));
        seen.filter(|(_, time)| *time >= after).collect()
    }

    /// When the first of them will have been nobody's for so long.
    pub(crate) fn next(&self, after: Duration) -> Option<Instant> {
        self.0.values().min().map(|since| *since + after)
    }

    /// Forgets one that is dealt with.
    pub(crate) fn remove(&mut self, leak: &Leak) {
        self.0.remove(leak);
    }

    /// Forgets all: what was seen is worth nothing.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    const NETWORK: &str = "pods";
    const AFTER: Duration = Duration::from_secs(600);

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn name(text: &str) -> IfName {
        text.parse().unwrap()
    }

    fn lease(address: &str, container: &str) -> Lease {
        Lease {
            address: ip(address),
            container_id: container.to_owned(),
            ifname: "eth0".to_owned(),
            written: SystemTime::UNIX_EPOCH,
        }
    }

    fn veth(link: &str, container: &str, address: &str) -> HostVeth {
        HostVeth {
            name: name(link),
            index: 7,
            attachment: format!("routelet {NETWORK} {container} eth0").parse().unwrap(),
            addresses: vec![ip(address)],
        }
    }

    /// A lease of which nothing else is left.
    fn leaked() -> Evidence {
        Evidence {
            leases: vec![lease("10.244.1.2", "dead")],
            ..Evidence::default()
        }
    }

    fn leaks(evidence: &Evidence) -> Vec<Leak> {
        evidence.leaks(NETWORK, |_| false)
    }

    #[test]
    fn a_lease_of_which_neither_the_api_nor_the_kernel_knows_anything_is_nobodys() {
        assert_eq!(leaks(&leaked()), [Leak::Lease(lease("10.244.1.2", "dead"))]);
        // host-local was killed before it wrote who has it.
        let mut evidence = leaked();
        evidence.leases = vec![lease("10.244.1.2", "")];
        evidence.veths = vec![veth("cali2", "living", "10.244.1.3")];
        assert_eq!(leaks(&evidence).len(), 1);
    }

    #[test]
    fn a_lease_is_its_pods_as_long_as_the_api_has_the_address() {
        let mut evidence = leaked();
        evidence.pod_addresses.insert(ip("10.244.1.2"));
        assert_eq!(leaks(&evidence), []);
    }

    #[test]
    fn a_lease_whose_container_has_a_veth_is_that_of_a_pod_that_the_api_does_not_have_yet() {
        let mut evidence = leaked();
        // A static pod without a mirror pod; a pod without an address in its status.
        evidence.veths = vec![veth("cali1", "dead", "10.244.1.2")];
        assert_eq!(leaks(&evidence), []);
        // Whatever the veth's alias tells of addresses: it may be cut off.
        evidence.veths[0].addresses.clear();
        assert_eq!(leaks(&evidence), []);
        // And of a network of another name.
        evidence.veths[0].attachment.network = "others".to_owned();
        assert_eq!(leaks(&evidence), []);
    }

    #[test]
    fn a_lease_of_an_address_that_a_veth_was_given_or_the_kernel_leads_somewhere_stays() {
        let mut evidence = leaked();
        assert_eq!(evidence.leaks(NETWORK, |address| address == ip("10.244.1.2")), []);
        evidence.veths = vec![veth("cali1", "another", "10.244.1.2")];
        assert_eq!(leaks(&evidence), []);
    }

    #[test]
    fn a_veth_is_dead_whose_pod_the_api_had_and_has_no_more_and_that_no_route_leads_to() {
        let dead = veth("cali1", "dead", "10.244.1.2");
        let mut evidence = Evidence {
            veths: vec![dead.clone()],
            ..Evidence::default()
        };
        assert_eq!(leaks(&evidence), [], "the API may never have had its pod");
        evidence.abandoned.insert(name("cali1"));
        assert_eq!(leaks(&evidence), [Leak::Veth(dead)]);
        evidence.veths[0].attachment.network = "others".to_owned();
        assert_eq!(leaks(&evidence), [], "another network's");
        evidence.veths[0].attachment.network = NETWORK.to_owned();
        evidence.pod_veths.insert(name("cali1"));
        assert_eq!(
            leaks(&evidence),
            [],
            "a pod that has ended, or a new one of the name"
        );
    }

    #[test]
    fn a_lease_stays_until_the_dead_veth_of_its_container_is_gone() {
        let mut evidence = leaked();
        evidence.veths = vec![veth("cali1", "dead", "10.244.1.2")];
        evidence.abandoned.insert(name("cali1"));
        assert!(matches!(leaks(&evidence)[..], [Leak::Veth(_)]));
        evidence.veths.clear();
        assert!(matches!(leaks(&evidence)[..], [Leak::Lease(_)]));
    }

    #[test]
    fn what_is_seen_at_every_look_for_long_enough_is_old_and_what_is_made_anew_is_not() {
        let start = Instant::now();
        let (first, second) = (start + AFTER / 2, start + AFTER);
        let mut sightings = Sightings::default();
        let one = || vec![Leak::Lease(lease("10.244.1.2", "dead"))];
        assert_eq!(sightings.note(one(), AFTER, start), [], "an ADD may be under way");
        assert_eq!(sightings.next(AFTER), Some(second));
        assert_eq!(sightings.note(one(), AFTER, first), []);
        assert_eq!(sightings.note(one(), AFTER, second), [(one().remove(0), AFTER)]);
        sightings.remove(&one()[0]);
        assert_eq!(sightings.next(AFTER), None);

        // Somebody's in between.
        let mut sightings = Sightings::default();
        sightings.note(one(), AFTER, start);
        sightings.note(Vec::new(), AFTER, first);
        assert_eq!(sightings.note(one(), AFTER, second), []);
        // Looks that were worth nothing.
        let mut sightings = Sightings::default();
        sightings.note(one(), AFTER, start);
        sightings.clear();
        assert_eq!(sightings.note(one(), AFTER, second), []);
        // Written anew for the same container; a veth of the same name.
        let mut anew = lease("10.244.1.2", "dead");
        anew.written += Duration::from_nanos(1);
        let dead = veth("cali1", "dead", "10.244.1.2");
        let another = HostVeth {
            index: 8,
            ..dead.clone()
        };
        let mut sightings = Sightings::default();
        sightings.note(vec![one().remove(0), Leak::Veth(dead)], AFTER, start);
        let now = vec![Leak::Lease(anew), Leak::Veth(another)];
        assert_eq!(sightings.note(now, AFTER, second), []);
    }
}
