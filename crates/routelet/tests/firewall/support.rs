//! Programs that tests call in a node's namespace, and UDP that comes and goes.

use std::net::{SocketAddr, UdpSocket};
use std::process::Command;
use std::time::Duration;

use routelet_lab::wait;
use routelet_netlink::Netns;

/// Ends a test where a program is missing.
#[macro_export]
macro_rules! need {
    ($($program:literal)+) => {
        for program in [$($program),+] {
            if !$crate::support::is_there(program) {
                routelet_lab::skip!("{program} is not installed");
            }
        }
    };
}

pub(crate) fn is_there(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok()
}

/// Runs a program in the namespace and returns what it writes; it must succeed. Words are split at blanks.
pub(crate) fn run(netns: &Netns, line: &str) -> String {
    let mut words = line.split_whitespace();
    let program = words.next().unwrap();
    let mut command = Command::new(program);
    if program.ends_with("-legacy") {
        // Its lock is the machine's: another test may hold it.
        command.arg("--wait");
    }
    let output = netns.run(|| command.args(words).output().unwrap()).unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{line}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// Carries out nft commands in the namespace, separated by semicolons or line ends, all or none.
pub(crate) fn nft(netns: &Netns, commands: &str) {
    run(netns, &format!("nft {commands}"));
}

/// A UDP socket in a namespace that does not wait for ever.
pub(crate) fn udp(netns: &Netns, address: impl Into<SocketAddr>) -> UdpSocket {
    let address = address.into();
    let socket = netns.run(|| UdpSocket::bind(address).unwrap()).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    socket
}

/// Sends a datagram until the other socket gets one, and returns where that came from.
pub(crate) fn deliver(from: &UdpSocket, to: SocketAddr, at: &UdpSocket) -> SocketAddr {
    wait::until_some(wait::LONG, &format!("a datagram to {to} to arrive"), || {
        from.send_to(b"x", to).ok()?;
        at.recv_from(&mut [0; 8]).ok().map(|(_, source)| source)
    })
    .unwrap()
}

/// Sends one datagram; whether the other socket gets it.
pub(crate) fn arrives(from: &UdpSocket, to: SocketAddr, at: &UdpSocket) -> bool {
    from.send_to(b"x", to).is_ok() && at.recv_from(&mut [0; 8]).is_ok()
}

/// The flows that the namespace tracks, one a line.
pub(crate) fn flows(netns: &Netns) -> Vec<String> {
    let text = netns
        .run(|| std::fs::read_to_string("/proc/thread-self/net/nf_conntrack").unwrap())
        .unwrap();
    text.lines().map(str::to_owned).collect()
}

/// Of these, the ones in which a text occurs, as `=10.0.0.7 `.
pub(crate) fn flows_with(netns: &Netns, text: &str) -> usize {
    flows(netns).iter().filter(|flow| flow.contains(text)).count()
}
