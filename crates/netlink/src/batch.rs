//! Many messages in one send: only the last asks for an acknowledgement, so that the kernel answers once, and
//! says more only where something fails.

use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST, NetlinkSerializable};

use crate::frame;

/// Most messages in a batch. If all of them fail, 200 answers still fit a receive buffer of the default size,
/// which holds 256.
const MESSAGES: usize = 200;

/// Bytes of messages after which a batch counts as full. The kernel holds RTNL while it works one off.
const BYTES: usize = 16 * 1024;

/// Messages that are to be sent together. Its memory is used again by the next batch.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    bytes: Vec<u8>,
    /// Where each message begins, and the caller's label for it.
    starts: Vec<usize>,
    labels: Vec<usize>,
    /// Sequence number of the first message, once sealed.
    first: u32,
}

impl Batch {
    /// Adds a message; `flags` are those beyond NLM_F_REQUEST. An outcome will be told under `label`.
    pub(crate) fn push(&mut self, label: usize, message: &impl NetlinkSerializable, flags: u16) {
        self.starts
            .push(frame::write(&mut self.bytes, message, flags | NLM_F_REQUEST, 0));
        self.labels.push(label);
    }

    /// Whether the batch should be sent before anything is added.
    pub(crate) fn is_full(&self) -> bool {
        self.labels.len() >= MESSAGES || self.bytes.len() >= BYTES
    }

    /// Numbers the messages from `first` on and has the last one acknowledged. Returns the last number, or `None`
    /// where there is nothing to send.
    pub(crate) fn seal(&mut self, first: u32) -> Option<u32> {
        self.first = first;
        let mut sequence = first;
        for start in &self.starts {
            frame::set_sequence(&mut self.bytes, *start, sequence);
            sequence = sequence.wrapping_add(1);
        }
        frame::add_flags(&mut self.bytes, *self.starts.last()?, NLM_F_ACK);
        Some(sequence.wrapping_sub(1))
    }

    /// What is to be sent.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The labels in the order of the messages.
    pub(crate) fn labels(&self) -> &[usize] {
        &self.labels
    }

    /// The label of the message with this sequence number.
    pub(crate) fn label(&self, sequence: u32) -> Option<usize> {
        self.labels
            .get(sequence.wrapping_sub(self.first) as usize)
            .copied()
    }

    /// Makes room for the next batch.
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.starts.clear();
        self.labels.clear();
    }
}
