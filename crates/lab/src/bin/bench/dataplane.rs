//! Planner, reconciler and kernel in this process, driven as the agent's loop drives them.

use std::time::Instant;

use anyhow::{Result, ensure};
use routelet_model::{ClusterEvent, Key, Kind, Object, PerFamily, Resource, Source};
use routelet_netlink::{Config, Kernel};
use routelet_planner::{Encapsulation, NftSettings, Plan, Planner, Settings, UnderlayRule, VxlanSettings};
use routelet_reconciler::{Ownership, Progress, Reconciler};

use crate::message::PROTOCOL;
use crate::modes::IPIP_DEVICE;
use crate::programming::{DEVICE, HERE, OWN_SUBNET, UNDERLAY};

/// Cluster events that the agent takes in before it writes to the kernel.
const EVENTS_AT_ONCE: usize = 128;

/// See the file's head.
pub(crate) struct Dataplane {
    planner: Planner,
    plan: Plan,
    reconciler: Reconciler<Kernel>,
    /// Operations that were written.
    written: u64,
    /// The same in words, of the last time that anything was.
    last: String,
}

impl Dataplane {
    /// Opens it in the calling thread's namespace, and brings it to where it idles: this node is known, its tunnel
    /// device is there, if it is to have one, and the cluster has no other node and no pod. With the nft table as the
    /// agent has it by default, or without: the raw writer has none.
    pub(crate) fn open(encapsulation: Encapsulation, nft_table: bool) -> Result<Self> {
        let devices = PerFamily {
            v4: DEVICE.parse()?,
            v6: "vxlan-v6.calico".parse()?,
        };
        let ipip_device = IPIP_DEVICE.parse()?;
        let mut owned = vec![devices.v4, devices.v6];
        if matches!(
            encapsulation,
            Encapsulation::Ipip | Encapsulation::IpipCrossSubnet
        ) {
            owned.push(ipip_device);
        }
        let kernel = Kernel::open(Config {
            protocol: PROTOCOL,
            devices: owned.clone(),
            interface_prefix: "cali".to_owned(),
            nft_table: "routelet".to_owned(),
            receive_buffer: 8 << 20,
        })?;
        ensure!(
            kernel.features().nexthop_objects,
            "this kernel has no nexthop objects (Linux 5.3 has)"
        );
        let settings = Settings {
            node_name: HERE.to_owned(),
            encapsulation,
            underlay: UnderlayRule::InternalIp,
            ipip_device,
            vxlan: VxlanSettings {
                device: devices,
                vni: 4096,
                port: 4789,
                checksum_offload: None,
            },
            mtu: None,
            interface_prefix: "cali".to_owned(),
            nexthop_objects: true,
            allow_any_pod_address: false,
            overlay_check: false,
            nft: nft_table.then_some(NftSettings {
                masquerade: true,
                masquerade_except: Vec::new(),
            }),
        };
        let ownership = Ownership {
            protocol: PROTOCOL,
            devices: owned,
            interface_prefix: "cali".to_owned(),
        };
        let mut dataplane = Self {
            planner: Planner::new(settings),
            plan: Plan::default(),
            reconciler: Reconciler::new(kernel, ownership, Instant::now()),
            written: 0,
            last: String::new(),
        };
        dataplane.take([
            ClusterEvent::NodeApplied(crate::peer::node(HERE, OWN_SUBNET, UNDERLAY)),
            ClusterEvent::Synced(Resource::Nodes, Source::Store),
            ClusterEvent::Synced(Resource::Pods, Source::Store),
        ]);
        dataplane.settle()?;
        let wants_a_device = dataplane.reconciler.count(Kind::Link).wanted > 0;
        ensure!(
            wants_a_device || encapsulation == Encapsulation::None,
            "the planner wants no device: {:?}",
            dataplane.planner.missing()
        );
        Ok(dataplane)
    }

    /// Takes cluster events in, and writes in between as often as the agent does.
    pub(crate) fn take(&mut self, events: impl IntoIterator<Item = ClusterEvent>) {
        let mut events = events.into_iter().peekable();
        while events.peek().is_some() {
            for event in events.by_ref().take(EVENTS_AT_ONCE) {
                self.planner.cluster(event, &mut self.plan);
            }
            self.hand_over();
            self.step();
        }
    }

    /// Wants an object, past the planner.
    pub(crate) fn want(&mut self, key: Key, object: Object) {
        self.reconciler.want(key, Some(object));
    }

    /// Orders a comparison of everything with the kernel.
    pub(crate) fn audit(&mut self) {
        self.reconciler.audit(Instant::now());
    }

    /// Works until there is nothing left to do. An error where the kernel refused something.
    pub(crate) fn settle(&mut self) -> Result<()> {
        loop {
            if let Some(host) = self.reconciler.host_if_changed(Instant::now())? {
                self.planner.host(&host, &mut self.plan);
            }
            self.hand_over();
            if self.step() != Progress::More && self.plan.changes.is_empty() {
                break;
            }
        }
        let report = self.reconciler.take_report();
        ensure!(
            report.errors.is_empty(),
            "the kernel refused: {:?}",
            report.refused
        );
        ensure!(
            report.failed_reads.is_empty(),
            "reading failed: {:?}",
            report.failed_reads
        );
        self.written += report.operations.total();
        if report.operations.total() > 0 {
            self.last = format!("{:?}, repairs {:?}", report.operations, report.repairs);
        }
        Ok(())
    }

    /// Operations written since this was last asked.
    pub(crate) fn take_written(&mut self) -> u64 {
        std::mem::take(&mut self.written)
    }

    /// What was written when anything was for the last time.
    pub(crate) fn last_written(&self) -> &str {
        &self.last
    }

    fn hand_over(&mut self) {
        for (key, object) in self.plan.changes.drain(..) {
            self.reconciler.want(key, object);
        }
        self.plan.notices.clear();
    }

    fn step(&mut self) -> Progress {
        self.reconciler.step(Instant::now())
    }
}
