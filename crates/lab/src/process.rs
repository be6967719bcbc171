//! A process in a network namespace that dies with us, and whose output is kept.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use routelet_netlink::Netns;

use crate::wait;

/// A running process. Dropping this kills it (SIGKILL), and shows its output if a test is failing.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: Arc<Log>,
}

/// The lines of a process' output so far, standard output and error in the order of arrival.
#[derive(Debug, Default)]
struct Log {
    state: Mutex<Lines>,
    arrived: Condvar,
}

#[derive(Debug, Default)]
struct Lines {
    lines: Vec<String>,
    closed: usize,
}

/// Standard output and standard error.
const STREAMS: usize = 2;

impl Process {
    /// Starts `command` in the namespace. `name` is for messages.
    pub fn start(name: &str, netns: &Netns, mut command: Command) -> Result<Self> {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = netns.spawn(command)?;
        let log = Arc::new(Log::default());
        let streams: [Option<Box<dyn Read + Send>>; STREAMS] = [
            child.stdout.take().map(|stream| Box::new(stream) as _),
            child.stderr.take().map(|stream| Box::new(stream) as _),
        ];
        for stream in streams.into_iter().flatten() {
            let log = Arc::clone(&log);
            thread::Builder::new()
                .name(format!("log of {name}"))
                .spawn(move || log.read(stream))
                .context("starting a thread")?;
        }
        Ok(Self {
            name: name.to_owned(),
            child,
            log,
        })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has written so far, line by line.
    pub fn log(&self) -> Vec<String> {
        self.log.lock().lines.clone()
    }

    /// Waits for a line that contains `text`, from the first on, and returns it.
    pub fn wait_log(&self, text: &str, timeout: Duration) -> Result<String> {
        let deadline = Instant::now() + timeout * wait::slowness();
        let mut read = 0;
        let mut log = self.log.lock();
        loop {
            if let Some(line) = log.lines[read..].iter().find(|line| line.contains(text)) {
                return Ok(line.clone());
            }
            read = log.lines.len();
            let left = deadline.saturating_duration_since(Instant::now());
            if log.closed == STREAMS {
                bail!("{} ended without a line that contains {text:?}", self.name);
            }
            if left.is_zero() {
                bail!(
                    "{} wrote no line that contains {text:?} within {timeout:?}",
                    self.name
                );
            }
            log = self
                .log
                .arrived
                .wait_timeout(log, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Asks it to end (SIGTERM).
    pub fn terminate(&self) -> Result<()> {
        let pid = Pid::from_raw(self.pid().cast_signed());
        kill(pid, Signal::SIGTERM).with_context(|| format!("ending {}", self.name))
    }

    /// Kills it (SIGKILL) and waits until it is gone.
    pub fn kill(&mut self) -> Result<()> {
        self.child
            .kill()
            .and_then(|()| self.child.wait())
            .with_context(|| format!("killing {}", self.name))?;
        Ok(())
    }

    /// Whether it has not ended.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits until it ends by itself, and until all that it has written is read.
    pub fn wait_exit(&mut self, timeout: Duration) -> Result<ExitStatus> {
        let what = format!("{} to end", self.name);
        let status = wait::until_some(timeout, &what, || self.child.try_wait().transpose())?
            .with_context(|| format!("waiting for {}", self.name))?;
        wait::until(timeout, &format!("the rest of what {} wrote", self.name), || {
            self.log.lock().closed == STREAMS
        })?;
        Ok(status)
    }

    /// An error that shows the last lines of the output.
    pub(crate) fn explain(&self, error: anyhow::Error) -> anyhow::Error {
        let log = self.log();
        let last = log[log.len().saturating_sub(15)..].join("\n  ");
        error.context(format!("{} wrote last:\n  {last}\n", self.name))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Fails only where it has ended already.
        let _ = self.kill();
        if thread::panicking() {
            self.show();
        }
    }
}

impl Process {
    #[expect(clippy::print_stderr, reason = "a failing test shows what its processes said")]
    fn show(&self) {
        eprintln!("--- output of {} (pid {})", self.name, self.pid());
        for line in self.log() {
            eprintln!("{line}");
        }
        eprintln!("---");
    }
}

impl Log {
    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self, stream: impl Read) {
        let mut stream = BufReader::new(stream);
        let mut line = Vec::new();
        while matches!(stream.read_until(b'\n', &mut line), Ok(1..)) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            line.clear();
            self.lock().lines.push(text);
            self.arrived.notify_all();
        }
        self.lock().closed += 1;
        self.arrived.notify_all();
    }
}

/// A program that was built along with the running one (a test, xtask), in the same target directory; `variable` of the
/// environment names another.
pub fn built_program(name: &str, variable: &str) -> Result<std::path::PathBuf> {
    if let Some(path) = std::env::var_os(variable) {
        return Ok(path.into());
    }
    let own = std::env::current_exe().context("finding the running program")?;
    // target/debug/xtask, target/debug/deps/some-test, target/debug/examples/some-example
    let near = own
        .ancestors()
        .skip(1)
        .take(2)
        .map(|directory| directory.join(name));
    near.into_iter()
        .find(|path| Path::is_file(path))
        .with_context(|| {
            format!(
                "no {name} near {}: build it (cargo build --workspace --bins), or set {variable}",
                own.display()
            )
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Process {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Process::start("a shell", &Netns::new().unwrap(), command).unwrap()
    }

    #[test]
    fn output_is_kept_and_waited_for() {
        let mut process = shell("echo one; echo two >&2; echo three; exit 3");
        assert_eq!(process.wait_log("re", wait::LONG).unwrap(), "three");
        assert_eq!(process.wait_log("two", wait::LONG).unwrap(), "two");
        assert_eq!(process.wait_exit(wait::LONG).unwrap().code(), Some(3));
        let error = process.wait_log("four", wait::LONG).unwrap_err();
        assert!(error.to_string().contains("ended without"), "{error}");
        assert_eq!(process.log().len(), 3);
    }

    #[test]
    fn signals() {
        let mut process = shell("trap 'echo asked; exit 0' TERM; echo ready; while :; do sleep 0.02; done");
        process.wait_log("ready", wait::LONG).unwrap();
        process.terminate().unwrap();
        assert!(process.wait_exit(wait::LONG).unwrap().success());

        let mut process = shell("echo ready; exec sleep 1000");
        process.wait_log("ready", wait::LONG).unwrap();
        assert!(process.is_running());
        process.kill().unwrap();
        assert!(!process.is_running());
    }

    #[test]
    fn dropping_kills() {
        let process = shell("echo ready; exec sleep 1000");
        process.wait_log("ready", wait::LONG).unwrap();
        let pid = process.pid();
        drop(process);
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
    }
}
