//! The kernel's answer to a dump: datagram by datagram to its last message, and begun again where the table changed
//! meanwhile.

use netlink_packet_core::{NLM_F_DUMP_INTR, NLMSG_DONE, NLMSG_ERROR, NLMSG_NOOP, NLMSG_OVERRUN};

use crate::frame::{self, Frames};
use crate::{Error, extack};

/// How often a dump is begun that gets interrupted by changes.
const DUMP_ATTEMPTS: u32 = 8;

/// Dumps until nothing interrupts it; what an interrupted dump has found is dropped.
pub(crate) fn until_undisturbed<T>(
    found: &mut Vec<T>,
    mut dump: impl FnMut(&mut Vec<T>) -> Result<Progress, Error>,
) -> Result<(), Error> {
    let before = found.len();
    for _ in 0..DUMP_ATTEMPTS {
        if !dump(found)?.interrupted {
            return Ok(());
        }
        found.truncate(before);
    }
    Err(Error::Interrupted(DUMP_ATTEMPTS))
}

/// How far the answer to a dump has been read.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// The last message has been read.
    pub(crate) done: bool,
    /// The table changed while it was dumped: what was read is not to be trusted.
    pub(crate) interrupted: bool,
}

impl Progress {
    /// Reads one datagram of the answer to the dump request number `sequence`.
    pub(crate) fn read(
        &mut self,
        datagram: &[u8],
        sequence: u32,
        mut visit: impl FnMut(u16, &[u8]),
    ) -> Result<(), Error> {
        for frame in Frames::new(datagram) {
            let frame = frame?;
            if frame.sequence != sequence {
                continue;
            }
            self.interrupted |= frame.flags & NLM_F_DUMP_INTR != 0;
            match frame.kind {
                NLMSG_NOOP => {}
                NLMSG_OVERRUN => return Err(Error::OutcomeUnknown),
                NLMSG_ERROR => {
                    extack::read(&frame)?;
                    self.done = true;
                }
                NLMSG_DONE => {
                    self.done = true;
                    // A dump that fails half-way says so in the number that its end carries.
                    match frame::read_u32(frame.payload, 0).unwrap_or_default() as i32 {
                        0.. => {}
                        // Not an error but a restart: 6.2 and later tell so.
                        code if code == -libc::EINTR => self.interrupted = true,
                        code => {
                            return Err(Error::Refused {
                                errno: code.saturating_neg(),
                                message: None,
                            });
                        }
                    }
                }
                kind => visit(kind, frame.payload),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NEWLINK: u16 = 16;
    const SEQUENCE: u32 = 7;

    fn message(kind: u16, flags: u16, sequence: u32, payload: &[u8]) -> Vec<u8> {
        let mut bytes = ((frame::HEADER + payload.len()) as u32).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend(sequence.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend(payload);
        bytes
    }

    fn done(code: i32) -> Vec<u8> {
        message(NLMSG_DONE, 0, SEQUENCE, &code.to_ne_bytes())
    }

    /// Reads datagrams; how far that went, and how many messages were visited.
    fn read(datagrams: &[Vec<Vec<u8>>]) -> (Result<(), Error>, Progress, usize) {
        let (mut progress, mut visited) = (Progress::default(), 0);
        for datagram in datagrams {
            let result = progress.read(&datagram.concat(), SEQUENCE, |_, _| visited += 1);
            if result.is_err() {
                return (result, progress, visited);
            }
        }
        (Ok(()), progress, visited)
    }

    #[test]
    fn a_dump_ends_with_its_last_message() {
        let object = || message(NEWLINK, 2, SEQUENCE, &[0; 16]);
        let stale = message(NEWLINK, 2, SEQUENCE - 1, &[0; 16]);
        let (_, progress, visited) = read(&[vec![object(), stale], vec![object()]]);
        assert!(!progress.done && visited == 2);
        let (_, progress, _) = read(&[vec![object()], vec![object(), done(0)]]);
        assert!(progress.done && !progress.interrupted);
    }

    #[test]
    fn a_dump_that_any_message_calls_interrupted_is_interrupted() {
        let calm = || message(NEWLINK, 2, SEQUENCE, &[0; 16]);
        let interrupted = message(NEWLINK, 2 | NLM_F_DUMP_INTR, SEQUENCE, &[0; 16]);
        let (_, progress, _) = read(&[vec![calm(), interrupted], vec![calm(), done(0)]]);
        assert!(progress.done && progress.interrupted);
        let (_, progress, _) = read(&[
            vec![calm()],
            vec![message(NLMSG_DONE, NLM_F_DUMP_INTR, SEQUENCE, &[0; 4])],
        ]);
        assert!(progress.done && progress.interrupted);
        let (result, progress, _) = read(&[vec![done(-libc::EINTR)]]);
        assert!(result.is_ok() && progress.done && progress.interrupted);
    }

    #[test]
    fn an_interrupted_dump_is_begun_again_and_leaves_nothing() {
        let run = |interruptions: u32| {
            let (mut found, mut dumps) = (vec!["from before"], 0);
            let result = until_undisturbed(&mut found, |found| {
                dumps += 1;
                let interrupted = dumps <= interruptions;
                found.push(if interrupted { "half" } else { "whole" });
                Ok(Progress {
                    done: true,
                    interrupted,
                })
            });
            (result, found, dumps)
        };
        assert!(matches!(run(0), (Ok(()), found, 1) if found == ["from before", "whole"]));
        assert!(matches!(run(3), (Ok(()), found, 4) if found == ["from before", "whole"]));
        let (result, found, dumps) = run(u32::MAX);
        assert!(matches!(result, Err(Error::Interrupted(DUMP_ATTEMPTS))));
        assert_eq!((found, dumps), (vec!["from before"], DUMP_ATTEMPTS));
    }

    #[test]
    fn a_dump_that_fails_says_why() {
        let (result, ..) = read(&[vec![done(-libc::ENOENT)]]);
        assert_eq!(result.unwrap_err().errno(), Some(libc::ENOENT));
        let mut refusal = (-libc::EOPNOTSUPP).to_ne_bytes().to_vec();
        refusal.extend([0; 16]);
        let (result, ..) = read(&[vec![message(NLMSG_ERROR, 0, SEQUENCE, &refusal)]]);
        assert_eq!(result.unwrap_err().errno(), Some(libc::EOPNOTSUPP));
        assert!(read(&[vec![message(NLMSG_OVERRUN, 0, SEQUENCE, &[])]]).0.is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            let _ = Progress::default().read(&bytes, SEQUENCE, |_, _| {});
        }
    }
}
