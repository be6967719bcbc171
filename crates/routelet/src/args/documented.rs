//! docs/configuration.md, from the definition of the command line.

use clap::{Arg, Command, CommandFactory};

use super::Cli;

/// The settings of a subcommand by heading, those that `known` has left out.
fn settings(command: &Command, known: &[&Arg]) -> String {
    let mut text = String::new();
    let mut heading = None;
    let is_new = |argument: &&Arg| known.iter().all(|known| known.get_id() != argument.get_id());
    for argument in command.get_arguments().filter(is_new) {
        if heading != argument.get_help_heading() {
            heading = argument.get_help_heading();
            text += &format!("\n### {}\n\n", heading.unwrap_or("Other"));
            text += "| flag, variable | default | values | meaning |\n|---|---|---|---|\n";
        }
        text += &row(argument);
    }
    text
}

fn row(argument: &Arg) -> String {
    let flag = match argument.get_long() {
        Some(flag) => format!("`--{flag}`"),
        None => format!("`{}`", argument.get_value_names().unwrap().join(" ")),
    };
    let name = match argument.get_env() {
        Some(variable) => format!("{flag}<br>`{}`", variable.to_str().unwrap()),
        None => flag,
    };
    let default: Vec<_> = argument
        .get_default_values()
        .iter()
        .map(|value| format!("`{}`", value.to_str().unwrap()))
        .collect();
    let mut meaning = argument.get_help().unwrap().to_string();
    if let Some(long) = argument.get_long_help() {
        meaning = long.to_string();
    }
    let possible = argument.get_possible_values();
    let values = match possible.iter().any(|value| value.get_help().is_some()) {
        true => {
            let lines = possible.iter().map(|value| match value.get_help() {
                Some(help) => format!("`{}`: {help}", value.get_name()),
                None => format!("`{}`", value.get_name()),
            });
            lines.collect::<Vec<_>>().join("<br>")
        }
        false => {
            let names = argument.get_value_names().unwrap_or_default();
            format!("`{}`", names.join(" "))
        }
    };
    let required = if argument.is_required_set() {
        "must be given"
    } else {
        ""
    };
    let default = match default.is_empty() {
        true => required.to_owned(),
        false => default.join(" "),
    };
    let cells = [name, default, values, meaning.replace('\n', " ")];
    format!("| {} |\n", cells.map(|cell| cell.replace('|', "\\|")).join(" | "))
}

#[test]
fn the_documentation_lists_every_setting() {
    let cli = Cli::command();
    let run = cli.find_subcommand("run").unwrap();
    let known: Vec<_> = run.get_arguments().collect();
    let mut text = format!("\n## `routelet run`\n{}", settings(run, &[]));
    for command in cli
        .get_subcommands()
        .filter(|command| command.get_name() != "run")
    {
        let shared: Vec<_> = command
            .get_arguments()
            .filter(|argument| known.iter().any(|known| known.get_id() == argument.get_id()))
            .map(|argument| format!("`--{}`", argument.get_long().unwrap()))
            .collect();
        text += &format!("\n## `routelet {}`\n", command.get_name());
        text += &settings(command, &known);
        if !shared.is_empty() {
            text += &format!("\nWith the meaning that it has above: {}.\n", shared.join(", "));
        }
    }
    crate::documented::compare("configuration.md", &(text + "\n"));
}
