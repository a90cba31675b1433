//! `sql`: queries the job history in SQL, once or at a prompt.
//!
//! Reads the query and prints the result. The server decides what a query may do (`query/`).

use std::{io::IsTerminal, process::ExitCode};

use serde_json::Value;

use crate::cli::sql::{pager, params, prompt, query};
use crate::cli::{
    connect::{
        link::{self, VersionNotice},
        target::Connect,
    },
    render::print,
    sql::{
        format::Format,
        params::{NamedParam, Param},
        result::QueryResult,
        screen::Screen,
    },
};

/// Options of `sql`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
VALUE is read as JSON if it is a number, null, true, false, a text in double quotes, or a BLOB as
{\"base64\": \"…\"}. Everything else is a text as it stands. So 137 is a number; '\"137\"' and a b are
texts.

In the JSON format the second column of the same name is called NAME:2. In CSV a NULL is an empty
field, an empty text is \"\", and a BLOB is base64.")]
pub struct SqlArgs {
    #[command(flatten)]
    connect: Connect,

    /// The query; `-` reads it from stdin. Without QUERY, a terminal gets a prompt, and other stdin
    /// is read as the query
    #[arg(value_name = "QUERY")]
    query: Option<String>,

    /// Value of the next `?` in the query; may be given several times
    #[arg(
        long = "param",
        value_name = "VALUE",
        allow_hyphen_values = true,
        conflicts_with = "named"
    )]
    params: Vec<Param>,

    /// Value of `:NAME` in the query; may be given several times
    #[arg(long, value_name = "NAME=VALUE")]
    named: Vec<NamedParam>,

    /// At most this many rows
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..=query::ROWS_MAX))]
    max_rows: Option<i64>,

    /// Format of the rows
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    format: Format,

    /// Print JSON: the same as --format json
    #[arg(long, conflicts_with = "format")]
    json: bool,

    /// Print directly to the terminal, however long the result is
    #[arg(long)]
    no_pager: bool,
}

/// Where the query comes from.
#[derive(Debug, PartialEq, Eq)]
enum QuerySource {
    Words(String),
    Stdin,
    Prompt,
}

/// Runs the query, or the prompt.
pub async fn sql(args: SqlArgs) -> anyhow::Result<ExitCode> {
    let params = params::of(&args.params, &args.named)?;
    let terminals = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    match source(args.query.clone(), terminals) {
        QuerySource::Words(query) => args.once(query, params).await,
        QuerySource::Stdin => args.once(query::from_stdin()?, params).await,
        QuerySource::Prompt => {
            anyhow::ensure!(
                params.is_none(),
                "--param and --named need a query on the command line or from stdin"
            );
            args.prompt().await
        }
    }
}

fn source(query: Option<String>, terminals: bool) -> QuerySource {
    match query {
        Some(query) if query == "-" => QuerySource::Stdin,
        Some(query) => QuerySource::Words(query),
        None if terminals => QuerySource::Prompt,
        None => QuerySource::Stdin,
    }
}

impl SqlArgs {
    async fn once(&self, query: String, params: Option<Value>) -> anyhow::Result<ExitCode> {
        let mut link = link::open_always(self.connect.target()?, VersionNotice::Always).await?;
        let query = query::params(&query, params, self.max_rows);
        let result = QueryResult::read(link.request(query::METHOD, &query).await?)?;
        let screen = Screen::of_stdout();
        let text = self.format().text(&result, screen);
        pager::show(&text, screen.filter(|_| !self.no_pager))?;
        if result.truncated {
            print::line(&result.truncation_note());
        }
        Ok(ExitCode::SUCCESS)
    }

    async fn prompt(&self) -> anyhow::Result<ExitCode> {
        let options = prompt::PromptOptions {
            format: self.format(),
            max_rows: self.max_rows,
            paged: !self.no_pager,
        };
        prompt::prompt(self.connect.target()?, options).await
    }

    fn format(&self) -> Format {
        match self.json {
            true => Format::Json,
            false => self.format,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        sql: SqlArgs,
    }

    fn parse(words: &[&str]) -> Option<SqlArgs> {
        let words = std::iter::once(&"sql").chain(words);
        Some(Line::try_parse_from(words).ok()?.sql)
    }

    #[test]
    fn a_query_is_a_word_or_stdin_or_asked_for() {
        assert_eq!(
            source(Some("x".into()), true),
            QuerySource::Words("x".into())
        );
        assert_eq!(source(Some("-".into()), true), QuerySource::Stdin);
        assert_eq!(source(None, false), QuerySource::Stdin);
        assert_eq!(source(None, true), QuerySource::Prompt);
    }

    #[test]
    fn wrong_words_are_refused() {
        assert!(parse(&["q", "--max-rows", "10000"]).is_some());
        for wrong in [
            &["q", "--max-rows", "0"][..],
            &["q", "--max-rows", "10001"],
            &["q", "--format", "xml"],
            &["q", "--json", "--format", "csv"],
            &["q", "--param", "1", "--named", "a=1"],
            &["q", "--named", "a"],
            &["q", "r"],
        ] {
            assert!(parse(wrong).is_none(), "{wrong:?}");
        }
    }

    #[test]
    fn json_has_a_short_name() {
        let format = |words: &[&str]| parse(words).map(|args| args.format());
        assert_eq!(format(&["q"]), Some(Format::Table));
        assert_eq!(format(&["q", "--json"]), Some(Format::Json));
        assert_eq!(format(&["q", "--format", "csv"]), Some(Format::Csv));
    }

    #[test]
    fn a_negative_number_is_a_value() {
        let args = parse(&["q", "--param", "-1", "--param", "x"]).expect("valid");
        let params = params::of(&args.params, &args.named).expect("valid");
        assert_eq!(params, Some(serde_json::json!([-1, "x"])));
    }
}
