//! Tests of the command line; those of the variables are in tests/cli.rs, where they can be set.

use super::*;

fn run(words: &[&str]) -> Result<Invocation, String> {
    let words = ["routelet", "run", "--node-name=node-1"].iter().chain(words);
    parse(words).map_err(|error| error.to_string())
}

fn settings(words: &[&str]) -> RunArgs {
    let Command::Run(run) = run(words).unwrap().command else {
        panic!("{words:?} is not run");
    };
    *run
}

#[test]
fn clap_finds_no_fault_with_the_definition() {
    Cli::command().debug_assert();
}

#[test]
fn every_flag_has_the_variable_of_its_name_and_a_help_text() {
    let cli = Cli::command();
    let arguments = cli.get_subcommands().flat_map(clap::Command::get_arguments);
    for argument in arguments.filter(|argument| !argument.is_positional()) {
        let flag = argument.get_long().unwrap();
        let variable = format!("ROUTELET_{}", flag.to_uppercase().replace('-', "_"));
        assert_eq!(argument.get_env(), Some(variable.as_ref()), "--{flag}");
        assert!(argument.get_help().is_some(), "--{flag}");
    }
}

#[test]
fn defaults_are_those_of_the_design() {
    let RunArgs {
        cluster,
        underlay,
        overlay,
        overlay_check,
        nft,
        marks,
        kernel,
        cni,
        admin,
    } = settings(&[]);
    assert_eq!(cluster.node_name, "node-1");
    assert_eq!(
        (
            cluster.api.kubeconfig,
            cluster.api.api_server_host,
            cluster.api.api_server_port
        ),
        (None, None, None)
    );
    assert_eq!(underlay.underlay.to_string(), "internal-ip");
    assert_eq!(overlay_check.overlay_check.rate(), None);
    assert!(!cluster.node_condition);
    assert_eq!(overlay.encapsulation, Encapsulation::Vxlan);
    assert_eq!(marks.vxlan_device.as_str(), "vxlan.calico");
    assert_eq!(marks.vxlan_device_v6.as_str(), "vxlan-v6.calico");
    assert_eq!(
        (overlay.vxlan_vni, overlay.vxlan_port, overlay.mtu),
        (4096, 4789, Mtu::Auto)
    );
    assert_eq!(overlay.vxlan_checksum_offload, ChecksumOffload::Auto);
    assert_eq!(
        (marks.interface_prefix.as_str(), marks.route_protocol),
        ("cali", 80)
    );
    assert_eq!((nft.masquerade, marks.nft_table.as_str()), (true, "routelet"));
    assert_eq!((nft.masquerade_except, nft.pod_cidrs), (vec![], vec![]));
    assert_eq!(kernel.nexthop_objects, NexthopObjects::Auto);
    assert!(!kernel.allow_any_pod_address && !kernel.open_forward);
    assert_eq!(
        (kernel.receive_buffer, kernel.audit_interval),
        (8 << 20, Duration::from_secs(60))
    );
    assert_eq!(
        admin.admin_address,
        AdminAddress::At("127.0.0.1:9099".parse().unwrap())
    );
    let files = &cni.files;
    assert!(!cni.install_cni && files.cni_binary.is_none());
    let file = files.cni_conf_dir.join(&files.cni_conf_name);
    assert_eq!(file.to_str(), Some("/etc/cni/net.d/10-routelet.conflist"));
    assert_eq!(files.cni_bin_dir.to_str(), Some("/opt/cni/bin"));
    assert_eq!(cni.cni_lease_dir.to_str(), Some("/var/lib/cni/networks"));
    assert_eq!(cni.sweep_after(), None);
    let socket = AdminSocket::At("/run/routelet/routelet.sock".into());
    assert_eq!(admin.admin_socket, socket);
    assert_eq!(admin.log.log_format, LogFormat::Text);
}

#[test]
fn tells_the_settings_that_differ_from_the_defaults() {
    let told = |words| {
        let changed = run(words).unwrap().settings.changed;
        changed
            .into_iter()
            .map(|setting| (setting.flag, setting.value))
            .collect::<Vec<_>>()
    };
    let pairs = |pairs: &[(&str, &str)]| {
        pairs
            .iter()
            .map(|(flag, value)| (flag.to_string(), value.to_string()))
            .collect::<Vec<_>>()
    };
    assert_eq!(told(&[]), pairs(&[("node-name", "node-1")]));
    // Given, but no different from the default.
    assert_eq!(told(&["--vxlan-vni=4096"]), pairs(&[("node-name", "node-1")]));
    assert_eq!(
        told(&["--masquerade-except=10.0.0.0/8,fd00::/8"]),
        pairs(&[
            ("node-name", "node-1"),
            ("masquerade-except", "10.0.0.0/8,fd00::/8")
        ])
    );
    assert_eq!(
        told(&["--mtu=1400", "--vxlan-vni=7", "--allow-any-pod-address"]),
        pairs(&[
            ("node-name", "node-1"),
            ("vxlan-vni", "7"),
            ("mtu", "1400"),
            ("allow-any-pod-address", "true")
        ])
    );
}

#[test]
fn a_flag_of_two_values_can_be_given_both_ways() {
    assert!(
        settings(&["--allow-any-pod-address"])
            .kernel
            .allow_any_pod_address
    );
    assert!(
        settings(&["--allow-any-pod-address=true"])
            .kernel
            .allow_any_pod_address
    );
    assert!(
        !settings(&["--allow-any-pod-address=false"])
            .kernel
            .allow_any_pod_address
    );
    let error = run(&["--allow-any-pod-address=perhaps"]).unwrap_err();
    assert!(
        error.contains("'perhaps'") && error.contains("true, false"),
        "{error}"
    );
}

#[test]
fn an_error_names_flag_value_and_what_is_allowed() {
    for (word, value, allowed) in [
        ("--vxlan-vni=16777216", "'16777216'", "from 0 to 16777215"),
        ("--vxlan-port=0", "'0'", "from 1 to 65535"),
        ("--api-server-port=70000", "'70000'", "from 1 to 65535"),
        ("--mtu=575", "'575'", "from 576 to 65535"),
        ("--mtu=large", "'large'", "\"auto\""),
        ("--interface-prefix=calico", "'calico'", "1 to 4"),
        (
            "--vxlan-device=a-name-of-sixteen",
            "'a-name-of-sixteen'",
            "1 to 15",
        ),
        ("--encapsulation=gre", "'gre'", "vxlan-cross-subnet"),
        ("--nexthop-objects=on", "'on'", "auto, off"),
        ("--audit-interval=60", "'60'", "60s"),
        ("--admin-address=9099", "'9099'", "127.0.0.1:9099"),
        (
            "--log-level=infoo",
            "'infoo'",
            "off, error, warn, info, debug, trace",
        ),
        ("--route-protocol=2", "'2'", "kernel"),
        ("--masquerade-except=10.0.0.0/8,ten", "'ten'", "10.0.0.0/8"),
        ("--pod-cidrs=10.1.0.0/8", "'10.1.0.0/8'", "begins at 10.0.0.0/8"),
        ("--masquerade=maybe", "'maybe'", "true, false"),
        ("--install-cni=maybe", "'maybe'", "true, false"),
        ("--cni-bin-dir=bin", "'bin'", "an absolute path"),
        ("--cni-lease-dir=leases", "'leases'", "an absolute path"),
        (
            "--cni-conf-name=10-routelet.conf",
            "'10-routelet.conf'",
            ".conflist",
        ),
        ("--nft-table=filter", "'filter'", "other users"),
    ] {
        let error = run(&[word]).unwrap_err();
        let flag = word.split('=').next().unwrap();
        for part in [flag, value, allowed] {
            assert!(error.contains(part), "{part:?} is not in: {error}");
        }
    }
}

#[test]
fn settings_that_contradict_each_other_are_refused() {
    let error = run(&["--vxlan-device=vx0", "--vxlan-device-v6=vx0"]).unwrap_err();
    assert!(
        error.contains("--vxlan-device and --vxlan-device-v6 both name vx0"),
        "{error}"
    );
    let error = run(&["--interface-prefix=vx"]).unwrap_err();
    assert!(
        error.contains("--vxlan-device vxlan.calico begins with --interface-prefix vx"),
        "{error}"
    );
}

#[test]
fn the_sweep_comes_with_the_plugins_installation_and_can_be_had_without() {
    for (words, seconds) in [
        (&["--install-cni"][..], Some(600)),
        (&["--install-cni", "--cni-sweep-after=off"], None),
        (&["--install-cni", "--cni-sweep-after=2h"], Some(7200)),
        (&["--cni-sweep-after=90s"], Some(90)),
        (&[], None),
    ] {
        let after = settings(words).cni.sweep_after();
        assert_eq!(after, seconds.map(Duration::from_secs), "{words:?}");
    }
    let error = run(&["--cni-sweep-after=0s"]).unwrap_err();
    assert!(
        error.contains("from 1s to 24h") && error.contains("\"off\""),
        "{error}"
    );
}

/// What `diff` and `trace` take a setting from, of those that both know.
#[test]
fn a_flag_goes_before_the_running_agent_and_that_before_a_default() {
    let setting = |flag: &str, value: &str| Setting {
        flag: flag.to_owned(),
        value: value.to_owned(),
    };
    let of_agent = [
        setting("node-name", "node-1"),
        setting("route-protocol", "81"),
        setting("nft-table", "pods"),
        setting("masquerade", "false"),
        setting("api-server-host", "api.test"),
        setting("encapsulation", "none"),
    ];
    let flags = ["--route-protocol=82", "--api-server-host=localhost"];
    let settings = |of_agent: &[Setting]| {
        let words = |subcommand: &[&'static str]| [&["routelet"], subcommand, &flags].concat();
        let Command::Trace(trace) = parse(words(&["trace", "10.0.0.1", "10.0.0.2"])).unwrap().command else {
            panic!("not trace");
        };
        let Command::Diff(diff) = parse(words(&["diff"])).unwrap().command else {
            panic!("not diff");
        };
        let trace = trace.settings(of_agent).unwrap();
        let diff = diff.settings(of_agent).unwrap();
        let told = |marks: MarkArgs, masquerade, api: ApiArgs| {
            (
                marks.route_protocol,
                marks.nft_table,
                masquerade,
                api.api_server_host.unwrap(),
            )
        };
        let told = [
            told(trace.marks, trace.masquerade, trace.api),
            told(diff.marks, diff.nft.masquerade, diff.cluster.api),
        ];
        told.map(|(protocol, table, masquerade, host)| format!("{protocol} {table} {masquerade} {host}"))
    };
    assert_eq!(settings(&of_agent), ["82 pods false localhost"; 2]);
    assert_eq!(settings(&of_agent[..1]), ["82 routelet true localhost"; 2]);
}

#[test]
fn what_an_agent_says_and_no_one_understands_is_told_with_its_flag() {
    let words = ["routelet", "trace", "10.0.0.1", "10.0.0.2"];
    let Command::Trace(trace) = parse(words).unwrap().command else {
        panic!("not trace");
    };
    let odd = Setting {
        flag: "route-protocol".to_owned(),
        value: "many".to_owned(),
    };
    let error = trace.settings(&[odd]).unwrap_err().to_string();
    assert!(
        error.contains("'many'") && error.contains("--route-protocol"),
        "{error}"
    );
}
