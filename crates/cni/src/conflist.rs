//! The network configuration list that makes a container runtime use the plugin.

use std::path::PathBuf;

use ipnet::IpNet;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::{IpamConfig, NetworkConfig, SpecVersion};

/// Program name of the plugin, by which the configuration names it and a runtime finds it.
pub const PLUGIN: &str = "routelet-cni";

/// File name of what takes the place of the list where pods outlive the agent. Any other network plugin's comes before it.
pub const UNINSTALLED_CONFLIST: &str = "zz-routelet-uninstalled.conflist";

/// `text`, a list of ours of whatever version, made such that a runtime can start no pod by it, and is told `why`, but can
/// take down those that are there. Without any list, runtimes cannot do that either. `None` where `text` is none of ours.
pub fn refusing(text: &str, why: &str) -> Option<String> {
    let mut list: Value = serde_json::from_str(text).ok()?;
    let mut plugins = list.get_mut("plugins")?.as_array_mut()?.iter_mut();
    let ours = plugins.find(|plugin| plugin["type"] == PLUGIN)?;
    ours["refuse"] = why.into();
    Some(format!("{list:#}\n"))
}

/// What a node's configuration list depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflist {
    /// The network's name.
    pub name: String,
    /// MTU of the pods in bytes.
    pub mtu: u32,
    /// The node's pod subnets. A pod gets an address of each family.
    pub subnets: Vec<IpNet>,
    /// Unix socket on which the agent answers.
    pub socket: PathBuf,
    /// What the names of host veths begin with.
    pub interface_prefix: String,
    /// Protocol number of pods' routes on the host.
    pub route_protocol: u8,
    /// Where host-local keeps its leases, in a directory of the network's name below.
    pub leases: PathBuf,
    /// Whether the plugin portmap follows, which serves the pods' host ports.
    pub port_maps: bool,
}

/// A text that is not the list of an agent of this version.
#[derive(Debug, thiserror::Error)]
#[error("it is no configuration list as this version writes it")]
pub struct NotOurs(#[source] Option<serde_json::Error>);

/// The list as JSON.
#[derive(Deserialize)]
struct List {
    name: String,
    plugins: Vec<Map<String, Value>>,
}

impl Conflist {
    /// Reads a text of [`Conflist::to_text`]. Anything else is refused, also where a runtime could use it.
    pub fn from_text(text: &str) -> Result<Self, NotOurs> {
        let read = || -> Result<Option<Self>, serde_json::Error> {
            let list: List = serde_json::from_str(text)?;
            let Some(mut plugin) = list.plugins.first().cloned() else {
                return Ok(None);
            };
            plugin.insert("name".to_owned(), list.name.clone().into());
            plugin.insert("cniVersion".to_owned(), SpecVersion::V1_0_0.as_str().into());
            let config: NetworkConfig = serde_json::from_value(plugin.into())?;
            let ipam = config.ipam.map(|ipam| ipam.rest).unwrap_or_default();
            let mut subnets = Vec::new();
            for range in ipam.get("ranges").and_then(Value::as_array).into_iter().flatten() {
                for subnet in range.as_array().into_iter().flatten() {
                    subnets.push(serde_json::from_value(subnet["subnet"].clone())?);
                }
            }
            let leases = ipam.get("dataDir").and_then(Value::as_str).unwrap_or_default();
            Ok(Some(Self {
                name: list.name,
                mtu: config.mtu,
                subnets,
                socket: config.socket,
                interface_prefix: config.interface_prefix,
                route_protocol: config.route_protocol,
                leases: leases.into(),
                port_maps: list.plugins.len() > 1,
            }))
        };
        let list = read().map_err(|error| NotOurs(Some(error)))?;
        list.filter(|list| list.to_text() == text).ok_or(NotOurs(None))
    }

    /// Where host-local keeps the leases of this network.
    pub fn lease_directory(&self) -> PathBuf {
        self.leases.join(&self.name)
    }

    /// The text of the file. The same for the same node, so that texts can be compared.
    pub fn to_text(&self) -> String {
        let version = SpecVersion::V1_0_0.as_str();
        let config = NetworkConfig {
            cni_version: version.to_owned(),
            name: self.name.clone(),
            plugin: PLUGIN.to_owned(),
            mtu: self.mtu,
            socket: self.socket.clone(),
            interface_prefix: self.interface_prefix.clone(),
            route_protocol: self.route_protocol,
            ipam: Some(self.ipam()),
            dns: None,
            refuse: None,
        };
        let mut plugin = json!(config);
        if let Some(plugin) = plugin.as_object_mut() {
            // The list says both, and the runtime hands them to each plugin.
            plugin.remove("cniVersion");
            plugin.remove("name");
        }
        let mut plugins = vec![plugin];
        if self.port_maps {
            plugins.push(json!({"type": "portmap", "capabilities": {"portMappings": true}}));
        }
        let list = json!({"cniVersion": version, "name": self.name, "plugins": plugins});
        format!("{list:#}\n")
    }

    /// For host-local, which gives one address of each set of ranges.
    fn ipam(&self) -> IpamConfig {
        let set = |v4: bool| -> Vec<Value> {
            let subnets = self.subnets.iter();
            subnets
                .filter(|subnet| matches!(subnet, IpNet::V4(_)) == v4)
                .map(|subnet| json!({"subnet": subnet}))
                .collect()
        };
        let mut sets = vec![set(true), set(false)];
        sets.retain(|set| !set.is_empty());
        IpamConfig {
            plugin: "host-local".to_owned(),
            rest: Map::from_iter([
                ("dataDir".to_owned(), json!(self.leases)),
                ("ranges".to_owned(), json!(sets)),
            ]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conflist() -> Conflist {
        Conflist {
            name: "k8s-pod-network".to_owned(),
            mtu: 1430,
            subnets: ["10.244.1.0/24", "fd00:244:1::/64", "10.245.1.0/24"]
                .map(|subnet| subnet.parse().unwrap())
                .to_vec(),
            socket: "/run/a.sock".into(),
            interface_prefix: "veth".to_owned(),
            route_protocol: 81,
            leases: "/var/leases".into(),
            port_maps: true,
        }
    }

    #[test]
    fn a_list_has_the_plugin_with_all_its_fields_then_portmap() {
        let list: Value = serde_json::from_str(&conflist().to_text()).unwrap();
        let wanted = json!({
            "cniVersion": "1.0.0",
            "name": "k8s-pod-network",
            "plugins": [
                {
                    "type": "routelet-cni",
                    "mtu": 1430,
                    "socket": "/run/a.sock",
                    "interfacePrefix": "veth",
                    "routeProtocol": 81,
                    "ipam": {
                        "type": "host-local",
                        "dataDir": "/var/leases",
                        "ranges": [
                            [{"subnet": "10.244.1.0/24"}, {"subnet": "10.245.1.0/24"}],
                            [{"subnet": "fd00:244:1::/64"}]
                        ]
                    }
                },
                {"type": "portmap", "capabilities": {"portMappings": true}}
            ]
        });
        assert_eq!(list, wanted);
    }

    #[test]
    fn a_list_that_refuses_differs_in_that_alone() {
        let text = conflist().to_text();
        let mut list: Value = serde_json::from_str(&refusing(&text, "for a reason").unwrap()).unwrap();
        let ours = list["plugins"][0].as_object_mut().unwrap();
        assert_eq!(ours.remove("refuse"), Some("for a reason".into()));
        assert_eq!(list, serde_json::from_str::<Value>(&text).unwrap());
        let twice = refusing(&refusing(&text, "for a reason").unwrap(), "for another").unwrap();
        assert_eq!(Some(twice), refusing(&text, "for another"));
        for other in ["", "{}", r#"{"plugins": [{"type": "bridge"}]}"#, "[]"] {
            assert_eq!(refusing(other, ""), None, "{other}");
        }
    }

    #[test]
    fn a_list_is_read_as_it_was_written_and_any_other_text_is_refused() {
        for port_maps in [true, false] {
            // Ranges are sorted by family.
            let list = Conflist {
                subnets: ["10.244.1.0/24", "fd00:244:1::/64"]
                    .map(|subnet| subnet.parse().unwrap())
                    .to_vec(),
                port_maps,
                ..conflist()
            };
            assert_eq!(Conflist::from_text(&list.to_text()).unwrap(), list);
        }
        let text = conflist().to_text();
        for other in [
            "",
            "{}",
            r#"{"name": "a", "plugins": []}"#,
            &text.replace("host-local", "dhcp"),
            &text.replace("1.0.0", "1.1.0"),
            &text[..text.len() - 1],
        ] {
            assert!(Conflist::from_text(other).is_err(), "{other}");
        }
    }

    #[test]
    fn the_plugin_reads_what_a_runtime_makes_of_the_list() {
        let only_v6 = Conflist {
            subnets: vec!["fd00:244:1::/64".parse().unwrap()],
            port_maps: false,
            ..conflist()
        };
        let list: Value = serde_json::from_str(&only_v6.to_text()).unwrap();
        let plugins = list["plugins"].as_array().unwrap();
        assert_eq!(plugins.len(), 1);
        let mut plugin = plugins[0].clone();
        for key in ["cniVersion", "name"] {
            plugin[key] = list[key].clone();
        }
        let config: NetworkConfig = serde_json::from_value(plugin).unwrap();
        assert_eq!((config.mtu, config.route_protocol), (1430, 81));
        assert_eq!(
            (config.plugin.as_str(), config.interface_prefix.as_str()),
            (PLUGIN, "veth")
        );
        let ipam = config.ipam.unwrap();
        assert_eq!(ipam.plugin, "host-local");
        assert_eq!(ipam.rest["ranges"], json!([[{"subnet": "fd00:244:1::/64"}]]));
    }
}
