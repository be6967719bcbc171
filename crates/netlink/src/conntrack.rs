//! Flows: what connection tracking remembers of an address. Where the address has moved to another pod, its flows
//! still lead by the translations of the old one, so that they are to be forgotten.
//!
//! Layout: linux/netfilter/nfnetlink_conntrack.h.

use std::io::ErrorKind;
use std::net::IpAddr;
use std::{fs, iter};

use routelet_model::Family;
use rustc_hash::FxHashSet;

use crate::attributes::{Attribute, Attributes, family_number};
use crate::batch::Batch;
use crate::nfnl::{HEADER, NfAttributes, NfMessage};
use crate::{Error, Socket};

const NFNL_SUBSYS_CTNETLINK: u8 = 1;
const IPCTNL_MSG_CT_GET: u8 = 1;
const IPCTNL_MSG_CT_DELETE: u8 = 2;

const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_ID: u16 = 12;
const CTA_ZONE: u16 = 18;
const CTA_FILTER: u16 = 25;

const CTA_TUPLE_IP: u16 = 1;

/// Of an IPv4 source; that of the destination is the next number.
const CTA_IP_V4_SRC: u16 = 1;
/// Of an IPv6 source; that of the destination is the next number.
const CTA_IP_V6_SRC: u16 = 3;

/// Whether the source address counts in the filter; bit 1 stands for the destination.
const CTA_FILTER_F_CTA_IP_SRC: u32 = 1;

/// How many flows there are in the namespace; not there where connection tracking is not.
const COUNT: &str = "/proc/sys/net/netfilter/nf_conntrack_count";

/// What it costs to ask the kernel for the flows of one address, in flows that it could tell instead: it walks its whole
/// table, empty places too, once for each of the four places in which the address can stand. (Measured on 6.18.)
const ADDRESS_COSTS: usize = 50_000;

/// Forgets all flows that have one of the addresses in either direction, as source or destination, in the network
/// namespace of the calling thread; returns how many. Costs next to nothing where no flow is tracked.
///
/// Without connection tracking, or without its netlink interface, there is nothing to forget. A flow that has been
/// handed to a flowtable stays until it times out where the kernel (an older one) lets no one delete it.
pub fn flush_flows(addresses: &[IpAddr]) -> Result<usize, Error> {
    let tracked = match addresses {
        [] => 0,
        _ => tracked()?,
    };
    if tracked == 0 {
        return Ok(0);
    }
    let mut socket = match Socket::open_netfilter() {
        Err(error) if error.errno() == Some(libc::EPROTONOSUPPORT) => return Ok(0),
        result => result?,
    };
    let mut flows = FxHashSet::default();
    for family in Family::ALL {
        let addresses: FxHashSet<IpAddr> = addresses
            .iter()
            .copied()
            .filter(|address| Family::of(*address) == family)
            .collect();
        if !addresses.is_empty() {
            let filtered = addresses.len() <= tracked / ADDRESS_COSTS;
            find(&mut socket, family, &addresses, filtered, &mut flows)?;
        }
    }
    delete(&mut socket, flows.into_iter())
}

/// How many flows are tracked, in all families.
fn tracked() -> Result<usize, Error> {
    match fs::read_to_string(COUNT) {
        Ok(count) => match count.trim().parse() {
            Ok(count) => Ok(count),
            Err(_) => Err(Error::Decode("a number of tracked flows that is no number")),
        },
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(0),
        Err(error) => Err(Error::io(format!("reading {COUNT}"))(error)),
    }
}

/// A flow, by what the kernel needs to find it again.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Flow {
    family: Family,
    /// The original direction, as the kernel told it.
    original: Vec<u8>,
    /// Tells the flow from a later one between the same ends.
    id: Vec<u8>,
    zone: Option<Vec<u8>>,
}

/// Adds the flows of the addresses, all of one family. `filtered` says whether the kernel is asked for the flows of each
/// address, or for all flows.
fn find(
    socket: &mut Socket,
    family: Family,
    addresses: &FxHashSet<IpAddr>,
    filtered: bool,
    flows: &mut FxHashSet<Flow>,
) -> Result<(), Error> {
    if filtered {
        let filters = addresses
            .iter()
            .flat_map(|address| filters(*address))
            .try_for_each(|filter| dump(socket, family, filter, addresses, flows));
        match filters {
            // As of a kernel before 5.8, which knows no filter. (It may also ignore it; hence the look at each flow.)
            Err(error) if matches!(error.errno(), Some(libc::EINVAL | libc::EOPNOTSUPP)) => {}
            result => return result,
        }
    }
    match dump(socket, family, NfAttributes::default(), addresses, flows) {
        // Netfilter has no such subsystem.
        Err(error) if matches!(error.errno(), Some(libc::EINVAL | libc::EOPNOTSUPP)) => Ok(()),
        result => result,
    }
}

fn dump(
    socket: &mut Socket,
    family: Family,
    filter: NfAttributes,
    addresses: &FxHashSet<IpAddr>,
    flows: &mut FxHashSet<Flow>,
) -> Result<(), Error> {
    let request =
        NfMessage::new(NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_GET, family_number(family)).with(filter);
    let mut found = Vec::new();
    socket.dump(&request, &mut found, |_, payload| {
        read(family, payload, addresses)
    })?;
    flows.extend(found);
    Ok(())
}

/// For each place in which the address can stand, a filter for the flows that have it there.
fn filters(address: IpAddr) -> impl Iterator<Item = NfAttributes> {
    let (source, bytes) = match address {
        IpAddr::V4(address) => (CTA_IP_V4_SRC, address.octets().to_vec()),
        IpAddr::V6(address) => (CTA_IP_V6_SRC, address.octets().to_vec()),
    };
    let directions = [CTA_TUPLE_ORIG, CTA_TUPLE_REPLY];
    directions
        .into_iter()
        .flat_map(|direction| iter::repeat_n(direction, 2).zip(0..2))
        .map(move |(direction, end)| {
            let ip = NfAttributes::default().put(source + end, &bytes);
            let tuple = NfAttributes::default().nest(CTA_TUPLE_IP, ip);
            // CTA_FILTER_ORIG_FLAGS and CTA_FILTER_REPLY_FLAGS are numbered as the tuples are; in the machine's order.
            let flags = CTA_FILTER_F_CTA_IP_SRC << end;
            let filter = NfAttributes::default().put(direction, &flags.to_ne_bytes());
            NfAttributes::default()
                .nest(direction, tuple)
                .nest(CTA_FILTER, filter)
        })
}

/// Reads a flow; `None` for one that has none of the addresses.
fn read(family: Family, payload: &[u8], addresses: &FxHashSet<IpAddr>) -> Result<Option<Flow>, Error> {
    let (mut original, mut id, mut zone, mut concerned) = (None, None, None, false);
    for attribute in Attributes::after(payload, HEADER)? {
        let attribute = attribute?;
        match attribute.kind {
            CTA_TUPLE_ORIG | CTA_TUPLE_REPLY => {
                concerned = concerned || has_one_of(&attribute, addresses)?;
                if attribute.kind == CTA_TUPLE_ORIG {
                    original = Some(attribute.value);
                }
            }
            CTA_ID => id = Some(attribute.value.to_vec()),
            CTA_ZONE => zone = Some(attribute.value.to_vec()),
            _ => {}
        }
    }
    if !concerned {
        return Ok(None);
    }
    let (Some(original), Some(id)) = (original, id) else {
        return Err(Error::Decode("a flow without its original direction or its id"));
    };
    Ok(Some(Flow {
        family,
        original: original.to_vec(),
        id,
        zone,
    }))
}

/// Whether source or destination of a direction is one of the addresses.
fn has_one_of(tuple: &Attribute<'_>, addresses: &FxHashSet<IpAddr>) -> Result<bool, Error> {
    for attribute in tuple.nested() {
        let attribute = attribute?;
        if attribute.kind == CTA_TUPLE_IP {
            for end in attribute.nested() {
                if addresses.contains(&end?.address()?) {
                    return Ok(true);
                }
            }
        }
    }
    Ok(false)
}

/// Deletes the flows; returns how many were there still.
fn delete(socket: &mut Socket, flows: impl Iterator<Item = Flow>) -> Result<usize, Error> {
    let (mut batch, mut sent, mut missing, mut failed) = (Batch::default(), 0, 0, None);
    let mut flows = flows.peekable();
    while let Some(flow) = flows.next() {
        let family = family_number(flow.family);
        let mut attributes = NfAttributes::default()
            .nest_bytes(CTA_TUPLE_ORIG, &flow.original)
            .put(CTA_ID, &flow.id);
        if let Some(zone) = &flow.zone {
            attributes = attributes.put(CTA_ZONE, zone);
        }
        let message = NfMessage::new(NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_DELETE, family).with(attributes);
        batch.push(sent, &message, 0);
        sent += 1;
        if batch.is_full() || flows.peek().is_none() {
            socket.send_batch(&mut batch, &mut |_, error| match error.errno() {
                // It has ended meanwhile, or is in a flowtable.
                Some(libc::ENOENT | libc::EBUSY) => missing += 1,
                _ => failed = Some(error),
            });
        }
    }
    failed.map_or(Ok(sent - missing), Err)
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use proptest::prelude::*;

    use super::*;
    use crate::{Netns, Setup};

    /// Flows between hosts of 10.0.0.0/24 on lo, and what is found of 10.0.0.2 in both ways.
    #[test]
    fn the_kernel_tells_the_same_flows_when_it_is_asked_for_those_of_an_address() {
        let netns = Netns::new().unwrap();
        let mut setup = Setup::open_in(&netns).unwrap();
        for host in 1..6 {
            setup
                .add_address("lo", format!("10.0.0.{host}/32").parse().unwrap())
                .unwrap();
        }
        netns
            .run(|| {
                track();
                for (from, to) in [(1, 2), (2, 3), (3, 4), (4, 2), (2, 2), (5, 1)] {
                    let socket = UdpSocket::bind(format!("10.0.0.{from}:0")).unwrap();
                    socket.send_to(b"x", format!("10.0.0.{to}:9")).unwrap();
                }
                let address: IpAddr = [10, 0, 0, 2].into();
                let addresses = FxHashSet::from_iter([address]);
                let mut socket = Socket::open_netfilter().unwrap();
                let [mut one_by_one, mut of_all] = [FxHashSet::default(), FxHashSet::default()];
                find(&mut socket, Family::V4, &addresses, true, &mut one_by_one).unwrap();
                find(&mut socket, Family::V4, &addresses, false, &mut of_all).unwrap();
                assert_eq!(of_all.len(), 4);
                assert_eq!(one_by_one, of_all);

                let mut told = 0;
                for filter in filters(address) {
                    let request = NfMessage::new(NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_GET, 2).with(filter);
                    let mut nothing: Vec<()> = Vec::new();
                    let count = |_, _: &[u8]| {
                        told += 1;
                        Ok(None)
                    };
                    socket.dump(&request, &mut nothing, count).unwrap();
                }
                assert_eq!(
                    told, 10,
                    "as source and destination of the four, twice of the one with itself"
                );
            })
            .unwrap();
    }

    /// Has the namespace track its flows, which it does once a rule asks for a flow's state.
    fn track() {
        let (nftables, ip, create) = (10, 2, netlink_packet_core::NLM_F_CREATE);
        let put = NfAttributes::default;
        let hook = put().number(1, libc::NF_INET_LOCAL_OUT as u32).number(2, 0);
        let state = put().text(1, "ct").nest(2, put().number(1, 1).number(2, 0));
        let changes = [
            (0, put().text(1, "t")),
            (3, put().text(1, "t").text(3, "c").nest(4, hook).text(7, "filter")),
            (6, put().text(1, "t").text(2, "c").nest(4, put().nest(1, state))),
        ];
        let changes =
            changes.map(|(kind, attributes)| (NfMessage::new(nftables, kind, ip).with(attributes), create));
        let mut socket = Socket::open_netfilter().unwrap();
        let [begin, end] = NfMessage::bounds(nftables);
        let changes = changes.iter().map(|(message, flags)| (message, *flags));
        socket.transact(&begin, &end, changes).unwrap();
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(payload in proptest::collection::vec(any::<u8>(), 0..128)) {
            let _ = read(Family::V4, &payload, &FxHashSet::default());
        }
    }
}
