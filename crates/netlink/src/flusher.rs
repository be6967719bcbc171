//! Forgets flows on a thread of its own: the kernel walks its whole table for it, which takes tens of milliseconds
//! however few flows there are. What is ordered meanwhile is done together afterwards.

use std::net::IpAddr;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::{Error, flush_flows};

/// What came of forgetting flows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flushed {
    /// The addresses whose flows were to be forgotten.
    pub addresses: Vec<IpAddr>,
    /// How many flows were forgotten, or why not all of them were.
    pub result: Result<usize, String>,
}

/// The thread, and the way to it and back.
#[derive(Debug)]
pub(crate) struct Flusher {
    /// `None` until the first order.
    orders: Option<Sender<Vec<IpAddr>>>,
    results: UnboundedReceiver<Flushed>,
    /// For the thread, and for what cannot even be ordered.
    tell: UnboundedSender<Flushed>,
    /// Taken from `results` by a wait.
    arrived: Vec<Flushed>,
}

impl Flusher {
    pub(crate) fn new() -> Self {
        let (tell, results) = unbounded_channel();
        Self {
            orders: None,
            results,
            tell,
            arrived: Vec::new(),
        }
    }

    /// Has the flows of the addresses forgotten, in the network namespace of the thread that orders it first.
    pub(crate) fn order(&mut self, addresses: Vec<IpAddr>) {
        let sent = self.start().and_then(|orders| {
            orders
                .send(addresses.clone())
                .map_err(|_| Error::io("forgetting flows")(std::io::ErrorKind::BrokenPipe.into()))
        });
        if let Err(error) = sent {
            self.orders = None;
            self.arrived.push(Flushed {
                addresses,
                result: Err(error.to_string()),
            });
        }
    }

    fn start(&mut self) -> Result<&Sender<Vec<IpAddr>>, Error> {
        let started = match self.orders.take() {
            Some(orders) => orders,
            None => {
                let (orders, taken) = mpsc::channel();
                let tell = self.tell.clone();
                thread::Builder::new()
                    .name("flows".to_owned())
                    .spawn(move || work(&taken, &tell))
                    .map_err(Error::io("starting a thread"))?;
                orders
            }
        };
        Ok(self.orders.insert(started))
    }

    /// Takes what has come of the orders.
    pub(crate) fn take(&mut self) -> impl Iterator<Item = Flushed> {
        while let Ok(result) = self.results.try_recv() {
            self.arrived.push(result);
        }
        self.arrived.drain(..)
    }

    /// Waits until there is something to take. May be dropped at any time.
    pub(crate) async fn ready(&mut self) {
        if self.arrived.is_empty() {
            // `tell` is never dropped before.
            self.arrived.extend(self.results.recv().await);
        }
    }
}

fn work(orders: &Receiver<Vec<IpAddr>>, tell: &UnboundedSender<Flushed>) {
    while let Ok(mut addresses) = orders.recv() {
        addresses.extend(orders.try_iter().flatten());
        let result = flush_flows(&addresses).map_err(|error| error.to_string());
        if tell.send(Flushed { addresses, result }).is_err() {
            return;
        }
    }
}
