//! The setting by which a node's underlay address is chosen.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use routelet_model::{Family, IfName, PerFamily};

/// Which of a node's addresses is that of its tunnels' end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UnderlayRule {
    /// The Node's InternalIP; where there is none, its ExternalIP.
    InternalIp,
    /// One of the first link with a usable address whose name fits: the patterns in their order, the links in the
    /// kernel's.
    Interface(Vec<LinkPattern>),
    /// One within the first of the networks that holds any. Of other nodes: of those that their Node objects list.
    Cidr(Vec<IpNet>),
    /// The one that the kernel sends from to these. A family without one has [`UnderlayRule::InternalIp`].
    CanReach(PerFamily<Option<IpAddr>>),
}

impl UnderlayRule {
    /// The addresses to which the host's ways are to be known ([`Host::sources`](routelet_model::Host::sources)).
    pub fn destinations(&self) -> Vec<IpAddr> {
        match self {
            Self::CanReach(to) => Family::ALL
                .into_iter()
                .filter_map(|family| *to.get(family))
                .collect(),
            Self::InternalIp | Self::Interface(_) | Self::Cidr(_) => Vec::new(),
        }
    }
}

/// What is allowed, for whoever has written something else.
const WANTED: &str = "\"internal-ip\", interface=NAME,..., cidr=CIDR,... or can-reach=ADDRESS,... is wanted";

impl FromStr for UnderlayRule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "internal-ip" {
            return Ok(Self::InternalIp);
        }
        let (form, list) = text.split_once('=').ok_or(WANTED)?;
        let words = || list.split(',');
        match form {
            "interface" => words()
                .map(str::parse)
                .collect::<Result<_, _>>()
                .map(Self::Interface),
            "cidr" => words().map(network).collect::<Result<_, _>>().map(Self::Cidr),
            "can-reach" => {
                let mut to = PerFamily::<Option<IpAddr>>::default();
                for word in words() {
                    let address: IpAddr = word.parse().map_err(|_| format!("{word:?} is no IP address"))?;
                    if to.get_mut(Family::of(address)).replace(address).is_some() {
                        return Err("can-reach takes one address of each family".to_owned());
                    }
                }
                Ok(Self::CanReach(to))
            }
            _ => Err(WANTED.to_owned()),
        }
    }
}

fn network(word: &str) -> Result<IpNet, String> {
    let net: IpNet = word
        .parse()
        .map_err(|_| format!("{word:?} is no network, as 10.0.0.0/8 or fd00::/8 are"))?;
    match net == net.trunc() {
        true => Ok(net),
        false => Err(format!("the network of {word} begins at {}", net.trunc())),
    }
}

/// As it is set.
impl fmt::Display for UnderlayRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (form, words) = match self {
            Self::InternalIp => return f.write_str("internal-ip"),
            Self::Interface(patterns) => ("interface", texts(patterns)),
            Self::Cidr(nets) => ("cidr", texts(nets)),
            Self::CanReach(_) => ("can-reach", texts(&self.destinations())),
        };
        write!(f, "{form}={}", words.join(","))
    }
}

fn texts<T: ToString>(list: &[T]) -> Vec<String> {
    list.iter().map(T::to_string).collect()
}

/// A link's name, in which `*` stands for any characters, or none, and `?` for one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkPattern(String);

impl LinkPattern {
    pub(crate) fn fits(&self, link: IfName) -> bool {
        fits(self.0.as_bytes(), link.as_str().as_bytes())
    }
}

fn fits(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern, name) {
        ([], rest) => rest.is_empty(),
        ([b'*', after @ ..], rest) => (0..=rest.len()).any(|taken| fits(after, &rest[taken..])),
        ([b'?', after @ ..], [_, rest @ ..]) => fits(after, rest),
        ([wanted, after @ ..], [first, rest @ ..]) => wanted == first && fits(after, rest),
        (_, []) => false,
    }
}

impl FromStr for LinkPattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // Brackets would be taken for a shell's.
        match IfName::new(text) {
            Ok(_) if !text.contains(['[', ']', '{', '}']) => Ok(Self(text.to_owned())),
            _ => Err(format!(
                "{text:?} is no link's name, nor a pattern of one with * and ?, as eth0 and bond* are"
            )),
        }
    }
}

impl fmt::Display for LinkPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read_and_shown_as_they_are_set() {
        for text in [
            "internal-ip",
            "interface=eth0",
            "interface=bond*,eth?,en*s?",
            "cidr=10.0.0.0/8",
            "cidr=10.1.0.0/16,10.0.0.0/8,fd00::/8",
            "can-reach=192.0.2.1",
            "can-reach=192.0.2.1,2001:db8::1",
        ] {
            assert_eq!(text.parse::<UnderlayRule>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn other_rules_are_refused() {
        for (text, reason) in [
            ("", "is wanted"),
            ("eth0", "is wanted"),
            ("first-found", "is wanted"),
            ("skip-interface=eth0", "is wanted"),
            ("interface=", "no link's name"),
            ("interface=eth0,", "no link's name"),
            ("interface=eth[01]", "no link's name"),
            ("interface=a-name-too-long-for-a-link", "no link's name"),
            ("cidr=", "no network"),
            ("cidr=10.0.0.1", "no network"),
            ("cidr=10.1.0.0/8", "begins at 10.0.0.0/8"),
            ("can-reach=example.test", "no IP address"),
            ("can-reach=192.0.2.1,192.0.2.2", "one address of each family"),
        ] {
            let error = text.parse::<UnderlayRule>().unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn patterns_fit_whole_names() {
        for (pattern, names, others) in [
            ("eth0", &["eth0"][..], &["eth01", "eth", "xeth0"][..]),
            ("eth*", &["eth", "eth0", "eth0.5"], &["beth0", "bond0"]),
            ("e?h0", &["eth0"], &["eh0", "etth0"]),
            ("*", &["lo", "eth0"], &[]),
            ("en*s*0", &["enp0s0", "ens10"], &["enp0s1", "eth0"]),
        ] {
            let pattern: LinkPattern = pattern.parse().unwrap();
            for name in names {
                assert!(pattern.fits(name.parse().unwrap()), "{pattern} {name}");
            }
            for name in others {
                assert!(!pattern.fits(name.parse().unwrap()), "{pattern} {name}");
            }
        }
    }
}
