//! The network configuration: what the runtime hands over on the standard input.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::{Code, Error};
use crate::request::is_identifier;
use crate::{CniResult, SpecVersion};

/// Where the agent answers whether it is ready.
pub const DEFAULT_SOCKET: &str = "/run/routelet/routelet.sock";

/// What the plugin reads of a network configuration, and what the agent writes into one. Fields of others are left
/// alone, and reach the IPAM plugin as they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NetworkConfig {
    /// Version of the CNI specification.
    pub cni_version: String,
    /// The network's name.
    pub name: String,
    /// The plugin's program name.
    #[serde(rename = "type")]
    pub plugin: String,
    /// MTU of the pods in bytes; 0 leaves it to the kernel (1500).
    #[serde(default)]
    pub mtu: u32,
    /// Unix socket on which the agent answers `GET /readyz`.
    #[serde(default = "default_socket")]
    pub socket: PathBuf,
    /// What the names of host veths begin with, as with the agent.
    #[serde(default = "default_interface_prefix")]
    pub interface_prefix: String,
    /// Protocol number of pods' routes on the host, as with the agent.
    #[serde(default = "default_route_protocol")]
    pub route_protocol: u8,
    /// The plugin that gives addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipam: Option<IpamConfig>,
    /// Name servers for the pod, passed on to the runtime.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns: Option<Value>,
    /// Why no pod can be connected, where that is so: ADD and STATUS refuse with it. Pods that are there can be taken down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refuse: Option<String>,
}

/// What the plugin reads of the part for the IPAM plugin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IpamConfig {
    /// The IPAM plugin's program name, looked for in CNI_PATH.
    #[serde(rename = "type", default)]
    pub plugin: String,
    /// All that only the IPAM plugin understands.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// An attachment that a runtime knows of.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize)]
pub(crate) struct ValidAttachment {
    #[serde(rename = "containerID")]
    pub(crate) container_id: String,
    pub(crate) ifname: String,
}

fn default_socket() -> PathBuf {
    DEFAULT_SOCKET.into()
}

fn default_interface_prefix() -> String {
    "cali".to_owned()
}

fn default_route_protocol() -> u8 {
    80
}

/// Key of the attachments that a GC shall leave.
const VALID_ATTACHMENTS: &str = "cni.dev/valid-attachments";

/// The standard input, read.
#[derive(Debug)]
pub(crate) struct Input {
    /// The version to answer in.
    pub(crate) version: SpecVersion,
    pub(crate) config: NetworkConfig,
    /// All of it, for the IPAM plugin.
    whole: Map<String, Value>,
}

impl Input {
    /// Reads a configuration; `whole` is what [`parse`] made of the standard input.
    pub(crate) fn read(whole: Map<String, Value>) -> Result<Self, Error> {
        let version = spec_version(&whole)?;
        let config: NetworkConfig =
            serde_json::from_value(Value::Object(whole.clone())).map_err(|error| {
                let message = format!("the network configuration cannot be used: {error}");
                Error::new(Code::InvalidConfig, message)
            })?;
        if !is_identifier(&config.name) {
            let message = format!(
                "the network's name is {:?}: a letter or digit is wanted, then letters, digits, '_', '.' or '-'",
                config.name
            );
            return Err(Error::new(Code::InvalidConfig, message));
        }
        Ok(Self {
            version,
            config,
            whole,
        })
    }

    /// What is to be the MTU of both ends, where anything is said.
    pub(crate) fn mtu(&self) -> Result<Option<u32>, Error> {
        match self.config.mtu {
            0 => Ok(None),
            mtu @ 68..=65535 => Ok(Some(mtu)),
            mtu => {
                let message =
                    format!("mtu is {mtu}: bytes from 68 to 65535 are wanted, or 0 for the kernel's default");
                Err(Error::new(Code::InvalidConfig, message))
            }
        }
    }

    /// Program name of the IPAM plugin, where there is one.
    pub(crate) fn ipam_plugin(&self) -> Option<&str> {
        let ipam = self.config.ipam.as_ref()?;
        Some(ipam.plugin.as_str()).filter(|plugin| !plugin.is_empty())
    }

    /// Where host-local keeps the leases of this network.
    pub(crate) fn host_local_leases(&self) -> PathBuf {
        let configured = self
            .config
            .ipam
            .as_ref()
            .and_then(|ipam| ipam.rest.get("dataDir"));
        let directory = configured
            .and_then(Value::as_str)
            .filter(|directory| !directory.is_empty())
            .unwrap_or("/var/lib/cni/networks");
        Path::new(directory).join(&self.config.name)
    }

    /// The result of the ADD, which a CHECK needs.
    pub(crate) fn previous_result(&self) -> Result<CniResult, Error> {
        let Some(previous) = self.whole.get("prevResult").filter(|value| !value.is_null()) else {
            let message = "prevResult is missing: a CHECK compares with what ADD answered";
            return Err(Error::new(Code::InvalidConfig, message));
        };
        serde_json::from_value(previous.clone()).map_err(|error| {
            Error::new(
                Code::InvalidConfig,
                format!("prevResult is no result of an ADD: {error}"),
            )
        })
    }

    /// The attachments that a GC shall leave. Missing is not empty: one would cut off all pods, the other is a
    /// fault of who asks.
    pub(crate) fn valid_attachments(&self) -> Result<Vec<ValidAttachment>, Error> {
        let Some(list) = self.whole.get(VALID_ATTACHMENTS) else {
            let message = format!("{VALID_ATTACHMENTS} is missing: without it a GC would cut off all pods");
            return Err(Error::new(Code::InvalidConfig, message));
        };
        serde_json::from_value(list.clone()).map_err(|error| {
            let message = format!("{VALID_ATTACHMENTS} is no list of containerID and ifname: {error}");
            Error::new(Code::InvalidConfig, message)
        })
    }

    /// The configuration for the IPAM plugin, in a version that it speaks.
    pub(crate) fn for_delegate(&self, version: SpecVersion) -> Vec<u8> {
        let mut whole = self.whole.clone();
        let text = Value::from(version.as_str());
        if let Some(previous) = whole.get_mut("prevResult").and_then(Value::as_object_mut)
            && previous.contains_key("cniVersion")
        {
            previous.insert("cniVersion".to_owned(), text.clone());
        }
        whole.insert("cniVersion".to_owned(), text);
        Value::Object(whole).to_string().into_bytes()
    }
}

/// Takes the standard input apart.
pub(crate) fn parse(stdin: &[u8]) -> Result<Map<String, Value>, Error> {
    serde_json::from_slice(stdin).map_err(|error| {
        let message = format!("the network configuration on the standard input is no JSON object: {error}");
        Error::new(Code::Undecodable, message)
    })
}

/// The version that a configuration is in.
pub(crate) fn spec_version(whole: &Map<String, Value>) -> Result<SpecVersion, Error> {
    // As the specification has it for a configuration that does not say.
    let text = whole
        .get("cniVersion")
        .map_or(Some("0.1.0"), Value::as_str)
        .unwrap_or_default();
    SpecVersion::parse(text).ok_or_else(|| {
        let known = SpecVersion::ALL.map(SpecVersion::as_str).join(", ");
        let message = format!("cniVersion is {text:?}: the plugin speaks {known}");
        Error::new(Code::IncompatibleVersion, message)
    })
}
