//! Whom the two ends of the way are: by what the agent knows, else by the kernel's tables, and for a pod of another node by
//! the API.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use routelet_model::{Family, IfName, PodId, host_veth_name};

use super::gather::Eyes;
use super::observed::{From, Known, KnownPod, To};

/// An end of the way, as it was named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    /// By namespace and name.
    Pod(PodId),
    /// By its address.
    Address(IpAddr),
}

impl FromStr for End {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.parse() {
            return Ok(Self::Address(address));
        }
        let is_name = |part: &str, others: &[u8]| {
            let fits =
                |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || others.contains(&byte);
            !part.is_empty() && part.len() <= 253 && part.bytes().all(fits)
        };
        match text.split_once('/') {
            // A namespace is a label of DNS, a pod's name a name of it.
            Some((namespace, name)) if is_name(namespace, b"-") && is_name(name, b"-.") => {
                Ok(Self::Pod(PodId {
                    namespace: namespace.to_owned(),
                    name: name.to_owned(),
                }))
            }
            _ => Err("a pod's NAMESPACE/NAME or an IP address is wanted".to_owned()),
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod(id) => fmt::Display::fmt(id, f),
            Self::Address(address) => fmt::Display::fmt(address, f),
        }
    }
}

/// A pod of this node: its host veth, and its addresses as far as they are known.
struct Local {
    id: Option<PodId>,
    veth: Option<IfName>,
    addresses: Vec<IpAddr>,
}

/// A pod of this node by its name; `None` where neither the agent nor a host veth knows it.
fn local(id: &PodId, known: Option<&Known>, eyes: &Eyes, prefix: &str) -> Option<Local> {
    let pod = known.and_then(|known| known.pods.iter().find(|pod| pod.id == *id));
    if let Some(KnownPod { veth, addresses, .. }) = pod {
        return Some(Local {
            id: Some(id.clone()),
            veth: *veth,
            addresses: addresses.iter().map(|(address, _)| *address).collect(),
        });
    }
    let veth = veth_named(id, prefix)?;
    eyes.link(veth)?;
    Some(Local {
        id: Some(id.clone()),
        veth: Some(veth),
        addresses: eyes.addresses_behind(veth),
    })
}

fn veth_named(id: &PodId, prefix: &str) -> Option<IfName> {
    host_veth_name(prefix, &id.namespace, &id.name).ok()
}

/// The pod that the packet comes from, which must be one of this node's; with its address of each family.
pub(crate) fn source(
    end: &End,
    known: Option<&Known>,
    eyes: &Eyes,
    prefix: &str,
) -> Result<Vec<From>, String> {
    let found = match end {
        End::Pod(id) => local(id, known, eyes, prefix).or_else(|| {
            // Without the agent, a pod whose veth is gone cannot be told from another node's.
            let veth = veth_named(id, prefix).filter(|_| known.is_none())?;
            Some(Local {
                id: Some(id.clone()),
                veth: Some(veth),
                addresses: Vec::new(),
            })
        }),
        End::Address(address) => {
            let has = |pod: &&KnownPod| pod.addresses.iter().any(|(own, _)| own == address);
            let pod = known.and_then(|known| known.pods.iter().find(has));
            let by_kernel = || {
                let (veth, id) = eyes.veth_of(*address).map(|(veth, id)| (Some(veth), id))?;
                Some((id, veth))
            };
            let by_subnet = || {
                let subnets = known.map_or(&[][..], |known| &known.own_subnets);
                let own = eyes.is_own(*address) || subnets.iter().any(|subnet| subnet.contains(address));
                own.then_some((None, None))
            };
            let found = pod.map(|pod| (Some(pod.id.clone()), pod.veth));
            found
                .or_else(by_kernel)
                .or_else(by_subnet)
                .map(|(id, veth)| Local {
                    id,
                    veth,
                    addresses: vec![*address],
                })
        }
    };
    let Some(Local { id, veth, addresses }) = found else {
        return Err(format!(
            "{end} is no pod of this node with a network of its own: ask on the node that it runs on (kubectl get pod \
             --all-namespaces --output wide)"
        ));
    };
    if addresses.is_empty() {
        return Ok(vec![From {
            pod: id,
            address: None,
            veth,
        }]);
    }
    let from = |address| From {
        pod: id.clone(),
        address: Some(address),
        veth,
    };
    Ok(addresses.into_iter().map(from).collect())
}

/// Whom the packet is for, as far as this node knows; `None` where the API is to be asked.
pub(crate) fn target(end: &End, known: Option<&Known>, eyes: &Eyes, prefix: &str) -> Option<Vec<To>> {
    let (pod, veth, addresses) = match end {
        End::Address(address) => (None, None, vec![*address]),
        End::Pod(id) => {
            let found = local(id, known, eyes, prefix).filter(|found| !found.addresses.is_empty())?;
            (found.id, found.veth, found.addresses)
        }
    };
    let to = |address| To {
        pod: pod.clone(),
        node: None,
        address,
        veth,
    };
    Some(addresses.into_iter().map(to).collect())
}

/// The ways to look at: one for each family that both ends have an address of. Where no address of the source is known,
/// one to the first address.
pub(crate) fn pairs(from: &[From], to: Vec<To>) -> Result<Vec<(From, To)>, String> {
    let mut pairs = Vec::new();
    for to in to {
        let family = Family::of(to.address);
        let of_family = |from: &&From| from.address.is_none_or(|own| Family::of(own) == family);
        if let Some(from) = from.iter().find(of_family) {
            pairs.push((from.clone(), to));
        }
    }
    pairs.dedup_by(|next, first| next.0.address.is_none() && first.0.address.is_none());
    if pairs.is_empty() {
        return Err("the two have no address of the same family".to_owned());
    }
    Ok(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_a_pods_name_or_an_address() {
        for text in ["default/web-1", "kube-system/a.b", "10.0.0.1", "fd00::1"] {
            assert_eq!(text.parse::<End>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "web",
            "/web",
            "default/",
            "a/b/c",
            "Default/web",
            "10.0.0.0/8",
            "default/we b",
        ] {
            assert!(text.parse::<End>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn each_family_that_both_ends_have_is_a_way() {
        let from = |address: &str| From {
            pod: None,
            address: Some(address.parse().unwrap()),
            veth: None,
        };
        let to = |address: &str| To {
            pod: None,
            node: None,
            address: address.parse().unwrap(),
            veth: None,
        };
        let both = [from("10.0.0.1"), from("fd00::1")];
        let told = |pairs: Vec<(From, To)>| -> Vec<String> {
            let told = |(from, to): (From, To)| format!("{}-{}", from.address.unwrap(), to.address);
            pairs.into_iter().map(told).collect()
        };
        let all = pairs(&both, vec![to("fd00::2"), to("10.0.0.2")]).unwrap();
        assert_eq!(told(all), ["fd00::1-fd00::2", "10.0.0.1-10.0.0.2"]);
        let one = pairs(&both, vec![to("10.0.0.2")]).unwrap();
        assert_eq!(told(one), ["10.0.0.1-10.0.0.2"]);
        assert!(pairs(&both[..1], vec![to("fd00::2")]).is_err());
    }
}
