//! The plugin and its configuration as files, put where the container runtime looks for them: by the agent, which keeps
//! them there, and by `routelet install-cni`, which does it once.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use routelet_cni::install::{self, CONFLIST_MODE};
use routelet_cni::{Conflist, PLUGIN, UNINSTALLED_CONFLIST, refusing};

use crate::args::CniFilesArgs;

/// Endings of the files that container runtimes read as configurations.
const ENDINGS: [&str; 3] = ["conf", "conflist", "json"];

/// What an operator can do where the files cannot be put in place.
pub(crate) const REMEDY: &str = "the directories must be there and writable (--cni-bin-dir, --cni-conf-dir), and the program \
                                 readable (--cni-binary)";

/// Puts the program in place, then the configuration, for from the configuration on the runtime wants to run the program.
/// True where anything was written. The error names the path.
pub(crate) fn install(args: &CniFilesArgs, list: &Conflist) -> io::Result<bool> {
    let program = match &args.cni_binary {
        Some(program) => program.clone(),
        None => std::env::current_exe()?.with_file_name(PLUGIN),
    };
    let new_program = install::install_binary(&program, &args.cni_bin_dir)?;
    if new_program {
        tracing::info!(directory = %args.cni_bin_dir.display(), "installed the CNI plugin");
    }
    let list = with_port_maps(args, list);
    let file = configuration(args);
    let new_list = install::write_if_different(&file, list.to_text().as_bytes(), CONFLIST_MODE)?;
    if new_list {
        let subnets: Vec<_> = list.subnets.iter().map(ToString::to_string).collect();
        tracing::info!(
            file = %file.display(), mtu = list.mtu, subnets = subnets.join(","), port_maps = list.port_maps,
            "wrote the CNI configuration"
        );
    }
    // What an earlier uninstallation has left for pods to be deleted by: they are by this one.
    match fs::remove_file(args.cni_conf_dir.join(UNINSTALLED_CONFLIST)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(new_program || new_list),
    }
}

/// Has the configuration, where it is there, refuse pods and say why: by one that is out of date they would get what they
/// cannot use, and without one the runtime would not even take down those that are there. True where it was written.
pub(crate) fn refuse(args: &CniFilesArgs, why: &str) -> io::Result<bool> {
    let file = configuration(args);
    let text = match fs::read_to_string(&file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        text => text?,
    };
    let Some(text) = refusing(&text, why) else {
        return Ok(false);
    };
    let is_new = install::write_if_different(&file, text.as_bytes(), CONFLIST_MODE)?;
    if is_new {
        tracing::warn!(file = %file.display(), "new pods get no network: {why}");
    }
    Ok(is_new)
}

/// The list as it is written: with portmap where its program is there, for a list with a plugin that is not there would
/// start no pod at all.
pub(crate) fn with_port_maps(args: &CniFilesArgs, list: &Conflist) -> Conflist {
    Conflist {
        port_maps: args.cni_bin_dir.join("portmap").exists(),
        ..list.clone()
    }
}

/// Name of the first configuration of someone else that goes before ours.
pub(crate) fn rival(args: &CniFilesArgs) -> io::Result<Option<String>> {
    let mut first: Option<String> = None;
    for entry in fs::read_dir(&args.cni_conf_dir)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let ending = Path::new(&name).extension().and_then(|ending| ending.to_str());
        let is_read = ending.is_some_and(|ending| ENDINGS.contains(&ending));
        if is_read && name < args.cni_conf_name && first.as_ref().is_none_or(|first| name < *first) {
            first = Some(name);
        }
    }
    Ok(first)
}

/// Tells of a configuration that goes before ours.
pub(crate) fn tell_rival(args: &CniFilesArgs, name: &str) {
    tracing::warn!(
        file = %args.cni_conf_dir.join(name).display(),
        "another CNI configuration goes before {}, and the container runtime uses it for the pods: remove it, or choose a \
         --cni-conf-name that comes first", args.cni_conf_name
    );
}

fn configuration(args: &CniFilesArgs) -> PathBuf {
    args.cni_conf_dir.join(&args.cni_conf_name)
}
