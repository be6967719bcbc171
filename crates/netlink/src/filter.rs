//! A socket filter (classic BPF) that keeps the echo of our own writes from the monitor, as FRR's zebra does.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use crate::Error;

const LOAD_HALF: u16 = (libc::BPF_LD | libc::BPF_H | libc::BPF_ABS) as u16;
const LOAD_WORD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const JUMP_IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

/// Lets `socket` drop messages that tell what the socket with this port id has written. Those about links pass
/// all the same: they tell the index that a new link has got.
///
/// A load brings big-endian numbers to the machine's order; those of netlink's header are in the machine's
/// order already, so that they are compared the wrong way round.
pub(crate) fn drop_echo(socket: &netlink_sys::Socket, port: u32) -> Result<(), Error> {
    let step = |code, yes, no, value| libc::sock_filter {
        code,
        jt: yes,
        jf: no,
        k: value,
    };
    let kind = |kind: u16| u32::from(kind.to_be());
    let mut program = [
        step(LOAD_HALF, 0, 0, 4),
        step(JUMP_IF_EQUAL, 3, 0, kind(libc::RTM_NEWLINK)),
        step(JUMP_IF_EQUAL, 2, 0, kind(libc::RTM_DELLINK)),
        step(LOAD_WORD, 0, 0, 12),
        step(JUMP_IF_EQUAL, 1, 0, port.to_be()),
        step(RETURN, 0, 0, u32::MAX),
        step(RETURN, 0, 0, 0),
    ];
    attach(socket, &mut program).map_err(Error::io("attaching the filter of the monitor"))
}

/// Attaches a classic BPF program to a socket (SO_ATTACH_FILTER).
#[expect(unsafe_code, reason = "no crate in use offers SO_ATTACH_FILTER")]
fn attach(socket: &impl AsFd, program: &mut [libc::sock_filter]) -> io::Result<()> {
    let program = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_mut_ptr(),
    };
    // SAFETY: the descriptor is open as long as `socket` is borrowed, and the kernel copies the program, which
    // `program` points to with its true length, before the call returns.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
