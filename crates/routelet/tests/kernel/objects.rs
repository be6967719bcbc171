//! Routes, nexthops, neighbours, FDB entries and addresses, one by one.

use std::net::IpAddr;

use routelet_lab::{KernelView, wait};
use routelet_model::{Family, Key, Kind, Link, LinkKind, Object, RouteTarget, Vxlan, vtep_mac};

use crate::stage::{
    DEVICE, NO_AUDIT, OURS, Stage, create, delete, peer_address, peer_name, peer_subnet, replace, vxlan,
};

/// Protocol number `static`: someone else's.
const FOREIGN: u8 = 4;

#[test]
fn what_is_deleted_is_made_again() {
    let mut stage = Stage::with_web();
    let web = stage.veth("web");
    for (key, object) in stage.kernel() {
        // A setting cannot be deleted, and a host veth is not the agent's to make.
        if matches!(key, Key::Sysctl(_)) || key == Key::Link(web) {
            continue;
        }
        stage.repaired(key.kind(), "deleted", &format!("{key} was deleted"), |stage| {
            stage.meddle(OURS, &[delete(key, object)]);
        });
    }
    stage.wait_noticed();
    stage.assert_right("all objects had been deleted once");
}

#[test]
fn what_is_changed_is_changed_back() {
    let mut stage = Stage::with_web();
    let (link, gateway) = (DEVICE.parse().unwrap(), peer_subnet(1).addr());
    let other = RouteTarget::Nexthop {
        link,
        gateway: peer_subnet(2).addr(),
    };
    let web = host_route(&stage, 2);
    let mac = vtep_mac(&peer_name(1), Family::V4);
    let wrong_mac = vtep_mac(&peer_name(2), Family::V4);
    for (protocol, key, object) in [
        // The other peer's nexthop, a route of the same mark that leads nowhere, a plain gateway.
        (OURS, Key::route(peer_subnet(1)), Object::Route(other)),
        (
            OURS,
            Key::route(peer_subnet(1)),
            Object::Route(RouteTarget::Blackhole),
        ),
        (
            OURS,
            Key::route(peer_subnet(1)),
            Object::Route(RouteTarget::Gateway { link, gateway }),
        ),
        (
            OURS,
            web,
            Object::Route(RouteTarget::Link("eth0".parse().unwrap())),
        ),
        (OURS, web, Object::Route(RouteTarget::Blackhole)),
        (OURS, Key::Fdb { link, mac }, Object::Fdb(peer_address(2))),
        (
            OURS,
            Key::Neighbour {
                link,
                address: gateway,
            },
            Object::Neighbour(wrong_mac),
        ),
        // In place of ours, under someone else's mark.
        (
            FOREIGN,
            Key::route(peer_subnet(1)),
            Object::Route(RouteTarget::Blackhole),
        ),
        (
            FOREIGN,
            web,
            Object::Route(RouteTarget::Link("eth0".parse().unwrap())),
        ),
    ] {
        let what = format!("{key} was made {object} by protocol {protocol}");
        stage.repaired(key.kind(), "changed", &what, |stage| {
            stage.meddle(protocol, &[replace(key, object)]);
        });
        stage
            .agent()
            .wait_log(&format!("repaired what someone changed: {key}"), wait::LONG)
            .unwrap();
    }
    stage.wait_noticed();
    stage.assert_right("all had been changed back");
}

#[test]
fn what_carries_our_mark_and_is_not_wanted_is_removed() {
    let mut stage = Stage::with_web();
    let link = DEVICE.parse().unwrap();
    let (gateway, mac) = (peer_subnet(9).addr(), vtep_mac(&peer_name(9), Family::V4));
    let eth0 = "eth0".parse().unwrap();
    let nexthop = RouteTarget::Nexthop { link, gateway };
    for surplus in [
        vec![create(
            Key::route(peer_subnet(9)),
            Object::Route(RouteTarget::Blackhole),
        )],
        vec![create(
            Key::route(peer_subnet(9)),
            Object::Route(RouteTarget::Gateway { link, gateway }),
        )],
        vec![create(
            Key::Route {
                destination: peer_subnet(1),
                metric: 7,
            },
            Object::Route(RouteTarget::Gateway { link, gateway }),
        )],
        vec![create(
            Key::route(peer_subnet(9)),
            Object::Route(RouteTarget::Link(eth0)),
        )],
        vec![create(Key::Nexthop { link, gateway }, Object::Nexthop)],
        vec![create(
            Key::Nexthop {
                link: eth0,
                gateway: [172, 30, 0, 1].into(),
            },
            Object::Nexthop,
        )],
        vec![
            create(Key::Nexthop { link, gateway }, Object::Nexthop),
            create(Key::route(peer_subnet(9)), Object::Route(nexthop)),
        ],
        vec![create(
            Key::Neighbour {
                link,
                address: gateway,
            },
            Object::Neighbour(mac),
        )],
        vec![create(Key::Fdb { link, mac }, Object::Fdb(peer_address(9)))],
        vec![create(
            Key::Address {
                link,
                address: "10.99.0.1/24".parse().unwrap(),
            },
            Object::Address,
        )],
    ] {
        let what = format!("{surplus:?}");
        stage.repaired(surplus[0].key.kind(), "surplus", &what, |stage| {
            // Of two, the agent could remove the first before the second is made.
            stage.behind_its_back(|stage| stage.meddle(OURS, &surplus));
        });
    }
    stage.wait_noticed();
    stage.assert_right("all that was added had been removed");
}

#[test]
fn what_is_not_ours_stays() {
    let mut stage = Stage::with_web();
    let (link, eth0) = (DEVICE.parse().unwrap(), "eth0".parse().unwrap());
    let remote: IpAddr = [172, 30, 0, 1].into();
    let foreign_device = Link {
        kind: LinkKind::Vxlan(Vxlan {
            vni: 9,
            port: 4790,
            local: remote,
            parent: Some(eth0),
            learning: true,
            odd: false,
        }),
        ..vxlan("other", remote)
    };
    let mut setup = stage.setup();
    setup
        .add_vxlan("vxlan9".parse().unwrap(), &foreign_device)
        .unwrap();
    setup
        .add_address("vxlan9", "10.99.0.1/32".parse().unwrap())
        .unwrap();
    setup
        .add_address("eth0", "10.99.1.1/24".parse().unwrap())
        .unwrap();
    let mac = vtep_mac("other", Family::V4);
    setup.replace_fdb("vxlan9", mac, remote).unwrap();
    for (on, address) in [("vxlan9", [10, 99, 0, 9]), ("eth0", [172, 30, 99, 99])] {
        setup.replace_neighbour(on, address.into(), mac).unwrap();
    }
    stage.meddle(
        FOREIGN,
        &[
            create(
                Key::route("10.99.2.0/24".parse().unwrap()),
                Object::Route(RouteTarget::Link(eth0)),
            ),
            create(
                Key::route("10.99.3.0/24".parse().unwrap()),
                Object::Route(RouteTarget::Blackhole),
            ),
            // To one of our destinations, behind ours; to an address of our pod subnet; on our device.
            create(
                Key::Route {
                    destination: peer_subnet(1),
                    metric: 100,
                },
                Object::Route(RouteTarget::Gateway {
                    link: eth0,
                    gateway: remote,
                }),
            ),
            create(
                Key::route("10.244.1.77/32".parse().unwrap()),
                Object::Route(RouteTarget::Link(eth0)),
            ),
            create(
                Key::route("10.99.4.0/24".parse().unwrap()),
                Object::Route(RouteTarget::Link(link)),
            ),
            create(
                Key::Nexthop {
                    link: eth0,
                    gateway: remote,
                },
                Object::Nexthop,
            ),
            create(
                Key::Nexthop {
                    link,
                    gateway: peer_subnet(1).addr(),
                },
                Object::Nexthop,
            ),
            create(
                Key::route("10.99.5.0/24".parse().unwrap()),
                Object::Route(RouteTarget::Nexthop {
                    link: eth0,
                    gateway: remote,
                }),
            ),
        ],
    );
    let before = KernelView::of(stage.netns()).unwrap();
    stage.wait_noticed();
    assert_eq!(
        sorted(KernelView::of(stage.netns()).unwrap()),
        sorted(before.clone()),
        "while the agent runs"
    );
    stage.start_agent(NO_AUDIT);
    stage.wait_noticed();
    assert_eq!(
        sorted(KernelView::of(stage.netns()).unwrap()),
        sorted(before),
        "after the agent started anew"
    );
    assert_eq!(stage.repairs(Kind::Route, "surplus"), 0);
}

/// The agent's log names the foreign route that it replaced, whether the route is for a pod or a peer.
#[test]
fn a_foreign_route_where_ours_belongs_is_replaced_and_told() {
    let mut stage = Stage::with_web();
    let eth0 = "eth0".parse().unwrap();
    let to_eth0 = Object::Route(RouteTarget::Link(eth0));
    let (peer, pod) = (Key::route(peer_subnet(4)), host_route(&stage, 3));
    stage.add_pod_links("db", 3);
    stage.meddle(FOREIGN, &[create(peer, to_eth0.clone()), create(pod, to_eth0)]);
    stage.wait_noticed();
    let object = stage.cluster.pod_object(0, "db", 3).unwrap().build();
    // One after the other: of two that are replaced at a time, the log names one.
    for key in [peer, pod] {
        if key == peer {
            stage.add_peer(4);
        } else {
            stage.cluster.api().apply(&object).unwrap();
        }
        let told = format!("object={key}");
        wait::until(wait::LONG, &format!("a warning about {key}"), || {
            stage
                .agent()
                .log()
                .iter()
                .any(|line| line.contains("not ours") && line.contains(&told))
        })
        .unwrap_or_else(|error| panic!("{error}: {:#?}", stage.agent().log()));
    }
    stage.wait_right("the peer and the pod were added");
}

/// As the connected route of a bridge, on which pods of another network plugin are, and a BGP daemon's aggregate.
#[test]
fn a_foreign_route_to_the_own_pod_subnet_serves_until_it_goes() {
    let mut stage = Stage::with_web();
    let own = Key::route(stage.cluster.nodes()[0].subnet);
    let link = DEVICE.parse().unwrap();
    let others = Object::Route(RouteTarget::Link(link));
    let (gateway, peer) = (peer_subnet(1).addr(), Key::route(peer_subnet(1)));
    let to_peer = || Object::Route(RouteTarget::Nexthop { link, gateway });
    stage.meddle(FOREIGN, &[replace(own, others.clone())]);
    stage.wait_noticed_by(peer, to_peer());
    assert!(!stage.kernel().contains_key(&own));
    stage.start_agent(NO_AUDIT);
    stage.wait_noticed_by(peer, to_peer());
    assert!(!stage.kernel().contains_key(&own), "also after a start");
    assert_eq!(stage.sum("routelet_objects_out_of_sync"), 0);
    let told = format!("object={own}");
    let line = stage
        .agent()
        .wait_log("left someone else's in place", wait::LONG)
        .unwrap();
    assert!(line.contains(&told), "{line}");
    stage.meddle(FOREIGN, &[delete(own, others)]);
    stage.wait_right("the foreign route went");
}

fn host_route(stage: &Stage, host: u8) -> Key {
    Key::route(routelet_model::host_prefix(
        stage.cluster.pod_address(0, host).unwrap(),
    ))
}

/// A view without what the kernel moves by itself (neighbours that it resolves), in an order of its own.
fn sorted(mut view: KernelView) -> Vec<String> {
    /// `NUD_PERMANENT` of linux/neighbour.h.
    const PERMANENT: u16 = 0x80;
    view.neighbours.retain(|row| row.state & PERMANENT != 0);
    let mut lines: Vec<String> = view.to_string().lines().map(str::to_owned).collect();
    lines.sort();
    lines
}
