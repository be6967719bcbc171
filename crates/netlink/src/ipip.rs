//! The IPIP device: the one object that the kernel may make by itself, and that cannot be deleted.
//!
//! With the module ipip comes a device `tunl0` in every network namespace (unless net.core.fb_tunnels_only_for_init_net
//! says otherwise). It takes packets from any end to any, which is what routes that name the remote end need; a second
//! device of that kind is refused. So ours is that one, brought up and marked by its alias.

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage as Message;
use netlink_packet_route::link::InfoKind;
use routelet_model::{IfName, Key, Link};

use crate::socket::Socket;
use crate::{Error, Kernel, Verb, link};

/// Whether the kernel knows devices of a kind (`ip link add type KIND`), as far as making one tells. It is left behind:
/// ask in a namespace that goes.
pub fn knows_link_kind(kind: &str) -> Result<bool, Error> {
    let made = Socket::open()?.request(
        &Message::NewLink(link::create("probe", InfoKind::from(kind))),
        NLM_F_CREATE | NLM_F_EXCL,
    );
    match made {
        Err(error) if error.errno() == Some(libc::EOPNOTSUPP) => Ok(false),
        // One of the kernel's own is in the way, or it wants to be told more.
        Err(error) if !error.is_already_exists() && error.errno() != Some(libc::EINVAL) => Err(error),
        _ => Ok(true),
    }
}

impl Kernel {
    /// Carries out an operation on an IPIP device at once: what is to be written depends on what the kernel has made of
    /// the request before.
    pub(crate) fn bring_about_ipip(&mut self, verb: Verb, name: IfName, wanted: &Link) -> Result<(), Error> {
        if verb == Verb::Delete {
            return self.take_ipip_away(name);
        }
        if verb == Verb::Create {
            let made = self.requests.request(
                &Message::NewLink(link::create(name.as_str(), InfoKind::IpIp)),
                NLM_F_CREATE | NLM_F_EXCL,
            );
            match made {
                Err(error) if !error.is_already_exists() => return Err(error),
                _ => {}
            }
        }
        let seen = self.get_link(name)?.ok_or(Error::NoSuchLink(name))?;
        if !seen.is_ipip() {
            return Err(Error::NotIpip(name));
        }
        self.requests
            .request(&Message::SetLink(link::set(&seen, wanted)), 0)?;
        self.get_link(name)?
            .map(|_| ())
            .ok_or(Error::Unsupported(Key::Link(name)))
    }

    fn take_ipip_away(&mut self, name: IfName) -> Result<(), Error> {
        let index = self.index_of(name)?;
        // The kernel says yes to this and keeps its own.
        self.requests
            .request(&Message::DelLink(link::by_index(index)), 0)?;
        if self.get_link(name)?.is_some_and(|link| link.index == index) {
            self.requests
                .request(&Message::SetLink(link::lay_down(index)), 0)?;
            return self.refresh_link(name);
        }
        self.view.links.mark_deleted(index);
        Ok(())
    }
}
