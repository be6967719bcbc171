//! An API server of Kubernetes' own packages, newer than the kube-apiserver at hand: `crates/lab/apiserver` says what it
//! has and `build.sh` there builds it. It knows streaming lists and ValidatingAdmissionPolicy, and lets everyone who holds
//! a token do everything that admission does not refuse. [`crate::ApiServer::start_machinery`] starts it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, anyhow};
use serde_json::{Map, Value, json};

use crate::apiserver::find;

/// Names the directory of the server and its etcd.
const ASSETS: &str = "ROUTELET_API_MACHINERY";
/// Where they are looked for otherwise, below the home directory: where `build.sh` puts them.
const CACHE: &str = ".cache/routelet/api-machinery";
/// The server's program.
pub(crate) const PROGRAM: &str = "api-machinery";
const TOKENS: &str = "tokens.json";

/// The directory of the server and its etcd: ROUTELET_API_MACHINERY, or ~/.cache/routelet/api-machinery. The error names
/// what is missing: a reason to skip a test.
pub fn assets() -> Result<PathBuf> {
    find(ASSETS, CACHE, ["etcd", PROGRAM])
        .map_err(|error| anyhow!("{error}, or have crates/lab/apiserver/build.sh build it"))
}

/// Flags that it takes besides those that kube-apiserver has too. With these it logs each request once it is over.
pub(crate) fn arguments(directory: &Path) -> [String; 2] {
    [
        format!("--token-file={}", directory.join(TOKENS).display()),
        "-v=3".to_owned(),
    ]
}

/// The holder of the token that a pod of the service account `name` in kube-system gets on `node`; `None`: one that is
/// bound to no Node.
pub fn service_account(name: &str, node: Option<&str>) -> Value {
    json!({ "ServiceAccount": { "Namespace": "kube-system", "Name": name, "NodeName": node.unwrap_or_default() } })
}

/// The holder of a user's token.
pub fn user(name: &str, groups: &[&str]) -> Value {
    json!({ "User": name, "Groups": groups })
}

/// The file of tokens that the server reads.
#[derive(Debug)]
pub(crate) struct Tokens {
    path: PathBuf,
    holders: Mutex<Map<String, Value>>,
}

impl Tokens {
    pub(crate) fn new(directory: &Path, admin: &str) -> Result<Self> {
        let this = Self {
            path: directory.join(TOKENS),
            holders: Mutex::default(),
        };
        this.insert(admin.to_owned(), user("admin", &["system:masters"]))?;
        Ok(this)
    }

    /// A token for the holder, as [`service_account`] or [`user`] say who that is.
    pub(crate) fn add(&self, holder: &Value) -> Result<String> {
        let number = self.holders.lock().unwrap_or_else(PoisonError::into_inner).len();
        let token = format!("routelet-lab-{number}");
        self.insert(token.clone(), holder.clone())?;
        Ok(token)
    }

    fn insert(&self, token: String, holder: Value) -> Result<()> {
        let mut holders = self.holders.lock().unwrap_or_else(PoisonError::into_inner);
        holders.insert(token, holder);
        // The server reads it at any time, and must not find half of it.
        let new = self.path.with_extension("new");
        fs::write(&new, Value::Object(holders.clone()).to_string())
            .and_then(|()| fs::rename(&new, &self.path))
            .with_context(|| format!("writing {}", self.path.display()))
    }
}
