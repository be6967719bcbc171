//! Which of the flows that a real kernel tracks are forgotten, and which stay.

use std::net::{IpAddr, SocketAddr};

use routelet_netlink::{Netns, Setup, flush_flows};

use crate::need;
use crate::support::{deliver, flows, flows_with, nft, udp};

/// A namespace with the addresses 10.0.0.1 to 10.0.0.9 and fd00::1 to fd00::9, where everything is tracked; what
/// is sent to port 53 of 10.0.0.9 and fd00::9 goes to those that end in 2.
fn tracking() -> Netns {
    let netns = Netns::new().unwrap();
    let mut setup = Setup::open_in(&netns).unwrap();
    for host in 1..10 {
        setup
            .add_address("lo", format!("10.0.0.{host}/32").parse().unwrap())
            .unwrap();
        setup
            .add_address("lo", format!("fd00::{host}/128").parse().unwrap())
            .unwrap();
    }
    nft(
        &netns,
        "add table inet t;
         add chain inet t zone { type filter hook output priority raw; };
         add rule inet t zone udp dport 77 ct zone set 7;
         add rule inet t zone udp sport 77 ct zone set 7;
         add chain inet t zone-in { type filter hook prerouting priority raw; };
         add rule inet t zone-in udp dport 77 ct zone set 7;
         add rule inet t zone-in udp sport 77 ct zone set 7;
         add chain inet t nat { type nat hook output priority -100; };
         add rule inet t nat ip daddr 10.0.0.9 udp dport 53 dnat ip to 10.0.0.2;
         add rule inet t nat ip6 daddr fd00::9 udp dport 53 dnat ip6 to fd00::2;",
    );
    netns
}

fn address(family: &str, host: u8) -> IpAddr {
    format!("{family}{host}").parse().unwrap()
}

const FAMILIES: [&str; 2] = ["10.0.0.", "fd00::"];

/// Makes a flow from one host to a port of another, which `server` answers for.
fn talk(netns: &Netns, family: &str, from: u8, to: u8, port: u16, server: u8) {
    let client = udp(netns, SocketAddr::new(address(family, from), 0));
    let at = udp(netns, SocketAddr::new(address(family, server), port));
    deliver(&client, SocketAddr::new(address(family, to), port), &at);
}

fn flush(netns: &Netns, addresses: &[IpAddr]) -> usize {
    netns.run(|| flush_flows(addresses).unwrap()).unwrap()
}

/// How a host shows in the list of flows.
fn shown(family: &str, host: u8) -> String {
    match family {
        "10.0.0." => format!("=10.0.0.{host} "),
        _ => format!("=fd00:0000:0000:0000:0000:0000:0000:{host:04x} "),
    }
}

#[test]
fn flows_of_an_address_go_whatever_its_place_in_them() {
    need!("nft");
    for family in FAMILIES {
        let netns = tracking();
        // As client, as server, behind a translated address, in another zone.
        talk(&netns, family, 2, 3, 1000, 3);
        talk(&netns, family, 4, 2, 1000, 2);
        talk(&netns, family, 5, 9, 53, 2);
        talk(&netns, family, 6, 2, 77, 2);
        // And of others.
        talk(&netns, family, 3, 4, 1000, 4);
        talk(&netns, family, 7, 8, 77, 8);
        assert_eq!(flows(&netns).len(), 6, "{:#?}", flows(&netns));
        assert_eq!(flush(&netns, &[address(family, 2)]), 4);
        assert_eq!(flows_with(&netns, &shown(family, 2)), 0, "{:#?}", flows(&netns));
        assert_eq!(flows(&netns).len(), 2, "{:#?}", flows(&netns));
        // The address that is translated, too.
        talk(&netns, family, 5, 9, 53, 2);
        assert_eq!(flush(&netns, &[address(family, 9)]), 1);
        assert_eq!(flows(&netns).len(), 2, "{:#?}", flows(&netns));
        assert_eq!(
            flush(&netns, &[address(family, 2)]),
            0,
            "nothing is left to forget"
        );
    }
}

#[test]
fn many_addresses_of_both_families_go_at_once() {
    need!("nft");
    let netns = tracking();
    for family in FAMILIES {
        for host in 1..8 {
            talk(&netns, family, host, host, 1000, host);
        }
        talk(&netns, family, 8, 9, 1000, 9);
    }
    let addresses: Vec<IpAddr> = FAMILIES
        .iter()
        .flat_map(|family| (1..8).map(|host| address(family, host)))
        .collect();
    assert_eq!(flush(&netns, &addresses), 14);
    let left = flows(&netns);
    assert_eq!(left.len(), 2, "{left:#?}");
    for family in FAMILIES {
        assert_eq!(flows_with(&netns, &shown(family, 9)), 1, "{left:#?}");
    }
}

#[test]
fn more_flows_than_fit_a_batch_go() {
    need!("nft");
    let netns = tracking();
    let server = udp(&netns, SocketAddr::new(address("10.0.0.", 2), 1000));
    let to = server.local_addr().unwrap();
    for _ in 0..500 {
        deliver(
            &udp(&netns, SocketAddr::new(address("10.0.0.", 1), 0)),
            to,
            &server,
        );
    }
    let others = flows(&netns).len() - flows_with(&netns, "=10.0.0.2 ");
    let of_server = flows_with(&netns, "=10.0.0.2 ");
    assert!(of_server > 400, "{of_server}");
    assert_eq!(flush(&netns, &[address("10.0.0.", 2)]), of_server);
    assert_eq!(flows(&netns).len(), others);
}

#[test]
fn without_tracking_there_is_nothing_to_forget() {
    let netns = Netns::new().unwrap();
    assert_eq!(flush(&netns, &[address("10.0.0.", 2), address("fd00::", 2)]), 0);
}
