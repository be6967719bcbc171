//! Each value does what its comment says, and no other value is taken.

use std::collections::BTreeSet;
use std::process::Command;

use routelet_lab::process::built_program;
use routelet_lab::{TempDir, skip};
use routelet_netlink::Netns;
use serde_json::Value;

use crate::helm::{CHART, container, helm, is_missing, object, template, template_with_file, texts};

/// For each value: another one than the default, and what of the objects then holds which text.
const EACH: &[(&str, &str)] = &[
    ("image.repository=example.test/r", "example.test/r:"),
    ("image.tag=dev", "routelet:dev"),
    ("image.pullPolicy=Always", "Always"),
    (
        "imagePullSecrets[0].name=registry",
        r#""imagePullSecrets":[{"name":"registry"}]"#,
    ),
    ("encapsulation=none", "--encapsulation=none"),
    (
        "podCIDRs={10.244.0.0/16,fd00::/48}",
        "--pod-cidrs=10.244.0.0/16,fd00::/48",
    ),
    ("masquerade.enabled=false", "--masquerade=false"),
    ("masquerade.except={10.0.0.0/8}", "--masquerade-except=10.0.0.0/8"),
    ("apiServer.host=api.test", "--api-server-host=api.test"),
    ("apiServer.port=6443", "--api-server-port=6443"),
    ("underlay=interface=bond0", "--underlay=interface=bond0"),
    ("mtu=1400", "--mtu=1400"),
    ("vxlan.vni=5000", "--vxlan-vni=5000"),
    ("vxlan.port=8472", "--vxlan-port=8472"),
    ("vxlan.checksumOffload=off", "--vxlan-checksum-offload=off"),
    ("vxlan.checksumOffload=true", "--vxlan-checksum-offload=on"),
    ("cni.install=false", "--install-cni=false"),
    (
        "cni.binDir=/var/lib/cni/bin",
        r#"{"mountPath":"/var/lib/cni/bin","name":"cni-bin"}"#,
    ),
    ("cni.confDir=/etc/cni/other", r#""path":"/etc/cni/other""#),
    ("cni.confName=05-x.conflist", "--cni-conf-name=05-x.conflist"),
    (
        "cni.leaseDir=/srv/leases",
        r#"{"mountPath":"/srv/leases","name":"cni-leases"}"#,
    ),
    ("cni.sweepAfter=off", "--cni-sweep-after=off"),
    ("openForward=true", "--open-forward=true"),
    ("overlayCheck=10", "--overlay-check=10"),
    ("nodeCondition=true", "--node-condition=true"),
    ("logFormat=json", "--log-format=json"),
    ("logLevel=debug", "--log-level=debug"),
    (
        "admin.address=127.0.0.2",
        r#""host":"127.0.0.2","path":"/readyz","port":9099"#,
    ),
    ("admin.port=9199", "--admin-address=127.0.0.1:9199"),
    ("extraArgs={--route-protocol=90}", "--route-protocol=90"),
    ("resources.limits.memory=64Mi", r#""limits":{"memory":"64Mi"}"#),
    (
        "capabilities={NET_ADMIN,DAC_OVERRIDE}",
        r#"["NET_ADMIN","DAC_OVERRIDE"]"#,
    ),
    ("maxUnavailable=3", r#""maxUnavailable":3"#),
    ("nodeSelector.disk=fast", r#""disk":"fast""#),
    ("podAnnotations.note=x", r#""note":"x""#),
    ("podLabels.team=net", r#""team":"net""#),
    ("podMonitor.enabled=true", "--admin-address=$(HOST_IP):9099"),
    (
        "podMonitor.enabled=true,podMonitor.interval=7s",
        r#""interval":"7s""#,
    ),
    (
        "podMonitor.enabled=true,podMonitor.labels.release=p",
        r#""release":"p""#,
    ),
    ("prometheusRule.enabled=true", "RouteletOutOfSync"),
    (
        "prometheusRule.enabled=true,prometheusRule.labels.release=p",
        r#""release":"p""#,
    ),
    ("grafanaDashboard.enabled=true", "routelet-dashboard"),
    (
        "grafanaDashboard.enabled=true,grafanaDashboard.labels.x=y",
        r#""x":"y""#,
    ),
    ("cleanup.extraArgs={--nft-table=r}", "--nft-table=r"),
    ("cleanup.timeoutSeconds=7", "--timeout=7s"),
    ("tools.kubectl=k:1", r#""image":"k:1""#),
    ("tools.pause=p:1", r#""image":"p:1""#),
];

/// Dotted names of all values that the schema knows, but for those of whose names it is no judge.
fn names(schema: &Value, prefix: &str, found: &mut BTreeSet<String>) {
    for (name, value) in schema["properties"].as_object().unwrap() {
        let name = format!("{prefix}{name}");
        match value.get("properties") {
            Some(_) => {
                assert_eq!(value["additionalProperties"], false, "{name}");
                names(value, &format!("{name}."), found);
            }
            None => drop(found.insert(name)),
        }
    }
}

#[test]
fn the_chart_is_linted() {
    if is_missing() {
        skip!("helm is not installed");
    }
    let output = helm(&["lint", "--strict", CHART]);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
}

#[test]
fn each_value_makes_the_difference_that_it_is_for() {
    if is_missing() {
        skip!("helm is not installed");
    }
    let schema = std::fs::read_to_string(format!("{CHART}/values.schema.json")).unwrap();
    let schema: Value = serde_json::from_str(&schema).unwrap();
    assert_eq!(schema["additionalProperties"], false);
    let mut left = BTreeSet::new();
    names(&schema, "", &mut left);
    // Helm's own, for charts within charts.
    left.remove("global");
    // Seen by what it leaves out.
    left.remove("cleanup.enabled");
    let without = template(&["cleanup.enabled=false"]);
    assert!(without.iter().all(|object| object["kind"] != "Job"));
    let text = |values: &[&str]| {
        let objects = template(values);
        objects.iter().map(Value::to_string).collect::<String>()
    };
    let default = text(&[]);
    for (values, wanted) in EACH {
        assert!(!default.contains(wanted), "{wanted} is there by default");
        let changed = text(&[values]);
        assert!(
            changed.contains(wanted),
            "{values} makes no {wanted} in {changed}"
        );
        for name in values.split(',').filter_map(|value| value.split_once('=')) {
            left.retain(|known| !name.0.starts_with(known.as_str()));
        }
    }
    assert!(left.is_empty(), "not tried: {left:?}");
}

/// In a file of values, YAML takes a bare `off` for false and `on` for true; --set takes them for texts.
#[test]
fn a_file_of_values_may_say_off_without_quotes() {
    if is_missing() {
        skip!("helm is not installed");
    }
    let directory = TempDir::new().unwrap();
    for (value, argument) in [
        ("cni: {sweepAfter: off}", "--cni-sweep-after=off"),
        ("cni: {sweepAfter: \"off\"}", "--cni-sweep-after=off"),
        ("cni: {sweepAfter: 90s}", "--cni-sweep-after=90s"),
        ("vxlan: {checksumOffload: off}", "--vxlan-checksum-offload=off"),
        ("vxlan: {checksumOffload: on}", "--vxlan-checksum-offload=on"),
    ] {
        let file = directory.write("values.yaml", value).unwrap();
        let objects = template_with_file(&file);
        let arguments = texts(&container(&objects)["args"]);
        assert!(arguments.contains(&argument), "{value}: {arguments:?}");
    }
}

/// The kubelet makes a URL of the probes' host, and puts the brackets around it.
#[test]
fn the_probes_ask_where_the_agent_listens() {
    if is_missing() {
        skip!("helm is not installed");
    }
    for (address, listens, asked) in [
        ("", "127.0.0.1:9099", Some("127.0.0.1")),
        ("127.0.0.2", "127.0.0.2:9099", Some("127.0.0.2")),
        ("[::1]", "[::1]:9099", Some("::1")),
        ("0.0.0.0", "0.0.0.0:9099", None),
        ("[::]", "[::]:9099", None),
    ] {
        let objects = template(&[&format!("admin.address={address}")]);
        let container = container(&objects);
        let arguments = texts(&container["args"]);
        let listens = format!("--admin-address={listens}");
        assert!(arguments.contains(&listens.as_str()), "{address}: {arguments:?}");
        for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
            let host = &container[probe]["httpGet"]["host"];
            assert_eq!(host.as_str(), asked, "{address}: {probe}");
        }
    }
}

#[test]
fn what_the_chart_does_not_know_is_refused() {
    if is_missing() {
        skip!("helm is not installed");
    }
    for value in [
        "mtuu=1400",
        "underlay=eth0",
        "overlayCheck=on",
        "vxlan.vnii=1",
        "image.name=x",
        "mtu=100",
        "encapsulation=gre",
        "vxlan.vni=16777216",
        "vxlan.checksumOffload=never",
        "podCIDRs={ten}",
        "cni.confName=a/b.conflist",
        "logFormat=xml",
        "capabilities={NET_RAW}",
        "admin.port=0",
    ] {
        let output = helm(&["template", CHART, "--set", value]);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(
            !output.status.success() && error.contains("schema"),
            "{value}: {error}"
        );
    }
}

#[test]
fn the_agent_takes_all_arguments_that_the_chart_can_give() {
    if is_missing() {
        skip!("helm is not installed");
    }
    let all: Vec<_> = EACH.iter().map(|(values, _)| *values).collect();
    for values in [&[][..], &all] {
        let objects = template(values);
        let arguments = texts(&container(&objects)["args"]);
        let mut agent = Command::new(built_program("routelet", "ROUTELET_BIN").unwrap());
        agent
            .env_clear()
            .args(&arguments)
            .args(["--node-name=n", "--kubeconfig=/proc/none"]);
        agent.arg("--admin-socket=off");
        let output = Netns::new().unwrap().run(|| agent.output().unwrap()).unwrap();
        let log =
            String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        // The kubeconfig is what stops it; all else was read before.
        assert!(log.contains("--kubeconfig"), "{arguments:?}: {log}");
        assert!(log.contains("routelet starts"), "{arguments:?}: {log}");
    }
}

#[test]
fn the_pod_has_what_it_needs_and_no_more() {
    if is_missing() {
        skip!("helm is not installed");
    }
    let objects = template(&[]);
    let set = object(&objects, "DaemonSet", "routelet");
    let pod = &set["spec"]["template"]["spec"];
    assert_eq!(pod["hostNetwork"], true);
    assert_eq!(pod["enableServiceLinks"], false);
    assert_eq!(pod["priorityClassName"], "system-node-critical");
    assert_eq!(pod["tolerations"].to_string(), r#"[{"operator":"Exists"}]"#);
    assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
    let container = container(&objects);
    let security = &container["securityContext"];
    assert_eq!(security["privileged"], false);
    assert_eq!(security["allowPrivilegeEscalation"], false);
    assert_eq!(security["readOnlyRootFilesystem"], true);
    assert_eq!(
        security["capabilities"].to_string(),
        r#"{"add":["NET_ADMIN"],"drop":["ALL"]}"#
    );
    let paths: Vec<_> = pod["volumes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|volume| &volume["hostPath"]["path"])
        .collect();
    assert_eq!(
        paths,
        [
            "/proc/sys/net",
            "/run/routelet",
            "/opt/cni/bin",
            "/etc/cni/net.d",
            "/var/lib/cni/networks"
        ]
    );
    let kinds: BTreeSet<_> = objects
        .iter()
        .map(|object| object["kind"].as_str().unwrap())
        .collect();
    assert!(
        !kinds.contains("PodMonitor") && !kinds.contains("ConfigMap"),
        "{kinds:?}"
    );
    // A DaemonSet adopts what it selects: no other pod of the chart may have all the labels.
    let selector = set["spec"]["selector"]["matchLabels"].as_object().unwrap();
    let others = template(&[]);
    for labels in [
        &object(&others, "Pod", "routelet-test")["metadata"]["labels"],
        &object(&others, "DaemonSet", "routelet-cleanup")["spec"]["template"]["metadata"]["labels"],
        &object(&others, "Job", "routelet-cleanup")["spec"]["template"]["metadata"]["labels"],
    ] {
        assert!(
            selector
                .iter()
                .any(|(name, value)| labels.get(name) != Some(value)),
            "{labels}"
        );
    }
}

/// Every metric that alerts and dashboard ask for is one that the agent has.
#[test]
fn alerts_and_dashboard_speak_of_metrics_that_are_there() {
    let documented = include_str!("../../../../docs/metrics.md");
    let mut asked = BTreeSet::new();
    for file in ["files/alerts.yaml", "files/dashboard.json"] {
        let text = std::fs::read_to_string(format!("{CHART}/{file}")).unwrap();
        let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        let metrics = words.filter(|word| word.starts_with("routelet_"));
        asked.extend(metrics.map(|metric| metric.trim_end_matches("_bucket").to_owned()));
    }
    assert!(asked.len() > 8, "{asked:?}");
    for metric in asked {
        assert!(
            documented.contains(&format!("| `{metric}` |")),
            "no metric {metric}"
        );
    }
}
