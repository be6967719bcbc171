//! The IPIP device: brought up and marked, read back the same, and laid down, for the kernel keeps it.

mod common;

use common::*;
use routelet_model::{Key, Kind, Link, LinkKind, Object};
use routelet_netlink::{Config, Kernel, Setup, Verb};

const TUNNEL: &str = "tunl0";

fn wanted(mtu: u32) -> (Key, Object) {
    let link = Link {
        kind: LinkKind::Ipip { ours: true },
        mac: None,
        mtu: Some(mtu),
        up: true,
        running: true,
        enslaved: false,
        given: Vec::new(),
        index: 0,
    };
    (Key::Link(name(TUNNEL)), Object::Link(Box::new(link)))
}

#[test]
fn it_is_adopted_changed_and_laid_down() {
    routelet_lab::kernel_lacks!(ipip);
    in_netns(|| {
        let config = Config {
            devices: vec![name(TUNNEL)],
            ..config()
        };
        let mut kernel = Kernel::open(config).unwrap();
        // The first time on what the kernel made by itself, then on a device that is as it should be.
        for mtu in [1480, 1400] {
            let link = wanted(mtu);
            all(&mut kernel, Verb::Create, std::slice::from_ref(&link));
            let found = dump(&mut kernel, Kind::Link, None);
            assert!(link.1.satisfied_by(&found[&link.0]), "{found:?}");
        }
        let link = wanted(1300);
        all(&mut kernel, Verb::Replace, std::slice::from_ref(&link));
        assert!(link.1.satisfied_by(&dump(&mut kernel, Kind::Link, None)[&link.0]));
        for _ in 0..2 {
            all(&mut kernel, Verb::Delete, std::slice::from_ref(&link));
            let left = Setup::open().unwrap().link(TUNNEL).unwrap();
            let is_ours =
                left.is_some_and(|left| left.up || left.alias.is_some_and(|alias| !alias.is_empty()));
            assert!(!is_ours);
        }
    });
}
