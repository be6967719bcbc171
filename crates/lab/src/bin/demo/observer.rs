//! Listens to a node's kernel from outside its agent: with a netlink socket of its own in the node's network namespace.
//!
//! Times taken here end when the kernel's own notification of the last object has been read. Notifications say what
//! was written; that the whole state is right is then checked by a dump, whose time does not count.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use routelet_lab::wait;
use routelet_model::{IfName, Key, Kind, Object};
use routelet_netlink::{Hint, Kernel, Netns};
use tokio::runtime::Runtime;

/// The agent's objects in a node's kernel.
pub(crate) type State = BTreeMap<Key, Object>;

/// What the agent's settings are by default.
const PROTOCOL: u8 = 80;
const INTERFACE_PREFIX: &str = "cali";
const NFT_TABLE: &str = "routelet";
/// The agent's VXLAN device for IPv4 pods.
pub(crate) const VXLAN: &str = "vxlan.calico";
/// And for IPv6 pods.
pub(crate) const VXLAN_V6: &str = "vxlan-v6.calico";

/// The name of the agent's VXLAN device for IPv4 pods.
pub(crate) fn vxlan() -> Result<IfName> {
    Ok(IfName::new(VXLAN)?)
}

/// A listener in a node's namespace.
#[derive(Debug)]
pub(crate) struct Observer {
    kernel: Kernel,
    hints: Vec<Hint>,
    runtime: Runtime,
}

/// The kernel of a namespace, with an eye for the agent's objects.
pub(crate) fn kernel(netns: &Netns) -> Result<Kernel> {
    let config = routelet_netlink::Config {
        protocol: PROTOCOL,
        devices: vec![vxlan()?, IfName::new(VXLAN_V6)?],
        interface_prefix: INTERFACE_PREFIX.to_owned(),
        nft_table: NFT_TABLE.to_owned(),
        receive_buffer: 4 << 20,
    };
    Ok(netns.run(|| Kernel::open(config))??)
}

/// Whether an object cannot be without the link, or is the link.
pub(crate) fn depends_on(link: IfName, key: &Key, object: &Object) -> bool {
    let target = match object {
        Object::Route(target) => target.link(),
        _ => None,
    };
    *key == Key::Link(link) || key.link() == Some(link) || target == Some(link)
}

impl Observer {
    /// Listens from now on.
    pub(crate) fn open(netns: &Netns) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        Ok(Self {
            kernel: kernel(netns)?,
            hints: Vec::new(),
            runtime,
        })
    }

    /// Whether the kernel has nexthop objects.
    pub(crate) fn has_nexthop_objects(&self) -> bool {
        self.kernel.features().nexthop_objects
    }

    /// All that the agent has in the kernel, and the pods' veths; forgets what was told of until now.
    pub(crate) fn state(&mut self) -> Result<State> {
        self.kernel.drain(&mut self.hints);
        self.hints.clear();
        let mut state = State::new();
        for kind in Kind::ALL
            .into_iter()
            .filter(|kind| !matches!(kind, Kind::Sysctl | Kind::ChecksumOffload))
        {
            self.kernel.dump(kind, None, &mut |key, object| {
                _ = state.insert(key, comparable(object))
            })?;
        }
        Ok(state)
    }

    /// Does `work`, on a thread of its own, and waits until the kernel has told of each object in `expected` that it is
    /// as it shall be. Returns the time from the beginning of the work, and that of the work itself.
    pub(crate) fn time_until_seen<T: Send>(
        &mut self,
        expected: &State,
        work: impl FnOnce() -> Result<T> + Send,
    ) -> Result<(T, Timing)> {
        let mut missing = expected.clone();
        self.time(work, |hint| {
            match hint {
                Hint::Seen(key, object) | Hint::Added(key, object) => {
                    if expected.get(key) == Some(&comparable(object.clone())) {
                        missing.remove(key);
                    }
                }
                Hint::Gone(key) => {
                    missing.extend(
                        expected
                            .get_key_value(key)
                            .map(|(key, object)| (*key, object.clone())),
                    );
                }
                Hint::LinkGone(link) => {
                    let lost = expected
                        .iter()
                        .filter(|(key, object)| depends_on(*link, key, object));
                    missing.extend(lost.map(|(key, object)| (*key, object.clone())));
                }
                Hint::OthersGone(_)
                | Hint::NftTouched
                | Hint::HostChanged(_)
                | Hint::Flushed(_)
                | Hint::Lost => {}
            }
            missing.keys().next().copied()
        })
    }

    /// The same for objects that go.
    pub(crate) fn time_until_gone<T: Send>(
        &mut self,
        unwanted: &State,
        work: impl FnOnce() -> Result<T> + Send,
    ) -> Result<(T, Timing)> {
        let mut left = unwanted.clone();
        self.time(work, |hint| {
            match hint {
                Hint::Gone(key) => _ = left.remove(key),
                Hint::LinkGone(link) => left.retain(|key, object| !depends_on(*link, key, object)),
                Hint::Seen(..)
                | Hint::Added(..)
                | Hint::OthersGone(_)
                | Hint::NftTouched
                | Hint::HostChanged(_)
                | Hint::Flushed(_)
                | Hint::Lost => {}
            }
            left.keys().next().copied()
        })
    }

    /// `take_in` is given each notification, and returns what is still waited for.
    fn time<T: Send>(
        &mut self,
        work: impl FnOnce() -> Result<T> + Send,
        mut take_in: impl FnMut(&Hint) -> Option<Key>,
    ) -> Result<(T, Timing)> {
        self.kernel.drain(&mut self.hints);
        self.hints.clear();
        thread::scope(|scope| {
            let worker = scope.spawn(|| {
                let begin = Instant::now();
                work().map(|result| (result, begin, begin.elapsed()))
            });
            let heard = self.listen(&mut take_in);
            let (result, begin, work) = worker
                .join()
                .map_err(|_| anyhow!("the thread that does the damage panicked"))??;
            Ok((
                result,
                Timing {
                    work,
                    total: heard?.duration_since(begin),
                },
            ))
        })
    }

    /// Takes notifications in until nothing is waited for; returns when the last of them was read.
    fn listen(&mut self, take_in: &mut impl FnMut(&Hint) -> Option<Key>) -> Result<Instant> {
        let deadline = Instant::now() + wait::LONG;
        let mut awaited = None;
        loop {
            let ready = async { tokio::time::timeout_at(deadline.into(), self.kernel.ready()).await };
            let in_time = self.runtime.block_on(ready).is_ok();
            let what = || awaited.map_or_else(|| "of anything".to_owned(), |key: Key| format!("of {key}"));
            ensure!(
                in_time,
                "the kernel has not told {} within {:?}",
                what(),
                wait::LONG
            );
            self.kernel.drain(&mut self.hints);
            let heard = Instant::now();
            for hint in self.hints.drain(..) {
                ensure!(hint != Hint::Lost, "the listener's receive buffer was too small");
                awaited = take_in(&hint);
                if awaited.is_none() {
                    return Ok(heard);
                }
            }
        }
    }

    /// Waits until the state is `expected`, by dumps.
    pub(crate) fn wait_state(&mut self, expected: &State) -> Result<()> {
        wait::until_ok(wait::LONG, "the node's kernel state as it was", || {
            let state = self.state()?;
            let different = state
                .iter()
                .find(|(key, object)| expected.get(key) != Some(object))
                .map(|(key, object)| format!("{key} is {object}"))
                .or_else(|| {
                    expected
                        .keys()
                        .find(|key| !state.contains_key(key))
                        .map(|key| format!("no {key}"))
                });
            different.map_or(Ok(()), |text| Err(anyhow!(text)))
        })
        .context("the repair is not complete")
    }
}

/// How long something took, from its beginning.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timing {
    /// Until the system calls that began it returned.
    pub(crate) work: Duration,
    /// Until the kernel told that its consequences are complete.
    pub(crate) total: Duration,
}

/// Without the interface index: a device that is made anew has another.
fn comparable(mut object: Object) -> Object {
    if let Object::Link(link) = &mut object {
        link.index = 0;
    }
    object
}
