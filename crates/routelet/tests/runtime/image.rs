//! An image made on the spot: busybox, linked statically, as an archive in Docker's format.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use routelet_lab::TempDir;
use serde_json::json;

/// Its name, complete, for no registry is asked.
pub(crate) const IMAGE: &str = "docker.io/library/routelet-lab:1";
const BUSYBOX: &str = "/bin/busybox";

/// Writes the archive; its containers sleep unless told otherwise.
pub(crate) fn write(directory: &TempDir) -> Result<PathBuf> {
    let inside = |name: &str| directory.path().join(name);
    for path in ["rootfs/bin", "rootfs/tmp", "rootfs/etc"] {
        std::fs::create_dir_all(inside(path))?;
    }
    std::fs::copy(BUSYBOX, inside("rootfs/bin/busybox")).context(BUSYBOX)?;
    for name in ["sh", "sleep", "ping", "nc", "httpd", "wget"] {
        std::os::unix::fs::symlink("busybox", inside("rootfs/bin").join(name))?;
    }
    tar(&inside("rootfs"), &inside("layer.tar"), &["."])?;
    let sum = output(Command::new("sha256sum").arg(inside("layer.tar")))?;
    let sum = sum.split_whitespace().next().context("sha256sum wrote nothing")?;
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let config = json!({
        "architecture": architecture,
        "os": "linux",
        "config": { "Cmd": ["/bin/sleep", "1000000"], "Env": ["PATH=/bin"] },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{sum}")] },
    });
    directory.write("config.json", config.to_string())?;
    let manifest = json!([{ "Config": "config.json", "RepoTags": [IMAGE], "Layers": ["layer.tar"] }]);
    directory.write("manifest.json", manifest.to_string())?;
    let image = inside("image.tar");
    tar(
        directory.path(),
        &image,
        &["manifest.json", "config.json", "layer.tar"],
    )?;
    Ok(image)
}

fn tar(from: &Path, to: &Path, what: &[&str]) -> Result<()> {
    let mut command = Command::new("tar");
    command
        .arg("-C")
        .arg(from)
        .args(["--owner=0", "--group=0", "-cf"])
        .arg(to)
        .args(what);
    output(&mut command).map(|_| ())
}

/// What a program writes; it must succeed.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("running {command:?}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    ensure!(output.status.success(), "{command:?}: {}", text(&output.stderr));
    Ok(text(&output.stdout))
}
