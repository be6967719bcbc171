//! How full the kernel's neighbour tables are. There is one of each family, which all network namespaces share.

use netlink_packet_route::RouteNetlinkMessage as Message;
use netlink_packet_route::neighbour_table::NeighbourTableMessage;
use routelet_model::Family;

use crate::attributes::{Attributes, family_number};
use crate::frame::read_u32;
use crate::{Error, Kernel};

/// `struct ndtmsg` of linux/neighbour.h.
const NDTMSG: usize = 4;
const NDTA_THRESH3: u16 = 4;
const NDTA_CONFIG: u16 = 5;
/// Where in `struct ndt_config` the number of entries stands.
const ENTRIES: usize = 4;

/// A neighbour table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NeighbourTable {
    /// Whose neighbours are in it.
    pub family: Family,
    /// Its entries, in all network namespaces; the permanent ones are among them.
    pub entries: u32,
    /// How many there may be that are not permanent (`gc_thresh3`): one more, and the kernel cannot send to it.
    pub limit: u32,
}

impl Kernel {
    /// The neighbour tables of IPv4 and IPv6.
    pub fn neighbour_tables(&mut self) -> Result<Vec<NeighbourTable>, Error> {
        let mut found = Vec::new();
        let request = Message::GetNeighbourTable(NeighbourTableMessage::default());
        self.dumps
            .dump(&request, &mut found, |_, payload| NeighbourTable::read(payload))?;
        Ok(found)
    }
}

impl NeighbourTable {
    /// `None` for a table of another family, and for messages about a table's links.
    fn read(payload: &[u8]) -> Result<Option<Self>, Error> {
        let is_of = |family: &Family| payload.first() == Some(&family_number(*family));
        let Some(family) = Family::ALL.into_iter().find(is_of) else {
            return Ok(None);
        };
        let (mut entries, mut limit) = (None, None);
        for attribute in Attributes::after(payload, NDTMSG)? {
            let attribute = attribute?;
            match attribute.kind {
                NDTA_THRESH3 => limit = read_u32(attribute.value, 0),
                NDTA_CONFIG => entries = read_u32(attribute.value, ENTRIES),
                _ => {}
            }
        }
        Ok(entries.zip(limit).map(|(entries, limit)| Self {
            family,
            entries,
            limit,
        }))
    }
}
