//! ICMP and ICMPv6 echo (RFC 792, RFC 4443): questions that a node's kernel answers by itself.
//!
//! A ping socket (`IPPROTO_ICMP` of type datagram) takes no capability, but that the process' group lies within
//! net.ipv4.ping_group_range, for both families: distributions with systemd have all groups there, the kernel has none. Else a raw
//! socket does, with CAP_NET_RAW.

use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, recvfrom,
    sendmsg, socket,
};
use routelet_model::Family;
use tokio::io::unix::AsyncFd;

use crate::Error;
use crate::monitor::register;

/// Type, code, checksum, identifier, sequence number: the same in both families.
const HEADER: usize = 8;
/// What the question carries and the answer gives back, in bytes: who asks, and the question's number.
const MARK: usize = 16;
/// Larger than any answer.
const DATAGRAM: usize = 1 << 16;

/// The least that a question can have, in bytes with its IP header.
pub const SMALLEST: u32 = 64;

/// A question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question {
    /// Tells our questions from those of other programs.
    pub token: u64,
    /// Tells a question from the others.
    pub number: u64,
    /// The address that it is asked from; one that the host has.
    pub from: IpAddr,
    /// Whom it is for, of the same family.
    pub to: IpAddr,
    /// Size of the packet in bytes, IP header included, [`SMALLEST`] at least. It is sent whole or not at all.
    pub size: u32,
}

/// An answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// See [`Question`].
    pub token: u64,
    /// See [`Question`].
    pub number: u64,
    /// Who has answered.
    pub from: IpAddr,
}

/// A socket that asks in one family.
#[derive(Debug)]
pub struct Echo {
    /// Another descriptor of the socket, registered by the first wait in the runtime that waits.
    readiness: Option<AsyncFd<OwnedFd>>,
    socket: OwnedFd,
    family: Family,
    /// The kernel gives whole packets, and those that are for others as well.
    is_raw: bool,
    buffer: Vec<u8>,
}

impl Echo {
    /// Opens a socket in the network namespace of the calling thread. EPERM or EACCES: neither kind is allowed.
    pub fn open(family: Family) -> Result<Self, Error> {
        let (socket, is_raw) = match open(family, SockType::Datagram) {
            // The group is not in the range.
            Err(Errno::EACCES) => (open(family, SockType::Raw), true),
            opened => (opened, false),
        };
        let socket = socket.map_err(|errno| Error::io("opening a socket for ICMP echo")(errno.into()))?;
        never_cut(&socket, family).map_err(Error::io("forbidding that ICMP echo is cut into pieces"))?;
        Ok(Self {
            readiness: None,
            socket,
            family,
            is_raw,
            buffer: vec![0; DATAGRAM],
        })
    }

    /// Whether it is a raw socket.
    pub fn is_raw(&self) -> bool {
        self.is_raw
    }

    /// Sends a question. EMSGSIZE: the link that it leaves by carries no packet of this size.
    pub fn ask(&self, question: &Question) -> Result<(), Error> {
        let packet = packet(question);
        let to = SockaddrStorage::from(SocketAddr::new(question.to, 0));
        let parts = [IoSlice::new(&packet)];
        let send = |control: ControlMessage<'_>| {
            sendmsg(
                self.socket.as_raw_fd(),
                &parts,
                &[control],
                MsgFlags::MSG_DONTWAIT,
                Some(&to),
            )
        };
        let sent = match question.from {
            IpAddr::V4(from) => send(ControlMessage::Ipv4PacketInfo(&libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: libc::in_addr {
                    s_addr: from.to_bits().to_be(),
                },
                ipi_addr: libc::in_addr { s_addr: 0 },
            })),
            IpAddr::V6(from) => send(ControlMessage::Ipv6PacketInfo(&libc::in6_pktinfo {
                ipi6_addr: libc::in6_addr {
                    s6_addr: from.octets(),
                },
                ipi6_ifindex: 0,
            })),
        };
        match sent {
            Ok(_) => Ok(()),
            Err(errno) => {
                let what = format!("asking {} from {} by ICMP echo", question.to, question.from);
                Err(Error::io(what)(errno.into()))
            }
        }
    }

    /// Takes the next answer that has arrived, if there is one; those to other programs' questions too.
    pub fn answer(&mut self) -> Option<Answer> {
        loop {
            let (length, from) = match recvfrom::<SockaddrStorage>(self.socket.as_raw_fd(), &mut self.buffer)
            {
                Ok((length, from)) => (length, from.as_ref().and_then(address)),
                Err(Errno::EINTR) => continue,
                // An error that some packet has met with is no answer.
                Err(_) => return None,
            };
            let received = self.buffer.get(..length).unwrap_or_default();
            if let Some(from) = from
                && let Some((token, number)) = reply(self.family, self.is_raw, received)
            {
                return Some(Answer { token, number, from });
            }
        }
    }

    /// Waits until something has arrived. Must be called within a tokio runtime with I/O, always the same one. May be
    /// dropped at any time.
    pub async fn ready(&mut self) -> Result<(), Error> {
        let wait = async {
            let readiness = match self.readiness.take() {
                Some(readiness) => self.readiness.insert(readiness),
                None => {
                    let descriptor = self.socket.as_fd().try_clone_to_owned()?;
                    self.readiness.insert(register(descriptor)?)
                }
            };
            // Whoever waits has taken all that there was.
            readiness
                .ready(tokio::io::Interest::READABLE)
                .await?
                .clear_ready();
            Ok(())
        };
        wait.await.map_err(Error::io("waiting for answers to ICMP echo"))
    }
}

fn open(family: Family, kind: SockType) -> nix::Result<OwnedFd> {
    let (domain, protocol) = match family {
        Family::V4 => (AddressFamily::Inet, SockProtocol::Icmp),
        Family::V6 => (AddressFamily::Inet6, SockProtocol::IcmpV6),
    };
    socket(
        domain,
        kind,
        SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC,
        protocol,
    )
}

/// Has packets leave whole, whatever the kernel believes of the way beyond the link: that is what is asked for.
#[expect(unsafe_code, reason = "nix has no such option")]
fn never_cut(socket: &OwnedFd, family: Family) -> io::Result<()> {
    let (level, option, value) = match family {
        Family::V4 => (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_PROBE),
        Family::V6 => (
            libc::IPPROTO_IPV6,
            libc::IPV6_MTU_DISCOVER,
            libc::IPV6_PMTUDISC_PROBE,
        ),
    };
    // SAFETY: the kernel reads an int from `value`, which lives until the call returns.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            size_of_val(&value) as libc::socklen_t,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

fn address(from: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = from.as_sockaddr_in().map(|v4| v4.ip().into());
    v4.or_else(|| from.as_sockaddr_in6().map(|v6| v6.ip().into()))
}

/// The ICMP part of a question.
fn packet(question: &Question) -> Vec<u8> {
    let ip_header = match question.to {
        IpAddr::V4(_) => 20,
        IpAddr::V6(_) => 40,
    };
    let size = question.size.max(SMALLEST) - ip_header;
    let payload = usize::try_from(size).unwrap_or_default() - HEADER;
    request(Family::of(question.to), question.token, question.number, payload)
}

/// An echo request from its ICMP header on, whose payload of so many bytes, 16 at least, begins with token and number.
/// A ping socket puts an identifier of its own into it.
pub fn request(family: Family, token: u64, number: u64, payload: usize) -> Vec<u8> {
    let mut packet = vec![0; HEADER + payload.max(MARK)];
    packet[0] = match family {
        Family::V4 => 8,
        Family::V6 => 128,
    };
    packet[4..6].copy_from_slice(&token.to_be_bytes()[6..]);
    packet[6..8].copy_from_slice(&number.to_be_bytes()[6..]);
    packet[HEADER..HEADER + 8].copy_from_slice(&token.to_be_bytes());
    packet[HEADER + 8..HEADER + MARK].copy_from_slice(&number.to_be_bytes());
    // Of ICMPv6 the kernel makes the checksum: it takes the addresses in.
    if family == Family::V4 {
        let sum = checksum(&packet);
        packet[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    packet
}

/// Token and number of a reply, as a ping socket or a raw one gives it; `None` where the packet is none.
pub fn reply(family: Family, is_raw: bool, packet: &[u8]) -> Option<(u64, u64)> {
    let (kind, icmp) = match family {
        // Raw sockets of IPv4 alone show the IP header.
        Family::V4 if is_raw => (0, packet.get(usize::from(packet.first()? & 0xf) * 4..)?),
        Family::V4 => (0, packet),
        Family::V6 => (129, packet),
    };
    if *icmp.first()? != kind {
        return None;
    }
    let number = |at: usize| Some(u64::from_be_bytes(icmp.get(at..at + 8)?.try_into().ok()?));
    Some((number(HEADER)?, number(HEADER + 8)?))
}

/// The Internet checksum (RFC 1071).
pub fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)])));
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded & 0xffff) as u16).wrapping_add((folded >> 16) as u16)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::Netns;

    fn question(to: &str, number: u64, size: u32) -> Question {
        let to: IpAddr = to.parse().unwrap();
        Question {
            token: 7,
            number,
            from: to,
            to,
            size,
        }
    }

    fn allow_all_groups() {
        std::fs::write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647").unwrap();
    }

    async fn next(echo: &mut Echo) -> Answer {
        loop {
            if let Some(answer) = echo.answer() {
                return answer;
            }
            let ready = tokio::time::timeout(Duration::from_secs(10), echo.ready());
            ready.await.expect("an answer").unwrap();
        }
    }

    #[test]
    fn a_question_is_answered_whatever_the_socket() {
        for all_groups in [false, true] {
            Netns::new()
                .unwrap()
                .run(|| {
                    if all_groups {
                        allow_all_groups();
                    }
                    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                    runtime.unwrap().block_on(async {
                        for (family, to) in [(Family::V4, "127.0.0.1"), (Family::V6, "::1")] {
                            let mut echo = Echo::open(family).unwrap();
                            assert_eq!(echo.is_raw(), !all_groups, "{family}");
                            for (number, size) in [(1, SMALLEST), (u64::MAX, 1450), (3, 0), (4, 65535)] {
                                let question = question(to, number, size);
                                echo.ask(&question).unwrap();
                                let answer = next(&mut echo).await;
                                assert_eq!(
                                    (answer.token, answer.number, answer.from),
                                    (7, number, question.to)
                                );
                            }
                        }
                    });
                })
                .unwrap();
        }
    }

    #[test]
    fn what_the_link_cannot_carry_whole_is_refused() {
        Netns::new()
            .unwrap()
            .run(|| {
                let mut setup = crate::Setup::open().unwrap();
                setup.set_mtu("lo", 1300).unwrap();
                for (family, to) in [(Family::V4, "127.0.0.1"), (Family::V6, "::1")] {
                    let echo = Echo::open(family).unwrap();
                    let refused = echo.ask(&question(to, 1, 1301)).unwrap_err();
                    assert_eq!(refused.errno(), Some(libc::EMSGSIZE), "{family}");
                    echo.ask(&question(to, 2, 1300)).unwrap();
                }
            })
            .unwrap();
    }

    #[test]
    fn an_address_that_the_host_lacks_asks_nothing() {
        Netns::new()
            .unwrap()
            .run(|| {
                let echo = Echo::open(Family::V4).unwrap();
                let mut asked = question("127.0.0.1", 1, SMALLEST);
                asked.from = "192.0.2.1".parse().unwrap();
                let error = echo.ask(&asked).unwrap_err();
                assert!(
                    error.to_string().contains("asking 127.0.0.1 from 192.0.2.1"),
                    "{error}"
                );
            })
            .unwrap();
    }

    #[test]
    fn checksum_of_rfc_1071() {
        assert_eq!(
            checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]),
            !0xddf2
        );
        assert_eq!(checksum(&[0xff, 0xff, 0x01]), !0x0100);
    }

    #[test]
    fn a_reply_is_read_as_its_request_was_written() {
        for (family, kind) in [(Family::V4, 0), (Family::V6, 129)] {
            let mut packet = request(family, 7, 1 << 40, 0);
            assert_eq!(packet.len(), 24, "header and mark");
            assert_eq!(
                reply(family, false, &packet),
                None,
                "{family}: a request is no reply"
            );
            packet[0] = kind;
            assert_eq!(reply(family, false, &packet), Some((7, 1 << 40)), "{family}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(packet in proptest::collection::vec(any::<u8>(), 0..80), raw: bool, v4: bool) {
            let _ = reply(if v4 { Family::V4 } else { Family::V6 }, raw, &packet);
        }
    }
}
