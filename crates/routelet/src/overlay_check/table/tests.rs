use super::*;

const V4: Family = Family::V4;

fn address(number: u16) -> IpAddr {
    let [high, low] = number.to_be_bytes();
    [10, 200, high, low].into()
}

fn peer(number: u16, is_there: bool) -> OverlayChange {
    OverlayChange::Peer {
        node: format!("node-{number}"),
        family: V4,
        address: is_there.then(|| address(number)),
    }
}

fn end() -> OverlayChange {
    let end = OverlayEnd {
        address: address(0),
        mtu: 1450,
    };
    OverlayChange::Own {
        family: V4,
        end: Some(end),
    }
}

/// A network in which time passes without anyone waiting.
struct World {
    table: Table,
    now: Instant,
    sent: Vec<(Duration, Probe)>,
    start: Instant,
}

impl World {
    fn new(rate: u32, peers: u16) -> Self {
        let now = Instant::now();
        let mut table = Table::new(rate, now);
        table.change(end(), now, Duration::ZERO);
        for number in 1..=peers {
            table.change(peer(number, true), now, Duration::ZERO);
        }
        Self {
            table,
            now,
            sent: Vec::new(),
            start: now,
        }
    }

    /// Lets time pass; a probe is answered at once where `arrives` says so. Returns the changes of verdicts.
    fn pass(&mut self, time: Duration, arrives: impl Fn(&Probe) -> bool) -> Vec<(Arc<str>, Verdict)> {
        let end = self.now + time;
        let mut changes = Vec::new();
        while let Some(wake) = self.table.next_wake().filter(|wake| *wake <= end) {
            self.now = self.now.max(wake);
            let mut outcomes = Vec::new();
            while let Some(probe) = self.table.take_due(self.now) {
                self.sent.push((self.now - self.start, probe));
                if arrives(&probe) {
                    outcomes.extend(self.table.answered(probe.number, probe.to, self.now));
                }
            }
            outcomes.extend(std::iter::from_fn(|| self.table.take_expired(self.now)));
            let changed = outcomes
                .into_iter()
                .filter(|outcome| outcome.verdict[0] != outcome.verdict[1]);
            changes.extend(changed.map(|outcome| (outcome.peer.0, outcome.verdict[1])));
        }
        self.now = end;
        changes
    }

    fn sent_to(&self, number: u16) -> usize {
        let to = address(number);
        self.sent.iter().filter(|(_, probe)| probe.to == to).count()
    }
}

#[test]
fn no_second_has_more_probes_than_the_rate_whatever_becomes_of_them() {
    for (rate, peers) in [(1, 3), (10, 5000), (1000, 5000), (1000, 2)] {
        let mut world = World::new(rate, peers);
        world.pass(Duration::from_secs(5), |_| true);
        world.pass(Duration::from_secs(5), |_| false);
        world.pass(Duration::from_secs(5), |probe| probe.bytes < 100);
        let times: Vec<_> = world.sent.iter().map(|(at, _)| *at).collect();
        for window in times.windows(rate as usize + 1) {
            assert!(
                window[rate as usize] - window[0] >= Duration::from_secs(1),
                "{rate} {peers}"
            );
        }
        assert!(!times.is_empty());
    }
}

#[test]
fn each_peer_has_its_turn_and_none_is_asked_more_than_once_a_second() {
    let mut world = World::new(100, 50);
    world.pass(Duration::from_secs(10), |_| true);
    for number in 1..=50 {
        assert!(
            (9..=11).contains(&world.sent_to(number)),
            "{}",
            world.sent_to(number)
        );
    }
    let mut world = World::new(10, 50);
    world.pass(Duration::from_secs(10), |_| true);
    for number in 1..=50 {
        assert!(
            (1..=3).contains(&world.sent_to(number)),
            "{}",
            world.sent_to(number)
        );
    }
}

#[test]
fn small_and_large_probes_are_sent_from_our_end() {
    let mut world = World::new(10, 1);
    world.pass(Duration::from_secs(3), |_| true);
    let sizes: Vec<_> = world
        .sent
        .iter()
        .map(|(_, probe)| (probe.from, probe.bytes))
        .collect();
    let (small, large) = ((address(0), 64), (address(0), 1450));
    assert_eq!(sizes, [small, large, small, large]);
}

/// With 1,000 peers and 10 probes a second, a round takes 100 s. Who has lost something is not waited for so long.
#[test]
fn one_lost_among_many_is_found_out_soon_after_its_turn() {
    let mut world = World::new(10, 1000);
    assert_eq!(world.pass(Duration::from_secs(100), |_| true).len(), 1000);
    let changes = world.pass(Duration::from_secs(110), |probe| probe.to != address(7));
    assert_eq!(changes, [("node-7".into(), Verdict::Unreachable)]);
    let times: Vec<_> = world
        .sent
        .iter()
        .filter(|(at, probe)| *at > Duration::from_secs(100) && probe.to == address(7))
        .map(|(at, _)| *at)
        .collect();
    assert!(times[2] - times[0] < Duration::from_secs(3), "{times:?}");
    assert_eq!(
        world.pass(Duration::from_secs(3), |_| true),
        [("node-7".into(), Verdict::Reachable)]
    );
}

#[test]
fn with_all_lost_and_one_left_the_one_has_every_second_turn() {
    let mut world = World::new(10, 20);
    world.pass(Duration::from_secs(10), |_| true);
    let changes = world.pass(Duration::from_secs(60), |probe| probe.to == address(20));
    assert_eq!(changes.len(), 19);
    let before = world.sent_to(20);
    world.pass(Duration::from_secs(10), |probe| probe.to == address(20));
    assert!(world.sent_to(20) - before >= 9);
}

#[test]
fn answers_of_strangers_late_ones_and_second_ones_are_none() {
    let mut world = World::new(10, 1);
    let probe = world.table.take_due(world.now).unwrap();
    assert_eq!(world.table.answered(probe.number, address(9), world.now), None);
    assert_eq!(world.table.answered(77, probe.to, world.now), None);
    let soon = world.now + Duration::from_millis(5);
    let outcome = world.table.answered(probe.number, probe.to, soon).unwrap();
    assert_eq!(outcome.fate, Fate::Answered(Duration::from_millis(5)));
    assert_eq!(outcome.verdict, [Verdict::Unknown, Verdict::Reachable]);
    assert_eq!(world.table.answered(probe.number, probe.to, soon), None);
    let later = world.now + Duration::from_secs(2);
    let probe = world.table.take_due(later).unwrap();
    let expired = world.table.take_expired(later + PATIENCE).unwrap();
    assert_eq!((expired.fate, expired.size), (Fate::Lost, Size::Large));
    assert_eq!(
        world.table.answered(probe.number, probe.to, later + PATIENCE),
        None
    );
}

#[test]
fn who_goes_is_asked_no_more_and_what_was_held_is_told() {
    let mut world = World::new(10, 2);
    world.pass(Duration::from_secs(2), |_| true);
    let probe = loop {
        if let Some(probe) = world.table.take_due(world.now) {
            break probe;
        }
        world.now += Duration::from_millis(100);
    };
    let number = if probe.to == address(1) { 1 } else { 2 };
    let gone = world.table.change(peer(number, false), world.now, Duration::ZERO);
    assert_eq!(gone.unwrap().1, Verdict::Reachable);
    assert_eq!(world.table.answered(probe.number, probe.to, world.now), None);
    world.sent.clear();
    world.pass(Duration::from_secs(5), |_| true);
    assert_eq!(world.sent_to(number), 0);
    assert_eq!(world.table.verdicts().count(), 1);
}

#[test]
fn without_an_end_of_our_own_nothing_is_sent_until_there_is_one() {
    let mut world = World::new(10, 2);
    let none = OverlayChange::Own {
        family: V4,
        end: None,
    };
    world.table.change(none, world.now, Duration::ZERO);
    world.pass(Duration::from_secs(5), |_| true);
    assert_eq!(world.sent, []);
    world.table.change(end(), world.now, Duration::ZERO);
    assert_eq!(world.pass(Duration::from_secs(2), |_| true).len(), 2);
}
