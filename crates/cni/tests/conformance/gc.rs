//! GC: what the runtime does not know of any more goes, all else stays.

use routelet_netlink::Setup;
use serde_json::json;

use crate::runtime::{NEWEST, runtime};

const V4: &str = "10.244.1.0/24";
const V6: &str = "fd00:244:1::/64";

#[test]
fn what_is_not_valid_goes_as_often_as_it_is_asked() {
    let runtime = runtime!(V4, V6);
    let (living, dead) = (runtime.pod("living"), runtime.pod("dead"));
    for _ in 0..2 {
        assert_eq!(runtime.gc(&[&living]).ok().stdout, "");
        assert_eq!(runtime.veths(), [living.host_veth()]);
        assert_eq!(runtime.leased(), [living.id.as_str()]);
        runtime.check(&living).ok();
    }
    runtime.del(&dead).ok();
    runtime.gc(&[]).ok();
    runtime.assert_empty("after GC");
}

#[test]
fn leases_of_adds_that_never_came_to_a_veth_go() {
    let runtime = runtime!(V4, V6);
    let living = runtime.pod("living");
    let dead = runtime.pod("dead");
    Setup::open_in(&runtime.node)
        .unwrap()
        .delete_link(&dead.host_veth())
        .unwrap();
    assert_eq!(runtime.leased().len(), 4, "two of each family");
    runtime.gc(&[&living]).ok();
    assert_eq!(runtime.leased(), [living.id.as_str()]);
}

#[test]
fn what_is_not_of_this_network_stays() {
    let mut runtime = runtime!(V4);
    let pod = runtime.pod("web");
    runtime.config["name"] = "another".into();
    runtime.gc(&[]).ok();
    assert_eq!(runtime.veths(), [pod.host_veth()]);
    runtime.config["name"] = "pods".into();
    assert_eq!(runtime.leased(), [pod.id.as_str()]);
    runtime.check(&pod).ok();
}

#[test]
fn a_list_that_is_missing_is_not_taken_for_an_empty_one() {
    let runtime = runtime!(V4);
    let pod = runtime.pod("web");
    runtime
        .run("GC", &[], &runtime.config)
        .fails(NEWEST, 7, "cni.dev/valid-attachments is missing");
    let mut config = runtime.config.clone();
    config["cni.dev/valid-attachments"] = json!(["web"]);
    runtime
        .run("GC", &[], &config)
        .fails(NEWEST, 7, "cni.dev/valid-attachments");
    runtime.check(&pod).ok();
}

#[test]
fn what_cannot_be_given_back_does_not_keep_the_veths() {
    let mut runtime = runtime!(V4);
    runtime.pod("dead");
    let path = std::mem::replace(&mut runtime.path, "/no/such".into());
    runtime.gc(&[]).fails(NEWEST, 100, "host-local");
    assert_eq!((runtime.veths().len(), runtime.leased().len()), (0, 1));
    runtime.path = path;
    runtime.gc(&[]).ok();
    runtime.assert_empty("after GC");
}

#[test]
fn a_lease_that_names_nobody_goes() {
    let runtime = runtime!(V4);
    let living = runtime.pod("living");
    let half_written = runtime.file("leases").join("pods").join("10.244.1.77");
    std::fs::write(&half_written, "").unwrap();
    runtime.gc(&[&living]).ok();
    assert!(!half_written.exists());
    assert_eq!(runtime.leased(), [living.id.as_str()]);
}
