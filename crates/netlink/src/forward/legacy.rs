//! The tables of iptables-legacy, which know no netlink: read by getsockopt, and only where they are in use, for the
//! question alone would load them.
//!
//! Layout: `struct ipt_getinfo`, `struct ipt_entry` and their like of linux/netfilter_ipv4/ip_tables.h and
//! ip6_tables.h. A chain's policy is the verdict of the rule at its underflow offset.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use routelet_model::Family;

use super::{ChainFamily, DroppingChain, Firewall};
use crate::Error;
use crate::frame::{read_u16, read_u32};

/// The table, in both families.
const TABLE: &str = "filter";
/// `XT_TABLE_MAXNAMELEN`.
const NAME: usize = 32;
/// `struct ipt_getinfo`: the name, then valid hooks, five entry points, five underflows, number and size of entries.
const INFO: usize = 84;
const ENTRY_OF_FORWARD: usize = NAME + 4 + 2 * 4;
const UNDERFLOW_OF_FORWARD: usize = NAME + 4 + 5 * 4 + 2 * 4;
const SIZE: usize = 80;
/// `struct ipt_get_entries` up to the entries: the name and their size, which eight bytes align.
const ENTRIES: usize = 40;
/// `IPT_SO_GET_INFO` and `IP6T_SO_GET_INFO`.
const SO_GET_INFO: i32 = 64;
/// `IPT_SO_GET_ENTRIES` and `IP6T_SO_GET_ENTRIES`.
const SO_GET_ENTRIES: i32 = 65;
/// `struct xt_entry_target`, after which a standard target has its verdict.
const TARGET: usize = 32;
/// A verdict is stored as its negative, less one.
const DROP: i32 = -libc::NF_DROP - 1;

/// How often a table is read that changes between the two questions.
const ATTEMPTS: u32 = 8;

/// The FORWARD chains that drop by policy.
pub(super) fn dropping() -> Result<Vec<DroppingChain>, Error> {
    let mut found = Vec::new();
    for family in Family::ALL {
        if is_in_use(family)? && drops(family)? {
            found.push(DroppingChain {
                firewall: Firewall::IptablesLegacy,
                family: match family {
                    Family::V4 => ChainFamily::Ip,
                    Family::V6 => ChainFamily::Ip6,
                },
                table: TABLE.to_owned(),
                chain: "FORWARD".to_owned(),
            });
        }
    }
    Ok(found)
}

/// Whether the table is there in the network namespace of the calling thread.
fn is_in_use(family: Family) -> Result<bool, Error> {
    let path = match family {
        Family::V4 => "/proc/thread-self/net/ip_tables_names",
        Family::V6 => "/proc/thread-self/net/ip6_tables_names",
    };
    match fs::read_to_string(path) {
        Ok(names) => Ok(names.lines().any(|name| name == TABLE)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Error::io(format!("reading {path}"))(error)),
    }
}

/// Whether FORWARD has rules beside its policy, in the table of the chain's family.
pub(super) fn has_rules(chain: ChainFamily) -> Result<bool, Error> {
    let family = match chain {
        ChainFamily::Ip6 => Family::V6,
        ChainFamily::Ip | ChainFamily::Inet => Family::V4,
    };
    let info = info(&open(family)?, family)?;
    Ok(read_u32(&info, ENTRY_OF_FORWARD) != read_u32(&info, UNDERFLOW_OF_FORWARD))
}

fn drops(family: Family) -> Result<bool, Error> {
    let socket = open(family)?;
    for _ in 0..ATTEMPTS {
        let info = info(&socket, family)?;
        let size = read_u32(&info, SIZE).unwrap_or_default();
        let mut entries = named(ENTRIES + size as usize);
        entries[NAME..NAME + 4].copy_from_slice(&size.to_ne_bytes());
        match get(&socket, family, SO_GET_ENTRIES, &mut entries) {
            // It has another size by now.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EINVAL)) => {}
            result => {
                result.map_err(reading(family))?;
                let underflow = read_u32(&info, UNDERFLOW_OF_FORWARD).unwrap_or_default();
                return policy(family, &entries[ENTRIES..], underflow as usize)
                    .map(|verdict| verdict == DROP)
                    .ok_or(Error::Decode("a table of iptables-legacy without a policy"));
            }
        }
    }
    Err(Error::Interrupted(ATTEMPTS))
}

fn open(family: Family) -> Result<OwnedFd, Error> {
    let domain = match family {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    };
    let opened = socket(domain, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None);
    opened.map_err(|errno| reading(family)(errno.into()))
}

fn info(socket: &OwnedFd, family: Family) -> Result<Vec<u8>, Error> {
    let mut info = named(INFO);
    get(socket, family, SO_GET_INFO, &mut info).map_err(reading(family))?;
    Ok(info)
}

fn reading(family: Family) -> impl FnOnce(io::Error) -> Error {
    Error::io(format!("reading the {family} table {TABLE} of iptables-legacy"))
}

/// The verdict of the rule at `offset`.
fn policy(family: Family, entries: &[u8], offset: usize) -> Option<i32> {
    // `target_offset`, after what the rule matches (`struct ipt_ip`, `struct ip6t_ip6`) and `nfcache`.
    let target_offset = match family {
        Family::V4 => 88,
        Family::V6 => 140,
    };
    let rule = entries.get(offset..)?;
    let target = usize::from(read_u16(rule, target_offset)?);
    Some(read_u32(rule, target + TARGET)? as i32)
}

/// Room for an answer, which begins with the table's name.
fn named(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    bytes[..TABLE.len()].copy_from_slice(TABLE.as_bytes());
    bytes
}

/// Fills the buffer with the value of an option of the family's packet filter.
#[expect(unsafe_code, reason = "no crate in use offers these options")]
fn get(socket: &OwnedFd, family: Family, option: i32, buffer: &mut [u8]) -> io::Result<()> {
    let level = match family {
        Family::V4 => libc::SOL_IP,
        Family::V6 => libc::SOL_IPV6,
    };
    let mut length = buffer.len() as libc::socklen_t;
    // SAFETY: the descriptor is open as long as `socket` is borrowed, and the kernel writes no more than `length`
    // bytes to the buffer, which is so long.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            option,
            buffer.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    match result {
        0 if length as usize == buffer.len() => Ok(()),
        0 => Err(io::Error::from_raw_os_error(libc::EAGAIN)),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_are_read(entries in proptest::collection::vec(any::<u8>(), 0..256), offset in 0usize..256) {
            for family in Family::ALL {
                let _ = policy(family, &entries, offset);
            }
        }
    }
}
