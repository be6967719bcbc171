//! What the kernel holds, table by table.

use netlink_packet_route::RouteNetlinkMessage as Message;
use routelet_model::{Family, Host, IfName, Key, Kind, Object};

use crate::address::SeenAddress;
use crate::attributes::family_number;
use crate::link::SeenLink;
use crate::nexthop::{NexthopMessage, SeenNexthop};
use crate::view::View;
use crate::{Error, Kernel, address, link, neighbour, route};

impl Kernel {
    /// Visits every object of the kind that carries our mark, on one link only if it is given: routes and nexthops
    /// of our protocol; all addresses (but IPv6 link-local ones), FDB entries and permanent neighbours on our
    /// devices; our devices and the host veths; our nft table, its elements and rules. Sysctls cannot be dumped:
    /// see [`Kernel::sysctl`].
    ///
    /// A table that does not exist is empty. A dump that changes interrupt is begun again, and fails with
    /// [`Error::Interrupted`] if that does not end; then nothing has been visited.
    pub fn dump(
        &mut self,
        kind: Kind,
        link: Option<IfName>,
        visit: &mut dyn FnMut(Key, Object),
    ) -> Result<(), Error> {
        let mut found = self.dump_once(kind, link)?;
        if self.view.links.take_missed() {
            // A link is there whose notification is still queued.
            self.refresh_links()?;
            found = self.dump_once(kind, link)?;
            self.view.links.take_missed();
        }
        for (key, object) in found {
            visit(key, object);
        }
        Ok(())
    }

    fn dump_once(&mut self, kind: Kind, link: Option<IfName>) -> Result<Vec<(Key, Object)>, Error> {
        self.view.links.take_missed();
        let index = match link
            .filter(|_| kind != Kind::Link)
            .map(|link| self.index_of(link))
        {
            None => None,
            Some(Ok(index)) => Some(index),
            Some(Err(Error::NoSuchLink(_))) => return Ok(Vec::new()),
            Some(Err(error)) => return Err(error),
        };
        let mut found = Vec::new();
        match kind {
            Kind::Link => found = self.dump_links(link)?,
            Kind::Sysctl | Kind::ChecksumOffload => {}
            Kind::NftTable | Kind::NftElement | Kind::NftRules => {
                if let Some((nft, _)) = &mut self.nft
                    && link.is_none()
                {
                    nft.dump(kind, &mut found)?;
                }
            }
            Kind::Nexthop => found = self.dump_nexthops(index).or_else(empty)?,
            Kind::Address | Kind::Fdb | Kind::Neighbour => {
                for device in self.view.config.devices.clone() {
                    if link.is_none_or(|link| link == device)
                        && let Ok(index) = self.index_of(device)
                    {
                        self.dump_device(kind, index, &mut found)?;
                    }
                }
            }
            Kind::Route => {
                let protocol = self.view.config.protocol;
                for family in Family::ALL {
                    let request = match index {
                        None => route::get(family, protocol),
                        Some(index) => route::get_of_link(family, protocol, index),
                    };
                    self.dump_kind(kind, Some(family), Message::GetRoute(request), &mut found)?;
                }
                // A kernel that does not filter tells all routes.
                found.retain(|(_, object)| match object {
                    Object::OddRoutes => true,
                    Object::Route(target) => link.is_none() || target.link() == link,
                    _ => false,
                });
                // Several of ours under one key: none that we make.
                join_repeated(&mut found, &Object::OddRoutes);
            }
        }
        Ok(found)
    }

    fn dump_device(&mut self, kind: Kind, index: u32, found: &mut Vec<(Key, Object)>) -> Result<(), Error> {
        if kind == Kind::Fdb {
            self.dump_kind(
                kind,
                None,
                Message::GetNeighbour(neighbour::get_fdb(index)),
                found,
            )?;
            // An address with several remotes comes once for each: none that we make.
            join_repeated(found, &Object::Foreign { protocol: 0 });
            return Ok(());
        }
        for family in Family::ALL {
            let request = match kind {
                Kind::Address => Message::GetAddress(address::get(family, index)),
                _ => Message::GetNeighbour(neighbour::get(family, index)),
            };
            let before = found.len();
            self.dump_kind(kind, Some(family), request, found)?;
            let name = self.view.links.name(index);
            // A kernel that does not filter tells those of all links.
            let mut position = 0;
            found.retain(|(key, _)| {
                position += 1;
                position <= before || key.link() == name
            });
        }
        Ok(())
    }

    /// Dumps what the view can read by itself. A kernel without the family answers for all families.
    fn dump_kind(
        &mut self,
        kind: Kind,
        family: Option<Family>,
        request: Message,
        found: &mut Vec<(Key, Object)>,
    ) -> Result<(), Error> {
        let view = &self.view;
        let family = family.map(family_number);
        let before = found.len();
        let result = self.dumps.dump(&request, found, |_, payload| match family {
            Some(family) if payload.first() != Some(&family) => Ok(None),
            _ => view.read(kind, payload),
        });
        result.or_else(|error| {
            found.truncate(before);
            empty(error)
        })
    }

    fn dump_links(&mut self, link: Option<IfName>) -> Result<Vec<(Key, Object)>, Error> {
        let seen = match link {
            Some(name) => self.get_link(name)?.into_iter().collect(),
            None => self.refresh_links()?,
        };
        Ok(seen
            .iter()
            .filter_map(|link| self.view.link_object(link))
            .collect())
    }

    /// Learns all links anew.
    pub(crate) fn refresh_links(&mut self) -> Result<Vec<SeenLink>, Error> {
        let mut seen = Vec::new();
        self.dumps
            .dump(&Message::GetLink(link::get_all()), &mut seen, |_, payload| {
                SeenLink::read(payload)
            })?;
        self.view.links.clear();
        for link in &seen {
            self.view.learn_link(link);
        }
        Ok(seen)
    }

    /// Learns one link anew; forgets it if it is not there.
    pub(crate) fn refresh_link(&mut self, name: IfName) -> Result<(), Error> {
        self.get_link(name).map(|_| ())
    }

    /// Learns one link anew, and returns it if it is there.
    pub(crate) fn get_link(&mut self, name: IfName) -> Result<Option<SeenLink>, Error> {
        match self.dumps.get(&Message::GetLink(link::get(name)), SeenLink::read) {
            Ok(Some(link)) => {
                self.view.learn_link(&link);
                Ok(Some(link))
            }
            Ok(None) => Ok(None),
            Err(error) if error.errno() == Some(libc::ENODEV) => {
                if let Some(index) = self.view.links.index(name) {
                    self.view.unlearn_link(index, name);
                }
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// The index of a link, which the kernel is asked for if it is not known yet.
    pub(crate) fn index_of(&mut self, name: IfName) -> Result<u32, Error> {
        if let Some(index) = self.view.links.index(name) {
            return Ok(index);
        }
        self.get_link(name)?
            .map(|link| link.index)
            .ok_or(Error::NoSuchLink(name))
    }

    pub(crate) fn dump_nexthops(&mut self, index: Option<u32>) -> Result<Vec<(Key, Object)>, Error> {
        let View {
            config,
            links,
            nexthops,
            ..
        } = &mut self.view;
        let mut seen = Vec::new();
        self.dumps
            .dump(&NexthopMessage::dump(index), &mut seen, |_, payload| {
                SeenNexthop::read(payload, links, &config.devices).map(Some)
            })?;
        if index.is_none() {
            nexthops.retain(&seen);
        }
        Ok(seen
            .iter()
            .filter_map(|nexthop| nexthops.learn(nexthop, config.protocol))
            .collect())
    }

    /// Asks who has a nexthop id; returns its key if it is what we would have made.
    pub(crate) fn learn_nexthop(&mut self, id: u32) -> Option<Key> {
        let View {
            config,
            links,
            nexthops,
            ..
        } = &mut self.view;
        let seen = self
            .dumps
            .get(&NexthopMessage::get(id), |payload| {
                SeenNexthop::read(payload, links, &config.devices)
            })
            .ok()?;
        let (key, object) = nexthops.learn(&seen, config.protocol)?;
        (object == Object::Nexthop).then_some(key)
    }

    /// The links that are neither our devices nor host veths, with their addresses but for IPv6 link-local ones.
    pub fn host(&mut self) -> Result<Host, Error> {
        let mut links = self.refresh_links()?;
        links.retain(|link| !self.view.is_ours(link.name));
        let mut addresses = Vec::new();
        for family in Family::ALL {
            let request = Message::GetAddress(address::get(family, 0));
            let result = self.dumps.dump(&request, &mut addresses, |_, payload| {
                let same = payload.first() == Some(&family_number(family));
                if same {
                    SeenAddress::read(payload)
                } else {
                    Ok(None)
                }
            });
            result.or_else(empty)?;
        }
        addresses.retain(|seen| links.iter().any(|link| link.index == seen.index));
        let mut host = self.host.replace(&links, &addresses);
        // Last: the kernel takes a link's routes after it has told that the link is down, before it lists it as such.
        for to in &self.host.destinations {
            if let Some(from) = route::source_to(&mut self.requests, *to)? {
                host.sources.insert(*to, from);
            }
        }
        Ok(host)
    }
}

/// What a dump of something that the kernel does not have comes to: nothing.
fn empty<T: Default>(error: Error) -> Result<T, Error> {
    match error.errno() {
        Some(libc::ENOENT | libc::EAFNOSUPPORT | libc::EOPNOTSUPP | libc::ENODEV) => Ok(T::default()),
        _ => Err(error),
    }
}

/// Makes one object of those that follow each other under one key.
fn join_repeated(found: &mut Vec<(Key, Object)>, joined: &Object) {
    found.dedup_by(|next, previous| {
        let again = next.0 == previous.0;
        if again {
            previous.1 = joined.clone();
        }
        again
    });
}
