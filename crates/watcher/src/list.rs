//! A list, decoded object by object as it arrives: as one document, 5,000 Nodes take 80 MB.
//!
//! Of a list only two things count: `metadata`, and the objects of the one array at its top level, `items`. The
//! objects are cut out by counting brackets; what remains is a small document that is decoded at the end, and
//! shows whether the list is whole.

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::error::Error;
use crate::slim::Metadata;

/// Depth of brackets within `items`.
const ITEMS: usize = 2;
/// Longest object, and longest rest: etcd takes objects of 1.5 MiB by default.
const MAX_BYTES: usize = 16 * 1024 * 1024;

/// What remains of a list without its objects.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Remainder {
    #[serde(deserialize_with = "crate::slim::object")]
    pub(crate) metadata: Metadata,
}

/// Takes a list in pieces.
#[derive(Default)]
pub(crate) struct ListDecoder {
    /// The open brackets' count.
    depth: usize,
    /// Whether the bracket at depth 2 is that of an array.
    in_items: bool,
    in_string: bool,
    escaped: bool,
    /// The object that is being read.
    object: Vec<u8>,
    /// All but the objects.
    rest: Vec<u8>,
}

impl ListDecoder {
    /// Takes a piece, and gives the objects that it completes.
    pub(crate) fn feed<T: DeserializeOwned>(&mut self, piece: &[u8]) -> Result<Vec<T>, Error> {
        let mut objects = Vec::new();
        // where the part begins that is to be kept with the object or with the rest
        let mut start = 0;
        for (at, &byte) in piece.iter().enumerate() {
            if self.in_string {
                match byte {
                    _ if self.escaped => self.escaped = false,
                    b'\\' => self.escaped = true,
                    b'"' => self.in_string = false,
                    _ => {}
                }
                continue;
            }
            match byte {
                b'"' => self.in_string = true,
                b'{' | b'[' => {
                    if self.at_items() {
                        self.rest.extend_from_slice(&piece[start..at]);
                        start = at;
                    }
                    self.depth += 1;
                    if self.depth == ITEMS {
                        self.in_items = byte == b'[';
                    }
                }
                b'}' | b']' => {
                    self.depth = self.depth.saturating_sub(1);
                    if self.at_items() {
                        self.object.extend_from_slice(&piece[start..=at]);
                        start = at + 1;
                        objects.push(serde_json::from_slice(&self.object).map_err(Error::Garbage)?);
                        self.object.clear();
                    }
                }
                // between two objects
                b',' if self.at_items() => {
                    self.rest.extend_from_slice(&piece[start..at]);
                    start = at + 1;
                }
                _ => {}
            }
        }
        let kept = if self.in_items && self.depth > ITEMS {
            &mut self.object
        } else {
            &mut self.rest
        };
        kept.extend_from_slice(&piece[start..]);
        if kept.len() > MAX_BYTES {
            Err(Error::TooLong(MAX_BYTES))
        } else {
            Ok(objects)
        }
    }

    /// The list is at its end: what remains of it. An error where it has broken off.
    pub(crate) fn finish(self) -> Result<Remainder, Error> {
        serde_json::from_slice(&self.rest).map_err(Error::from_json)
    }

    /// Directly within `items`.
    fn at_items(&self) -> bool {
        self.in_items && self.depth == ITEMS
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn decode(text: &[u8], piece: usize) -> Result<(Vec<Value>, String), Error> {
        let mut decoder = ListDecoder::default();
        let mut objects = Vec::new();
        for piece in text.chunks(piece) {
            objects.extend(decoder.feed::<Value>(piece)?);
        }
        Ok((objects, decoder.finish()?.metadata.resource_version))
    }

    #[test]
    fn any_list_in_any_pieces() {
        let object = json!({"metadata": {"name": "a\"}]{[\\", "l": [[], {}, [1, {"x": []}]]}, "ü": "\\\""});
        for items in [
            vec![],
            vec![object.clone()],
            vec![object.clone(), json!({}), object],
        ] {
            let list =
                json!({"kind": "NodeList", "metadata": {"resourceVersion": "7", "o": {}}, "items": items});
            let reversed = format!(
                r#"{{"items":{},"metadata":{{"resourceVersion":"7"}}}}"#,
                json!(items)
            );
            for text in [
                list.to_string(),
                serde_json::to_string_pretty(&list).unwrap(),
                reversed,
            ] {
                for piece in [1, 2, 3, 7, 64, text.len()] {
                    let (objects, version) = decode(text.as_bytes(), piece).expect(&text);
                    assert_eq!((&objects, version.as_str()), (&items, "7"), "{text} by {piece}");
                }
            }
        }
        assert_eq!(
            decode(br#"{"metadata":{"resourceVersion":"7"},"items":null}"#, 5)
                .unwrap()
                .1,
            "7"
        );
    }

    #[test]
    fn every_part_of_a_list_is_known_as_such() {
        let list =
            json!({"metadata": {"resourceVersion": "7"}, "items": [{"a": [1]}, {"b": "}"}]}).to_string();
        for end in 0..list.len() {
            let error = decode(&list.as_bytes()[..end], 8).err();
            assert!(
                matches!(error, Some(Error::Cut(_))),
                "{}: {error:?}",
                &list[..end]
            );
        }
    }

    #[test]
    fn what_is_no_list_is_garbage() {
        for text in [
            "<html>502 Bad Gateway</html>",
            "}}}]]]",
            "[{}]x",
            r#"{"items":[{"a":}]}"#,
            "7 8",
        ] {
            let error = decode(text.as_bytes(), 3).err();
            assert!(matches!(error, Some(Error::Garbage(_))), "{text}: {error:?}");
        }
    }
}
