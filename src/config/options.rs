//! The settings as options of a command line: one for each row of the table. Values stay as they were given here;
//! the layers read them.

use std::{collections::BTreeMap, ffi::OsString};

use clap::{Arg, ArgMatches, Args, Command, FromArgMatches, value_parser};

use super::{SettingRow, TABLE};

/// The settings that were given as options, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SettingOptions(pub BTreeMap<String, OsString>);

impl FromArgMatches for SettingOptions {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut options = Self::default();
        options.update_from_arg_matches(matches)?;
        Ok(options)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        for entry in TABLE {
            if let Some(text) = matches.get_one::<OsString>(entry.name) {
                self.0.insert(entry.name.to_owned(), text.clone());
            }
        }
        Ok(())
    }
}

impl Args for SettingOptions {
    fn augment_args(command: Command) -> Command {
        command.args(TABLE.iter().map(arg))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

fn arg(entry: &'static SettingRow) -> Arg {
    let arg = Arg::new(entry.name)
        .long(entry.option())
        .help(entry.help())
        .value_parser(value_parser!(OsString));
    if entry.flag {
        arg.num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true")
            .value_name("BOOL")
    } else {
        arg.value_name(value_name(entry.name))
    }
}

/// The placeholder for the value in the help: the unit, if the name ends in one.
fn value_name(name: &str) -> &'static str {
    match name {
        "data_dir" => "DIR",
        "listen" => "ADDR",
        "log_file" | "policy" => "FILE",
        _ if name.ends_with("_s") => "SECONDS",
        _ if name.ends_with("_ms") => "MS",
        _ if name.contains("bytes") => "BYTES",
        _ if name.ends_with("_max") => "N",
        _ => "VALUE",
    }
}
