//! Settings by the names of their flags: those that were given, those that an agent tells of, and which of them count.

use std::fmt;

use clap::parser::ValueSource;
use clap::{ArgMatches, Args, Command};
use serde::{Deserialize, Serialize};

use super::explain;

/// A setting.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Setting {
    /// Name of the flag, without dashes.
    pub(crate) flag: String,
    /// Its value, as on the command line.
    pub(crate) value: String,
}

/// As it would stand on the command line.
impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "--{}={}", self.flag, self.value)
    }
}

/// The settings that have a value, in the order of the help text.
#[derive(Debug, Clone, Default)]
pub(crate) struct Settings {
    /// All of them.
    pub(crate) all: Vec<Setting>,
    /// Those that differ from their defaults.
    pub(crate) changed: Vec<Setting>,
}

impl Settings {
    /// Those of the subcommand that was given.
    pub(super) fn of(cli: &Command, matches: &ArgMatches) -> Self {
        let mut settings = Self::default();
        let Some((name, matches)) = matches.subcommand() else {
            return settings;
        };
        let arguments = cli.find_subcommand(name).into_iter();
        for argument in arguments.flat_map(Command::get_arguments) {
            let raw = matches.try_get_raw(argument.get_id().as_str());
            let (Some(flag), Ok(Some(given))) = (argument.get_long(), raw) else {
                continue;
            };
            let given: Vec<_> = given.collect();
            let words: Vec<_> = given.iter().map(|word| word.to_string_lossy()).collect();
            let setting = Setting {
                flag: flag.to_owned(),
                value: words.join(","),
            };
            if given != argument.get_default_values() {
                settings.changed.push(setting.clone());
            }
            settings.all.push(setting);
        }
        settings
    }
}

/// The agent's settings as flags of a subcommand that works with an agent and without. A flag goes before what the running
/// agent says, and that before variables and defaults: the variables are those of the agent's pod, if they are set at all.
#[derive(Debug, Clone)]
pub(super) struct Given(Vec<Setting>);

impl Given {
    /// The flags among the settings `T` that stand on the command line.
    pub(super) fn of<T: Args>(matches: &ArgMatches) -> Self {
        let all = T::augment_args(Command::new(""));
        let given = all.get_arguments().filter_map(|argument| {
            let id = argument.get_id().as_str();
            let is_given = matches.value_source(id) == Some(ValueSource::CommandLine);
            let words = is_given.then(|| matches.get_raw(id))??;
            let words: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
            Some(Setting {
                flag: argument.get_long()?.to_owned(),
                value: words.join(","),
            })
        });
        Self(given.collect())
    }

    /// The value of a flag that is given.
    pub(super) fn value(&self, flag: &str) -> Option<&str> {
        let found = self.0.iter().find(|setting| setting.flag == flag)?;
        Some(&found.value)
    }

    /// The settings `T` beside an agent that has the settings `of_agent`; `name` is the subcommand's.
    pub(super) fn beside<'a, T: Args>(
        &'a self,
        of_agent: impl Iterator<Item = &'a Setting>,
        name: &'static str,
    ) -> Result<T, clap::Error> {
        let of_agent = of_agent.filter(|setting| self.value(&setting.flag).is_none());
        let words = of_agent.chain(&self.0).map(ToString::to_string);
        let words: Vec<String> = [name.to_owned()].into_iter().chain(words).collect();
        let mut command = T::augment_args(Command::new(name));
        let read = command
            .try_get_matches_from_mut(&words)
            .and_then(|matches| T::from_arg_matches(&matches));
        read.map_err(|error| {
            let program = Command::new("routelet").subcommand(command);
            let words: Vec<_> = words.iter().map(Into::into).collect();
            explain::name_variables(error, &program, &words)
        })
    }
}
