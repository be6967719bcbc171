//! The right to make network namespaces: root has it, and whoever may make a user namespace gets it there.

use std::fs;
use std::io;

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getgid, getuid};

/// Bits of `CapEff` in /proc/self/status, by linux/capability.h: CAP_NET_ADMIN, CAP_NET_RAW, CAP_SYS_ADMIN.
const NEEDED: u64 = 1 << 12 | 1 << 13 | 1 << 21;

/// Whether this process has the capabilities that a lab needs.
pub fn is_enough() -> bool {
    let effective = fs::read_to_string("/proc/self/status").ok().and_then(|status| {
        let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
        u64::from_str_radix(line.trim(), 16).ok()
    });
    effective.is_some_and(|effective| effective & NEEDED == NEEDED)
}

/// Without root's capabilities, moves the process into a user namespace in which it has them, with network and mounts
/// of its own. Returns whether it did.
///
/// To be called first thing in `main`: the kernel refuses it to a process of several threads.
pub fn enter_user_namespace_if_needed() -> Result<bool> {
    if is_enough() {
        return Ok(false);
    }
    let (uid, gid) = (getuid(), getgid());
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)
        .map_err(|errno| anyhow::Error::new(io::Error::from(errno)).context(remedy(errno)))?;
    // Without this, an ordinary user may map no group.
    write_map("setgroups", "deny")?;
    write_map("uid_map", &format!("0 {uid} 1"))?;
    write_map("gid_map", &format!("0 {gid} 1"))?;
    if !is_enough() {
        bail!("{}", remedy(Errno::EPERM));
    }
    Ok(true)
}

fn write_map(file: &str, content: &str) -> Result<()> {
    let path = format!("/proc/self/{file}");
    fs::write(&path, content).with_context(|| format!("writing {path}; {}", remedy(Errno::EPERM)))
}

fn remedy(errno: Errno) -> String {
    let why = match errno {
        Errno::ENOSPC | Errno::EUSERS => {
            "the limit sysctl user.max_user_namespaces is reached (0 forbids them)"
        }
        Errno::EINVAL => "the process has several threads already, which is a fault in routelet",
        Errno::ENOSYS => "the kernel has none",
        _ => {
            "one of these forbids it: sysctl kernel.apparmor_restrict_unprivileged_userns=1 (Ubuntu), \
             sysctl kernel.unprivileged_userns_clone=0 (Debian), a container's seccomp profile"
        }
    };
    format!("not root, and the kernel refuses a user namespace: {why}. Run as root, or lift the restriction")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_what_to_turn() {
        assert!(remedy(Errno::EPERM).contains("kernel.apparmor_restrict_unprivileged_userns"));
        assert!(remedy(Errno::ENOSPC).contains("user.max_user_namespaces"));
    }

    #[test]
    fn root_stays_where_it_is() {
        if !is_enough() {
            crate::skip!("root is needed");
        }
        let before = fs::read_link("/proc/self/ns/user").unwrap();
        assert!(!enter_user_namespace_if_needed().unwrap());
        assert_eq!(fs::read_link("/proc/self/ns/user").unwrap(), before);
    }
}
