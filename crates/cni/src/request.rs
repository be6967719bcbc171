//! What the runtime asks: the verb and its parameters, in the environment.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;

use routelet_model::{IfName, PodId};

use crate::SpecVersion;
use crate::error::{Code, Error};

/// A verb of the CNI specification.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Add,
    Del,
    Check,
    Status,
    Gc,
    Version,
}

impl Verb {
    const ALL: [Self; 6] = [
        Self::Add,
        Self::Del,
        Self::Check,
        Self::Status,
        Self::Gc,
        Self::Version,
    ];

    /// As it stands in CNI_COMMAND.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::Check => "CHECK",
            Self::Status => "STATUS",
            Self::Gc => "GC",
            Self::Version => "VERSION",
        }
    }

    /// The verb that is asked for.
    pub(crate) fn read() -> Result<Self, Error> {
        let text = text("CNI_COMMAND")?.unwrap_or_default();
        Self::ALL
            .into_iter()
            .find(|verb| verb.as_str() == text)
            .ok_or_else(|| {
                let known = Self::ALL.map(Self::as_str).join(", ");
                let message = format!(
                    "CNI_COMMAND is {text:?}: {known} are known (this program is run by a container runtime, not by hand)"
                );
                Error::new(Code::InvalidEnvironment, message)
            })
    }

    /// The oldest version of the specification that has the verb.
    pub(crate) fn since(self) -> SpecVersion {
        match self {
            Self::Add | Self::Del | Self::Version => SpecVersion::V0_3_1,
            Self::Check => SpecVersion::V0_4_0,
            Self::Status | Self::Gc => SpecVersion::V1_1_0,
        }
    }
}

/// Parameters of ADD, DEL and CHECK: one interface of one container.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) container_id: String,
    /// The sandbox's network namespace; DEL may come without.
    pub(crate) netns: Option<PathBuf>,
    pub(crate) ifname: IfName,
    /// The pod, where it is Kubernetes that asks.
    pub(crate) pod: Option<PodId>,
}

impl Request {
    /// Reads the environment.
    pub(crate) fn read() -> Result<Self, Error> {
        let container_id = required("CNI_CONTAINERID")?;
        if !is_identifier(&container_id) {
            let message = format!(
                "CNI_CONTAINERID is {container_id:?}: a letter or digit is wanted, then letters, digits, '_', '.' or '-'"
            );
            return Err(Error::new(Code::InvalidEnvironment, message));
        }
        let ifname = required("CNI_IFNAME")?
            .parse()
            .map_err(|error| Error::new(Code::InvalidEnvironment, format!("CNI_IFNAME: {error}")))?;
        Ok(Self {
            container_id,
            netns: variable("CNI_NETNS").map(PathBuf::from),
            ifname,
            pod: pod(&text("CNI_ARGS")?.unwrap_or_default())?,
        })
    }

    /// The path of the sandbox's network namespace, for verbs that cannot do without.
    pub(crate) fn netns(&self) -> Result<&PathBuf, Error> {
        self.netns.as_ref().ok_or_else(|| missing("CNI_NETNS"))
    }
}

/// The pod that CNI_ARGS (`KEY=VALUE;KEY=VALUE`) tells of. Other keys are others' business.
fn pod(args: &str) -> Result<Option<PodId>, Error> {
    let (mut namespace, mut name) = ("", "");
    for pair in args.split(';').filter(|pair| !pair.is_empty()) {
        let Some((key, value)) = pair.split_once('=') else {
            let message = format!("CNI_ARGS has {pair:?}: KEY=VALUE pairs with ';' between them are wanted");
            return Err(Error::new(Code::InvalidEnvironment, message));
        };
        match key {
            "K8S_POD_NAMESPACE" => namespace = value,
            "K8S_POD_NAME" => name = value,
            _ => {}
        }
    }
    Ok((!namespace.is_empty() && !name.is_empty()).then(|| PodId {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    }))
}

/// Where plugins are looked for.
pub(crate) fn plugin_directories() -> Vec<PathBuf> {
    variable("CNI_PATH").map_or_else(Vec::new, |path| {
        env::split_paths(&path)
            .filter(|directory| !directory.as_os_str().is_empty())
            .collect()
    })
}

/// Whether the text may be a network's name or a container's id. It becomes part of a path with IPAM plugins.
pub(crate) fn is_identifier(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c))
}

fn variable(name: &str) -> Option<OsString> {
    env::var_os(name).filter(|value| !value.is_empty())
}

fn text(name: &str) -> Result<Option<String>, Error> {
    variable(name)
        .map(|value| {
            value.into_string().map_err(|value| {
                let message = format!("{name} is {value:?}, which is no UTF-8");
                Error::new(Code::InvalidEnvironment, message)
            })
        })
        .transpose()
}

fn required(name: &str) -> Result<String, Error> {
    text(name)?.ok_or_else(|| missing(name))
}

fn missing(name: &str) -> Error {
    Error::new(
        Code::InvalidEnvironment,
        format!("{name} is missing: the runtime has to set it"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_told_by_two_arguments() {
        let told = pod("IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web;K8S_POD_UID=").unwrap();
        assert_eq!(told.unwrap().to_string(), "default/web");
        for args in ["", "K8S_POD_NAME=web", "K8S_POD_NAMESPACE=;K8S_POD_NAME=web"] {
            assert_eq!(pod(args).unwrap(), None, "{args}");
        }
        let error = pod("K8S_POD_NAME").unwrap_err();
        assert_eq!(error.code, Code::InvalidEnvironment);
    }

    #[test]
    fn identifiers_are_parts_of_paths() {
        for text in ["k8s-pod-network", "0aF_.-"] {
            assert!(is_identifier(text), "{text}");
        }
        for text in ["", ".", "..", "-a", "a/b", "a b", "é"] {
            assert!(!is_identifier(text), "{text}");
        }
    }
}
