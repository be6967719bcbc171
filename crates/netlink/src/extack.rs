//! What the kernel answers to a request: NLMSG_ERROR with its extended acknowledgement.
//!
//! An answer holds an error number (0: done), the header of the request, the request itself unless the answer
//! is capped, and then attributes, of which NLMSGERR_ATTR_MSG says in words what was wrong.

use netlink_packet_core::{NLM_F_ACK_TLVS, NLM_F_CAPPED};

use crate::Error;
use crate::attributes::Attributes;
use crate::frame::{Frame, HEADER, align, read_u32};

const NLMSGERR_ATTR_MSG: u16 = 1;

/// Reads an NLMSG_ERROR: `Ok` where it is an acknowledgement.
pub(crate) fn read(frame: &Frame<'_>) -> Result<(), Error> {
    let code = read_u32(frame.payload, 0).ok_or(Error::Decode("an error message without error number"))?;
    match code as i32 {
        0 => Ok(()),
        code => Err(Error::Refused {
            errno: code.saturating_neg(),
            message: text(frame),
        }),
    }
}

fn text(frame: &Frame<'_>) -> Option<String> {
    if frame.flags & NLM_F_ACK_TLVS == 0 {
        return None;
    }
    let request = match frame.flags & NLM_F_CAPPED {
        0 => read_u32(frame.payload, 4)? as usize,
        _ => HEADER,
    };
    let attributes = frame.payload.get(4 + align(request)..)?;
    let message = Attributes::new(attributes)
        .flatten()
        .find(|a| a.kind == NLMSGERR_ATTR_MSG)?;
    let text = message.value.split(|byte| *byte == 0).next()?;
    Some(String::from_utf8_lossy(text).into_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// An answer to a request of 24 bytes, with an NLMSGERR_ATTR_OFFS before the text.
    fn answer(echoed: usize) -> Vec<u8> {
        let mut payload = (-libc::EINVAL).to_ne_bytes().to_vec();
        payload.extend(24u32.to_ne_bytes());
        payload.resize(4 + echoed, 0);
        payload.extend([8, 0, 2, 0, 20, 0, 0, 0]);
        payload.extend([11, 0, 1, 0]);
        payload.extend(b"No way\0\0");
        payload
    }

    #[test]
    fn the_text_is_found_after_a_whole_or_a_capped_request() {
        for (flags, echoed) in [(NLM_F_ACK_TLVS, 24), (NLM_F_ACK_TLVS | NLM_F_CAPPED, HEADER)] {
            let payload = answer(echoed);
            let frame = Frame {
                kind: 2,
                flags,
                sequence: 1,
                payload: &payload,
            };
            let error = read(&frame).unwrap_err();
            assert_eq!(error.errno(), Some(libc::EINVAL));
            assert_eq!(
                error.to_string(),
                "the kernel refused: Invalid argument (os error 22) (No way)"
            );
        }
    }

    #[test]
    fn zero_is_an_acknowledgement() {
        let frame = Frame {
            kind: 2,
            flags: 0,
            sequence: 1,
            payload: &[0; 20],
        };
        assert!(read(&frame).is_ok());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(flags in any::<u16>(), payload in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = read(&Frame { kind: 2, flags, sequence: 0, payload: &payload });
        }
    }
}
