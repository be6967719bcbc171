//! Whose a host veth is: written on the veth itself (its alias), so that a leak can be told from a living sandbox
//! with nothing but the kernel's list of links.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use routelet_model::{ALIAS_MARK, IfName, PodId};

use crate::error::{Code, Error};
use crate::request::Request;

/// Longest alias, in bytes: IFALIASZ of linux/if.h allows for 255, and the closing zero that is sent counts.
const LONGEST: usize = 254;

/// One interface of one container in one network. As text, `routelet NETWORK CONTAINER IFNAME`, it begins the alias of the
/// host veth; the addresses and the pod follow, which the agent reads ([`routelet_model::given_addresses`],
/// [`routelet_model::pod_of`]).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Attachment {
    /// The network's name.
    pub network: String,
    /// The container (with Kubernetes: the sandbox) as the runtime names it.
    pub container_id: String,
    /// The interface's name in the container.
    pub ifname: IfName,
}

impl Attachment {
    pub(crate) fn of(network: &str, request: &Request) -> Self {
        Self {
            network: network.to_owned(),
            container_id: request.container_id.clone(),
            ifname: request.ifname,
        }
    }

    /// The alias. The pod is for people to read, and is cut off where the kernel's limit is.
    pub(crate) fn alias(&self, addresses: &[IpAddr], pod: Option<&PodId>) -> Result<String, Error> {
        let addresses: Vec<String> = addresses.iter().map(IpAddr::to_string).collect();
        let mut alias = format!("{self} {}", addresses.join(","));
        if alias.len() > LONGEST {
            let message = format!(
                "CNI_CONTAINERID and the network's name have {} bytes together: the kernel's limit for an alias \
                 leaves room for {}",
                self.container_id.len() + self.network.len(),
                self.container_id.len() + self.network.len() - (alias.len() - LONGEST)
            );
            return Err(Error::new(Code::InvalidEnvironment, message));
        }
        if let Some(pod) = pod {
            alias.push_str(&format!(" {pod}"));
            while alias.len() > LONGEST {
                alias.pop();
            }
        }
        Ok(alias)
    }
}

impl fmt::Display for Attachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            network,
            container_id,
            ifname,
        } = self;
        write!(f, "{ALIAS_MARK} {network} {container_id} {ifname}")
    }
}

/// A text that is not the alias of one of the plugin's veths.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no alias of a host veth: \"routelet NETWORK CONTAINER IFNAME\" is wanted")]
pub struct InvalidAlias(pub String);

impl FromStr for Attachment {
    type Err = InvalidAlias;

    fn from_str(alias: &str) -> Result<Self, InvalidAlias> {
        let invalid = || InvalidAlias(alias.to_owned());
        let mut words = alias.split(' ');
        let mut next = || words.next().filter(|word| !word.is_empty()).ok_or_else(invalid);
        if next()? != ALIAS_MARK {
            return Err(invalid());
        }
        Ok(Self {
            network: next()?.to_owned(),
            container_id: next()?.to_owned(),
            ifname: next()?.parse().map_err(|_| invalid())?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attachment(container_id: &str) -> Attachment {
        Attachment {
            network: "pods".to_owned(),
            container_id: container_id.to_owned(),
            ifname: "eth0".parse().unwrap(),
        }
    }

    fn pod(name: &str) -> PodId {
        PodId {
            namespace: "default".to_owned(),
            name: name.to_owned(),
        }
    }

    #[test]
    fn an_alias_is_read_as_it_was_written() {
        let attachment = attachment("4f2a");
        let addresses: [IpAddr; 2] = ["10.244.1.2", "fd00::2"].map(|address| address.parse().unwrap());
        let alias = attachment.alias(&addresses, Some(&pod("web"))).unwrap();
        assert_eq!(alias, "routelet pods 4f2a eth0 10.244.1.2,fd00::2 default/web");
        assert_eq!(alias.parse(), Ok(attachment.clone()));
        assert_eq!(routelet_model::given_addresses(&alias), addresses);
        assert_eq!(routelet_model::pod_of(&alias), Some(pod("web")));
        assert_eq!(
            attachment.alias(&addresses, None).unwrap().parse(),
            Ok(attachment)
        );
    }

    #[test]
    fn others_aliases_are_not_ours() {
        for alias in [
            "",
            "routelet",
            "routelet pods 4f2a",
            "uplink pods 4f2a eth0",
            "routelet pods  eth0",
        ] {
            assert!(alias.parse::<Attachment>().is_err(), "{alias:?}");
        }
    }

    #[test]
    fn the_kernels_limit_holds() {
        let attachment = attachment(&"a".repeat(64));
        let alias = attachment.alias(&[], Some(&pod(&"b".repeat(253)))).unwrap();
        assert_eq!(alias.len(), LONGEST);
        assert_eq!(alias.parse(), Ok(attachment));
        let error = self::attachment(&"a".repeat(300)).alias(&[], None).unwrap_err();
        assert!(
            error
                .message
                .contains("have 304 bytes together: the kernel's limit for an alias leaves room for 238"),
            "{error}"
        );
    }
}
