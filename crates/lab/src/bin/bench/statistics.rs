//! Medians and percentiles of durations, and how durations are taken.

use std::time::{Duration, Instant};

use anyhow::Result;
use nix::time::{ClockId, clock_gettime};

/// Durations of one thing that was measured more than once.
#[derive(Debug, Clone, Default)]
pub(crate) struct Samples(Vec<Duration>);

impl Samples {
    /// Adds those of another run.
    pub(crate) fn append(&mut self, mut other: Self) {
        self.0.append(&mut other.0);
    }

    pub(crate) fn push(&mut self, sample: Duration) {
        self.0.push(sample);
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The value that the given share of the samples does not exceed (nearest rank); zero without any.
    pub(crate) fn percentile(&self, share: f64) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let rank = (share * sorted.len() as f64).ceil() as usize;
        sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
    }

    /// The 99th percentile; `None` of so few samples that it would be their maximum.
    pub(crate) fn p99(&self) -> Option<Duration> {
        (self.0.len() >= 100).then(|| self.percentile(0.99))
    }

    pub(crate) fn median(&self) -> Duration {
        self.percentile(0.5)
    }

    pub(crate) fn max(&self) -> Duration {
        self.percentile(1.0)
    }
}

/// A stopwatch for work of the calling thread. The kernel works a batch off, or a dump, in the thread that asks for
/// it, so that CPU time leaves nothing out but what others do to a machine that is not idle.
#[derive(Debug)]
pub(crate) struct Watch {
    wall: Instant,
    cpu: Duration,
}

/// What a piece of work took.
#[derive(Debug, Clone, Default)]
pub(crate) struct Took {
    pub(crate) wall: Samples,
    pub(crate) cpu: Samples,
}

impl Watch {
    pub(crate) fn start() -> Result<Self> {
        Ok(Self {
            cpu: process_time()?,
            wall: Instant::now(),
        })
    }

    pub(crate) fn stop(self, took: &mut Took) -> Result<()> {
        took.wall.push(self.wall.elapsed());
        took.cpu.push(process_time()?.saturating_sub(self.cpu));
        Ok(())
    }
}

fn process_time() -> Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID)?.into())
}

/// In milliseconds.
pub(crate) fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// In microseconds.
pub(crate) fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_by_nearest_rank() {
        let mut samples = Samples::default();
        assert_eq!(samples.median(), Duration::ZERO);
        for number in (1..=200).rev() {
            samples.push(Duration::from_micros(number));
        }
        let micros = |share| samples.percentile(share).as_micros();
        assert_eq!((micros(0.5), micros(0.99), micros(1.0)), (100, 198, 200));
        assert_eq!(samples.p99(), Some(Duration::from_micros(198)));
        assert_eq!(Samples(vec![Duration::ZERO; 99]).p99(), None);
    }
}
