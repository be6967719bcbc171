//! Traffic over a road: streams that send as much as they can, and a byte that goes to and fro.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use nix::time::{ClockId, clock_gettime};
use routelet_lab::wait;

use super::roads::Road;
use crate::agent::pause;
use crate::report::MIB;
use crate::statistics::{Samples, micros};

/// Bytes of one write or read.
const BUFFER: usize = 128 << 10;
/// Until a stream has found its pace.
const WARM_UP: Duration = Duration::from_millis(200);
/// Round trips before the first that counts.
const WARM_UP_TRIPS: usize = 200;

/// What went over streams in a while.
#[derive(Debug)]
pub(crate) struct Stream {
    bytes: u64,
    time: Duration,
    /// CPU time of this process: of senders and receivers, and of what the kernel does in their name, which on a road of
    /// veths is the whole way.
    cpu: Duration,
}

impl Stream {
    pub(crate) fn gigabits_per_second(&self) -> f64 {
        self.bytes as f64 * 8.0 / 1e9 / self.time.as_secs_f64()
    }

    pub(crate) fn cpu_micros_per_mib(&self) -> f64 {
        micros(self.cpu) / (self.bytes as f64 / MIB)
    }
}

/// Sends over so many connections for a while. What counts has arrived.
pub(crate) fn stream(road: &Road, streams: usize, time: Duration) -> Result<Stream> {
    let pairs: Vec<_> = (0..streams).map(|_| connect(road)).collect::<Result<_>>()?;
    let (arrived, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        let mut threads = Vec::new();
        for (from, to) in pairs {
            let (arrived, stop) = (&arrived, &stop);
            threads.push(scope.spawn(move || send(from, stop)));
            threads.push(scope.spawn(move || receive(to, arrived)));
        }
        pause(WARM_UP);
        let (began, cpu, bytes) = (Instant::now(), process_time(), arrived.load(Ordering::Relaxed));
        pause(time);
        let (took, cpu_then, bytes_then) = (began.elapsed(), process_time(), arrived.load(Ordering::Relaxed));
        stop.store(true, Ordering::Relaxed);
        for thread in threads {
            thread.join().map_err(|_| anyhow!("a thread panicked"))??;
        }
        Ok(Stream {
            bytes: bytes_then - bytes,
            time: took,
            cpu: cpu_then?.saturating_sub(cpu?),
        })
    })
}

/// Sends until it is stopped, or the receiver has gone.
fn send(mut stream: TcpStream, stop: &AtomicBool) -> Result<()> {
    let buffer = vec![0; BUFFER];
    while !stop.load(Ordering::Relaxed) {
        stream.write_all(&buffer).context("sending")?;
    }
    Ok(())
}

/// Receives until the sender has ended.
fn receive(mut stream: TcpStream, arrived: &AtomicU64) -> Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        match stream.read(&mut buffer).context("receiving")? {
            0 => return Ok(()),
            bytes => _ = arrived.fetch_add(bytes as u64, Ordering::Relaxed),
        }
    }
}

/// Sends a byte there and back so many times, and says how long each took.
pub(crate) fn trips(road: &Road, count: usize) -> Result<Samples> {
    let (mut near, mut far) = connect(road)?;
    for end in [&near, &far] {
        end.set_nodelay(true)?;
    }
    thread::scope(|scope| {
        let echo = scope.spawn(move || -> Result<()> {
            let mut byte = [0];
            loop {
                match far.read_exact(&mut byte) {
                    Ok(()) => far.write_all(&byte).context("answering")?,
                    Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(()),
                    Err(error) => return Err(error).context("waiting for the byte"),
                }
            }
        });
        let mut samples = Samples::default();
        let mut byte = [1];
        for trip in 0..WARM_UP_TRIPS + count {
            let began = Instant::now();
            near.write_all(&byte).context("sending the byte")?;
            near.read_exact(&mut byte).context("waiting for the answer")?;
            if trip >= WARM_UP_TRIPS {
                samples.push(began.elapsed());
            }
        }
        drop(near);
        echo.join().map_err(|_| anyhow!("a thread panicked"))??;
        Ok(samples)
    })
}

/// Both ends of a connection. A stall is an error.
fn connect(road: &Road) -> Result<(TcpStream, TcpStream)> {
    let address = road.address;
    let listener = road.to.run(|| TcpListener::bind((address, 0)))??;
    let target = listener.local_addr()?;
    let near = road
        .from
        .run(|| TcpStream::connect_timeout(&target, wait::LONG))?
        .with_context(|| format!("connecting to {target}"))?;
    let (far, _) = listener.accept()?;
    for end in [&near, &far] {
        end.set_read_timeout(Some(wait::LONG))?;
        end.set_write_timeout(Some(wait::LONG))?;
    }
    Ok((near, far))
}

fn process_time() -> Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID)?.into())
}
