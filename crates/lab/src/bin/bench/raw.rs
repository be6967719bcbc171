//! The yardstick: messages that are ready as bytes are sent and the answers received, and nothing else.

use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, setsockopt,
    socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

use crate::message::{ACK, Message, Received, messages, read_u16, read_u32};

/// Messages in one send.
const BATCH: usize = 200;

/// Larger than any datagram of the kernel.
const DATAGRAM: usize = 64 * 1024;

/// Seconds after which an answer is missing.
const PATIENCE: i64 = 10;

/// A netlink socket of the calling thread's namespace.
#[derive(Debug)]
pub(crate) struct RawSocket {
    fd: OwnedFd,
    buffer: Vec<u8>,
}

impl RawSocket {
    pub(crate) fn open() -> Result<Self> {
        Self::in_groups(SockProtocol::NetlinkRoute, 0)
    }

    /// One of nf_tables.
    pub(crate) fn open_nft() -> Result<Self> {
        Self::in_groups(SockProtocol::NetlinkNetFilter, 0)
    }

    /// One that hears the multicast groups of this mask.
    pub(crate) fn in_groups(protocol: SockProtocol, groups: u32) -> Result<Self> {
        let fd = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            protocol,
        )
        .context("opening a netlink socket")?;
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, groups)).context("binding a netlink socket")?;
        setsockopt(&fd, sockopt::ReceiveTimeout, &TimeVal::seconds(PATIENCE))?;
        if groups != 0 {
            setsockopt(&fd, sockopt::RcvBufForce, &(64 << 20)).context("enlarging a receive buffer")?;
        }
        Ok(Self {
            fd,
            buffer: vec![0; DATAGRAM],
        })
    }

    /// Sends each batch and waits for the one answer to it.
    pub(crate) fn write(&mut self, batches: &[Batch]) -> Result<()> {
        for batch in batches {
            send(self.fd.as_raw_fd(), &batch.bytes, MsgFlags::empty())?;
            let length = recv(self.fd.as_raw_fd(), &mut self.buffer, MsgFlags::empty())?;
            let answer = &self.buffer[..length];
            ensure!(
                read_u16(answer, 4) == Some(libc::NLMSG_ERROR as u16)
                    && read_u32(answer, 8) == Some(batch.last),
                "message {:?} of a batch of {} failed",
                read_u32(answer, 8),
                batch.last
            );
            fail_if_refused(answer)?;
        }
        Ok(())
    }

    /// Sends one message and waits for the answer.
    pub(crate) fn request(&mut self, message: Message) -> Result<()> {
        self.write(&batches(vec![message]))
    }

    /// Receives a dump to its end; `visit` sees each message.
    pub(crate) fn dump(&mut self, request: &Message, mut visit: impl FnMut(Received<'_>)) -> Result<()> {
        send(self.fd.as_raw_fd(), &request.0, MsgFlags::empty())?;
        loop {
            for message in messages(self.receive()?) {
                match i32::from(message.kind) {
                    libc::NLMSG_DONE => return Ok(()),
                    libc::NLMSG_ERROR => bail!("a dump failed: {:?}", errno(message.payload)),
                    _ => visit(message),
                }
            }
        }
    }

    /// Receives a dump and looks at nothing but where it ends.
    pub(crate) fn receive_dump(&mut self, request: &Message) -> Result<()> {
        send(self.fd.as_raw_fd(), &request.0, MsgFlags::empty())?;
        // The kernel puts the end into a datagram of its own, or behind the last message of one.
        const DONE: usize = 20;
        loop {
            let datagram = self.receive()?;
            let tail = datagram.len().saturating_sub(DONE);
            if read_u32(datagram, tail) == Some(DONE as u32)
                && read_u16(datagram, tail + 4) == Some(libc::NLMSG_DONE as u16)
            {
                return Ok(());
            }
        }
    }

    /// Waits for the next datagram.
    pub(crate) fn receive(&mut self) -> Result<&[u8]> {
        match recv(self.fd.as_raw_fd(), &mut self.buffer, MsgFlags::empty()) {
            Ok(length) => Ok(&self.buffer[..length]),
            Err(Errno::EAGAIN) => bail!("nothing came from the kernel for {PATIENCE} s"),
            Err(errno) => Err(errno).context("receiving from the kernel"),
        }
    }

    /// Drops what has come so far.
    pub(crate) fn empty(&mut self) -> Result<()> {
        loop {
            match recv(self.fd.as_raw_fd(), &mut self.buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(_) => {}
                Err(Errno::EAGAIN) => return Ok(()),
                Err(errno) => return Err(errno).context("receiving from the kernel"),
            }
        }
    }
}

/// Messages for one send, of which the last asks for an answer.
#[derive(Debug)]
pub(crate) struct Batch {
    bytes: Vec<u8>,
    /// Sequence number of the last message.
    last: u32,
}

impl Batch {
    /// A message that asks for an answer, between two that do not.
    pub(crate) fn around(before: &Message, message: Message, after: &Message) -> Self {
        let Self { bytes, last } = Self::of(&[message]);
        Self {
            bytes: [before.0.as_slice(), &bytes, &after.0].concat(),
            last,
        }
    }

    fn of(messages: &[Message]) -> Self {
        let mut batch = Self {
            bytes: Vec::new(),
            last: messages.len() as u32,
        };
        for (sequence, message) in (1..).zip(messages) {
            let start = batch.bytes.len();
            batch.bytes.extend(&message.0);
            batch.bytes[start + 8..start + 12].copy_from_slice(&u32::to_ne_bytes(sequence));
            if sequence == batch.last {
                let flags = read_u16(&message.0, 6).unwrap_or_default() | ACK;
                batch.bytes[start + 6..start + 8].copy_from_slice(&flags.to_ne_bytes());
            }
        }
        batch
    }
}

/// Puts messages together.
pub(crate) fn batches(messages: Vec<Message>) -> Vec<Batch> {
    messages.chunks(BATCH).map(Batch::of).collect()
}

fn errno(payload: &[u8]) -> Errno {
    Errno::from_raw(
        read_u32(payload, 0)
            .unwrap_or_default()
            .cast_signed()
            .saturating_neg(),
    )
}

fn fail_if_refused(answer: &[u8]) -> Result<()> {
    match read_u32(answer, 16) {
        Some(0) => Ok(()),
        _ => bail!(
            "the kernel refused a message: {}",
            errno(answer.get(16..).unwrap_or_default())
        ),
    }
}
