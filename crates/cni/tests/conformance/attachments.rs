//! What stands in the way of an ADD, who is whose, and many at once.

use std::collections::HashSet;

use routelet_lab::{KernelView, Ping};
use routelet_model::{host_prefix, host_veth_name};
use routelet_netlink::Setup;
use routelet_netlink::setup::VethEnd;

use crate::runtime::{MTU, NEWEST, Runtime, VERSIONS, WITH_CHECK, links, runtime};

const V4: &str = "10.244.1.0/24";
const V6: &str = "fd00:244:1::/64";

/// Puts a veth pair of someone else's in the way.
fn put_veth(runtime: &Runtime, near: &str, far: &str, netns: &routelet_netlink::Netns) {
    let end = |name| VethEnd {
        name,
        ..VethEnd::default()
    };
    let mut setup = Setup::open_in(&runtime.node).unwrap();
    setup.add_veth(end(near), end(far), netns).unwrap();
}

#[test]
fn an_interface_of_another_in_the_pod_stays() {
    for version in VERSIONS {
        let runtime = runtime!(V4).of_version(version);
        let mut sandbox = runtime.sandbox("web");
        put_veth(&runtime, "other0", "eth0", &sandbox.netns);
        runtime.add(&mut sandbox).fails(version, 101, "eth0 already");
        assert_eq!(runtime.leases(), []);
        runtime.del(&sandbox).ok();
        assert_eq!(
            (runtime.veths(), links(&sandbox.netns)),
            (vec!["other0".to_owned()], vec!["eth0".to_owned()])
        );
        if WITH_CHECK.contains(&version) {
            sandbox.previous = Some(serde_json::json!({"interfaces": [], "ips": []}));
            runtime
                .check(&sandbox)
                .fails(version, 105, "prevResult does not tell of eth0");
        }
    }
}

#[test]
fn the_host_veth_of_a_dead_sandbox_of_the_pod_is_replaced() {
    for version in VERSIONS {
        let runtime = runtime!(V4).of_version(version);
        let old = runtime.pod("web");
        let mut new = runtime.sandbox("web");
        new.id = "a-newer-sandbox".to_owned();
        runtime.add(&mut new).ok();
        assert_eq!(old.host_veth(), new.host_veth());
        assert_eq!(links(&old.netns), [""; 0], "the old sandbox has lost its end");
        assert_ne!(old.addresses(), new.addresses());
        if WITH_CHECK.contains(&version) {
            runtime.check(&new).ok();
            runtime.check(&old).fails(version, 105, "is not this container's");
        }

        // The old sandbox's DEL comes late, and must not take the new one's veth.
        runtime.del(&old).ok();
        assert_eq!(runtime.veths(), [new.host_veth()]);
        assert_eq!(runtime.leased(), [new.id.clone()]);
        runtime.del(&new).ok();
        runtime.assert_empty("after both");
    }
}

#[test]
fn a_host_veth_that_another_plugin_left_is_replaced() {
    let runtime = runtime!(V4);
    let mut sandbox = runtime.sandbox("web");
    let name = host_veth_name("cali", "default", "web").unwrap();
    put_veth(&runtime, name.as_str(), "eth0", &runtime.sandbox("left").netns);
    runtime.add(&mut sandbox).ok();
    runtime.check(&sandbox).ok();
    assert_eq!(runtime.veths(), [name.to_string()]);
}

/// As after a crash that the leases did not outlive, but the veths did.
#[test]
fn an_address_that_is_given_anew_leads_to_the_new_pod() {
    let runtime = runtime!(V4, V6);
    let leaked = runtime.pod("leaked");
    std::fs::remove_dir_all(runtime.file("leases")).unwrap();
    let pod = runtime.pod("web");
    assert_eq!(pod.addresses(), leaked.addresses());
    runtime.check(&pod).ok();
    let routes = KernelView::of(&runtime.node).unwrap().routes;
    for address in pod.addresses() {
        let links: Vec<_> = routes
            .iter()
            .filter(|route| route.destination == host_prefix(address))
            .map(|route| route.link.unwrap().to_string())
            .collect();
        assert_eq!(links, [pod.host_veth()], "{address}");
        let report = Ping::to(address).run(&runtime.node).unwrap();
        assert!(report.lost.is_empty(), "{address}: {report}");
    }
    runtime.gc(&[&pod]).ok();
    runtime.check(&pod).ok();
}

#[test]
fn a_second_interface_of_a_pod_is_refused_and_the_first_stays() {
    let runtime = runtime!(V4);
    let pod = runtime.pod("web");
    let mut second = runtime.sandbox("web");
    second.netns = pod.netns.clone();
    second.ifname = "net1".to_owned();
    runtime.add(&mut second).fails(NEWEST, 101, "as eth0 already");
    runtime.check(&pod).ok();
    assert_eq!(runtime.leased(), [pod.id.as_str()]);
    runtime.del(&second).ok();
    runtime.check(&pod).ok();
}

#[test]
fn containers_without_a_pod_go_by_their_id() {
    let runtime = runtime!(V4, V6);
    let mut first = runtime.sandbox("first");
    first.args = "IgnoreUnknown=1".to_owned();
    let mut second = runtime.sandbox("second");
    second.args = String::new();
    for sandbox in [&mut first, &mut second] {
        runtime.add(sandbox).ok();
        runtime.check(sandbox).ok();
        assert!(sandbox.host_veth().starts_with("cali"));
    }
    assert_eq!(runtime.veths().len(), 2);
    for sandbox in [&first, &second] {
        runtime.del(sandbox).ok();
    }
    runtime.assert_empty("after DEL");
}

#[test]
fn ids_and_names_of_any_length() {
    let runtime = runtime!(V4);
    let mut sandbox = runtime.sandbox(&"long-name.".repeat(25));
    sandbox.id = "0123456789abcdef".repeat(4);
    runtime.add(&mut sandbox).ok();
    runtime.check(&sandbox).ok();
    runtime.del(&sandbox).ok();
    runtime.assert_empty("after DEL");
    sandbox.id = "0".repeat(300);
    runtime.add(&mut sandbox).fails(NEWEST, 4, "CNI_CONTAINERID");
    runtime.assert_empty("after what was refused");
}

#[test]
fn check_finds_what_has_been_meddled_with() {
    type Meddle = fn(&mut Setup, &mut Setup, &str);
    let meddle: [(&str, Meddle); 8] = [
        ("does not have 10.244.1.", |_, pod, _| {
            let address = "10.244.1.2/32".parse().unwrap();
            pod.delete_address("eth0", address).unwrap();
        }),
        ("no default route via 169.254.1.1", |_, pod, _| {
            pod.delete_route("0.0.0.0/0".parse().unwrap()).unwrap();
        }),
        ("no default route via fe80::", |_, pod, _| {
            pod.delete_route("::/0".parse().unwrap()).unwrap();
        }),
        ("eth0 has the MTU 1400, not 1450", |_, pod, _| {
            pod.set_mtu("eth0", 1400).unwrap();
        }),
        ("has the MTU 1400, not 1450", |host, _, veth| {
            host.set_mtu(veth, 1400).unwrap();
        }),
        (
            "has the MAC address 02:00:00:00:00:01, not ee:ee:ee:ee:ee:ee",
            |host, _, veth| {
                host.set_mac(veth, "02:00:00:00:00:01".parse().unwrap()).unwrap();
            },
        ),
        ("eth0 is down", |_, pod, _| pod.set_down("eth0").unwrap()),
        ("no route to 10.244.1.2/32", |host, _, _| {
            host.delete_route("10.244.1.2/32".parse().unwrap()).unwrap();
        }),
    ];
    for (text, meddle) in meddle {
        let runtime = runtime!(V4, V6);
        let pod = runtime.pod("web");
        runtime.check(&pod).ok();
        let mut host = Setup::open_in(&runtime.node).unwrap();
        meddle(&mut host, &mut pod.setup(), &pod.host_veth());
        runtime.check(&pod).fails(NEWEST, 105, text);
    }
}

#[test]
fn a_hundred_at_once() {
    for version in VERSIONS {
        let runtime = runtime!(V4, V6).of_version(version);
        let mut pods: Vec<_> = (0..100)
            .map(|number| runtime.sandbox(&format!("web-{number}")))
            .collect();
        std::thread::scope(|scope| {
            for pod in &mut pods {
                scope.spawn(|| runtime.add(pod).ok());
            }
        });
        let addresses: HashSet<_> = pods.iter().flat_map(|pod| pod.addresses()).collect();
        assert_eq!((addresses.len(), runtime.veths().len()), (200, 100));
        assert_eq!(pods[0].result().interfaces[1].mtu.unwrap_or(MTU), MTU);
        std::thread::scope(|scope| {
            for pod in &pods {
                scope.spawn(|| {
                    if WITH_CHECK.contains(&version) {
                        runtime.check(pod).ok();
                    }
                    for address in pod.addresses() {
                        let report = Ping::to(address).run(&runtime.node).unwrap();
                        assert!(report.lost.is_empty(), "{address}: {report}");
                    }
                });
            }
        });
        std::thread::scope(|scope| {
            for pod in &pods {
                scope.spawn(|| runtime.del(pod).ok());
            }
        });
        runtime.assert_empty("after a hundred DELs");
    }
}
