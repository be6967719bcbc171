//! An IPAM plugin for the CNI plugin of the lab's pods: it gives the addresses that `ipam.addresses` in its
//! configuration names, and keeps no account of them.

use std::io::{Read, Write};

use anyhow::{Context, Result, ensure};
use ipnet::IpNet;
use routelet_cni::{CniResult, IpConfig, SpecVersion};
use serde_json::{Value, json};

fn main() -> Result<()> {
    let verb = std::env::var("CNI_COMMAND").context("CNI_COMMAND: a CNI plugin runs this program")?;
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text)?;
    let config: Value = serde_json::from_str(&text).context("the configuration on the standard input")?;
    match verb.as_str() {
        "ADD" => answer(&add(&config)?),
        "VERSION" => answer(&json!({
            "cniVersion": SpecVersion::NEWEST.as_str(),
            "supportedVersions": SpecVersion::ALL.map(SpecVersion::as_str),
        })),
        // Nothing is kept that could be given back.
        _ => Ok(()),
    }
}

fn add(config: &Value) -> Result<Value> {
    let version = config["cniVersion"].as_str().and_then(SpecVersion::parse);
    let addresses: Vec<IpNet> =
        serde_json::from_value(config["ipam"]["addresses"].clone()).context("ipam.addresses")?;
    ensure!(!addresses.is_empty(), "ipam.addresses is empty");
    let ips = addresses.into_iter().map(|address| IpConfig {
        address,
        gateway: None,
        interface: None,
    });
    let result = CniResult {
        ips: ips.collect(),
        ..CniResult::default()
    };
    Ok(result.to_json(version.context("cniVersion is none that is known")?))
}

fn answer(value: &Value) -> Result<()> {
    Ok(std::io::stdout().write_all(value.to_string().as_bytes())?)
}
