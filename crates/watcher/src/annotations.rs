//! What the annotations of other networks' agents say of a Node: Calico's and flannel's, by which a node that still runs
//! one of them is a peer like any other.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use routelet_model::{Flannel, FlannelLease, MacAddr, NodeOverrides, PerFamily};
use serde::Deserialize;
use serde_json::Value;

use crate::convert::Reader;
use crate::slim::Annotations;

const MAC: &str = "a MAC address";
const DATA: PerFamily<&str> = PerFamily {
    v4: "metadata.annotations[flannel.alpha.coreos.com/backend-data]",
    v6: "metadata.annotations[flannel.alpha.coreos.com/backend-v6-data]",
};

/// The JSON text in `backend-data` of flannel's VXLAN backend. Versions before 0.13 do not write the VNI.
#[derive(Deserialize)]
struct BackendData {
    #[serde(rename = "VNI", default)]
    vni: Option<u32>,
    #[serde(rename = "VtepMAC")]
    vtep_mac: String,
}

impl Reader {
    /// What Calico's annotations say.
    pub(crate) fn overrides(&mut self, annotations: &Annotations) -> PerFamily<NodeOverrides> {
        let v4 = NodeOverrides {
            underlay: self
                .parse::<Ipv4Net>(
                    "metadata.annotations[projectcalico.org/IPv4Address]",
                    "an IPv4 address with its prefix length, as in 192.168.0.7/24",
                    &annotations.underlay_v4,
                )
                .map(IpNet::V4),
            tunnel_address: self
                .parse::<Ipv4Addr>(
                    "metadata.annotations[projectcalico.org/IPv4VXLANTunnelAddr]",
                    "an IPv4 address",
                    &annotations.tunnel_v4,
                )
                .map(IpAddr::V4),
            vtep_mac: self.parse::<MacAddr>(
                "metadata.annotations[projectcalico.org/VXLANTunnelMACAddr]",
                MAC,
                &annotations.mac_v4,
            ),
        };
        let v6 = NodeOverrides {
            underlay: self
                .parse::<Ipv6Net>(
                    "metadata.annotations[projectcalico.org/IPv6Address]",
                    "an IPv6 address with its prefix length, as in fd00::7/64",
                    &annotations.underlay_v6,
                )
                .map(IpNet::V6),
            tunnel_address: self
                .parse::<Ipv6Addr>(
                    "metadata.annotations[projectcalico.org/IPv6VXLANTunnelAddr]",
                    "an IPv6 address",
                    &annotations.tunnel_v6,
                )
                .map(IpAddr::V6),
            vtep_mac: self.parse::<MacAddr>(
                "metadata.annotations[projectcalico.org/VXLANTunnelMACAddrV6]",
                MAC,
                &annotations.mac_v6,
            ),
        };
        PerFamily { v4, v6 }
    }

    /// The tunnel address in IPIP of Calico's annotations.
    pub(crate) fn ipip_address(&mut self, annotations: &Annotations) -> Option<Ipv4Addr> {
        self.parse(
            "metadata.annotations[projectcalico.org/IPv4IPIPTunnelAddr]",
            "an IPv4 address",
            &annotations.ipip,
        )
    }

    /// What flannel's annotations say. flannel itself passes by a Node on which its subnet manager has not set its mark.
    pub(crate) fn flannel(&mut self, annotations: &Annotations) -> Option<Box<Flannel>> {
        if annotations.flannel != "true" {
            return None;
        }
        let v4 = self
            .parse::<Ipv4Addr>(
                "metadata.annotations[flannel.alpha.coreos.com/public-ip]",
                "an IPv4 address",
                &annotations.flannel_underlay_v4,
            )
            .map(IpAddr::V4);
        let v6 = self
            .parse::<Ipv6Addr>(
                "metadata.annotations[flannel.alpha.coreos.com/public-ipv6]",
                "an IPv6 address",
                &annotations.flannel_underlay_v6,
            )
            .map(IpAddr::V6);
        let backend = annotations.flannel_backend.as_str().unwrap_or_default();
        let mut lease = |underlay, field, data| {
            let mut lease = match backend {
                "vxlan" => self.backend_data(field, data).unwrap_or_default(),
                // What other backends write there is theirs.
                _ => FlannelLease::default(),
            };
            lease.underlay = underlay;
            lease
        };
        let lease = PerFamily {
            v4: lease(v4, DATA.v4, &annotations.flannel_data_v4),
            v6: lease(v6, DATA.v6, &annotations.flannel_data_v6),
        };
        let backend = backend.to_owned();
        Some(Box::new(Flannel { backend, lease }))
    }

    fn backend_data(&mut self, field: &'static str, value: &Value) -> Option<FlannelLease> {
        let text = match value {
            Value::Null => return None,
            // What flannel writes of a family that it does not serve.
            Value::String(text) if text.is_empty() || text == "null" => return None,
            Value::String(text) => text.as_str(),
            _ => "",
        };
        let read = || {
            let data: BackendData = serde_json::from_str(text).ok()?;
            Some(FlannelLease {
                underlay: None,
                vni: data.vni,
                vtep_mac: Some(data.vtep_mac.parse().ok()?),
            })
        };
        let lease = read();
        if lease.is_none() {
            let wanted =
                "what flannel's VXLAN backend writes, as in {\"VNI\":1,\"VtepMAC\":\"52:1e:7d:03:aa:01\"}";
            self.refuse(field, wanted, value);
        }
        lease
    }
}

#[cfg(test)]
mod tests {
    use routelet_model::{Node, Unreadable};
    use serde_json::json;

    use super::*;

    fn read_node(annotations: Value) -> Node {
        let object = json!({"metadata": {"name": "n", "annotations": annotations}});
        crate::convert::node(serde_json::from_value(object).unwrap()).unwrap()
    }

    fn unreadable(list: &[Unreadable]) -> Vec<(&str, &str)> {
        list.iter().map(|u| (u.field, u.value.as_str())).collect()
    }

    #[test]
    fn calicos_annotations() {
        let node = read_node(json!({
            "projectcalico.org/IPv4Address": "192.168.0.7/24",
            "projectcalico.org/IPv4VXLANTunnelAddr": "10.244.7.0",
            "projectcalico.org/VXLANTunnelMACAddr": "66:00:00:00:00:07",
            "projectcalico.org/IPv4IPIPTunnelAddr": "10.244.7.1",
            "projectcalico.org/IPv6Address": "fd00::7/64",
            "projectcalico.org/IPv6VXLANTunnelAddr": "192.168.0.1",
            "projectcalico.org/VXLANTunnelMACAddrV6": 7,
        }));
        let v4 = node.overrides.v4;
        assert_eq!(
            v4.underlay,
            Some("192.168.0.7/24".parse().unwrap()),
            "host bits stay"
        );
        assert_eq!(v4.tunnel_address, Some("10.244.7.0".parse().unwrap()));
        assert_eq!(v4.vtep_mac, Some("66:00:00:00:00:07".parse().unwrap()));
        assert_eq!(node.ipip_address, Some("10.244.7.1".parse().unwrap()));
        let v6 = node.overrides.v6;
        assert_eq!(v6.underlay, Some("fd00::7/64".parse().unwrap()));
        assert_eq!((v6.tunnel_address, v6.vtep_mac), (None, None));
        assert_eq!(
            unreadable(&node.unreadable),
            [
                (
                    "metadata.annotations[projectcalico.org/IPv6VXLANTunnelAddr]",
                    "192.168.0.1"
                ),
                (
                    "metadata.annotations[projectcalico.org/VXLANTunnelMACAddrV6]",
                    "7"
                ),
            ]
        );
    }

    /// As flannel 0.27 writes them, of both families.
    #[test]
    fn flannels_annotations() {
        let node = read_node(json!({
            "flannel.alpha.coreos.com/backend-data": "{\"VNI\":1,\"VtepMAC\":\"52:1e:7d:03:aa:01\"}",
            "flannel.alpha.coreos.com/backend-v6-data": "{\"VNI\":1,\"VtepMAC\":\"52:1e:7d:03:aa:06\"}",
            "flannel.alpha.coreos.com/backend-type": "vxlan",
            "flannel.alpha.coreos.com/kube-subnet-manager": "true",
            "flannel.alpha.coreos.com/public-ip": "192.168.0.7",
            "flannel.alpha.coreos.com/public-ipv6": "fd00::7",
        }));
        let lease = |underlay: &str, mac: &str| FlannelLease {
            underlay: Some(underlay.parse().unwrap()),
            vni: Some(1),
            vtep_mac: Some(mac.parse().unwrap()),
        };
        let flannel = node.flannel.unwrap();
        assert_eq!(flannel.backend, "vxlan");
        assert_eq!(flannel.lease.v4, lease("192.168.0.7", "52:1e:7d:03:aa:01"));
        assert_eq!(flannel.lease.v6, lease("fd00::7", "52:1e:7d:03:aa:06"));
        assert!(node.unreadable.is_empty());
    }

    #[test]
    fn flannel_of_one_family_without_vxlan_or_without_its_mark() {
        let node = read_node(json!({
            "flannel.alpha.coreos.com/backend-data": "null",
            "flannel.alpha.coreos.com/backend-type": "host-gw",
            "flannel.alpha.coreos.com/kube-subnet-manager": "true",
            "flannel.alpha.coreos.com/public-ip": "192.168.0.7",
        }));
        let flannel = node.flannel.unwrap();
        assert_eq!(flannel.backend, "host-gw");
        assert_eq!(flannel.lease.v4.underlay, Some("192.168.0.7".parse().unwrap()));
        assert_eq!(
            (flannel.lease.v4.vni, flannel.lease.v6),
            (None, FlannelLease::default())
        );
        assert!(node.unreadable.is_empty());
        let node = read_node(json!({
            "flannel.alpha.coreos.com/backend-data": "{\"VtepMAC\":\"52:1e:7d:03:aa:01\"}",
            "flannel.alpha.coreos.com/backend-type": "vxlan",
            "flannel.alpha.coreos.com/kube-subnet-manager": "true",
        }));
        let lease = node.flannel.unwrap().lease.v4;
        assert_eq!((lease.vni, lease.vtep_mac.is_some()), (None, true));
        let node = read_node(json!({
            "flannel.alpha.coreos.com/backend-data": "rubbish",
            "flannel.alpha.coreos.com/public-ip": "rubbish",
        }));
        assert_eq!((node.flannel, node.unreadable), (None, Vec::new()));
    }

    #[test]
    fn rubbish_of_flannels_is_set_aside() {
        for data in [
            json!("rubbish"),
            json!("{\"VNI\":1}"),
            json!("{\"VtepMAC\":\"x\"}"),
            json!(7),
        ] {
            let node = read_node(json!({
                "flannel.alpha.coreos.com/backend-data": data,
                "flannel.alpha.coreos.com/backend-type": "vxlan",
                "flannel.alpha.coreos.com/kube-subnet-manager": "true",
                "flannel.alpha.coreos.com/public-ip": "192.168.0.7",
            }));
            let lease = node.flannel.unwrap().lease.v4;
            assert_eq!((lease.vni, lease.vtep_mac), (None, None));
            assert_eq!(
                lease.underlay,
                Some("192.168.0.7".parse().unwrap()),
                "the rest counts"
            );
            let text = data.as_str().map_or_else(|| data.to_string(), str::to_owned);
            assert_eq!(unreadable(&node.unreadable), [(DATA.v4, text.as_str())]);
        }
    }
}
