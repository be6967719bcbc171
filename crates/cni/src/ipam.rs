//! The IPAM plugin, which gives and takes back addresses: another CNI plugin, run by ours with its own environment and
//! configuration.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

use crate::config::Input;
use crate::error::{Code, Error};
use crate::request::{Verb, plugin_directories};
use crate::{CniResult, SpecVersion};

/// An IPAM plugin that has been found.
#[derive(Debug)]
pub(crate) struct Ipam<'a> {
    name: &'a str,
    program: PathBuf,
    input: &'a Input,
}

impl<'a> Ipam<'a> {
    /// Finds the plugin of the configuration; `None` where there is none in it.
    pub(crate) fn find(input: &'a Input) -> Result<Option<Self>, Error> {
        let Some(name) = input.ipam_plugin() else {
            return Ok(None);
        };
        if name.contains('/') {
            let message =
                format!("ipam.type is {name:?}: the name of a program in CNI_PATH is wanted, no path");
            return Err(Error::new(Code::InvalidConfig, message));
        }
        let directories = plugin_directories();
        let program = directories
            .iter()
            .map(|directory| directory.join(name))
            .find(|path| path.is_file())
            .ok_or_else(|| {
                let list: Vec<_> = directories
                    .iter()
                    .map(|path| path.display().to_string())
                    .collect();
                let message = format!(
                    "the IPAM plugin {name} is not in CNI_PATH ({}): install it there, or name another in ipam.type",
                    list.join(":")
                );
                Error::new(Code::NoIpam, message)
            })?;
        Ok(Some(Self { name, program, input }))
    }

    /// The same for verbs that need one.
    pub(crate) fn require(input: &'a Input) -> Result<Self, Error> {
        Self::find(input)?.ok_or_else(|| {
            let message = "ipam.type is missing: name the plugin that gives addresses, as host-local";
            Error::new(Code::InvalidConfig, message)
        })
    }

    /// Asks for addresses: at least one, and no two of a kind that a pod could not hold.
    pub(crate) fn add(&self) -> Result<CniResult, Error> {
        let answer = self.run(Verb::Add, self.version(), &[])?;
        let result: CniResult = serde_json::from_slice(&answer).map_err(|error| {
            let message = format!("the IPAM plugin {} answered no result: {error}", self.name);
            Error::new(Code::IpamAnswer, message).with_details(String::from_utf8_lossy(&answer))
        })?;
        if result.ips.is_empty() {
            let message = format!("the IPAM plugin {} gave no address: check its ranges", self.name);
            return Err(Error::new(Code::IpamAnswer, message));
        }
        Ok(result)
    }

    /// Gives the addresses of the container back. Without any, it succeeds as well.
    pub(crate) fn del(&self) -> Result<(), Error> {
        self.run(Verb::Del, self.version(), &[]).map(drop)
    }

    /// Gives the addresses of another container back than of the one that is asked about.
    pub(crate) fn del_of(&self, container_id: &str, ifname: &str) -> Result<(), Error> {
        let environment = [
            ("CNI_CONTAINERID", container_id),
            ("CNI_IFNAME", ifname),
            ("CNI_NETNS", ""),
            ("CNI_ARGS", ""),
        ];
        self.run(Verb::Del, self.version(), &environment).map(drop)
    }

    /// Asks whether the addresses are still the container's.
    pub(crate) fn check(&self) -> Result<(), Error> {
        self.run(Verb::Check, self.version(), &[]).map(drop)
    }

    /// Passes STATUS or GC on, where the plugin knows these.
    pub(crate) fn pass_on(&self, verb: Verb) -> Result<(), Error> {
        if !self.speaks(verb.since())? {
            return Ok(());
        }
        self.run(verb, self.input.version, &[]).map(drop)
    }

    /// Whether it is Debian's or another's host-local, whose leases are files of a known form.
    pub(crate) fn is_host_local(&self) -> bool {
        self.name == "host-local"
    }

    /// IPAM plugins of the distributions speak 1.0.0 at most, and for addresses it makes no difference.
    fn version(&self) -> SpecVersion {
        self.input.version.min(SpecVersion::V1_0_0)
    }

    fn speaks(&self, version: SpecVersion) -> Result<bool, Error> {
        let answer = self.run(Verb::Version, version, &[])?;
        let answer: Value = serde_json::from_slice(&answer).map_err(|error| {
            let message = format!(
                "the IPAM plugin {} does not tell its versions: {error}",
                self.name
            );
            Error::new(Code::IpamAnswer, message)
        })?;
        let versions = answer["supportedVersions"].as_array();
        Ok(versions.is_some_and(|list| list.iter().any(|entry| entry == version.as_str())))
    }

    /// Runs the plugin and returns what it wrote. Its standard error is ours: the runtime's log.
    fn run(&self, verb: Verb, version: SpecVersion, environment: &[(&str, &str)]) -> Result<Vec<u8>, Error> {
        let mut command = Command::new(&self.program);
        command
            .env("CNI_COMMAND", verb.as_str())
            .envs(environment.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let cannot_be_run = |error| {
            let message = format!(
                "the IPAM plugin {} cannot be run: {error}",
                self.program.display()
            );
            Error::new(Code::NoIpam, message)
        };
        let mut child = spawn(&mut command).map_err(cannot_be_run)?;
        if let Some(mut stdin) = child.stdin.take() {
            // A plugin that does not read on says why in its answer.
            let _ = stdin.write_all(&self.input.for_delegate(version));
        }
        let output = child.wait_with_output().map_err(cannot_be_run)?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        Err(self.complaint(verb, &output))
    }

    /// The error of another plugin, as ours.
    fn complaint(&self, verb: Verb, output: &Output) -> Error {
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let code = answer["code"].as_u64().and_then(|code| u32::try_from(code).ok());
        match (code, answer["msg"].as_str()) {
            (Some(code), Some(message)) if code != 0 => {
                let message = format!("the IPAM plugin {} answered: {message}", self.name);
                let error = Error::new(Code::Delegate(code), message);
                match answer["details"].as_str() {
                    Some(details) if !details.is_empty() => error.with_details(details),
                    _ => error,
                }
            }
            _ => {
                let message = format!(
                    "the IPAM plugin {} failed at {} ({}) and did not say why: its standard error is in the runtime's \
                     log",
                    self.name,
                    verb.as_str(),
                    output.status
                );
                let error = Error::new(Code::IpamAnswer, message);
                let text = String::from_utf8_lossy(&output.stdout);
                if text.trim().is_empty() {
                    error
                } else {
                    error.with_details(text.trim())
                }
            }
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a CNI plugin runs its IPAM plugin; if it is killed meanwhile, the other shall come to its end: half a lease \
              is worse than one that the next DEL frees"
)]
fn spawn(command: &mut Command) -> std::io::Result<Child> {
    command.spawn()
}
