//! The agent as the Helm chart has it run: in the real image, in a container of a real runtime, with the arguments,
//! variables, mounts, capabilities and the permissions at a real API server that the chart gives it, and no others.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use routelet_lab::{Backend, Cluster, KernelView, KubeApi, TempDir, apiserver, http, skip, wait};
use routelet_model::{Family, Sysctl, SysctlName};
use routelet_netlink::{Netns, sysctl};
use serde_json::Value;

use crate::containerd::{Runtime, missing};
use crate::helm;
use crate::image;
use crate::message::Message;
use crate::pages::Script;

/// The image's name, as `cargo xtask image` gives it.
const IMAGE: &str = "docker.io/library/routelet:dev";
const ADMIN: &str = "127.0.0.1:9099";
/// Where the kubelet puts what a service account is known by.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// `NamespaceMode` NODE of the CRI.
const NODE: u64 = 2;
/// What the kubelet keeps from a container that is not privileged (its defaults of `procMount`).
const MASKED: &[&str] = &[
    "/proc/asound",
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
];
const READ_ONLY: &[&str] = &[
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// The archive that `cargo xtask image` has made.
fn archive() -> Option<PathBuf> {
    let own = std::env::current_exe().unwrap();
    let mut directories = own
        .ancestors()
        .map(|directory| directory.join("image/routelet.tar"));
    directories.find(|path| path.is_file())
}

/// What a pod's security context comes to in the CRI, for its container.
fn security(of: &Value) -> Message {
    let capabilities = &of["capabilities"];
    let capabilities = Message::new()
        .texts(1, &helm::texts(&capabilities["add"]))
        .texts(2, &helm::texts(&capabilities["drop"]));
    let user = Message::new().number(1, of["runAsUser"].as_u64().unwrap());
    assert_eq!(of["privileged"], false);
    Message::new()
        .message(1, &capabilities)
        .message(3, &Message::new().number(1, NODE))
        .message(5, &user)
        .number(7, u64::from(of["readOnlyRootFilesystem"] == true))
        .number(11, u64::from(of["allowPrivilegeEscalation"] == false))
        .texts(13, MASKED)
        .texts(14, READ_ONLY)
        // RuntimeDefault, the profile type of number 0.
        .message(15, &Message::new().number(1, 0))
}

/// A ContainerConfig as the kubelet makes it from the pod's: `mount` says where a path of the host is in this test.
fn configuration(objects: &[Value], variables: &[(&str, &str)], mount: impl Fn(&str) -> PathBuf) -> Message {
    let pod = &helm::object(objects, "DaemonSet", "routelet")["spec"]["template"]["spec"];
    assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
    let container = helm::container(objects);
    let mut config = Message::new()
        .message(1, &Message::new().text(1, "routelet"))
        .message(2, &Message::new().text(1, IMAGE))
        .texts(4, &helm::texts(&container["args"]));
    for (name, value) in variables {
        config = config.message(6, &Message::new().text(1, name).text(2, value));
    }
    let list = |value: &Value| value.as_array().unwrap().clone();
    for mounted in list(&container["volumeMounts"]) {
        let volumes = list(&pod["volumes"]);
        let volume = volumes
            .iter()
            .find(|volume| volume["name"] == mounted["name"])
            .unwrap();
        let host = mount(volume["hostPath"]["path"].as_str().unwrap());
        let to = mounted["mountPath"].as_str().unwrap();
        config = config.message(7, &Message::new().text(1, to).text(2, host.to_str().unwrap()));
    }
    let account = mount(ACCOUNT);
    let account = Message::new()
        .text(1, ACCOUNT)
        .text(2, account.to_str().unwrap())
        .number(3, 1);
    let linux = Message::new().message(2, &security(&container["securityContext"]));
    config
        .message(7, &account)
        .text(11, "agent.log")
        .message(15, &linux)
}

/// Capabilities, seccomp mode and the bar to new privileges of the one agent in a namespace, as /proc has them.
fn confinement(of: &Netns) -> Vec<String> {
    let namespace = of
        .run(|| fs::read_link("/proc/thread-self/ns/net").unwrap())
        .unwrap();
    let processes = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    let mut ours = processes.filter(|path| {
        let is_in = fs::read_link(path.join("ns/net")).is_ok_and(|found| found == namespace);
        is_in && fs::read_link(path.join("exe")).is_ok_and(|exe| exe == Path::new("/bin/routelet"))
    });
    let status = fs::read_to_string(ours.next().unwrap().join("status")).unwrap();
    assert_eq!(ours.next(), None);
    let lines = status.lines().filter(|line| {
        ["CapEff:", "CapBnd:", "NoNewPrivs:", "Seccomp:"]
            .iter()
            .any(|name| line.starts_with(name))
    });
    lines.map(|line| line.replace('\t', " ")).collect()
}

#[test]
fn the_agent_runs_with_what_the_chart_gives_it() {
    if let Some(reason) = missing() {
        skip!("{reason}");
    }
    if helm::is_missing() {
        skip!("helm is not installed");
    }
    if let Err(reason) = apiserver::assets() {
        skip!("{reason}");
    }
    let Some(archive) = archive() else {
        skip!("no target/image/routelet.tar: run cargo xtask image");
    };
    let objects = helm::template(&["image.tag=dev"]);
    let mut cluster = Cluster::new(Backend::KubeApiserver).unwrap();
    for _ in 0..2 {
        cluster.add_node().unwrap();
    }
    let directory = TempDir::new().unwrap();
    let inside = |name: &str| directory.path().join(name);
    for name in ["account", "run", "logs"] {
        fs::create_dir(inside(name)).unwrap();
    }

    // What its service account may do, by the chart's own rules.
    let rules = &helm::object(&objects, "ClusterRole", "routelet")["rules"];
    let KubeApi::Real(server) = cluster.api() else {
        unreachable!()
    };
    let address = server.address();
    let kubeconfig = server.kubeconfig_for("routelet", rules).unwrap();
    let kubeconfig: Value = serde_json::from_str(&fs::read_to_string(kubeconfig).unwrap()).unwrap();
    let text = |pointer: &str| kubeconfig.pointer(pointer).unwrap().as_str().unwrap();
    fs::write(inside("account/token"), text("/users/0/user/token")).unwrap();
    fs::copy(
        text("/clusters/0/cluster/certificate-authority"),
        inside("account/ca.crt"),
    )
    .unwrap();
    fs::write(inside("account/namespace"), "kube-system").unwrap();

    let busybox = image::write(&directory).unwrap();
    let node = &cluster.nodes()[0].node;
    let runtime = Runtime::start(node.netns(), &busybox).unwrap();
    let mut script = Script::of("runtime/chart.rs: the_agent_runs_with_what_the_chart_gives_it");
    let import = script.take("ctr").text;
    runtime.run(&import, archive.parent().unwrap()).unwrap();
    assert!(!runtime.cri.is_network_ready().unwrap());

    let metadata = Message::new()
        .text(1, "routelet-x")
        .text(2, "uid")
        .text(3, "kube-system");
    let host_network = Message::new().message(1, &Message::new().number(1, NODE));
    let linux = Message::new()
        .text(1, &runtime.control_group())
        .message(2, &host_network);
    let pod = Message::new()
        .message(1, &metadata)
        .text(3, inside("logs").to_str().unwrap())
        .message(8, &linux);
    let (host, port) = (address.ip().to_string(), address.port().to_string());
    let own = node.address(Family::V4).to_string();
    let variables = [
        ("ROUTELET_NODE_NAME", node.name()),
        ("HOST_IP", &own),
        ("KUBERNETES_SERVICE_HOST", &host),
        ("KUBERNETES_SERVICE_PORT", &port),
    ];
    let config = configuration(&objects, &variables, |path| match path {
        "/proc/sys/net" => path.into(),
        "/run/routelet" => inside("run"),
        "/opt/cni/bin" => runtime.file("bin"),
        "/etc/cni/net.d" => runtime.file("conf"),
        "/var/lib/cni/networks" => runtime.file("leases"),
        ACCOUNT => inside("account"),
        _ => panic!("the chart mounts {path}"),
    });
    let sandbox = runtime.cri.run_sandbox(&pod).unwrap();
    let container = runtime.cri.start_configured(&sandbox, &pod, &config).unwrap();

    let log = || fs::read_to_string(inside("logs/agent.log")).unwrap_or_default();
    let admin: SocketAddr = ADMIN.parse().unwrap();
    let ready = wait::until(wait::LONG, "the agent to be ready", || {
        http::get(node.netns(), admin, "/readyz").is_ok_and(|answer| answer.status == 200)
    });
    ready.unwrap_or_else(|error| panic!("{error}\n{}", log()));
    let view = KernelView::of(node.netns()).unwrap();
    let peer = cluster.nodes()[1].subnet;
    assert!(
        view.route(peer).is_some(),
        "no route to {peer} in\n{view}\n{}",
        log()
    );
    let forwards = node
        .netns()
        .run(|| sysctl::read(Sysctl::host(SysctlName::Ipv4IpForward)));
    assert_eq!(forwards.unwrap().unwrap(), Some(1));

    // Which is when the runtime learns of a network, and not before.
    let installed = wait::until(wait::LONG, "NetworkReady", || {
        runtime.cri.is_network_ready().unwrap()
    });
    installed.unwrap_or_else(|error| panic!("{error}\n{}", log()));
    assert!(runtime.file("conf/10-routelet.conflist").is_file());
    assert!(inside("run/routelet.sock").exists());

    assert_eq!(
        confinement(node.netns()),
        // NET_ADMIN is number 12.
        [
            "CapEff: 0000000000001000",
            "CapBnd: 0000000000001000",
            "NoNewPrivs: 1",
            "Seccomp: 2"
        ]
    );
    let version = runtime
        .cri
        .execute(&container, &["/bin/routelet", "--version"])
        .unwrap();
    assert_eq!(
        version.output.trim(),
        concat!("routelet ", env!("CARGO_PKG_VERSION"))
    );
    // As with kubectl exec: the container's variables count, its arguments do not.
    for (subcommand, shown) in [("status", "Agent          ready, in sync;"), ("diff", "")] {
        let executed = runtime
            .cri
            .execute(&container, &["/bin/routelet", subcommand])
            .unwrap();
        assert_eq!(executed.code, 0, "routelet {subcommand}: {}", executed.output);
        let is_right = match shown {
            "" => executed.output.is_empty(),
            shown => executed.output.contains(shown),
        };
        assert!(is_right, "routelet {subcommand}: {}", executed.output);
    }
    let troubles: Vec<_> = log()
        .lines()
        .filter(|line| line.contains("WARN") || line.contains("ERROR"))
        .map(str::to_owned)
        .collect();
    assert_eq!(troubles, [""; 0], "{}", log());
}
