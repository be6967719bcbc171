//! What the rules do to packets that no lab sends: IPIP, where no device is there for it.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, sendto, socket,
};
use routelet_netlink::setup::VethEnd;
use routelet_netlink::{Netns, Setup};

use super::*;

/// A packet of 20 bytes and nothing, of a protocol.
fn send_ipv4(from: Ipv4Addr, to: Ipv4Addr, protocol: u8) {
    let raw = socket(
        AddressFamily::Inet,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::Raw,
    )
    .unwrap();
    // The kernel fills in length and checksum.
    let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0];
    packet.extend(from.octets());
    packet.extend(to.octets());
    let to = SockaddrStorage::from(SocketAddr::from((to, 0)));
    sendto(raw.as_raw_fd(), &packet, &to, MsgFlags::empty()).unwrap();
}

/// There need be no device for it: what counts is how far the packets come.
#[test]
fn ipip_packets_come_from_nodes_only_where_nodes_send_them() {
    with_nft(|| {
        let mut kernel = made();
        let here: Ipv4Addr = "192.0.2.1".parse().unwrap();
        let other = Netns::new().unwrap();
        let end = |name| VethEnd {
            name,
            up: true,
            ..VethEnd::default()
        };
        let mut setup = Setup::open().unwrap();
        setup.add_veth(end("eth0"), end("eth0"), &other).unwrap();
        setup.add_address("eth0", net("192.0.2.1/24")).unwrap();
        let mut far = Setup::open_in(&other).unwrap();
        for address in ["192.0.2.2/24", "192.0.2.3/24"] {
            far.add_address("eth0", net(address)).unwrap();
        }
        all(
            &mut kernel,
            Verb::Create,
            &[element(NftSet::Nodes, "192.0.2.2/32")],
        );
        nft(
            "table inet probe { chain in { type filter hook input priority 0; \
             ip saddr 192.0.2.2 meta l4proto 4 ct state untracked counter; \
             ip saddr 192.0.2.3 meta l4proto 4 counter; ip saddr 192.0.2.3 meta l4proto 99 counter; }; }",
        );
        let counts = || -> Vec<u32> {
            let listed = nft("list table inet probe");
            let counts = listed.split("packets ").skip(1);
            counts
                .map(|rest| rest.split(' ').next().unwrap().parse().unwrap())
                .collect()
        };
        for (ipip, expected) in [(true, [1, 0, 1]), (false, [1, 1, 2])] {
            let rules = NftRules { ipip, ..rules() };
            all(
                &mut kernel,
                Verb::Replace,
                &[(Key::NftRules, Object::NftRules(rules))],
            );
            other
                .run(|| {
                    send_ipv4("192.0.2.2".parse().unwrap(), here, 4);
                    send_ipv4("192.0.2.3".parse().unwrap(), here, 4);
                    // The last one to come, as packets overtake none.
                    send_ipv4("192.0.2.3".parse().unwrap(), here, 99);
                })
                .unwrap();
            let deadline = Instant::now() + Duration::from_secs(10);
            while counts()[2] < expected[2] {
                assert!(Instant::now() < deadline, "{:?}", counts());
            }
            assert_eq!(counts(), expected, "ipip {ipip}");
        }
    });
}
