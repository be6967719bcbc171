//! Whether the kernel still has what was written, by what it tells of it.

use crate::attributes::{Attribute, Attributes};
use crate::frame::read_u16;
use crate::nft::message::NESTED;

/// Whether all attributes that were `written` are among those that are `told`, with the same values. The kernel may
/// tell more, as defaults, and in another order; but of one type just as many, for these make up a list.
pub(crate) fn tells_all(written: &[u8], told: &[u8]) -> bool {
    let of_kind = |bytes, kind| {
        Attributes::new(bytes)
            .flatten()
            .filter(move |attribute| attribute.kind == kind)
    };
    let mut rest = written;
    let mut before = Vec::new();
    while let Some((attribute, nested)) = next(&mut rest) {
        let kind = attribute.kind;
        let place = before.iter().filter(|before| **before == kind).count();
        before.push(kind);
        let same = of_kind(told, kind).nth(place).is_some_and(|found| {
            if nested {
                tells_all(attribute.value, found.value)
            } else {
                attribute.value == found.value
            }
        });
        if !same {
            return false;
        }
    }
    before
        .iter()
        .all(|kind| of_kind(told, *kind).count() == of_kind(written, *kind).count())
}

/// Takes the next attribute, and whether it says that it holds others.
fn next<'a>(rest: &mut &'a [u8]) -> Option<(Attribute<'a>, bool)> {
    let nested = read_u16(rest, 2)? & NESTED != 0;
    let attribute = Attributes::new(rest).next()?.ok()?;
    *rest = rest
        .get(crate::frame::align(4 + attribute.value.len())..)
        .unwrap_or_default();
    Some((attribute, nested))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nft::message::Writer;

    fn written(write: impl FnOnce(&mut Writer)) -> Vec<u8> {
        let mut writer = Writer::default();
        write(&mut writer);
        writer.0
    }

    /// Two list elements, the second with a number in it.
    fn list(number: u32) -> Vec<u8> {
        written(|list| {
            list.nested(1, |element| element.text(1, "masq"));
            list.nested(1, |element| element.u32(2, number));
        })
    }

    #[test]
    fn what_the_kernel_adds_does_not_matter() {
        let told = written(|list| {
            list.nested(1, |element| {
                element.text(1, "masq");
                element.u32(9, 1);
            });
            list.nested(1, |element| {
                element.u32(2, 7);
                element.u32(1, 0);
            });
            list.u32(8, 1);
        });
        assert!(tells_all(&list(7), &told));
        assert!(tells_all(&[], &told));
    }

    #[test]
    fn another_value_a_missing_and_a_further_element_are_seen() {
        assert!(!tells_all(&list(7), &list(8)));
        assert!(!tells_all(
            &list(7),
            &written(|list| list.nested(1, |element| element.text(1, "masq")))
        ));
        let further = [list(7), written(|list| list.nested(1, |_| {}))].concat();
        assert!(!tells_all(&list(7), &further));
        assert!(!tells_all(&list(7), &[]));
    }
}
