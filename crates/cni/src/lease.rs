//! The leases of the host-local IPAM plugin, which are files: to find those that no one will give back.

use std::fs::{self, File};
use std::io;
use std::net::IpAddr;
use std::path::Path;

/// The file that host-local locks while it reads and writes leases.
const LOCK: &str = "lock";

/// A lease: a file with the address for a name, that holds the container and its interface.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lease {
    /// The address.
    pub address: IpAddr,
    /// The container that has it.
    pub container_id: String,
    /// The interface in the container; empty in leases of host-local before 0.8.
    pub ifname: String,
}

/// Reads the leases in `directory`: the one that `ipam.dataDir` names (by default /var/lib/cni/networks), and in it the
/// one of the network's name. None where it is not there.
pub fn read_leases(directory: &Path) -> io::Result<Vec<Lease>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut leases = Vec::new();
    for entry in entries {
        let entry = entry?;
        // Beside them lie the lock and, for each range, the last address that was given.
        let Some(address) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let content = match fs::read_to_string(entry.path()) {
            // Given back since the directory was read.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            content => content?,
        };
        let mut lines = content.lines().map(str::trim);
        leases.push(Lease {
            address,
            container_id: lines.next().unwrap_or_default().to_owned(),
            ifname: lines.next().unwrap_or_default().to_owned(),
        });
    }
    leases.sort();
    Ok(leases)
}

/// Removes leases that name no container: host-local was killed between making the file and writing it, and will give
/// such an address neither to a pod nor back. Returns the addresses.
pub fn remove_nobodys_leases(directory: &Path) -> io::Result<Vec<IpAddr>> {
    // host-local's own lock: none of them is being written while it is held.
    let lock = match File::open(directory.join(LOCK)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        lock => lock?,
    };
    lock.lock()?;
    let leases = read_leases(directory)?;
    let nobodys = leases.into_iter().filter(|lease| lease.container_id.is_empty());
    let addresses: Vec<_> = nobodys.map(|lease| lease.address).collect();
    for address in &addresses {
        fs::remove_file(directory.join(address.to_string()))?;
    }
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_of_nobody_are_removed() {
        let directory = routelet_lab::TempDir::new().unwrap();
        assert!(remove_nobodys_leases(directory.path()).unwrap().is_empty());
        for (name, content) in [
            ("10.244.1.2", ""),
            ("10.244.1.3", "b1\r\neth0"),
            ("fd00::2", "\r\n"),
            ("lock", ""),
        ] {
            directory.write(name, content).unwrap();
        }
        let removed = remove_nobodys_leases(directory.path()).unwrap();
        assert_eq!(
            removed,
            ["10.244.1.2", "fd00::2"].map(|text| text.parse::<IpAddr>().unwrap())
        );
        assert_eq!(read_leases(directory.path()).unwrap().len(), 1);
    }

    #[test]
    fn leases_are_told_from_what_lies_beside_them() {
        let directory = routelet_lab::TempDir::new().unwrap();
        assert_eq!(read_leases(&directory.path().join("none")).unwrap(), []);
        for (name, content) in [
            ("10.244.1.3", "b1\r\neth0"),
            ("10.244.1.2", "a0"),
            ("fd00::2", "b1\r\neth0\r\n"),
            ("last_reserved_ip.0", "10.244.1.3"),
            ("lock", ""),
        ] {
            directory.write(name, content).unwrap();
        }
        let leases = read_leases(directory.path()).unwrap();
        let told: Vec<_> = leases
            .iter()
            .map(|lease| format!("{} {} {}", lease.address, lease.container_id, lease.ifname))
            .collect();
        assert_eq!(told, ["10.244.1.2 a0 ", "10.244.1.3 b1 eth0", "fd00::2 b1 eth0"]);
    }
}
