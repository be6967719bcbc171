//! The file system that a virtual machine has in memory: the test programs at the paths that they have here, the
//! programs that they run, libraries, and the kernel's network modules.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::fetch::Kernel;
use super::programs::Program;
use crate::run::{output, succeed};

/// Programs that tests or the agent run; the kernel runs modprobe. What is not on this machine is not in the virtual
/// one, and the tests that need it say that they are skipped.
const PROGRAMS: &[&str] = &[
    "sh",
    "modprobe",
    "ip",
    "bridge",
    "nft",
    "iptables",
    "iptables-save",
    "iptables-restore",
    "iptables-nft",
    "iptables-legacy",
    "ip6tables",
    "ip6tables-nft",
    "ip6tables-legacy",
    "ip6tables-save",
    "ip6tables-restore",
    "bird",
    "birdcl",
    "conntrack",
    "strace",
    "unshare",
    "ping",
];

/// Directories of which everything is taken, where they are here: plugins of the CNI and of iptables.
const DIRECTORIES: [&str; 2] = ["/usr/lib/cni", "/usr/lib/x86_64-linux-gnu/xtables"];

/// What else is read: the agent's TLS does not begin without certificates, and nft knows protocols by their names.
const FILES: [&str; 3] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/protocols",
    "/etc/services",
];

/// Modules that are there, beside those that they need.
const MODULES: [&str; 3] = ["net", "drivers/net", "lib"];

/// Files of a kernel's modules that say which there are.
const MODULE_LISTS: [&str; 3] = ["modules.order", "modules.builtin", "modules.builtin.modinfo"];

/// Writes the image to `file`; `root` is a directory to gather it in. `environment` are lines for a shell.
pub(super) fn write(
    kernel: &Kernel,
    programs: &[Program],
    environment: &str,
    root: &Path,
    file: &Path,
) -> Result<()> {
    if root.exists() {
        fs::remove_dir_all(root)?;
    }
    let image = Image { root };
    image.skeleton()?;
    image.modules(kernel)?;
    image.programs(programs)?;
    fs::write(root.join("environment"), environment)?;
    fs::write(root.join("init"), include_str!("init.sh"))?;
    fs::set_permissions(root.join("init"), fs::Permissions::from_mode(0o755))?;
    // Not compressed: the virtual machine would take longer to unpack it than to load it.
    succeed(
        Command::new("sh")
            .args([
                "-c",
                r#"cd "$0" && find . | cpio --quiet --create --format=newc >"$1""#,
            ])
            .args([root, file]),
    )
    .context("writing the image takes the program cpio")
}

struct Image<'a> {
    root: &'a Path,
}

impl Image<'_> {
    /// The place of a file of this machine's in the image.
    fn at(&self, path: &Path) -> PathBuf {
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    fn skeleton(&self) -> Result<()> {
        for directory in [
            "dev",
            "proc",
            "sys",
            "run",
            "tmp",
            "root",
            "etc",
            "var",
            "usr/bin",
            "usr/sbin",
            "usr/lib",
            "usr/lib64",
        ] {
            fs::create_dir_all(self.root.join(directory))?;
        }
        for directory in ["bin", "sbin", "lib", "lib64"] {
            symlink(format!("usr/{directory}"), self.root.join(directory))?;
        }
        symlink("/run", self.root.join("var/run"))?;
        let busybox = which("busybox").context("Debian: busybox-static")?;
        fs::copy(busybox, self.root.join("usr/bin/busybox"))?;
        Ok(())
    }

    fn modules(&self, kernel: &Kernel) -> Result<()> {
        let to = self.root.join("usr/lib/modules").join(&kernel.release);
        fs::create_dir_all(to.join("kernel/drivers"))?;
        for part in MODULES {
            let from = kernel.modules.join("kernel").join(part);
            succeed(
                Command::new("cp")
                    .arg("-r")
                    .arg(from)
                    .arg(to.join("kernel").join(part)),
            )?;
        }
        // Newer kernels' are compressed, which the virtual machine would undo again and again.
        succeed(
            Command::new("sh")
                .args([
                    "-c",
                    r#"find "$0" -name '*.ko.xz' -exec xz --decompress --threads=1 {} +"#,
                ])
                .arg(&to),
        )
        .context("Debian: the package xz-utils")?;
        for list in MODULE_LISTS {
            fs::copy(kernel.modules.join(list), to.join(list))?;
        }
        succeed(
            Command::new("depmod")
                .arg("-b")
                .arg(self.root)
                .arg(&kernel.release),
        )
        .context("Debian: the package kmod")
    }

    fn programs(&self, programs: &[Program]) -> Result<()> {
        let mut files: BTreeSet<PathBuf> = PROGRAMS.iter().filter_map(|name| which(name).ok()).collect();
        for directory in DIRECTORIES {
            for file in fs::read_dir(directory).into_iter().flatten() {
                files.insert(file?.path());
            }
        }
        files.extend(FILES.map(PathBuf::from).into_iter().filter(|file| file.is_file()));
        for file in &files {
            fs::copy(file, self.place(file)?)?;
        }
        let mut tests = String::new();
        let mut built = built_beside(programs)?;
        for program in programs {
            fs::create_dir_all(self.at(&program.directory))?;
            tests += &format!(
                "{}\t{}\t{}\n",
                program.name,
                program.directory.display(),
                program.path.display()
            );
            built.insert(program.path.clone());
        }
        for file in &built {
            // What debuggers need is most of them.
            succeed(
                Command::new("strip")
                    .arg("-o")
                    .args([self.place(file)?.as_path(), file]),
            )
            .context("Debian: the package binutils")?;
        }
        fs::write(self.root.join("tests"), tests)?;
        files.extend(built);
        self.libraries(&files)
    }

    /// The place for a file, with its directory made.
    fn place(&self, file: &Path) -> Result<PathBuf> {
        let to = self.at(file);
        fs::create_dir_all(to.parent().context("a file in no directory")?)?;
        Ok(to)
    }

    /// Copies the libraries of all the files, as the dynamic loader finds them.
    fn libraries(&self, files: &BTreeSet<PathBuf>) -> Result<()> {
        // ldd fails for files that need none.
        let told = Command::new("ldd").args(files).output().context("running ldd")?;
        let told = String::from_utf8_lossy(&told.stdout);
        let libraries: BTreeSet<&Path> = told
            .lines()
            .filter(|line| line.starts_with('\t'))
            .flat_map(str::split_whitespace)
            .filter(|word| word.starts_with('/'))
            .map(Path::new)
            .collect();
        ensure!(!libraries.is_empty(), "ldd finds no libraries");
        for library in libraries {
            fs::copy(library, self.place(library)?).with_context(|| library.display().to_string())?;
        }
        Ok(())
    }
}

/// The project's own programs, which tests look for above their own directory.
fn built_beside(programs: &[Program]) -> Result<BTreeSet<PathBuf>> {
    let directory = programs
        .first()
        .and_then(|program| program.path.ancestors().nth(2))
        .context("tests that lie in no target directory")?;
    let built = ["routelet", "routelet-cni", "lab-ipam"].map(|name| directory.join(name));
    Ok(built.into_iter().filter(|program| program.is_file()).collect())
}

/// Where a program is, by PATH.
fn which(program: &str) -> Result<PathBuf> {
    let path = output(Command::new("sh").args(["-c", r#"command -v "$0""#, program]))
        .with_context(|| format!("the program {program} is not there"))?;
    Ok(PathBuf::from(path.trim()))
}
