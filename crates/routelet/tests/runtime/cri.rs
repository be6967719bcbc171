//! The Container Runtime Interface, as the kubelet speaks it: gRPC over the runtime's unix socket.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use http::{HeaderMap, Request};
use tokio::net::UnixStream;

use crate::message::{Fields, Message};

/// A runtime's socket. Each call makes its own connection: a restarted runtime is not noticed.
#[derive(Debug)]
pub(crate) struct Cri {
    pub(crate) socket: PathBuf,
}

/// What a command in a container came to.
#[derive(Debug)]
pub(crate) struct Executed {
    pub(crate) code: u64,
    pub(crate) output: String,
}

impl Cri {
    /// Whether the runtime says NetworkReady.
    pub(crate) fn is_network_ready(&self) -> Result<bool> {
        let answer = self.call("Status", &Message::new())?;
        let status = answer.messages(1)?;
        let conditions = status.first().context("a Status without status")?.messages(1)?;
        let network = conditions
            .iter()
            .find(|condition| condition.text(1) == "NetworkReady");
        Ok(network.context("no condition NetworkReady")?.number(2) == 1)
    }

    /// Returns the sandbox's id.
    pub(crate) fn run_sandbox(&self, config: &Message) -> Result<String> {
        let answer = self.call("RunPodSandbox", &Message::new().message(1, config))?;
        Ok(answer.text(1))
    }

    /// The sandbox's first address.
    pub(crate) fn address(&self, sandbox: &str) -> Result<String> {
        let answer = self.call("PodSandboxStatus", &Message::new().text(1, sandbox))?;
        let status = answer.messages(1)?;
        let network = status.first().context("no status")?.messages(5)?;
        Ok(network.first().context("no network in the status")?.text(1))
    }

    /// Frees the network, and ends the containers.
    pub(crate) fn stop_sandbox(&self, sandbox: &str) -> Result<()> {
        self.call("StopPodSandbox", &Message::new().text(1, sandbox))
            .map(|_| ())
    }

    pub(crate) fn remove_sandbox(&self, sandbox: &str) -> Result<()> {
        self.call("RemovePodSandbox", &Message::new().text(1, sandbox))
            .map(|_| ())
    }

    /// Ids of all sandboxes.
    pub(crate) fn sandboxes(&self) -> Result<Vec<String>> {
        let answer = self.call("ListPodSandbox", &Message::new())?;
        Ok(answer
            .messages(1)?
            .iter()
            .map(|sandbox| sandbox.text(1))
            .collect())
    }

    /// Creates and starts a container; returns its id.
    pub(crate) fn start_container(
        &self,
        sandbox: &str,
        of: &Message,
        image: &str,
        command: &[&str],
    ) -> Result<String> {
        let config = Message::new()
            .message(1, &Message::new().text(1, "main"))
            .message(2, &Message::new().text(1, image))
            .texts(3, command);
        self.start_configured(sandbox, of, &config)
    }

    /// Creates and starts the container of a ContainerConfig; returns its id.
    pub(crate) fn start_configured(&self, sandbox: &str, of: &Message, config: &Message) -> Result<String> {
        let request = Message::new().text(1, sandbox).message(2, config).message(3, of);
        let container = self.call("CreateContainer", &request)?.text(1);
        self.call("StartContainer", &Message::new().text(1, &container))?;
        Ok(container)
    }

    /// Runs a command in a container to its end, for at most 20 seconds.
    pub(crate) fn execute(&self, container: &str, command: &[&str]) -> Result<Executed> {
        let request = Message::new().text(1, container).texts(2, command).number(3, 20);
        let answer = self.call("ExecSync", &request)?;
        Ok(Executed {
            code: answer.number(3),
            output: answer.text(1) + &answer.text(2),
        })
    }

    fn call(&self, method: &str, message: &Message) -> Result<Fields> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let answer = runtime.block_on(call(&self.socket, method, message.encoded()));
        Fields::read(&answer.with_context(|| format!("calling {method}"))?)
    }
}

/// One unary call of gRPC: a POST in HTTP/2 whose body is the message behind five bytes (not compressed, length), and
/// whose outcome is in the trailers.
async fn call(socket: &Path, method: &str, message: &[u8]) -> Result<Vec<u8>> {
    let stream = UnixStream::connect(socket).await.context("connecting")?;
    let (mut client, connection) = h2::client::handshake(stream).await?;
    // Ends with the runtime that it runs on.
    tokio::spawn(connection);
    let request = Request::post(format!("http://localhost/runtime.v1.RuntimeService/{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())?;
    let (response, mut body) = client.send_request(request, false)?;
    let mut frame = vec![0];
    frame.extend(u32::try_from(message.len())?.to_be_bytes());
    frame.extend(message);
    body.send_data(Bytes::from(frame), true)?;

    let (head, mut body) = response.await?.into_parts();
    let mut answer = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        answer.extend_from_slice(&data);
    }
    // Where there is no message, the outcome is in the head.
    let trailers = body.trailers().await?.unwrap_or(head.headers);
    let text = |name| text(&trailers, name);
    ensure!(
        text("grpc-status") == "0",
        "{}: {}",
        text("grpc-status"),
        text("grpc-message")
    );
    match answer.split_at_checked(5) {
        Some((_, message)) => Ok(message.to_vec()),
        None => bail!("an answer of {} bytes", answer.len()),
    }
}

fn text(headers: &HeaderMap, name: &str) -> String {
    let value = headers
        .get(name)
        .map(|value| value.as_bytes())
        .unwrap_or_default();
    String::from_utf8_lossy(value).into_owned()
}
