//! Kernels of Debian's, for virtual machines: downloaded with apt, unpacked, and kept under `target/kernels`. Nothing is
//! installed, and apt's own lists and settings stay as they are.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::run::{complain, output, succeed};

/// Kernel series, and the suite of Debian's that has the newest of each.
const SERIES: [(&str, &str); 4] = [
    ("5.10", "bullseye-security"),
    ("6.1", "bookworm-security"),
    ("6.12", "trixie-security"),
    ("sid", "sid"),
];

/// The package that depends on a suite's kernel for virtual machines.
const META_PACKAGE: &str = "linux-image-cloud-amd64";

/// An unpacked kernel.
pub(super) struct Kernel {
    /// What `uname -r` says.
    pub(super) release: String,
    /// The compressed kernel that a boot loader takes.
    pub(super) image: PathBuf,
    /// The directory whose `kernel` holds the modules.
    pub(super) modules: PathBuf,
}

/// The kernel of a series, from `directory` if it is there, and else from the mirror that this machine's apt uses.
pub(super) fn kernel(series: &str, directory: &Path) -> Result<Kernel> {
    let Some((_, suite)) = SERIES.iter().find(|(name, _)| *name == series) else {
        let known = SERIES.map(|(name, _)| name).join(", ");
        bail!("--kernel {series}: not one of those that can be had: {known}");
    };
    let unpacked = directory.join(series);
    if !unpacked.is_dir() {
        complain(&format!("fetches the kernel of {suite}"));
        fetch(suite, directory, &unpacked).with_context(|| {
            format!("the kernel {series} cannot be fetched: this takes apt and dpkg, and a Debian mirror with {suite}")
        })?;
    }
    find(&unpacked).with_context(|| format!("{} holds no kernel: remove it", unpacked.display()))
}

/// Downloads and unpacks; a directory that is there is whole.
fn fetch(suite: &str, directory: &Path, unpacked: &Path) -> Result<()> {
    let apt = Apt::new(suite, &directory.join("apt").join(suite))?;
    let image = apt
        .dependencies(META_PACKAGE)?
        .into_iter()
        .find(|name| name.starts_with("linux-image-"))
        .with_context(|| format!("{META_PACKAGE} depends on no kernel"))?;
    let release = image.trim_start_matches("linux-image-").to_owned();
    // Newer kernels come as several packages of one release.
    let mut packages = apt.dependencies(&image)?;
    packages.retain(|name| name.ends_with(&release));
    packages.push(image);

    let part = unpacked.with_extension("part");
    let archives = part.join("archives");
    if part.exists() {
        fs::remove_dir_all(&part)?;
    }
    fs::create_dir_all(&archives)?;
    succeed(
        apt.command("apt-get")
            .args(["-qq", "download"])
            .args(&packages)
            .current_dir(&archives),
    )?;
    for archive in fs::read_dir(&archives)? {
        succeed(Command::new("dpkg").arg("-x").arg(archive?.path()).arg(&part))?;
    }
    fs::remove_dir_all(&archives)?;
    fs::rename(&part, unpacked)?;
    Ok(())
}

/// Where Debian's packages put a kernel: before and after `/lib` was merged into `/usr/lib`.
fn find(unpacked: &Path) -> Result<Kernel> {
    let modules = ["lib/modules", "usr/lib/modules"].map(|place| unpacked.join(place));
    let modules = modules
        .iter()
        .find(|place| place.is_dir())
        .context("no modules")?;
    let modules = fs::read_dir(modules)?
        .next()
        .context("no release among the modules")??
        .path();
    let release = modules
        .file_name()
        .and_then(|name| name.to_str())
        .context("a release without a name")?
        .to_owned();
    let images = [
        unpacked.join(format!("boot/vmlinuz-{release}")),
        modules.join("vmlinuz"),
    ];
    let image = images.into_iter().find(|image| image.is_file());
    Ok(Kernel {
        image: image.context("no vmlinuz")?,
        release,
        modules,
    })
}

/// apt with lists of its own, of one suite.
struct Apt {
    options: Vec<String>,
}

impl Apt {
    fn new(suite: &str, directory: &Path) -> Result<Self> {
        for part in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(directory.join(part))?;
        }
        let sources = directory.join("sources.list");
        fs::write(&sources, format!("deb {} {suite} main\n", mirror(suite)?))?;
        let directory = fs::canonicalize(directory)?;
        let directory = directory.display();
        let options = [
            format!("Dir::Etc::SourceList={directory}/sources.list"),
            "Dir::Etc::SourceParts=/dev/null".to_owned(),
            format!("Dir::State::Lists={directory}/lists"),
            format!("Dir::Cache={directory}/cache"),
            "Acquire::Languages=none".to_owned(),
            // Else apt downloads as a user who may not write here.
            "APT::Sandbox::User=".to_owned(),
        ];
        let apt = Self {
            options: options.into(),
        };
        succeed(apt.command("apt-get").args(["-qq", "update"]))?;
        Ok(apt)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        for option in &self.options {
            command.arg("-o").arg(option);
        }
        command
    }

    fn dependencies(&self, package: &str) -> Result<Vec<String>> {
        let told = output(self.command("apt-cache").args(["depends", package]))?;
        let names = told
            .lines()
            .filter_map(|line| line.trim().strip_prefix("Depends: "));
        Ok(names.map(str::to_owned).collect())
    }
}

/// The mirror from which this machine has Debian's packages, or those of Debian's security updates.
fn mirror(suite: &str) -> Result<String> {
    let told = output(Command::new("apt-get").args([
        "indextargets",
        "--format",
        "$(REPO_URI) $(CODENAME)",
        "Created-By: Packages",
        "Origin: Debian",
    ]))?;
    let is_security = |suite: &str| suite.ends_with("-security");
    let mirror = told
        .lines()
        .filter_map(|line| line.trim().split_once(' '))
        .find(|(_, codename)| is_security(codename) == is_security(suite));
    let (uri, _) =
        mirror.context("apt knows no mirror of Debian's for it; after `apt-get update` it should")?;
    ensure!(!uri.is_empty(), "apt names no mirror");
    Ok(uri.to_owned())
}
