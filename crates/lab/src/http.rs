//! A GET over plain HTTP from inside a network namespace: for an agent's admin endpoints.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result};
use routelet_netlink::Netns;

/// How long connecting, and each read, may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The body.
    pub body: String,
}

/// Gets `path` from `address`, both as seen inside the namespace.
pub fn get(netns: &Netns, address: SocketAddr, path: &str) -> Result<Response> {
    let attempt = || -> Result<Response> {
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        // HTTP/1.0: the answer comes in one piece and ends with the connection.
        stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        parse(&answer).with_context(|| format!("no HTTP answer: {answer:?}"))
    };
    netns
        .run(attempt)?
        .with_context(|| format!("GET http://{address}{path}"))
}

fn parse(answer: &str) -> Option<Response> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head
        .strip_prefix("HTTP/1.")?
        .split(' ')
        .nth(1)?
        .trim()
        .parse()
        .ok()?;
    Some(Response {
        status,
        body: body.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_parsed() {
        let response =
            parse("HTTP/1.0 503 Service Unavailable\r\ncontent-length: 9\r\n\r\nnot ready").unwrap();
        assert_eq!(
            response,
            Response {
                status: 503,
                body: "not ready".to_owned()
            }
        );
        assert_eq!(parse("HTTP/1.1 204\r\n\r\n").unwrap().status, 204);
        assert_eq!(parse("garbage"), None);
    }

    #[test]
    fn a_refused_connection_is_told_with_its_address() {
        let error = get(&Netns::new().unwrap(), ([127, 0, 0, 1], 9).into(), "/readyz").unwrap_err();
        assert!(
            format!("{error:#}").contains("http://127.0.0.1:9/readyz"),
            "{error:#}"
        );
    }
}
