//! A container runtime's part in a pod's network: it runs the CNI plugin.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, anyhow, ensure};
use routelet_cni::CniResult;
use routelet_model::{IfName, PodId, host_prefix};
use routelet_netlink::Netns;
use serde_json::{Value, json};

use crate::process::built_program;

/// Names the plugin's program, where it is not in the target directory of the running test.
const PLUGIN: &str = "ROUTELET_CNI_BIN";
/// The IPAM plugin, which is the lab's own: it gives a pod the addresses that its configuration names.
const IPAM: &str = "lab-ipam";
/// Names the IPAM plugin's program.
const IPAM_PROGRAM: &str = "ROUTELET_LAB_IPAM_BIN";

/// A pod's sandbox, as far as the runtime knows it: what it asks the plugin for, and with what.
#[derive(Debug)]
pub(crate) struct Sandbox {
    node: Netns,
    plugin: PathBuf,
    ipam: PathBuf,
    environment: [(&'static str, String); 4],
    config: Value,
}

impl Sandbox {
    /// A sandbox on the node, whose namespace is `netns`, for a pod with these addresses.
    pub(crate) fn new(
        node: &Netns,
        netns: &Netns,
        pod: &PodId,
        ifname: &str,
        addresses: &[std::net::IpAddr],
        mtu: u32,
    ) -> Result<Self> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let addresses: Vec<_> = addresses.iter().map(|address| host_prefix(*address)).collect();
        let args = format!(
            "IgnoreUnknown=1;K8S_POD_NAMESPACE={};K8S_POD_NAME={}",
            pod.namespace, pod.name
        );
        Ok(Self {
            node: node.clone(),
            plugin: built_program("routelet-cni", PLUGIN)?,
            ipam: built_program(IPAM, IPAM_PROGRAM)?,
            environment: [
                (
                    "CNI_CONTAINERID",
                    format!("sandbox-{}-{number}", std::process::id()),
                ),
                ("CNI_NETNS", netns.path().display().to_string()),
                ("CNI_IFNAME", ifname.to_owned()),
                ("CNI_ARGS", args),
            ],
            config: json!({
                "cniVersion": "1.1.0",
                "name": "pods",
                "type": "routelet-cni",
                "mtu": mtu,
                "ipam": { "type": IPAM, "addresses": addresses },
            }),
        })
    }

    /// Has the plugin connect it; returns the host veth.
    pub(crate) fn add(&self) -> Result<IfName> {
        let result: CniResult = serde_json::from_slice(&self.run("ADD")?).context("the answer to ADD")?;
        let host_end = result
            .interfaces
            .iter()
            .find(|interface| interface.sandbox.is_none());
        let host_end = host_end.context("the answer to ADD tells of no host veth")?;
        Ok(host_end.name.parse()?)
    }

    /// Has the plugin disconnect it.
    pub(crate) fn del(&self) -> Result<()> {
        self.run("DEL").map(drop)
    }

    fn run(&self, verb: &str) -> Result<Vec<u8>> {
        let mut command = Command::new(&self.plugin);
        command
            .env("CNI_COMMAND", verb)
            .env("CNI_PATH", self.ipam.parent().unwrap_or(Path::new("/")))
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = self.node.spawn(command)?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(self.config.to_string().as_bytes())?;
        }
        let output = child.wait_with_output().context("waiting for the CNI plugin")?;
        ensure!(
            output.status.success(),
            anyhow!(
                "{verb} of the CNI plugin failed: {}",
                String::from_utf8_lossy(&output.stdout)
            )
        );
        Ok(output.stdout)
    }
}
