//! Our nft table on a real kernel: what is written is read back as it was wanted, what others do to it is seen, and
//! nothing else is touched. The program nft plays the others.

#![allow(clippy::unwrap_used, reason = "clippy does not take the helpers for tests")]

#[path = "../common/mod.rs"]
mod common;
mod elements;
mod packets;
mod rules;
mod table;

use std::process::Command;

use common::*;
use routelet_model::{Key, Kind, NftRules, NftSet, Object, PerFamily};
use routelet_netlink::{Hint, Kernel, Verb};

/// Runs a test in a namespace of its own, where there is the program nft.
fn with_nft(test: impl FnOnce() + Send) {
    match Command::new("nft").arg("--version").output() {
        Ok(_) => in_netns(test),
        Err(error) => {
            routelet_lab::skip!("the program nft (Debian: nftables) does not start: {error}")
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
        pod_prefix_lens: PerFamily {
            v4: [24].into_iter().collect(),
            v6: [64].into_iter().collect(),
        },
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
