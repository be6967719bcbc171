//! Chains that drop what the host forwards: found wherever they are, and opened by rules of ours that everyone else's
//! programs understand.

use std::fs;

use ipnet::IpNet;
use routelet_lab::wait;
use routelet_netlink::Netns;
use routelet_netlink::forward::{Against, Forwarding, Opening, Passage};

use crate::need;
use crate::support::{nft, run};

/// A namespace and its forward hook.
struct Host {
    netns: Netns,
    forwarding: Forwarding,
}

impl Host {
    fn new() -> Self {
        let netns = Netns::new().unwrap();
        let forwarding = netns.run(|| Forwarding::open().unwrap()).unwrap();
        Self { netns, forwarding }
    }

    fn dropping(&mut self) -> Vec<String> {
        let Self { netns, forwarding } = self;
        let found = netns.run(|| forwarding.dropping().unwrap()).unwrap();
        found.iter().map(ToString::to_string).collect()
    }

    fn open_for(&mut self, subnets: &[&str]) -> Vec<Opening> {
        let subnets: Vec<IpNet> = subnets.iter().map(|subnet| subnet.parse().unwrap()).collect();
        let Self { netns, forwarding } = self;
        netns.run(|| forwarding.open_for(&subnets).unwrap()).unwrap()
    }

    /// The same; how many rules were added and removed in each chain, none of which may fail.
    fn opened_for(&mut self, subnets: &[&str]) -> Vec<(usize, usize)> {
        let openings = self.open_for(subnets);
        assert!(
            openings.iter().all(|opening| opening.failed.is_none()),
            "{openings:?}"
        );
        openings
            .iter()
            .map(|opening| (opening.added, opening.removed))
            .collect()
    }

    fn run(&self, line: &str) -> String {
        run(&self.netns, line)
    }

    /// The FORWARD rules as iptables-save shows them.
    fn saved(&self, program: &str) -> Vec<String> {
        let text = self.run(program);
        text.lines()
            .filter(|line| line.contains("FORWARD"))
            .map(str::to_owned)
            .collect()
    }
}

const SUBNETS: [&str; 3] = ["10.244.1.0/24", "10.244.2.128/25", "fd00:1::/64"];

#[test]
fn a_chain_that_drops_is_found_in_every_firewall() {
    need!("nft" "iptables-nft" "ip6tables-nft" "iptables-legacy" "ip6tables-legacy");
    let mut host = Host::new();
    assert_eq!(host.dropping(), Vec::<String>::new());
    nft(
        &host.netns,
        "add table inet fw; add chain inet fw pass { type filter hook forward priority 10; policy drop; };
         add chain inet fw in { type filter hook input priority 0; policy drop; };
         add chain inet fw pass2 { type filter hook forward priority 20; policy accept; };
         add table bridge b; add chain bridge b pass { type filter hook forward priority 10; policy drop; };",
    );
    assert_eq!(host.dropping(), ["nftables chain inet fw pass"]);
    for program in [
        "iptables-nft",
        "ip6tables-nft",
        "iptables-legacy",
        "ip6tables-legacy",
    ] {
        host.run(&format!("{program} -P FORWARD DROP"));
    }
    let all = [
        "nftables chain ip filter FORWARD",
        "nftables chain ip6 filter FORWARD",
        "nftables chain inet fw pass",
        "iptables-legacy chain ip filter FORWARD",
        "iptables-legacy chain ip6 filter FORWARD",
    ];
    assert_eq!(host.dropping(), all);
    for program in [
        "iptables-nft",
        "ip6tables-nft",
        "iptables-legacy",
        "ip6tables-legacy",
    ] {
        host.run(&format!("{program} -P FORWARD ACCEPT"));
    }
    assert_eq!(host.dropping(), ["nftables chain inet fw pass"]);
    nft(&host.netns, "add table inet fw { flags dormant; };");
    assert_eq!(
        host.dropping(),
        Vec::<String>::new(),
        "a dormant table drops nothing"
    );
}

#[test]
fn the_policy_of_a_legacy_table_is_found_behind_its_rules() {
    need!("iptables-legacy" "ip6tables-legacy");
    let mut host = Host::new();
    for program in ["iptables-legacy", "ip6tables-legacy"] {
        for number in 1..200 {
            host.run(&format!("{program} -A FORWARD -p tcp --dport {number} -j ACCEPT"));
        }
        host.run(&format!(
            "{program} -A INPUT -p udp -m comment --comment x -j DROP"
        ));
        host.run(&format!("{program} -P OUTPUT DROP"));
    }
    assert_eq!(host.dropping(), Vec::<String>::new());
    host.run("ip6tables-legacy -P FORWARD DROP");
    assert_eq!(host.dropping(), ["iptables-legacy chain ip6 filter FORWARD"]);
    host.run("iptables-legacy -P FORWARD DROP");
    assert_eq!(host.dropping().len(), 2);
}

/// The question must not make the tables of iptables-legacy.
#[test]
fn looking_leaves_no_trace() {
    need!("nft");
    let mut host = Host::new();
    assert_eq!(host.dropping(), Vec::<String>::new());
    assert_eq!(host.opened_for(&SUBNETS), []);
    let names = host
        .netns
        .run(|| fs::read_to_string("/proc/thread-self/net/ip_tables_names"))
        .unwrap();
    assert_eq!(names.unwrap_or_default(), "");
    assert_eq!(host.run("nft list ruleset"), "");
}

#[test]
fn opened_chains_accept_pod_subnets_first_and_are_restored() {
    need!("nft" "iptables-nft" "ip6tables-nft" "iptables-nft-save" "ip6tables-nft-save");
    let mut host = Host::new();
    host.run("iptables-nft -P FORWARD DROP");
    host.run("iptables-nft -A FORWARD -i nonsense -j DROP");
    host.run("ip6tables-nft -P FORWARD DROP");
    let before = host.saved("iptables-nft-save");
    assert_eq!(host.opened_for(&SUBNETS), [(4, 0), (2, 0)]);
    assert_eq!(host.opened_for(&SUBNETS), [], "a second time, nothing is to do");
    let comment = "-m comment --comment \"routelet: pod subnet\" -j ACCEPT";
    let mut saved = host.saved("iptables-nft-save");
    assert_eq!(saved.last(), before.last(), "ours are the first");
    saved.sort();
    let mut wanted = before.clone();
    for subnet in &SUBNETS[..2] {
        wanted.extend(["-s", "-d"].map(|end| format!("-A FORWARD {end} {subnet} {comment}")));
    }
    wanted.sort();
    assert_eq!(saved, wanted);
    let saved = host.saved("ip6tables-nft-save");
    assert!(
        saved.contains(&format!("-A FORWARD -d fd00:1::/64 {comment}")),
        "{saved:?}"
    );

    // A subnet goes, another comes.
    assert_eq!(
        host.opened_for(&["10.244.1.0/24", "10.244.3.0/26", "fd00:1::/64"]),
        [(2, 2)]
    );
    assert_eq!(host.opened_for(&SUBNETS), [(2, 2)]);
    // Someone flushes the chain, or changes a rule of ours, or adds one like it.
    host.run("iptables-nft -F FORWARD");
    assert_eq!(host.opened_for(&SUBNETS), [(4, 0)]);
    host.run("iptables-nft -D FORWARD 2");
    assert_eq!(host.opened_for(&SUBNETS), [(1, 0)]);
    let listed = host.run("nft -a list chain ip filter FORWARD");
    let ours = listed
        .lines()
        .find(|line| line.contains("10.244.1.0/24"))
        .unwrap();
    let handle = ours.rsplit(' ').next().unwrap();
    let other = "ip saddr 10.244.9.0/24 accept comment \"routelet: pod subnet\"";
    nft(
        &host.netns,
        &format!("replace rule ip filter FORWARD handle {handle} {other};"),
    );
    nft(&host.netns, &format!("add rule ip filter FORWARD {other};"));
    assert_eq!(host.opened_for(&SUBNETS), [(1, 2)]);
    host.run("iptables-nft -A FORWARD -s 10.244.1.0/24 -j ACCEPT");
    assert_eq!(host.opened_for(&SUBNETS), []);
    // The policy is mended, or the setting withdrawn: nothing of ours is left, and all that is others' is.
    host.run("iptables-nft -P FORWARD ACCEPT");
    assert_eq!(host.opened_for(&SUBNETS), [(0, 4)]);
    assert_eq!(host.opened_for(&[]), [(0, 2)]);
    assert_eq!(
        host.saved("iptables-nft-save")[1..],
        ["-A FORWARD -s 10.244.1.0/24 -j ACCEPT"]
    );
    assert_eq!(host.saved("ip6tables-nft-save").len(), 1);
}

/// What iptables-restore makes of our rules is ours still.
#[test]
fn rules_that_were_saved_and_restored_are_recognised() {
    need!("nft" "iptables-nft" "iptables-nft-save" "iptables-nft-restore");
    let mut host = Host::new();
    host.run("iptables-nft -P FORWARD DROP");
    assert_eq!(host.opened_for(&SUBNETS), [(4, 0)]);
    let saved = host.saved("iptables-nft-save");
    let file = std::env::temp_dir().join(format!("routelet-firewall-{}", std::process::id()));
    fs::write(&file, host.run("iptables-nft-save")).unwrap();
    host.run(&format!("iptables-nft-restore {}", file.display()));
    fs::remove_file(file).unwrap();
    assert_eq!(host.saved("iptables-nft-save"), saved);
    assert_eq!(host.opened_for(&SUBNETS), [], "nothing is to do");
    assert_eq!(host.opened_for(&[]), [(0, 4)]);
}

#[test]
fn a_chain_of_both_families_is_opened_for_both() {
    need!("nft");
    let mut host = Host::new();
    nft(
        &host.netns,
        "add table inet fw; add chain inet fw pass { type filter hook forward priority 0; policy drop; };
         add rule inet fw pass ct state established accept;",
    );
    assert_eq!(host.opened_for(&SUBNETS), [(6, 0)]);
    assert_eq!(host.opened_for(&SUBNETS), []);
    let chain = host.run("nft list chain inet fw pass");
    for rule in [
        "ip saddr 10.244.1.0/24",
        "ip daddr 10.244.2.128/25",
        "ip6 daddr fd00:1::/64",
    ] {
        assert!(chain.contains(rule), "{chain}");
    }
    nft(&host.netns, "flush chain inet fw pass;");
    assert_eq!(host.opened_for(&SUBNETS), [(6, 0)]);
    assert_eq!(host.opened_for(&[]), [(0, 6)]);
}

/// firewalld may own its table: the kernel refuses others' rules in it. The other chains are opened all the same.
#[test]
fn a_chain_that_cannot_be_opened_is_told_of_and_holds_up_no_other() {
    need!("nft" "iptables-nft");
    let mut host = Host::new();
    let owner = "add table inet owned { flags owner; }; add chain inet owned pass { type filter hook forward priority 0; policy drop; };";
    let mut command = std::process::Command::new("nft");
    command.arg("-i").stdin(std::process::Stdio::piped());
    let mut owner_process = host.netns.spawn(command).unwrap();
    use std::io::Write;
    writeln!(owner_process.stdin.as_ref().unwrap(), "{owner}").unwrap();
    wait::until(wait::LONG, "the owner's table", || host.dropping().len() == 1).unwrap();
    host.run("iptables-nft -P FORWARD DROP");
    let openings = host.open_for(&SUBNETS);
    let told: Vec<_> = openings
        .iter()
        .map(|o| (o.chain.to_string(), o.added, o.failed.is_some()))
        .collect();
    assert_eq!(
        told,
        [
            ("nftables chain inet owned pass".to_owned(), 0, true),
            ("nftables chain ip filter FORWARD".to_owned(), 4, false)
        ]
    );
    owner_process.kill().unwrap();
    owner_process.wait().unwrap();
}

#[test]
fn changes_by_others_are_heard_and_our_own_are_not() {
    need!("nft" "iptables-nft");
    let mut host = Host::new();
    assert!(!host.forwarding.changed());
    host.run("iptables-nft -P FORWARD DROP");
    assert!(host.forwarding.changed(), "a chain came");
    assert_eq!(host.opened_for(&SUBNETS), [(4, 0)]);
    assert!(!host.forwarding.changed(), "our own rules");
    host.run("iptables-nft -A FORWARD -j DROP");
    host.run("iptables-nft -A INPUT -j DROP");
    host.run("iptables-nft -N OTHER");
    assert!(!host.forwarding.changed(), "what does not concern us");
    host.run("iptables-nft -D FORWARD 1");
    assert!(host.forwarding.changed(), "a rule of ours went");
    host.run("iptables-nft -F FORWARD");
    assert!(host.forwarding.changed(), "all rules went");
    host.run("iptables-nft -P FORWARD ACCEPT");
    assert!(host.forwarding.changed(), "the policy was changed");
    nft(&host.netns, "flush ruleset");
    assert!(host.forwarding.changed(), "everything went");
}

#[test]
fn how_pods_pass_through_a_chain_that_drops_is_told_as_far_as_it_is_sure() {
    need!("nft" "iptables-legacy");
    let mut host = Host::new();
    let pod = "10.244.1.2".parse().unwrap();
    nft(
        &host.netns,
        "add table inet fw; add chain inet fw pass { type filter hook forward priority 10; policy drop; };",
    );
    let passages = |host: &mut Host| {
        let Host { netns, forwarding } = host;
        let look = || {
            let chains = forwarding.dropping().unwrap();
            let passage = |chain| forwarding.passage(chain, pod).unwrap();
            chains.iter().map(passage).collect::<Vec<_>>()
        };
        netns.run(look).unwrap()
    };
    assert_eq!(passages(&mut host), [Passage::Closed]);
    nft(&host.netns, "add rule inet fw pass tcp dport 80 accept");
    assert_eq!(passages(&mut host), [Passage::Undecided]);
    host.opened_for(&["10.244.2.0/24"]);
    assert_eq!(passages(&mut host), [Passage::Undecided]);
    host.opened_for(&["10.244.1.0/24"]);
    assert_eq!(passages(&mut host), [Passage::Opened]);

    host.run("iptables-legacy -P FORWARD DROP");
    assert_eq!(passages(&mut host), [Passage::Opened, Passage::Closed]);
    host.run("iptables-legacy -A FORWARD -s 10.244.0.0/16 -j ACCEPT");
    assert_eq!(passages(&mut host), [Passage::Opened, Passage::Undecided]);
}

#[test]
fn what_stands_in_the_tunnels_way_is_found() {
    need!("nft" "iptables-nft");
    let mut host = Host::new();
    let against = |host: &mut Host| -> Vec<(String, bool, bool)> {
        let Host { netns, forwarding } = host;
        let found = netns
            .run(|| forwarding.against_port(4789, "routelet").unwrap())
            .unwrap();
        let told = |against: Against| (against.chain.to_string(), against.sure, against.by_rule);
        found.into_iter().map(told).collect()
    };
    nft(
        &host.netns,
        "add table inet routelet; add chain inet routelet guard { type filter hook prerouting priority -300; };
         add rule inet routelet guard udp dport 4789 drop;
         add table inet fw; add chain inet fw in { type filter hook input priority 0; };
         add chain inet fw called; add rule inet fw in udp dport 4790 drop;
         add rule inet fw in udp dport 4789 accept; add rule inet fw in tcp dport 22 drop;",
    );
    assert_eq!(against(&mut host), []);
    nft(
        &host.netns,
        "add rule inet fw called ip saddr 10.0.0.0/8 udp dport 4789 reject",
    );
    let called = ("nftables chain inet fw called".to_owned(), false, true);
    assert_eq!(against(&mut host), std::slice::from_ref(&called));
    nft(&host.netns, "add rule inet fw in udp dport 4789 counter drop");
    let input = ("nftables chain inet fw in".to_owned(), true, true);
    assert!(against(&mut host).contains(&input), "{:?}", against(&mut host));
    host.run("iptables-nft -A INPUT -p udp --dport 4000:5000 -j DROP");
    let iptables = ("nftables chain ip filter INPUT".to_owned(), true, true);
    assert!(against(&mut host).contains(&iptables), "{:?}", against(&mut host));

    nft(&host.netns, "delete table inet fw");
    host.run("iptables-nft -F INPUT");
    assert_eq!(against(&mut host), []);
    host.run("iptables-nft -P INPUT DROP");
    let policy = |sure| ("nftables chain ip filter INPUT".to_owned(), sure, false);
    assert_eq!(against(&mut host), [policy(true)]);
    host.run("iptables-nft -A INPUT -i lo -j ACCEPT");
    assert_eq!(against(&mut host), [policy(false)]);
    nft(&host.netns, "add table ip filter { flags dormant; }");
    assert_eq!(against(&mut host), []);
}
