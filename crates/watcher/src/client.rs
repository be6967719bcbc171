//! A client for the Kubernetes API, from a kubeconfig or from the pod's own service account.

use std::path::PathBuf;
use std::time::Duration;

use http::Uri;
use http::header::{HeaderValue, USER_AGENT};
use http::uri::PathAndQuery;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use crate::error::Error;

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a write may take.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// How the API server's logs and metrics call us.
const AGENT: &str = concat!("routelet/", env!("CARGO_PKG_VERSION"));

/// Where the API is and who we are there.
#[derive(Debug, Clone, Default)]
pub struct ApiSettings {
    /// A kubeconfig; `None`: the service account of the pod that we run in.
    pub kubeconfig: Option<PathBuf>,
    /// Host or address in place of the API's own: the service address that a pod is given needs kube-proxy,
    /// which may come after us. The server's certificate must hold it.
    pub server_host: Option<String>,
    /// Port in place of the API's own.
    pub server_port: Option<u16>,
}

/// Makes a client. Reads files and sends nothing: an API server that is away is the watches' affair.
///
/// Tokens are read anew from their file once a minute, the pod's CA file likewise. A request is never repeated
/// behind our back.
pub async fn connect(settings: &ApiSettings) -> Result<Client, Error> {
    let mut config = load(settings).await?;
    config.cluster_url = with_server(config.cluster_url, settings)?;
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    config.write_timeout = Some(WRITE_TIMEOUT);
    config.read_timeout = None;
    config.default_retry = false;
    config.headers.push((USER_AGENT, HeaderValue::from_static(AGENT)));
    Client::try_from(config).map_err(Error::Client)
}

async fn load(settings: &ApiSettings) -> Result<Config, Error> {
    let Some(path) = &settings.kubeconfig else {
        let config = match (&settings.server_host, settings.server_port) {
            // the environment variables are not needed then
            (Some(_), Some(_)) => Config::incluster_dns(),
            _ => Config::incluster_env(),
        };
        return config.map_err(Error::InCluster);
    };
    let unusable = |source| Error::Kubeconfig {
        path: path.clone(),
        source,
    };
    let kubeconfig = Kubeconfig::read_from(path).map_err(unusable)?;
    Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .map_err(unusable)
}

/// The API's address with the host and the port that the settings name.
fn with_server(url: Uri, settings: &ApiSettings) -> Result<Uri, Error> {
    if settings.server_host.is_none() && settings.server_port.is_none() {
        return Ok(url);
    }
    let bad = |source| Error::Server {
        host: settings.server_host.clone(),
        port: settings.server_port,
        source,
    };
    let mut parts = url.into_parts();
    let own = parts.authority.as_ref();
    let host = match settings.server_host.as_deref() {
        Some(host) if host.contains(':') && !host.starts_with('[') => format!("[{host}]"),
        Some(host) => host.to_owned(),
        None => own.map_or_else(String::new, |own| own.host().to_owned()),
    };
    let authority = match settings
        .server_port
        .or_else(|| own.and_then(|own| own.port_u16()))
    {
        Some(port) => format!("{host}:{port}"),
        None => host,
    };
    parts.authority = Some(
        authority
            .parse()
            .map_err(|source: http::uri::InvalidUri| bad(source.into()))?,
    );
    parts.path_and_query.get_or_insert(PathAndQuery::from_static("/"));
    Uri::from_parts(parts).map_err(|source| bad(source.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(url: &str, host: Option<&str>, port: Option<u16>) -> Result<String, Error> {
        let settings = ApiSettings {
            kubeconfig: None,
            server_host: host.map(str::to_owned),
            server_port: port,
        };
        with_server(url.parse().unwrap(), &settings).map(|url| url.to_string())
    }

    #[test]
    fn host_and_port_in_place_of_the_apis_own() {
        let url = "https://10.96.0.1:443";
        for (host, port, wanted) in [
            (None, None, "https://10.96.0.1:443/"),
            (Some("192.168.0.1"), Some(6443), "https://192.168.0.1:6443/"),
            (Some("fd00::1"), Some(6443), "https://[fd00::1]:6443/"),
            (Some("[fd00::1]"), None, "https://[fd00::1]:443/"),
            (None, Some(6443), "https://10.96.0.1:6443/"),
            (Some("api.example"), None, "https://api.example:443/"),
        ] {
            assert_eq!(server(url, host, port).unwrap(), wanted);
        }
        assert_eq!(
            server("https://a/prefix", Some("b"), None).unwrap(),
            "https://b/prefix"
        );
        let error = server(url, Some("not a host"), None).unwrap_err().to_string();
        assert!(error.contains("not a host"), "{error}");
    }

    #[tokio::test]
    async fn a_missing_kubeconfig_is_named() {
        let settings = ApiSettings {
            kubeconfig: Some("/nowhere/kubeconfig".into()),
            ..Default::default()
        };
        let error = connect(&settings).await.err().unwrap().to_string();
        assert!(error.contains("/nowhere/kubeconfig"), "{error}");
    }

    #[tokio::test]
    async fn without_any_credentials_the_remedy_is_told() {
        let error = connect(&ApiSettings::default()).await.err().unwrap().to_string();
        assert!(error.contains("give a kubeconfig"), "{error}");
    }
}
