//! The real agent, `routelet run`, on a node of the lab.

use std::ffi::OsString;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use routelet_netlink::Netns;

use crate::process::{Process, built_program};
use crate::{Node, TempDir, http, wait};

/// Names the agent's program, where it is not in the target directory of the running test.
const PROGRAM: &str = "ROUTELET_BIN";

/// Where the agent answers inside its node. Each node has a 127.0.0.1 of its own.
const ADMIN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9099);

/// Name of its unix socket.
const SOCKET: &str = "routelet.sock";
/// Name of the file in which it notes the host's settings.
const SAVED_SYSCTLS: &str = "saved-sysctls";

/// An agent on a node. Dropping this kills it (SIGKILL), and shows its log if a test is failing.
#[derive(Debug)]
pub struct Agent {
    node: String,
    netns: Netns,
    program: PathBuf,
    arguments: Vec<OsString>,
    process: Process,
    /// Holds the unix socket, which is not the network namespace's but the file system's.
    directory: TempDir,
}

impl Agent {
    /// Starts the agent on `node`; `arguments` come after those that every agent of the lab gets.
    pub fn start(node: &Node, kubeconfig: &Path, arguments: &[&str]) -> Result<Self> {
        Self::start_program(built_program("routelet", PROGRAM)?, node, kubeconfig, arguments)
    }

    /// The same with another version's program, which must know the flags that every agent of the lab gets.
    pub fn start_program(
        program: PathBuf,
        node: &Node,
        kubeconfig: &Path,
        arguments: &[&str],
    ) -> Result<Self> {
        let mut all: Vec<OsString> = vec!["run".into(), "--node-name".into(), node.name().into()];
        all.extend(["--kubeconfig".into(), kubeconfig.into()]);
        all.extend(["--admin-address".into(), ADMIN.to_string().into()]);
        let directory = TempDir::new()?;
        for (flag, file) in [("--admin-socket", SOCKET), ("--saved-sysctls", SAVED_SYSCTLS)] {
            all.extend([flag.into(), directory.path().join(file).into()]);
        }
        all.extend(arguments.iter().map(OsString::from));
        let process = start(node.name(), node.netns(), &program, &all)?;
        Ok(Self {
            node: node.name().to_owned(),
            netns: node.netns().clone(),
            program,
            arguments: all,
            process,
            directory,
        })
    }

    /// Starts it again, with the same arguments, after [`Agent::kill`] or [`Agent::stop`]; one that runs is killed.
    /// The log begins anew.
    pub fn restart(&mut self) -> Result<()> {
        self.kill()?;
        self.process = start(&self.node, &self.netns, &self.program, &self.arguments)?;
        Ok(())
    }

    /// Kills it (SIGKILL) and waits until it is gone.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill()
    }

    /// Asks it to end (SIGTERM) and waits until it has.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        self.process.terminate()?;
        self.wait_exit(wait::LONG)
    }

    /// Waits until it ends by itself.
    pub fn wait_exit(&mut self, timeout: Duration) -> Result<ExitStatus> {
        self.process
            .wait_exit(timeout)
            .map_err(|error| self.process.explain(error))
    }

    /// Whether it has not ended.
    pub fn is_running(&mut self) -> bool {
        self.process.is_running()
    }

    /// Waits until /readyz says yes. Ends at once where the agent does.
    pub fn wait_ready(&mut self, timeout: Duration) -> Result<()> {
        let what = format!("the agent on {} to be ready", self.node);
        let mut last = String::new();
        let ready = wait::until(timeout, &what, || match self.get("/readyz") {
            Ok(response) => {
                last = format!("/readyz says {}: {}", response.status, response.body.trim());
                response.status == 200
            }
            Err(error) => {
                last = format!("{error:#}");
                !self.process.is_running()
            }
        });
        let ready = ready.map_err(|error| error.context(last)).and_then(|()| {
            ensure!(
                self.process.is_running(),
                "the agent on {} ended before it was ready",
                self.node
            );
            Ok(())
        });
        ready.map_err(|error| {
            if !self.process.is_running() {
                // What it wrote at its end may still be on the way.
                let _ = self.process.wait_exit(wait::LONG);
            }
            self.process.explain(error)
        })
    }

    /// Gets a path of its admin address.
    pub fn get(&self, path: &str) -> Result<http::Response> {
        http::get(&self.netns, ADMIN, path)
    }

    /// Where its unix socket is.
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join(SOCKET)
    }

    /// Its metrics, as text.
    pub fn metrics(&self) -> Result<String> {
        let response = self.get("/metrics")?;
        ensure!(
            response.status == 200,
            "/metrics answered {}: {}",
            response.status,
            response.body
        );
        Ok(response.body)
    }

    /// The value of one metric; `series` is its name, with its labels as /metrics writes them.
    pub fn metric(&self, series: &str) -> Result<f64> {
        let text = self.metrics()?;
        value_of(&text, series).with_context(|| format!("no {series} in:\n{text}"))
    }

    /// What it has written since it was last started.
    pub fn log(&self) -> Vec<String> {
        self.process.log()
    }

    /// Waits for a line of its log that contains `text`, and returns it.
    pub fn wait_log(&self, text: &str, timeout: Duration) -> Result<String> {
        self.process
            .wait_log(text, timeout)
            .map_err(|error| self.process.explain(error))
    }

    /// Waits until its log has so many lines that hold all of `parts`, for a line comes after what it tells of; fails
    /// where there are more.
    pub fn expect_log_lines(&self, parts: &[&str], count: usize) -> Result<()> {
        let lines = || {
            let holds = |line: &&String| parts.iter().all(|part| line.contains(part));
            self.log().iter().filter(holds).count()
        };
        let what = format!("{count} log lines with {parts:?}");
        wait::until(wait::LONG, &what, || lines() >= count).map_err(|error| self.process.explain(error))?;
        let found = lines();
        ensure!(found == count, "{found} log lines with {parts:?}, not {count}");
        Ok(())
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Its resident memory (VmRSS) in bytes.
    pub fn resident_bytes(&self) -> Result<u64> {
        let path = format!("/proc/{}/status", self.pid());
        let status = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
        let kib = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
        let kib: u64 = kib
            .with_context(|| format!("no VmRSS in {path}"))?
            .trim()
            .parse()?;
        Ok(kib * 1024)
    }
}

fn start(node: &str, netns: &Netns, program: &Path, arguments: &[OsString]) -> Result<Process> {
    let mut command = Command::new(program);
    command.args(arguments);
    // The settings of whoever runs the tests are not the agent's.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("ROUTELET_")
            || text.starts_with("KUBE")
            || text.to_lowercase().ends_with("_proxy")
        {
            command.env_remove(&name);
        }
    }
    Process::start(&format!("the agent on {node}"), netns, command)
}

fn value_of(metrics: &str, series: &str) -> Option<f64> {
    metrics
        .lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;
    use crate::{Lab, TempDir};

    /// An agent that is a shell script: it tells its arguments and waits for its end.
    fn script(node: &Node, directory: &TempDir, script: &str) -> Agent {
        let program = directory
            .write("routelet", format!("#!/bin/sh\n{script}\n"))
            .unwrap();
        fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        Agent::start_program(program, node, Path::new("/tmp/kubeconfig"), &["--mtu", "1400"]).unwrap()
    }

    const WAIT_FOR_TERM: &str =
        "trap 'echo asked to end; exit 0' TERM; echo $*; while :; do sleep 0.02; done";

    #[test]
    fn starts_restarts_and_ends() {
        let lab = Lab::new().unwrap();
        let node = lab.node("node-1").unwrap();
        let directory = TempDir::new().unwrap();
        let mut agent = script(&node, &directory, WAIT_FOR_TERM);
        let told = agent.wait_log("run", wait::LONG).unwrap();
        let socket = agent.socket().display().to_string();
        let saved = agent.directory.path().join(SAVED_SYSCTLS);
        assert_eq!(
            told,
            format!(
                "run --node-name node-1 --kubeconfig /tmp/kubeconfig --admin-address 127.0.0.1:9099 \
                 --admin-socket {socket} --saved-sysctls {} --mtu 1400",
                saved.display()
            )
        );
        assert!(agent.resident_bytes().unwrap() > 0);

        let first = agent.pid();
        agent.restart().unwrap();
        assert_ne!(agent.pid(), first);
        agent.wait_log("run", wait::LONG).unwrap();
        assert!(agent.stop().unwrap().success());
        assert_eq!(agent.log().last().unwrap(), "asked to end");
        assert!(!agent.is_running());
        agent.restart().unwrap();
        agent.kill().unwrap();
        assert!(!agent.is_running());
    }

    #[test]
    fn readiness_is_what_the_node_answers() {
        let lab = Lab::new().unwrap();
        let node = lab.node("node-1").unwrap();
        let directory = TempDir::new().unwrap();
        let mut agent = script(&node, &directory, WAIT_FOR_TERM);
        let listener = node.netns().run(|| TcpListener::bind(ADMIN).unwrap()).unwrap();
        let answers = ["503 Not Ready", "503 Not Ready", "200 OK", "200 OK"];
        let server = std::thread::spawn(move || {
            for answer in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = [0; 1024];
                assert!(stream.read(&mut request).unwrap() > 0);
                write!(stream, "HTTP/1.0 {answer}\r\n\r\nrepairs_total 3\n").unwrap();
            }
        });
        agent.wait_ready(wait::LONG).unwrap();
        assert_eq!(agent.metric("repairs_total").unwrap(), 3.0);
        server.join().unwrap();
    }

    #[test]
    fn an_agent_that_ends_is_not_waited_for() {
        let lab = Lab::new().unwrap();
        let node = lab.node("node-1").unwrap();
        let directory = TempDir::new().unwrap();
        let mut agent = script(&node, &directory, "echo no such flag; exit 2");
        let error = format!("{:#}", agent.wait_ready(wait::LONG).unwrap_err());
        assert!(
            error.contains("ended before") && error.contains("no such flag"),
            "{error}"
        );
        assert_eq!(agent.wait_exit(wait::LONG).unwrap().code(), Some(2));
    }

    #[test]
    fn metrics_by_series() {
        let text = "# TYPE a counter\na_total 3\na_total{kind=\"route\"} 4.5\na_total_more 7\n";
        assert_eq!(value_of(text, "a_total"), Some(3.0));
        assert_eq!(value_of(text, "a_total{kind=\"route\"}"), Some(4.5));
        assert_eq!(value_of(text, "a"), None);
    }
}
