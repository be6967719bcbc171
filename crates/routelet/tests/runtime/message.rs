//! Messages of the CRI as protocol buffers: as much of the encoding as its calls need. Numbers are those of the CRI's
//! api.proto, package runtime.v1.

use anyhow::{Context, Result, bail};

/// Wire types of protocol buffers.
const VARINT: u64 = 0;
const BYTES: u64 = 2;

/// A message that is being written.
#[derive(Debug, Default, Clone)]
pub(crate) struct Message(Vec<u8>);

impl Message {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn number(mut self, field: u64, value: u64) -> Self {
        self.varint(field << 3 | VARINT);
        self.varint(value);
        self
    }

    pub(crate) fn text(self, field: u64, value: &str) -> Self {
        self.bytes(field, value.as_bytes())
    }

    pub(crate) fn texts(self, field: u64, values: &[&str]) -> Self {
        values
            .iter()
            .fold(self, |message, value| message.text(field, value))
    }

    pub(crate) fn message(self, field: u64, value: &Message) -> Self {
        self.bytes(field, &value.0)
    }

    fn bytes(mut self, field: u64, value: &[u8]) -> Self {
        self.varint(field << 3 | BYTES);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
        self
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    /// What is sent.
    pub(crate) fn encoded(&self) -> &[u8] {
        &self.0
    }
}

/// A message that was read: its fields in order.
#[derive(Debug, Default)]
pub(crate) struct Fields(Vec<(u64, Field)>);

#[derive(Debug)]
enum Field {
    Number(u64),
    Bytes(Vec<u8>),
}

impl Fields {
    /// Takes a message apart.
    pub(crate) fn read(mut rest: &[u8]) -> Result<Self> {
        let mut fields = Vec::new();
        while !rest.is_empty() {
            let key = varint(&mut rest)?;
            let field = match key & 7 {
                VARINT => Field::Number(varint(&mut rest)?),
                BYTES => {
                    let length = usize::try_from(varint(&mut rest)?)?;
                    let (value, after) = rest.split_at_checked(length).context("a message is cut off")?;
                    rest = after;
                    Field::Bytes(value.to_vec())
                }
                kind => bail!(
                    "field {} has wire type {kind}, which the CRI does not use",
                    key >> 3
                ),
            };
            fields.push((key >> 3, field));
        }
        Ok(Self(fields))
    }

    /// A number; 0 where it is not there, as protocol buffers have it.
    pub(crate) fn number(&self, field: u64) -> u64 {
        let found = self.0.iter().find_map(|(number, value)| match value {
            Field::Number(value) if *number == field => Some(*value),
            _ => None,
        });
        found.unwrap_or_default()
    }

    /// A text; empty where it is not there.
    pub(crate) fn text(&self, field: u64) -> String {
        let first = self.all(field).next().unwrap_or_default();
        String::from_utf8_lossy(first).into_owned()
    }

    /// The messages in a field.
    pub(crate) fn messages(&self, field: u64) -> Result<Vec<Fields>> {
        self.all(field).map(Fields::read).collect()
    }

    fn all(&self, field: u64) -> impl Iterator<Item = &[u8]> {
        self.0.iter().filter_map(move |(number, value)| match value {
            Field::Bytes(value) if *number == field => Some(value.as_slice()),
            _ => None,
        })
    }
}

fn varint(rest: &mut &[u8]) -> Result<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, after) = rest.split_first().context("a message is cut off")?;
        *rest = after;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    bail!("a number of more than 64 bits")
}

#[test]
fn messages_are_read_as_they_are_written() {
    let inner = Message::new().text(1, "name").number(4, 300);
    let message = Message::new().message(2, &inner).texts(3, &["a", "b"]);
    assert_eq!(
        message.encoded(),
        b"\x12\x09\x0a\x04name\x20\xac\x02\x1a\x01a\x1a\x01b"
    );
    let fields = Fields::read(message.encoded()).unwrap();
    let inner = &fields.messages(2).unwrap()[0];
    assert_eq!(
        (inner.text(1), inner.number(4), inner.number(5)),
        ("name".to_owned(), 300, 0)
    );
    assert!(Fields::read(b"\x12\x09\x0a").is_err());
}
