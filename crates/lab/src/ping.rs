//! ICMP and ICMPv6 echo from inside a network namespace, with exact account of what was lost.
//!
//! Raw sockets: they need CAP_NET_RAW, which a lab has, and show the TTL of replies. Requests are numbered in their
//! payload, for the 16 bits of the header's sequence number wrap within a minute at 1,000 a second.

use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, recvmsg,
    sendto, setsockopt, socket, sockopt,
};
use routelet_model::Family;
use routelet_netlink::Netns;
use routelet_netlink::echo;

use crate::wait;

/// How often a pinger looks whether it is to stop.
const LOOK: Duration = Duration::from_millis(20);

/// What to ping, and how.
#[derive(Debug, Clone)]
pub struct Ping {
    to: IpAddr,
    count: u64,
    interval: Duration,
    payload: usize,
    patience: Duration,
}

/// What came of pinging.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PingReport {
    /// Requests sent, and those that the kernel refused to send.
    pub sent: u64,
    /// Sequence numbers, from 0 on, of requests without a reply, in order.
    pub lost: Vec<u64>,
    /// Of the lost ones, how many the kernel refused to send (no route, for one).
    pub refused: u64,
    /// Time from request to reply, of those that have one, in the order of the requests.
    pub round_trips: Vec<Duration>,
    /// TTL or hop limit of the latest reply.
    pub ttl: Option<u8>,
}

/// Sends `count` requests, one each `interval`, and waits up to a second for the last replies.
pub fn ping(netns: &Netns, to: IpAddr, count: u64, interval: Duration) -> Result<PingReport> {
    Ping::to(to).count(count).interval(interval).run(netns)
}

impl Ping {
    /// One request of the ping program's size.
    pub fn to(to: IpAddr) -> Self {
        Self {
            to,
            count: 1,
            interval: Duration::from_millis(10),
            payload: 56,
            patience: Duration::from_secs(1),
        }
    }

    /// How many requests [`Ping::run`] sends.
    pub fn count(self, count: u64) -> Self {
        Self { count, ..self }
    }

    /// Time between requests.
    pub fn interval(self, interval: Duration) -> Self {
        Self { interval, ..self }
    }

    /// Bytes after the ICMP header; 16 are sent at least.
    pub fn payload(self, payload: usize) -> Self {
        Self { payload, ..self }
    }

    /// How long to wait for replies after the last request.
    pub fn patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// Sends the requests and waits for the replies.
    pub fn run(self, netns: &Netns) -> Result<PingReport> {
        let count = self.count;
        Echo::open(self, netns)?.run(count, &Progress::default())
    }

    /// Sends requests from a thread until it is stopped.
    pub fn start(self, netns: &Netns) -> Result<Pinger> {
        let echo = Echo::open(self, netns)?;
        let progress = Arc::new(Progress::default());
        let thread = thread::Builder::new()
            .name("pinger".to_owned())
            .spawn({
                let progress = Arc::clone(&progress);
                move || echo.run(u64::MAX, &progress)
            })
            .context("starting a thread")?;
        Ok(Pinger {
            progress,
            thread: Some(thread),
        })
    }
}

/// A ping that goes on until it is stopped.
#[derive(Debug)]
pub struct Pinger {
    progress: Arc<Progress>,
    thread: Option<JoinHandle<Result<PingReport>>>,
}

#[derive(Debug, Default)]
struct Progress {
    stop: AtomicBool,
    sent: AtomicU64,
    received: AtomicU64,
}

impl Pinger {
    /// Requests so far.
    pub fn sent(&self) -> u64 {
        self.progress.sent.load(Ordering::Relaxed)
    }

    /// Replies so far.
    pub fn received(&self) -> u64 {
        self.progress.received.load(Ordering::Relaxed)
    }

    /// Waits for `count` replies from now on.
    pub fn wait_replies(&self, count: u64, timeout: Duration) -> Result<()> {
        let goal = self.received() + count;
        wait::until(timeout, &format!("{count} replies to ping"), || {
            self.received() >= goal
        })
    }

    /// Stops sending, waits for the last replies, and reports.
    pub fn stop(mut self) -> Result<PingReport> {
        self.progress.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().context("the pinger has been stopped")?;
        thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Drop for Pinger {
    fn drop(&mut self) {
        self.progress.stop.store(true, Ordering::Relaxed);
    }
}

/// A socket, and the account of one series of requests.
struct Echo {
    ping: Ping,
    socket: OwnedFd,
    token: u64,
    requests: Vec<Request>,
    answered: u64,
    refused: u64,
    ttl: Option<u8>,
}

struct Request {
    sent: Instant,
    round_trip: Option<Duration>,
}

impl Echo {
    fn open(mut ping: Ping, netns: &Netns) -> Result<Self> {
        ping.interval *= wait::slowness();
        ping.patience *= wait::slowness();
        let open = || -> nix::Result<OwnedFd> {
            let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
            if ping.to.is_ipv4() {
                return socket(AddressFamily::Inet, SockType::Raw, flags, SockProtocol::Icmp);
            }
            let socket = socket(AddressFamily::Inet6, SockType::Raw, flags, SockProtocol::IcmpV6)?;
            setsockopt(&socket, sockopt::Ipv6RecvHopLimit, &true)?;
            Ok(socket)
        };
        let socket = netns
            .run(open)?
            .context("opening a raw socket (needs CAP_NET_RAW)")?;
        Ok(Self {
            ping,
            socket,
            token: token(),
            requests: Vec::new(),
            answered: 0,
            refused: 0,
            ttl: None,
        })
    }

    fn run(mut self, count: u64, progress: &Progress) -> Result<PingReport> {
        let mut next = Instant::now();
        loop {
            let now = Instant::now();
            let sending = (self.requests.len() as u64) < count && !progress.stop.load(Ordering::Relaxed);
            let until = if sending {
                if now >= next {
                    self.send(now)?;
                    // Who was kept from the processor does not make up for it with a burst.
                    next = (next + self.ping.interval).max(now);
                }
                next.min(now + LOOK)
            } else {
                let last = self.requests.last().map_or(now, |request| request.sent);
                let end = last + self.ping.patience;
                if self.answered + self.refused == self.requests.len() as u64 || now >= end {
                    return Ok(self.report());
                }
                end.min(now + LOOK)
            };
            let timeout = until.saturating_duration_since(now);
            match ppoll(
                &mut [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)],
                Some(timeout.into()),
                None,
            ) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error).context("waiting for replies"),
            }
            self.receive()?;
            progress.sent.store(self.requests.len() as u64, Ordering::Relaxed);
            progress.received.store(self.answered, Ordering::Relaxed);
        }
    }

    fn send(&mut self, now: Instant) -> Result<()> {
        let number = self.requests.len() as u64;
        let packet = echo::request(Family::of(self.ping.to), self.token, number, self.ping.payload);
        let to = SockaddrStorage::from(SocketAddr::new(self.ping.to, 0));
        self.requests.push(Request {
            sent: now,
            round_trip: None,
        });
        match sendto(self.socket.as_raw_fd(), &packet, &to, MsgFlags::empty()) {
            Ok(_) => Ok(()),
            Err(
                Errno::ENETUNREACH
                | Errno::EHOSTUNREACH
                | Errno::ENETDOWN
                | Errno::EINVAL
                | Errno::ENODEV
                | Errno::ENOBUFS
                | Errno::EAGAIN
                | Errno::EADDRNOTAVAIL
                | Errno::EMSGSIZE
                | Errno::EACCES
                | Errno::EPERM,
            ) => {
                self.refused += 1;
                Ok(())
            }
            Err(error) => Err(error).with_context(|| format!("pinging {}", self.ping.to)),
        }
    }

    /// Takes in all replies that have arrived.
    fn receive(&mut self) -> Result<()> {
        let mut buffer = vec![0; 64 * 1024];
        let mut control = nix::cmsg_space!(i32);
        loop {
            let mut slices = [IoSliceMut::new(&mut buffer)];
            let socket = self.socket.as_raw_fd();
            let received =
                recvmsg::<SockaddrStorage>(socket, &mut slices, Some(&mut control), MsgFlags::empty());
            let (length, hop_limit) = match received {
                Ok(message) => (
                    message.bytes,
                    message.cmsgs().ok().and_then(|mut c| c.find_map(hop_limit)),
                ),
                Err(Errno::EAGAIN) => return Ok(()),
                Err(Errno::EINTR) => continue,
                Err(error) => return Err(io::Error::from(error)).context("receiving replies"),
            };
            let now = Instant::now();
            let packet = &buffer[..length];
            let Some((token, number)) = echo::reply(Family::of(self.ping.to), true, packet) else {
                continue;
            };
            if token != self.token {
                continue;
            }
            let request = usize::try_from(number)
                .ok()
                .and_then(|number| self.requests.get_mut(number));
            if let Some(request) = request.filter(|request| request.round_trip.is_none()) {
                request.round_trip = Some(now.duration_since(request.sent));
                self.answered += 1;
                self.ttl = ttl(self.ping.to, packet, hop_limit);
            }
        }
    }

    fn report(self) -> PingReport {
        let lost = (0..)
            .zip(&self.requests)
            .filter(|(_, request)| request.round_trip.is_none());
        PingReport {
            sent: self.requests.len() as u64,
            lost: lost.map(|(number, _)| number).collect(),
            refused: self.refused,
            round_trips: self
                .requests
                .iter()
                .filter_map(|request| request.round_trip)
                .collect(),
            ttl: self.ttl,
        }
    }
}

fn hop_limit(message: ControlMessageOwned) -> Option<u8> {
    match message {
        ControlMessageOwned::Ipv6HopLimit(limit) => u8::try_from(limit).ok(),
        _ => None,
    }
}

/// The TTL of a packet as the raw socket of the family of `to` gives it: IPv4 with the IP header, IPv6 beside it.
fn ttl(to: IpAddr, packet: &[u8], hop_limit: Option<u8>) -> Option<u8> {
    match to {
        IpAddr::V4(_) => packet.get(8).copied(),
        IpAddr::V6(_) => hop_limit,
    }
}

/// A number that no other ping on this machine uses at this time.
fn token() -> u64 {
    static START: OnceLock<u64> = OnceLock::new();
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let start = START.get_or_init(|| {
        let time = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos() as u64;
        time << 16 ^ u64::from(std::process::id()) << 40
    });
    start.wrapping_add(COUNT.fetch_add(1, Ordering::Relaxed))
}

impl PingReport {
    /// Replies.
    pub fn received(&self) -> u64 {
        self.round_trips.len() as u64
    }
}

impl fmt::Display for PingReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} sent, {} received, {} lost",
            self.sent,
            self.received(),
            self.lost.len()
        )?;
        if let (Some(least), Some(most)) = (self.round_trips.iter().min(), self.round_trips.iter().max()) {
            let mean = self.round_trips.iter().sum::<Duration>() / self.round_trips.len() as u32;
            write!(f, ", min/mean/max {least:.1?}/{mean:.1?}/{most:.1?}")?;
        }
        if let Some(ttl) = self.ttl {
            write!(f, ", ttl {ttl}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn to_oneself() {
        let netns = Netns::new().unwrap();
        for to in ["127.0.0.1", "::1"] {
            let report = ping(&netns, to.parse().unwrap(), 5, Duration::from_millis(1)).unwrap();
            assert_eq!(
                (report.sent, report.received(), &report.lost),
                (5, 5, &vec![]),
                "{to}: {report}"
            );
            assert_eq!(report.ttl, Some(64), "{to}");
        }
    }

    #[test]
    fn two_at_a_time_do_not_take_each_others_replies() {
        let netns = Netns::new().unwrap();
        let to = "127.0.0.1".parse().unwrap();
        let pingers = [(); 2].map(|()| {
            Ping::to(to)
                .interval(Duration::from_millis(1))
                .start(&netns)
                .unwrap()
        });
        for pinger in pingers {
            pinger.wait_replies(20, wait::LONG).unwrap();
            let report = pinger.stop().unwrap();
            assert!(report.lost.is_empty() && report.sent >= 20, "{report}");
            assert_eq!(report.received(), report.sent);
        }
    }

    #[test]
    fn what_is_not_answered_is_lost() {
        let netns = Netns::new().unwrap();
        let nowhere = Ping::to("192.0.2.1".parse().unwrap())
            .count(3)
            .run(&netns)
            .unwrap();
        assert_eq!(
            (nowhere.sent, nowhere.refused, nowhere.lost),
            (3, 3, vec![0, 1, 2])
        );

        netns
            .run(|| std::fs::write("/proc/sys/net/ipv4/icmp_echo_ignore_all", "1").unwrap())
            .unwrap();
        let silent = Ping::to("127.0.0.1".parse().unwrap())
            .count(2)
            .patience(Duration::from_millis(50));
        let silent = silent.run(&netns).unwrap();
        assert_eq!((silent.sent, silent.refused, silent.lost), (2, 0, vec![0, 1]));
    }
}
