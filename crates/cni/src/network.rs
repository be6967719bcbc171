//! A pod's network: its veth pair with all that is set on either end.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::thread;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use routelet_model::{
    Family, HOST_VETH_MAC, IfName, MacAddr, Sysctl, SysctlName, host_prefix, host_veth_name,
    host_veth_sysctls, pod_gateway,
};
use routelet_netlink::setup::{LinkState, RouteSpec, VethEnd};
use routelet_netlink::{Netns, Setup, sysctl};

use crate::config::NetworkConfig;
use crate::error::{Code, Error};
use crate::request::Request;

/// Smallest MTU at which the kernel speaks IPv6 on a link (RFC 8200).
const SMALLEST_V6_MTU: u32 = 1280;

/// Until both ends carry packets. The kernel needs a few milliseconds at most.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a host veth needs beside [`host_veth_sysctls`] when it comes up with IPv6: its link-local address is the pod's
/// gateway, and after it has been down it has to be back, the same and at once.
const HOST_V6: [(SysctlName, u32); 3] = [
    (SysctlName::Ipv6Disable, 0),
    (SysctlName::Ipv6AcceptDad, 0),
    (SysctlName::Ipv6AddrGenMode, 0),
];

/// What the pod's end needs with IPv6: it is there (runtimes switch it off by default), it does not wait for duplicate
/// address detection, and nobody but the plugin gives it addresses and routes.
const POD_V6: [(SysctlName, u32); 3] = [
    (SysctlName::Ipv6Disable, 0),
    (SysctlName::Ipv6AcceptDad, 0),
    (SysctlName::Ipv6AcceptRa, 0),
];

/// Name of the host veth: by the pod, as the agent derives it; without a pod, by container and interface.
pub(crate) fn host_veth(config: &NetworkConfig, request: &Request) -> Result<IfName, Error> {
    let (namespace, name) = match &request.pod {
        Some(pod) => (pod.namespace.as_str(), pod.name.as_str()),
        None => (request.container_id.as_str(), request.ifname.as_str()),
    };
    host_veth_name(&config.interface_prefix, namespace, name).map_err(|error| {
        let message = format!(
            "interfacePrefix is {:?}: {error}; at most four bytes are wanted",
            config.interface_prefix
        );
        Error::new(Code::InvalidConfig, message)
    })
}

/// The destination that takes in all others.
pub(crate) fn everywhere(family: Family) -> IpNet {
    match family {
        Family::V4 => IpNet::new_assert(Ipv4Addr::UNSPECIFIED.into(), 0),
        Family::V6 => IpNet::new_assert(Ipv6Addr::UNSPECIFIED.into(), 0),
    }
}

/// What a pod shall have.
#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) host_veth: IfName,
    /// Says on the host veth whose it is.
    pub(crate) alias: String,
    /// The pod's end.
    pub(crate) ifname: IfName,
    pub(crate) addresses: Vec<IpAddr>,
    /// MTU of both ends; the kernel's default where there is none.
    pub(crate) mtu: Option<u32>,
    /// Protocol number of the host routes.
    pub(crate) protocol: u8,
}

/// The two ends as they came to be.
#[derive(Debug)]
pub(crate) struct Ends {
    pub(crate) host: LinkState,
    pub(crate) pod: LinkState,
}

impl Network {
    /// Brings it about. `host` and `inside` are open in the host's and the pod's namespace, `netns` is the pod's.
    ///
    /// When this returns, packets flow. On failure the host veth may be there.
    pub(crate) fn make(&self, host: &mut Setup, inside: &mut Setup, netns: &Netns) -> Result<Ends, Error> {
        let (veth, ifname) = (self.host_veth.as_str(), self.ifname.as_str());
        self.check_mtu()?;
        self.make_pair(host, netns)?;
        self.set_sysctls(netns)?;

        let refused = |what: &str| Error::kernel(format!("{what} {ifname} in the pod"));
        for address in &self.addresses {
            inside
                .add_address(ifname, host_prefix(*address))
                .map_err(Error::kernel(format!("giving {ifname} in the pod {address}")))?;
        }
        // The host's end first: who looks at the pod's end and finds it up shall find a network.
        host.set_up(veth)
            .map_err(Error::kernel(format!("setting up {veth}")))?;
        inside.set_up(ifname).map_err(refused("setting up"))?;
        for family in self.families() {
            let gateway = pod_gateway(family);
            if family == Family::V4 {
                inside
                    .add_route(RouteSpec::to_link(host_prefix(gateway), ifname))
                    .map_err(refused("the gateway's route on"))?;
                // Proxy ARP answers only for what the host itself would send on: without a default route it is silent.
                if !host
                    .has_route(gateway)
                    .map_err(Error::kernel(format!("the host's way to {gateway}")))?
                {
                    inside
                        .replace_neighbour(ifname, gateway, HOST_VETH_MAC)
                        .map_err(refused("the gateway's neighbour entry on"))?;
                }
            }
            inside
                .add_route(RouteSpec::via(everywhere(family), gateway, Some(ifname)))
                .map_err(refused("the default route on"))?;
        }
        for address in &self.addresses {
            let route = RouteSpec::to_link(host_prefix(*address), veth).protocol(self.protocol);
            host.replace_route(route)
                .map_err(Error::kernel(format!("the route to {address} on {veth}")))?;
        }
        let ends = Ends {
            host: self.host_end(host)?,
            pod: self.pod_end(inside)?,
        };
        self.wait_local(host, inside)?;
        Ok(ends)
    }

    fn check_mtu(&self) -> Result<(), Error> {
        match self.mtu {
            Some(mtu) if mtu < SMALLEST_V6_MTU && self.families().any(|family| family == Family::V6) => {
                let message = format!(
                    "mtu is {mtu}: IPv6 needs {SMALLEST_V6_MTU} at least; raise it, or give pods IPv4 addresses only"
                );
                Err(Error::new(Code::InvalidConfig, message))
            }
            _ => Ok(()),
        }
    }

    fn make_pair(&self, host: &mut Setup, netns: &Netns) -> Result<(), Error> {
        let veth = self.host_veth.as_str();
        let refused = |what| Error::kernel(format!("{what} {veth}"));
        let near = VethEnd {
            name: veth,
            mac: Some(HOST_VETH_MAC),
            mtu: self.mtu,
            alias: Some(&self.alias),
            up: false,
        };
        let far = VethEnd {
            name: self.ifname.as_str(),
            mtu: self.mtu,
            ..VethEnd::default()
        };
        host.add_veth(near, far, netns).map_err(refused("making"))?;
        if self.families().any(|family| family == Family::V6) {
            // Before it is up, and thus before the kernel would make it in its own time.
            let gateway = IpNet::new_assert(pod_gateway(Family::V6), 64);
            set(Sysctl::link(SysctlName::Ipv6Disable, self.host_veth), 0)?;
            host.add_address(veth, gateway)
                .map_err(refused("giving the gateway's address to"))?;
        }
        Ok(())
    }

    fn set_sysctls(&self, netns: &Netns) -> Result<(), Error> {
        for family in self.families() {
            for (name, value) in host_veth_sysctls(family) {
                set(Sysctl::link(*name, self.host_veth), *value)?;
            }
            if family == Family::V6 {
                set_all(&HOST_V6, self.host_veth)?;
                netns
                    .run(|| set_all(&POD_V6, self.ifname))
                    .map_err(Error::kernel("setting up the pod"))??;
            }
        }
        Ok(())
    }

    /// Waits until the host's end carries packets, and reads back what was set on it.
    fn host_end(&self, host: &mut Setup) -> Result<LinkState, Error> {
        let veth = self.host_veth.as_str();
        let mut link = wait_running(host, veth)?;
        if link.mac != Some(HOST_VETH_MAC) {
            // A kernel that ignores the address of a new link, or a udev that gives new links another.
            host.set_mac(veth, HOST_VETH_MAC)
                .map_err(Error::kernel(format!("the MAC address of {veth}")))?;
            link = wait_running(host, veth)?;
        }
        read_back(veth, "the MAC address", link.mac.as_ref(), &HOST_VETH_MAC)?;
        self.read_back_mtu(veth, &link)?;
        Ok(link)
    }

    fn pod_end(&self, inside: &mut Setup) -> Result<LinkState, Error> {
        let link = wait_running(inside, self.ifname.as_str())?;
        self.read_back_mtu(self.ifname.as_str(), &link)?;
        Ok(link)
    }

    fn read_back_mtu(&self, name: &str, link: &LinkState) -> Result<(), Error> {
        match &self.mtu {
            Some(mtu) => read_back(name, "the MTU", Some(&link.mtu), mtu),
            None => Ok(()),
        }
    }

    /// Waits until both ends know the IPv6 addresses for theirs, and answer who asks for them.
    fn wait_local(&self, host: &mut Setup, inside: &mut Setup) -> Result<(), Error> {
        for address in self.addresses.iter().filter(|address| address.is_ipv6()) {
            wait_local(inside, self.ifname.as_str(), *address)?;
            wait_local(host, self.host_veth.as_str(), pod_gateway(Family::V6))?;
        }
        Ok(())
    }

    fn families(&self) -> impl Iterator<Item = Family> {
        Family::ALL.into_iter().filter(|family| {
            self.addresses
                .iter()
                .any(|address| Family::of(*address) == *family)
        })
    }
}

/// Waits until the link carries packets: before, the first ones would be lost.
fn wait_running(setup: &mut Setup, name: &str) -> Result<LinkState, Error> {
    let what = || format!("{name} carries no packets {PATIENCE:?} after it was set up: someone sets it down");
    wait_until(what, || {
        let link = setup
            .link(name)
            .map_err(Error::kernel(format!("looking at {name}")))?;
        match link {
            Some(link) => Ok(link.running.then_some(link)),
            None => {
                let message = format!("{name} is gone while it is being set up: someone deletes it");
                Err(Error::new(Code::ReadBack, message))
            }
        }
    })
}

fn wait_local(setup: &mut Setup, link: &str, address: IpAddr) -> Result<(), Error> {
    let what = || {
        format!("{link} does not answer for {address} {PATIENCE:?} after it was given: someone takes it away")
    };
    wait_until(what, || {
        let is_local = setup.is_local(link, address);
        Ok(is_local
            .map_err(Error::kernel(format!("looking for {address} on {link}")))?
            .then_some(()))
    })
}

/// Asks the kernel until it is so far. It is at work meanwhile, and needs a millisecond or none.
fn wait_until<T>(
    what: impl Fn() -> String,
    mut attempt: impl FnMut() -> Result<Option<T>, Error>,
) -> Result<T, Error> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = attempt()? {
            return Ok(value);
        }
        if Instant::now() >= deadline {
            return Err(Error::new(Code::ReadBack, what()));
        }
        thread::yield_now();
    }
}

fn set_all(sysctls: &[(SysctlName, u32)], link: IfName) -> Result<(), Error> {
    sysctls
        .iter()
        .try_for_each(|(name, value)| set(Sysctl::link(*name, link), *value))
}

/// Sets a value where it differs, and reads it back.
fn set(sysctl: Sysctl, value: u32) -> Result<(), Error> {
    let read = || sysctl::read(sysctl).map_err(Error::kernel(format!("reading {sysctl}")));
    match read()? {
        Some(present) if present == value => return Ok(()),
        Some(_) => {}
        None => {
            let message = format!(
                "/proc/sys/{sysctl} is not there: the kernel has no IPv6; enable it, or give pods IPv4 addresses only"
            );
            return Err(Error::new(Code::Kernel, message));
        }
    }
    sysctl::write(sysctl, value).map_err(Error::kernel(format!("setting {sysctl}")))?;
    read_back(&sysctl.to_string(), "the value", read()?.as_ref(), &value)
}

fn read_back<T: PartialEq + std::fmt::Debug>(
    thing: &str,
    what: &str,
    found: Option<&T>,
    wanted: &T,
) -> Result<(), Error> {
    if found == Some(wanted) {
        return Ok(());
    }
    let found = found.map_or_else(|| "none".to_owned(), |found| format!("{found:?}"));
    let message = format!(
        "{thing}: {what} was set to {wanted:?} and reads back as {found}: something on this host changes it, as \
         systemd-udevd with a MACAddressPolicy or a network manager would"
    );
    Err(Error::new(Code::ReadBack, message))
}

/// As text in a result.
pub(crate) fn mac_text(mac: Option<MacAddr>) -> Option<String> {
    mac.map(|mac| mac.to_string())
}
