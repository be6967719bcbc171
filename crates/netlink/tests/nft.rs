//! Our nft table on a real kernel: what is written is read back as it was wanted, what others do to it is seen, and
//! nothing else is touched. The program nft plays the others.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "clippy does not take the helpers for tests"
)]

mod common;

use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::process::Command;
use std::time::{Duration, Instant};

use common::*;
use ipnet::{IpNet, Ipv4Net};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, sendto, socket,
};
use routelet_model::{Key, Kind, NftRules, NftSet, Object, PerFamily};
use routelet_netlink::setup::VethEnd;
use routelet_netlink::{Config, Error, Hint, Kernel, Netns, Setup, Verb};

/// Runs a test in a namespace of its own, where there is the program nft.
fn with_nft(test: impl FnOnce() + Send) {
    match Command::new("nft").arg("--version").output() {
        Ok(_) => in_netns(test),
        Err(error) => {
            let why = format!("the program nft (Debian: nftables) does not start: {error}");
            assert!(std::env::var_os("ROUTELET_NO_SKIP").is_none(), "{why}");
            eprintln!("SKIPPED, {why}");
        }
    }
}

/// Has nft carry out a script; what it prints.
fn nft(script: &str) -> String {
    let output = Command::new("nft").arg(script).output().unwrap();
    assert!(output.status.success(), "{script}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn rules() -> NftRules {
    NftRules {
        interface_prefix: name("cali"),
        vnis: PerFamily { v4: 4096, v6: 4096 },
        port: 4789,
        masquerade: true,
        vxlan: true,
        ipip: false,
    }
}

fn element(set: NftSet, text: &str) -> (Key, Object) {
    (Key::nft_element(set, net(text)), Object::NftElement)
}

/// One element of each set and family, neighbours and edges among them.
fn elements() -> Vec<(Key, Object)> {
    vec![
        element(NftSet::Pods, "10.0.0.0/24"),
        element(NftSet::Pods, "10.0.1.0/24"),
        element(NftSet::Pods, "fd00::/64"),
        element(NftSet::Pods, "fd00:0:0:1::/64"),
        element(NftSet::Nodes, "192.0.2.1/32"),
        element(NftSet::Nodes, "2001:db8::1/128"),
        element(NftSet::Except, "0.0.0.0/8"),
        element(NftSet::Except, "224.0.0.0/3"),
        element(NftSet::Except, "ff00::/8"),
        element(NftSet::OwnPods, "10.0.0.0/24"),
        element(NftSet::OwnPods, "fd00::/64"),
    ]
}

/// All that the table holds, in the order in which it is made.
fn table() -> Vec<(Key, Object)> {
    let mut all = vec![(Key::NftTable, Object::NftTable)];
    all.extend(elements());
    all.push((Key::NftRules, Object::NftRules(rules())));
    all
}

fn dump_table(kernel: &mut Kernel) -> Vec<(Key, Object)> {
    [Kind::NftTable, Kind::NftElement, Kind::NftRules]
        .into_iter()
        .flat_map(|kind| dump(kernel, kind, None))
        .collect()
}

fn sorted(mut objects: Vec<(Key, Object)>) -> Vec<(Key, Object)> {
    objects.sort_by_key(|(key, _)| *key);
    objects
}

fn made() -> Kernel {
    let mut kernel = open();
    all(&mut kernel, Verb::Create, &table());
    assert_eq!(dump_table(&mut kernel), sorted(table()));
    kernel
}

fn hints(kernel: &mut Kernel) -> Vec<Hint> {
    let mut hints = Vec::new();
    kernel.drain(&mut hints);
    hints
}

const FOREIGN: Object = Object::Foreign { protocol: 0 };

#[test]
fn what_is_made_is_read_back_and_taken_away_in_the_reverse_order() {
    in_netns(|| {
        let mut kernel = open();
        assert_eq!(dump_table(&mut kernel), []);
        let mut objects = table();
        for count in 1..=objects.len() {
            all(&mut kernel, Verb::Create, &objects[count - 1..count]);
            assert_eq!(dump_table(&mut kernel), sorted(objects[..count].to_vec()));
        }
        while let Some(last) = objects.pop() {
            all(&mut kernel, Verb::Delete, std::slice::from_ref(&last));
            assert_eq!(dump_table(&mut kernel), sorted(objects.clone()));
            all(&mut kernel, Verb::Delete, &[last]);
        }
    });
}

#[test]
fn making_what_is_there_changes_nothing() {
    in_netns(|| {
        let mut kernel = made();
        all(&mut kernel, Verb::Create, &table());
        all(&mut kernel, Verb::Replace, &table()[1..]);
        assert_eq!(dump_table(&mut kernel), sorted(table()));
    });
}

#[test]
fn all_rules_there_can_be_are_recognised() {
    in_netns(|| {
        let mut kernel = made();
        for (masquerade, ipip) in [(false, true), (true, true), (false, false), (true, false)] {
            for (prefix, v4, v6, port) in [
                ("cali", 4096, 4096, 4789),
                ("cali", 4096, 4097, 4789),
                ("x", 0, 0, 1),
                ("a-b.", 0xff_ffff, 0xff_fffe, 65535),
            ] {
                let rules = NftRules {
                    interface_prefix: name(prefix),
                    vnis: PerFamily { v4, v6 },
                    port,
                    masquerade,
                    vxlan: !ipip,
                    ipip,
                };
                let object = (Key::NftRules, Object::NftRules(rules));
                all(&mut kernel, Verb::Replace, std::slice::from_ref(&object));
                assert_eq!(
                    dump(&mut kernel, Kind::NftRules, None)
                        .into_iter()
                        .collect::<Vec<_>>(),
                    [object]
                );
            }
        }
    });
}

/// Each deed of another's, how the rules are seen after it, and that they can be put right.
#[test]
fn whatever_others_do_to_the_rules_is_seen_and_put_right() {
    with_nft(|| {
        let mut kernel = made();
        let right = (Key::NftRules, Object::NftRules(rules()));
        for deed in [
            "flush table inet routelet",
            "flush chain inet routelet guard",
            "add rule inet routelet guard accept",
            "insert rule inet routelet prerouting accept",
            "add chain inet routelet more",
            "add chain inet routelet more { type filter hook input priority 0; policy drop; }",
            "add chain inet routelet more; add rule inet routelet guard jump more",
            "add set inet routelet more { type ipv4_addr; }",
            "add set inet routelet more { type ipv4_addr; }; add rule inet routelet guard ip saddr @more drop",
            "add map inet routelet more { type ipv4_addr : verdict; }; add chain inet routelet far; \
             add element inet routelet more { 10.0.0.1 : jump far }; \
             add rule inet routelet guard ip saddr vmap @more",
            "add rule inet routelet guard ip saddr { 10.0.0.1, 10.0.0.3 } drop",
            "chain inet routelet output { policy drop; }",
            "flush chain inet routelet output; delete chain inet routelet output; \
             add chain inet routelet output { type filter hook input priority -300; }",
        ] {
            nft(deed);
            let seen = dump(&mut kernel, Kind::NftRules, None);
            assert_eq!(
                seen.into_iter().collect::<Vec<_>>(),
                [(Key::NftRules, FOREIGN)],
                "after {deed}"
            );
            all(&mut kernel, Verb::Replace, std::slice::from_ref(&right));
            assert_eq!(dump_table(&mut kernel), sorted(table()), "after {deed}");
        }
        nft("delete chain inet routelet postrouting");
        assert_eq!(dump(&mut kernel, Kind::NftRules, None)[&Key::NftRules], FOREIGN);
    });
}

/// A rule that someone has changed, and left its comment.
#[test]
fn a_changed_rule_is_seen_whatever_its_comment_says() {
    with_nft(|| {
        let mut kernel = made();
        let listed = nft("list chain inet routelet guard");
        nft("flush chain inet routelet guard");
        let script = listed.replace("4096", "4097").replace("0x1000", "0x1001");
        assert_ne!(script, listed);
        nft(&script);
        assert_eq!(dump(&mut kernel, Kind::NftRules, None)[&Key::NftRules], FOREIGN);
        nft("flush chain inet routelet guard");
        nft(&listed);
        assert_eq!(
            dump_table(&mut kernel),
            sorted(table()),
            "nft's own words for it are the same"
        );
    });
}

#[test]
fn a_table_that_others_deleted_or_made_otherwise_is_seen() {
    with_nft(|| {
        let mut kernel = made();
        nft("flush ruleset");
        assert_eq!(dump_table(&mut kernel), []);
        for deed in [
            "table inet routelet { }",
            "table inet routelet { set pods_v4 { type ipv4_addr; }; }",
            "table inet routelet { flags dormant; }",
        ] {
            nft("table inet routelet; delete table inet routelet");
            nft(deed);
            assert_eq!(
                dump(&mut kernel, Kind::NftTable, None)[&Key::NftTable],
                FOREIGN,
                "{deed}"
            );
            all(&mut kernel, Verb::Replace, &[(Key::NftTable, Object::NftTable)]);
            assert_eq!(dump_table(&mut kernel), [(Key::NftTable, Object::NftTable)]);
        }
    });
}

/// A range that is no prefix has its key, too, so that it can be taken away.
#[test]
fn elements_that_others_add_can_be_taken_away() {
    with_nft(|| {
        let mut kernel = made();
        nft(
            "add element inet routelet pods_v4 { 10.9.0.5-10.9.1.7, 172.16.0.0/12 }; \
             add element inet routelet nodes_v6 { 2001:db8::99 }; \
             add element inet routelet own_pods_v6 { ffff::/16 }",
        );
        let mut found = dump_table(&mut kernel);
        found.retain(|object| !table().contains(object));
        let names: Vec<_> = found.iter().map(|(key, _)| key.to_string()).collect();
        let expected = [
            "nft element 10.9.0.5-10.9.1.7 of pods",
            "nft element 172.16.0.0/12 of pods",
            "nft element 2001:db8::99 of nodes",
            "nft element ffff::/16 of own_pods",
        ];
        assert_eq!(names, expected);
        all(&mut kernel, Verb::Delete, &found);
        assert_eq!(dump_table(&mut kernel), sorted(table()));
    });
}

#[test]
fn others_deeds_are_told_and_our_own_are_not() {
    with_nft(|| {
        let mut kernel = made();
        let mut objects = table();
        objects.reverse();
        all(&mut kernel, Verb::Delete, &objects);
        objects.reverse();
        all(&mut kernel, Verb::Create, &objects);
        assert_eq!(hints(&mut kernel), []);
        for deed in [
            "delete element inet routelet nodes_v4 { 192.0.2.1 }",
            "add element inet routelet nodes_v4 { 192.0.2.1 }",
            "flush set inet routelet pods_v4",
            "add rule inet routelet guard accept",
            "flush table inet routelet",
            "flush ruleset",
            "table inet routelet { }",
        ] {
            nft(deed);
            assert_eq!(hints(&mut kernel), [Hint::NftTouched], "{deed}");
        }
        for deed in [
            "table inet other { chain guard { accept; }; }",
            "table ip routelet { chain guard { accept; }; }",
            "add table inet routelet2",
        ] {
            nft(deed);
            assert_eq!(hints(&mut kernel), [], "{deed}");
        }
    });
}

#[test]
fn tables_of_others_are_neither_seen_nor_touched() {
    with_nft(|| {
        nft(
            "table inet other { set pods_v4 { type ipv4_addr; elements = { 10.1.1.1 }; }; \
             chain prerouting { type filter hook prerouting priority 0; tcp dport 1 drop; }; }; \
             table ip routelet { chain guard { tcp dport 2 drop; }; }; \
             table ip6 nat { chain POSTROUTING { type nat hook postrouting priority 100; masquerade; }; }",
        );
        let before = nft("list ruleset");
        let mut kernel = made();
        all(
            &mut kernel,
            Verb::Replace,
            &[(Key::NftRules, Object::NftRules(rules()))],
        );
        all(
            &mut kernel,
            Verb::Delete,
            &[(Key::NftRules, FOREIGN), (Key::NftTable, FOREIGN)],
        );
        assert_eq!(nft("list ruleset"), before);
    });
}

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

fn subnet(number: u32) -> IpNet {
    Ipv4Net::new_assert(Ipv4Addr::from(0x6400_0000 + (number << 8)), 24).into()
}

#[test]
fn many_elements_are_made_and_taken_away_at_once() {
    in_netns(|| {
        let mut kernel = made();
        let many: Vec<_> = (0..15_000)
            .flat_map(|number| {
                let node = IpNet::from(subnet(number).broadcast());
                [(NftSet::Pods, subnet(number)), (NftSet::Nodes, node)]
            })
            .map(|(set, net)| (Key::nft_element(set, net), Object::NftElement))
            .collect();
        for part in many.chunks(1024) {
            all(&mut kernel, Verb::Create, part);
        }
        let found = dump(&mut kernel, Kind::NftElement, None);
        assert_eq!(found.len(), many.len() + elements().len());
        assert!(many.iter().all(|(key, _)| found.contains_key(key)));
        all(&mut kernel, Verb::Delete, &many);
        assert_eq!(dump_table(&mut kernel), sorted(table()));
    });
}

#[test]
fn an_element_that_is_refused_keeps_no_other_from_being_made() {
    in_netns(|| {
        let mut kernel = made();
        let mut many: Vec<_> = (0..600)
            .map(|number| (Key::nft_element(NftSet::Pods, subnet(number)), Object::NftElement))
            .collect();
        // Around the first ten of our own, which are there already.
        many[300] = element(NftSet::Pods, "10.0.0.0/20");
        many[599] = element(NftSet::Pods, "fd00::/32");
        let operations: Vec<_> = many
            .iter()
            .map(|object| operation(Verb::Create, object))
            .collect();
        let failed: Vec<_> = apply(&mut kernel, &operations)
            .iter()
            .map(|failure| failure.index)
            .collect();
        assert_eq!(failed, [300, 599]);
        assert_eq!(
            dump(&mut kernel, Kind::NftElement, None).len(),
            598 + elements().len()
        );
        // Gone already is as good as taken away.
        all(&mut kernel, Verb::Delete, &many[10..20]);
        many.retain(
            |(key, _)| !matches!(key, Key::NftElement { last, .. } if last.to_string() == "10.0.15.255"),
        );
        all(&mut kernel, Verb::Delete, &many);
        assert_eq!(dump_table(&mut kernel), sorted(table()));
    });
}

#[test]
fn without_the_table_all_elements_are_refused_for_want_of_it() {
    in_netns(|| {
        let mut kernel = open();
        let operations: Vec<_> = (0..1000)
            .map(|number| (Key::nft_element(NftSet::Pods, subnet(number)), Object::NftElement))
            .map(|object| operation(Verb::Create, &object))
            .collect();
        let failures = apply(&mut kernel, &operations);
        assert_eq!(failures.len(), 1000);
        assert!(
            failures
                .iter()
                .all(|failure| matches!(failure.error, Error::NoNftTable))
        );
    });
}

#[test]
fn the_table_has_the_name_that_it_is_given() {
    with_nft(|| {
        let other = Config {
            nft_table: "another".to_owned(),
            ..config()
        };
        let mut kernel = Kernel::open(other).unwrap();
        assert!(kernel.features().nftables);
        all(&mut kernel, Verb::Create, &table());
        assert_eq!(dump_table(&mut open()), []);
        assert_eq!(nft("list tables").trim(), "table inet another");
    });
}
