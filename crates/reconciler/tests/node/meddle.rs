//! What others do to a node's kernel.

use std::net::IpAddr;

use routelet_model::{
    Family, HOST_VETH_MAC, IfName, Key, Kind, Link, LinkKind, MacAddr, Object, Sysctl, Vxlan, vtep_mac,
};
use routelet_netlink::setup::{RouteSpec, VethEnd};
use routelet_netlink::{Kernel, Operation, Verb};

use super::{FOREIGN, Node, OURS, UNDERLAY, add_underlay, add_veth, device, ip, name, open_ours, run, veth};

/// Someone's deed. One that the kernel refuses, as there is nothing to do it to, is none.
#[derive(Debug, Clone)]
pub(crate) enum Meddle {
    /// Makes the VXLAN device, if there is none.
    MakeDevice(Family, Flaws),
    /// Makes the VXLAN device as it shall be, but for an option more, in place of what is there.
    MakeOddDevice(Family, &'static str),
    /// Gives the VXLAN device an option more, as it is.
    DeviceOption(Family, &'static str),
    /// Sets the VXLAN device up or down.
    SetDevice(Family, bool),
    /// Sets it down and up again at once.
    BounceDevice(Family),
    DeviceMtu(Family, u32),
    DeviceMac(Family, MacAddr),
    DeleteDevice(Family),
    /// Makes a link a port of a bridge.
    Enslave(IfName),
    /// Makes the pod's host veth, with the right MAC address or another.
    MakeVeth(u8, bool),
    SetVeth(u8, bool),
    VethMac(u8, MacAddr),
    DeleteVeth(u8),
    /// Makes an object or gives it another state.
    Write(By, Key, Object),
    /// Puts a route beside what is there under the key, before it or behind: to the underlay's link, or a blackhole.
    Beside {
        by: By,
        before: bool,
        key: Key,
        blackhole: bool,
    },
    /// Makes an FDB entry that leads to a group of nexthops, in place of what is there.
    FdbToNexthop(Key, IpAddr),
    /// Deletes what is there under the key.
    Delete(By, Key),
    /// Makes a second nexthop, as ours is, for a gateway that may have one.
    SecondNexthop(Key),
    WriteSetting(Sysctl, u32),
    UnderlayMtu(u32),
    /// Deletes the underlay's link; the kernel takes the VXLAN devices along.
    DeleteUnderlay,
    /// Makes it again, with its addresses.
    MakeUnderlay,
    /// Gives it another name, or the usual one back.
    RenameUnderlay(&'static str, &'static str),
}

/// Who does it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    /// One who uses our protocol number.
    Twin,
    /// One who uses another.
    Foreign,
}

/// What is wrong with a VXLAN device.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Flaws {
    pub(crate) vni: bool,
    pub(crate) port: bool,
    pub(crate) local: bool,
    pub(crate) parent: bool,
    pub(crate) learning: bool,
    pub(crate) mac: bool,
    pub(crate) mtu: bool,
    pub(crate) down: bool,
}

impl Node {
    pub(crate) fn meddle(&mut self, meddle: &Meddle) {
        match meddle {
            Meddle::MakeDevice(family, flaws) => {
                let create = Operation {
                    verb: Verb::Create,
                    key: Key::Link(device(*family)),
                    object: flawed_device(*family, *flaws),
                };
                self.by(By::Twin, &[create]);
            }
            Meddle::MakeOddDevice(family, option) => {
                let (local, mtu) = match family {
                    Family::V4 => ("192.0.2.1", 1450),
                    Family::V6 => ("2001:db8::1", 1430),
                };
                let (name, mac) = (device(*family), vtep_mac("node-0", *family));
                self.setup.delete_link(name.as_str()).unwrap();
                let _ = run(&format!(
                    "ip link add {name} up address {mac} mtu {mtu} type vxlan id 4096 dstport 4789 local {local} \
                     dev {UNDERLAY} nolearning {option}"
                ));
            }
            Meddle::DeviceOption(family, option) => {
                _ = run(&format!("ip link set {} type vxlan {option}", device(*family)));
            }
            Meddle::SetDevice(family, true) => _ = self.setup.set_up(device(*family).as_str()),
            Meddle::SetDevice(family, false) => _ = self.setup.set_down(device(*family).as_str()),
            Meddle::BounceDevice(family) => {
                let _ = self.setup.set_down(device(*family).as_str());
                let _ = self.setup.set_up(device(*family).as_str());
            }
            Meddle::DeviceMtu(family, mtu) => _ = self.setup.set_mtu(device(*family).as_str(), *mtu),
            Meddle::DeviceMac(family, mac) => _ = self.setup.set_mac(device(*family).as_str(), *mac),
            Meddle::DeleteDevice(family) => self.setup.delete_link(device(*family).as_str()).unwrap(),
            Meddle::Enslave(link) => {
                const BRIDGE: &str = "br9";
                let _ = self.setup.add_bridge(BRIDGE);
                let _ = self.setup.set_master(link.as_str(), BRIDGE);
            }
            Meddle::MakeVeth(pod, right) => {
                let veth = veth(*pod);
                if self.setup.link(veth.as_str()).unwrap().is_none() {
                    let mac = if *right { HOST_VETH_MAC } else { MacAddr([2; 6]) };
                    let end = VethEnd {
                        name: veth.as_str(),
                        mac: Some(mac),
                        up: *right,
                        ..VethEnd::default()
                    };
                    add_veth(&mut self.setup, end);
                }
            }
            Meddle::SetVeth(pod, true) => _ = self.setup.set_up(veth(*pod).as_str()),
            Meddle::SetVeth(pod, false) => _ = self.setup.set_down(veth(*pod).as_str()),
            Meddle::VethMac(pod, mac) => _ = self.setup.set_mac(veth(*pod).as_str(), *mac),
            Meddle::DeleteVeth(pod) => self.setup.delete_link(veth(*pod).as_str()).unwrap(),
            Meddle::Write(by, key, object) => {
                let verb = match key.kind() {
                    Kind::Address | Kind::NftElement => Verb::Create,
                    _ => Verb::Replace,
                };
                let write = Operation {
                    verb,
                    key: *key,
                    object: object.clone(),
                };
                self.by(*by, &[write]);
            }
            Meddle::Beside {
                by,
                before,
                key,
                blackhole,
            } => {
                let Key::Route { destination, metric } = *key else {
                    return;
                };
                let route = if *blackhole {
                    RouteSpec::blackhole(destination)
                } else {
                    RouteSpec::to_link(destination, UNDERLAY)
                };
                let protocol = match by {
                    By::Twin => OURS,
                    By::Foreign => FOREIGN,
                };
                let route = route.metric(metric).protocol(protocol);
                let _ = self.setup.add_route_beside(route, *before);
            }
            Meddle::FdbToNexthop(key, remote) => {
                // A nexthop, and the group that it is alone in.
                let (id, group) = if remote.is_ipv4() { (901, 902) } else { (903, 904) };
                let _ = run(&format!("ip nexthop replace id {id} via {remote} fdb"));
                let _ = run(&format!("ip nexthop replace id {group} group {id} fdb"));
                let _ = fdb("del", key, "");
                let _ = fdb("add", key, &format!("nhid {group}"));
            }
            Meddle::Delete(by, key) => self.delete(*by, key),
            Meddle::SecondNexthop(key) => self.make_second_nexthop(*key),
            Meddle::WriteSetting(sysctl, value) => {
                _ = std::fs::write(format!("/proc/sys/{}", sysctl.path()), value.to_string());
            }
            Meddle::UnderlayMtu(mtu) => self.setup.set_mtu(UNDERLAY, *mtu).unwrap(),
            Meddle::DeleteUnderlay => self.setup.delete_link(UNDERLAY).unwrap(),
            Meddle::MakeUnderlay => add_underlay(&mut self.setup),
            Meddle::RenameUnderlay(old, new) => self.setup.rename(old, new).unwrap(),
        }
    }

    fn who(&mut self, by: By) -> &mut Kernel {
        let kernel = match by {
            By::Twin => &mut self.twin,
            By::Foreign => &mut self.foreign,
        };
        // Up to date with what has happened since.
        kernel.drain(&mut Vec::new());
        kernel
    }

    pub(crate) fn by(&mut self, by: By, operations: &[Operation]) {
        self.who(by).apply(operations, &mut Vec::new());
    }

    fn delete(&mut self, by: By, key: &Key) {
        let kernel = self.who(by);
        let mut found = None;
        let _ = kernel.dump(key.kind(), None, &mut |seen, object| {
            if seen == *key {
                found = Some(object);
            }
        });
        if let Some(object) = found {
            let delete = Operation {
                verb: Verb::Delete,
                key: *key,
                object,
            };
            kernel.apply(&[delete], &mut Vec::new());
        }
    }

    /// Who knows of no nexthop takes the first id. Meanwhile someone else makes the next one get another.
    fn make_second_nexthop(&mut self, key: Key) {
        let create = [Operation {
            verb: Verb::Create,
            key,
            object: Object::Nexthop,
        }];
        self.delete(By::Twin, &key);
        let mut ignorant = open_ours(1 << 16);
        self.by(By::Foreign, &create);
        // Refused for the id; then made with another.
        self.by(By::Twin, &create);
        self.by(By::Twin, &create);
        self.delete(By::Foreign, &key);
        ignorant.apply(&create, &mut Vec::new());
    }
}

/// Has the program bridge do something to an FDB entry.
fn fdb(deed: &str, key: &Key, words: &str) -> Result<(), String> {
    let Key::Fdb { link, mac } = key else {
        return Err(format!("{key} is no FDB entry"));
    };
    run(format!("bridge fdb {deed} {mac} dev {link} self permanent {words}").trim())
}

/// The VXLAN device as this node wants it, but for its flaws.
fn flawed_device(family: Family, flaws: Flaws) -> Object {
    let (local, other, mtu) = match family {
        Family::V4 => ("192.0.2.1", "192.0.2.77", 1450),
        Family::V6 => ("2001:db8::1", "2001:db8::77", 1430),
    };
    let vxlan = Vxlan {
        vni: if flaws.vni { 7 } else { 4096 },
        port: if flaws.port { 8472 } else { 4789 },
        local: ip(if flaws.local { other } else { local }),
        parent: (!flaws.parent).then(|| name(UNDERLAY)),
        learning: flaws.learning,
        odd: false,
    };
    let mac = if flaws.mac {
        MacAddr([2, 2, 2, 2, 2, 2])
    } else {
        vtep_mac("node-0", family)
    };
    Object::Link(Box::new(Link {
        kind: LinkKind::Vxlan(vxlan),
        mac: Some(mac),
        mtu: Some(if flaws.mtu { 1300 } else { mtu }),
        up: !flaws.down,
        running: !flaws.down,
        enslaved: false,
        given: Vec::new(),
        index: 0,
    }))
}
