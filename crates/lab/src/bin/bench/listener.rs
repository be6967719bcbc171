//! Notifications of the kernel, as far as the measurements wait for them.

use std::ffi::CStr;
use std::net::Ipv4Addr;
use std::time::Instant;

use anyhow::{Context, Result};
use ipnet::Ipv4Net;
use nix::libc;
use nix::sys::socket::SockProtocol;
use routelet_model::{IfName, MacAddr};

use crate::message::{
    DELETE_NEXTHOP, IFADDRMSG, IFINFOMSG, NDMSG, NEW_NEXTHOP, NHA_GATEWAY, NHMSG, RTMSG, Received, messages,
    read_u32,
};
use crate::nft::{self, NftChange};
use crate::raw::RawSocket;

/// Multicast groups (enum rtnetlink_groups) as a mask.
const GROUPS: u32 = mask(libc::RTNLGRP_LINK)
    | mask(libc::RTNLGRP_NEIGH)
    | mask(libc::RTNLGRP_IPV4_IFADDR)
    | mask(libc::RTNLGRP_IPV4_ROUTE)
    | mask(libc::RTNLGRP_IPV4_NETCONF)
    | mask(libc::RTNLGRP_NEXTHOP);

const fn mask(group: u32) -> u32 {
    1 << (group - 1)
}

/// Attributes and header of RTM_NEWNETCONF (linux/netconf.h).
const NETCONF: u16 = 80;
const NETCONFMSG: usize = 4;
const NETCONFA_IFINDEX: u16 = 1;
const NETCONFA_RP_FILTER: u16 = 3;

/// What a notification tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// A route is there; `RTN_…` as its kind.
    Route(Ipv4Net, u8),
    RouteGone(Ipv4Net),
    Nexthop(Ipv4Addr),
    NexthopGone(Ipv4Addr),
    Neighbour(Ipv4Addr, MacAddr),
    NeighbourGone(Ipv4Addr),
    Fdb(MacAddr, Ipv4Addr),
    FdbGone(MacAddr),
    Address(Ipv4Addr),
    /// A link is there.
    Link {
        name: IfName,
        mac: MacAddr,
        mtu: u32,
        up: bool,
    },
    /// rp_filter of a link.
    RpFilter(u32, u32),
    /// Something of the agent's nft table is there.
    Nft(NftChange),
}

/// A socket that hears of changes in the calling thread's namespace.
#[derive(Debug)]
pub(crate) struct Listener(RawSocket);

impl Listener {
    pub(crate) fn open() -> Result<Self> {
        RawSocket::in_groups(SockProtocol::NetlinkRoute, GROUPS).map(Self)
    }

    /// One that hears of nft tables, and of nothing else.
    pub(crate) fn open_nft() -> Result<Self> {
        RawSocket::in_groups(SockProtocol::NetlinkNetFilter, nft::GROUP).map(Self)
    }

    /// Waits for a change and gives the time when it was received.
    pub(crate) fn wait(&mut self, expected: Change) -> Result<Instant> {
        self.wait_for(1, |change| change == expected)
            .with_context(|| format!("waiting for {expected:?}"))
    }

    /// Waits until so many changes were received that `counts` picks, and gives the time of the last.
    pub(crate) fn wait_for(
        &mut self,
        mut missing: usize,
        mut counts: impl FnMut(Change) -> bool,
    ) -> Result<Instant> {
        while missing > 0 {
            let datagram = self.0.receive()?;
            let now = Instant::now();
            let seen = messages(datagram)
                .filter_map(|message| read(&message))
                .filter(|change| counts(*change));
            missing = missing.saturating_sub(seen.count());
            if missing == 0 {
                return Ok(now);
            }
        }
        Ok(Instant::now())
    }

    /// Forgets what has come so far.
    pub(crate) fn empty(&mut self) -> Result<()> {
        self.0.empty()
    }
}

fn read(message: &Received<'_>) -> Option<Change> {
    match message.kind {
        libc::RTM_NEWROUTE | libc::RTM_DELROUTE => {
            let destination = message.address(RTMSG, libc::RTA_DST)?;
            let destination = Ipv4Net::new(destination, *message.payload.get(1)?).ok()?;
            Some(match message.kind {
                libc::RTM_NEWROUTE => Change::Route(destination, *message.payload.get(7)?),
                _ => Change::RouteGone(destination),
            })
        }
        NEW_NEXTHOP => message.address(NHMSG, NHA_GATEWAY).map(Change::Nexthop),
        DELETE_NEXTHOP => message.address(NHMSG, NHA_GATEWAY).map(Change::NexthopGone),
        libc::RTM_NEWNEIGH | libc::RTM_DELNEIGH => read_neighbour(message),
        libc::RTM_NEWADDR => message.address(IFADDRMSG, libc::IFA_LOCAL).map(Change::Address),
        libc::RTM_NEWLINK => {
            let name = message.attribute(IFINFOMSG, libc::IFLA_IFNAME)?;
            let name = CStr::from_bytes_until_nul(name).ok()?.to_str().ok()?;
            Some(Change::Link {
                name: name.parse().ok()?,
                mac: MacAddr(
                    message
                        .attribute(IFINFOMSG, libc::IFLA_ADDRESS)?
                        .try_into()
                        .ok()?,
                ),
                mtu: message.number(IFINFOMSG, libc::IFLA_MTU)?,
                up: read_u32(message.payload, 8)? & libc::IFF_UP as u32 != 0,
            })
        }
        NETCONF => {
            let index = message.number(NETCONFMSG, NETCONFA_IFINDEX)?;
            Some(Change::RpFilter(
                index,
                message.number(NETCONFMSG, NETCONFA_RP_FILTER)?,
            ))
        }
        _ => nft::read(message).map(Change::Nft),
    }
}

fn read_neighbour(message: &Received<'_>) -> Option<Change> {
    let added = message.kind == libc::RTM_NEWNEIGH;
    let address = message.address(NDMSG, libc::NDA_DST)?;
    let mac = || {
        message
            .attribute(NDMSG, libc::NDA_LLADDR)?
            .try_into()
            .ok()
            .map(MacAddr)
    };
    Some(match (i32::from(*message.payload.first()?), added) {
        (libc::AF_BRIDGE, true) => Change::Fdb(mac()?, address),
        (libc::AF_BRIDGE, false) => Change::FdbGone(mac()?),
        (_, true) => Change::Neighbour(address, mac()?),
        (_, false) => Change::NeighbourGone(address),
    })
}
