//! `cargo xtask image`: an image of the agent and the CNI plugin, made without a container engine.

mod archive;
mod elf;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};

use crate::run;
use archive::{Image, Program};

/// The programs in the image, in the order of their names.
const PROGRAMS: [&str; 2] = ["routelet", "routelet-cni"];
/// Where the image goes, below cargo's target directory.
const ARCHIVE: &str = "image/routelet.tar";
/// The image's name, complete, as container runtimes keep it: they read `routelet:dev` so.
const NAME: &str = "docker.io/library/routelet:dev";
/// More than this and something has come in that does not belong there.
const LIMIT: usize = 15 << 20;

/// How the image is made.
#[derive(Debug, Args)]
pub(crate) struct ImageArgs {
    /// Machine that the image is for; this one's, if not given.
    #[arg(long, value_enum)]
    arch: Option<Arch>,

    /// Directory of static programs, `routelet` and `routelet-cni`, to put into the image; if not given, they are built.
    #[arg(long, value_name = "DIRECTORY")]
    programs: Option<PathBuf>,
}

/// A machine, by the name that images have for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Arch {
    /// x86-64.
    Amd64,
    /// 64-bit Arm.
    Arm64,
}

impl Arch {
    /// This machine's.
    fn own() -> Result<Self> {
        match std::env::consts::ARCH {
            "x86_64" => Ok(Self::Amd64),
            "aarch64" => Ok(Self::Arm64),
            other => anyhow::bail!("there is no image for {other}: say --arch amd64 or --arch arm64"),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// The compiler's name for it.
    fn target(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64-unknown-linux-gnu",
            Self::Arm64 => "aarch64-unknown-linux-gnu",
        }
    }

    /// The C compiler that links for it from another machine, as Debian names it.
    fn linker(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64-linux-gnu-gcc",
            Self::Arm64 => "aarch64-linux-gnu-gcc",
        }
    }
}

/// Makes the image and says where it is.
pub(crate) fn image(args: &ImageArgs) -> Result<ExitCode> {
    let arch = match args.arch {
        Some(arch) => arch,
        None => Arch::own()?,
    };
    let target = run::target_directory()?;
    let directory = match &args.programs {
        Some(directory) => directory.clone(),
        None => build(arch, &target)?,
    };
    let path = target.join(ARCHIVE);
    let size = write(arch, &directory, &path, LIMIT)?;
    run::complain(&format!(
        "{} for {}: {:.1} MiB",
        path.display(),
        arch.name(),
        size as f64 / f64::from(1 << 20)
    ));
    Ok(ExitCode::SUCCESS)
}

/// Writes the archive of the programs in a directory, of at most `limit` bytes; returns its size.
fn write(arch: Arch, programs: &Path, to: &Path, limit: usize) -> Result<usize> {
    let programs = PROGRAMS.map(|name| -> Result<Program> {
        let path = programs.join(name);
        let bytes = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        elf::check_static(&bytes, arch)
            .with_context(|| format!("{} cannot go into the image", path.display()))?;
        Ok(Program { name, bytes })
    });
    let image = Image {
        name: NAME,
        architecture: arch.name(),
        version: env!("CARGO_PKG_VERSION"),
        programs: programs.into_iter().collect::<Result<_>>()?,
    };
    let bytes = image.archive()?;
    ensure!(
        bytes.len() <= limit,
        "the image has {} bytes; more than {limit} are not allowed: look what the programs have grown by",
        bytes.len()
    );
    if let Some(directory) = to.parent() {
        fs::create_dir_all(directory).with_context(|| format!("making {}", directory.display()))?;
    }
    fs::write(to, &bytes).with_context(|| format!("writing {}", to.display()))?;
    Ok(bytes.len())
}

/// Builds the programs without shared libraries, and returns their directory. They are linked with glibc, whose resolver
/// works in an image without any other file.
fn build(arch: Arch, target: &Path) -> Result<PathBuf> {
    let triple = arch.target();
    let mut flags = vec!["-Ctarget-feature=+crt-static".to_owned()];
    // Where it was built is nobody's business, and makes no difference then.
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    let home = std::env::home_dir().map(|home| home.join(".cargo"));
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from).or(home);
    for (path, name) in [(workspace.map(Path::to_owned), "/routelet"), (home, "/cargo")] {
        if let Some(path) = path {
            flags.push(format!("--remap-path-prefix={}={name}", path.display()));
        }
    }
    let mut command = Command::new(run::cargo_program());
    command.args(["build", "--release", "--target", triple, "--bins"]);
    for program in PROGRAMS {
        command.args(["--package", program]);
    }
    command.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"));
    if Arch::own().ok() != Some(arch) {
        let variable = triple.to_uppercase().replace('-', "_");
        command.env(format!("CARGO_TARGET_{variable}_LINKER"), arch.linker());
    }
    let status = command.status().context("cargo cannot be run")?;
    ensure!(
        status.success(),
        "the programs for {triple} could not be built; from another machine this takes `rustup target add {triple}` and \
         {} with the C library's static archives (Debian: crossbuild-essential-{}), or give programs by --programs",
        arch.linker(),
        arch.name()
    );
    Ok(target.join(triple).join("release"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What of a program the image looks at: the head of a static one for x86-64.
    fn stand_in(text: &str) -> Vec<u8> {
        [elf::tests::head(62, &[1]), text.as_bytes().to_vec()].concat()
    }

    #[test]
    fn the_programs_of_a_directory_become_an_archive() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("made/image.tar");
        let error = format!(
            "{:#}",
            write(Arch::Amd64, directory.path(), &path, LIMIT).unwrap_err()
        );
        assert!(error.contains("/routelet: No such file"), "{error}");
        for program in PROGRAMS {
            fs::write(directory.path().join(program), stand_in(program)).unwrap();
        }
        let size = write(Arch::Amd64, directory.path(), &path, LIMIT).unwrap();
        assert_eq!(fs::read(&path).unwrap().len(), size);

        let error = format!(
            "{:#}",
            write(Arch::Arm64, directory.path(), &path, LIMIT).unwrap_err()
        );
        assert!(
            error.contains("routelet cannot go into the image: it is for machine 62"),
            "{error}"
        );
    }

    #[test]
    fn an_image_that_has_grown_too_large_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("image.tar");
        for program in PROGRAMS {
            fs::write(directory.path().join(program), stand_in(program)).unwrap();
        }
        let error = write(Arch::Amd64, directory.path(), &path, 1000)
            .unwrap_err()
            .to_string();
        assert!(error.contains("more than 1000 are not allowed"), "{error}");
        assert!(!path.exists());
    }
}
