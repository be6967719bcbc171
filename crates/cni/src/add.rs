//! ADD: connects a container.

use std::net::IpAddr;

use routelet_model::{Family, pod_gateway};
use routelet_netlink::Setup;
use routelet_netlink::setup::LinkState;

use crate::attachment::Attachment;
use crate::config::Input;
use crate::error::{Code, Error};
use crate::ipam::Ipam;
use crate::network::{Ends, Network, everywhere, host_veth, mac_text};
use crate::request::Request;
use crate::result::{CniResult, Interface, IpConfig, Route};
use crate::sandbox::{Sandbox, host, remove_veth};

/// Connects the container, or leaves nothing. The agent is not asked: the pod's network on this node needs none, and a
/// node that cannot start pods while its agent restarts would be worse.
pub(crate) fn add(input: &Input, request: &Request) -> Result<CniResult, Error> {
    let netns = request.netns()?;
    let mut sandbox = Sandbox::open(netns)?;
    let veth = host_veth(&input.config, request)?;
    let attachment = Attachment::of(&input.config.name, request);
    let mtu = input.mtu()?;
    refuse_taken(&mut sandbox, request)?;
    let mut host = host()?;
    let stale = stale_veth(&mut host, veth.as_str(), &attachment)?;

    let ipam = Ipam::require(input)?;
    // No interface of this name is in the sandbox: whatever the IPAM plugin holds for it, no one uses.
    let undo_addresses = |error: Error| match ipam.del() {
        Ok(()) => error,
        Err(more) => error.with_details(format!("and the addresses could not be given back: {more}")),
    };
    let given = ipam.add().map_err(undo_addresses)?;
    let addresses: Vec<IpAddr> = given.ips.iter().map(|ip| ip.address.addr()).collect();
    let network = Network {
        host_veth: veth,
        alias: attachment
            .alias(&addresses, request.pod.as_ref())
            .map_err(undo_addresses)?,
        ifname: request.ifname,
        addresses,
        mtu,
        protocol: input.config.route_protocol,
    };
    let made =
        replace(&mut host, stale).and_then(|()| network.make(&mut host, &mut sandbox.inside, &sandbox.netns));
    match made {
        Ok(ends) => Ok(result(input, &network, &ends, given, netns.display().to_string())),
        Err(error) => {
            let error = match remove_veth(&mut host, Some(veth), &attachment) {
                Ok(()) => error,
                Err(more) => error.with_details(format!("and the host veth could not be removed: {more}")),
            };
            Err(undo_addresses(error))
        }
    }
}

/// The specification wants an ADD to fail where the interface is there; and what is there stays as it is.
fn refuse_taken(sandbox: &mut Sandbox, request: &Request) -> Result<(), Error> {
    let ifname = request.ifname;
    let present = sandbox
        .inside
        .link(ifname.as_str())
        .map_err(Error::kernel(format!("looking for {ifname} in the pod")))?;
    if present.is_none() {
        return Ok(());
    }
    let message = format!(
        "container {} has an interface {ifname} already: the runtime has to ask for DEL before it asks for ADD again",
        request.container_id
    );
    Err(Error::new(Code::InterfaceTaken, message))
}

/// The veth that stands where ours is to be: that of an earlier sandbox of the pod. One of the same sandbox, under
/// another interface name, is alive.
fn stale_veth(host: &mut Setup, name: &str, attachment: &Attachment) -> Result<Option<LinkState>, Error> {
    let link = host
        .link(name)
        .map_err(Error::kernel(format!("looking for {name}")))?;
    let owner: Option<Attachment> = link
        .as_ref()
        .and_then(|link| link.alias.as_deref())
        .and_then(|alias| alias.parse().ok());
    match owner {
        Some(owner) if owner.container_id == attachment.container_id && owner.ifname != attachment.ifname => {
            let message = format!(
                "container {} is connected as {} already, through {name}: a pod has one interface of this plugin",
                owner.container_id, owner.ifname
            );
            Err(Error::new(Code::InterfaceTaken, message))
        }
        _ => Ok(link),
    }
}

fn replace(host: &mut Setup, stale: Option<LinkState>) -> Result<(), Error> {
    stale.map_or(Ok(()), |link| {
        host.delete(&link).map_err(Error::kernel(
            "removing the host veth of an earlier sandbox of the pod",
        ))
    })
}

fn result(input: &Input, network: &Network, ends: &Ends, given: CniResult, sandbox: String) -> CniResult {
    /// Place of the pod's end among the interfaces.
    const POD: usize = 1;
    let gateway = |ip: &IpConfig| pod_gateway(Family::of(ip.address.addr()));
    let routes = Family::ALL.into_iter().filter(|family| {
        network
            .addresses
            .iter()
            .any(|address| Family::of(*address) == *family)
    });
    CniResult {
        interfaces: vec![
            Interface {
                name: network.host_veth.to_string(),
                mac: mac_text(ends.host.mac),
                mtu: Some(ends.host.mtu),
                sandbox: None,
            },
            Interface {
                name: network.ifname.to_string(),
                mac: mac_text(ends.pod.mac),
                mtu: Some(ends.pod.mtu),
                sandbox: Some(sandbox),
            },
        ],
        ips: given
            .ips
            .iter()
            .map(|ip| IpConfig {
                address: ip.address.addr().into(),
                gateway: Some(gateway(ip)),
                interface: Some(POD),
            })
            .collect(),
        routes: routes
            .map(|family| Route {
                dst: everywhere(family),
                gw: Some(pod_gateway(family)),
            })
            .collect(),
        dns: input.config.dns.clone().or(given.dns),
    }
}
