//! Shows routelet at work on this machine: three nodes as network namespaces, a real agent on each, the four roads of a
//! packet, damage that is repaired, an agent that is killed, nodes that come and go. Each step is checked.

mod breakage;
mod changes;
mod interrupt;
mod keep;
mod observer;
mod packets;
mod pings;
mod restart;
mod roads;
mod screen;
mod tables;
mod world;

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use clap::{Parser, ValueEnum};
use routelet_lab::{Backend, privilege};

use crate::interrupt::Interrupt;
use crate::screen::Screen;
use crate::world::World;

/// Three nodes, their agents and pods, on this machine, in network namespaces.
///
/// Needs root, or a kernel that lets an ordinary user make user namespaces; touches nothing outside the namespaces that
/// it makes, and they vanish with it. Ends with 0 only if each step went as it should.
#[derive(Debug, Parser)]
#[command(name = "demo")]
struct Arguments {
    /// Kubernetes API that the agents follow: one in memory, or a real kube-apiserver with its etcd, looked for in the
    /// directory that KUBEBUILDER_ASSETS names (else ~/.cache/routelet/kube-assets).
    #[arg(long, value_enum, default_value_t = ApiKind::Memory)]
    api: ApiKind,

    /// At the end, leave everything standing until Ctrl-C, and tell how to enter the nodes and pods.
    #[arg(long)]
    keep: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ApiKind {
    Memory,
    KubeApiserver,
}

/// As shells do it for SIGINT: 128 and the signal's number.
const INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut screen = Screen::new();
    // While there is one thread only: the kernel asks for that.
    let outcome = privilege::enter_user_namespace_if_needed()
        .and_then(|rootless| play(&arguments, rootless, &mut screen));
    match outcome {
        Ok(code) => code,
        Err(error) => {
            screen.failure(&error);
            ExitCode::FAILURE
        }
    }
}

fn play(arguments: &Arguments, rootless: bool, screen: &mut Screen) -> Result<ExitCode> {
    let interrupt = Interrupt::listen()?;
    let started = Instant::now();
    let backend = match arguments.api {
        ApiKind::Memory => Backend::Memory,
        ApiKind::KubeApiserver => Backend::KubeApiserver,
    };
    if rootless {
        screen.line("Not root: everything below is in a user namespace.")?;
    }
    let mut world = world::network(screen, backend)?;
    let shown = steps(screen, &interrupt, &mut world).and_then(|()| {
        screen.done(started.elapsed())?;
        if arguments.keep {
            keep::until_interrupted(screen, &interrupt, &world, rootless)?;
        }
        Ok(ExitCode::SUCCESS)
    });
    shown.or_else(|error| {
        if interrupt.happened() {
            screen.line("\nInterrupted; everything is taken away.")?;
            return Ok(ExitCode::from(INTERRUPTED));
        }
        world.show_logs(screen)?;
        Err(error)
    })
}

/// The play, step by step.
fn steps(screen: &mut Screen, interrupt: &Interrupt, world: &mut World) -> Result<()> {
    let steps: [fn(&mut Screen, &mut World) -> Result<()>; 8] = [
        world::agents,
        world::pods,
        packets::show,
        tables::show,
        roads::show,
        breakage::show,
        restart::show,
        changes::show,
    ];
    for step in steps {
        interrupt.check()?;
        step(screen, world)?;
    }
    interrupt.check()
}
