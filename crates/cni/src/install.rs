//! Files that a container runtime looks for, put where it finds them: whole or not at all, and only where they differ.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::conflist::PLUGIN;

/// Mode of a configuration, which holds no secret.
pub const CONFLIST_MODE: u32 = 0o644;
/// Mode of a program.
pub const BINARY_MODE: u32 = 0o755;

/// Makes the file have these bytes and this mode; true where it had others or was not there. Whoever reads it meanwhile
/// sees the former or the new one, never a part. The error names the path.
pub fn write_if_different(path: &Path, bytes: &[u8], mode: u32) -> io::Result<bool> {
    if is_as_wanted(path, bytes, mode).map_err(|error| named(path, &error))? {
        return Ok(false);
    }
    // In the same directory: runtimes don't notice what is renamed into it from elsewhere.
    let beside = hidden_beside(path)?;
    let written = write_anew(&beside, bytes, mode)
        .and_then(|()| fs::rename(&beside, path))
        .map_err(|error| named(path, &error));
    if written.is_err() {
        // The first error is the one to tell.
        let _ = fs::remove_file(&beside);
    }
    written.map(|()| true)
}

/// Puts the plugin's program into a directory for plugins, under its name there; true where it was another or not there.
pub fn install_binary(from: &Path, to_dir: &Path) -> io::Result<bool> {
    let program = fs::read(from).map_err(|error| named(from, &error))?;
    write_if_different(&to_dir.join(PLUGIN), &program, BINARY_MODE)
}

fn is_as_wanted(path: &Path, bytes: &[u8], mode: u32) -> io::Result<bool> {
    let metadata = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        metadata => metadata?,
    };
    if metadata.permissions().mode() & 0o7777 != mode || metadata.len() != bytes.len() as u64 {
        return Ok(false);
    }
    Ok(fs::read(path)? == bytes)
}

fn hidden_beside(path: &Path) -> io::Result<PathBuf> {
    let Some(name) = path.file_name() else {
        let message = format!("{} names no file", path.display());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    };
    Ok(path.with_file_name(format!(".{}.new", name.to_string_lossy())))
}

fn write_anew(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    // What a killed one has left.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = File::create_new(path)?;
    file.write_all(bytes)?;
    // Not at its creation, where the umask has a say.
    file.set_permissions(Permissions::from_mode(mode))?;
    file.sync_all()
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use routelet_lab::TempDir;

    use super::*;

    fn identity(path: &Path) -> (u64, i64, i64, u32) {
        let metadata = fs::metadata(path).unwrap();
        let mode = metadata.mode() & 0o7777;
        (metadata.ino(), metadata.mtime(), metadata.mtime_nsec(), mode)
    }

    fn hidden(directory: &TempDir) -> Vec<String> {
        let entries = fs::read_dir(directory.path()).unwrap();
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.ends_with(".new"))
            .collect()
    }

    #[test]
    fn what_is_there_already_is_not_written() {
        let directory = TempDir::new().unwrap();
        let file = directory.path().join("a.conflist");
        assert!(write_if_different(&file, b"one", 0o644).unwrap());
        let before = identity(&file);
        assert!(!write_if_different(&file, b"one", 0o644).unwrap());
        assert_eq!((identity(&file), before.3), (before, 0o644));
    }

    #[test]
    fn another_content_or_mode_is_replaced_by_a_new_file() {
        let directory = TempDir::new().unwrap();
        let file = directory.write("a.conflist", "one").unwrap();
        let mut reader = File::open(&file).unwrap();
        // What a killed one has left.
        directory.write(".a.conflist.new", "half of").unwrap();
        assert!(write_if_different(&file, b"two", 0o644).unwrap());
        assert_eq!(fs::read(&file).unwrap(), b"two");
        assert_eq!(io::read_to_string(&mut reader).unwrap(), "one");
        assert!(write_if_different(&file, b"two", 0o600).unwrap());
        assert_eq!(identity(&file).3, 0o600);
        assert_eq!(hidden(&directory), Vec::<String>::new());
    }

    #[test]
    fn a_missing_directory_is_told_by_path_and_a_failure_leaves_nothing() {
        let directory = TempDir::new().unwrap();
        let file = directory.path().join("net.d/a.conflist");
        let error = write_if_different(&file, b"one", 0o644).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(error.to_string().contains("net.d/a.conflist"), "{error}");

        let taken = directory.path().join("taken");
        fs::create_dir(&taken).unwrap();
        let error = write_if_different(&taken, b"one", 0o644).unwrap_err();
        assert!(error.to_string().contains("/taken: "), "{error}");
        assert_eq!(hidden(&directory), Vec::<String>::new());
    }

    #[test]
    fn a_program_gets_the_plugins_name_and_can_be_run() {
        let directory = TempDir::new().unwrap();
        let program = directory.write("built", "#!/bin/sh\n").unwrap();
        assert!(install_binary(&program, directory.path()).unwrap());
        assert!(!install_binary(&program, directory.path()).unwrap());
        assert_eq!(identity(&directory.path().join(PLUGIN)).3, 0o755);
        let error = install_binary(&directory.path().join("none"), directory.path()).unwrap_err();
        assert!(error.to_string().contains("/none: "), "{error}");
    }
}
