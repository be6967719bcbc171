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

/// Whether a second try may help an operation that failed with this error.
pub(crate) fn is_worth_it(operation: &Operation, error: &Error) -> bool {
    error.errno() == Some(libc::EINVAL) && named_gateway(operation).is_some()
}

/// The link and the IPv6 gateway that the operation names to the kernel.
fn named_gateway(operation: &Operation) -> Option<(IfName, IpAddr)> {
    match (&operation.key, &operation.object) {
        _ if operation.verb == Verb::Delete => None,
        (Key::Nexthop { link, gateway }, _) | (_, Object::Route(RouteTarget::Gateway { link, gateway })) => {
            gateway.is_ipv6().then_some((*link, *gateway))
        }
        _ => None,
    }
}

impl Kernel {
    /// Carries out once more an operation that was `refused` and is worth it; nothing else may be in the batch.
    pub(crate) fn try_again(
        &mut self,
        index: usize,
        operations: &[Operation],
        refused: Error,
    ) -> Result<(), Error> {
        let Some((link, gateway)) = named_gateway(&operations[index]) else {
            return Err(refused);
        };
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

    fn carry_out_alone(&mut self, index: usize, operations: &[Operation]) -> Result<(), Error> {
        self.carry_out(index, &operations[index], operations, &mut Vec::new())?;
        let mut result = Ok(());
        self.requests
            .send_batch(&mut self.batch, &mut |_, error| result = Err(error));
        result
    }
}
