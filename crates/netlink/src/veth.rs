//! Making a veth pair.

use std::os::fd::AsRawFd;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{InfoData, InfoVeth, LinkAttribute};
use routelet_model::MacAddr;
use rtnetlink::{LinkMessageBuilder, LinkUnspec, LinkVeth};

use crate::batch::Batch;
use crate::{Error, Netns, Setup};

/// One end of a veth pair that is to be made.
#[derive(Debug, Clone, Copy, Default)]
pub struct VethEnd<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its MAC address; the kernel picks one where there is none.
    pub mac: Option<MacAddr>,
    /// Its MTU in bytes; 1500 where there is none.
    pub mtu: Option<u32>,
    /// Whether it is set up at once.
    pub up: bool,
    /// A text that the kernel shows with it, as [`Setup::set_alias`]; for the near end only.
    pub alias: Option<&'a str>,
}

impl Setup {
    /// Makes a veth pair: `near` in this namespace, `far` in another.
    pub fn add_veth(&mut self, near: VethEnd, far: VethEnd, far_netns: &Netns) -> Result<(), Error> {
        let fd = far_netns.fd().as_raw_fd();
        let peer = end(LinkUnspec::new_with_name(far.name), far)
            .setns_by_fd(fd)
            .build();
        let mut pair = end(LinkVeth::new(near.name, far.name), near);
        if near.up {
            pair = pair.up();
        }
        let pair = pair.set_info_data(InfoData::Veth(InfoVeth::Peer(peer))).build();
        let mut batch = Batch::default();
        batch.push(0, &RouteNetlinkMessage::NewLink(pair), NLM_F_CREATE | NLM_F_EXCL);
        if let Some(alias) = near.alias {
            // The kernel takes no alias with a new link. In the same send it comes at once all the same: no one who
            // is killed leaves a link without it.
            let mut message = LinkUnspec::new_with_name(near.name).build();
            message.attributes.push(LinkAttribute::IfAlias(alias.to_owned()));
            batch.push(1, &RouteNetlinkMessage::SetLink(message), 0);
        }
        let mut outcome = Ok(());
        self.socket.send_batch(&mut batch, &mut |_, error| {
            if outcome.is_ok() {
                outcome = Err(error);
            }
        });
        outcome?;
        if far.up {
            // Not with the pair: the kernel makes the far end first, and one alone cannot be up (ENOTCONN).
            Self::open_in(far_netns)?.set_up(far.name)?;
        }
        Ok(())
    }
}

fn end<T>(mut builder: LinkMessageBuilder<T>, end: VethEnd) -> LinkMessageBuilder<T> {
    if let Some(mac) = end.mac {
        builder = builder.address(mac.0.to_vec());
    }
    if let Some(mtu) = end.mtu {
        builder = builder.mtu(mtu);
    }
    builder
}
