//! CHECK: whether a container is connected as ADD left it.

use std::net::IpAddr;

use routelet_model::{Family, IfName, Sysctl, host_prefix, host_veth_sysctls, pod_gateway};
use routelet_netlink::inspect::{Inspector, RouteRow};
use routelet_netlink::setup::LinkState;
use routelet_netlink::{Netns, sysctl};

use crate::attachment::Attachment;
use crate::config::Input;
use crate::error::{Code, Error};
use crate::ipam::Ipam;
use crate::network::{everywhere, host_veth, mac_text};
use crate::request::Request;
use crate::result::{CniResult, Interface};
use crate::sandbox::{Sandbox, host};

/// Compares with the result of the ADD, and tells all that differs.
pub(crate) fn check(input: &Input, request: &Request) -> Result<(), Error> {
    let previous = input.previous_result()?;
    let netns = request.netns()?;
    let mut sandbox = Sandbox::open(netns)?;
    let veth = host_veth(&input.config, request)?;
    let looking = |what: &str| Error::kernel(format!("looking at {what}"));
    let host_end = host()?.link(veth.as_str()).map_err(looking(veth.as_str()))?;
    let pod_end = sandbox
        .inside
        .link(request.ifname.as_str())
        .map_err(looking("the pod"))?;

    let (mut found, mtu) = (Differences::default(), input.mtu()?);
    let attachment = Attachment::of(&input.config.name, request);
    found.compare_host_end(veth, host_end.as_ref(), &attachment);
    for (name, link, inside) in [(veth, host_end, false), (request.ifname, pod_end, true)] {
        let told = previous
            .interfaces
            .iter()
            .find(|interface| interface.name == name.as_str() && is_inside(interface) == inside);
        found.compare_link(name, link.as_ref(), told, mtu);
    }
    let addresses = pod_addresses(&previous, request.ifname);
    found
        .compare_pod(&sandbox.netns, request.ifname, &addresses)
        .map_err(looking("the pod"))?;
    found
        .compare_host(veth, &addresses)
        .map_err(looking("the host"))?;
    if !found.0.is_empty() {
        let message = format!(
            "the network of container {} is not as ADD left it: make the pod anew, unless routelet's agent repairs it",
            request.container_id
        );
        return Err(Error::new(Code::NotAsAdded, message).with_details(found.0.join("; ")));
    }
    match Ipam::find(input)? {
        Some(ipam) => ipam.check(),
        None => Ok(()),
    }
}

fn is_inside(interface: &Interface) -> bool {
    interface
        .sandbox
        .as_ref()
        .is_some_and(|sandbox| !sandbox.is_empty())
}

/// The addresses of the pod's interface: plugins that came after ours may have added others.
fn pod_addresses(previous: &CniResult, ifname: IfName) -> Vec<IpAddr> {
    let its = |interface: &Interface| interface.name == ifname.as_str() && is_inside(interface);
    previous
        .ips
        .iter()
        .filter(|ip| {
            ip.interface
                .is_none_or(|number| previous.interfaces.get(number).is_some_and(its))
        })
        .map(|ip| ip.address.addr())
        .collect()
}

/// What is not as it was.
#[derive(Debug, Default)]
struct Differences(Vec<String>);

impl Differences {
    fn tell(&mut self, what: impl Into<String>) {
        self.0.push(what.into());
    }

    fn compare_host_end(&mut self, veth: IfName, link: Option<&LinkState>, attachment: &Attachment) {
        let Some(link) = link else { return };
        let alias = link.alias.as_deref().unwrap_or_default();
        if alias.parse().ok().as_ref() != Some(attachment) {
            self.tell(format!("{veth} is not this container's but says {alias:?}"));
        }
    }

    fn compare_link(
        &mut self,
        name: IfName,
        link: Option<&LinkState>,
        told: Option<&Interface>,
        mtu: Option<u32>,
    ) {
        let (Some(link), Some(told)) = (link, told) else {
            match link {
                None => self.tell(format!("{name} is gone")),
                Some(_) => self.tell(format!("prevResult does not tell of {name}")),
            }
            return;
        };
        if !link.up {
            self.tell(format!("{name} is down"));
        }
        let mac = mac_text(link.mac);
        if told.mac.is_some() && told.mac != mac {
            self.tell(format!(
                "{name} has the MAC address {}, not {}",
                mac.unwrap_or_default(),
                told.mac.as_deref().unwrap_or_default()
            ));
        }
        if let Some(wanted) = told.mtu.or(mtu)
            && wanted != link.mtu
        {
            self.tell(format!("{name} has the MTU {}, not {wanted}", link.mtu));
        }
    }

    fn compare_pod(
        &mut self,
        netns: &Netns,
        ifname: IfName,
        addresses: &[IpAddr],
    ) -> Result<(), routelet_netlink::Error> {
        let mut inspector = Inspector::open_in(netns)?;
        let present = inspector.addresses()?;
        for address in addresses {
            let wanted = host_prefix(*address);
            if !present
                .iter()
                .any(|row| row.link == ifname && row.address == wanted)
            {
                self.tell(format!("{ifname} does not have {wanted}"));
            }
        }
        for family in Family::ALL {
            if !addresses.iter().any(|address| Family::of(*address) == family) {
                continue;
            }
            let routes = inspector.routes(family)?;
            let gateway = pod_gateway(family);
            let leads = |route: &RouteRow| {
                route.destination == everywhere(family)
                    && route.link == Some(ifname)
                    && route.gateway == Some(gateway)
            };
            if !routes.iter().any(leads) {
                self.tell(format!("{ifname} has no default route via {gateway}"));
            }
            if family == Family::V4
                && !routes
                    .iter()
                    .any(|route| route.destination == host_prefix(gateway) && route.link == Some(ifname))
            {
                self.tell(format!("{ifname} has no route to its gateway {gateway}"));
            }
        }
        Ok(())
    }

    fn compare_host(&mut self, veth: IfName, addresses: &[IpAddr]) -> Result<(), routelet_netlink::Error> {
        let mut inspector = Inspector::open()?;
        for family in Family::ALL {
            let mut of_family = addresses
                .iter()
                .filter(|address| Family::of(**address) == family)
                .peekable();
            if of_family.peek().is_none() {
                continue;
            }
            let routes = inspector.routes(family)?;
            for address in of_family {
                let destination = host_prefix(*address);
                let leads = |route: &RouteRow| route.destination == destination && route.link == Some(veth);
                if !routes.iter().any(leads) {
                    self.tell(format!("the host has no route to {destination} on {veth}"));
                }
            }
            for (name, wanted) in host_veth_sysctls(family) {
                let setting = Sysctl::link(*name, veth);
                match sysctl::read(setting)? {
                    Some(value) if value != *wanted => {
                        self.tell(format!("{setting} is {value}, not {wanted}"));
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }
}
