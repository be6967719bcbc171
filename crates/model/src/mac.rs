//! Ethernet addresses.

use std::fmt;
use std::str::FromStr;

/// An Ethernet (MAC) address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MacAddr(pub [u8; 6]);

/// A text that is no Ethernet address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no MAC address: six hexadecimal bytes joined by ':' are wanted, as in 66:b3:68:28:39:8e")]
pub struct InvalidMac(pub String);

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for MacAddr {
    type Err = InvalidMac;

    fn from_str(text: &str) -> Result<Self, InvalidMac> {
        let invalid = || InvalidMac(text.to_owned());
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts
                .next()
                .filter(|p| p.len() == 2 && !p.starts_with('+'))
                .ok_or_else(invalid)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| invalid())?;
        }
        if parts.next().is_some() {
            Err(invalid())
        } else {
            Ok(Self(bytes))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_back() {
        let mac: MacAddr = "66:b3:68:28:39:8e".parse().unwrap();
        assert_eq!(mac, MacAddr([0x66, 0xb3, 0x68, 0x28, 0x39, 0x8e]));
        assert_eq!(mac.to_string(), "66:b3:68:28:39:8e");
    }

    #[test]
    fn refuses_what_is_no_mac() {
        for text in [
            "",
            "66:b3:68:28:39",
            "66:b3:68:28:39:8e:00",
            "66:b3:68:28:39:8g",
            "66:b3:68:28:39:+e",
        ] {
            assert!(text.parse::<MacAddr>().is_err(), "{text:?}");
        }
    }
}
