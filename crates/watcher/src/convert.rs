//! From the decoded objects to the model's Pods and Nodes. What cannot be read is set aside, by field and
//! value, and the rest of the object counts.

use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use routelet_model::{Node, NodeAddress, NodeAddressKind, Pod, PodId, Unreadable};
use serde_json::Value;

use crate::slim::{Metadata, SlimNode, SlimPod};

/// Longest piece of an unreadable value that is kept, in characters.
const KEPT_CHARS: usize = 100;

const ADDRESS: &str = "an IP address";
const SUBNET: &str = "a subnet in CIDR notation, as in 10.244.1.0/24";
const LIST: &str = "a list";

/// Who a Pod is; `None` where it has no name.
pub(crate) fn pod_id(slim: &SlimPod) -> Option<PodId> {
    let Metadata { namespace, name, .. } = &slim.metadata;
    (!name.is_empty()).then(|| PodId {
        namespace: namespace.clone(),
        name: name.clone(),
    })
}

/// A Pod; `None` where it has no name.
pub(crate) fn pod(slim: SlimPod) -> Option<Pod> {
    let id = pod_id(&slim)?;
    let mut reader = Reader::default();
    let SlimPod {
        metadata,
        spec,
        status,
    } = slim;
    let mut addresses = Vec::new();
    for entry in reader.list("status.podIPs", &status.pod_ips) {
        addresses.extend(reader.parse::<IpAddr>("status.podIPs", ADDRESS, entry.get("ip").unwrap_or(entry)));
    }
    if is_empty_list(&status.pod_ips) {
        addresses.extend(reader.parse::<IpAddr>("status.podIP", ADDRESS, &status.pod_ip));
    }
    Some(Pod {
        id,
        created: reader.created(&metadata),
        uid: metadata.uid,
        addresses,
        host_network: reader.flag("spec.hostNetwork", &spec.host_network),
        terminal: matches!(status.phase.as_str(), Some("Succeeded" | "Failed")),
        unreadable: reader.unreadable,
    })
}

/// The name of a Node; `None` where it has none.
pub(crate) fn node_name(slim: &SlimNode) -> Option<String> {
    Some(slim.metadata.name.clone()).filter(|name| !name.is_empty())
}

/// A Node; `None` where it has no name.
pub(crate) fn node(slim: SlimNode) -> Option<Node> {
    let name = node_name(&slim)?;
    let mut reader = Reader::default();
    let SlimNode {
        metadata,
        spec,
        status,
    } = slim;
    let mut addresses = Vec::new();
    for entry in reader.list("status.addresses", &status.addresses) {
        let kind = match entry.get("type").and_then(Value::as_str) {
            Some("InternalIP") => NodeAddressKind::Internal,
            Some("ExternalIP") => NodeAddressKind::External,
            _ => continue,
        };
        let address = entry.get("address").unwrap_or(&Value::Null);
        addresses.extend(
            reader
                .parse("status.addresses", ADDRESS, address)
                .map(|address| NodeAddress { kind, address }),
        );
    }
    let mut pod_subnets = Vec::new();
    for entry in reader.list("spec.podCIDRs", &spec.pod_cidrs) {
        pod_subnets.extend(
            reader
                .parse::<IpNet>("spec.podCIDRs", SUBNET, entry)
                .map(|net| net.trunc()),
        );
    }
    if is_empty_list(&spec.pod_cidrs) {
        let subnet = reader.parse::<IpNet>("spec.podCIDR", SUBNET, &spec.pod_cidr);
        pod_subnets.extend(subnet.map(|net| net.trunc()));
    }
    Some(Node {
        name,
        created: reader.created(&metadata),
        uid: metadata.uid,
        addresses,
        pod_subnets,
        overrides: reader.overrides(&metadata.annotations),
        ipip_address: reader.ipip_address(&metadata.annotations),
        flannel: reader.flannel(&metadata.annotations),
        unreadable: reader.unreadable,
    })
}

/// Whether there is nothing in a list, so that its older singular sibling counts.
fn is_empty_list(value: &Value) -> bool {
    value.is_null() || value.as_array().is_some_and(Vec::is_empty)
}

/// Reads values and gathers those that cannot be read.
#[derive(Default)]
pub(crate) struct Reader {
    pub(crate) unreadable: Vec<Unreadable>,
}

impl Reader {
    pub(crate) fn refuse(&mut self, field: &'static str, wanted: &'static str, value: &Value) {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let value = text.chars().take(KEPT_CHARS).collect();
        self.unreadable.push(Unreadable { field, value, wanted });
    }

    /// The value of a text; `None` where there is no text, an empty or an unreadable one.
    pub(crate) fn parse<T: FromStr>(
        &mut self,
        field: &'static str,
        wanted: &'static str,
        value: &Value,
    ) -> Option<T> {
        match value {
            Value::Null => None,
            Value::String(text) if text.is_empty() => None,
            Value::String(text) => text
                .trim()
                .parse()
                .map_err(|_| self.refuse(field, wanted, value))
                .ok(),
            _ => {
                self.refuse(field, wanted, value);
                None
            }
        }
    }

    fn list<'v>(&mut self, field: &'static str, value: &'v Value) -> &'v [Value] {
        match value {
            Value::Array(items) => items,
            Value::Null => &[],
            _ => {
                self.refuse(field, LIST, value);
                &[]
            }
        }
    }

    fn flag(&mut self, field: &'static str, value: &Value) -> bool {
        match value {
            Value::Bool(flag) => *flag,
            Value::Null => false,
            _ => {
                self.refuse(field, "true or false", value);
                false
            }
        }
    }

    fn created(&mut self, metadata: &Metadata) -> i64 {
        let field = "metadata.creationTimestamp";
        self.parse::<jiff::Timestamp>(field, "an RFC 3339 time", &metadata.creation_timestamp)
            .map_or(0, jiff::Timestamp::as_second)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read_node(value: Value) -> Node {
        node(serde_json::from_value(value).unwrap()).unwrap()
    }

    fn read_pod(value: Value) -> Pod {
        pod(serde_json::from_value(value).unwrap()).unwrap()
    }

    fn unreadable(list: &[Unreadable]) -> Vec<(&str, &str)> {
        list.iter().map(|u| (u.field, u.value.as_str())).collect()
    }

    #[test]
    fn a_node_as_clusters_have_it() {
        let node = read_node(json!({
            "metadata": {"name": "node-1", "uid": "u1", "creationTimestamp": "2026-01-02T03:04:05Z",
                "labels": {"a": "b"}, "annotations": {"other": "x"}},
            "spec": {"podCIDR": "10.244.1.0/24", "podCIDRs": ["10.244.1.0/24", "fd00:1::/64"]},
            "status": {"addresses": [
                {"type": "Hostname", "address": "node-1"},
                {"type": "InternalIP", "address": "192.168.0.1"},
                {"type": "InternalIP", "address": "fd00::1"},
                {"type": "ExternalIP", "address": "203.0.113.1"}], "images": [{"names": []}]},
        }));
        assert_eq!(
            (node.name.as_str(), node.uid.as_str(), node.created),
            ("node-1", "u1", 1_767_323_045)
        );
        assert_eq!(
            node.pod_subnets,
            ["10.244.1.0/24".parse().unwrap(), "fd00:1::/64".parse().unwrap()]
        );
        let addresses: Vec<_> = node
            .addresses
            .iter()
            .map(|a| (a.kind, a.address.to_string()))
            .collect();
        assert_eq!(
            addresses,
            [
                (NodeAddressKind::Internal, "192.168.0.1".to_owned()),
                (NodeAddressKind::Internal, "fd00::1".to_owned()),
                (NodeAddressKind::External, "203.0.113.1".to_owned()),
            ]
        );
        assert_eq!((node.overrides, node.flannel), Default::default());
        assert!(node.unreadable.is_empty());
    }

    #[test]
    fn the_singular_fields_count_where_the_lists_are_absent() {
        let node = read_node(json!({"metadata": {"name": "n"}, "spec": {"podCIDR": "10.244.1.7/24"}}));
        assert_eq!(
            node.pod_subnets,
            ["10.244.1.0/24".parse().unwrap()],
            "host bits are cleared"
        );
        let node = read_node(json!({"metadata": {"name": "n"},
            "spec": {"podCIDR": "10.244.1.0/24", "podCIDRs": ["rubbish"]}}));
        assert!(
            node.pod_subnets.is_empty(),
            "an unreadable list is not replaced by a part of it"
        );
        let pod =
            read_pod(json!({"metadata": {"name": "p", "namespace": "d"}, "status": {"podIP": "10.1.1.1"}}));
        assert_eq!(pod.addresses, ["10.1.1.1".parse::<IpAddr>().unwrap()]);
    }

    #[test]
    fn rubbish_is_set_aside_and_the_rest_counts() {
        let node = read_node(json!({
            "metadata": {"name": "n", "creationTimestamp": "yesterday"},
            "spec": {"podCIDRs": ["10.244.1.0/24", "10.244.2.0", 7]},
            "status": {"addresses": [{"type": "InternalIP", "address": "node-1.example"}, 3,
                {"type": "InternalIP", "address": "192.168.0.1"}]},
        }));
        assert_eq!(node.pod_subnets.len(), 1);
        assert_eq!(node.addresses.len(), 1);
        assert_eq!(
            unreadable(&node.unreadable),
            [
                ("status.addresses", "node-1.example"),
                ("spec.podCIDRs", "10.244.2.0"),
                ("spec.podCIDRs", "7"),
                ("metadata.creationTimestamp", "yesterday"),
            ]
        );
        let pod = read_pod(json!({
            "metadata": {"name": "p", "namespace": "d"}, "spec": {"hostNetwork": "yes"},
            "status": {"podIPs": [{"ip": "10.1.1.1"}, {"ip": "nowhere"}, {}], "podIP": "10.1.1.1"},
        }));
        assert_eq!(pod.addresses, ["10.1.1.1".parse::<IpAddr>().unwrap()]);
        assert_eq!(
            unreadable(&pod.unreadable),
            [
                ("status.podIPs", "nowhere"),
                ("status.podIPs", "{}"),
                ("spec.hostNetwork", "yes")
            ]
        );
    }

    #[test]
    fn a_long_value_is_cut() {
        let node = read_node(json!({"metadata": {"name": "n"}, "spec": {"podCIDR": "ü".repeat(10_000)}}));
        assert_eq!(node.unreadable[0].value.chars().count(), KEPT_CHARS);
    }

    #[test]
    fn phases() {
        for (phase, terminal) in [
            ("Pending", false),
            ("Running", false),
            ("Succeeded", true),
            ("Failed", true),
            ("Unknown", false),
        ] {
            let pod = read_pod(
                json!({"metadata": {"name": "p", "deletionTimestamp": "2026-01-02T03:04:05Z"},
                "spec": {"hostNetwork": true}, "status": {"phase": phase}}),
            );
            assert_eq!(pod.terminal, terminal, "{phase}");
            assert!(pod.host_network);
        }
    }

    #[test]
    fn an_object_without_a_name_is_none() {
        assert!(node(SlimNode::default()).is_none());
        assert!(pod(SlimPod::default()).is_none());
    }
}
