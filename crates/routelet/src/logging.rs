//! Logs: one line per event, for people or for machines.
//!
//! They go to standard error. Standard output belongs to what a subcommand was asked for, so that it can be
//! piped, and `kubectl logs` shows both.

use std::fmt;
use std::io::{self, IsTerminal};
use std::str::FromStr;

use clap::ValueEnum;
use tracing::Level;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

use crate::log_level::LogControl;

/// Format of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// Time in UTC, level, module, message, fields.
    Text,
    /// One JSON object per line: `timestamp`, `level`, `target`, `message`, and the fields beside them.
    Json,
}

/// What is logged: a level for the agent, and levels for single modules and libraries.
#[derive(Debug, Clone)]
pub(crate) struct LogFilter {
    /// As it was given.
    text: String,
    targets: Targets,
    /// The most that any target logs.
    most_verbose: LevelFilter,
}

/// As it was given.
impl fmt::Display for LogFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl LogFilter {
    /// The same for tracing.
    pub(crate) fn targets(&self) -> &Targets {
        &self.targets
    }

    /// The most that any target logs, for libraries that use `log`.
    pub(crate) fn most_verbose(&self) -> log::LevelFilter {
        match self.most_verbose.into_level() {
            None => log::LevelFilter::Off,
            Some(Level::ERROR) => log::LevelFilter::Error,
            Some(Level::WARN) => log::LevelFilter::Warn,
            Some(Level::INFO) => log::LevelFilter::Info,
            Some(Level::DEBUG) => log::LevelFilter::Debug,
            Some(Level::TRACE) => log::LevelFilter::Trace,
        }
    }
}

/// Modules of the agent: `routelet` and all crates whose name begins so.
const OWN: &str = "routelet";

/// Libraries whose trouble the agent tells itself, in its own words and once, and the level they keep.
const QUIET: [(&str, LevelFilter); 2] = [
    // Each failed request and each failed watch is told by the watcher.
    ("kube_client", LevelFilter::OFF),
    // Warns at every dump of links that have an attribute it doesn't know.
    ("netlink_packet_route", LevelFilter::ERROR),
];

impl FromStr for LogFilter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut level = LevelFilter::INFO;
        let mut asked_for = Vec::new();
        for part in text.split(',') {
            match part.split_once('=') {
                None => level = parse_level(part)?,
                Some(("", _)) => return Err(format!("{part:?} names no target: TARGET=LEVEL is wanted")),
                Some((target, level)) => asked_for.push((target.to_owned(), parse_level(level)?)),
            }
        }
        let quiet = QUIET.map(|(target, most)| (target.to_owned(), most.min(level)));
        let levels = asked_for.iter().map(|(_, level)| *level);
        let most_verbose = levels.fold(level, LevelFilter::max);
        let targets = Targets::new()
            .with_default(level.min(LevelFilter::WARN))
            .with_target(OWN, level)
            .with_targets(quiet)
            .with_targets(asked_for);
        Ok(Self {
            text: text.to_owned(),
            targets,
            most_verbose,
        })
    }
}

fn parse_level(text: &str) -> Result<LevelFilter, String> {
    // tracing takes numbers and the empty text for levels, too.
    let named = text.bytes().all(|b| b.is_ascii_alphabetic()) && !text.is_empty();
    text.parse()
        .ok()
        .filter(|_| named)
        .ok_or_else(|| format!("{text:?} is no level: one of off, error, warn, info, debug, trace is wanted"))
}

/// Sends the log of the whole program to standard error, that of libraries which use `log` included. Fails
/// where that was done before.
pub(crate) fn init(format: LogFormat, filter: LogFilter) -> Result<LogControl, TryInitError> {
    let colours =
        io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let (control, filter) = LogControl::new(filter);
    tracing_subscriber::registry()
        .with(layer(format, colours, io::stderr).with_filter(filter))
        .try_init()?;
    Ok(control)
}

fn layer<S, W>(format: LogFormat, colours: bool, writer: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: tracing::Subscriber + for<'a> LookupSpan<'a>,
    W: for<'w> tracing_subscriber::fmt::MakeWriter<'w> + Send + Sync + 'static,
{
    // Of a line that can't be written, tracing would tell on standard error, and panic where that is what
    // can't be written to: the agent outlives whoever reads its log.
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(writer)
        .with_ansi(colours)
        .log_internal_errors(false);
    match format {
        LogFormat::Text => layer.compact().boxed(),
        LogFormat::Json => layer
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .boxed(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    fn enabled(filter: &str, target: &str, level: Level) -> bool {
        filter
            .parse::<LogFilter>()
            .unwrap()
            .targets
            .would_enable(target, &level)
    }

    #[test]
    fn a_level_is_for_the_agent_and_libraries_stay_quiet() {
        assert!(enabled("info", "routelet", Level::INFO));
        assert!(enabled("debug", "routelet_watcher::pods", Level::DEBUG));
        assert!(!enabled("info", "routelet_watcher::pods", Level::DEBUG));
        assert!(enabled("trace", "hyper", Level::WARN));
        assert!(!enabled("trace", "hyper", Level::INFO));
        assert!(!enabled("trace", "kube_client::client::builder", Level::ERROR));
        assert!(!enabled("trace", "netlink_packet_route::link", Level::WARN));
        assert!(!enabled("error", "hyper", Level::WARN));
        assert!(!enabled("off", "routelet", Level::ERROR));
    }

    #[test]
    fn a_target_overrides_what_is_true_of_the_rest() {
        let filter = "warn,routelet_netlink=trace,kube_client=debug";
        assert!(enabled(filter, "routelet_netlink::batch", Level::TRACE));
        assert!(!enabled(filter, "routelet_planner", Level::INFO));
        assert!(enabled(filter, "kube_client::client", Level::DEBUG));
        // A target alone leaves the agent at its default.
        assert!(enabled("kube_client=debug", "routelet", Level::INFO));
    }

    #[test]
    fn what_is_no_filter_is_refused() {
        for filter in [
            "",
            "infoo",
            "3",
            "info,",
            "routelet=",
            "=info",
            "routelet=loud",
            "a=b=info",
        ] {
            assert!(filter.parse::<LogFilter>().is_err(), "{filter:?}");
        }
    }

    /// What a layer writes of one event.
    fn written(format: LogFormat) -> String {
        #[derive(Clone, Default)]
        struct Sink(Arc<Mutex<Vec<u8>>>);
        impl io::Write for Sink {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.lock().unwrap().extend_from_slice(bytes);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let sink = Sink::default();
        let writer = sink.clone();
        let subscriber = tracing_subscriber::registry().with(layer(format, false, move || writer.clone()));
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(target: "routelet", node = "node-2", "peer added");
        });
        String::from_utf8(sink.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn text_is_one_line_without_colours() {
        let line = written(LogFormat::Text);
        assert!(
            line.ends_with(" INFO routelet: peer added node=\"node-2\"\n"),
            "{line:?}"
        );
        assert!(
            line.split(' ').next().unwrap().ends_with('Z'),
            "not in UTC: {line:?}"
        );
    }

    #[test]
    fn json_has_the_fields_beside_the_message() {
        let event: serde_json::Value = serde_json::from_str(&written(LogFormat::Json)).unwrap();
        assert_eq!(event["message"], "peer added");
        assert_eq!(event["node"], "node-2");
        assert_eq!(event["level"], "INFO");
        assert_eq!(event["target"], "routelet");
        assert!(event["timestamp"].is_string());
    }
}
