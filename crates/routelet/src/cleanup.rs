//! `routelet cleanup`: takes away all that routelet has put on this node, in the kernel and among the files.
//!
//! The reconciler does it in the kernel, with nothing wanted: so what is ours is told by the same marks.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use routelet_cni::install::{CONFLIST_MODE, write_if_different};
use routelet_cni::{PLUGIN, UNINSTALLED_CONFLIST, refusing};
use routelet_model::{IfName, Kind, Object};
use routelet_netlink::forward::Forwarding;
use routelet_netlink::{Kernel, Verb};
use routelet_reconciler::{Ownership, Progress, Reconciler};

use crate::args::CleanupArgs;
use crate::encapsulation;
use crate::instance::Instance;
use crate::saved_sysctls;

/// How long the kernel may refuse something before it is given up.
const PATIENCE: Duration = Duration::from_secs(10);
/// Receive buffer for notifications in bytes; what does not fit costs one more look at everything.
const RECEIVE_BUFFER: u32 = 1 << 20;
/// The prefix of no link's name: a pod's route is not kept because its veth lives.
const NO_HOST_VETH: &str = "/";

/// What a runtime is told that wants to start a pod all the same.
const UNINSTALLED: &str = "routelet has been uninstalled from this node: pods that are there can be deleted, but none be started \
                           until a network plugin is installed";

/// Takes everything away. What is gone already is no failure.
pub(crate) fn run(args: &CleanupArgs) -> anyhow::Result<()> {
    // Held to the end: an agent that starts meanwhile would put everything back.
    let _instance = Instance::acquire()?;
    // First of all, the runtime gets no more pods from the plugin.
    let left_for_pods = args.files.cni_conf_dir.join(UNINSTALLED_CONFLIST);
    leave_for_pods(
        &args.files.cni_conf_dir.join(&args.files.cni_conf_name),
        &left_for_pods,
    )?;
    let devices = encapsulation::devices(&args.marks, None)?;
    let mut kernel = Kernel::open(args.marks.kernel_config(devices.clone(), RECEIVE_BUFFER))
        .context("cannot open the kernel's routing tables")?;
    let pods_left = count_pods(&mut kernel)?;
    clear_kernel(args, devices, kernel)?;
    close_firewalls()?;
    saved_sysctls::restore(&args.marks.saved_sysctls)?;
    remove(&args.marks.saved_sysctls)?;
    let plugin = args.files.cni_bin_dir.join(PLUGIN);
    if pods_left == 0 {
        remove(&left_for_pods)?;
        remove(&plugin)?;
    } else if plugin.exists() {
        tracing::warn!(
            "{} and {} stay: the container runtime needs them to delete {pods_left} pod networks that are left; delete these \
             pods and run routelet cleanup again",
            plugin.display(),
            left_for_pods.display()
        );
    }
    remove(&args.admin_socket)?;
    for file in [&args.admin_socket, &args.marks.saved_sysctls] {
        // One that holds anything else stays.
        let _ = file.parent().map(fs::remove_dir);
    }
    Ok(())
}

/// Puts in the place of the plugin's configuration one by which the runtime can delete pods but start none. Without any,
/// it does not delete pods either (containerd: "cni plugin not initialized"), and they hang in Terminating.
fn leave_for_pods(configuration: &Path, left_for_pods: &Path) -> anyhow::Result<()> {
    let text = match fs::read_to_string(configuration) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        text => text.with_context(|| format!("cannot read {}", configuration.display()))?,
    };
    if let Some(text) = refusing(&text, UNINSTALLED) {
        write_if_different(left_for_pods, text.as_bytes(), CONFLIST_MODE)
            .context("cannot leave a CNI configuration by which pods can be deleted")?;
    }
    remove(configuration)
}

/// How many veths there are that our plugin made.
fn count_pods(kernel: &mut Kernel) -> anyhow::Result<usize> {
    let mut count = 0;
    let counted = kernel.dump(Kind::Link, None, &mut |_, object| {
        count += usize::from(matches!(object, Object::Link(link) if !link.given.is_empty()));
    });
    counted.context("cannot read the links")?;
    Ok(count)
}

fn clear_kernel(args: &CleanupArgs, devices: Vec<IfName>, kernel: Kernel) -> anyhow::Result<()> {
    let ownership = Ownership {
        protocol: args.marks.route_protocol,
        devices,
        interface_prefix: NO_HOST_VETH.to_owned(),
    };
    let give_up = Instant::now() + PATIENCE;
    let mut reconciler = Reconciler::new(kernel, ownership, Instant::now());
    reconciler.allow_removal();
    loop {
        reconciler.host_if_changed(Instant::now())?;
        match reconciler.step(Instant::now()) {
            Progress::More => {}
            Progress::Idle(None) => break,
            Progress::Idle(Some(_)) if Instant::now() >= give_up => {
                let refused: Vec<String> = reconciler
                    .troubles()
                    .map(|(key, trouble)| format!("{key}: {}", trouble.error))
                    .collect();
                bail!("the kernel keeps what it shall not: {}", refused.join("; "));
            }
            Progress::Idle(Some(at)) => pause(at.min(give_up)),
        }
    }
    let removed = reconciler.take_report().operations;
    for kind in Kind::ALL {
        let count = removed.get(kind, Verb::Delete);
        if count > 0 {
            tracing::info!(%kind, count, "removed from the kernel");
        }
    }
    Ok(())
}

#[expect(
    clippy::disallowed_methods,
    reason = "the reconciler says when it wants to look again, and nothing else happens here"
)]
fn pause(until: Instant) {
    thread::sleep(until.saturating_duration_since(Instant::now()));
}

/// Takes our rules out of the host's firewalls.
fn close_firewalls() -> anyhow::Result<()> {
    let openings = Forwarding::open()
        .and_then(|mut forwarding| forwarding.open_for(&[]))
        .context("cannot read the host's firewalls")?;
    for opening in openings {
        if let Some(error) = opening.failed {
            bail!("cannot take our rules out of {}: {error}", opening.chain);
        }
        tracing::info!(chain = %opening.chain, count = opening.removed, "removed rules");
    }
    Ok(())
}

fn remove(file: &Path) -> anyhow::Result<()> {
    match fs::remove_file(file) {
        Ok(()) => tracing::info!(file = %file.display(), "removed"),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("cannot remove {}", file.display())),
    }
    Ok(())
}
