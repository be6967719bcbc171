//! The kubelet's server, as far as `kubectl logs` and `kubectl exec` ask it: it notes what the API server asks for, gives a
//! line as the log of each container, and runs nothing.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;

use routelet_netlink::Netns;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// Its port, where a Node names no other.
const PORT: u16 = 10250;

pub(crate) struct Kubelet {
    asked: Arc<Mutex<Vec<String>>>,
}

impl Kubelet {
    /// Serves in the namespace for as long as the test runs, with the certificate in the directory.
    pub(crate) fn start(netns: &Netns, directory: &Path) -> Self {
        let certificate = CertificateDer::from_pem_file(directory.join("server.crt")).unwrap();
        let key = PrivateKeyDer::from_pem_file(directory.join("server.key")).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        let config = Arc::new(config);
        let listener = netns.run(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let notes = Arc::clone(&asked);
        let listener = listener.unwrap();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (config, notes) = (Arc::clone(&config), Arc::clone(&notes));
                thread::spawn(move || answer(stream, config, &notes));
            }
        });
        Self { asked }
    }

    /// The paths that were asked for since the last call, with their queries.
    pub(crate) fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }
}

/// Answers one request. A client that goes away is of no concern.
fn answer(stream: TcpStream, config: Arc<ServerConfig>, notes: &Mutex<Vec<String>>) {
    let mut stream = StreamOwned::new(ServerConnection::new(config).unwrap(), stream);
    let lines = BufReader::new(&mut stream).lines().map_while(Result::ok);
    let head: Vec<_> = lines.take_while(|line| !line.is_empty()).collect();
    let Some(path) = head.first().and_then(|line| line.split(' ').nth(1)) else {
        return;
    };
    notes.lock().unwrap().push(path.to_owned());
    let (status, body) = match path.strip_prefix("/containerLogs/") {
        Some(container) => ("200 OK", format!("the log of {container}\n")),
        None => ("501 Not Implemented", "nothing is run here".to_owned()),
    };
    let length = body.len();
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    );
    let _ = stream.write_all(answer.as_bytes());
    stream.conn.send_close_notify();
    let _ = stream.flush();
}
