//! `config`: every setting, its value and where the value comes from. The settings themselves are
//! in `config/`.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;
use serde_json::{Map, Value, json};

use crate::{
    cli::render::print,
    config::{self, Loaded, SettingOptions},
    escape,
};

/// Options of `config`: those of `serve`, so that it shows what a server started with them does.
#[derive(Debug, Clone, Args)]
pub struct ConfigArgs {
    /// Read this file instead of config.toml in the data directory.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    pub json: bool,
    /// The settings.
    #[command(flatten)]
    pub settings: SettingOptions,
}

/// Prints the settings.
pub async fn config(args: ConfigArgs) -> anyhow::Result<ExitCode> {
    let loaded = config::load(args.config.as_deref(), &args.settings.0)?;
    let text = if args.json {
        as_json(&loaded)
    } else {
        as_table(&loaded)
    };
    print::page(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn as_json(loaded: &Loaded) -> String {
    let rows = loaded.shown.iter().map(|row| {
        let value = json!({ "value": row.value, "origin": row.origin.to_string() });
        (row.name.to_owned(), value)
    });
    let object = Value::Object(rows.collect::<Map<_, _>>());
    format!("{}\n", escape::visible_json(&object.to_string()))
}

fn as_table(loaded: &Loaded) -> String {
    let rows: Vec<[String; 3]> = loaded
        .shown
        .iter()
        .map(|row| {
            [
                row.name.to_owned(),
                escape::visible(&row.value.to_string()),
                escape::visible(&row.origin.to_string()),
            ]
        })
        .collect();
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let (name, value) = (width(0), width(1));
    let lines = rows
        .iter()
        .map(|[n, v, o]| format!("{n:name$}  {v:value$}  {o}\n"));
    lines.collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn both_forms_name_every_setting_and_its_origin() {
        let options = BTreeMap::from([("sessions_max".to_owned(), "7".into())]);
        let loaded = config::load_from(None, BTreeMap::new(), &options).expect("valid");
        let table = as_table(&loaded);
        assert_eq!(table.lines().count(), config::TABLE.len());
        let line = table
            .lines()
            .find(|line| line.starts_with("sessions_max "))
            .expect("a line");
        assert!(
            line.contains(" 7 ") && line.ends_with("option --sessions-max"),
            "{line}"
        );
        let object: Value = serde_json::from_str(&as_json(&loaded)).expect("JSON");
        assert_eq!(object["sessions_max"]["value"], 7);
        assert_eq!(object["listen"]["origin"], "default");
    }
}
