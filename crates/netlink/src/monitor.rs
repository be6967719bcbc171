//! The socket that hears of changes.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use netlink_sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{setsockopt, sockopt};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::socket::{DATAGRAM, receive};
use crate::{Error, filter};

/// Multicast groups (enum rtnetlink_groups) that tell of objects of ours, and of what ours depend on.
const GROUPS: [u32; 9] = [
    libc::RTNLGRP_LINK,
    libc::RTNLGRP_NEIGH,
    libc::RTNLGRP_IPV4_IFADDR,
    libc::RTNLGRP_IPV6_IFADDR,
    libc::RTNLGRP_IPV4_ROUTE,
    libc::RTNLGRP_IPV6_ROUTE,
    libc::RTNLGRP_IPV4_NETCONF,
    libc::RTNLGRP_IPV6_NETCONF,
    libc::RTNLGRP_NEXTHOP,
];

/// An overrun shows as an error.
const INTEREST: Interest = Interest::READABLE.add(Interest::ERROR);

/// A socket that receives notifications and sends nothing.
#[derive(Debug)]
pub(crate) struct Monitor {
    /// Another descriptor of the socket, registered by the first wait in the runtime that waits.
    readiness: Option<AsyncFd<OwnedFd>>,
    socket: netlink_sys::Socket,
    buffer: Vec<u8>,
}

/// What a look at the socket brought.
pub(crate) enum Received<'a> {
    /// A datagram.
    Datagram(&'a [u8]),
    /// Notifications have been dropped for want of room, or came in a shape that cannot be.
    Lost,
    /// Nothing is queued.
    Nothing,
}

impl Monitor {
    /// Opens a socket for the routing part's notifications in the network namespace of the calling thread. It does
    /// not hear what the socket with the port id `writer` does.
    pub(crate) fn open(receive_buffer: usize, writer: u32) -> Result<Self, Error> {
        Self::open_to(NETLINK_ROUTE, &GROUPS, receive_buffer, writer)
    }

    /// The same for the notifications of nf_tables.
    pub(crate) fn open_nft(receive_buffer: usize, writer: u32) -> Result<Self, Error> {
        let groups = [libc::NFNLGRP_NFTABLES as u32];
        Self::open_to(NETLINK_NETFILTER, &groups, receive_buffer, writer)
    }

    fn open_to(protocol: isize, groups: &[u32], receive_buffer: usize, writer: u32) -> Result<Self, Error> {
        let what = || Error::io("opening the netlink socket for notifications");
        let mut socket = netlink_sys::Socket::new(protocol).map_err(what())?;
        grow(&socket, receive_buffer)?;
        filter::drop_echo(&socket, writer)?;
        socket.bind_auto().map_err(what())?;
        socket.set_non_blocking(true).map_err(what())?;
        for group in groups {
            match socket.add_membership(*group) {
                // Kernels before 5.3 know no nexthops.
                Err(_) if *group == libc::RTNLGRP_NEXTHOP => {}
                result => result.map_err(what())?,
            }
        }
        Ok(Self {
            readiness: None,
            socket,
            buffer: Vec::with_capacity(DATAGRAM),
        })
    }

    /// Takes the next datagram, if there is one.
    pub(crate) fn receive(&mut self) -> Received<'_> {
        match receive(&self.socket, &mut self.buffer, libc::MSG_DONTWAIT) {
            Ok(()) => Received::Datagram(&self.buffer),
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::WouldBlock => Received::Nothing,
            Err(_) => Received::Lost,
        }
    }

    /// Waits until something is queued. Must be called within a tokio runtime that has I/O enabled, and always
    /// within the same.
    pub(crate) async fn ready(&mut self) -> io::Result<()> {
        let readiness = match self.readiness.take() {
            Some(readiness) => self.readiness.insert(readiness),
            None => {
                let descriptor = self.socket.as_fd().try_clone_to_owned()?;
                self.readiness.insert(register(descriptor)?)
            }
        };
        loop {
            let mut guard = readiness.ready(INTEREST).await?;
            if is_readable(&self.socket)? {
                return Ok(());
            }
            guard.clear_ready();
        }
    }
}

#[expect(
    unsafe_code,
    reason = "AsyncFd has no safe constructor for a descriptor of one's own"
)]
pub(crate) fn register(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd is the same open descriptor until it is dropped, which AsyncFd does after deregistering.
    Ok(unsafe { AsyncFd::register_with_interest(descriptor, INTEREST) }?)
}

/// Asks for room for many notifications; without CAP_NET_ADMIN it is bounded by net.core.rmem_max.
fn grow(socket: &netlink_sys::Socket, bytes: usize) -> Result<(), Error> {
    if setsockopt(socket, sockopt::RcvBufForce, &bytes).is_ok() {
        return Ok(());
    }
    tracing::warn!(
        bytes,
        "no right to enlarge the receive buffer for kernel notifications beyond net.core.rmem_max (CAP_NET_ADMIN is missing): bursts of changes may be lost and cost a full resync"
    );
    setsockopt(socket, sockopt::RcvBuf, &bytes)
        .map_err(|error| Error::io("enlarging the receive buffer for notifications")(error.into()))
}

/// Also readable: an overrun that has not been told yet.
fn is_readable(socket: &netlink_sys::Socket) -> io::Result<bool> {
    let mut descriptors = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
    Ok(poll(&mut descriptors, PollTimeout::ZERO)? > 0)
}
