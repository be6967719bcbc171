//! This node's kernel, and what the agent's settings say to those that work on it: the planner and the reconciler.

use anyhow::Context;
use routelet_model::{IfName, PerFamily};
use routelet_netlink::{Features, Kernel};
use routelet_planner::{NftSettings, Settings, VxlanSettings};
use routelet_reconciler::Ownership;
use routelet_watcher::ApiSettings;

use crate::args::{ApiArgs, NexthopObjects, NftArgs, RunArgs};
use crate::encapsulation;

/// The kernel, opened, and what is told to planner and reconciler of it.
pub(crate) struct Opened {
    /// The kernel of the calling thread's network namespace.
    pub(crate) kernel: Kernel,
    /// The marks by which the agent's objects are known.
    pub(crate) ownership: Ownership,
    /// The planner's settings.
    pub(crate) planner: Settings,
}

/// Opens the kernel of the calling thread's network namespace, and writes nothing to it.
pub(crate) fn open(args: &RunArgs) -> anyhow::Result<Opened> {
    let devices = encapsulation::devices(&args.marks, Some(args.overlay.encapsulation))?;
    let config = args.marks.kernel_config(devices, args.kernel.receive_buffer);
    let ownership = Ownership {
        protocol: config.protocol,
        devices: config.devices.clone(),
        interface_prefix: config.interface_prefix.clone(),
    };
    let mut kernel = Kernel::open(config).context("cannot open the kernel's routing tables")?;
    kernel.follow_ways_to(args.underlay.underlay.destinations());
    let features = kernel.features();
    let nexthop_objects = features.nexthop_objects && args.kernel.nexthop_objects == NexthopObjects::Auto;
    Ok(Opened {
        planner: planner_settings(args, nexthop_objects, features)?,
        ownership,
        kernel,
    })
}

fn planner_settings(args: &RunArgs, nexthop_objects: bool, features: &Features) -> anyhow::Result<Settings> {
    let NftArgs {
        masquerade,
        masquerade_except,
        pod_cidrs,
        ..
    } = &args.nft;
    let nft = NftSettings {
        masquerade: *masquerade,
        masquerade_except: [masquerade_except.as_slice(), pod_cidrs].concat(),
    };
    Ok(Settings {
        node_name: args.cluster.node_name.clone(),
        encapsulation: encapsulation::of(args.overlay.encapsulation),
        underlay: args.underlay.underlay.clone(),
        ipip_device: encapsulation::ipip_device()?,
        vxlan: VxlanSettings {
            device: PerFamily::<IfName> {
                v4: args.marks.vxlan_device,
                v6: args.marks.vxlan_device_v6,
            },
            vni: args.overlay.vxlan_vni,
            port: args.overlay.vxlan_port,
            checksum_offload: encapsulation::checksum_offload(args.overlay.vxlan_checksum_offload, features),
        },
        mtu: args.overlay.mtu.bytes(),
        interface_prefix: args.marks.interface_prefix.clone(),
        nexthop_objects,
        allow_any_pod_address: args.kernel.allow_any_pod_address,
        overlay_check: args.overlay_check.overlay_check.rate().is_some(),
        nft: features.nftables.then_some(nft),
    })
}

impl From<&ApiArgs> for ApiSettings {
    fn from(args: &ApiArgs) -> Self {
        Self {
            kubeconfig: args.kubeconfig.clone(),
            server_host: args.api_server_host.clone(),
            server_port: args.api_server_port,
        }
    }
}
