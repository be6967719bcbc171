//! Leaves everything standing, and tells how to look around.

use anyhow::Result;
use routelet_netlink::Netns;

use crate::interrupt::Interrupt;
use crate::screen::Screen;
use crate::world::World;

pub(crate) fn until_interrupted(
    screen: &mut Screen,
    interrupt: &Interrupt,
    world: &World,
    rootless: bool,
) -> Result<()> {
    // In a user namespace the caller has rights only once he has entered it.
    let user = match rootless {
        true => format!(
            " --user=/proc/{}/ns/user --preserve-credentials",
            std::process::id()
        ),
        false => String::new(),
    };
    let enter = |netns: &Netns| format!("nsenter{user} --net={}", netns.path().display());
    screen.line("\nEverything stays as it is until Ctrl-C. To get in, from another terminal:\n")?;
    let mut rows = Vec::new();
    for (index, node) in world.cluster.nodes().iter().enumerate() {
        if node.agent.is_none() {
            continue;
        }
        rows.push([node.node.name().to_owned(), enter(node.node.netns())]);
        for pod in world.pods.get(&index).into_iter().flatten() {
            rows.push([format!("  {}", pod.id().name), enter(pod.netns())]);
        }
    }
    screen.table(["node, pod", "command"], &rows)?;
    let first = enter(world.cluster.nodes()[0].node.netns());
    screen.line("\nFor one:\n")?;
    for command in [
        "ip route",
        "ip link set vxlan.calico down",
        "curl -s http://127.0.0.1:9099/metrics",
    ] {
        screen.say(&format!("{first} {command}"))?;
    }
    interrupt.wait()?;
    screen.line("\nEverything is taken away.")
}
