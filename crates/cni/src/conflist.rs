//! The network configuration list that makes a container runtime use the plugin.

use std::path::PathBuf;

use ipnet::IpNet;
use serde_json::{Map, Value, json};

use crate::{IpamConfig, NetworkConfig, SpecVersion};

/// Program name of the plugin, by which the configuration names it and a runtime finds it.
pub const PLUGIN: &str = "routelet-cni";

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
    /// Whether the plugin portmap follows, which serves the pods' host ports.
    pub port_maps: bool,
}

impl Conflist {
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
            rest: Map::from_iter([("ranges".to_owned(), json!(sets))]),
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
