//! `routelet status`: the node at a glance, from the running agent.

use std::fmt::Write;

use ipnet::IpNet;

use crate::args::{EXIT_IN_TROUBLE, EXIT_NOT_READY, EXIT_STOPPED, Output, StatusArgs};
use crate::ask::table::{Table, span};
use crate::ask::{print, state};
use crate::state::{Moment, OwnNetworkState, PeerState, PodAddressState, State, WatchState};

/// Rows of a table that are shown without --all.
const ROWS: usize = 30;

/// Asks and shows; the exit code.
pub(crate) fn run(args: &StatusArgs) -> anyhow::Result<u8> {
    let (state, json) = state(&args.agent.admin_socket)?;
    let troubles = troubles(&state);
    match args.output.output {
        Output::Json => print(&format!("{json}\n"))?,
        Output::Table => print(&text(&state, &troubles, args.all))?,
    }
    Ok(match (state.ready, troubles.is_empty()) {
        (false, _) => EXIT_NOT_READY,
        (true, false) => EXIT_IN_TROUBLE,
        (true, true) => EXIT_STOPPED,
    })
}

/// What an operator should look at, one sentence each.
fn troubles(state: &State) -> Vec<String> {
    let dataplane = &state.dataplane;
    let mut troubles = Vec::new();
    for watch in &state.watches {
        if let (Some(since), Some(error)) = (&watch.failing_since, &watch.error) {
            let (resource, since) = (&watch.resource, span(since.seconds_ago));
            troubles.push(format!(
                "the watch of {resource} has been failing for {since}: {error}"
            ));
        }
    }
    for trouble in &dataplane.troubles {
        let (times, since) = (trouble.attempts, span(trouble.since.seconds_ago));
        troubles.push(format!(
            "{}: the kernel refuses it: {} (tried {times} times in {since})",
            trouble.object, trouble.error
        ));
    }
    for pod in &dataplane.pods {
        for address in pod.addresses.iter().filter(|address| address.route == "missing") {
            troubles.push(format!(
                "pod {}/{} has no route to {}: {}",
                pod.namespace,
                pod.name,
                address.address,
                address.why.as_deref().unwrap_or("it is not known why")
            ));
        }
    }
    for peer in &dataplane.peers {
        for network in &peer.networks {
            let what = match network.overlay.as_deref() {
                Some("unreachable") => "does not answer through the tunnel",
                Some("large_lost") => "answers through the tunnel, but large packets do not arrive there",
                _ => continue,
            };
            troubles.push(format!("node {} {what} ({})", peer.name, network.family));
        }
    }
    troubles.extend(dataplane.refusals.iter().map(|refusal| refusal.message.clone()));
    for chain in dataplane.forward_drop_chains.iter().filter(|chain| !chain.open) {
        let error = chain.error.as_ref();
        let why = error.map_or_else(String::new, |error| format!(", and could not be opened: {error}"));
        troubles.push(format!(
            "{} drops by policy what the host forwards{why}; docs/firewall.md says what to do",
            chain.chain
        ));
    }
    if !dataplane.kernel.nftables {
        troubles.push(
            "this kernel has no nf_tables: nothing is masqueraded or checked; load the module nf_tables and start the \
             agent anew"
                .to_owned(),
        );
    }
    if troubles.is_empty() && out_of_sync(state) > 0 {
        troubles.push(
            "objects are not in the kernel as they should be, and nothing is known to be the reason: routelet diff shows \
             which, the log whether someone keeps changing them"
                .to_owned(),
        );
    }
    troubles
}

/// Objects that are not in the kernel as they should be.
fn out_of_sync(state: &State) -> usize {
    let counts = state.dataplane.objects.iter();
    counts.map(|count| count.out_of_sync).sum()
}

fn text(state: &State, troubles: &[String], all: bool) -> String {
    let dataplane = &state.dataplane;
    let mut text = String::new();
    // Nothing here fails: a String takes all that is written to it.
    let _ = writeln!(text, "{}", head(state, troubles));
    for (title, list) in [("Not ready", &state.not_ready[..]), ("Trouble", troubles)] {
        if !list.is_empty() {
            let _ = writeln!(text, "\n{title}:");
        }
        let left_out = choose(list, all, |_| false, |line| _ = writeln!(text, "  {line}"));
        text += &left_out;
    }
    let mut objects = Table::new(["OBJECTS", "WANTED", "ACTUAL", "OUT OF SYNC"]);
    for count in &dataplane.objects {
        let numbers = [count.wanted, count.actual, count.out_of_sync].map(|number| number.to_string());
        let [wanted, actual, out_of_sync] = numbers;
        objects.row([count.kind.clone(), wanted, actual, out_of_sync]);
    }
    let _ = write!(text, "\n{objects}");

    let mut peers = Table::new(["PEER", "POD SUBNETS", "UNDERLAY", "WAY", "DEVICE", "STATE"]);
    let left_out = choose(
        &dataplane.peers,
        all,
        |peer| peer_state(peer) != IN_SYNC,
        |peer| {
            for network in &peer.networks {
                peers.row([
                    peer.name.clone(),
                    join(&network.pod_subnets),
                    network
                        .underlay
                        .map_or_else(String::new, |address| address.to_string()),
                    network.way.clone(),
                    network.device.clone().unwrap_or_default(),
                    peer_state(peer),
                ]);
            }
        },
    );
    let _ = write!(text, "\n{peers}{left_out}");

    let mut pods = Table::new(["POD", "ADDRESS", "HOST VETH", "ROUTE"]);
    let is_odd = |address: &PodAddressState| address.route != "in_place";
    let left_out = choose(
        &dataplane.pods,
        all,
        |pod| pod.addresses.iter().any(is_odd),
        |pod| {
            for address in &pod.addresses {
                pods.row([
                    format!("{}/{}", pod.namespace, pod.name),
                    address.address.to_string(),
                    pod.host_veth.clone().unwrap_or_default(),
                    address.route.replace('_', " "),
                ]);
            }
        },
    );
    let _ = write!(text, "\n{pods}{left_out}");
    text
}

/// What is true of the whole node.
fn head(state: &State, troubles: &[String]) -> String {
    let dataplane = &state.dataplane;
    let is = match (state.ready, out_of_sync(state), troubles.len()) {
        (false, ..) => "not ready".to_owned(),
        (true, 0, 0) => "ready, in sync".to_owned(),
        (true, 0, count) => format!("ready, in sync, {count} to look at"),
        (true, objects, count) => format!("ready, {objects} objects out of sync, {count} to look at"),
    };
    let ago = |moment: &Moment| format!("{} ago", span(moment.seconds_ago));
    let repair = dataplane.last_repair.as_ref().map_or_else(
        || "none".to_owned(),
        |repair| {
            let (object, cause, count) = (&repair.object, &repair.cause, dataplane.repairs);
            format!("{}: {object} ({cause}), {count} in all", ago(&repair.when))
        },
    );
    let resync = dataplane.last_resync.as_ref().map_or_else(
        || "none".to_owned(),
        |resync| format!("{}, took {:.1} ms", ago(&resync.when), resync.seconds * 1000.0),
    );
    let mut lines = vec![
        ("Node", state.node.clone()),
        (
            "Agent",
            format!("{is}; version {}, started {}", state.version, ago(&state.started)),
        ),
        ("Encapsulation", state.encapsulation.clone()),
    ];
    lines.extend(
        dataplane
            .networks
            .iter()
            .map(|network| ("Pods", own_network(network))),
    );
    lines.extend(state.watches.iter().map(|watch| ("API", watch_line(watch))));
    lines.extend([("Last repair", repair), ("Last resync", resync)]);
    let lines: Vec<_> = lines
        .into_iter()
        .map(|(name, value)| format!("{name:<14} {value}"))
        .collect();
    lines.join("\n")
}

fn own_network(network: &OwnNetworkState) -> String {
    let through = match (&network.underlay, &network.parent) {
        (Some(underlay), Some(parent)) => format!("from {underlay} on {parent}"),
        _ => "no underlay address is known yet".to_owned(),
    };
    let device = network
        .device
        .as_ref()
        .map_or_else(String::new, |device| format!(" by {device}"));
    let mtu = network.mtu.map_or_else(String::new, |mtu| format!(", MTU {mtu}"));
    format!("{}, {through}{device}{mtu}", join(&network.pod_subnets))
}

fn watch_line(watch: &WatchState) -> String {
    let heard = watch.last_contact.as_ref().map_or_else(
        || "nothing heard yet".to_owned(),
        |contact| format!("last heard {} ago", span(contact.seconds_ago)),
    );
    format!(
        "{} {}, {} objects, {heard}",
        watch.resource, watch.state, watch.objects
    )
}

const IN_SYNC: &str = "in sync";

fn peer_state(peer: &PeerState) -> String {
    let mut overlay = peer
        .networks
        .iter()
        .filter_map(|network| network.overlay.as_deref());
    let lost = overlay.find(|held| matches!(*held, "unreachable" | "large_lost"));
    match (peer.refusals.len(), peer.out_of_sync.len()) {
        (0, 0) => lost.unwrap_or(IN_SYNC).replace('_', " "),
        (0, count) => format!("{count} out of sync"),
        _ => "refused".to_owned(),
    }
}

fn join(nets: &[IpNet]) -> String {
    let nets: Vec<_> = nets.iter().map(ToString::to_string).collect();
    nets.join(",")
}

/// Shows all items, or as many as are looked at, first those that are odd; a line about those left out.
fn choose<T>(items: &[T], all: bool, is_odd: impl Fn(&T) -> bool, mut show: impl FnMut(&T)) -> String {
    let mut chosen: Vec<_> = items.iter().collect();
    let left_out = if all { 0 } else { items.len().saturating_sub(ROWS) };
    if left_out > 0 {
        chosen.sort_by_key(|item| !is_odd(item));
        chosen.truncate(ROWS);
    }
    chosen.into_iter().for_each(&mut show);
    match left_out {
        0 => String::new(),
        count => format!("and {count} more: --all shows them\n"),
    }
}
