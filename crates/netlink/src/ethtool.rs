//! What a link leaves to its device of the work on a packet: offloads, by the ioctl of the `ethtool` program, which all
//! kernels have (netlink learnt it with 5.7 only, and it is older ones that have broken offloads).
//!
//! Layout: `struct ethtool_value` and ETHTOOL_… of linux/ethtool.h.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use routelet_model::IfName;

use crate::{Error, Netns};

const GET_TX_CHECKSUM: u32 = 0x16;
const SET_TX_CHECKSUM: u32 = 0x17;
const GET_TSO: u32 = 0x1e;
const GET_GSO: u32 = 0x23;
const GET_GRO: u32 = 0x2b;

/// `struct ethtool_value`.
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

/// What a link's device does of the work on packets, or what the kernel does for several of them at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offloads {
    /// The checksums of what is sent.
    pub tx_checksum: bool,
    /// Cutting what is sent over TCP into segments (TSO).
    pub tso: bool,
    /// Cutting what is sent as late as possible (GSO).
    pub gso: bool,
    /// Joining what is received (GRO).
    pub gro: bool,
}

/// Reads and sets offloads in the network namespace it was opened in.
#[derive(Debug)]
pub struct Ethtool {
    /// Of any kind: the ioctl asks for a socket only to know the namespace.
    socket: OwnedFd,
}

impl Ethtool {
    /// Opens it in the namespace of the calling thread.
    pub fn open() -> Result<Self, Error> {
        let opened = socket(
            AddressFamily::Inet,
            SockType::Datagram,
            SockFlag::SOCK_CLOEXEC,
            None,
        );
        let socket = opened.map_err(|errno| Error::io("opening a socket for ethtool")(errno.into()))?;
        Ok(Self { socket })
    }

    /// Opens it in `netns`; the calling thread stays where it is.
    pub fn open_in(netns: &Netns) -> Result<Self, Error> {
        netns.run(Self::open)?
    }

    /// A link's offloads. [`Error::NoSuchLink`] where it is not there.
    pub fn offloads(&self, link: IfName) -> Result<Offloads, Error> {
        Ok(Offloads {
            tx_checksum: self.tx_checksum(link)?,
            tso: self.get(link, GET_TSO, "TSO")?,
            gso: self.get(link, GET_GSO, "GSO")?,
            gro: self.get(link, GET_GRO, "GRO")?,
        })
    }

    /// Whether a link's device makes the checksums of what is sent.
    pub fn tx_checksum(&self, link: IfName) -> Result<bool, Error> {
        self.get(link, GET_TX_CHECKSUM, "TX checksum offload")
    }

    /// Has a link's device make the checksums of what is sent, or the kernel before the device gets it.
    pub fn set_tx_checksum(&self, link: IfName, on: bool) -> Result<(), Error> {
        let what = format!(
            "switching TX checksum offload of {link} {}",
            if on { "on" } else { "off" }
        );
        self.ask(link, SET_TX_CHECKSUM, u32::from(on), what).map(drop)
    }

    fn get(&self, link: IfName, command: u32, what: &str) -> Result<bool, Error> {
        let value = self.ask(link, command, 0, format!("reading {what} of {link}"))?;
        Ok(value != 0)
    }

    #[expect(unsafe_code, reason = "no crate in use offers SIOCETHTOOL")]
    fn ask(&self, link: IfName, command: u32, data: u32, what: String) -> Result<u32, Error> {
        let mut value = Value { command, data };
        let mut name = [0; libc::IFNAMSIZ];
        for (to, from) in name.iter_mut().zip(link.as_str().bytes()) {
            *to = from as libc::c_char;
        }
        let mut request = libc::ifreq {
            ifr_name: name,
            ifr_ifru: libc::__c_anonymous_ifr_ifru {
                ifru_data: (&raw mut value).cast(),
            },
        };
        // SAFETY: the kernel reads `request`, whose name ends with a zero as it is one byte longer than any `IfName`,
        // and reads and writes the `struct ethtool_value` behind it. Both live until the call returns.
        let result = unsafe {
            libc::ioctl(
                self.socket.as_raw_fd(),
                libc::SIOCETHTOOL as libc::Ioctl,
                &raw mut request,
            )
        };
        if result >= 0 {
            return Ok(value.data);
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::ENODEV) => Err(Error::NoSuchLink(link)),
            _ => Err(Error::io(what)(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Setup;
    use crate::setup::VethEnd;

    #[test]
    fn offloads_are_read_and_set() {
        Netns::new()
            .unwrap()
            .run(|| {
                let [near, far] = ["cali0123456789a", "far0"].map(|name| name.parse::<IfName>().unwrap());
                let end = |name| VethEnd {
                    name,
                    ..VethEnd::default()
                };
                let here = Netns::current().unwrap();
                Setup::open()
                    .unwrap()
                    .add_veth(end(near.as_str()), end(far.as_str()), &here)
                    .unwrap();
                let ethtool = Ethtool::open().unwrap();
                let before = ethtool.offloads(near).unwrap();
                assert!(before.tx_checksum && before.gso, "{before:?}");
                ethtool.set_tx_checksum(near, false).unwrap();
                let after = ethtool.offloads(near).unwrap();
                // Without checksums by the device there is no cutting by it.
                assert_eq!((after.tx_checksum, after.tso, after.gso), (false, false, true));
                assert_eq!(
                    ethtool.offloads(far).unwrap(),
                    before,
                    "the other end has its own"
                );
                ethtool.set_tx_checksum(near, true).unwrap();
                assert_eq!(ethtool.offloads(near).unwrap(), before);
            })
            .unwrap();
    }

    #[test]
    fn what_a_link_cannot_and_a_link_that_is_not_there_are_told_apart() {
        let netns = Netns::new().unwrap();
        let ethtool = Ethtool::open_in(&netns).unwrap();
        let gone = "gone0".parse().unwrap();
        assert!(matches!(ethtool.tx_checksum(gone), Err(Error::NoSuchLink(link)) if link == gone));
        assert!(matches!(
            ethtool.set_tx_checksum(gone, false),
            Err(Error::NoSuchLink(_))
        ));
        // The loopback device makes no checksums at all, and that is fixed.
        let lo = "lo".parse().unwrap();
        assert!(ethtool.tx_checksum(lo).unwrap());
        let error = ethtool.set_tx_checksum(lo, false).unwrap_err();
        assert_eq!(error.errno(), Some(libc::EOPNOTSUPP));
        assert!(
            error.to_string().contains("TX checksum offload of lo off"),
            "{error}"
        );
    }
}
