//! What follows from a name: so that no node has to publish anything.
//!
//! The schemes are those of Calico, whose nodes and tools thus find what they expect.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use sha1::{Digest, Sha1};

use crate::{Family, IfName, InvalidIfName, MacAddr, PodId};

/// The MAC address of the host's end of every pod's veth pair.
pub const HOST_VETH_MAC: MacAddr = MacAddr([0xee; 6]);

/// Where a pod sends everything to. IPv4: an address that the host veth's proxy ARP answers for; IPv6: the link-local
/// address that follows from [`HOST_VETH_MAC`].
pub fn pod_gateway(family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(169, 254, 1, 1).into(),
        Family::V6 => Ipv6Addr::new(0xfe80, 0, 0, 0, 0xecee, 0xeeff, 0xfeee, 0xeeee).into(),
    }
}

/// Hexadecimal digits of the hash in a host veth's name.
const HASH_DIGITS: usize = 11;

/// Name of a pod's host veth: `prefix`, then the first 11 hexadecimal digits of SHA-1 over
/// "namespace.name". Fails where prefix and digits make no interface name (a prefix of over 4 bytes).
pub fn host_veth_name(prefix: &str, namespace: &str, name: &str) -> Result<IfName, InvalidIfName> {
    let hash = Sha1::new()
        .chain_update(namespace)
        .chain_update(".")
        .chain_update(name)
        .finalize();
    let mut text = String::with_capacity(prefix.len() + 2 * hash.len());
    text.push_str(prefix);
    for byte in hash.iter().take(HASH_DIGITS.div_ceil(2)) {
        text.push_str(&format!("{byte:02x}"));
    }
    text.truncate(prefix.len() + HASH_DIGITS);
    IfName::new(&text)
}

/// MAC address of a node's VXLAN tunnel end point: 0x66, then the first five bytes of SHA-1 over the
/// node's name (IPv6: over the name followed by "-v6").
pub fn vtep_mac(node: &str, family: Family) -> MacAddr {
    let suffix = match family {
        Family::V4 => "",
        Family::V6 => "-v6",
    };
    let hash = Sha1::new().chain_update(node).chain_update(suffix).finalize();
    MacAddr([0x66, hash[0], hash[1], hash[2], hash[3], hash[4]])
}

/// A node's tunnel address: the first address of its first pod subnet of the family.
pub fn tunnel_address(pod_subnet: IpNet) -> IpAddr {
    pod_subnet.network()
}

/// The alias of a device that the kernel has made and the agent uses: how a later agent knows it for its own.
pub const DEVICE_ALIAS: &str = "routelet";

/// What the alias of each host veth that the CNI plugin makes begins with.
pub const ALIAS_MARK: &str = "routelet";

/// The addresses that the CNI plugin gave to the pod behind a host veth, by the veth's alias, which reads `routelet NETWORK
/// CONTAINER IFNAME ADDRESS,… POD`. None where it is no alias of the plugin's.
pub fn given_addresses(alias: &str) -> Vec<IpAddr> {
    let addresses = word_of_alias(alias, 4).unwrap_or_default().split(',');
    addresses.map_while(|address| address.parse().ok()).collect()
}

/// The pod behind a host veth, by the same alias. A long name may be cut off there. `None` where it is no alias of the
/// plugin's, or names no pod.
pub fn pod_of(alias: &str) -> Option<PodId> {
    let (namespace, name) = word_of_alias(alias, 5)?.split_once('/')?;
    Some(PodId {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    })
}

/// A word of an alias of the plugin's, the mark being number 0.
fn word_of_alias(alias: &str, number: usize) -> Option<&str> {
    let mut words = alias.split(' ');
    let is_ours = words.clone().next() == Some(ALIAS_MARK);
    words.nth(number).filter(|_| is_ours)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_veth_names_known_from_clusters() {
        for (namespace, name, veth) in [
            ("namespace", "podname", "cali82111e10a96"),
            ("default", "pod-a-68c8f9cccd-sgtvg", "cali14e7d81007d"),
            ("default", "pod-b-68c8f9cccd-gr4hw", "calieabe7761b00"),
        ] {
            assert_eq!(host_veth_name("cali", namespace, name).unwrap().as_str(), veth);
        }
        assert!(host_veth_name("prefix", "default", "web").is_err());
    }

    #[test]
    fn vtep_macs_known_from_clusters() {
        assert_eq!(vtep_mac("node-1", Family::V4).to_string(), "66:b3:68:28:39:8e");
        assert_eq!(vtep_mac("node-1", Family::V6).to_string(), "66:24:ac:63:df:6c");
    }

    #[test]
    fn gateway_v6_follows_from_the_host_veths_mac() {
        let MacAddr([a, b, c, d, e, f]) = HOST_VETH_MAC;
        let IpAddr::V6(gateway) = pod_gateway(Family::V6) else {
            panic!("not IPv6")
        };
        assert_eq!(gateway.octets()[8..], [a ^ 2, b, c, 0xff, 0xfe, d, e, f]);
        assert!(gateway.is_unicast_link_local());
    }

    #[test]
    fn tunnel_address_is_the_first_of_the_subnet() {
        let subnet: IpNet = "172.17.106.0/24".parse().unwrap();
        assert_eq!(tunnel_address(subnet).to_string(), "172.17.106.0");
    }

    #[test]
    fn given_addresses_are_those_of_the_plugins_aliases() {
        let both: Vec<IpAddr> = vec!["10.244.1.2".parse().unwrap(), "fd00::2".parse().unwrap()];
        assert_eq!(
            given_addresses("routelet pods 4f2a eth0 10.244.1.2,fd00::2 default/web"),
            both
        );
        assert_eq!(
            given_addresses("routelet pods 4f2a eth0 10.244.1.2,fd00::2"),
            both
        );
        for alias in [
            "",
            "uplink pods 4f2a eth0 10.244.1.2",
            "routelet pods 4f2a eth0",
            "routelet pods 4f2a eth0 default/web",
        ] {
            assert!(given_addresses(alias).is_empty(), "{alias:?}");
        }
    }

    #[test]
    fn the_pod_is_the_one_that_the_plugins_alias_names() {
        let pod = pod_of("routelet pods 4f2a eth0 10.244.1.2,fd00::2 default/web").unwrap();
        assert_eq!((pod.namespace.as_str(), pod.name.as_str()), ("default", "web"));
        for alias in [
            "",
            "uplink pods 4f2a eth0 10.244.1.2 default/web",
            "routelet pods 4f2a eth0 10.244.1.2",
            "routelet pods 4f2a eth0 10.244.1.2 default",
        ] {
            assert_eq!(pod_of(alias), None, "{alias:?}");
        }
    }
}
