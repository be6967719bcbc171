//! What a notification means.

use netlink_packet_core::{NLM_F_REPLACE, NLMSG_DONE, NLMSG_ERROR, NLMSG_NOOP};
use routelet_model::{IfName, Key, Kind, Object};

use crate::Error;
use crate::Flushed;
use crate::address::SeenAddress;
use crate::frame::Frame;
use crate::host::HostWatch;
use crate::link::SeenLink;
use crate::neighbour::SeenNeighbour;
use crate::nexthop::{RTM_DELNEXTHOP, RTM_NEWNEXTHOP, SeenNexthop};
use crate::route;
use crate::sysctl::{self, RTM_NEWNETCONF};
use crate::view::View;

/// What the kernel has told of a change, by whomever. A hint may be late, come twice, or not at all: a dump is the
/// truth. What the kernel never tells (seen on 6.18):
///
/// - a link that goes down or is deleted takes its nexthops and its IPv4 routes along, one that loses its carrier
///   its nexthops;
/// - a nexthop that is deleted takes the IPv4 routes through it along;
/// - of sysctls it tells forwarding, rp_filter, proxy_arp and proxy_ndp only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hint {
    /// The object is now so. Routes of other protocols in the main table come as [`Object::Foreign`]: the receiver
    /// knows whether they stand where one of ours should.
    Seen(Key, Object),
    /// A route is new. If there was one under its key, it is still there: the kernel lets several stand side by side.
    Added(Key, Object),
    /// The object is gone.
    Gone(Key),
    /// A route of another protocol is gone. One of ours may stand beside it.
    OthersGone(Key),
    /// A link of ours is gone, or has another name now, and with it all that was on it. Not told of a link that
    /// [`Kernel::apply`](crate::Kernel::apply) has deleted.
    LinkGone(IfName),
    /// Someone has changed something in our nft table, or the table: the kernel's words on elements of ranges tell no
    /// more than that, so dump it.
    NftTouched,
    /// A link of the host that is none of ours is new, gone or changed (name, MTU, up, carrier), or its addresses are: the
    /// one of this name, where that is known. One that was renamed is told of under both names. Or a route on a way that
    /// is followed has changed, which names no link.
    HostChanged(Option<IfName>),
    /// No notification, but the end of what [`Kernel::flush_flows`](crate::Kernel::flush_flows) began.
    Flushed(Flushed),
    /// Notifications were lost, or could not be understood: only a dump can tell what has changed.
    Lost,
}

/// Reads one notification.
pub(crate) fn read(
    frame: &Frame<'_>,
    view: &mut View,
    host: &mut HostWatch,
    hints: &mut Vec<Hint>,
) -> Result<(), Error> {
    match frame.kind {
        libc::RTM_NEWLINK => new_link(frame.payload, view, host, hints),
        libc::RTM_DELLINK => deleted_link(frame.payload, view, host, hints),
        libc::RTM_NEWADDR | libc::RTM_DELADDR => address(frame, view, host, hints),
        libc::RTM_NEWNEIGH | libc::RTM_DELNEIGH => neighbour(frame, view, hints),
        libc::RTM_NEWROUTE | libc::RTM_DELROUTE => {
            if !host.destinations.is_empty() {
                let leads_to = route::destination(frame.payload)?;
                hints.extend(
                    leads_to
                        .filter(|net| host.route(*net))
                        .map(|_| Hint::HostChanged(None)),
                );
            }
            let route = view.read(Kind::Route, frame.payload)?;
            hints.extend(route.map(|(key, object)| match object {
                object if frame.kind == libc::RTM_NEWROUTE && frame.flags & NLM_F_REPLACE != 0 => {
                    Hint::Seen(key, object)
                }
                object if frame.kind == libc::RTM_NEWROUTE => Hint::Added(key, object),
                Object::Foreign { .. } => Hint::OthersGone(key),
                _ => Hint::Gone(key),
            }));
            Ok(())
        }
        RTM_NEWNEXTHOP => {
            let seen = SeenNexthop::read(frame.payload, &view.links, &view.config.devices)?;
            let nexthop = view.nexthops.learn(&seen, view.config.protocol);
            hints.extend(nexthop.map(|(key, object)| Hint::Seen(key, object)));
            Ok(())
        }
        RTM_DELNEXTHOP => {
            let seen = SeenNexthop::read(frame.payload, &view.links, &view.config.devices)?;
            hints.extend(view.nexthops.unlearn(&seen, view.config.protocol).map(Hint::Gone));
            Ok(())
        }
        RTM_NEWNETCONF => {
            let settings = sysctl::read_notification(frame.payload, &view.links)?;
            let settings = settings
                .into_iter()
                .filter(|(key, _)| key.link().is_none_or(|l| view.is_ours(l)));
            hints.extend(settings.map(|(key, object)| Hint::Seen(key, object)));
            Ok(())
        }
        NLMSG_NOOP | NLMSG_ERROR | NLMSG_DONE => Ok(()),
        // The groups tell of more than these (RTM_DELNETCONF goes with the link).
        _ => Ok(()),
    }
}

fn new_link(
    payload: &[u8],
    view: &mut View,
    host: &mut HostWatch,
    hints: &mut Vec<Hint>,
) -> Result<(), Error> {
    let link = SeenLink::read(payload)?.filter(|link| !view.links.is_deleted(link.index));
    let Some(link) = link else {
        return Ok(());
    };
    let before = view.hear_of_link(&link);
    if let Some(before) = before
        && view.is_ours(before)
    {
        hints.push(Hint::LinkGone(before));
    }
    let news = match view.link_object(&link) {
        Some((key, object)) => {
            hints.push(Hint::Seen(key, object));
            host.link_gone(link.index)
        }
        None => host.link(&link),
    };
    if news {
        let names = before.into_iter().chain([link.name]);
        hints.extend(names.map(|name| Hint::HostChanged(Some(name))));
    }
    Ok(())
}

fn deleted_link(
    payload: &[u8],
    view: &mut View,
    host: &mut HostWatch,
    hints: &mut Vec<Hint>,
) -> Result<(), Error> {
    let link = SeenLink::read(payload)?.filter(|link| !view.links.take_deleted(link.index));
    let Some(link) = link else {
        return Ok(());
    };
    view.hear_of_link_gone(link.index);
    if view.is_ours(link.name) {
        hints.push(Hint::LinkGone(link.name));
    }
    if host.link_gone(link.index) {
        hints.push(Hint::HostChanged(Some(link.name)));
    }
    Ok(())
}

fn address(frame: &Frame<'_>, view: &View, host: &mut HostWatch, hints: &mut Vec<Hint>) -> Result<(), Error> {
    let Some(seen) = SeenAddress::read(frame.payload)? else {
        return Ok(());
    };
    let added = frame.kind == libc::RTM_NEWADDR;
    match view.links.name(seen.index) {
        Some(link) if view.is_ours(link) => {
            if let Some((key, object)) = view.read(Kind::Address, frame.payload)? {
                hints.push(if added {
                    Hint::Seen(key, object)
                } else {
                    Hint::Gone(key)
                });
            }
        }
        link => {
            let news = if added {
                host.address(&seen)
            } else {
                host.address_gone(&seen)
            };
            if news {
                hints.push(Hint::HostChanged(link));
            }
        }
    }
    Ok(())
}

fn neighbour(frame: &Frame<'_>, view: &View, hints: &mut Vec<Hint>) -> Result<(), Error> {
    let seen = SeenNeighbour::read(frame.payload, &view.links)?;
    // What rtnetlink says of an FDB entry, the driver has said, and better.
    let Some(seen) = seen.filter(|seen| !seen.is_echo && view.is_device(seen.link)) else {
        return Ok(());
    };
    hints.push(match seen.object {
        Some(object) if frame.kind == libc::RTM_NEWNEIGH => Hint::Seen(seen.key, object),
        // A neighbour that is no longer permanent is no longer what a dump would show.
        _ => Hint::Gone(seen.key),
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Config;
    use crate::frame::align;

    fn view() -> View {
        let name = |text: &str| text.parse().unwrap();
        let mut view = View::new(Config {
            protocol: 80,
            devices: vec![name("vxlan.calico")],
            interface_prefix: "cali".to_owned(),
            nft_table: "routelet".to_owned(),
            receive_buffer: 0,
        });
        for (index, link) in [(1, "lo"), (2, "vxlan.calico"), (3, "cali0")] {
            view.links.insert(index, name(link));
        }
        view.nexthops.allocate(name("vxlan.calico"), [10, 0, 0, 1].into());
        view
    }

    /// Attributes that are framed as they should be, whatever is in them.
    fn attributes() -> impl Strategy<Value = Vec<u8>> {
        let attribute =
            (0u16..32, proptest::collection::vec(any::<u8>(), 0..20)).prop_map(|(kind, value)| {
                let mut bytes = (4 + value.len() as u16).to_ne_bytes().to_vec();
                bytes.extend(kind.to_ne_bytes());
                bytes.extend(value);
                bytes.resize(align(bytes.len()), 0);
                bytes
            });
        proptest::collection::vec(attribute, 0..8).prop_map(|attributes| attributes.concat())
    }

    /// Headers of all the lengths that there are, with families, tables and link indexes that lead somewhere.
    fn header() -> impl Strategy<Value = Vec<u8>> {
        let family = prop_oneof![Just(0u8), Just(2), Just(7), Just(10), any::<u8>()];
        let rest = proptest::collection::vec(prop_oneof![0u8..4, Just(254), Just(80), any::<u8>()], 0..16);
        (family, rest).prop_map(|(family, rest)| [vec![family], rest].concat())
    }

    /// As Linux 6.1 tells of a new entry: first the driver, then rtnetlink.
    #[test]
    fn what_rtnetlink_says_of_an_fdb_entry_is_no_news() {
        let head = [7, 0, 0, 0, 2, 0, 0, 0, 128, 0, 2, 0];
        let mac = [10, 0, 2, 0, 102, 9, 209, 203, 80, 79, 0, 0];
        let destination = [8, 0, 1, 0, 172, 30, 128, 1];
        let hints = |kind, attributes: &[u8]| {
            let payload = [&head[..], attributes].concat();
            let (flags, sequence) = (0, 0);
            let frame = Frame {
                kind,
                flags,
                sequence,
                payload: &payload,
            };
            let mut hints = Vec::new();
            read(&frame, &mut view(), &mut HostWatch::default(), &mut hints).unwrap();
            hints
        };
        let full = [mac.as_slice(), &destination].concat();
        assert!(
            matches!(hints(libc::RTM_NEWNEIGH, &full)[..], [Hint::Seen(Key::Fdb { .. }, Object::Fdb(to))]
                if to == std::net::IpAddr::from([172, 30, 128, 1]))
        );
        assert!(matches!(
            hints(libc::RTM_DELNEIGH, &full)[..],
            [Hint::Gone(Key::Fdb { .. })]
        ));
        for kind in [libc::RTM_NEWNEIGH, libc::RTM_DELNEIGH] {
            assert!(hints(kind, &mac).is_empty());
        }
        // The driver's, where someone has replaced it by one that leads nowhere: it says when it was used.
        let times = [[20, 0, 3, 0].as_slice(), &[0; 16]].concat();
        assert!(matches!(
            hints(libc::RTM_NEWNEIGH, &[mac.as_slice(), &times].concat())[..],
            [Hint::Seen(Key::Fdb { .. }, Object::Foreign { .. })]
        ));
    }

    proptest! {
        #[test]
        fn no_notification_is_too_strange(
            kind in 14u16..110,
            header in header(),
            attributes in attributes(),
            noise in proptest::collection::vec(any::<u8>(), 0..8),
        ) {
            let payload = [header, attributes, noise].concat();
            let frame = Frame { kind, flags: 0, sequence: 0, payload: &payload };
            let _ = read(&frame, &mut view(), &mut HostWatch::default(), &mut Vec::new());
        }
    }
}
