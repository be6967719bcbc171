//! A shell on a host of the lab, as root there has it: with the program in the path, and files of the host's own where the
//! pages name them.

use std::path::{Path, PathBuf};
use std::process::Command;

use routelet_lab::TempDir;
use routelet_lab::process::Process;
use routelet_netlink::Netns;

use crate::pages::ROOT;

/// The host's own directories.
const DIRECTORIES: [&str; 5] = [
    "etc/bird",
    "etc/cni/net.d",
    "opt/cni/bin",
    "run/routelet",
    "var/lib/cni/networks",
];

/// Puts the host's directories in place, which need not be there on the machine, and runs the line. Nothing of it is seen
/// outside of this shell.
const SHELL: &str = r#"
mount -t tmpfs none /mnt
for top in etc opt run var; do
    mkdir /mnt/$top /mnt/$top.work
    mount -t overlay none -o lowerdir=/$top,upperdir=/mnt/$top,workdir=/mnt/$top.work /$top
done
for directory in $DIRECTORIES; do
    mkdir -p /$directory
    mount --bind "$FILES/$directory" /$directory
done
exec sh -euc "$LINE"
"#;

pub(crate) struct Host {
    netns: Netns,
    files: TempDir,
}

impl Host {
    pub(crate) fn new(netns: &Netns) -> Self {
        let files = TempDir::new().unwrap();
        for directory in DIRECTORIES {
            std::fs::create_dir_all(files.path().join(directory)).unwrap();
        }
        Self {
            netns: netns.clone(),
            files,
        }
    }

    /// Where a file of the host's own is to be found from outside of its shell.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    /// Has another directory stand for one of the host's own.
    pub(crate) fn link(&self, name: &str, directory: &Path) {
        std::fs::remove_dir(self.file(name)).unwrap();
        std::os::unix::fs::symlink(directory, self.file(name)).unwrap();
    }

    /// Runs a line in the source's root; it must succeed. Returns what it prints.
    pub(crate) fn run(&self, line: &str) -> String {
        let mut command = self.command(line, &[]);
        let output = self.netns.run(|| command.output()).unwrap().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{line}: {stdout}\n{stderr}");
        assert_eq!(stderr, "", "{line}");
        stdout
    }

    /// Starts a line that does not end by itself, with variables of the environment.
    pub(crate) fn start(&self, line: &str, variables: &[(&str, &Path)]) -> Process {
        let command = self.command(&format!("exec {line}"), variables);
        Process::start(line, &self.netns, command).unwrap()
    }

    fn command(&self, line: &str, variables: &[(&str, &Path)]) -> Command {
        let programs = Path::new(env!("CARGO_BIN_EXE_routelet")).parent().unwrap();
        let path = std::env::var("PATH").unwrap();
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "sh", "-euc", SHELL])
            .current_dir(ROOT)
            .env_clear()
            .env("PATH", format!("{}:{path}", programs.display()))
            .env("DIRECTORIES", DIRECTORIES.join(" "))
            .env("FILES", self.files.path())
            .env("LINE", line)
            .envs(variables.iter().copied());
        command
    }
}
