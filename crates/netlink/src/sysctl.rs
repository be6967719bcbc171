//! Settings below /proc/sys, which are those of the network namespace of the thread that opens the file; and the
//! notifications of some of them (`struct netconfmsg` and NETCONFA_… of linux/netconf.h).

use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;

use routelet_model::{Family, Key, Object, Sysctl, SysctlName};

use crate::Error;
use crate::attributes::{Attributes, family_of_number};
use crate::links::Links;

/// Where a container that is not privileged finds the settings writable, if its pod has the host's /proc/sys/net mounted
/// below: container runtimes make /proc/sys itself read-only, and let nothing be mounted below /proc. Like those at
/// their usual place, they are the settings of the network namespace of the thread that opens them.
const BESIDE: &str = "/host/proc/sys";
/// The usual place.
const USUAL: &str = "/proc/sys";

/// `RTM_NEWNETCONF`.
pub(crate) const RTM_NEWNETCONF: u16 = 80;

/// `struct netconfmsg` is one byte, padded.
const HEADER: usize = 4;
const NETCONFA_IFINDEX: u16 = 1;
const NETCONFA_FORWARDING: u16 = 2;
const NETCONFA_RP_FILTER: u16 = 3;
const NETCONFA_PROXY_NEIGH: u16 = 5;
/// `NETCONFA_IFINDEX_ALL`: not a link's setting but the host's.
const ALL: u32 = -1i32 as u32;

/// The present value; `None` where the link, or the family, is not there.
pub fn read(sysctl: Sysctl) -> Result<Option<u32>, Error> {
    let path = path(USUAL, sysctl);
    match fs::read_to_string(&path) {
        Ok(text) => match text.trim().parse() {
            Ok(value) => Ok(Some(value)),
            Err(_) => Err(Error::Decode("a setting below /proc/sys that is no number")),
        },
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io(format!("reading {path}"))(error)),
    }
}

/// Sets a value; where /proc/sys is read-only, through the host's /proc/sys/net at /host/proc/sys/net.
pub fn write(sysctl: Sysctl, value: u32) -> Result<(), Error> {
    let usual = path(USUAL, sysctl);
    let mut written = fs::write(&usual, value.to_string());
    let is_read_only = |error: &io::Error| error.kind() == ErrorKind::ReadOnlyFilesystem;
    if written.as_ref().is_err_and(is_read_only) && Path::new(BESIDE).is_dir() {
        written = fs::write(path(BESIDE, sysctl), value.to_string());
    }
    written.map_err(|error| {
        let remedy = match (error.kind(), sysctl.link) {
            (ErrorKind::NotFound, Some(link)) => return Error::NoSuchLink(link),
            (ErrorKind::ReadOnlyFilesystem, _) => {
                " (mount the host's /proc/sys/net into the container at /host/proc/sys/net)"
            }
            // EACCES and EPERM.
            (ErrorKind::PermissionDenied, _) => {
                " (it takes root with the capability NET_ADMIN; where both are given, AppArmor or SELinux forbids it)"
            }
            _ => "",
        };
        Error::io(format!("writing {value} to {usual}{remedy}"))(error)
    })
}

/// By slashes, as a link's name may hold dots; that it holds no slash and is not ".." is `IfName`'s promise.
fn path(root: &str, sysctl: Sysctl) -> String {
    format!("{root}/{}", sysctl.path())
}

/// Reads RTM_NEWNETCONF, which tells of forwarding, rp_filter, proxy_arp and proxy_ndp, and of nothing else.
pub(crate) fn read_notification(payload: &[u8], links: &Links) -> Result<Vec<(Key, Object)>, Error> {
    let attributes = Attributes::after(payload, HEADER)?;
    let Some(family) = family_of_number(payload[0]) else {
        return Ok(Vec::new());
    };
    let (mut index, mut values) = (0, Vec::new());
    for attribute in attributes {
        let attribute = attribute?;
        if attribute.kind == NETCONFA_IFINDEX {
            index = attribute.u32()?;
        } else if matches!(
            attribute.kind,
            NETCONFA_FORWARDING | NETCONFA_RP_FILTER | NETCONFA_PROXY_NEIGH
        ) {
            values.push((attribute.kind, attribute.u32()?));
        }
    }
    let link = match index {
        ALL => None,
        index => match links.name(index) {
            Some(name) => Some(name),
            None => return Ok(Vec::new()),
        },
    };
    let name = |kind| match (kind, family, link) {
        (NETCONFA_FORWARDING, Family::V4, None) => Some(SysctlName::Ipv4IpForward),
        (NETCONFA_FORWARDING, Family::V6, None) => Some(SysctlName::Ipv6AllForwarding),
        (NETCONFA_FORWARDING, Family::V4, Some(_)) => Some(SysctlName::Ipv4Forwarding),
        (NETCONFA_FORWARDING, Family::V6, Some(_)) => Some(SysctlName::Ipv6Forwarding),
        (NETCONFA_RP_FILTER, Family::V4, Some(_)) => Some(SysctlName::Ipv4RpFilter),
        (NETCONFA_PROXY_NEIGH, Family::V4, Some(_)) => Some(SysctlName::Ipv4ProxyArp),
        (NETCONFA_PROXY_NEIGH, Family::V6, Some(_)) => Some(SysctlName::Ipv6ProxyNdp),
        _ => None,
    };
    let object = |(kind, value)| {
        Some((
            Key::Sysctl(Sysctl {
                name: name(kind)?,
                link,
            }),
            Object::Sysctl(value),
        ))
    };
    Ok(values.into_iter().filter_map(object).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use routelet_model::IfName;

    use super::*;

    #[test]
    fn a_name_with_dots_stays_one_part_of_the_path() {
        let link = IfName::new("vxlan.calico").unwrap();
        let path = path(USUAL, Sysctl::link(SysctlName::Ipv4Forwarding, link));
        assert_eq!(path, "/proc/sys/net/ipv4/conf/vxlan.calico/forwarding");
    }

    #[expect(unsafe_code, reason = "glibc's own function would change all threads")]
    fn become_nobody() {
        const NOBODY: libc::uid_t = 65534;
        // SAFETY: it takes three numbers, and changes the calling thread alone.
        let failed = unsafe { libc::syscall(libc::SYS_setresuid, NOBODY, NOBODY, NOBODY) };
        assert_eq!(failed, 0);
    }

    #[test]
    fn who_may_not_write_is_told_what_it_takes() {
        let netns = match crate::Netns::new() {
            Err(error) if error.errno() == Some(libc::EPERM) => routelet_lab::skip!("needs root: {error}"),
            netns => netns.unwrap(),
        };
        let forward = Sysctl::host(SysctlName::Ipv4IpForward);
        let error = std::thread::spawn(move || {
            netns
                .run(|| {
                    become_nobody();
                    write(forward, 1).unwrap_err().to_string()
                })
                .unwrap()
        });
        let error = error.join().unwrap();
        for part in [
            "writing 1 to /proc/sys/net/ipv4/ip_forward",
            "NET_ADMIN",
            "Permission denied",
        ] {
            assert!(error.contains(part), "{part:?} is not in {error}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(payload in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = read_notification(&payload, &Links::default());
        }
    }
}
