//! A packet capture: what passes a link of a namespace, as tcpdump would show it.
//!
//! A packet socket (packet(7)) sees each frame that comes in or goes out. Only what tells the way of a ping is
//! understood: see [`Packet`].

mod packet;

use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{
    AddressFamily, LinkAddr, SockFlag, SockProtocol, SockType, recvfrom, setsockopt, socket, sockopt,
};
use routelet_netlink::Netns;

pub use packet::{Echo, Packet};

use crate::wait;

/// Room for what passes between two looks, in bytes.
const BUFFER: usize = 4 << 20;
/// Longer than any frame without offload; of the others, the beginning is enough.
const FRAME: usize = 2048;

/// A capture that goes on.
#[derive(Debug)]
pub struct Capture {
    socket: OwnedFd,
    link: usize,
    packets: Vec<Packet>,
}

impl Capture {
    /// Begins to look at a link of a namespace.
    pub fn start(netns: &Netns, link: &str) -> Result<Self> {
        let open = || -> Result<Self> {
            let index = if_nametoindex(link).with_context(|| format!("no link {link} to look at"))?;
            let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
            let socket = socket(AddressFamily::Packet, SockType::Raw, flags, SockProtocol::EthAll)
                .context("opening a packet socket")?;
            setsockopt(&socket, sockopt::RcvBuf, &BUFFER).context("enlarging a receive buffer")?;
            Ok(Self {
                socket,
                link: usize::try_from(index)?,
                packets: Vec::new(),
            })
        };
        netns.run(open)?
    }

    /// Looks until what has passed is `complete`, and returns it, in order; after `timeout`, whatever there is.
    pub fn until(mut self, timeout: Duration, complete: impl Fn(&[Packet]) -> bool) -> Result<Vec<Packet>> {
        let mut failure = None;
        // That it is not complete the caller sees, and can show what there is.
        let _ = wait::until(timeout, "packets to pass", || {
            failure = self.take_in().err();
            failure.is_some() || complete(&self.packets)
        });
        failure.map_or(Ok(self.packets), Err)
    }

    fn take_in(&mut self) -> Result<()> {
        let mut frame = [0; FRAME];
        loop {
            match recvfrom::<LinkAddr>(self.socket.as_raw_fd(), &mut frame) {
                // The socket hears all links of the namespace.
                Ok((length, Some(from))) if from.ifindex() == self.link => {
                    let frame = frame.get(..length).unwrap_or(&frame);
                    self.packets.extend(Packet::parse(frame));
                }
                Ok(_) | Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Ok(()),
                Err(error) => return Err(error).context("reading what passes"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use routelet_netlink::Setup;
    use routelet_netlink::setup::VethEnd;

    use super::*;
    use crate::Ping;

    #[test]
    fn a_ping_is_seen_with_what_goes_before_it() {
        let (near, far) = (Netns::new().unwrap(), Netns::new().unwrap());
        let mut setup = Setup::open_in(&near).unwrap();
        let end = |name| VethEnd {
            name,
            up: true,
            ..VethEnd::default()
        };
        setup.add_veth(end("near"), end("far"), &far).unwrap();
        setup
            .add_address("near", "192.0.2.1/24".parse().unwrap())
            .unwrap();
        let mut setup = Setup::open_in(&far).unwrap();
        setup.add_address("far", "192.0.2.2/24".parse().unwrap()).unwrap();
        wait::until(wait::LONG, "the link to carry packets", || {
            setup.link("far").unwrap().unwrap().running
        })
        .unwrap();

        let capture = Capture::start(&far, "far").unwrap();
        let report = Ping::to("192.0.2.2".parse().unwrap()).run(&near).unwrap();
        assert_eq!(report.received(), 1, "{report}");
        let is_reply = |packet: &Packet| matches!(packet, Packet::Echo(echo) if !echo.is_request);
        let seen = capture
            .until(wait::LONG, |seen| seen.iter().any(is_reply))
            .unwrap();
        let seen: Vec<_> = seen.iter().map(|packet| packet.to_string()).collect();
        let [ask, answer, request, reply] = &seen[..4] else {
            panic!("{seen:#?}")
        };
        assert_eq!(ask, "ARP, Request who-has 192.0.2.2 tell 192.0.2.1");
        assert!(answer.starts_with("ARP, Reply 192.0.2.2 is-at "), "{answer}");
        assert!(
            request.starts_with("IP (ttl 64) 192.0.2.1 > 192.0.2.2: ICMP echo request"),
            "{request}"
        );
        assert!(
            reply.starts_with("IP (ttl 64) 192.0.2.2 > 192.0.2.1: ICMP echo reply"),
            "{reply}"
        );
    }

    #[test]
    fn what_never_passes_is_not_complete() {
        let netns = Netns::new().unwrap();
        let capture = Capture::start(&netns, "lo").unwrap();
        let seen = capture.until(Duration::from_millis(20), |seen| !seen.is_empty());
        assert_eq!(seen.unwrap(), []);
        let error = Capture::start(&netns, "eth7").unwrap_err();
        assert!(error.to_string().contains("no link eth7"), "{error}");
    }
}
