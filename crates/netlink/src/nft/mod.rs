//! Our nft table: sets of addresses, and rules that look them up.
//!
//! Each write is a transaction, which the kernel carries out as a whole or not at all. Nothing but the one table of
//! our name is touched or even looked at.

mod compare;
mod elements;
mod expressions;
pub(crate) mod message;
mod rules;
mod set;
mod table;
mod tunnels;

use std::collections::BTreeMap;

use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE};
use routelet_model::{Key, Kind as ObjectKind, NftRules, Object};

use crate::nft::message::{Kind, Message};
use crate::nft::rules::{SeenChain, SeenRule};
use crate::nft::set::{Range, SeenSet, Set};
use crate::socket::Socket;
use crate::{Error, Failure, Operation, Verb};

/// The netfilter part of the kernel.
#[derive(Debug)]
pub(crate) struct Nft {
    socket: Socket,
    table: String,
}

/// Whether the object is one of the nft table's.
pub(crate) fn concerns(key: &Key) -> bool {
    matches!(key, Key::NftTable | Key::NftElement { .. } | Key::NftRules)
}

impl Nft {
    /// Opens a socket in the network namespace of the calling thread; `None` where its kernel has no nf_tables.
    pub(crate) fn open(table: String) -> Result<Option<Self>, Error> {
        let is_absent = |error: &Error| {
            // An unknown subsystem of nfnetlink is EINVAL to it.
            const ABSENT: [i32; 4] = [
                libc::EPROTONOSUPPORT,
                libc::EAFNOSUPPORT,
                libc::EOPNOTSUPP,
                libc::EINVAL,
            ];
            error.errno().is_some_and(|errno| ABSENT.contains(&errno))
        };
        let opened = Socket::open_netfilter().and_then(|socket| {
            let mut nft = Self { socket, table };
            nft.is_there().map(|_| nft)
        });
        match opened {
            Ok(nft) => Ok(Some(nft)),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Has the kernel carry out all of the messages or none.
    fn transact(&mut self, messages: &[Message]) -> Result<(), Error> {
        // Rules are appended; nothing else knows the flag.
        let flagged = messages
            .iter()
            .map(|message| (message, NLM_F_CREATE | NLM_F_APPEND));
        self.socket.transact(&Message::begin(), &Message::end(), flagged)
    }

    /// The port id by which the kernel tells that a change was ours.
    pub(crate) fn port(&self) -> u32 {
        self.socket.port()
    }

    /// Whether a notification is about something in our table.
    pub(crate) fn is_about_us(&self, kind: u16, payload: &[u8]) -> bool {
        message::is_about(kind, payload, &self.table)
    }

    /// Adds all objects of the kind to `found`.
    pub(crate) fn dump(&mut self, kind: ObjectKind, found: &mut Vec<(Key, Object)>) -> Result<(), Error> {
        match kind {
            ObjectKind::NftTable => {
                let table = self.table()?;
                found.extend(table.map(|object| (Key::NftTable, object)));
            }
            ObjectKind::NftElement => {
                let mut sets: Vec<Set> = self.sets()?.iter().filter_map(SeenSet::ours).collect();
                sets.sort_unstable();
                for set in sets {
                    let ranges = self.elements(set)?.into_iter();
                    let key = |(first, last)| Key::NftElement {
                        set: set.of,
                        first,
                        last,
                    };
                    found.extend(ranges.map(|range| (key(range), Object::NftElement)));
                }
            }
            ObjectKind::NftRules => {
                let rules = self.rules()?;
                found.extend(rules.map(|object| (Key::NftRules, object)));
            }
            _ => {}
        }
        Ok(())
    }

    /// The flags of the table, if there is one.
    fn is_there(&mut self) -> Result<Option<u32>, Error> {
        match self.socket.get(&table::get(&self.table), table::read_flags) {
            Ok(flags) => Ok(Some(flags)),
            Err(error) if error.errno() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn table(&mut self) -> Result<Option<Object>, Error> {
        let Some(flags) = self.is_there()? else {
            return Ok(None);
        };
        let right = flags == 0 && set::are_right(&self.sets()?);
        Ok(Some(if right { Object::NftTable } else { FOREIGN }))
    }

    fn sets(&mut self) -> Result<Vec<SeenSet>, Error> {
        let request = set::get(&self.table);
        self.dump_all(&request, |payload| SeenSet::read(payload).map(|set| vec![set]))
    }

    fn elements(&mut self, set: Set) -> Result<Vec<Range>, Error> {
        let request = elements::get(&self.table, set);
        let bounds = self.dump_all(&request, elements::read)?;
        Ok(elements::ranges(set, bounds))
    }

    fn chains(&mut self) -> Result<Vec<SeenChain>, Error> {
        let chains = self.dump_all(&rules::get_chains(&self.table), |payload| {
            SeenChain::read(payload).map(|chain| vec![chain])
        })?;
        let rules = self.dump_all(&rules::get_rules(&self.table), |payload| {
            SeenRule::read(payload).map(|rule| vec![rule])
        })?;
        Ok(rules::join(chains, rules))
    }

    fn rules(&mut self) -> Result<Option<Object>, Error> {
        let chains = self.chains()?;
        let sets = self.sets()?;
        let lens = set::prefix_lens(&sets);
        let surplus = set::surplus(&sets, lens).next().is_some();
        if chains.is_empty() && !surplus {
            return Ok(None);
        }
        let recognised = rules::recognise(&chains, lens).filter(|_| !surplus);
        Ok(Some(recognised.map_or(FOREIGN, Object::NftRules)))
    }

    /// Dumps what is in our table; nothing where there is no such table.
    fn dump_all<T>(
        &mut self,
        request: &Message,
        read: impl Fn(&[u8]) -> Result<Vec<T>, Error>,
    ) -> Result<Vec<T>, Error> {
        let mut found = Vec::new();
        let Self { socket, table } = self;
        // A kernel may tell of other tables as well.
        let dumped = socket.dump(request, &mut found, |kind, payload| {
            if message::is_about(kind, payload, table) {
                read(payload).map(Some)
            } else {
                Ok(None)
            }
        });
        match dumped {
            Ok(()) => Ok(found.into_iter().flatten().collect()),
            Err(error) if error.errno() == Some(libc::ENOENT) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// Carries out operations on objects of the table, the first of which is number `start` of all: those on
    /// elements in one transaction, the others in one each.
    pub(crate) fn apply(&mut self, start: usize, operations: &[Operation], failures: &mut Vec<Failure>) {
        let is_element = |operation: &Operation| matches!(operation.key, Key::NftElement { .. });
        let mut index = start;
        for run in operations.chunk_by(|one, next| is_element(one) && is_element(next)) {
            if is_element(&run[0]) {
                self.apply_elements(index, run, failures);
            } else if let Err(error) = self.apply_one(&run[0]) {
                failures.push(Failure { index, error });
            }
            index += run.len();
        }
    }

    fn apply_one(&mut self, operation: &Operation) -> Result<(), Error> {
        let Operation { verb, key, object } = operation;
        let result = match (key, verb, object) {
            (Key::NftTable, Verb::Delete, _) => self.transact(&[table::delete(&self.table)]),
            (Key::NftTable, ..) => self.make_table(*verb == Verb::Replace),
            (Key::NftRules, Verb::Delete, _) => self.make_rules(None),
            (Key::NftRules, _, Object::NftRules(rules)) => self.make_rules(Some(rules)),
            _ => Err(Error::Unsupported(*key)),
        };
        match result {
            Err(error) if error.errno() == Some(libc::ENOENT) && *verb == Verb::Delete => Ok(()),
            result => result,
        }
    }

    fn make_table(&mut self, anew: bool) -> Result<(), Error> {
        let old = anew.then(|| table::delete(&self.table));
        let messages: Vec<_> = old.into_iter().chain(table::create(&self.table)).collect();
        self.transact(&messages)
    }

    /// Makes all chains and rules what they should be, at one blow; `None` takes them away.
    fn make_rules(&mut self, wanted: Option<&NftRules>) -> Result<(), Error> {
        let (chains, sets) = (self.chains()?, self.sets()?);
        let mut messages = rules::clear(&self.table, &chains, wanted);
        // Sets that rules use go once the rules are gone, and before chains that they lead to. Without rules, those of
        // pod subnets stay for what they hold.
        let lens = wanted.map_or_else(|| set::prefix_lens(&sets), |wanted| wanted.pod_prefix_lens);
        let surplus = set::surplus(&sets, lens).map(|set| set.delete(&self.table));
        messages.splice(messages.len().min(1)..messages.len().min(1), surplus);
        if let Some(wanted) = wanted {
            messages.extend(rules::create(&self.table, &chains, wanted));
        }
        self.transact(&messages)
    }

    /// Carries out operations on elements. Where that fails, halves of them are tried, so that what the kernel
    /// refuses keeps nothing else from being done.
    fn apply_elements(&mut self, start: usize, operations: &[Operation], failures: &mut Vec<Failure>) {
        let Err(error) = self.transact(&self.element_messages(operations)) else {
            return;
        };
        let creates = operations.iter().any(|operation| operation.verb != Verb::Delete);
        // Without the table, none would go better.
        let hopeless =
            creates && error.errno() == Some(libc::ENOENT) && !matches!(self.is_there(), Ok(Some(_)));
        if let [operation] = operations {
            let is_gone = operation.verb == Verb::Delete && error.errno() == Some(libc::ENOENT);
            if !is_gone {
                let error = if hopeless { Error::NoNftTable } else { error };
                failures.push(Failure { index: start, error });
            }
        } else if hopeless || matches!(error, Error::OutcomeUnknown) {
            failures.extend((start..start + operations.len()).map(|index| Failure {
                index,
                error: if hopeless {
                    Error::NoNftTable
                } else {
                    Error::OutcomeUnknown
                },
            }));
        } else {
            let (one, other) = operations.split_at(operations.len() / 2);
            self.apply_elements(start, one, failures);
            self.apply_elements(start + one.len(), other, failures);
        }
    }

    /// The messages for operations on elements: deletions first, for what is new may lie where something was.
    fn element_messages(&self, operations: &[Operation]) -> Vec<Message> {
        let (mut gone, mut new) = (BTreeMap::new(), BTreeMap::new());
        for operation in operations {
            if let Key::NftElement { set, first, last } = operation.key {
                let sets = if operation.verb == Verb::Delete {
                    &mut gone
                } else {
                    &mut new
                };
                let set = Set::that_holds(set, (first, last));
                sets.entry(set).or_insert_with(Vec::new).push((first, last));
            }
        }
        let mut messages = Vec::new();
        for (set, ranges) in &gone {
            messages.extend(elements::messages(Kind::DelElement, &self.table, *set, ranges));
        }
        for (id, (set, ranges)) in (1u32..).zip(&new) {
            // The table does not have it always.
            let missing = set.prefix_len.is_some();
            messages.extend(missing.then(|| set.create(&self.table, id)));
            messages.extend(elements::messages(Kind::NewElement, &self.table, *set, ranges));
        }
        messages
    }
}

/// What stands where something of ours should.
const FOREIGN: Object = Object::Foreign { protocol: 0 };

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use routelet_model::Family;

    use super::*;
    use crate::frame::align;

    /// Attributes that are framed as they should be, whatever is in them, one level deep or two.
    fn attributes() -> impl Strategy<Value = Vec<u8>> {
        let leaf = (0u16..12, proptest::collection::vec(any::<u8>(), 0..12));
        let leaf = leaf.prop_map(|(kind, value)| framed(kind, &value));
        let leaves = proptest::collection::vec(leaf, 0..5).prop_map(|leaves| leaves.concat());
        let branch = (0u16..12, leaves).prop_map(|(kind, leaves)| framed(kind | message::NESTED, &leaves));
        proptest::collection::vec(branch, 0..6).prop_map(|branches| branches.concat())
    }

    fn framed(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = (4 + value.len() as u16).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(align(bytes.len()), 0);
        bytes
    }

    proptest! {
        #[test]
        fn no_answer_is_too_strange(kind in 0x0a00u16..0x0a20, attributes in attributes(), noise in proptest::collection::vec(any::<u8>(), 0..6)) {
            let payload = [&[message::INET, 0, 0, 0][..], &attributes, &noise].concat();
            message::is_about(kind, &payload, "routelet");
            let _ = table::read_flags(&payload);
            let sets: Vec<_> = SeenSet::read(&payload).into_iter().collect();
            let lens = set::prefix_lens(&sets);
            let _ = (set::are_right(&sets), set::surplus(&sets, lens).count());
            let chains = SeenChain::read(&payload).into_iter().collect();
            let chains = rules::join(chains, SeenRule::read(&payload).into_iter().collect());
            let _ = rules::recognise(&chains, lens);
            for set in Set::always().chain([Set::of_pods(Family::V4, 24)]) {
                elements::ranges(set, elements::read(&payload).unwrap_or_default());
            }
            prop_assert!(compare::tells_all(&attributes, &attributes));
        }
    }
}
