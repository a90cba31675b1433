//! What `transcript.verify` has found, as lines. Pure.

use serde_json::Value;

use crate::escape::visible;

/// How much of an assertion's text is printed, characters.
const ASSERTION_CHARS_MAX: usize = 60;

fn list<'a>(verdict: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    verdict[key].as_array().into_iter().flatten()
}

/// Whether the job is intact and every assertion is true.
pub fn holds(verdict: &Value) -> bool {
    verdict["intact"] == true && list(verdict, "claims").all(|assertion| assertion["found"] == true)
}

/// The answer as text: a line for the job, one for each problem and gap, and one for each assertion.
pub fn page(verdict: &Value, assertions: &[(&str, &str)]) -> String {
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
    use serde_json::json;

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
