//! `verify`: asks the server to verify what it stores of a job, and prints what it found.

use std::process::ExitCode;

use serde_json::{Value, json};

use crate::{
    cli::{
        connect::{
            find_job,
            link::{self, StartPolicy, VersionNotice},
            target::Connect,
        },
        render::{exit_code, print},
    },
    escape::visible,
};

/// How much of an assertion's text is printed, characters.
const ASSERTION_CHARS_MAX: usize = 60;

/// Options of `verify`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The server reads everything that is stored of the job: it hashes the output again and compares it with \
the digest that was made while the job ran, and checks the recorded states. A job that still runs is \
verified up to its present end. PATTERN is a regular expression over bytes, as in `wait --until \
regex:PATTERN`.

Exit code: 0 when the job is intact and every assertion is true, else 1.")]
pub struct VerifyArgs {
    #[command(flatten)]
    connect: Connect,

    /// The job: a number, an id, a unique name, or `last` for the newest
    #[arg(default_value = "last")]
    job: String,

    /// Assert that the output contains this text
    #[arg(long, value_name = "TEXT")]
    contains: Vec<String>,

    /// Assert that something in the output matches
    #[arg(long, value_name = "PATTERN")]
    regex: Vec<String>,

    /// Assert that the whole output has this SHA-256
    #[arg(long, value_name = "HEX")]
    sha256: Vec<String>,

    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
}

/// Verifies the job.
pub async fn verify(args: VerifyArgs) -> anyhow::Result<ExitCode> {
    let target = args.connect.target()?;
    let Some(mut link) = link::open(target, StartPolicy::IfData, VersionNotice::Always).await?
    else {
        return find_job::no_jobs();
    };
    let job = find_job::resolve(&mut link, &args.job).await?;
    let assertions = args.assertions();
    let wanted: Vec<Value> = assertions
        .iter()
        .map(|(kind, text)| json!({*kind: text}))
        .collect();
    let params = json!({"job": job, "claims": wanted});
    let verdict = link.request("transcript.verify", &params).await?;
    if args.json {
        print::json(&verdict)?;
    } else {
        print::page(&page(&verdict, &assertions))?;
    }
    Ok(match holds(&verdict) {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(exit_code::FAILURE),
    })
}

impl VerifyArgs {
    fn assertions(&self) -> Vec<(&'static str, &str)> {
        let all = [
            ("contains", &self.contains),
            ("regex", &self.regex),
            ("sha256", &self.sha256),
        ];
        let assertions = all.into_iter().flat_map(|(kind, texts)| {
            let texts = texts.iter();
            texts.map(move |text| (kind, text.as_str()))
        });
        assertions.collect()
    }
}

fn list<'a>(verdict: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    verdict[key].as_array().into_iter().flatten()
}

fn holds(verdict: &Value) -> bool {
    verdict["intact"] == true && list(verdict, "claims").all(|assertion| assertion["found"] == true)
}

fn page(verdict: &Value, assertions: &[(&str, &str)]) -> String {
    let mut page = vec![first_line(verdict)];
    page.extend(list(verdict, "problems").map(|problem| {
        let message = problem["message"].as_str().unwrap_or("something is wrong");
        format!("  {}", visible(message))
    }));
    page.extend(more(verdict, "more_problems", "problems"));
    page.extend(list(verdict, "gaps").map(|gap| {
        let reason = gap["reason"].as_str().unwrap_or("unknown");
        let (from, to) = (&gap["from"], &gap["to"]);
        format!(
            "  bytes {from} to {to} are on record as missing ({})",
            visible(reason)
        )
    }));
    page.extend(more(verdict, "more_gaps", "gaps"));
    let answers = assertions.iter().zip(list(verdict, "claims"));
    page.extend(answers.map(|((kind, text), answer)| assertion_line(kind, text, answer)));
    page.push(String::new());
    page.join("\n")
}

fn first_line(verdict: &Value) -> String {
    let (job, bytes) = (&verdict["job"], &verdict["output_bytes"]);
    let state = visible(verdict["state"].as_str().unwrap_or("unknown"));
    let is = match verdict["intact"] == true {
        true => "intact",
        false => "NOT intact",
    };
    let digest = match verdict["output_sha256"].as_str() {
        Some(digest) => format!("SHA-256 {}", visible(digest)),
        None => "no SHA-256 of all of them".to_owned(),
    };
    format!("job {job} ({state}) is {is}: {bytes} bytes of output, {digest}")
}

fn more(verdict: &Value, key: &str, what: &str) -> Option<String> {
    let more = verdict[key].as_u64().filter(|more| *more > 0)?;
    Some(format!("  and {more} more {what}"))
}

fn assertion_line(kind: &str, text: &str, answer: &Value) -> String {
    let shown = match text.char_indices().nth(ASSERTION_CHARS_MAX) {
        Some((end, _)) => format!("{}…", visible(&text[..end])),
        None => visible(text),
    };
    let found = match (answer["found"] == true, &answer["offset"], &answer["end"]) {
        (false, ..) => "NOT true".to_owned(),
        (true, Value::Null, _) => "true".to_owned(),
        (true, from, to) => format!("true, bytes {from} to {to}"),
    };
    format!("{kind} {shown}: {found}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_true_and_what_is_not_is_said() {
        let verdict = json!({
            "job": 7, "state": "failed", "intact": false, "output_bytes": 10,
            "output_sha256": null,
            "problems": [{"what": "damaged", "message": "segment 7.1.0.seg: a\u{1b}b"}],
            "more_problems": 2,
            "gaps": [{"from": 3, "to": 5, "reason": "drop_oldest"}],
            "claims": [{"found": true, "offset": 1, "end": 2}, {"found": false}, {"found": true}],
        });
        let assertions = [("contains", "x"), ("regex", "y+"), ("sha256", "ab")];
        let expected = "\
job 7 (failed) is NOT intact: 10 bytes of output, no SHA-256 of all of them
  segment 7.1.0.seg: a\\x1bb
  and 2 more problems
  bytes 3 to 5 are on record as missing (drop_oldest)
contains x: true, bytes 1 to 2
regex y+: NOT true
sha256 ab: true
";
        assert_eq!(page(&verdict, &assertions), expected);
        assert!(!holds(&verdict));
        assert!(holds(&json!({"intact": true, "claims": [{"found": true}]})));
        assert!(!holds(
            &json!({"intact": true, "claims": [{"found": false}]})
        ));
    }
}
