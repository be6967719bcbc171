//! The leases of the host-local IPAM plugin, which are files: to find those that no one will give back.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::time::SystemTime;

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
    /// When it was written, by the host's clock.
    pub written: SystemTime,
}

/// What became of a lease that was to be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// It is gone.
    Removed,
    /// It is another one than the one that was read, or gone already.
    Changed,
    /// host-local is at work: nothing was touched.
    Busy,
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
        leases.extend(read_lease(&entry.path(), address)?);
    }
    leases.sort();
    Ok(leases)
}

/// `None` where it has been given back meanwhile.
fn read_lease(path: &Path, address: IpAddr) -> io::Result<Option<Lease>> {
    let read = || -> io::Result<Lease> {
        let written = fs::metadata(path)?.modified()?;
        let content = fs::read_to_string(path)?;
        let mut lines = content.lines().map(str::trim);
        Ok(Lease {
            address,
            container_id: lines.next().unwrap_or_default().to_owned(),
            ifname: lines.next().unwrap_or_default().to_owned(),
            written,
        })
    };
    match read() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        lease => lease.map(Some),
    }
}

/// Removes a lease, if it is the very one that was read. Under host-local's own lock, which is not waited for: whoever
/// wants to start a pod goes first.
pub fn remove_lease(directory: &Path, lease: &Lease) -> io::Result<Removal> {
    let lock = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(directory.join(LOCK))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(Removal::Busy),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    let path = directory.join(lease.address.to_string());
    if read_lease(&path, lease.address)?.as_ref() != Some(lease) {
        return Ok(Removal::Changed);
    }
    fs::remove_file(path)?;
    Ok(Removal::Removed)
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
    fn a_lease_is_removed_if_it_is_the_one_that_was_read_and_host_local_is_at_rest() {
        let directory = routelet_lab::TempDir::new().unwrap();
        let path = directory.write("10.244.1.2", "a0\r\neth0").unwrap();
        let lease = read_leases(directory.path()).unwrap().remove(0);
        let lock = File::create(directory.path().join(LOCK)).unwrap();
        lock.lock().unwrap();
        assert_eq!(remove_lease(directory.path(), &lease).unwrap(), Removal::Busy);
        lock.unlock().unwrap();

        // Given back and given anew: to another, or to the same once more.
        let earlier = Lease {
            written: SystemTime::UNIX_EPOCH,
            ..lease.clone()
        };
        let anothers = Lease {
            container_id: "b1".to_owned(),
            ..lease.clone()
        };
        for other in [earlier, anothers] {
            let removal = remove_lease(directory.path(), &other).unwrap();
            assert_eq!((removal, path.exists()), (Removal::Changed, true));
        }
        assert_eq!(remove_lease(directory.path(), &lease).unwrap(), Removal::Removed);
        assert!(!path.exists());
        assert_eq!(remove_lease(directory.path(), &lease).unwrap(), Removal::Changed);
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
