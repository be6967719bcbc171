//! Settings by the names of their flags: those that were given, and those that an agent tells of.

use std::fmt;

use clap::ArgMatches;
use serde::{Deserialize, Serialize};

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
    pub(super) fn of(cli: &clap::Command, matches: &ArgMatches) -> Self {
        let mut settings = Self::default();
        let Some((name, matches)) = matches.subcommand() else {
            return settings;
        };
        let arguments = cli.find_subcommand(name).into_iter();
        for argument in arguments.flat_map(clap::Command::get_arguments) {
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
