//! Values of settings: each from its text, or an error that says what is allowed.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;
use routelet_model::{IfName, host_veth_name};

/// Longest path of a unix socket, in bytes: `sun_path` of sys/un.h without its closing zero.
const SOCKET_PATH: usize = 107;

/// MTU of the VXLAN devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mtu {
    /// What the device below leaves.
    Auto,
    /// This many bytes.
    Bytes(u32),
}

impl Mtu {
    /// The number of bytes, where one is given.
    pub(crate) fn bytes(self) -> Option<u32> {
        match self {
            Self::Auto => None,
            Self::Bytes(bytes) => Some(bytes),
        }
    }
}

impl FromStr for Mtu {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            _ => number(text, 576..=65535)
                .map(Self::Bytes)
                .map_err(|allowed| format!("{allowed}, or \"auto\"")),
        }
    }
}

/// Where probes and metrics are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AdminAddress {
    /// Nowhere.
    Off,
    /// At this address and port.
    At(SocketAddr),
}

impl FromStr for AdminAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(Self::Off),
            _ => text.parse().map(Self::At).map_err(|_| {
                "an IP address and a port are wanted, as in 127.0.0.1:9099 or [::1]:9099, or \"off\""
                    .to_owned()
            }),
        }
    }
}

/// Unix socket that serves what the admin address does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AdminSocket {
    /// None.
    Off,
    /// At this path.
    At(PathBuf),
}

impl FromStr for AdminSocket {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(Self::Off),
            _ if text.starts_with('/') && text.len() <= SOCKET_PATH => Ok(Self::At(text.into())),
            _ => Err(format!(
                "an absolute path of at most {SOCKET_PATH} bytes is wanted, or \"off\""
            )),
        }
    }
}

/// When what no pod has any more is taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SweepAfter {
    /// Never.
    Off,
    /// After so long.
    Time(Duration),
}

impl FromStr for SweepAfter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(Self::Off),
            _ => time(text, 1)
                .map(Self::Time)
                .map_err(|allowed| format!("{allowed}, or \"off\"")),
        }
    }
}

/// A whole number in a range.
fn number<T>(text: &str, allowed: RangeInclusive<T>) -> Result<T, String>
where
    T: FromStr + PartialOrd + std::fmt::Display,
{
    text.parse()
        .ok()
        .filter(|number| allowed.contains(number))
        .ok_or_else(|| {
            format!(
                "a whole number from {} to {} is wanted",
                allowed.start(),
                allowed.end()
            )
        })
}

/// A VXLAN network identifier: 24 bits.
pub(super) fn vni(text: &str) -> Result<u32, String> {
    number(text, 0..=0xff_ffff)
}

/// A port of TCP or UDP.
pub(super) fn port(text: &str) -> Result<u16, String> {
    number(text, 1..=u16::MAX)
}

/// Probes in a second.
pub(super) fn probes(text: &str) -> Result<u32, String> {
    number(text, 1..=1000)
}

/// Size of a socket's receive buffer: from a quarter of the kernel's default to what its `int` can double.
pub(super) fn receive_buffer(text: &str) -> Result<u32, String> {
    number(text, 1 << 16..=1 << 30)
}

/// Name of a Node: a DNS subdomain, as Kubernetes wants it.
pub(super) fn node_name(text: &str) -> Result<String, String> {
    let fits = text.len() <= 253
        && text.split('.').all(|label| {
            !label.is_empty()
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        });
    if fits {
        Ok(text.to_owned())
    } else {
        Err(
            "the name of a Node object is wanted: at most 253 lower-case letters, digits, '-' and '.'"
                .to_owned(),
        )
    }
}

/// Host name or address, without scheme and port.
pub(super) fn host(text: &str) -> Result<String, String> {
    let is_name = || {
        !text.is_empty()
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
    };
    if text.parse::<IpAddr>().is_ok() || is_name() {
        Ok(text.to_owned())
    } else {
        Err("a host name or an IP address is wanted, without scheme, brackets and port".to_owned())
    }
}

/// Beginning of host veths' names: what leaves room for the hash after it.
pub(super) fn interface_prefix(text: &str) -> Result<String, String> {
    if IfName::new(text).is_ok() && host_veth_name(text, "", "").is_ok() {
        Ok(text.to_owned())
    } else {
        Err(
            "1 to 4 printable ASCII characters are wanted, none of them a space, '/', ':' or '%': \
             11 more follow in a name of at most 15"
                .to_owned(),
        )
    }
}

/// A network, or a single address. Bits beyond the prefix are a mistake that would be hard to see.
pub(super) fn cidr(text: &str) -> Result<IpNet, String> {
    let wanted = "a network is wanted, as in 10.0.0.0/8 or fd00::/8";
    let net = text
        .parse()
        .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
        .map_err(|_| wanted.to_owned())?;
    if net == net.trunc() {
        Ok(net)
    } else {
        Err(format!(
            "{wanted}: the network of this one begins at {}",
            net.trunc()
        ))
    }
}

/// Names that tables of other programs have, or those of the administrator's own rules by custom.
const TAKEN_TABLES: [&str; 6] = ["filter", "nat", "mangle", "raw", "security", "firewalld"];

/// A path from the root on.
pub(super) fn absolute(text: &str) -> Result<PathBuf, String> {
    match text.starts_with('/') {
        true => Ok(text.into()),
        false => Err("an absolute path is wanted".to_owned()),
    }
}

/// Name of an nft table: one that nft takes without quotes.
pub(super) fn nft_table(text: &str) -> Result<String, String> {
    let fits = text.len() <= 63
        && text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.'));
    let wanted = "a letter and at most 62 more letters, digits, '_' and '.' are wanted";
    if !fits {
        Err(wanted.to_owned())
    } else if TAKEN_TABLES.contains(&text) {
        Err(format!(
            "tables of this name have other users, and the agent removes from its own all that it has not made: \
             {wanted}, and none of {}",
            TAKEN_TABLES.join(", ")
        ))
    } else {
        Ok(text.to_owned())
    }
}

/// Protocol numbers of `linux/rtnetlink.h` that have a user.
const TAKEN_PROTOCOLS: [(u8, &str); 24] = [
    (0, "unspecified"),
    (1, "ICMP redirects"),
    (2, "the kernel"),
    (3, "routes set during boot"),
    (4, "routes set by an administrator"),
    (8, "GateD"),
    (9, "IPv6 router advertisements"),
    (10, "Merit MRT"),
    (11, "Zebra"),
    (12, "BIRD"),
    (13, "DECnet routing"),
    (14, "XORP"),
    (15, "Netsukuku"),
    (16, "DHCP"),
    (17, "mrouted"),
    (18, "keepalived"),
    (42, "Babel"),
    (84, "ovn"),
    (99, "Open/R"),
    (186, "BGP"),
    (187, "IS-IS"),
    (188, "OSPF"),
    (189, "RIP"),
    (192, "EIGRP"),
];

/// A routing protocol number that no one else uses: what carries it is the agent's to remove.
pub(super) fn route_protocol(text: &str) -> Result<u8, String> {
    let number =
        number(text, 0..=u8::MAX).map_err(|_| "a whole number from 5 to 255 is wanted".to_owned())?;
    match TAKEN_PROTOCOLS.iter().find(|(taken, _)| *taken == number) {
        None => Ok(number),
        Some((_, user)) => Err(format!(
            "{number} stands for {user}, and the agent removes what carries its number: \
             a number from 5 to 255 is wanted that nothing else on this node uses"
        )),
    }
}

/// A time of 1 s to 24 h.
pub(super) fn audit_interval(text: &str) -> Result<Duration, String> {
    time(text, 1)
}

/// A time of 0 to 24 h.
pub(super) fn timeout(text: &str) -> Result<Duration, String> {
    time(text, 0)
}

/// A time from so many seconds to 24 h.
fn time(text: &str, at_least: u64) -> Result<Duration, String> {
    let units = [('s', 1), ('m', 60), ('h', 3600)];
    let seconds = units.iter().find_map(|(unit, seconds)| {
        text.strip_suffix(*unit)?
            .parse::<u64>()
            .ok()?
            .checked_mul(*seconds)
    });
    match seconds {
        Some(seconds) if (at_least..=86_400).contains(&seconds) => Ok(Duration::from_secs(seconds)),
        _ => Err(format!(
            "a time from {at_least}s to 24h is wanted, as in 60s, 5m or 1h"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edges_of_the_ranges() {
        assert_eq!((vni("0"), vni("16777215")), (Ok(0), Ok(0xff_ffff)));
        assert_eq!((port("1"), port("65535")), (Ok(1), Ok(65535)));
        assert_eq!(
            ("576".parse(), "65535".parse()),
            (Ok(Mtu::Bytes(576)), Ok(Mtu::Bytes(65535)))
        );
        assert_eq!(audit_interval("24h"), Ok(Duration::from_secs(86_400)));
        assert_eq!(timeout("0s"), Ok(Duration::ZERO));
        for text in ["", "-1", "0x10", "16777216", "4096 "] {
            assert!(vni(text).is_err(), "{text:?}");
        }
        for text in ["65536", "0", "575", "Auto", "1500 "] {
            assert!(text.parse::<Mtu>().is_err(), "{text:?}");
        }
        for text in [
            "",
            "s",
            "0s",
            "1.5h",
            "25h",
            "60",
            "1d",
            "-1s",
            "99999999999999999999h",
        ] {
            assert!(audit_interval(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn node_names_are_those_of_kubernetes() {
        for name in ["node-1", "10.0.0.1", "ip-10-0-0-1.eu.example.com"] {
            assert_eq!(node_name(name).as_deref(), Ok(name));
        }
        for name in [
            "",
            "Node",
            "a..b",
            "-a",
            "a-",
            "$(NODE_NAME)",
            "node 1",
            &"a".repeat(254),
        ] {
            assert!(node_name(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn hosts_come_without_scheme_and_port() {
        for text in ["10.0.0.1", "fd00::1", "api.example.com"] {
            assert_eq!(host(text).as_deref(), Ok(text));
        }
        for text in ["", "https://api", "api:6443", "[fd00::1]", "a b"] {
            assert!(host(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_prefix_leaves_room_for_the_hash() {
        for text in ["c", "cali"] {
            assert_eq!(interface_prefix(text).as_deref(), Ok(text));
        }
        for text in ["", "calic", "a/b", "é"] {
            assert!(interface_prefix(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn protocol_numbers_of_others_are_refused_with_their_name() {
        for text in ["5", "80", "255"] {
            assert!(route_protocol(text).is_ok(), "{text}");
        }
        for (text, reason) in [
            ("2", "the kernel"),
            ("4", "administrator"),
            ("12", "BIRD"),
            ("256", "5 to 255"),
        ] {
            let error = route_protocol(text).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn networks_have_no_host_bits() {
        for (text, net) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("192.0.2.1", "192.0.2.1/32"),
            ("fd00::/8", "fd00::/8"),
        ] {
            assert_eq!(cidr(text).unwrap().to_string(), net);
        }
        for text in ["", "10.0.0.0/33", "10.0.0/8", "fd00::/8 ", "all"] {
            assert!(cidr(text).is_err(), "{text:?}");
        }
        assert!(cidr("10.1.0.0/8").unwrap_err().ends_with("begins at 10.0.0.0/8"));
    }

    #[test]
    fn tables_of_others_are_refused() {
        for text in ["routelet", "r", "A1_b.c"] {
            assert_eq!(nft_table(text).as_deref(), Ok(text));
        }
        for text in ["", "1st", "a b", "a-b", "é", "filter", &"a".repeat(64)] {
            assert!(nft_table(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn admin_address_needs_a_port() {
        assert_eq!("off".parse(), Ok(AdminAddress::Off));
        assert_eq!(
            "[::1]:80".parse(),
            Ok(AdminAddress::At("[::1]:80".parse().unwrap()))
        );
        for text in ["", "127.0.0.1", "localhost:9099", ":9099"] {
            assert!(text.parse::<AdminAddress>().is_err(), "{text:?}");
        }
    }
}
