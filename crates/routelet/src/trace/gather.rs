//! Reads the kernel: all that a trace is judged by.

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::Context;
use ipnet::IpNet;
use routelet_model::{
    Family, IfName, Key, Kind, LinkKind, NftSet, Object, PodId, RouteTarget, Sysctl, SysctlName,
    given_addresses, pod_of,
};
use routelet_netlink::fib::{Decision, Fib, Packet};
use routelet_netlink::forward::Forwarding;
use routelet_netlink::inspect::{AddressRow, Inspector};
use routelet_netlink::setup::LinkState;
use routelet_netlink::{Error, Kernel, Setup};

use super::observed::{Destination, From, Known, Observed, To, forwarding_sysctl};
use crate::args::TraceSettings;
use crate::encapsulation;

/// Receive buffer for notifications in bytes; they are not read.
const RECEIVE_BUFFER: u32 = 1 << 16;

/// The kernel, and what it holds whatever the question is.
pub(crate) struct Eyes {
    kernel: Kernel,
    fib: Fib,
    forwarding: Forwarding,
    inspector: Inspector,
    devices: Vec<IfName>,
    tables: BTreeMap<Key, Object>,
    links: Vec<LinkState>,
    addresses: Vec<AddressRow>,
}

impl Eyes {
    /// Reads what the kernel of the calling thread's network namespace holds.
    pub(crate) fn open(settings: &TraceSettings) -> anyhow::Result<Self> {
        let devices = encapsulation::devices(&settings.marks, None)?;
        let config = settings.marks.kernel_config(devices.clone(), RECEIVE_BUFFER);
        let mut kernel = Kernel::open(config).context("cannot open the kernel's routing tables")?;
        let mut inspector = Inspector::open()?;
        let mut tables = BTreeMap::new();
        for kind in Kind::ALL {
            let visit = &mut |key, object| _ = tables.insert(key, object);
            kernel
                .dump(kind, None, visit)
                .with_context(|| format!("cannot read the kernel's objects of the kind {kind}"))?;
        }
        Ok(Self {
            fib: Fib::open()?,
            forwarding: Forwarding::open()?,
            links: Setup::open()?.links()?,
            addresses: inspector.addresses()?,
            kernel,
            inspector,
            devices,
            tables,
        })
    }

    /// A link by its name.
    pub(crate) fn link(&self, name: IfName) -> Option<&LinkState> {
        self.links.iter().find(|link| link.name == Some(name))
    }

    /// The addresses of the pod behind a host veth: those that its alias says the pod was given, else those that routes of
    /// ours lead there for.
    pub(crate) fn addresses_behind(&self, veth: IfName) -> Vec<IpAddr> {
        let alias = self.link(veth).and_then(|link| link.alias.as_deref());
        let given = given_addresses(alias.unwrap_or_default());
        if !given.is_empty() {
            return given;
        }
        let leads_there = |(key, object): (&Key, &Object)| match (key, object) {
            (Key::Route { destination, .. }, Object::Route(RouteTarget::Link(link))) if *link == veth => {
                Some(destination.addr())
            }
            _ => None,
        };
        self.tables.iter().filter_map(leads_there).collect()
    }

    /// The host veth of the pod with an address, and who that is where the veth's alias says so.
    pub(crate) fn veth_of(&self, address: IpAddr) -> Option<(IfName, Option<PodId>)> {
        let route = self.tables.get(&Key::route(IpNet::from(address)));
        let by_route = match route {
            Some(Object::Route(RouteTarget::Link(link))) => Some(*link),
            _ => None,
        };
        let given = |link: &&LinkState| {
            let alias = link.alias.as_deref().unwrap_or_default();
            given_addresses(alias).contains(&address)
        };
        let veth = by_route.or_else(|| self.links.iter().find(given)?.name)?;
        Some((veth, self.pod_behind(veth)))
    }

    /// The pod that the alias of a host veth names.
    pub(crate) fn pod_behind(&self, veth: IfName) -> Option<PodId> {
        pod_of(self.link(veth)?.alias.as_deref()?)
    }

    /// Whether an address is in this node's pod subnets, by the kernel's tables.
    pub(crate) fn is_own(&self, address: IpAddr) -> bool {
        self.tables.iter().any(|(key, object)| match (key, object) {
            (Key::Route { destination, .. }, Object::Route(RouteTarget::Blackhole)) => {
                destination.contains(&address)
            }
            (
                Key::NftElement {
                    set: NftSet::OwnPods,
                    first,
                    last,
                },
                _,
            ) => (*first..=*last).contains(&address),
            _ => false,
        })
    }

    /// All that the way from one to the other is judged by.
    pub(crate) fn observed(
        &mut self,
        settings: &TraceSettings,
        from: From,
        to: To,
        known: Option<Known>,
    ) -> anyhow::Result<Observed> {
        let family = Family::of(to.address);
        let mut observed = Observed {
            protocol: settings.marks.route_protocol,
            masquerade: settings.masquerade,
            devices: self.devices.clone(),
            vxlan_device: match family {
                Family::V4 => settings.marks.vxlan_device,
                Family::V6 => settings.marks.vxlan_device_v6,
            },
            tables: self.tables.clone(),
            links: self.links.clone(),
            addresses: self.addresses.clone(),
            neighbours: self.inspector.neighbours(family)?,
            filters: BTreeMap::new(),
            to_pod: None,
            there: None,
            underlay: None,
            back: None,
            dropping: Vec::new(),
            against: Vec::new(),
            from,
            to,
            known,
        };
        let (Some(address), Some(veth)) = (observed.from.address, observed.from.veth) else {
            return Ok(observed);
        };
        self.read_settings(&mut observed, veth)?;
        observed.to_pod = self.decide(own(address))?;
        observed.there = self.decide(Packet {
            from: Some(address),
            to: observed.to.address,
            incoming: Some(veth),
        })?;
        for chain in self.forwarding.dropping()? {
            if chain.family.sees(family) {
                let passage = self.forwarding.passage(&chain, address)?;
                observed.dropping.push((chain, passage));
            }
        }
        self.look_at_tunnel(settings, &mut observed)?;
        if let Some(incoming) = observed.answers_come_by() {
            let filter = self.filter(incoming)?;
            observed.filters.insert(incoming, filter);
            let answer = Packet {
                from: Some(observed.to.address),
                to: address,
                incoming: Some(incoming),
            };
            observed.back = self.decide(answer)?.map(|decision| (incoming, decision));
        }
        Ok(observed)
    }

    fn read_settings(&mut self, observed: &mut Observed, veth: IfName) -> anyhow::Result<()> {
        let settings = [
            Sysctl::host(forwarding_sysctl(observed.family())),
            Sysctl::link(SysctlName::Ipv4Forwarding, veth),
            Sysctl::link(SysctlName::Ipv4ProxyArp, veth),
        ];
        for setting in settings {
            // Those of IPv4 say nothing about packets of IPv6.
            let counts = observed.family() == Family::V4 || setting.link.is_none();
            if counts && let Some(value) = self.kernel.sysctl(setting)? {
                observed
                    .tables
                    .insert(Key::Sysctl(setting), Object::Sysctl(value));
            }
        }
        let filter = self.filter(veth)?;
        observed.filters.insert(veth, filter);
        Ok(())
    }

    /// The reverse path filter of a link: the kernel takes the larger of that of all and the link's own.
    fn filter(&mut self, link: IfName) -> anyhow::Result<u32> {
        let all = self.kernel.sysctl(Sysctl::host(SysctlName::Ipv4RpFilter))?;
        let own = self.kernel.sysctl(Sysctl::link(SysctlName::Ipv4RpFilter, link))?;
        Ok(all.max(own).unwrap_or_default())
    }

    fn look_at_tunnel(&mut self, settings: &TraceSettings, observed: &mut Observed) -> anyhow::Result<()> {
        let Destination::Peer(peer) = observed.destination() else {
            return Ok(());
        };
        if let Some(remote) = observed.underlay_of(&peer) {
            observed.underlay = self.decide(own(remote))?;
        }
        let device = peer
            .device()
            .and_then(|device| observed.tables.get(&Key::Link(device)));
        if let Some(Object::Link(device)) = device
            && let LinkKind::Vxlan(vxlan) = &device.kind
        {
            observed.against = self
                .forwarding
                .against_port(vxlan.port, &settings.marks.nft_table)?;
        }
        Ok(())
    }

    /// The kernel's decision; `None` where the link that the packet comes in by is gone.
    fn decide(&mut self, packet: Packet) -> anyhow::Result<Option<Decision>> {
        match self.fib.decide(packet) {
            Ok(decision) => Ok(Some(decision)),
            Err(Error::NoSuchLink(_)) => Ok(None),
            Err(error) => Err(error).context("cannot ask the kernel for its routing decision"),
        }
    }
}

/// A packet of the host's own.
fn own(to: IpAddr) -> Packet {
    Packet {
        from: None,
        to,
        incoming: None,
    }
}
