//! Traffic from pod to pod, across nodes and on one: over what the agents have set up, over the same without the nft
//! table, and over a network of the same devices that is made by hand. The three take turns in each round, so that what
//! else the machine does meets them alike.

mod devices;
mod figures;
mod roads;
mod traffic;

use anyhow::{Context, Result, ensure};
use figures::Rounds;
use roads::{HandMade, Network, Routelet};

use crate::Plan;
use crate::report::{Cell, Report, Table, Target};

/// Streams at once, where it is not one.
const STREAMS: usize = 4;

/// In the order of the table's columns; the last one is what the others are held against.
const NETWORKS: usize = 3;
const HAND_MADE: usize = NETWORKS - 1;

/// Columns of the figures. A spread is the difference between the best and the worst round, in percent of the median. A
/// ratio is the median of those of each round.
const COLUMNS: [&str; 9] = [
    "what",
    "routelet",
    "routelet spread %",
    "no nft table",
    "no nft table spread %",
    "hand-made",
    "hand-made spread %",
    "routelet / hand-made",
    "no nft table / hand-made",
];

/// Where from and where to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    AcrossNodes,
    OnOneNode,
}

impl Way {
    const ALL: [Self; 2] = [Self::AcrossNodes, Self::OnOneNode];

    fn as_str(self) -> &'static str {
        match self {
            Self::AcrossNodes => "across nodes",
            Self::OnOneNode => "on one node",
        }
    }
}

/// What is measured of a way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Figure {
    OneStream,
    OneStreamCpu,
    Streams,
    StreamsCpu,
    TripMedian,
    TripP99,
}

impl Figure {
    const ALL: [Self; 6] = [
        Self::OneStream,
        Self::OneStreamCpu,
        Self::Streams,
        Self::StreamsCpu,
        Self::TripMedian,
        Self::TripP99,
    ];

    fn name(self) -> String {
        match self {
            Self::OneStream => "1 stream, Gbit/s".to_owned(),
            Self::OneStreamCpu => "1 stream, CPU µs per MiB".to_owned(),
            Self::Streams => format!("{STREAMS} streams, Gbit/s"),
            Self::StreamsCpu => format!("{STREAMS} streams, CPU µs per MiB"),
            Self::TripMedian => "round trip of a byte, p50 µs".to_owned(),
            Self::TripP99 => "round trip of a byte, p99 µs".to_owned(),
        }
    }

    /// Of a rate, more is better; of all else, less.
    fn is_rate(self) -> bool {
        matches!(self, Self::OneStream | Self::Streams)
    }

    /// Whether there is a target: the 99th percentile and the CPU time say why, not how much.
    fn has_target(self) -> bool {
        matches!(self, Self::OneStream | Self::Streams | Self::TripMedian)
    }
}

/// The rounds of each network, by way and figure.
#[derive(Debug, Default)]
struct Outcome([[[Rounds; NETWORKS]; Figure::ALL.len()]; Way::ALL.len()]);

pub(crate) fn measure(plan: &Plan, report: &mut Report) -> Result<()> {
    let routelet = Routelet::new(true).context("the network of the agents")?;
    let no_table = Routelet::new(false).context("the network of the agents, without the nft table")?;
    let hand_made = HandMade::new().context("the network that is made by hand")?;
    let networks: [&Network; NETWORKS] = [&routelet.network, &no_table.network, &hand_made.network];
    let devices = devices::compare(networks)?;

    let mut outcome = Outcome::default();
    for round in 0..plan.overlay_rounds {
        for way in Way::ALL {
            // Not always the same one first.
            for turn in 0..NETWORKS {
                let which = (round + turn) % NETWORKS;
                outcome
                    .round(plan, way, which, networks[which])
                    .with_context(|| format!("{}, {}", COLUMNS[1 + 2 * which], way.as_str()))?;
            }
        }
    }
    outcome.tell(report);
    report.table(devices);
    Ok(())
}

impl Outcome {
    fn round(&mut self, plan: &Plan, way: Way, which: usize, network: &Network) -> Result<()> {
        let road = network.road(way);
        let one = traffic::stream(road, 1, plan.overlay_time)?;
        let several = traffic::stream(road, STREAMS, plan.overlay_time)?;
        let trips = traffic::trips(road, plan.overlay_trips)?;
        let figures = &mut self.0[way as usize];
        for figure in Figure::ALL {
            let value = match figure {
                Figure::OneStream => one.gigabits_per_second(),
                Figure::OneStreamCpu => one.cpu_micros_per_mib(),
                Figure::Streams => several.gigabits_per_second(),
                Figure::StreamsCpu => several.cpu_micros_per_mib(),
                Figure::TripMedian => crate::statistics::micros(trips.median()),
                Figure::TripP99 => crate::statistics::micros(trips.percentile(0.99)),
            };
            ensure!(value > 0.0, "{}: nothing was measured", figure.name());
            figures[figure as usize][which].push(value);
        }
        Ok(())
    }

    fn tell(&self, report: &mut Report) {
        let mut table = Table::new("Pod to pod over TCP, beside a network made by hand", &COLUMNS);
        for way in Way::ALL {
            for figure in Figure::ALL {
                let networks = &self.0[way as usize][figure as usize];
                let name = format!("{}, {}", way.as_str(), figure.name());
                let measured = networks
                    .iter()
                    .flat_map(|rounds| [Cell::Number(rounds.median(), 1), Cell::Number(rounds.spread(), 0)]);
                let ratios = networks[..HAND_MADE]
                    .iter()
                    .map(|rounds| Cell::Number(rounds.ratio_to(&networks[HAND_MADE]), 2));
                table.row(
                    [Cell::Text(name.clone())]
                        .into_iter()
                        .chain(measured)
                        .chain(ratios),
                );
                if figure.has_target() {
                    report.target(target(&name, figure, &networks[0], &networks[HAND_MADE]));
                }
            }
        }
        report.table(table);
    }
}

/// Equal within the noise: of what is better when it is less, at most as much more as two rounds of one network differ.
fn target(name: &str, figure: Figure, routelet: &Rounds, hand_made: &Rounds) -> Target {
    let noise = routelet.spread().max(hand_made.spread()) / 100.0;
    let (what, measured) = if figure.is_rate() {
        (
            "the hand-made network's, times ours",
            hand_made.ratio_to(routelet),
        )
    } else {
        ("times the hand-made network's", routelet.ratio_to(hand_made))
    };
    Target {
        what: format!("{name}: {what}; noise allowed for"),
        limit: 1.0 + noise,
        measured,
    }
}
