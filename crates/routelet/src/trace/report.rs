//! What a trace says: a table for people, JSON for programs.

use std::fmt::{self, Write};

use serde_json::{Value, json};

use super::hop::{Hop, Verdict};
use super::observed::{Destination, Observed};
use crate::ask::table::Table;

/// The way between two addresses, judged.
#[derive(Debug)]
pub(crate) struct Way {
    observed: Observed,
    destination: Destination,
    hops: Vec<Hop>,
}

impl Way {
    /// Judges what was observed.
    pub(crate) fn new(observed: Observed) -> Self {
        Self {
            destination: observed.destination(),
            hops: super::walk::walk(&observed),
            observed,
        }
    }

    /// The first hop that packets do not pass.
    pub(crate) fn broken(&self) -> Option<&Hop> {
        self.hops.iter().find(|hop| hop.is_broken())
    }

    fn from(&self) -> String {
        let from = &self.observed.from;
        named(from.pod.as_ref(), from.address.as_ref())
    }

    fn to(&self) -> String {
        let to = &self.observed.to;
        named(to.pod.as_ref(), Some(&to.address))
    }

    fn what(&self) -> String {
        match &self.destination {
            Destination::LocalPod(_) => "a pod of this node".to_owned(),
            Destination::NoPod(_) => "an address of this node's pod subnet".to_owned(),
            Destination::ThisNode => "this node".to_owned(),
            Destination::Peer(peer) => {
                let name = peer.known.as_ref().map(|known| &known.name);
                match name.or(self.observed.to.node.as_ref()) {
                    Some(name) => format!("a pod of node {name}"),
                    None => "a pod of another node".to_owned(),
                }
            }
            Destination::NoNode => "an address of the pod networks".to_owned(),
            Destination::Node => "another node".to_owned(),
            Destination::Outside => "outside of the cluster".to_owned(),
        }
    }

    fn write(&self, text: &mut String) -> fmt::Result {
        writeln!(text, "{} to {}, {}\n", self.from(), self.to(), self.what())?;
        let mut table = Table::new(["HOP", "OBJECT", "STATE", "FOUND"]);
        for hop in &self.hops {
            table.row([
                hop.place.to_string(),
                hop.object.clone(),
                hop.verdict.to_string(),
                hop.finding.clone(),
            ]);
        }
        writeln!(text, "{table}")?;
        match self.broken() {
            Some(hop) => {
                writeln!(
                    text,
                    "broken at the {} ({}): {}",
                    hop.place, hop.object, hop.finding
                )?;
                write_remedy(text, hop)
            }
            None => {
                let doubts: Vec<_> = self
                    .hops
                    .iter()
                    .filter(|hop| hop.verdict == Verdict::Doubt)
                    .collect();
                match doubts.is_empty() {
                    true => writeln!(text, "whole: each hop is as it should be")?,
                    false => writeln!(text, "whole, as far as the kernel's tables tell")?,
                }
                for hop in doubts {
                    writeln!(
                        text,
                        "in doubt is the {} ({}): {}",
                        hop.place, hop.object, hop.finding
                    )?;
                    write_remedy(text, hop)?;
                }
                Ok(())
            }
        }
    }

    fn to_json(&self) -> Value {
        let hops = self.hops.iter().map(|hop| {
            json!({
                "hop": hop.place.as_str(),
                "object": hop.object,
                "state": hop.verdict.as_str(),
                "finding": hop.finding,
                "remedy": hop.remedy,
            })
        });
        json!({
            "family": self.observed.family().to_string(),
            "from": { "pod": self.observed.from.pod.as_ref().map(ToString::to_string), "address": self.observed.from.address },
            "to": {
                "pod": self.observed.to.pod.as_ref().map(ToString::to_string),
                "address": self.observed.to.address,
                "is": self.what(),
            },
            "whole": self.broken().is_none(),
            "broken": self.broken().map(|hop| hop.place.as_str()),
            "hops": hops.collect::<Vec<_>>(),
        })
    }
}

fn write_remedy(text: &mut String, hop: &Hop) -> fmt::Result {
    match &hop.remedy {
        Some(remedy) => writeln!(text, "what to do: {remedy}"),
        None => Ok(()),
    }
}

fn named(pod: Option<&routelet_model::PodId>, address: Option<&std::net::IpAddr>) -> String {
    match (pod, address) {
        (Some(pod), Some(address)) => format!("{pod} ({address})"),
        (Some(pod), None) => pod.to_string(),
        (None, Some(address)) => address.to_string(),
        (None, None) => String::new(),
    }
}

/// The table for people. `silent` says why the agent is not heard, if it is not.
pub(crate) fn table(ways: &[Way], silent: Option<&str>) -> Result<String, fmt::Error> {
    let mut text = String::new();
    if let Some(why) = silent {
        writeln!(
            text,
            "the agent does not answer: judged by the kernel alone ({why})\n"
        )?;
    }
    for (number, way) in ways.iter().enumerate() {
        if number > 0 {
            text.push('\n');
        }
        way.write(&mut text)?;
    }
    Ok(text)
}

/// The same for programs.
pub(crate) fn json(ways: &[Way], silent: Option<&str>) -> String {
    let whole = ways.iter().all(|way| way.broken().is_none());
    let ways: Vec<_> = ways.iter().map(Way::to_json).collect();
    let value = json!({ "whole": whole, "agent": silent.is_none(), "agent_error": silent, "ways": ways });
    format!("{value:#}\n")
}
