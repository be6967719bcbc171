//! The result of an ADD, in the forms of the versions of the specification.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, json};

use crate::SpecVersion;

/// What an ADD has brought about. It is read in any version of the specification.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CniResult {
    /// The interfaces: the host veth, then the pod's.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub interfaces: Vec<Interface>,
    /// The pod's addresses.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub ips: Vec<IpConfig>,
    /// The pod's routes.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub routes: Vec<Route>,
    /// Name servers for the pod.
    #[serde(default)]
    pub dns: Option<Value>,
}

/// An interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its MAC address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// Its MTU in bytes; from 1.1.0 on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Path of its network namespace; none for the host's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<String>,
}

/// An address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpConfig {
    /// The address with its prefix length.
    pub address: IpNet,
    /// The gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
    /// Which of the interfaces has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<usize>,
}

/// A route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Its destination.
    pub dst: IpNet,
    /// Its gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gw: Option<IpAddr>,
}

impl CniResult {
    /// The result as JSON in the form of `version`.
    pub fn to_json(&self, version: SpecVersion) -> Value {
        let mut value = json!({
            "cniVersion": version.as_str(),
            "interfaces": self.interfaces,
            "ips": self.ips,
            "routes": self.routes,
            "dns": self.dns.clone().unwrap_or_else(|| json!({})),
        });
        if version < SpecVersion::V1_1_0 {
            for interface in entries(&mut value, "interfaces") {
                interface.remove("mtu");
            }
        }
        if version < SpecVersion::V1_0_0 {
            for (ip, config) in entries(&mut value, "ips").zip(&self.ips) {
                let family = if config.address.addr().is_ipv4() { "4" } else { "6" };
                ip.insert("version".to_owned(), family.into());
            }
        }
        value
    }
}

fn entries<'a>(
    value: &'a mut Value,
    list: &str,
) -> impl Iterator<Item = &'a mut serde_json::Map<String, Value>> {
    value[list]
        .as_array_mut()
        .into_iter()
        .flatten()
        .filter_map(Value::as_object_mut)
}

/// Programs in Go write an empty list as null.
fn null_is_empty<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Vec<T>, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result() -> CniResult {
        CniResult {
            interfaces: vec![Interface {
                name: "eth0".to_owned(),
                mac: None,
                mtu: Some(1450),
                sandbox: Some("/run/netns/pod".to_owned()),
            }],
            ips: ["10.244.1.2/32", "fd00::2/128"]
                .map(|address| IpConfig {
                    address: address.parse().unwrap(),
                    gateway: None,
                    interface: Some(0),
                })
                .into(),
            routes: vec![Route {
                dst: "0.0.0.0/0".parse().unwrap(),
                gw: Some("169.254.1.1".parse().unwrap()),
            }],
            dns: None,
        }
    }

    #[test]
    fn each_version_has_its_form() {
        let result = result();
        let newest = result.to_json(SpecVersion::V1_1_0);
        assert_eq!(newest["cniVersion"], "1.1.0");
        assert_eq!(
            newest["interfaces"],
            json!([{"name": "eth0", "mtu": 1450, "sandbox": "/run/netns/pod"}])
        );
        assert_eq!(
            newest["ips"][0],
            json!({"address": "10.244.1.2/32", "interface": 0})
        );
        assert_eq!(newest["dns"], json!({}));
        let without_mtu = result.to_json(SpecVersion::V1_0_0);
        assert!(without_mtu["interfaces"][0].get("mtu").is_none());
        assert!(without_mtu["ips"][0].get("version").is_none());
        for version in [SpecVersion::V0_3_1, SpecVersion::V0_4_0] {
            let old = result.to_json(version);
            assert_eq!(
                (&old["ips"][0]["version"], &old["ips"][1]["version"]),
                (&json!("4"), &json!("6"))
            );
        }
    }

    #[test]
    fn any_form_is_read() {
        for version in SpecVersion::ALL {
            let read: CniResult = serde_json::from_value(result().to_json(version)).unwrap();
            assert_eq!(read.ips, result().ips, "{version}");
            assert_eq!(read.routes, result().routes, "{version}");
        }
        let sparse: CniResult =
            serde_json::from_str(r#"{"ips":[{"address":"10.0.0.1/24"}],"routes":null}"#).unwrap();
        assert_eq!((sparse.ips.len(), sparse.routes.len()), (1, 0));
    }
}
