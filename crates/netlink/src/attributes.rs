//! Attributes of a netlink message, read in place.
//!
//! Only what is asked for is looked at: netlink-packet-route's own decoders turn every attribute into a value,
//! which costs several times as much and refuses a whole message for one attribute that is of no interest.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_core::{NLA_HEADER_SIZE, NLA_TYPE_MASK};
use routelet_model::{Family, IfName, MacAddr};

use crate::Error;
use crate::frame::{align, read_u16, read_u32};

/// One attribute (`struct nlattr`).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attribute<'a> {
    /// Its type, without the flags.
    pub(crate) kind: u16,
    /// Its value.
    pub(crate) value: &'a [u8],
}

/// The attributes of a message, or those nested in another, in order. Ends after the first that is malformed.
#[derive(Debug, Clone)]
pub(crate) struct Attributes<'a>(&'a [u8]);

impl<'a> Attributes<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The attributes of a message whose own header is `header` bytes long.
    pub(crate) fn after(payload: &'a [u8], header: usize) -> Result<Self, Error> {
        payload
            .get(header..)
            .map(Self)
            .ok_or(Error::Decode("a message shorter than its own header"))
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = Result<Attribute<'a>, Error>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let bytes = std::mem::take(&mut self.0);
        let length = read_u16(bytes, 0).map_or(0, usize::from);
        if length < NLA_HEADER_SIZE || length > bytes.len() {
            return Some(Err(Error::Decode(
                "an attribute whose length does not fit its message",
            )));
        }
        self.0 = bytes.get(align(length)..).unwrap_or_default();
        let kind = read_u16(bytes, 2).unwrap_or_default() & NLA_TYPE_MASK;
        Some(Ok(Attribute {
            kind,
            value: &bytes[NLA_HEADER_SIZE..length],
        }))
    }
}

impl<'a> Attribute<'a> {
    /// The attributes that are nested in this one.
    pub(crate) fn nested(&self) -> Attributes<'a> {
        Attributes::new(self.value)
    }

    pub(crate) fn u8(&self) -> Result<u8, Error> {
        self.value
            .first()
            .copied()
            .ok_or(Error::Decode("an empty attribute in place of a byte"))
    }

    pub(crate) fn u16_be(&self) -> Result<u16, Error> {
        let bytes = self
            .value
            .try_into()
            .map_err(|_| Error::Decode("an attribute that is no 16-bit number"))?;
        Ok(u16::from_be_bytes(bytes))
    }

    pub(crate) fn u32(&self) -> Result<u32, Error> {
        read_u32(self.value, 0).ok_or(Error::Decode("an attribute that is no 32-bit number"))
    }

    /// A number of netfilter's, which are big-endian.
    pub(crate) fn u32_be(&self) -> Result<u32, Error> {
        self.u32().map(u32::from_be)
    }

    /// An address of either family, told by its length.
    pub(crate) fn address(&self) -> Result<IpAddr, Error> {
        if let Ok(bytes) = <[u8; 4]>::try_from(self.value) {
            return Ok(Ipv4Addr::from(bytes).into());
        }
        if let Ok(bytes) = <[u8; 16]>::try_from(self.value) {
            return Ok(Ipv6Addr::from(bytes).into());
        }
        Err(Error::Decode("an attribute that is no IP address"))
    }

    /// An Ethernet address; `None` where the link has an address of another length.
    pub(crate) fn mac(&self) -> Option<MacAddr> {
        self.value.try_into().ok().map(MacAddr)
    }

    /// Text up to the closing zero.
    pub(crate) fn text(&self) -> &'a str {
        let bytes = self.value.split(|byte| *byte == 0).next().unwrap_or_default();
        std::str::from_utf8(bytes).unwrap_or_default()
    }

    /// A link's name; `None` where it is one that we cannot hold (not ASCII).
    pub(crate) fn name(&self) -> Option<IfName> {
        IfName::new(self.text()).ok()
    }
}

/// The kernel's number of an address family.
pub(crate) fn family_number(family: Family) -> u8 {
    match family {
        Family::V4 => libc::AF_INET as u8,
        Family::V6 => libc::AF_INET6 as u8,
    }
}

/// The family that the kernel's number stands for.
pub(crate) fn family_of_number(number: u8) -> Option<Family> {
    Family::ALL
        .into_iter()
        .find(|family| family_number(*family) == number)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn padded_and_nested() {
        let bytes = [5, 0, 1, 0, 7, 0, 0, 0, 12, 0, 2, 0x80, 8, 0, 3, 0, 1, 0, 0, 0];
        let attributes: Vec<_> = Attributes::new(&bytes).map(Result::unwrap).collect();
        assert_eq!(attributes.len(), 2);
        assert_eq!((attributes[0].kind, attributes[0].u8().unwrap()), (1, 7));
        assert_eq!(attributes[1].kind, 2);
        let inner = attributes[1].nested().next().unwrap().unwrap();
        assert_eq!(
            (inner.kind, inner.u32().unwrap()),
            (3, u32::from_ne_bytes([1, 0, 0, 0]))
        );
    }

    proptest! {
        #[test]
        fn any_bytes_end(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            for attribute in Attributes::new(&bytes).flatten() {
                let _ = (attribute.u8(), attribute.u16_be(), attribute.u32(), attribute.address());
                let _ = (attribute.mac(), attribute.text(), attribute.name());
            }
        }
    }
}
