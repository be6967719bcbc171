//! Network namespaces without a name: each lives as long as something holds it, a descriptor here or a process
//! in it, and vanishes with the last. No mount, no file, nothing to clean up.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use nix::sched::{CloneFlags, setns, unshare};

use crate::{Error, Setup};

/// The calling thread's namespace. (/proc/self is the process' first thread, which may be elsewhere.)
const OF_THIS_THREAD: &str = "/proc/thread-self/ns/net";

/// A network namespace, held by an open descriptor. Clones hold the same namespace.
#[derive(Debug, Clone)]
pub struct Netns {
    fd: Arc<OwnedFd>,
}

impl Netns {
    /// Makes a namespace, with `lo` up in it. Needs CAP_SYS_ADMIN.
    pub fn new() -> Result<Self, Error> {
        on_a_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET)
                .map_err(|e| Error::io("making a network namespace (needs CAP_SYS_ADMIN)")(e.into()))?;
            Setup::open()?.set_up("lo")?;
            Self::current()
        })?
    }

    /// The namespace of the calling thread.
    pub fn current() -> Result<Self, Error> {
        Self::open(OF_THIS_THREAD)
    }

    /// The namespace behind a file: /proc/PID/ns/net, or what a container runtime bind-mounted.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let file = File::open(path).map_err(Error::io(format!(
            "opening the network namespace {}",
            path.display()
        )))?;
        Ok(Self {
            fd: Arc::new(file.into()),
        })
    }

    /// Runs `work` on a thread of its own inside the namespace and waits for it; a panic goes on in the caller.
    ///
    /// Sockets opened and processes spawned there belong to the namespace, also afterwards, and /proc/sys/net is
    /// the namespace's. Processes that shall not outlive this one are for [`Netns::spawn`].
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, Error> {
        on_a_thread(|| {
            self.enter()?;
            Ok(work())
        })?
    }

    /// Spawns a process inside the namespace that the kernel kills (SIGKILL) when this process ends, however
    /// that comes about.
    pub fn spawn(&self, command: Command) -> Result<Child, Error> {
        let what = format!("starting {}", Path::new(command.get_program()).display());
        let (reply, answer) = mpsc::channel();
        let order = Order {
            netns: self.clone(),
            command,
            reply,
        };
        let spawned = match spawner()?.send(order) {
            Ok(()) => answer
                .recv()
                .unwrap_or_else(|_| Err(io::ErrorKind::BrokenPipe.into())),
            Err(_) => Err(io::ErrorKind::BrokenPipe.into()),
        };
        spawned.map_err(Error::io(what))
    }

    /// The descriptor.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// A path by which other processes find the namespace while this one holds it, as for `nsenter --net=PATH`.
    pub fn path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", std::process::id(), self.fd.as_raw_fd()).into()
    }

    fn enter(&self) -> Result<(), Error> {
        setns(&self.fd, CloneFlags::CLONE_NEWNET)
            .map_err(|e| Error::io("entering a network namespace (needs CAP_SYS_ADMIN)")(e.into()))
    }
}

/// Runs `work` on a thread of its own, so that no other work ever finds itself in another namespace.
fn on_a_thread<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, Error> {
    thread::scope(|scope| {
        let thread = thread::Builder::new()
            .name("netns".to_owned())
            .spawn_scoped(scope, work)
            .map_err(Error::io("starting a thread"))?;
        thread.join().or_else(|panic| resume_unwind(panic))
    })
}

/// A process to be spawned.
struct Order {
    netns: Netns,
    command: Command,
    reply: Sender<io::Result<Child>>,
}

/// The thread that spawns. PR_SET_PDEATHSIG means the parent *thread*: a process spawned by a thread of
/// [`Netns::run`] would die as soon as that thread has ended. This one ends with the process.
fn spawner() -> Result<Sender<Order>, Error> {
    static SPAWNER: Mutex<Option<Sender<Order>>> = Mutex::new(None);
    let mut spawner = SPAWNER.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(sender) = &*spawner {
        return Ok(sender.clone());
    }
    let home = Netns::open("/proc/self/ns/net")?;
    let (sender, orders) = mpsc::channel::<Order>();
    thread::Builder::new()
        .name("spawner".to_owned())
        .spawn(move || {
            // Between orders it is at home, so as to hold no namespace that has been dropped: the thread begins in
            // that of who asked first.
            let go_home = || setns(&home.fd, CloneFlags::CLONE_NEWNET);
            let _ = go_home();
            for Order {
                netns,
                command,
                reply,
            } in orders
            {
                let entered = setns(&netns.fd, CloneFlags::CLONE_NEWNET).map_err(io::Error::from);
                let child = entered.and_then(|()| spawn_dying_with_parent(command));
                let _ = go_home();
                drop(netns);
                // Who asked waits for the answer.
                let _ = reply.send(child);
            }
        })
        .map_err(Error::io("starting a thread"))?;
    Ok(spawner.insert(sender).clone())
}

#[expect(unsafe_code, reason = "prctl in the child, between fork and exec")]
#[expect(
    clippy::disallowed_methods,
    reason = "for the lab, which starts agents and API servers"
)]
fn spawn_dying_with_parent(mut command: Command) -> io::Result<Child> {
    use std::os::unix::process::CommandExt;

    let parent = nix::unistd::getpid();
    let ask_for_signal = move || {
        nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
        // A parent that died before the prctl sends no signal any more.
        if nix::unistd::getppid() == parent {
            Ok(())
        } else {
            Err(nix::errno::Errno::ESRCH.into())
        }
    };
    // SAFETY: the closure makes two system calls, and neither allocates nor takes a lock, as is asked of code
    // between fork and exec in a process of many threads.
    unsafe { command.pre_exec(ask_for_signal) };
    command.spawn()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::{BufRead, BufReader, Read};
    use std::net::{TcpListener, TcpStream};
    use std::process::Stdio;

    use super::*;

    fn id(netns: &Netns) -> u64 {
        use std::os::unix::fs::MetadataExt;
        fs::metadata(netns.path()).unwrap().ino()
    }

    #[test]
    fn a_namespace_is_new_and_lo_is_up() {
        let netns = Netns::new().unwrap();
        assert_ne!(
            id(&netns),
            id(&Netns::current().unwrap()),
            "the caller stays where it was"
        );
        netns
            .run(|| {
                assert_eq!(id(&Netns::current().unwrap()), id(&netns));
                let listener = TcpListener::bind("127.0.0.1:0").unwrap();
                TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            })
            .unwrap();
    }

    #[test]
    fn sysctls_and_sockets_are_the_namespaces() {
        let [a, b] = [Netns::new().unwrap(), Netns::new().unwrap()];
        a.run(|| fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap())
            .unwrap();
        b.run(|| fs::write("/proc/sys/net/ipv4/ip_forward", "0").unwrap())
            .unwrap();
        let read = || fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap();
        assert_eq!(a.run(read).unwrap().trim(), "1");
        assert_eq!(b.run(read).unwrap().trim(), "0");

        let listener = a.run(|| TcpListener::bind("127.0.0.1:0").unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        assert!(b.run(|| TcpStream::connect(address)).unwrap().is_err());
        assert!(a.run(|| TcpStream::connect(address)).unwrap().is_ok());
    }

    #[test]
    #[should_panic(expected = "told in the namespace")]
    fn a_panic_goes_on_in_the_caller() {
        let _ = Netns::new().unwrap().run(|| panic!("told in the namespace"));
    }

    #[test]
    fn a_spawned_process_is_in_the_namespace_and_outlives_the_asking_thread() {
        let netns = Netns::new().unwrap();
        let mut child = thread::scope(|scope| {
            let ask = || {
                let mut command = Command::new("sh");
                command.args(["-c", "readlink /proc/self/ns/net; read line; echo $line"]);
                command.stdin(Stdio::piped()).stdout(Stdio::piped());
                netns.spawn(command).unwrap()
            };
            scope.spawn(ask).join().unwrap()
        });
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        assert_eq!(line.trim(), format!("net:[{}]", id(&netns)));

        use std::io::Write;
        child.stdin.take().unwrap().write_all(b"alive\n").unwrap();
        line.clear();
        stdout.read_to_string(&mut line).unwrap();
        assert_eq!(line.trim(), "alive");
        assert!(child.wait().unwrap().success());
    }

    #[test]
    fn what_cannot_be_started_is_named() {
        let error = Netns::new()
            .unwrap()
            .spawn(Command::new("/no/such/program"))
            .unwrap_err();
        assert!(error.to_string().contains("/no/such/program"), "{error}");
    }

    #[test]
    fn nothing_holds_a_namespace_that_was_dropped() {
        let [netns, far] = [Netns::new().unwrap(), Netns::new().unwrap()];
        let mut setup = Setup::open_in(&netns).unwrap();
        let ends = ["a0", "b0"].map(|name| crate::setup::VethEnd {
            name,
            ..Default::default()
        });
        setup.add_veth(ends[0], ends[1], &far).unwrap();
        // Also not the thread that spawns, be it started from inside.
        let mut child = far.run(|| far.spawn(Command::new("true"))).unwrap().unwrap();
        assert!(child.wait().unwrap().success());
        drop(far);
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
        while setup.link("a0").unwrap().is_some() {
            assert!(
                std::time::Instant::now() < deadline,
                "the veth goes with the far end's namespace"
            );
            thread::yield_now();
        }
    }
}
