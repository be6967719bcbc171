//! One agent per network namespace.
//!
//! Two would undo each other's work. The lock is a Unix socket of the abstract kind: such a name belongs to a
//! network namespace, as the routes do, and the kernel frees it however its holder dies.

use std::io;
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, UnixAddr, connect, getsockopt, socket, sockopt::PeerCredentials,
};

/// Name of the socket, shown as `@routelet/agent` by `ss -xl`.
const NAME: &[u8] = b"routelet/agent";

/// The right to run in this network namespace, for as long as it is held.
#[derive(Debug)]
pub(crate) struct Instance {
    _listener: UnixListener,
}

/// Why the right could not be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InstanceError {
    /// Someone else has it.
    #[error("another routelet agent already runs in this network namespace{}: stop it first", process(.pid))]
    AlreadyRuns {
        /// Process id of the holder; `None` where it can't be seen from here (another PID namespace).
        pid: Option<i32>,
    },
    /// The socket could not be made.
    #[error("cannot bind the socket @routelet/agent that keeps a second agent from running")]
    Bind(#[source] io::Error),
}

fn process(pid: &Option<i32>) -> String {
    pid.map(|pid| format!(" (process {pid})")).unwrap_or_default()
}

impl Instance {
    /// Takes the right to run in the calling thread's network namespace.
    pub(crate) fn acquire() -> Result<Self, InstanceError> {
        let address = SocketAddr::from_abstract_name(NAME).map_err(InstanceError::Bind)?;
        match UnixListener::bind_addr(&address) {
            Ok(listener) => Ok(Self { _listener: listener }),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                Err(InstanceError::AlreadyRuns { pid: holder() })
            }
            Err(error) => Err(InstanceError::Bind(error)),
        }
    }
}

/// Process id of the lock's holder. The holder accepts no connections, so the attempt must not wait for room
/// in its queue.
fn holder() -> Option<i32> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None).ok()?;
    connect(socket.as_raw_fd(), &UnixAddr::new_abstract(NAME).ok()?).ok()?;
    let pid = getsockopt(&socket, PeerCredentials).ok()?.pid();
    (pid > 0).then_some(pid)
}

#[cfg(test)]
mod tests {
    use std::thread;

    use nix::sched::{CloneFlags, unshare};

    use super::*;

    /// Runs `test` on a thread in a network namespace of its own.
    fn in_fresh_namespace(test: impl FnOnce() + Send + 'static) {
        let thread = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("needs root");
            test();
        });
        thread.join().unwrap();
    }

    #[test]
    fn a_second_one_is_refused_and_told_the_first_ones_process() {
        in_fresh_namespace(|| {
            let _first = Instance::acquire().unwrap();
            let error = Instance::acquire().unwrap_err();
            assert_eq!(
                error.to_string(),
                format!(
                    "another routelet agent already runs in this network namespace (process {}): stop it first",
                    std::process::id()
                )
            );
        });
    }

    #[test]
    fn many_refused_ones_do_not_block_the_next() {
        in_fresh_namespace(|| {
            let _first = Instance::acquire().unwrap();
            // More than the listener's queue holds.
            for _ in 0..10_000 {
                assert!(matches!(
                    Instance::acquire(),
                    Err(InstanceError::AlreadyRuns { .. })
                ));
            }
        });
    }

    #[test]
    fn is_free_again_once_dropped() {
        in_fresh_namespace(|| {
            drop(Instance::acquire().unwrap());
            Instance::acquire().unwrap();
        });
    }

    #[test]
    fn namespaces_do_not_see_each_other() {
        in_fresh_namespace(|| {
            let _first = Instance::acquire().unwrap();
            in_fresh_namespace(|| {
                Instance::acquire().unwrap();
            });
        });
    }
}
