//! Exit codes, and what the help of each subcommand says of them.

/// Exit code after a stop by signal, and of what is done.
pub(crate) const EXIT_STOPPED: u8 = 0;
/// Exit code of a failure while running.
pub(crate) const EXIT_FAILURE: u8 = 1;
/// Exit code of a wrong setting: clap's, for what it finds, and ours for a kubeconfig that cannot be used.
pub(crate) const EXIT_USAGE: u8 = 2;
/// Exit code where the agent that was asked was not ready in time.
pub(crate) const EXIT_NOT_READY: u8 = 4;
/// Exit code of a packet's way that is broken.
pub(crate) const EXIT_BROKEN: u8 = 1;
/// Exit code where another agent runs in the same network namespace.
pub(crate) const EXIT_ALREADY_RUNS: u8 = 3;
/// Exit code where the agent is ready, and something is to be looked at.
pub(crate) const EXIT_IN_TROUBLE: u8 = 5;
/// Exit code of `routelet diff` where kernel and cluster differ.
pub(crate) const EXIT_DIFFERS: u8 = 1;
/// Exit code of `routelet diff` where it could not find out.
pub(crate) const EXIT_CANNOT_COMPARE: u8 = 6;

pub(super) const EXIT_CODES: &str = "\
Exit codes:
  0  stopped by a signal; the kernel stays as it is
  1  failed while running; the log says why
  2  wrong usage: an unknown flag, a value that is not allowed, a kubeconfig that cannot be used
  3  another agent runs on this node";

pub(super) const INSTALL_CNI_EXIT_CODES: &str = "\
Exit codes:
  0  plugin and configuration are in place, whether or not they were before
  1  they could not be put there, or the answer was not that of an agent of this version; the log says why
  2  wrong usage: an unknown flag, a value that is not allowed
  4  the agent was not ready within --timeout; nothing was written";

pub(super) const CLEANUP_EXIT_CODES: &str = "\
Exit codes:
  0  nothing of routelet is left but what the log names
  1  something could not be taken away; the log says what and why
  2  wrong usage: an unknown flag, a value that is not allowed
  3  the agent runs on this node; nothing was touched";

pub(super) const TRACE_EXIT_CODES: &str = "\
Exit codes:
  0  the way is whole, as far as the kernel's tables tell
  1  it is broken; the output names the first hop that breaks and what to do
  2  it could not be looked at: wrong usage, a pod that is not found, a kernel that cannot be read";

pub(super) const STATUS_EXIT_CODES: &str = "\
Exit codes:
  0  the agent is ready, and nothing is wrong that it knows of
  1  the agent could not be asked; standard error says why
  2  wrong usage: an unknown flag, a value that is not allowed
  4  the agent is not ready; what it says was shown
  5  the agent is ready, and something is to be looked at: what is listed under Trouble";

pub(super) const LOG_LEVEL_EXIT_CODES: &str = "\
Exit codes:
  0  what the agent logs was shown, after the change if there was one
  1  the agent could not be asked; standard error says why
  2  wrong usage: an unknown flag, a value that is not allowed";

pub(super) const DIFF_EXIT_CODES: &str = "\
Exit codes:
  0  the kernel has what the cluster asks for, and nothing of the agent's beside it
  1  it differs; the differences were shown
  2  wrong usage: an unknown flag, a value that is not allowed, a kubeconfig that cannot be used
  4  not all is known that the wanted objects follow from; standard error says what is missing
  6  it could not be compared: the API or the kernel could not be read, or the agent not be asked";
