//! A second try for gateways that IPv6 takes for elsewhere.
//!
//! Onlink or not, the kernel refuses an IPv6 gateway on one link while any route but the default one leads to it
//! over another (ip6_route_check_nh_onlink): a peer's tunnel address lies within the peer's pod subnet, and until
//! now that subnet may have been reached over the underlay, or all pod subnets are by some wider route. What
//! counts is the moment in which the gateway is named, so for that moment a route shows the right link.

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage as Message;
use routelet_model::{IfName, Key, Object, RouteTarget, host_prefix};

use crate::route::{self, Hop};
use crate::{Error, Kernel, Operation, Verb};

/// Metric of the route for the moment: the least that a route of IPv6 can have.
const METRIC: u32 = 1;

/// What may help an operation that was refused.
#[derive(Debug, Clone, Copy)]
enum Remedy {
    /// To show the kernel that the gateway is on the link.
    Show(IfName, IpAddr),
    /// That its nexthop is there now.
    Nexthop(IfName, IpAddr),
}

/// Whether a second try may help an operation that failed with this error.
pub(crate) fn is_worth_it(operation: &Operation, error: &Error) -> bool {
    error.errno() == Some(libc::EINVAL) && remedy(operation).is_some()
}

fn remedy(operation: &Operation) -> Option<Remedy> {
    let (remedy, gateway) = match (&operation.key, &operation.object) {
        _ if operation.verb == Verb::Delete => return None,
        (Key::Nexthop { link, gateway }, _) | (_, Object::Route(RouteTarget::Gateway { link, gateway })) => {
            (Remedy::Show(*link, *gateway), *gateway)
        }
        (_, Object::Route(RouteTarget::Nexthop { link, gateway })) => {
            (Remedy::Nexthop(*link, *gateway), *gateway)
        }
        _ => return None,
    };
    gateway.is_ipv6().then_some(remedy)
}

impl Kernel {
    /// Carries out once more an operation that was `refused` and is worth it; nothing else may be in the batch. A
    /// nexthop comes before the routes through it.
    pub(crate) fn try_again(
        &mut self,
        index: usize,
        operations: &[Operation],
        refused: Error,
    ) -> Result<(), Error> {
        match remedy(&operations[index]) {
            Some(Remedy::Show(link, gateway)) => {
                let hop = Hop::Link(self.index_of(link)?);
                let shown = route::message(host_prefix(gateway), METRIC, self.view.config.protocol, hop);
                let show = Message::NewRoute(shown.clone());
                if self.requests.request(&show, NLM_F_CREATE | NLM_F_EXCL).is_err() {
                    return Err(refused);
                }
                let result = self.carry_out_alone(index, operations);
                self.requests.request(&Message::DelRoute(shown), 0)?;
                result
            }
            Some(Remedy::Nexthop(link, gateway)) if self.view.nexthops.id(link, gateway).is_some() => {
                self.carry_out_alone(index, operations)
            }
            _ => Err(refused),
        }
    }

    fn carry_out_alone(&mut self, index: usize, operations: &[Operation]) -> Result<(), Error> {
        self.carry_out(index, &operations[index], operations, &mut Vec::new())?;
        let mut result = Ok(());
        self.requests
            .send_batch(&mut self.batch, &mut |_, error| result = Err(error));
        result
    }
}
