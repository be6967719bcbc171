//! A real kube-apiserver on its etcd, in the LAN of a lab: with TLS, RBAC and service account tokens, as agents meet it.
//! Or, in its place, a server of [`crate::api_machinery`].
//!
//! There are no controllers: nothing makes default service accounts, nothing assigns pod subnets, nothing collects
//! garbage. Nodes and Pods are written by [`ApiServer::apply`], their status included.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures::{StreamExt, TryStreamExt, stream};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType};
use routelet_model::Family;
use routelet_netlink::Netns;
use serde_json::{Value, json};

use crate::api_machinery::{self, Tokens};
use crate::process::Process;
use crate::{Lab, TempDir, wait};

/// Names the directory of kube-apiserver and etcd, as envtest does it.
const ASSETS: &str = "KUBEBUILDER_ASSETS";
/// Where they are looked for otherwise, below the home directory.
const CACHE: &str = ".cache/routelet/kube-assets";
const PORT: u16 = 6443;
/// Both listen on the LAN's own 127.0.0.1.
const ETCD: &str = "http://127.0.0.1:2379";
const ETCD_PEERS: &str = "http://127.0.0.1:2380";
/// A bearer token of the group system:masters, good in a throw-away server on a network of its own.
const ADMIN_TOKEN: &str = "routelet-lab-admin";
/// How long a server may take to start on a busy machine.
const START: Duration = Duration::from_secs(120);
/// Requests at a time in [`ApiServer::apply_all`].
const CONCURRENT: usize = 32;

/// The server, its etcd and its directory. Dropping this kills and removes them.
#[derive(Debug)]
pub struct ApiServer {
    netns: Netns,
    address: SocketAddr,
    program: PathBuf,
    admin: PathBuf,
    /// Who may come to the API machinery; kube-apiserver knows that by itself.
    tokens: Option<Tokens>,
    // Dropped in this order: the server before its etcd, the directory last.
    server: Process,
    _etcd: Process,
    directory: TempDir,
}

/// The directory of kube-apiserver and etcd: KUBEBUILDER_ASSETS, or ~/.cache/routelet/kube-assets. The error names what
/// is missing: a reason to skip a test.
pub fn assets() -> Result<PathBuf> {
    find(ASSETS, CACHE, ["etcd", "kube-apiserver"])
}

/// The directory that `variable` names, else `cache` below the home directory, if it holds the programs.
pub(crate) fn find(variable: &str, cache: &str, programs: [&str; 2]) -> Result<PathBuf> {
    let directory = match (std::env::var_os(variable), std::env::var_os("HOME")) {
        (Some(directory), _) => PathBuf::from(directory),
        (None, Some(home)) => Path::new(&home).join(cache),
        (None, None) => bail!("neither {variable} nor HOME is set"),
    };
    for program in programs {
        if !directory.join(program).is_file() {
            bail!(
                "no {program} in {}: set {variable} to a directory that holds it",
                directory.display()
            );
        }
    }
    Ok(directory)
}

impl ApiServer {
    /// Starts etcd and kube-apiserver in the LAN of `lab`, on its IPv4 address, and waits until they serve.
    pub fn start(lab: &Lab) -> Result<Self> {
        let directory = TempDir::new()?;
        directory.write(
            "tokens.csv",
            format!("{ADMIN_TOKEN},admin,admin,system:masters\n"),
        )?;
        Self::start_program(lab, directory, &assets()?, "kube-apiserver", None)
    }

    /// The same with a server of [`crate::api_machinery`] in place of kube-apiserver.
    pub fn start_machinery(lab: &Lab) -> Result<Self> {
        let directory = TempDir::new()?;
        let tokens = Tokens::new(directory.path(), ADMIN_TOKEN)?;
        let assets = api_machinery::assets()?;
        Self::start_program(lab, directory, &assets, api_machinery::PROGRAM, Some(tokens))
    }

    fn start_program(
        lab: &Lab,
        directory: TempDir,
        assets: &Path,
        program: &str,
        tokens: Option<Tokens>,
    ) -> Result<Self> {
        let address = SocketAddr::new(lab.address(Family::V4), PORT);
        let ca = write_certificates(&directory, address.ip())?;
        let admin = directory.write("admin.kubeconfig", kubeconfig(address, &ca, ADMIN_TOKEN))?;

        let mut command = Command::new(assets.join("etcd"));
        command.arg("--data-dir").arg(directory.path().join("etcd"));
        command.args(["--listen-client-urls", ETCD, "--advertise-client-urls", ETCD]);
        command.args([
            "--listen-peer-urls",
            ETCD_PEERS,
            "--initial-advertise-peer-urls",
            ETCD_PEERS,
        ]);
        command.arg(format!("--initial-cluster=default={ETCD_PEERS}"));
        let etcd = Process::start("etcd", lab.netns(), command)?;

        let program = assets.join(program);
        let server = start_server(&program, lab.netns(), address, directory.path(), tokens.is_some())?;
        let mut this = Self {
            netns: lab.netns().clone(),
            address,
            program,
            admin,
            tokens,
            server,
            _etcd: etcd,
            directory,
        };
        this.wait_ready()?;
        Ok(this)
    }

    /// Where it listens: reachable from every node of the lab.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What the server has written since it was last started.
    pub fn log(&self) -> Vec<String> {
        self.server.log()
    }

    /// Kills kube-apiserver, as when its machine dies; what it holds stays in etcd.
    pub fn kill(&mut self) -> Result<()> {
        self.server.kill()
    }

    /// Starts kube-apiserver again, and waits until it serves.
    pub fn restart(&mut self) -> Result<()> {
        self.kill()?;
        let (directory, is_machinery) = (self.directory.path(), self.tokens.is_some());
        self.server = start_server(&self.program, &self.netns, self.address, directory, is_machinery)?;
        self.wait_ready()
    }

    /// A kubeconfig that may do everything, for kubectl inside the LAN.
    pub fn admin_kubeconfig(&self) -> &Path {
        &self.admin
    }

    /// Makes a service account `name` in kube-system that may do what `rules` (those of a ClusterRole) say and nothing
    /// else, and a kubeconfig with a token of it.
    pub fn kubeconfig_for(&self, name: &str, rules: &Value) -> Result<PathBuf> {
        const RBAC: &str = "rbac.authorization.k8s.io";
        let api = format!("{RBAC}/v1");
        let account = json!({ "kind": "ServiceAccount", "name": name, "namespace": "kube-system" });
        self.apply_all(&[
            json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": name, "namespace": "kube-system" } }),
            json!({ "apiVersion": api, "kind": "ClusterRole", "metadata": { "name": name }, "rules": rules }),
            json!({
                "apiVersion": api,
                "kind": "ClusterRoleBinding",
                "metadata": { "name": name },
                "roleRef": { "apiGroup": RBAC, "kind": "ClusterRole", "name": name },
                "subjects": [account],
            }),
        ])?;
        let path = format!("/api/v1/namespaces/kube-system/serviceaccounts/{name}/token");
        let request = json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": { "expirationSeconds": 86400 } });
        let answer = self.request("POST", &path, Some(&request))?;
        let token = answer["status"]["token"]
            .as_str()
            .with_context(|| format!("no token in {answer}"))?;
        let content = kubeconfig(self.address, &self.directory.path().join("ca.crt"), token);
        self.directory.write(&format!("{name}.kubeconfig"), content)
    }

    /// A kubeconfig with a token that `holder` holds, to whom all is allowed: see [`crate::api_machinery`], and no other
    /// server takes one.
    pub fn kubeconfig_of(&self, holder: &Value) -> Result<PathBuf> {
        let tokens = self.tokens.as_ref();
        let token = tokens
            .context("kube-apiserver gives out its tokens by itself: see kubeconfig_for")?
            .add(holder)?;
        let content = kubeconfig(self.address, &self.directory.path().join("ca.crt"), &token);
        self.directory.write(&format!("{token}.kubeconfig"), content)
    }

    /// The object of the same kind and name, as the server has it.
    pub fn get(&self, object: &Value) -> Result<Value> {
        self.request("GET", &path_of(object)?, None)
    }

    /// Creates the object or changes it to what is said, and then its status.
    pub fn apply(&self, object: &Value) -> Result<()> {
        self.apply_all(std::slice::from_ref(object))
    }

    /// Applies many objects, several at a time and in no particular order.
    pub fn apply_all(&self, objects: &[Value]) -> Result<()> {
        self.with_client(async |client| {
            stream::iter(objects.iter().map(|object| apply(&client, object)))
                .buffer_unordered(CONCURRENT)
                .try_collect::<()>()
                .await
        })
    }

    /// Deletes the object at once, without a period of grace.
    pub fn delete(&self, object: &Value) -> Result<()> {
        let options = json!({ "gracePeriodSeconds": 0 });
        self.request("DELETE", &path_of(object)?, Some(&options))
            .map(|_| ())
    }

    /// Any request, with the admin's rights; `path` with its query. Returns the answer, and anything but a success as an
    /// error.
    pub fn request(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
        self.with_client(async |client| send(&client, method, path, "application/json", body).await)
    }

    /// The same with the rights of whoever the kubeconfig is for, and a body of this content type.
    pub fn request_as(
        &self,
        kubeconfig: &Path,
        method: &str,
        path: &str,
        content: &str,
        body: Option<&Value>,
    ) -> Result<Value> {
        self.with_client_of(kubeconfig, async |client| {
            send(&client, method, path, content, body).await
        })
    }

    /// Does something with a client that is inside the LAN. Each call makes its own connection.
    pub fn with_client<T: Send>(&self, work: impl AsyncFnOnce(Client) -> Result<T> + Send) -> Result<T> {
        self.with_client_of(&self.admin, work)
    }

    fn with_client_of<T: Send>(
        &self,
        kubeconfig: &Path,
        work: impl AsyncFnOnce(Client) -> Result<T> + Send,
    ) -> Result<T> {
        self.netns.run(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(async {
                let kubeconfig = Kubeconfig::read_from(kubeconfig)?;
                let config =
                    Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
                work(Client::try_from(config)?).await
            })
        })?
    }

    fn wait_ready(&mut self) -> Result<()> {
        let ready = wait::until_ok(START, "kube-apiserver to be ready", || {
            if !self.server.is_running() {
                return Ok(false);
            }
            self.with_client(async |client| {
                client
                    .request_text(http::Request::get("/readyz").body(Vec::new())?)
                    .await?;
                // Made by the server itself, in its own time.
                send(&client, "GET", "/api/v1/namespaces/default", "", None).await
            })
            .map(|_| true)
        });
        match ready {
            Ok(true) => Ok(()),
            Ok(false) => Err(self
                .server
                .explain(anyhow::anyhow!("kube-apiserver ended while it started"))),
            Err(error) => Err(self.server.explain(error)),
        }
    }
}

fn start_server(
    program: &Path,
    netns: &Netns,
    address: SocketAddr,
    directory: &Path,
    is_machinery: bool,
) -> Result<Process> {
    let file = |name: &str| directory.join(name).display().to_string();
    let mut command = Command::new(program);
    for (flag, value) in [
        ("etcd-servers", ETCD.to_owned()),
        ("bind-address", address.ip().to_string()),
        ("secure-port", address.port().to_string()),
        ("tls-cert-file", file("server.crt")),
        ("tls-private-key-file", file("server.key")),
    ] {
        command.arg(format!("--{flag}={value}"));
    }
    if is_machinery {
        command.args(api_machinery::arguments(directory));
        return Process::start(api_machinery::PROGRAM, netns, command);
    }
    for (flag, value) in [
        ("advertise-address", address.ip().to_string()),
        // Where it would write certificates of its own.
        ("cert-dir", file("certificates")),
        ("authorization-mode", "RBAC".to_owned()),
        ("token-auth-file", file("tokens.csv")),
        (
            "service-account-issuer",
            "https://kubernetes.default.svc".to_owned(),
        ),
        ("service-account-signing-key-file", file("server.key")),
        ("service-account-key-file", file("server.pub")),
        ("service-cluster-ip-range", "10.96.0.0/16".to_owned()),
        // Pods would have to wait for service accounts that no controller makes, and for untainted nodes.
        (
            "disable-admission-plugins",
            "ServiceAccount,TaintNodesByCondition,DefaultTolerationSeconds".to_owned(),
        ),
    ] {
        command.arg(format!("--{flag}={value}"));
    }
    Process::start("kube-apiserver", netns, command)
}

/// Writes ca.crt, server.crt and the server's key, which also signs service account tokens; returns where the first is.
fn write_certificates(directory: &TempDir, address: IpAddr) -> Result<PathBuf> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "routelet lab");
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;

    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(vec!["kubernetes.default.svc".to_owned()])?;
    params.subject_alt_names.push(SanType::IpAddress(address));
    params
        .distinguished_name
        .push(DnType::CommonName, "kube-apiserver");
    let certificate = params.signed_by(&key, &ca)?;
    directory.write("server.crt", certificate.pem())?;
    directory.write("server.key", key.serialize_pem())?;
    directory.write("server.pub", key.public_key_pem())?;
    directory.write("ca.crt", ca.pem())
}

/// JSON is YAML too.
fn kubeconfig(address: SocketAddr, ca: &Path, token: &str) -> String {
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": "lab", "cluster": { "server": format!("https://{address}"), "certificate-authority": ca } }],
        "users": [{ "name": "user", "user": { "token": token } }],
        "contexts": [{ "name": "lab", "context": { "cluster": "lab", "user": "user" } }],
        "current-context": "lab",
    })
    .to_string()
}

async fn apply(client: &Client, object: &Value) -> Result<()> {
    let path = path_of(object)?;
    let query = "?fieldManager=routelet-lab&force=true";
    // Apart: applying takes a Node's addresses for a map by type, in which one of each family would not go.
    let mut rest = object.clone();
    let status = rest.as_object_mut().and_then(|fields| fields.remove("status"));
    send(
        client,
        "PATCH",
        &format!("{path}{query}"),
        "application/apply-patch+yaml",
        Some(&rest),
    )
    .await?;
    if let Some(status) = status {
        let patch = json!({ "status": status });
        send(
            client,
            "PATCH",
            &format!("{path}/status"),
            "application/merge-patch+json",
            Some(&patch),
        )
        .await?;
    }
    Ok(())
}

async fn send(
    client: &Client,
    method: &str,
    path: &str,
    content: &str,
    body: Option<&Value>,
) -> Result<Value> {
    let body = body.map(Value::to_string).unwrap_or_default();
    let request = http::Request::builder()
        .method(method)
        .uri(path)
        .header("Content-Type", content);
    let request = request.body(body.into_bytes())?;
    client
        .request(request)
        .await
        .with_context(|| format!("{method} {path}"))
}

/// The path of an object. Its plural is that of the kinds that a lab has.
fn path_of(object: &Value) -> Result<String> {
    let field = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
    let required = |pointer: &str| field(pointer).with_context(|| format!("no {pointer} in {object}"));
    let version = required("/apiVersion")?;
    let root = if version.contains('/') { "apis" } else { "api" };
    let kind = required("/kind")?.to_lowercase();
    let plural = match kind.strip_suffix('y') {
        Some(stem) => format!("{stem}ies"),
        None => format!("{kind}s"),
    };
    let name = required("/metadata/name")?;
    Ok(match field("/metadata/namespace") {
        Some(namespace) => format!("/{root}/{version}/namespaces/{namespace}/{plural}/{name}"),
        None => format!("/{root}/{version}/{plural}/{name}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let pod = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "web", "namespace": "default" } });
        assert_eq!(path_of(&pod).unwrap(), "/api/v1/namespaces/default/pods/web");
        let role = json!({ "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": { "name": "a" } });
        assert_eq!(
            path_of(&role).unwrap(),
            "/apis/rbac.authorization.k8s.io/v1/clusterroles/a"
        );
        let error = path_of(&json!({ "apiVersion": "v1", "kind": "Pod" })).unwrap_err();
        assert!(error.to_string().contains("/metadata/name"), "{error}");
    }
}
