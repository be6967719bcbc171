//! What is known of a kernel by its release.

use crate::Features;

/// The first release whose NAT leaves a UDP checksum of 0 alone ("netfilter: nat: never update the UDP checksum when
/// it's 0", Linux 5.7).
const KEEPS_ZERO_CHECKSUMS: (u32, u32) = (5, 7);

impl Features {
    /// Whether TX checksum offload of a VXLAN device spoils packets on this kernel. A VXLAN packet has no checksum of
    /// its own, which is told by a 0. Older kernels make something else of it where the packet is masqueraded while the
    /// checksum within is still to be made, and the receiver drops it. Never so of a release that cannot be read.
    pub fn spoils_vxlan_checksums(&self) -> bool {
        version(&self.kernel_release).is_some_and(|version| version < KEEPS_ZERO_CHECKSUMS)
    }
}

/// The first two numbers of a release, as 5.4 of "5.4.0-150-generic".
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on(release: &str) -> Features {
        Features {
            nexthop_objects: true,
            strict_dump: true,
            nftables: true,
            kernel_release: release.to_owned(),
        }
    }

    #[test]
    fn kernels_before_5_7_spoil_checksums() {
        for release in [
            "3.10.0-1160.el7.x86_64",
            "4.18.0-553.el8.x86_64",
            "5.4.0-150-generic",
            "5.6.19",
        ] {
            assert!(on(release).spoils_vxlan_checksums(), "{release}");
        }
        for release in [
            "5.7.0",
            "5.10.0-35-amd64",
            "5.15.167.4-microsoft-standard",
            "6.1.0-30-amd64",
            "6.18.1",
            "10.0-rc1",
        ] {
            assert!(!on(release).spoils_vxlan_checksums(), "{release}");
        }
    }

    #[test]
    fn of_a_release_that_cannot_be_read_nothing_is_known() {
        for release in ["", "6", "linux", "-5.4", "99999999999.1", "5.x"] {
            assert!(!on(release).spoils_vxlan_checksums(), "{release:?}");
        }
    }
}
