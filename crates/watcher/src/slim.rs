//! Pods and Nodes as they are decoded: the handful of fields that routing needs, and whatever stands in them.
//!
//! Decoding is lenient: a field of the wrong type is kept as it is and judged in `convert`, so that one odd
//! object neither ends the watch nor hides the others of a list. All else in an object is skipped unread.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// `metadata` of an object or of a list.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Metadata {
    #[serde(deserialize_with = "text")]
    pub(crate) name: String,
    #[serde(deserialize_with = "text")]
    pub(crate) namespace: String,
    #[serde(deserialize_with = "text")]
    pub(crate) uid: String,
    #[serde(deserialize_with = "text")]
    pub(crate) resource_version: String,
    pub(crate) creation_timestamp: Value,
    #[serde(deserialize_with = "object")]
    pub(crate) annotations: Annotations,
}

/// The annotations with which a node that runs Calico, or flannel, describes itself.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Annotations {
    #[serde(rename = "projectcalico.org/IPv4Address")]
    pub(crate) underlay_v4: Value,
    #[serde(rename = "projectcalico.org/IPv6Address")]
    pub(crate) underlay_v6: Value,
    #[serde(rename = "projectcalico.org/IPv4VXLANTunnelAddr")]
    pub(crate) tunnel_v4: Value,
    #[serde(rename = "projectcalico.org/IPv6VXLANTunnelAddr")]
    pub(crate) tunnel_v6: Value,
    #[serde(rename = "projectcalico.org/IPv4IPIPTunnelAddr")]
    pub(crate) ipip: Value,
    #[serde(rename = "projectcalico.org/VXLANTunnelMACAddr")]
    pub(crate) mac_v4: Value,
    #[serde(rename = "projectcalico.org/VXLANTunnelMACAddrV6")]
    pub(crate) mac_v6: Value,
    #[serde(rename = "flannel.alpha.coreos.com/kube-subnet-manager")]
    pub(crate) flannel: Value,
    #[serde(rename = "flannel.alpha.coreos.com/backend-type")]
    pub(crate) flannel_backend: Value,
    #[serde(rename = "flannel.alpha.coreos.com/backend-data")]
    pub(crate) flannel_data_v4: Value,
    #[serde(rename = "flannel.alpha.coreos.com/backend-v6-data")]
    pub(crate) flannel_data_v6: Value,
    #[serde(rename = "flannel.alpha.coreos.com/public-ip")]
    pub(crate) flannel_underlay_v4: Value,
    #[serde(rename = "flannel.alpha.coreos.com/public-ipv6")]
    pub(crate) flannel_underlay_v6: Value,
}

/// A Pod.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct SlimPod {
    #[serde(deserialize_with = "object")]
    pub(crate) metadata: Metadata,
    #[serde(deserialize_with = "object")]
    pub(crate) spec: PodSpec,
    #[serde(deserialize_with = "object")]
    pub(crate) status: PodStatus,
}

/// `spec` of a Pod.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct PodSpec {
    pub(crate) host_network: Value,
}

/// `status` of a Pod.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct PodStatus {
    pub(crate) phase: Value,
    #[serde(rename = "podIP")]
    pub(crate) pod_ip: Value,
    #[serde(rename = "podIPs")]
    pub(crate) pod_ips: Value,
}

/// A Node.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct SlimNode {
    #[serde(deserialize_with = "object")]
    pub(crate) metadata: Metadata,
    #[serde(deserialize_with = "object")]
    pub(crate) spec: NodeSpec,
    #[serde(deserialize_with = "object")]
    pub(crate) status: NodeStatus,
}

/// `spec` of a Node.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct NodeSpec {
    #[serde(rename = "podCIDR")]
    pub(crate) pod_cidr: Value,
    #[serde(rename = "podCIDRs")]
    pub(crate) pod_cidrs: Value,
}

/// `status` of a Node.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct NodeStatus {
    pub(crate) addresses: Value,
}

/// A text; "" where something else stands.
fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::String(text) => text,
        _ => String::new(),
    })
}

/// A JSON object; the default where something else stands.
pub(crate) fn object<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    deserializer.deserialize_any(ObjectOr(PhantomData))
}

struct ObjectOr<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de> + Default> Visitor<'de> for ObjectOr<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<T, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(T::default())
    }

    fn visit_unit<E>(self) -> Result<T, E> {
        Ok(T::default())
    }

    fn visit_bool<E>(self, _: bool) -> Result<T, E> {
        Ok(T::default())
    }

    fn visit_i64<E>(self, _: i64) -> Result<T, E> {
        Ok(T::default())
    }

    fn visit_u64<E>(self, _: u64) -> Result<T, E> {
        Ok(T::default())
    }

    fn visit_f64<E>(self, _: f64) -> Result<T, E> {
        Ok(T::default())
    }

    fn visit_str<E>(self, _: &str) -> Result<T, E> {
        Ok(T::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_type_of_any_field_fails_the_object() {
        for odd in ["null", "true", "-1", "1", "1.5", "\"x\"", "[1,{}]", "{\"a\":[]}"] {
            for json in [
                format!(r#"{{"metadata":{odd},"spec":{odd},"status":{odd}}}"#),
                format!(
                    r#"{{"metadata":{{"name":{odd},"uid":{odd},"annotations":{odd},"creationTimestamp":{odd}}}}}"#
                ),
                format!(r#"{{"spec":{{"podCIDR":{odd},"podCIDRs":{odd},"hostNetwork":{odd}}}}}"#),
                format!(r#"{{"status":{{"addresses":{odd},"phase":{odd},"podIP":{odd},"podIPs":{odd}}}}}"#),
            ] {
                serde_json::from_str::<SlimNode>(&json).expect(&json);
                serde_json::from_str::<SlimPod>(&json).expect(&json);
            }
        }
    }
}
