//! Kills an agent under traffic and starts it again: not a packet is lost, and it finds nothing to write.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use routelet_lab::{Ping, Pinger, Pod, wait};

use crate::pings::address;
use crate::screen::Screen;
use crate::world::World;

/// Time between requests.
const INTERVAL: Duration = Duration::from_millis(2);
/// Replies to have before the agent is killed, while it is dead, and after it is ready again.
const REPLIES: u64 = 100;

pub(crate) fn show(screen: &mut Screen, world: &mut World) -> Result<()> {
    screen.step("The agent on node-1 is killed (SIGKILL) and started again, under a ping each 2 ms")?;
    let before = world.observer.state()?;
    let [web, api, other_node] = [world.pod(0, 0)?, world.pod(0, 1)?, world.pod(1, 0)?];
    let pings = [(web, api), (other_node, web)];
    let names = pings.map(|(from, to)| [from.id().name.clone(), to.id().name.clone()]);
    let pingers = pings
        .map(|(from, to)| start(from, to))
        .into_iter()
        .collect::<Result<Vec<_>>>()?;
    let replies = |what: &str| -> Result<()> {
        let waited = pingers
            .iter()
            .try_for_each(|pinger: &Pinger| pinger.wait_replies(REPLIES, wait::LONG));
        waited.with_context(|| what.to_owned())
    };

    replies("before the agent is killed")?;
    let agent = world.cluster.node(0).agent()?;
    let pid = agent.pid();
    agent.kill()?;
    // The log begins anew with the agent.
    let log_before = agent.log();
    let killed = Instant::now();
    replies("while there is no agent")?;
    agent.restart()?;
    let dead = killed.elapsed();
    let started = Instant::now();
    agent.wait_ready(wait::LONG)?;
    let ready = started.elapsed();
    let in_sync = agent.wait_log("in sync", wait::LONG)?;
    let new_pid = agent.pid();
    replies("after the agent has been started again")?;

    screen.say(&format!(
        "pid {pid} killed; {} ms later pid {new_pid}, ready after {} ms",
        dead.as_millis(),
        ready.as_millis()
    ))?;
    screen.say(&format!("its log: {in_sync}\n"))?;
    let mut rows = Vec::new();
    for (pinger, [from, to]) in pingers.into_iter().zip(names) {
        let report = pinger.stop()?;
        ensure!(
            report.lost.is_empty(),
            "pinging {to} from {from}: {report}; lost are numbers {:?}; the killed agent's log:\n{}",
            report.lost,
            log_before.join("\n")
        );
        rows.push([from, to, report.sent.to_string(), report.lost.len().to_string()]);
    }
    screen.table(["from", "to", ">sent", ">lost"], &rows)?;
    world.observer.wait_state(&before)?;
    screen.say("")?;
    screen.say("The kernel's state is what it was.")
}

fn start(from: &Pod, to: &Pod) -> Result<Pinger> {
    Ping::to(address(to)?).interval(INTERVAL).start(from.netns())
}
