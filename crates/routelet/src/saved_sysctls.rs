//! The host's own settings as they were before the agent changed them: noted in a file, set back by `routelet cleanup`.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::Context;
use routelet_cni::install::write_if_different;
use routelet_model::{Sysctl, SysctlName};
use routelet_netlink::sysctl;

/// The settings of the whole host that the agent changes.
const OF_THE_HOST: [SysctlName; 2] = [SysctlName::Ipv4IpForward, SysctlName::Ipv6AllForwarding];
/// The file's mode.
const MODE: u32 = 0o600;

/// Notes the settings, unless an agent before this one has; to be called before they are changed. A failure is told and
/// stops nothing.
pub(crate) fn save(file: &Path) {
    if file.exists() {
        return;
    }
    if let Err(error) = try_save(file) {
        tracing::warn!(
            "cannot note the host's settings in {}: {error:#}; routelet cleanup will leave them as they are \
             (--saved-sysctls)",
            file.display()
        );
    }
}

fn try_save(file: &Path) -> anyhow::Result<()> {
    let mut text = String::new();
    for sysctl in OF_THE_HOST.map(Sysctl::host) {
        if let Some(value) = sysctl::read(sysctl)? {
            text.push_str(&format!("{sysctl} {value}\n"));
        }
    }
    if let Some(directory) = file.parent() {
        fs::create_dir_all(directory)?;
    }
    write_if_different(file, text.as_bytes(), MODE)?;
    Ok(())
}

/// Sets back what differs from what was noted.
pub(crate) fn restore(file: &Path) -> anyhow::Result<()> {
    let text = match fs::read_to_string(file) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            tracing::info!("no settings of the host are noted in {}", file.display());
            return Ok(());
        }
        result => result.with_context(|| format!("cannot read {}", file.display()))?,
    };
    for line in text.lines() {
        let saved = read_line(line).with_context(|| {
            format!(
                "{} says {line:?}, not a setting and its value: set it back by hand and delete the file",
                file.display()
            )
        })?;
        let (setting, value) = saved;
        if sysctl::read(setting)?.is_some_and(|now| now != value) {
            sysctl::write(setting, value)?;
            tracing::info!("set {setting} back to {value}");
        }
    }
    Ok(())
}

fn read_line(line: &str) -> Option<(Sysctl, u32)> {
    let (name, value) = line.split_once(' ')?;
    let mut settings = OF_THE_HOST.into_iter().map(Sysctl::host);
    Some((
        settings.find(|setting| setting.path() == name)?,
        value.parse().ok()?,
    ))
}
