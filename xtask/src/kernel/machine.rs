//! The virtual machine. It is emulated: stock kernels do not boot everywhere with KVM, and a test that passes slowly
//! passes.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};

use super::fetch::Kernel;

/// Boots the kernel with the image and waits until it has switched itself off. What it prints goes to the standard
/// output, what it writes to its second serial port is returned. A machine that is not done after `limit` is ended, and
/// its report is as far as it came.
pub(super) fn run(kernel: &Kernel, image: &Path, report: &Path, limit: Duration) -> Result<String> {
    // The status says nothing of the tests: a kernel that panics ends the machine as well.
    Command::new("timeout")
        .arg(limit.as_secs().to_string())
        .arg("qemu-system-x86_64")
        .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"])
        .args(["-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "max"])
        .args(["-smp", "2", "-m", "3G"])
        .args(["-serial", "stdio"])
        .arg("-serial")
        .arg(format!("file:{}", report.display()))
        .arg("-kernel")
        .arg(&kernel.image)
        .arg("-initrd")
        .arg(image)
        // Whatever shakes the kernel makes it reboot, which ends the machine.
        .args(["-append", "console=ttyS0 quiet panic=-1 oops=panic"])
        .stdin(Stdio::null())
        .status()
        .context("timeout cannot be run")?;
    let told = fs::read(report).with_context(|| {
        format!(
            "no report in {}: qemu-system-x86_64 (Debian: qemu-system-x86) did not run",
            report.display()
        )
    })?;
    Ok(String::from_utf8_lossy(&told).into_owned())
}
