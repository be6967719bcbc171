//! Which test runs which command of the documentation, and which commands none runs, and why.
//!
//! An entry is the command, or its beginning followed by `…`. The test program `pages` holds the list against the pages.

/// A page, and commands that stand there.
type OfPage = (&'static str, &'static [&'static str]);

/// By test, named by its file and its function: of each page the commands that it runs.
pub(crate) const RUN: &[(&str, &[OfPage])] = &[
    (
        "readme.rs: each_command_of_the_readme_works_in_its_order",
        &[(
            "README.md",
            &[
                "cargo xtask demo",
                "cargo xtask test",
                "cargo xtask bench",
                "cargo xtask image",
                "helm install routelet charts/routelet --namespace kube-system --set image.tag=dev",
                "routelet run --node-name \"$NODE_NAME\"",
                "curl -s localhost:9099/readyz",
            ],
        )],
    ),
    (
        "kernel/operations.rs: each_command_of_the_page_does_what_the_page_shows",
        &[(
            "docs/operations.md",
            &["kubectl --namespace kube-system exec daemonset/routelet -- …"],
        )],
    ),
    (
        "pages/cluster.rs: an_agent_is_asked_through_its_pod",
        &[
            (
                "docs/operations.md",
                &[
                    "kubectl --namespace kube-system get pods --output wide",
                    "kubectl --namespace kube-system exec daemonset/routelet -- …",
                ],
            ),
            (
                "docs/troubleshooting.md",
                &[
                    "kubectl get pods --all-namespaces --output wide",
                    "kubectl --namespace kube-system get pods --output wide --selector app.kubernetes.io/component=agent",
                    "kubectl --namespace kube-system logs POD",
                    "kubectl --namespace kube-system exec POD -- routelet status",
                    "kubectl describe pod NAME",
                    "kubectl describe node NODE",
                ],
            ),
            (
                "docs/outside.md",
                &["kubectl get nodes -o custom-columns=NAME:.metadata.name,CIDRS:.spec.podCIDRs"],
            ),
            (
                "docs/underlay.md",
                &["kubectl annotate node NODE projectcalico.org/IPv4Address=10.99.0.7/24"],
            ),
        ],
    ),
    (
        "chart/install.rs: helm_installs_and_upgrades",
        &[(
            "docs/install.md",
            &[
                "helm install routelet charts/routelet --namespace kube-system --set image.tag=dev",
                "helm upgrade routelet charts/routelet --namespace kube-system --reuse-values --set image.tag=dev",
            ],
        )],
    ),
    (
        "chart/install.rs: an_uninstall_waits_until_each_node_is_clean",
        &[
            (
                "charts/routelet/README.md",
                &[
                    "helm install routelet charts/routelet --namespace kube-system",
                    "helm uninstall routelet --namespace kube-system",
                ],
            ),
            (
                "docs/install.md",
                &["helm uninstall routelet --namespace kube-system"],
            ),
        ],
    ),
    (
        "runtime/chart.rs: the_agent_runs_with_what_the_chart_gives_it",
        &[(
            "docs/install.md",
            &["ctr --namespace k8s.io images import routelet.tar"],
        )],
    ),
    (
        "pages/install.rs: the_manifests_are_applied",
        &[("docs/install.md", &["kubectl apply -f deploy/routelet.yaml"])],
    ),
    (
        "pages/install.rs: each_kind_of_cluster_gets_its_settings",
        &[
            (
                "docs/install.md",
                &[
                    "helm install routelet charts/routelet --namespace kube-system --set image.tag=dev --set apiServer.host=…",
                    "kubectl --namespace kube-system rollout status daemonset/routelet",
                    "kubectl --namespace kube-system logs daemonset/routelet",
                    "helm --namespace kube-system test routelet",
                    "helm upgrade routelet charts/routelet --namespace kube-system --reuse-values --set cleanup.timeoutSeconds=1200",
                    "helm uninstall routelet --namespace kube-system --timeout 21m",
                ],
            ),
            (
                "charts/routelet/templates/NOTES.txt",
                &[
                    "kubectl --namespace {{ .Release.Namespace }} rollout status daemonset/{{ include \"routelet.name\" . }}",
                    "kubectl --namespace {{ .Release.Namespace }} logs daemonset/{{ include \"routelet.name\" . }}",
                    "helm --namespace {{ .Release.Namespace }} test {{ .Release.Name }}",
                ],
            ),
            (
                "docs/bgp.md",
                &[
                    "helm install routelet charts/routelet --namespace kube-system --set image.tag=dev --set encapsulation=none …",
                ],
            ),
        ],
    ),
    (
        "pages/moves.rs: a_cluster_with_calico_moves_and_comes_back",
        &[("docs/from-calico.md", &["kubectl …", "helm …"])],
    ),
    (
        "pages/moves.rs: a_cluster_with_flannel_moves_and_comes_back",
        &[("docs/from-flannel.md", &["kubectl …", "helm …"])],
    ),
    (
        "neighbours/documented.rs: calicos_firewall_rules_go_with_the_documented_commands",
        &[("docs/from-calico.md", &["iptables-save …", "ip6tables-save …"])],
    ),
    (
        "neighbours/documented.rs: flannels_firewall_rules_go_with_the_documented_commands",
        &[(
            "docs/from-flannel.md",
            &["iptables-save …", "ip6tables-save …", "ip link delete cni0"],
        )],
    ),
    (
        "neighbours/moving.rs: calicos_nodes_are_taken_over_one_by_one_and_given_back_without_loss",
        &[("docs/from-calico.md", &["nft delete table inet routelet"])],
    ),
    (
        "neighbours/moving.rs: flannels_nodes_are_taken_over_one_by_one_and_given_back_without_loss",
        &[("docs/from-flannel.md", &["nft delete table inet routelet"])],
    ),
    (
        "pages/node.rs: files_are_put_in_place_and_taken_away",
        &[
            (
                "docs/bgp.md",
                &[
                    "cp deploy/bird/bird.conf deploy/bird/node.conf /etc/bird/",
                    "echo 'BIRD_ARGS=\"-R\"' >> /etc/bird/envvars",
                ],
            ),
            ("docs/from-calico.md", &["rm /etc/cni/net.d/05-routelet.conflist"]),
            (
                "docs/from-flannel.md",
                &["rm /etc/cni/net.d/05-routelet.conflist"],
            ),
        ],
    ),
    (
        "bgp.rs: neither_restarts_of_the_agent_nor_of_bird_lose_a_packet",
        &[("docs/bgp.md", &["birdc graceful restart"])],
    ),
    (
        "pages/node.rs: a_node_is_looked_at_as_the_pages_say",
        &[
            (
                "docs/troubleshooting.md",
                &[
                    "routelet status",
                    "routelet log-level …",
                    "routelet trace default/a …",
                    "routelet trace 10.244.1.2 10.244.1.3",
                    "routelet diff",
                    "ip …",
                    "bridge …",
                    "nft …",
                    "ls /etc/cni/net.d /opt/cni/bin",
                ],
            ),
            ("docs/modes.md", &["ethtool -k vxlan.calico"]),
        ],
    ),
    (
        "pages/node.rs: tunnel_packets_are_seen",
        &[("docs/troubleshooting.md", &["tcpdump -ni eth0 udp port 4789"])],
    ),
    (
        "trace/docs.rs: the_example_is_what_the_program_says",
        &[(
            "docs/troubleshooting.md",
            &["routelet trace 10.244.1.2 10.244.2.2"],
        )],
    ),
    (
        "pages/node.rs: a_machine_outside_reaches_pods",
        &[("docs/outside.md", &["ip route add …"])],
    ),
    (
        "pages/node.rs: a_host_that_drops_is_opened",
        &[(
            "docs/firewall.md",
            &[
                "routelet run --open-forward=true …",
                "iptables-save | grep routelet",
            ],
        )],
    ),
    (
        "firewall/agent_forward.rs: a_host_that_drops_by_iptables_legacy_is_told_how_to_open_it",
        &[("docs/firewall.md", &["iptables-legacy …"])],
    ),
    (
        "pages/node.rs: the_overlay_is_checked",
        &[("docs/overlay-check.md", &["routelet run --overlay-check 10"])],
    ),
];

/// What `.ci/run` runs, by a line that begins with it: page, command.
pub(crate) const RUN_BY_CI: &[(&str, &str)] = &[
    ("README.md", "cargo xtask test --kernel 6.1"),
    ("docs/install.md", "cargo xtask image"),
];

/// What no test runs: page, command, reason.
pub(crate) const NOT_RUN: &[(&str, &str, &str)] = &[
    (
        "docs/install.md",
        "kubeadm init --pod-network-cidr=10.244.0.0/16",
        "makes a control plane of the machine",
    ),
    (
        "docs/install.md",
        "k3s server --flannel-backend=none --disable-network-policy",
        "makes a control plane of the machine",
    ),
    (
        "docs/install.md",
        "k3s ctr images import routelet.tar",
        "takes a node of k3s; the same is run with containerd's own ctr",
    ),
    (
        "docs/install.md",
        "kind create cluster --config kind.yaml",
        "takes Docker and kind's image of a node",
    ),
    (
        "docs/install.md",
        "kind load image-archive target/image/routelet.tar",
        "takes a cluster of kind",
    ),
    (
        "docs/bgp.md",
        "apt-get install bird2",
        "changes the machine; its files are what the tests of BGP run",
    ),
    (
        "docs/bgp.md",
        "$EDITOR /etc/bird/node.conf",
        "takes a person; the tests of BGP change the same values",
    ),
    (
        "docs/bgp.md",
        "systemctl restart bird",
        "takes a machine that systemd runs; the tests start the daemon themselves",
    ),
    (
        "docs/bgp.md",
        "systemctl start bird",
        "takes a machine that systemd runs; the tests start the daemon themselves",
    ),
    (
        "docs/troubleshooting.md",
        "journalctl --unit containerd",
        "takes a machine that systemd runs",
    ),
];
