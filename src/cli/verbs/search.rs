//! `search`: prints the lines of outputs in which a text is or a pattern matches, as grep does.

use std::process::ExitCode;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    cli::{
        connect::{
            filter::JobFilter,
            find_job,
            link::{self, Link, StartPolicy, VersionNotice},
            target::Connect,
        },
        render::{
            exit_code,
            print::{self, PrintOptions},
        },
    },
    escape::needs_escape,
};

/// Lines that are asked for at once: the most that the contract allows.
const PAGE_LINES: u64 = 1000;

/// Options of `search`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Prints JOB:LINE:text for each line that is found, newest jobs first: the job's number, the number of the \
line in its output, and the line. The number of a line is not known after missing output; @OFFSET is in \
its place then. `…` stands for the rest of a line that is too long, and what a terminal would act on is \
escaped; --json has the lines as they are. Jobs that run are searched up to their present end.

With --regex, PATTERN is a regular expression over bytes, as in `wait --until regex:PATTERN`, and is \
matched against each line: ^ is its beginning, $ its end. Stdout and stderr are lines of their own.

Exit code: 0 when a line was found, 1 when none was, 2 when something went wrong.")]
pub struct SearchArgs {
    #[command(flatten)]
    connect: Connect,

    #[command(flatten)]
    print: PrintOptions,

    #[command(flatten)]
    filter: JobFilter,

    /// The text to search for
    #[arg(value_name = "PATTERN")]
    pattern: String,

    /// Search only these jobs: numbers, ids, names (the newest of a name), or `last` for the newest of all
    #[arg(value_name = "JOB", conflicts_with_all = JobFilter::OPTIONS)]
    jobs: Vec<String>,

    /// PATTERN is a regular expression
    #[arg(short = 'E', long)]
    regex: bool,

    /// Letters of ASCII match in both cases
    #[arg(short, long)]
    ignore_case: bool,

    /// Search only this stream; may be given several times
    #[arg(long = "stream", value_name = "STREAM", value_parser = ["stdout", "stderr", "pty"])]
    streams: Vec<String>,

    /// Stop after this many lines
    #[arg(short = 'm', long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,

    /// Print the offset of each line after its number: `tail --from OFFSET` begins there
    #[arg(short = 'b', long)]
    byte_offset: bool,
}

/// Searches, and prints what is found as it comes.
pub async fn search(args: SearchArgs) -> anyhow::Result<ExitCode> {
    let filter = args.filter.all_keys()?;
    let target = args.connect.target()?;
    let Some(mut link) = link::open(target, StartPolicy::IfData, VersionNotice::Always).await?
    else {
        return find_job::no_jobs();
    };
    let mut tally = SearchTally::default();
    if args.jobs.is_empty() {
        args.search(&mut link, Value::Object(filter), &mut tally)
            .await?;
    }
    for name in &args.jobs {
        if args.left(&tally) == 0 {
            break;
        }
        let searched = match find_job::resolve(&mut link, name).await {
            Ok(job) => {
                args.search(&mut link, json!({"job": job}), &mut tally)
                    .await
            }
            Err(error) => Err(error),
        };
        if let Err(error) = searched {
            if error.is::<print::ReaderLeft>() {
                return Err(error);
            }
            print::line(&format!("{name}: {}", print::chain(&error)));
            tally.has_failed = true;
        }
    }
    Ok(ExitCode::from(args.conclude(&tally)))
}

/// What the requests of a search have brought.
#[derive(Debug, Default)]
struct SearchTally {
    found: u64,
    /// Not everything was searched, because as many lines were found as were asked for.
    is_cut: bool,
    missing_bytes: u64,
    has_failed: bool,
}

/// The reply of `history.search`.
#[derive(Debug, Deserialize)]
struct FoundPage {
    hits: Vec<Value>,
    cursor: Option<String>,
    missing_bytes: u64,
    #[serde(default)]
    unreadable: Vec<u64>,
}

/// What is printed of a line that was found.
#[derive(Debug, Deserialize)]
struct PrintedLine {
    number: u64,
    offset: u64,
    line_number: Option<u64>,
    line: String,
    line_match: (usize, usize),
    line_from: Option<u64>,
    #[serde(default)]
    line_goes_on: bool,
}

impl SearchArgs {
    /// How many more lines may be found.
    fn left(&self, tally: &SearchTally) -> u64 {
        self.limit
            .map_or(u64::MAX, |limit| limit.saturating_sub(tally.found))
    }

    /// Asks again and again, until everything that `scope` chooses was searched.
    async fn search(
        &self,
        link: &mut Link,
        scope: Value,
        tally: &mut SearchTally,
    ) -> anyhow::Result<()> {
        let mut params = scope;
        params[if self.regex { "regex" } else { "text" }] = json!(self.pattern);
        params["ignore_case"] = json!(self.ignore_case);
        if !self.streams.is_empty() {
            params["streams"] = json!(self.streams);
        }
        loop {
            params["limit"] = json!(self.left(tally).min(PAGE_LINES));
            let page = link.request("history.search", &params).await?;
            let page = FoundPage::deserialize(page)?;
            tally.found += page.hits.len() as u64;
            tally.missing_bytes += page.missing_bytes;
            self.print(&page.hits)?;
            for job in page.unreadable {
                print::line(&format!(
                    "the output of job {job} cannot be read to its end; the server's log says why"
                ));
                tally.has_failed = true;
            }
            let Some(cursor) = page.cursor else {
                return Ok(());
            };
            if self.left(tally) == 0 {
                tally.is_cut = true;
                return Ok(());
            }
            params["cursor"] = json!(cursor);
        }
    }

    fn print(&self, hits: &[Value]) -> anyhow::Result<()> {
        let mut text = String::new();
        for hit in hits {
            if self.print.json {
                text.push_str(&crate::escape::visible_json(&hit.to_string()));
            } else {
                text.push_str(&self.line(&PrintedLine::deserialize(hit)?));
            }
            text.push('\n');
        }
        print::out(text.as_bytes())
    }

    fn line(&self, line: &PrintedLine) -> String {
        let colon = self.print.color("36", ":");
        let place = match line.line_number {
            Some(number) => number.to_string(),
            None => format!("@{}", line.offset),
        };
        let mut text = self.print.color("35", &line.number.to_string());
        text.push_str(&colon);
        text.push_str(&self.print.color("32", &place));
        if self.byte_offset {
            text.push_str(&colon);
            text.push_str(&self.print.color("32", &line.offset.to_string()));
        }
        text.push_str(&colon);
        if line.line_from.is_some() {
            text.push('…');
        }
        let whole = match line.line_goes_on {
            true => line.line.as_str(),
            false => line.line.strip_suffix('\r').unwrap_or(&line.line),
        };
        let place_of = |nth: usize| {
            let place = whole.char_indices().nth(nth).map(|(at, _)| at);
            place.unwrap_or(whole.len())
        };
        let (begin, end) = (place_of(line.line_match.0), place_of(line.line_match.1));
        text.push_str(&visible_line(&whole[..begin]));
        text.push_str(&self.print.color("1;31", &visible_line(&whole[begin..end])));
        text.push_str(&visible_line(&whole[end..]));
        if line.line_goes_on {
            text.push('…');
        }
        text
    }

    /// Says what was not searched; the exit code.
    fn conclude(&self, tally: &SearchTally) -> u8 {
        if tally.is_cut {
            print::line(&format!(
                "stopped at --limit {}: there may be more lines; give a higher limit, or none",
                tally.found
            ));
        }
        if tally.missing_bytes > 0 {
            print::line(&format!(
                "{} bytes of output are missing and were not searched",
                tally.missing_bytes
            ));
        }
        match (tally.has_failed, tally.found) {
            (true, _) => exit_code::SEARCH_FAILED,
            (false, 0) => exit_code::FAILURE,
            (false, _) => exit_code::SUCCESS,
        }
    }
}

/// The text with escapes for what a terminal acts on; tabs stay.
fn visible_line(text: &str) -> String {
    let parts = text
        .split('\t')
        .map(|part| match part.chars().any(needs_escape) {
            true => crate::escape::visible(part),
            false => part.to_owned(),
        });
    parts.collect::<Vec<_>>().join("\t")
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        search: SearchArgs,
    }

    fn parse(words: &[&str]) -> Option<SearchArgs> {
        let words = std::iter::once(&"search").chain(words);
        Some(Line::try_parse_from(words).ok()?.search)
    }

    fn line(words: &[&str], hit: Value) -> String {
        let words = [words, &["x"]].concat();
        let hit = PrintedLine::deserialize(hit).expect("a line");
        parse(&words).expect("valid").line(&hit)
    }

    #[test]
    fn a_line_has_its_job_and_its_number_before_it() {
        let plain = json!({"number": 7, "offset": 90, "line_number": 3, "line": "a\tb\u{1b}é!\r",
            "line_match": [1, 5]});
        assert_eq!(
            line(&["--color", "never"], plain.clone()),
            "7:3:a\tb\\x1bé!"
        );
        assert_eq!(
            line(&["--color", "never", "-b"], plain.clone()),
            "7:3:90:a\tb\\x1bé!"
        );
        let painted = line(&["--color", "always"], plain);
        let colon = "\x1b[36m:\x1b[0m";
        let expected =
            format!("\x1b[35m7\x1b[0m{colon}\x1b[32m3\x1b[0m{colon}a\x1b[1;31m\tb\\x1bé\x1b[0m!");
        assert_eq!(painted, expected);
        let cut = json!({"number": 7, "offset": 90, "line_number": null, "line": "abc",
            "line_match": [3, 3], "line_from": 100, "line_goes_on": true});
        assert_eq!(line(&["--color", "never"], cut), "7:@90:…abc…");
    }

    #[test]
    fn jobs_are_named_or_chosen_by_filters() {
        assert!(parse(&["x", "7", "last"]).is_some());
        assert!(parse(&["x", "--state", "failed", "--since", "7d"]).is_some());
        let after_dashes = parse(&["--", "-x"]).map(|args| args.pattern);
        assert_eq!(after_dashes.as_deref(), Some("-x"));
        for wrong in [
            &[][..],
            &["x", "7", "--state", "failed"],
            &["x", "7", "--since", "7d"],
            &["-x"],
            &["x", "--limit", "0"],
            &["x", "--stream", "stdin"],
        ] {
            assert!(parse(wrong).is_none(), "{wrong:?}");
        }
    }

    #[test]
    fn the_exit_code_is_that_of_grep() {
        let args = parse(&["x"]).expect("valid");
        let code = |found, has_failed| {
            args.conclude(&SearchTally {
                found,
                has_failed,
                ..SearchTally::default()
            })
        };
        assert_eq!([code(1, false), code(0, false)], [0, 1]);
        assert_eq!([code(1, true), code(0, true)], [2, 2]);
    }
}
