//! Whether the agent is ready: `GET /readyz` on its unix socket.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::error::{Code, Error};

/// How long the agent may take to answer. It answers at once, or something is wrong with it.
const PATIENCE: Duration = Duration::from_secs(2);

/// As much of the answer as is read: the reasons are a few lines.
const LONGEST: u64 = 16 * 1024;

/// Asks the agent. The error says why it is not ready.
pub(crate) fn ask_agent(socket: &Path) -> Result<(), Error> {
    let not_ready = |message| Err(Error::new(Code::NotAvailable, message));
    let shown = socket.display();
    match within_patience(socket.to_owned()) {
        Err(error) => not_ready(format!(
            "routelet's agent does not answer on {shown}: {error}; see that it runs on this node"
        )),
        Ok(answer) => match take_apart(&answer) {
            Some((200, _)) => Ok(()),
            Some((503, reasons)) => Err(Error::new(
                Code::NotAvailable,
                "routelet's agent on this node is not ready yet",
            )
            .with_details(reasons)),
            Some((status, _)) => not_ready(format!(
                "{shown} answers HTTP status {status}: is it routelet's agent?"
            )),
            None => not_ready(format!(
                "{shown} does not answer in HTTP: is it routelet's agent?"
            )),
        },
    }
}

/// On a thread of its own, which a silent agent may keep: connecting has no timeout, and each read would have its own.
fn within_patience(socket: PathBuf) -> io::Result<String> {
    let (sender, answer) = mpsc::channel();
    thread::Builder::new()
        .name("readyz".to_owned())
        .spawn(move || sender.send(ask(&socket)))?;
    answer.recv_timeout(PATIENCE).unwrap_or_else(|_| {
        Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("no answer within {PATIENCE:?}"),
        ))
    })
}

fn ask(socket: &Path) -> io::Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: routelet\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(LONGEST).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Status and body of an HTTP answer. (A body in chunks keeps their lengths: it is for people to read.)
fn take_apart(answer: &str) -> Option<(u16, &str)> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let mut words = head.lines().next()?.split(' ');
    if !words.next()?.starts_with("HTTP/1.") {
        return None;
    }
    Some((words.next()?.parse().ok()?, body.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_taken_apart() {
        let answer = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 9\r\n\r\nno nodes\n";
        assert_eq!(take_apart(answer), Some((503, "no nodes")));
        assert_eq!(take_apart("HTTP/1.0 200 OK\r\n\r\n"), Some((200, "")));
        for text in ["", "hello\r\n\r\n", "HTTP/1.1\r\n\r\n", "HTTP/1.1 200 OK"] {
            assert_eq!(take_apart(text), None, "{text:?}");
        }
    }
}
