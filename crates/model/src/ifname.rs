//! Names of network interfaces.

use std::fmt;
use std::str::FromStr;

/// Longest name that the kernel takes, in bytes (`IFNAMSIZ` less the closing zero).
const MAX: usize = 15;

/// The name of a network interface, held in place: one to 15 bytes, as the kernel wants them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IfName {
    bytes: [u8; MAX],
    len: u8,
}

/// A text that cannot name an interface.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no interface name: 1 to 15 printable ASCII characters are wanted, none of them a space, '/', ':' or '%', and not '.' or '..'"
)]
pub struct InvalidIfName(pub String);

impl IfName {
    /// Checks and takes a name.
    pub fn new(name: &str) -> Result<Self, InvalidIfName> {
        let fits = (1..=MAX).contains(&name.len())
            && name != "."
            && name != ".."
            && name.bytes().all(|b| b.is_ascii_graphic() && !b"/:%".contains(&b));
        if !fits {
            return Err(InvalidIfName(name.to_owned()));
        }
        let mut bytes = [0; MAX];
        bytes[..name.len()].copy_from_slice(name.as_bytes());
        Ok(Self {
            bytes,
            len: name.len() as u8,
        })
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..usize::from(self.len)]).unwrap_or_default()
    }
}

impl FromStr for IfName {
    type Err = InvalidIfName;

    fn from_str(text: &str) -> Result<Self, InvalidIfName> {
        Self::new(text)
    }
}

impl fmt::Display for IfName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for IfName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_what_the_kernel_takes() {
        for name in ["eth0", "vxlan.calico", "cali14e7d81007d", "vxlan-v6.calico", "a"] {
            assert_eq!(IfName::new(name).unwrap().as_str(), name);
        }
    }

    #[test]
    fn refuses_what_the_kernel_refuses() {
        for name in [
            "",
            ".",
            "..",
            "a/b",
            "a b",
            "eth0:1",
            "cali%d",
            "sixteen-letters!",
            "é",
        ] {
            assert_eq!(IfName::new(name), Err(InvalidIfName(name.to_owned())));
        }
    }
}
