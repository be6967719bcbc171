//! The listener: a thread of its own that accepts connections, can refuse them, stop and come back.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, mpsc as reply};
use std::thread::JoinHandle;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::{Shared, http};

/// A running server. It ends when this is dropped; the objects stay with the [`Api`](super::Api).
pub struct Server {
    address: SocketAddr,
    commands: Option<mpsc::UnboundedSender<Call>>,
    thread: Option<JoinHandle<()>>,
}

/// A command, and where its caller waits for the outcome.
type Call = (Command, reply::Sender<io::Result<()>>);

#[derive(Clone, Copy)]
enum Command {
    Start,
    Refuse,
    Stop,
}

impl Server {
    /// Serves on `listener` from a new thread. The thread is in the network namespace of the caller, and it is there
    /// that [`Server::start`] listens again.
    pub(crate) fn spawn(shared: Arc<Shared>, listener: TcpListener) -> io::Result<Server> {
        let address = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let listener = {
            let _context = runtime.enter();
            adopt(listener)?
        };
        let (commands, mut inbox) = mpsc::unbounded_channel::<Call>();
        let serve = move || {
            runtime.block_on(async move {
                let mut listening = Listening {
                    shared,
                    address,
                    listener: Some(listener),
                    open: JoinSet::new(),
                };
                loop {
                    tokio::select! {
                        command = inbox.recv() => {
                            let Some((command, reply)) = command else { break };
                            let _caller_gone = reply.send(listening.obey(command).await);
                        }
                        connection = listening.accept() => listening.serve(connection),
                    }
                }
            });
        };
        let thread = std::thread::Builder::new()
            .name("lab-api".to_owned())
            .spawn(serve)?;
        Ok(Server {
            address,
            commands: Some(commands),
            thread: Some(thread),
        })
    }

    /// Where it listens, or listened.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://address`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Closes the listener: new connections are refused, open ones live on.
    ///
    /// # Errors
    /// Only if the server's thread is gone.
    pub fn refuse(&self) -> io::Result<()> {
        self.send(Command::Refuse)
    }

    /// Closes the listener and all connections, as a server that dies.
    ///
    /// # Errors
    /// Only if the server's thread is gone.
    pub fn stop(&self) -> io::Result<()> {
        self.send(Command::Stop)
    }

    /// Listens again on the same address, after [`Server::refuse`] or [`Server::stop`].
    ///
    /// # Errors
    /// The address cannot be bound in the network namespace in which the server was made.
    pub fn start(&self) -> io::Result<()> {
        self.send(Command::Start)
    }

    fn send(&self, command: Command) -> io::Result<()> {
        let gone = || io::Error::other("the API server's thread has ended");
        let (reply, done) = reply::channel();
        self.commands
            .as_ref()
            .ok_or_else(gone)?
            .send((command, reply))
            .map_err(|_| gone())?;
        done.recv().map_err(|_| gone())?
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.commands = None; // the thread ends when its commands do
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

/// The server's thread's own state.
struct Listening {
    shared: Arc<Shared>,
    address: SocketAddr,
    listener: Option<tokio::net::TcpListener>,
    open: JoinSet<()>,
}

impl Listening {
    async fn accept(&mut self) -> Option<TcpStream> {
        match &self.listener {
            Some(listener) => listener.accept().await.ok().map(|(connection, _)| connection),
            None => std::future::pending().await,
        }
    }

    fn serve(&mut self, connection: Option<TcpStream>) {
        while self.open.try_join_next().is_some() {} // those that have ended
        let Some(connection) = connection else { return };
        let _best_effort = connection.set_nodelay(true); // an event must not wait for an ACK
        self.shared.tally.update(|counters| counters.connections += 1);
        let shared = Arc::clone(&self.shared);
        let service = service_fn(move |request| http::answer(Arc::clone(&shared), request));
        let connection = http1::Builder::new().serve_connection(TokioIo::new(connection), service);
        self.open.spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection closed");
            }
        });
    }

    async fn obey(&mut self, command: Command) -> io::Result<()> {
        match command {
            Command::Start if self.listener.is_none() => {
                self.listener = Some(adopt(TcpListener::bind(self.address)?)?);
            }
            Command::Start => {}
            Command::Refuse => self.listener = None,
            Command::Stop => {
                self.listener = None;
                self.open.shutdown().await;
            }
        }
        Ok(())
    }
}

fn adopt(listener: TcpListener) -> io::Result<tokio::net::TcpListener> {
    listener.set_nonblocking(true)?;
    tokio::net::TcpListener::from_std(listener)
}
