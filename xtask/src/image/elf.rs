//! What a program's head says of it (elf.h): which machine it is for, and whether it needs a loader.

use anyhow::{Context, Result, ensure};

use super::Arch;

/// `ELFMAG`, `ELFCLASS64`, `ELFDATA2LSB`.
const MAGIC: &[u8] = b"\x7fELF\x02\x01";
/// `EM_X86_64`.
const X86_64: u16 = 62;
/// `EM_AARCH64`.
const AARCH64: u16 = 183;
/// `PT_INTERP`: the path of the loader that brings shared libraries in.
const INTERPRETER: u32 = 3;

/// Fails unless these are the bytes of a program for the machine that needs no other file to run.
pub(super) fn check_static(program: &[u8], arch: Arch) -> Result<()> {
    ensure!(program.starts_with(MAGIC), "it is no 64-bit ELF program");
    let wanted = match arch {
        Arch::Amd64 => X86_64,
        Arch::Arm64 => AARCH64,
    };
    let machine = u16::from_le_bytes(bytes(program, 18)?);
    ensure!(
        machine == wanted,
        "it is for machine {machine}, not {wanted} (elf.h, EM_...)"
    );
    let table = usize::try_from(u64::from_le_bytes(bytes(program, 32)?))?;
    let size = usize::from(u16::from_le_bytes(bytes(program, 54)?));
    let count = usize::from(u16::from_le_bytes(bytes(program, 56)?));
    for index in 0..count {
        let at = size
            .checked_mul(index)
            .and_then(|offset| table.checked_add(offset));
        let kind = u32::from_le_bytes(bytes(program, at.context("its head is broken")?)?);
        ensure!(
            kind != INTERPRETER,
            "it needs shared libraries: build it with -C target-feature=+crt-static"
        );
    }
    Ok(())
}

fn bytes<const N: usize>(program: &[u8], at: usize) -> Result<[u8; N]> {
    let found = program.get(at..).and_then(|rest| rest.first_chunk());
    found.copied().context("its head is cut off")
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A head with program headers of these kinds.
    pub(crate) fn head(machine: u16, kinds: &[u32]) -> Vec<u8> {
        let mut head = vec![0; 64 + 56 * kinds.len()];
        head[..MAGIC.len()].copy_from_slice(MAGIC);
        head[18..20].copy_from_slice(&machine.to_le_bytes());
        head[32] = 64;
        head[54] = 56;
        head[56] = kinds.len() as u8;
        for (index, kind) in kinds.iter().enumerate() {
            head[64 + 56 * index..][..4].copy_from_slice(&kind.to_le_bytes());
        }
        head
    }

    #[test]
    fn static_programs_of_the_machine_pass() {
        check_static(&head(X86_64, &[6, 1, 1]), Arch::Amd64).unwrap();
        check_static(&head(AARCH64, &[1]), Arch::Arm64).unwrap();
    }

    #[test]
    fn others_are_refused_with_the_reason() {
        let reason = |program: &[u8]| check_static(program, Arch::Amd64).unwrap_err().to_string();
        assert_eq!(reason(b"#!/bin/sh\n"), "it is no 64-bit ELF program");
        assert_eq!(reason(MAGIC), "its head is cut off");
        assert_eq!(reason(&head(X86_64, &[1])[..80][..64]), "its head is cut off");
        assert!(reason(&head(AARCH64, &[1])).starts_with("it is for machine 183"));
        assert!(reason(&head(X86_64, &[6, INTERPRETER])).starts_with("it needs shared libraries"));
        // This test itself.
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        if cfg!(all(target_arch = "x86_64", not(target_feature = "crt-static"))) {
            assert!(reason(&own).starts_with("it needs shared libraries"));
        }
    }
}
