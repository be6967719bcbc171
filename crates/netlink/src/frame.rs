//! Netlink messages as bytes: the header that all of them share, and how to take a datagram apart.
//!
//! Layout: `struct nlmsghdr` of linux/netlink.h.

use netlink_packet_core::NetlinkSerializable;

use crate::Error;

/// Bytes of `struct nlmsghdr`.
pub(crate) const HEADER: usize = 16;

/// One message of a datagram.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Frame<'a> {
    /// `nlmsg_type`.
    pub(crate) kind: u16,
    /// `nlmsg_flags`.
    pub(crate) flags: u16,
    /// `nlmsg_seq`: that of the request which is answered.
    pub(crate) sequence: u32,
    /// What follows the header.
    pub(crate) payload: &'a [u8],
}

/// The messages of a datagram, in order. Ends after the first that is malformed.
pub(crate) struct Frames<'a>(&'a [u8]);

impl<'a> Frames<'a> {
    pub(crate) fn new(datagram: &'a [u8]) -> Self {
        Self(datagram)
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = Result<Frame<'a>, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let datagram = std::mem::take(&mut self.0);
        let length = read_u32(datagram, 0).map_or(0, |length| length as usize);
        if length < HEADER || length > datagram.len() {
            return Some(Err(Error::Decode(
                "a netlink header whose length does not fit its datagram",
            )));
        }
        self.0 = datagram.get(align(length)..).unwrap_or_default();
        Some(Ok(Frame {
            kind: read_u16(datagram, 4).unwrap_or_default(),
            flags: read_u16(datagram, 6).unwrap_or_default(),
            sequence: read_u32(datagram, 8).unwrap_or_default(),
            payload: &datagram[HEADER..length],
        }))
    }
}

/// Appends a message with its header to `buffer`; returns where it begins.
pub(crate) fn write<M: NetlinkSerializable>(
    buffer: &mut Vec<u8>,
    message: &M,
    flags: u16,
    sequence: u32,
) -> usize {
    let start = buffer.len();
    let length = HEADER + message.buffer_len();
    buffer.resize(start + align(length), 0);
    let header = &mut buffer[start..start + HEADER];
    header[0..4].copy_from_slice(&(length as u32).to_ne_bytes());
    header[4..6].copy_from_slice(&message.message_type().to_ne_bytes());
    header[6..8].copy_from_slice(&flags.to_ne_bytes());
    header[8..12].copy_from_slice(&sequence.to_ne_bytes());
    message.serialize(&mut buffer[start + HEADER..start + length]);
    start
}

/// Adds flags to the message that begins at `start`.
pub(crate) fn add_flags(buffer: &mut [u8], start: usize, flags: u16) {
    let present = read_u16(buffer, start + 6).unwrap_or_default();
    buffer[start + 6..start + 8].copy_from_slice(&(present | flags).to_ne_bytes());
}

/// Numbers the message that begins at `start`.
pub(crate) fn set_sequence(buffer: &mut [u8], start: usize, sequence: u32) {
    buffer[start + 8..start + 12].copy_from_slice(&sequence.to_ne_bytes());
}

/// A 16-bit number of the machine's byte order.
pub(crate) fn read_u16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

/// A 32-bit number of the machine's byte order.
pub(crate) fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// `NLMSG_ALIGN`.
pub(crate) fn align(length: usize) -> usize {
    length.next_multiple_of(4)
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::RouteNetlinkMessage;
    use netlink_packet_route::link::LinkMessage;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut buffer = Vec::new();
        for sequence in 1..=3 {
            let message = RouteNetlinkMessage::GetLink(LinkMessage::default());
            let start = write(&mut buffer, &message, 0x1, sequence);
            add_flags(&mut buffer, start, 0x4);
        }
        let frames: Vec<_> = Frames::new(&buffer).map(Result::unwrap).collect();
        assert_eq!(frames.len(), 3);
        assert_eq!(frames.iter().map(|f| f.sequence).collect::<Vec<_>>(), [1, 2, 3]);
        assert!(
            frames
                .iter()
                .all(|f| f.kind == 18 && f.flags == 0x5 && f.payload.len() == 16)
        );
    }

    #[test]
    fn a_length_that_lies_ends_the_datagram() {
        let mut buffer = Vec::new();
        write(
            &mut buffer,
            &RouteNetlinkMessage::GetLink(LinkMessage::default()),
            0,
            1,
        );
        buffer[0] = 200;
        let frames: Vec<_> = Frames::new(&buffer).collect();
        assert!(matches!(frames.as_slice(), [Err(Error::Decode(_))]));
    }

    proptest! {
        #[test]
        fn any_bytes_end(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            for frame in Frames::new(&bytes) {
                let _ = frame;
            }
        }
    }
}
