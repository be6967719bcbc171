//! containerd in a node's network namespace, with directories of its own.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use routelet_lab::process::{Process, built_program};
use routelet_lab::{TempDir, wait};
use routelet_netlink::Netns;
use serde_json::Value;

use crate::cri::Cri;
use crate::image::{IMAGE, output};

/// Where distributions have the reference plugins.
const PLUGINS: &str = "/usr/lib/cni";
const CONTROL_GROUPS: &str = "/sys/fs/cgroup";

/// A runtime. When this is dropped, its sandboxes, its processes and its mounts are gone.
pub(crate) struct Runtime {
    pub(crate) cri: Cri,
    netns: Netns,
    process: Process,
    directory: TempDir,
}

/// Whether it asks plugins for STATUS, where their configuration is of version 1.1.0: containerd 2 does.
pub(crate) fn asks_for_status() -> bool {
    let told = output(Command::new("containerd").arg("--version")).unwrap();
    let version = told.split(' ').nth(2).unwrap().trim_start_matches('v');
    version.split('.').next().unwrap().parse::<u32>().unwrap() >= 2
}

/// What is missing for a runtime here.
pub(crate) fn missing() -> Option<String> {
    for program in [
        "containerd",
        "ctr",
        "runc",
        "containerd-shim-runc-v2",
        "tar",
        "sha256sum",
    ] {
        let path = std::env::var_os("PATH").unwrap_or_default();
        if !std::env::split_paths(&path).any(|directory| directory.join(program).is_file()) {
            return Some(format!("{program} is not installed"));
        }
    }
    let files = ["/bin/busybox", "/usr/lib/cni/host-local", "/usr/lib/cni/portmap"];
    let missing = files.into_iter().find(|file| !Path::new(file).is_file())?;
    Some(format!("{missing} is not there"))
}

impl Runtime {
    /// Starts containerd, without a network configuration, and gives it the image.
    pub(crate) fn start(netns: &Netns, image: &Path) -> Result<Self> {
        let directory = TempDir::new()?;
        let inside = |name: &str| directory.path().join(name);
        fs::create_dir(inside("conf"))?;
        fs::create_dir(inside("bin"))?;
        for plugin in ["host-local", "portmap", "loopback"] {
            symlink(Path::new(PLUGINS).join(plugin), inside("bin").join(plugin))?;
        }
        let ours = built_program("routelet-cni", "ROUTELET_CNI_BIN")?;
        symlink(ours, inside("bin/routelet-cni"))?;
        directory.write("config.toml", config(directory.path()))?;
        let process = containerd(netns, directory.path())?;
        let runtime = Self {
            cri: Cri {
                socket: inside("containerd.sock"),
            },
            netns: netns.clone(),
            process,
            directory,
        };
        runtime.wait_serving()?;
        runtime.import(image)?;
        Ok(runtime)
    }

    /// Gives it an image from an archive.
    pub(crate) fn import(&self, image: &Path) -> Result<()> {
        let mut ctr = Command::new("ctr");
        ctr.arg("--address").arg(&self.cri.socket);
        // The CRI unpacks it where it needs it. Of ctr, containerd 2 would want to know a platform.
        ctr.args(["--namespace", "k8s.io", "images", "import", "--no-unpack"]);
        output(ctr.arg(image)).map(|_| ())
    }

    /// Runs a command line, in which `ctr` is for this runtime, in a directory.
    pub(crate) fn run(&self, line: &str, directory: &Path) -> Result<()> {
        let mut shell = Command::new("sh");
        shell.args(["-euc", line]).current_dir(directory);
        shell.env("CONTAINERD_ADDRESS", &self.cri.socket);
        shell.env("CONTAINERD_SNAPSHOTTER", "native");
        output(&mut shell).map(|_| ())
    }

    /// Puts a network configuration where the runtime looks for it. It is written in that very directory under a name
    /// that the runtime does not read: containerd does not notice a file that comes from another directory.
    pub(crate) fn configure(&self, list: &Value) -> Result<()> {
        let beside = self.directory.write("conf/.routelet", list.to_string())?;
        fs::rename(beside, self.file("conf/10-routelet.conflist")).context("renaming the configuration")
    }

    /// A file or directory of this runtime.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The control group that its containers are to be in.
    pub(crate) fn control_group(&self) -> String {
        let name = self.directory.path().file_name().unwrap_or_default();
        format!("/{}", name.to_string_lossy())
    }

    /// Removes the control group, in every hierarchy. Fails where it is in use or not there, and both are fine: one
    /// that is in use belongs to a container that could not be stopped, which has been told.
    fn remove_control_group(&self) {
        let below = fs::read_dir(CONTROL_GROUPS).into_iter().flatten().flatten();
        for hierarchy in below
            .map(|entry| entry.path())
            .chain([PathBuf::from(CONTROL_GROUPS)])
        {
            let _ = fs::remove_dir(hierarchy.join(&self.control_group()[1..]));
        }
    }

    /// Kills containerd (SIGKILL); containers go on.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.process.kill()
    }

    /// Starts it again after [`Runtime::kill`].
    pub(crate) fn restart(&mut self) -> Result<()> {
        self.process = containerd(&self.netns, self.directory.path())?;
        self.wait_serving()
    }

    fn wait_serving(&self) -> Result<()> {
        wait::until_ok(wait::LONG, "containerd to serve", || self.cri.is_network_ready()).map(|_| ())
    }

    /// Processes that keep the containers: they know the runtime's socket, and outlive it.
    fn shims(&self) -> Vec<Pid> {
        let socket = self.cri.socket.as_os_str().as_encoded_bytes();
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
        let numbered = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let ours = numbered.filter(|pid: &i32| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let mut words = line.split(|byte| *byte == 0);
            let program = words.next().unwrap_or_default();
            program.ends_with(b"containerd-shim-runc-v2") && words.any(|word| word == socket)
        });
        ours.map(Pid::from_raw).collect()
    }

    fn clean_up(&mut self) -> Result<()> {
        if !self.process.is_running() {
            self.restart()?;
        }
        for sandbox in self.cri.sandboxes()? {
            self.cri.stop_sandbox(&sandbox)?;
            self.cri.remove_sandbox(&sandbox)?;
        }
        wait::until(wait::LONG, "the shims to end", || self.shims().is_empty())
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        let clean = self.clean_up();
        // What a failure has left is taken away all the same.
        let _ = self.process.kill();
        for shim in self.shims() {
            let _ = kill(shim, Signal::SIGKILL);
        }
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let ours = mounts.lines().filter_map(|line| line.split(' ').nth(1));
        let ours = ours.filter(|mount| Path::new(mount).starts_with(self.directory.path()));
        let left: Vec<_> = ours.collect();
        for mount in left.iter().rev() {
            let _ = umount2(*mount, MntFlags::MNT_DETACH);
        }
        self.remove_control_group();
        if !std::thread::panicking() {
            clean.unwrap();
            assert!(left.is_empty(), "the runtime has left mounts: {left:?}");
        }
    }
}

fn containerd(netns: &Netns, directory: &Path) -> Result<Process> {
    let mut command = Command::new("containerd");
    command.args(["--log-level", "warn"]);
    command.arg("--config").arg(directory.join("config.toml"));
    Process::start("containerd", netns, command)
}

fn config(directory: &Path) -> String {
    let directory = directory.display();
    format!(
        r#"version = 2
root = "{directory}/root"
state = "{directory}/state"
[grpc]
address = "{directory}/containerd.sock"
[ttrpc]
address = "{directory}/containerd.sock.ttrpc"
[plugins."io.containerd.internal.v1.opt"]
path = "{directory}/opt"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{IMAGE}"
restrict_oom_score_adj = true
netns_mounts_under_state_dir = true
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "native"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{directory}/bin"
conf_dir = "{directory}/conf"
"#
    )
}
