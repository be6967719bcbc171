//! The host's addresses: a connection from one that has gone is dead, and nothing comes over it that says so.

use std::collections::BTreeSet;
use std::net::IpAddr;

use tokio::sync::watch;

/// The host's addresses as they are at each time, where anyone tells.
#[derive(Debug, Clone)]
pub struct HostAddresses(Option<watch::Receiver<BTreeSet<IpAddr>>>);

impl HostAddresses {
    /// Where no one tells: a dead connection is found by its silence.
    pub fn unknown() -> Self {
        Self(None)
    }

    /// Resolves when the host has lost `address`. Never where it was not told to have had it: that it is missing means
    /// nothing then.
    pub(crate) async fn lost(self, address: IpAddr) {
        if let Some(mut told) = self.0
            && told.wait_for(|now| now.contains(&address)).await.is_ok()
            && told.wait_for(|now| !now.contains(&address)).await.is_ok()
        {
            return;
        }
        std::future::pending().await
    }
}

impl From<watch::Receiver<BTreeSet<IpAddr>>> for HostAddresses {
    fn from(told: watch::Receiver<BTreeSet<IpAddr>>) -> Self {
        Self(Some(told))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_address_is_lost_by_whoever_was_told_to_have_it() {
        let [ours, other]: [IpAddr; 2] = ["10.0.0.1", "10.0.0.2"].map(|text| text.parse().unwrap());
        let (told, addresses) = watch::channel(BTreeSet::new());
        let addresses = HostAddresses::from(addresses);
        let is_lost = async |address| {
            let lost = addresses.clone().lost(address);
            timeout(Duration::from_secs(3600), lost).await.is_ok()
        };
        assert!(!is_lost(ours).await, "nothing is known yet");
        let mut waits = tokio::spawn(addresses.clone().lost(ours));
        told.send_replace(BTreeSet::from([ours, other]));
        assert!(timeout(Duration::from_secs(1), &mut waits).await.is_err());
        told.send_replace(BTreeSet::from([other]));
        waits.await.unwrap();
        assert!(!is_lost(other).await);
        drop(told);
        assert!(!is_lost(other).await, "no one tells any more");
        let unknown = HostAddresses::unknown().lost(ours);
        assert!(timeout(Duration::from_secs(3600), unknown).await.is_err());
    }
}
