//! `routelet trace`: the way of a packet from a pod of this node, hop by hop, each checked against the kernel.
//!
//! `gather` reads the kernel, `resolve` says whom the ends are, `walk` judges, `report` tells. The agent is asked for what
//! it knows, and not needed.

mod gather;
mod hop;
mod known;
mod observed;
mod report;
mod resolve;
mod walk;

use anyhow::{Context, anyhow};
use routelet_model::PodId;
use routelet_watcher::ApiSettings;

use crate::args::{EXIT_BROKEN, EXIT_STOPPED, EXIT_USAGE, Output, TraceArgs, TraceSettings};
use crate::ask;
use gather::Eyes;
use observed::To;
use report::Way;

pub(crate) use resolve::End;

/// Looks at the way and tells; returns the exit code. An error means that it could not be looked at.
pub(crate) fn run(args: &TraceArgs) -> anyhow::Result<u8> {
    let question = &args.question;
    let (known, of_agent, silent) = match known::ask(&question.agent.admin_socket) {
        Ok((known, settings)) => (Some(known), settings, None),
        Err(why) => (None, Vec::new(), Some(why)),
    };
    let settings = match args.settings(&of_agent) {
        Ok(settings) => settings,
        Err(error) => {
            error.print()?;
            return Ok(EXIT_USAGE);
        }
    };
    let mut eyes = Eyes::open(&settings)?;
    let prefix = &settings.marks.interface_prefix;
    let from =
        resolve::source(&question.from, known.as_ref(), &eyes, prefix).map_err(|error| anyhow!(error))?;
    let to = match (
        resolve::target(&question.to, known.as_ref(), &eyes, prefix),
        &question.to,
    ) {
        (Some(to), _) => to,
        (None, End::Pod(id)) => ask_api(&settings, id)?,
        (None, End::Address(_)) => Vec::new(),
    };
    let mut ways = Vec::new();
    let pairs = resolve::pairs(&from, to)
        .map_err(|error| anyhow!("{} and {}: {error}", question.from, question.to))?;
    for (from, to) in pairs {
        ways.push(Way::new(eyes.observed(&settings, from, to, known.clone())?));
    }
    let text = match question.output.output {
        Output::Table => report::table(&ways, silent.as_deref())?,
        Output::Json => report::json(&ways, silent.as_deref()),
    };
    ask::print(&text)?;
    Ok(match ways.iter().all(|way| way.broken().is_none()) {
        true => EXIT_STOPPED,
        false => EXIT_BROKEN,
    })
}

/// A pod of another node, as the API knows it.
fn ask_api(settings: &TraceSettings, id: &PodId) -> anyhow::Result<Vec<To>> {
    let unknown = || {
        format!(
            "{id} is no pod of this node, and the Kubernetes API could not be asked where it is (--kubeconfig, \
             --api-server-host and --api-server-port, or their variables, as the agent has them); its address in place of its \
             name needs no API"
        )
    };
    let settings = ApiSettings::from(&settings.api);
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
