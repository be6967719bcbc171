//! Many operations at once, some of which fail.

mod common;

use std::net::Ipv4Addr;

use common::*;
use ipnet::{IpNet, Ipv4Net};
use routelet_model::{Family, IfName, Key, Kind, Object, RouteTarget};
use routelet_netlink::{Error, Verb};

fn pod_route(number: u32, link: IfName) -> (Key, Object) {
    let address = Ipv4Addr::from(0x0a40_0000 + number);
    let destination = IpNet::V4(Ipv4Net::from(address));
    (Key::route(destination), Object::Route(RouteTarget::Link(link)))
}

#[test]
fn each_failure_is_told_for_its_own_operation() {
    in_netns(|| {
        make_links();
        let mut kernel = open();
        let routes: Vec<_> = (0..1000).map(|number| pod_route(number, name(POD))).collect();
        let third: Vec<_> = routes.iter().step_by(3).cloned().collect();
        all(&mut kernel, Verb::Create, &third);
        let operations: Vec<_> = routes
            .iter()
            .map(|route| operation(Verb::Create, route))
            .collect();
        let failures = apply(&mut kernel, &operations);
        let failed: Vec<_> = failures.iter().map(|failure| failure.index).collect();
        assert_eq!(failed, (0..1000).step_by(3).collect::<Vec<_>>());
        assert!(failures.iter().all(|failure| failure.error.is_already_exists()));
        assert_eq!(dump(&mut kernel, Kind::Route, None).len(), 1000);
    });
}

#[test]
fn a_batch_of_which_all_fail_loses_no_answer() {
    in_netns(|| {
        make_links();
        let mut kernel = open();
        let routes: Vec<_> = (0..1000).map(|number| pod_route(number, name(POD))).collect();
        all(&mut kernel, Verb::Create, &routes);
        let operations: Vec<_> = routes
            .iter()
            .map(|route| operation(Verb::Create, route))
            .collect();
        let failures = apply(&mut kernel, &operations);
        assert_eq!(failures.len(), 1000);
        assert!(failures.iter().all(|failure| failure.error.is_already_exists()));
    });
}

#[test]
fn the_kernel_s_own_words_are_told() {
    in_netns(|| {
        make_links();
        let mut kernel = open();
        let mut objects = objects(Family::V4);
        all(&mut kernel, Verb::Create, &objects[..1]);
        // A gateway that is an address of the host's own.
        objects[4].0 = Key::Nexthop {
            link: device(Family::V4),
            gateway: ip("192.0.2.1"),
        };
        let failures = apply(&mut kernel, &[operation(Verb::Create, &objects[4])]);
        let Error::Refused {
            errno: 22,
            message: Some(message),
        } = &failures[0].error
        else {
            panic!("{:?}", failures[0].error)
        };
        assert!(message.contains("gateway"), "{message}");
    });
}

#[test]
fn what_cannot_be_asked_is_told_without_asking() {
    in_netns(|| {
        make_links();
        let mut kernel = open();
        let objects = objects(Family::V4);
        let operations = [
            operation(Verb::Create, &pod_route(0, name("absent"))),
            operation(Verb::Create, &pod_route(1, name(POD))),
            operation(Verb::Create, &objects[5]),
            operation(Verb::Create, &(Key::route(net("10.9.0.0/24")), Object::Address)),
            operation(Verb::Delete, &pod_route(2, name("absent"))),
        ];
        let failures = apply(&mut kernel, &operations);
        let failed: Vec<_> = failures.iter().map(|failure| failure.index).collect();
        assert_eq!(failed, [0, 2, 3]);
        assert!(matches!(failures[0].error, Error::NoSuchLink(_)) && failures[0].error.is_missing_link());
        assert!(matches!(failures[1].error, Error::NoSuchNexthop { .. }));
        assert!(matches!(failures[2].error, Error::Unsupported(_)));
        assert_eq!(dump(&mut kernel, Kind::Route, None).len(), 1);
    });
}
