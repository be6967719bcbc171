//! A netlink socket for requests: one at a time, many in one send, or a dump.
//!
//! The socket belongs to the network namespace of the thread that opens it, and may be used from any thread.
//! Requests are carried out while they are being sent, so that nothing here waits for long.
//!
//! For a request now and then (a link, an address), take any message of netlink-packet-route:
//!
//! ```no_run
//! use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
//! use netlink_packet_route::RouteNetlinkMessage;
//! use rtnetlink::LinkVeth;
//!
//! let mut socket = routelet_netlink::Socket::open()?;
//! let veth = LinkVeth::new("host0", "pod0").up().build();
//! socket.request(&RouteNetlinkMessage::NewLink(veth), NLM_F_CREATE | NLM_F_EXCL)?;
//! # Ok::<(), routelet_netlink::Error>(())
//! ```

use std::io;

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NLMSG_ERROR, NetlinkSerializable};
use netlink_sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};

use crate::Error;
use crate::batch::Batch;
use crate::dump_answer::{Progress, until_undisturbed};
use crate::extack;
use crate::frame::{self, Frames};

/// Larger than any datagram of the kernel (which makes them up to 32 KiB, beyond that for one huge link only).
pub(crate) const DATAGRAM: usize = 64 * 1024;

/// How long an answer may be missing, in seconds. The kernel has answered when the send returns, so this is only
/// ever reached when answers were lost.
const ANSWER_TIMEOUT: i64 = 5;

/// A netlink socket for requests, to the routing part of the kernel or to netfilter.
#[derive(Debug)]
pub struct Socket {
    inner: netlink_sys::Socket,
    port: u32,
    sequence: u32,
    sending: Vec<u8>,
    received: Vec<u8>,
}

impl Socket {
    /// Opens a routing socket (NETLINK_ROUTE) in the network namespace of the calling thread.
    pub fn open() -> Result<Self, Error> {
        Self::open_to(NETLINK_ROUTE, "opening a netlink socket")
    }

    /// Opens a socket to netfilter (NETLINK_NETFILTER) in the network namespace of the calling thread. A kernel
    /// without netfilter refuses with EPROTONOSUPPORT.
    pub fn open_netfilter() -> Result<Self, Error> {
        Self::open_to(NETLINK_NETFILTER, "opening a netlink socket to netfilter")
    }

    fn open_to(protocol: isize, what: &'static str) -> Result<Self, Error> {
        let open = || {
            let mut inner = netlink_sys::Socket::new(protocol)?;
            let port = inner.bind_auto()?.port_number();
            // Kernels before 4.12 have no extended acknowledgements; their errors are numbers only.
            let _ = inner.set_ext_ack(true);
            let _ = inner.set_cap_ack(true);
            setsockopt(&inner, sockopt::ReceiveTimeout, &TimeVal::seconds(ANSWER_TIMEOUT))?;
            Ok((inner, port))
        };
        let (inner, port) = open().map_err(Error::io(what))?;
        let received = Vec::with_capacity(DATAGRAM);
        Ok(Self {
            inner,
            port,
            sequence: 0,
            sending: Vec::new(),
            received,
        })
    }

    /// Asks the kernel to check dump requests strictly, and thus to filter by all that they say. Returns whether
    /// it does (it has since 4.20).
    pub(crate) fn enable_strict_dumps(&mut self) -> bool {
        self.inner.set_netlink_get_strict_chk(true).is_ok()
    }

    /// The port id by which the kernel tells who caused a notification.
    pub(crate) fn port(&self) -> u32 {
        self.port
    }

    /// Sends one request and waits for its acknowledgement. `flags` are those beyond NLM_F_REQUEST and NLM_F_ACK,
    /// as NLM_F_CREATE | NLM_F_EXCL.
    pub fn request(&mut self, message: &impl NetlinkSerializable, flags: u16) -> Result<(), Error> {
        let sequence = self.send_one(message, flags | NLM_F_REQUEST | NLM_F_ACK)?;
        loop {
            self.receive_answer()?;
            for frame in Frames::new(&self.received) {
                let frame = frame?;
                if frame.sequence == sequence && frame.kind == NLMSG_ERROR {
                    return extack::read(&frame);
                }
            }
        }
    }

    /// Asks for one object; returns what `decode` makes of the payload of the answer.
    pub(crate) fn get<T>(
        &mut self,
        message: &impl NetlinkSerializable,
        decode: impl Fn(&[u8]) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let sequence = self.send_one(message, NLM_F_REQUEST)?;
        loop {
            self.receive_answer()?;
            for frame in Frames::new(&self.received) {
                let frame = frame?;
                if frame.sequence != sequence {
                    continue;
                }
                if frame.kind == NLMSG_ERROR {
                    extack::read(&frame)?;
                    return Err(Error::Decode("an acknowledgement in place of an answer"));
                }
                return decode(frame.payload);
            }
        }
    }

    /// Sends all messages of the batch at once. `failed` gets the label of each message that failed, and why;
    /// all others have been carried out. The batch is empty afterwards.
    pub(crate) fn send_batch(&mut self, batch: &mut Batch, failed: &mut dyn FnMut(usize, Error)) {
        let Some(last) = batch.seal(self.sequence.wrapping_add(1)) else {
            return;
        };
        self.sequence = last;
        if let Err(error) = self.send(batch.bytes()) {
            // Nothing of the datagram has been carried out.
            let errno = error.raw_os_error().unwrap_or(libc::EIO);
            for label in batch.labels() {
                failed(
                    *label,
                    Error::io("sending to the kernel")(io::Error::from_raw_os_error(errno)),
                );
            }
        } else {
            let mut told = Vec::new();
            let outcome = self.receive_outcomes(batch, last, &mut |label, error| {
                told.push(label);
                failed(label, error);
            });
            if outcome.is_err() {
                for label in batch.labels().iter().filter(|label| !told.contains(label)) {
                    failed(*label, Error::OutcomeUnknown);
                }
            }
        }
        batch.clear();
    }

    fn receive_outcomes(
        &mut self,
        batch: &Batch,
        last: u32,
        failed: &mut dyn FnMut(usize, Error),
    ) -> Result<(), Error> {
        loop {
            self.receive_answer()?;
            for frame in Frames::new(&self.received) {
                let frame = frame?;
                // Late answers to an earlier batch, whose outcome has been given up, have no label here.
                let Some(label) = batch.label(frame.sequence) else {
                    continue;
                };
                if frame.kind != NLMSG_ERROR {
                    continue;
                }
                if let Err(error) = extack::read(&frame) {
                    failed(label, error);
                }
                if frame.sequence == last {
                    return Ok(());
                }
            }
        }
    }

    /// Has netfilter carry out all of the messages, each with its flags beyond NLM_F_REQUEST and NLM_F_ACK, or, where
    /// one fails, none. The error is that of the first one that failed. `begin` and `end` are the subsystem's bounds of a
    /// transaction.
    pub(crate) fn transact<'a, M: NetlinkSerializable + 'a>(
        &mut self,
        begin: &M,
        end: &M,
        messages: impl ExactSizeIterator<Item = (&'a M, u16)>,
    ) -> Result<(), Error> {
        let count = messages.len() as u32;
        if count == 0 {
            return Ok(());
        }
        let first = self.sequence.wrapping_add(1);
        let last = first.wrapping_add(count);
        self.sequence = last.wrapping_add(1);
        let mut bytes = std::mem::take(&mut self.sending);
        bytes.clear();
        frame::write(&mut bytes, begin, NLM_F_REQUEST, first);
        for ((message, flags), number) in messages.zip(1..) {
            // Before 6.10 the end of a transaction is not acknowledged, so its last message is.
            let ack = if number == count { NLM_F_ACK } else { 0 };
            frame::write(
                &mut bytes,
                message,
                NLM_F_REQUEST | flags | ack,
                first.wrapping_add(number),
            );
        }
        frame::write(&mut bytes, end, NLM_F_REQUEST, self.sequence);
        let sent = self.send(&bytes).map_err(Error::io("sending to netfilter"));
        self.sending = bytes;
        sent?;
        let mut result = Ok(());
        loop {
            self.receive_answer()?;
            for frame in Frames::new(&self.received) {
                let frame = frame?;
                let number = frame.sequence.wrapping_sub(first);
                if frame.kind != NLMSG_ERROR || number > count {
                    continue;
                }
                let outcome = extack::read(&frame);
                // What goes wrong with the transaction as a whole is told of its beginning, and nothing more.
                let is_last = frame.sequence == last || (number == 0 && outcome.is_err());
                result = result.and(outcome);
                if is_last {
                    return result;
                }
            }
        }
    }

    /// Dumps a table: what `decode` makes of the type and the payload of each message is added to `found`. When the
    /// table changed meanwhile (NLM_F_DUMP_INTR), what was found is dropped and the dump is begun again.
    pub(crate) fn dump<T>(
        &mut self,
        message: &impl NetlinkSerializable,
        found: &mut Vec<T>,
        mut decode: impl FnMut(u16, &[u8]) -> Result<Option<T>, Error>,
    ) -> Result<(), Error> {
        until_undisturbed(found, |found| {
            let sequence = self.send_one(message, NLM_F_REQUEST | NLM_F_DUMP)?;
            let mut progress = Progress::default();
            // The answer is read to its end also when a message is unreadable: the next dump could not begin.
            let mut unreadable = Ok(());
            while !progress.done {
                self.receive_answer()?;
                progress.read(&self.received, sequence, |kind, payload| {
                    match decode(kind, payload) {
                        Ok(object) => found.extend(object),
                        Err(error) => unreadable = Err(error),
                    }
                })?;
            }
            unreadable.map(|()| progress)
        })
    }

    fn send_one(&mut self, message: &impl NetlinkSerializable, flags: u16) -> Result<u32, Error> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut bytes = std::mem::take(&mut self.sending);
        bytes.clear();
        frame::write(&mut bytes, message, flags, self.sequence);
        let sent = self.send(&bytes).map_err(Error::io("sending to the kernel"));
        self.sending = bytes;
        sent.map(|()| self.sequence)
    }

    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        loop {
            match self.inner.send(bytes, 0) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result.map(|_| ()),
            }
        }
    }

    /// Receives one datagram of the answer. What is missing, by timeout or overrun, is an unknown outcome.
    fn receive_answer(&mut self) -> Result<(), Error> {
        match receive(&self.inner, &mut self.received, 0) {
            Ok(()) => Ok(()),
            Err(Error::Io { source, .. })
                if source.kind() == io::ErrorKind::WouldBlock
                    || source.raw_os_error() == Some(libc::ENOBUFS) =>
            {
                Err(Error::OutcomeUnknown)
            }
            Err(error) => Err(error),
        }
    }
}

/// Receives one datagram into `buffer`, replacing what is in it.
pub(crate) fn receive(socket: &netlink_sys::Socket, buffer: &mut Vec<u8>, flags: i32) -> Result<(), Error> {
    loop {
        buffer.clear();
        match socket.recv(buffer, flags | libc::MSG_TRUNC) {
            Ok(length) if length > buffer.len() => {
                return Err(Error::Decode("a datagram larger than the receive buffer"));
            }
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Error::io("receiving from the kernel")(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::RouteNetlinkMessage;
    use netlink_packet_route::link::LinkMessage;

    use super::*;

    #[test]
    fn an_unreadable_message_fails_the_dump_and_not_the_next() {
        let mut socket = Socket::open().unwrap();
        let request = RouteNetlinkMessage::GetLink(LinkMessage::default());
        let mut found: Vec<()> = Vec::new();
        let result = socket.dump(&request, &mut found, |_, _| Err(Error::Decode("nothing suits")));
        assert!(matches!(result, Err(Error::Decode(_))));
        socket.dump(&request, &mut found, |_, _| Ok(Some(()))).unwrap();
        assert!(!found.is_empty());
    }
}
