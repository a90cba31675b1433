//! The prompt: reads statements and commands and runs them one after the other, until the user
//! leaves.
//!
//! Ctrl-C does not end the prompt. It ends the running query by closing its connection.

use std::process::ExitCode;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};

use super::{
    command::{self, PromptCommand},
    editor::{Editor, EditorLine},
    format::Format,
    history,
    names::QueryNames,
    pager, query,
    result::QueryResult,
    screen::Screen,
    statement,
};
use crate::cli::{
    connect::{
        link::{self, Link, VersionNotice},
        target::Target,
    },
    render::print::{self, ReaderLeft},
};

/// Printed at the beginning.
const GREETING: &str = concat!(
    "cc-executor ",
    env!("CARGO_PKG_VERSION"),
    ": the job history in SQL, read-only. A statement ends with `;`; \\? shows help, \\q leaves.\n"
);

/// The prompt's settings at its beginning.
#[derive(Debug, Clone, Copy)]
pub struct PromptOptions {
    /// Format of results.
    pub format: Format,
    /// Most rows of a result; `None`: the server's setting.
    pub max_rows: Option<i64>,
    /// Whether results go through a pager.
    pub paged: bool,
}

/// Runs the prompt until the user leaves.
pub async fn prompt(target: Target, options: PromptOptions) -> anyhow::Result<ExitCode> {
    let mut link = link::open_always(target.clone(), VersionNotice::Always).await?;
    print::out(GREETING.as_bytes())?;
    let names = unless_interrupted(QueryNames::fetch(&mut link)).await?;
    let names = names.unwrap_or_else(|| {
        link.mark_lost();
        QueryNames::default()
    });
    let mut editor = Editor::new(names.clone(), history::path(&target))?;
    let mut prompt = Prompt {
        link,
        names,
        format: options.format,
        timing: false,
        max_rows: options.max_rows,
        paged: options.paged,
    };
    loop {
        match editor.read()? {
            EditorLine::Cleared => {}
            EditorLine::Left => return Ok(ExitCode::SUCCESS),
            EditorLine::Typed(text) => {
                if prompt.on_input(&text).await? == AfterLine::Leave {
                    return Ok(ExitCode::SUCCESS);
                }
            }
        }
    }
}

/// What to do after a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AfterLine {
    Continue,
    Leave,
}

struct Prompt {
    link: Link,
    names: QueryNames,
    format: Format,
    timing: bool,
    max_rows: Option<i64>,
    paged: bool,
}

impl Prompt {
    /// Runs what was typed. Prints errors; only a terminal that is gone is returned as one.
    async fn on_input(&mut self, text: &str) -> anyhow::Result<AfterLine> {
        if command::is_command(text) {
            return match command::read(text) {
                Ok(command) => self.run_command(command),
                Err(wrong) => {
                    print::line(&wrong);
                    Ok(AfterLine::Continue)
                }
            };
        }
        for sql in statement::cut(text).statements {
            match self.run_query(sql).await {
                Ok(()) => {}
                Err(error) if error.is::<ReaderLeft>() => return Err(error),
                Err(error) => {
                    print::line(&format!("{error:#}"));
                    // The statements after it may depend on it.
                    break;
                }
            }
        }
        Ok(AfterLine::Continue)
    }

    async fn run_query(&mut self, sql: &str) -> anyhow::Result<()> {
        let params = query::params(sql, None, self.max_rows);
        let request = self.link.request(query::METHOD, &params);
        let Some(result) = unless_interrupted(request).await? else {
            // The server ends a query when its connection is closed.
            self.link.mark_lost();
            print::out(b"\n")?;
            anyhow::bail!("the query was ended");
        };
        let result = QueryResult::read(result?)?;
        let screen = Screen::of_stdout();
        let mut text = self.format.text(&result, screen);
        if self.format == Format::Table || self.timing {
            text.push_str(&result.footer(self.timing));
            text.push('\n');
        }
        pager::show(&text, screen.filter(|_| self.paged))?;
        if result.truncated {
            print::line(&result.truncation_note());
        }
        Ok(())
    }

    fn run_command(&mut self, command: PromptCommand) -> anyhow::Result<AfterLine> {
        match command {
            PromptCommand::Quit => return Ok(AfterLine::Leave),
            PromptCommand::Help => print::out(command::HELP.as_bytes())?,
            PromptCommand::Timing => {
                self.timing = !self.timing;
                let now = if self.timing { "on" } else { "off" };
                print::out(format!("timing is {now}\n").as_bytes())?;
            }
            PromptCommand::Format(Some(format)) => self.format = format,
            PromptCommand::Format(None) => {
                print::out(format!("{:?}\n", self.format).to_lowercase().as_bytes())?;
            }
            PromptCommand::Describe(None) => print::page(&self.views())?,
            PromptCommand::Describe(Some(name)) => self.describe(&name)?,
        }
        Ok(AfterLine::Continue)
    }

    /// Each view with its columns.
    fn views(&self) -> String {
        let line = |view: &super::names::ViewColumns| {
            format!("{}\n    {}\n", view.name, view.columns.join(", "))
        };
        self.names.views.iter().map(line).collect()
    }

    fn describe(&self, name: &str) -> anyhow::Result<()> {
        let Some(view) = self.names.view(name) else {
            print::line(&format!("there is no view {name}; \\d lists the views"));
            return Ok(());
        };
        let lines: String = view.columns.iter().map(|c| format!("{c}\n")).collect();
        print::page(&lines)
    }
}

/// Runs `work`; `None` if Ctrl-C comes first.
async fn unless_interrupted<T>(work: impl Future<Output = T>) -> anyhow::Result<Option<T>> {
    let mut interrupt = signal(SignalKind::interrupt()).context("signals cannot be watched")?;
    tokio::select! {
        done = work => Ok(Some(done)),
        _ = interrupt.recv() => Ok(None),
    }
}
