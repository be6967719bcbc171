//! What the agent answers on its unix socket: HTTP, one question for each connection.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// What the plugin asks with: the agent answers at once, or something is wrong with it; reasons and configurations are
/// short.
const OF_THE_PLUGIN: Limits = Limits {
    patience: Duration::from_secs(2),
    longest: 64 * 1024,
};

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Status code of HTTP.
    pub status: u16,
    /// What it says. (A body in chunks keeps their lengths; the agent sends none.)
    pub body: String,
}

/// What is waited for and read at most.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// How long the agent may take to answer.
    pub patience: Duration,
    /// As much of the answer is read, in bytes.
    pub longest: u64,
}

/// Asks the agent behind `socket` for a path. An answer that is no HTTP is an error as well, of the kind `InvalidData`.
pub fn get(socket: &Path, path: &str) -> io::Result<Answer> {
    ask(socket, "GET", path, "", OF_THE_PLUGIN)
}

/// The same with any method of HTTP, and with a body.
///
/// On a thread of its own, which a silent agent may keep: connecting has no timeout, and each read would have its own.
pub fn ask(socket: &Path, method: &str, path: &str, body: &str, limits: Limits) -> io::Result<Answer> {
    let (sender, answer) = mpsc::channel();
    let socket: PathBuf = socket.to_owned();
    let length = body.len();
    let question = format!(
        "{method} {path} HTTP/1.1\r\nHost: routelet\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    thread::Builder::new()
        .name("ask".to_owned())
        .spawn(move || sender.send(exchange(&socket, &question, limits.longest)))?;
    let text = answer.recv_timeout(limits.patience).unwrap_or_else(|_| {
        Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("no answer within {:?}", limits.patience),
        ))
    })?;
    take_apart(&text).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "what it answers is no HTTP"))
}

fn exchange(socket: &Path, question: &str, longest: u64) -> io::Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.write_all(question.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(longest).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn take_apart(answer: &str) -> Option<Answer> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let mut words = head.lines().next()?.split(' ');
    if !words.next()?.starts_with("HTTP/1.") {
        return None;
    }
    Some(Answer {
        status: words.next()?.parse().ok()?,
        body: body.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_taken_apart() {
        let answer = |status, body: &str| {
            let body = body.to_owned();
            Some(Answer { status, body })
        };
        let text = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 9\r\n\r\nno nodes\n";
        assert_eq!(take_apart(text), answer(503, "no nodes\n"));
        assert_eq!(take_apart("HTTP/1.0 200 OK\r\n\r\n"), answer(200, ""));
        for text in ["", "hello\r\n\r\n", "HTTP/1.1\r\n\r\n", "HTTP/1.1 200 OK"] {
            assert_eq!(take_apart(text), None, "{text:?}");
        }
    }
}
