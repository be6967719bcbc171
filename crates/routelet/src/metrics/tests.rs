use std::collections::BTreeMap;
use std::time::Instant;

use routelet_watcher::ErrorKind;

use super::*;

/// The metrics after everything has happened once.
fn used() -> Metrics {
    let metrics = Metrics::new();
    metrics.set_objects(Kind::Route, 3, 2, 1);
    metrics.repaired(Kind::Route, "deleted");
    metrics.operations(Kind::Route, "replace", 200);
    metrics.operation_failed(Kind::Route, 101);
    metrics.operation_failed(Kind::Link, 9999);
    metrics.batch(200);
    metrics.event_reached_kernel(Duration::from_micros(400));
    metrics.repair_took(Duration::from_micros(200));
    metrics.resync_took(Duration::from_millis(10));
    metrics.notifications_lost(1);
    metrics.flows_flushed(3);
    let errors = BTreeMap::from([(ErrorKind::Cut, 1), (ErrorKind::Silent, 2)]);
    let last_contact = Some(Instant::now());
    let nodes = WatchStatus {
        streaming_list: true,
        relists: 1,
        objects: 5000,
        errors,
        last_contact,
        ..WatchStatus::default()
    };
    metrics.set_watch(Resource::Nodes, &nodes);
    metrics.set_refused("address_taken", 1);
    metrics.set_peers(4999);
    metrics.set_peers_by(Family::V4, Way::Vxlan, 4999);
    metrics.set_overlay_peers(Family::V4, "reachable", 4998);
    metrics.overlay_probe("small", "answered");
    metrics.overlay_answer_took(Duration::from_micros(300));
    metrics.set_pods(110);
    metrics.set_nexthop_objects(true);
    metrics.set_forward_drop_chains(Firewall::Nftables, true, 1);
    metrics
}

#[test]
fn what_was_recorded_is_shown() {
    let text = used().encode().unwrap();
    for sample in [
        concat!(
            "routelet_build_info{version=\"",
            env!("CARGO_PKG_VERSION"),
            "\"} 1"
        ),
        "routelet_objects_wanted{kind=\"route\"} 3",
        "routelet_objects_actual{kind=\"route\"} 2",
        "routelet_objects_out_of_sync{kind=\"route\"} 1",
        "routelet_objects_wanted{kind=\"fdb\"} 0",
        "routelet_repairs_total{kind=\"route\",cause=\"deleted\"} 1",
        "routelet_repairs_total{kind=\"neighbour\",cause=\"surplus\"} 0",
        "routelet_operations_total{kind=\"route\",verb=\"replace\"} 200",
        "routelet_operation_errors_total{kind=\"route\",errno=\"ENETUNREACH\"} 1",
        "routelet_operation_errors_total{kind=\"link\",errno=\"9999\"} 1",
        "routelet_batch_operations_sum 200.0",
        "routelet_event_to_kernel_seconds_sum 0.0004",
        "routelet_repair_seconds_bucket{le=\"0.0002\"} 1",
        "routelet_resync_seconds_count 1",
        "routelet_notifications_lost_total 1",
        "routelet_flows_flushed_total 3",
        "routelet_forward_drop_chains{firewall=\"nftables\",opened=\"true\"} 1",
        "routelet_watch_streaming_list{resource=\"nodes\"} 1",
        "routelet_watch_relists_total{resource=\"nodes\"} 1",
        "routelet_watch_errors_total{resource=\"nodes\"} 3",
        "routelet_watch_objects{resource=\"nodes\"} 5000",
        "routelet_refused{reason=\"address_taken\"} 1",
        "routelet_peers 4999",
        "routelet_overlay_peers{family=\"ipv4\",state=\"reachable\"} 4998",
        "routelet_overlay_probes_total{size=\"small\",outcome=\"answered\"} 1",
        "routelet_overlay_rtt_seconds_count 1",
        "routelet_pods 110",
        "routelet_nexthop_objects 1",
    ] {
        assert!(
            text.lines().any(|line| line == sample),
            "{sample:?} is not in:\n{text}"
        );
    }
}

#[test]
fn every_family_is_shown_with_help_and_the_unit_it_measures() {
    let metrics = used();
    let text = metrics.encode().unwrap();
    for family in &metrics.families.documented {
        let name = family.name.trim_end_matches("_total");
        assert!(
            text.contains(&format!("# HELP {name} {}.\n", family.help)),
            "no help of {name}:\n{text}"
        );
        assert!(
            text.contains(&format!("# TYPE {name} {}\n", family.kind)),
            "no type of {name}:\n{text}"
        );
        assert!(
            !family.help.is_empty() && !family.help.ends_with('.'),
            "{name}: {:?}",
            family.help
        );
        let is_time = family.help.starts_with("Time from")
            || family.help.starts_with("Time to")
            || family.name.contains("timestamp");
        assert_eq!(
            is_time,
            family.name.ends_with("_seconds"),
            "{name}: times are in seconds, nothing else is"
        );
    }
    let shown = text.lines().filter(|line| line.starts_with("# TYPE ")).count();
    assert_eq!(shown, metrics.families.documented.len(), "{text}");
}

/// The table of docs/metrics.md.
fn table() -> String {
    let mut table = String::from("| metric | type | labels | meaning |\n|---|---|---|---|\n");
    for family in &Metrics::new().families.documented {
        let labels: Vec<_> = family.labels.iter().map(|label| format!("`{label}`")).collect();
        table += &format!(
            "| `{}` | {} | {} | {} |\n",
            family.name,
            family.kind,
            labels.join(", "),
            family.help
        );
    }
    table
}

#[test]
fn the_documentation_lists_every_family() {
    crate::documented::compare("metrics.md", &table());
}
