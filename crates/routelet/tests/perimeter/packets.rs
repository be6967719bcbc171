//! Packets made by hand, as no honest socket sends them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::AsRawFd;

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, sendto, socket,
};
use routelet_model::MacAddr;
use routelet_netlink::Netns;
use routelet_netlink::echo::checksum;

const UDP: u8 = 17;

/// Bytes of a VXLAN packet: its header, and a frame with a datagram in it.
pub(crate) fn vxlan(vni: u32, to_mac: MacAddr, from: IpAddr, to: SocketAddr, text: &str) -> Vec<u8> {
    let [_, vni @ ..] = vni.to_be_bytes();
    let ethertype: u16 = if to.is_ipv4() { 0x0800 } else { 0x86dd };
    let mut packet = vec![0x08, 0, 0, 0];
    packet.extend(vni);
    packet.push(0);
    packet.extend(to_mac.0);
    packet.extend([0x66, 0, 0, 0, 0, 1]);
    packet.extend(ethertype.to_be_bytes());
    packet.extend(ip(from, to.ip(), UDP, &udp(from, to, text.as_bytes())));
    packet
}

/// A datagram with its header.
fn udp(from: IpAddr, to: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let length = (8 + payload.len()) as u16;
    let mut datagram = Vec::new();
    datagram.extend(40_000u16.to_be_bytes());
    datagram.extend(to.port().to_be_bytes());
    datagram.extend(length.to_be_bytes());
    datagram.extend([0, 0]);
    datagram.extend(payload);
    let mut summed = [octets(from), octets(to.ip())].concat();
    summed.extend([0, UDP]);
    summed.extend(length.to_be_bytes());
    summed.extend(&datagram);
    let sum = checksum(&summed).to_be_bytes();
    datagram[6..8].copy_from_slice(&sum);
    datagram
}

/// A packet of either family.
fn ip(from: IpAddr, to: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => ipv4(from, to, protocol, 0, payload),
        _ => {
            let mut packet = vec![0x60, 0, 0, 0];
            packet.extend((payload.len() as u16).to_be_bytes());
            packet.extend([protocol, 64]);
            packet.extend(octets(from));
            packet.extend(octets(to));
            packet.extend(payload);
            packet
        }
    }
}

fn ipv4(from: Ipv4Addr, to: Ipv4Addr, protocol: u8, fragment: u16, payload: &[u8]) -> Vec<u8> {
    let mut header = vec![0x45, 0];
    header.extend((20 + payload.len() as u16).to_be_bytes());
    header.extend([0x12, 0x34]);
    header.extend(fragment.to_be_bytes());
    header.extend([64, protocol, 0, 0]);
    header.extend(from.octets());
    header.extend(to.octets());
    let sum = checksum(&header).to_be_bytes();
    header[10..12].copy_from_slice(&sum);
    header.extend(payload);
    header
}

/// Sends a datagram in two pieces, the first of which holds nothing but its header.
pub(crate) fn send_in_pieces(netns: &Netns, from: Ipv4Addr, to: SocketAddr, payload: &[u8]) {
    const MORE: u16 = 0x2000;
    let IpAddr::V4(address) = to.ip() else {
        unreachable!()
    };
    let datagram = udp(from.into(), to, payload);
    let (head, rest) = datagram.split_at(8);
    for (fragment, bytes) in [(MORE, head), (1, rest)] {
        send_raw(netns, to.ip(), &ipv4(from, address, UDP, fragment, bytes));
    }
}

/// Sends an IPv4 packet whose header is made by hand.
fn send_raw(netns: &Netns, to: IpAddr, packet: &[u8]) {
    netns
        .run(|| {
            let raw = socket(
                AddressFamily::Inet,
                SockType::Raw,
                SockFlag::SOCK_CLOEXEC,
                SockProtocol::Raw,
            )
            .unwrap();
            let to = SockaddrStorage::from(SocketAddr::new(to, 0));
            sendto(raw.as_raw_fd(), packet, &to, MsgFlags::empty()).unwrap();
        })
        .unwrap();
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}
