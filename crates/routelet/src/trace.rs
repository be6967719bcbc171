//! `routelet trace`: the way of a packet from a pod of this node, hop by hop, each checked against the kernel.
//!
//! `gather` reads the kernel, `resolve` says whom the ends are, `walk` judges, `report` tells. The agent is asked for what
//! it knows, and not needed.

mod facts;
mod gather;
mod hop;
mod known;
mod report;
mod resolve;
mod walk;

use std::str::FromStr;

use anyhow::{Context, anyhow};
use routelet_model::PodId;
use routelet_watcher::ApiSettings;

use crate::args::{EXIT_BROKEN, EXIT_STOPPED, Output, TraceArgs};
use crate::ask;
use facts::{Known, To};
use gather::Eyes;
use report::Way;

pub(crate) use resolve::End;

/// Looks at the way and tells; returns the exit code. An error means that it could not be looked at.
pub(crate) fn run(args: &TraceArgs) -> anyhow::Result<u8> {
    let (known, silent) = match known::ask(&args.agent.admin_socket) {
        Ok(known) => (Some(known), None),
        Err(why) => (None, Some(why)),
    };
    let args = &as_the_agent(args.clone(), known.as_ref());
    let mut eyes = Eyes::open(args)?;
    let prefix = &args.marks.interface_prefix;
    let from = resolve::source(&args.from, known.as_ref(), &eyes, prefix).map_err(|error| anyhow!(error))?;
    let to = match (resolve::target(&args.to, known.as_ref(), &eyes, prefix), &args.to) {
        (Some(to), _) => to,
        (None, End::Pod(id)) => ask_api(args, id)?,
        (None, End::Address(_)) => Vec::new(),
    };
    let mut ways = Vec::new();
    let pairs =
        resolve::pairs(&from, to).map_err(|error| anyhow!("{} and {}: {error}", args.from, args.to))?;
    for (from, to) in pairs {
        ways.push(Way::new(eyes.facts(args, from, to, known.clone())?));
    }
    let text = match args.output.output {
        Output::Table => report::table(&ways, silent.as_deref())?,
        Output::Json => report::json(&ways, silent.as_deref()),
    };
    ask::print(&text)?;
    Ok(match ways.iter().all(|way| way.broken().is_none()) {
        true => EXIT_STOPPED,
        false => EXIT_BROKEN,
    })
}

/// The arguments with the settings that the agent has: by these is known what is its own.
fn as_the_agent(mut args: TraceArgs, known: Option<&Known>) -> TraceArgs {
    let Some(known) = known else { return args };
    let TraceArgs {
        marks,
        api,
        masquerade,
        ..
    } = &mut args;
    set(known, "vxlan-device", &mut marks.vxlan_device);
    set(known, "vxlan-device-v6", &mut marks.vxlan_device_v6);
    set(known, "interface-prefix", &mut marks.interface_prefix);
    set(known, "route-protocol", &mut marks.route_protocol);
    set(known, "nft-table", &mut marks.nft_table);
    set(known, "masquerade", masquerade);
    // Whoever names another way to the API knows why.
    api.kubeconfig = api.kubeconfig.take().or(known.setting("kubeconfig"));
    api.api_server_host = api.api_server_host.take().or(known.setting("api-server-host"));
    api.api_server_port = api.api_server_port.or(known.setting("api-server-port"));
    args
}

fn set<T: FromStr>(known: &Known, flag: &str, setting: &mut T) {
    if let Some(value) = known.setting(flag) {
        *setting = value;
    }
}

/// A pod of another node, as the API knows it.
fn ask_api(args: &TraceArgs, id: &PodId) -> anyhow::Result<Vec<To>> {
    let unknown = || {
        format!(
            "{id} is no pod of this node, and the Kubernetes API could not be asked where it is (--kubeconfig, \
             --api-server-host and --api-server-port, or their variables, as the agent has them); its address in place of its \
             name needs no API"
        )
    };
    let settings = ApiSettings::from(&args.api);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let found = runtime.block_on(async {
        let client = routelet_watcher::connect(&settings).await?;
        routelet_watcher::find_pod(&client, id).await
    });
    let Some(found) = found.with_context(unknown)? else {
        return Err(anyhow!(
            "there is no pod {id}: see kubectl get pod --all-namespaces"
        ));
    };
    if found.pod.addresses.is_empty() {
        return Err(anyhow!("pod {id} has no address yet: see kubectl describe pod"));
    }
    let to = |address| To {
        pod: Some(id.clone()),
        node: found.node.clone(),
        address,
        veth: None,
    };
    Ok(found.pod.addresses.iter().copied().map(to).collect())
}
