//! The text of a result: a status line, the body, and one call that is ready to use.

use std::fmt::Write as _;

use rmcp::model::{CallToolResult, ContentBlock};
use serde_json::Value;

use crate::{
    escape,
    job::{Exit, Job, JobState, Micros, signal},
    protocol::jsonrpc::error::Refusal,
    sys::clock,
};

/// Longest text of a result, characters: beyond ten thousand some agents cut an error in its middle.
pub const CHARS_MAX: usize = 9_500;
/// Length of a result if the call does not name one, characters.
pub const CHARS_DEFAULT: usize = 8_000;
/// Shortest length that a call may name, characters.
pub const CHARS_MIN: usize = 500;

/// What a tool answers.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    /// A text for the model.
    Text {
        /// Status line, body and next call.
        text: String,
        /// Whether the call, or the command that it ran, failed.
        is_error: bool,
    },
    /// The job goes on as a task, which the client polls.
    Task(Box<Job>),
}

/// A call that is ready to use.
#[derive(Debug, Clone, PartialEq)]
pub struct NextCall {
    tool: &'static str,
    arguments: Value,
}

impl NextCall {
    /// A call of this tool with these arguments.
    pub fn new(tool: &'static str, arguments: Value) -> Self {
        Self { tool, arguments }
    }
}

/// Ends a body that had to be cut.
const CUT: &str = "[… cut: there was no room]";

/// Joins the parts of a text; the body is cut at the end, and says so, if all would be longer than
/// `chars_max`.
pub fn compose(status: &str, body: &str, next: &NextCall, chars_max: usize) -> String {
    let next = format!("next: {} {}", next.tool, next.arguments);
    let body = body.trim_end_matches('\n');
    let frame = status.chars().count() + next.chars().count() + 3;
    let left = chars_max.saturating_sub(frame);
    let mut text = status.to_owned();
    text.push('\n');
    let is_whole = body.chars().nth(left).is_none();
    if is_whole {
        text.push_str(body);
    } else {
        let kept = left.saturating_sub(CUT.chars().count() + 1);
        text.extend(body.chars().take(kept));
        text.push('\n');
        text.push_str(CUT);
    }
    if !body.is_empty() {
        text.push('\n');
    }
    text.push_str(&next);
    text
}

/// As many of these lines as fit, and how many do not.
pub fn fitting_lines(lines: &[String], chars_max: usize) -> String {
    const MORE_CHARS: usize = 40;
    let mut left = chars_max;
    let mut text = String::new();
    for (at, line) in lines.iter().enumerate() {
        let chars = line.chars().count() + 1;
        let reserve = if at + 1 < lines.len() { MORE_CHARS } else { 0 };
        if chars + reserve > left {
            let _ = writeln!(text, "[… {} more not shown]", lines.len() - at);
            break;
        }
        left -= chars;
        text.push_str(line);
        text.push('\n');
    }
    text
}

/// How many characters a body may have beside this status line and this call.
pub fn body_chars(status: &str, next: &NextCall, chars_max: usize) -> usize {
    let next = next.tool.len() + next.arguments.to_string().chars().count();
    chars_max.saturating_sub(status.chars().count() + next + 12)
}

/// The status line: state, exit code, time, bytes, and the job's names.
pub fn status_line(job: &Job) -> String {
    let mut line = format!("job {} {}", job.number, outcome(job));
    if let Some(name) = name(job) {
        let _ = write!(line, " ({name})");
    }
    if let Some(length) = length(job) {
        let word = if job.state.is_final() { "after" } else { "for" };
        let _ = write!(line, ", {word} {}", duration(length));
    }
    if job.attempts > 1 && job.waits_until.is_none() {
        let _ = write!(line, ", attempt {}", job.attempts);
    }
    let _ = write!(
        line,
        ", {} bytes of output, id {}",
        job.output_bytes, job.id
    );
    if job.dropped_bytes > 0 {
        let _ = write!(line, ", {} bytes dropped", job.dropped_bytes);
    }
    if job.leaked > 0 {
        let _ = write!(line, ", {} leftover processes ended", job.leaked);
    }
    line
}

/// A sentence or more, short enough to stand beside others.
pub fn brief(text: &str) -> String {
    const BRIEF_CHARS_MAX: usize = 600;
    let text = escape::visible(text);
    match text.char_indices().nth(BRIEF_CHARS_MAX) {
        None => text.to_string(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

/// The job's name, short and without what a terminal or a reader of lines would act on.
pub fn name(job: &Job) -> Option<String> {
    const NAME_CHARS_MAX: usize = 60;
    let name = escape::visible(job.spec.name.as_ref()?);
    Some(match name.char_indices().nth(NAME_CHARS_MAX) {
        None => name,
        Some((end, _)) => format!("{}…", &name[..end]),
    })
}

/// The state in words, with the exit code or signal.
pub fn outcome(job: &Job) -> String {
    let state = job.state.name();
    let exit = match &job.exit {
        None => None,
        Some(Exit::Code(code)) => Some(format!("exit code {code}")),
        Some(Exit::Signal(number)) => Some(format!("signal {}", signal::name(*number))),
        Some(Exit::SpawnFailed(error)) => {
            Some(format!("cannot start: {} ({})", error.what, error.name))
        }
    };
    if let Some(at) = job.waits_until {
        let attempt = match job.attempts {
            0 => String::new(),
            ended => format!("attempt {} ", ended + 1),
        };
        return format!("{state}, {attempt}starts in {}", until(at));
    }
    let reason = job.reason.map(|reason| reason.name());
    match (reason, exit) {
        (Some("exit_code" | "signal" | "spawn") | None, Some(exit)) => format!("{state}: {exit}"),
        (Some(reason), Some(exit)) => format!("{state}: {reason}, {exit}"),
        (Some(reason), None) => format!("{state}: {reason}"),
        (None, None) => state.to_owned(),
    }
}

/// How long it has run, or has waited if it has not started; microseconds.
fn length(job: &Job) -> Option<i64> {
    let from = job.started_at.unwrap_or(job.submitted_at);
    let to = job.finished_at.unwrap_or_else(clock::now);
    Some((to.0 - from.0).max(0))
}

/// A length of time as people write it, from microseconds.
pub fn duration(micros: i64) -> String {
    let seconds = micros / 1_000_000;
    match seconds {
        0..=59 => format!("{:.1} s", micros as f64 / 1e6),
        60..=3599 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

/// How long ago that was.
pub fn age(at: Micros) -> String {
    duration((clock::now().0 - at.0).max(0))
}

/// How long it is until then.
fn until(at: Micros) -> String {
    duration((at.0 - clock::now().0).max(0))
}

/// Whether a job's end is an error for the call that ran it.
pub fn is_failure(job: &Job) -> bool {
    matches!(job.state, JobState::Failed | JobState::Cancelled)
}

impl Reply {
    /// A text that reports no error.
    pub fn text(text: String) -> Self {
        Self::Text {
            text,
            is_error: false,
        }
    }

    /// The text of a refused call: what is wrong, and a call that works.
    pub fn refused(refusal: &Refusal, next: &NextCall) -> Self {
        let status = format!("refused ({}): {}", refusal.kind.name(), refusal.message);
        Self::Text {
            text: compose(&bounded(&status), "", next, CHARS_MAX),
            is_error: true,
        }
    }
}

/// A name that a client sent, short enough to be repeated.
pub fn shortened(name: &str) -> String {
    const NAME_CHARS_MAX: usize = 100;
    match name.char_indices().nth(NAME_CHARS_MAX) {
        None => name.to_owned(),
        Some((end, _)) => format!("{}…", &name[..end]),
    }
}

/// A refusal may repeat what the client sent.
fn bounded(status: &str) -> String {
    const STATUS_CHARS_MAX: usize = 4_000;
    match status.char_indices().nth(STATUS_CHARS_MAX) {
        None => status.to_owned(),
        Some((end, _)) => format!("{}…", &status[..end]),
    }
}

/// A result that has nothing but text: where a structured form is there, too, some agents show only one
/// of them to the model.
pub fn result(text: String, is_error: bool) -> CallToolResult {
    let content = vec![ContentBlock::text(text)];
    match is_error {
        true => CallToolResult::error(content),
        false => CallToolResult::success(content),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_text_keeps_its_first_and_last_line_and_its_bound() {
        let next = NextCall::new("wait", json!({"jobs": [7]}));
        let text = compose("job 7 running", &"x\n".repeat(500), &next, 300);
        assert!(text.starts_with("job 7 running\nx\nx\n"), "{text}");
        assert!(text.contains(CUT), "{text}");
        assert!(text.ends_with("\nnext: wait {\"jobs\":[7]}"), "{text}");
        assert!(text.chars().count() <= 300);
        let text = compose("done", "", &next, 300);
        assert_eq!(text, "done\nnext: wait {\"jobs\":[7]}");
    }

    #[test]
    fn lines_that_do_not_fit_are_counted() {
        let lines: Vec<String> = (0..10).map(|n| format!("line {n}")).collect();
        assert_eq!(fitting_lines(&lines, 1_000).lines().count(), 10);
        let some = fitting_lines(&lines, 62);
        assert!(some.ends_with("line 2\n[… 7 more not shown]\n"), "{some}");
        assert!(some.chars().count() <= 62);
    }

    #[test]
    fn lengths_of_time_have_two_units_at_most() {
        assert_eq!(duration(1_250_000), "1.2 s");
        assert_eq!(duration(61_000_000), "1 min 1 s");
        assert_eq!(duration(7_320_000_000), "2 h 2 min");
    }
}
