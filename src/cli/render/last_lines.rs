//! The last lines of a job's output for `show`: bounded, and harmless for a terminal.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::{cli::connect::link::Link, escape::visible};

/// Most lines that are shown.
const LINES_MAX: usize = 10;
/// How much of the output's end is read, bytes.
const BYTES_MAX: u64 = 4 << 10;

/// The last lines of a job whose output has `output_bytes`; empty if it has written nothing.
pub async fn of(link: &mut Link, job: &Value, output_bytes: u64) -> anyhow::Result<Vec<String>> {
    let from = output_bytes.saturating_sub(BYTES_MAX);
    let read = json!({"job": job, "from": from, "max_bytes": BYTES_MAX});
    let reply = link.request("job.read", &read).await?;
    Ok(lines(&bytes(&reply), from > 0))
}

/// The bytes of a reply to `job.read`, without a mark for gaps.
fn bytes(reply: &Value) -> Vec<u8> {
    let chunks = reply["chunks"].as_array().into_iter().flatten();
    let data = |chunk: &Value| match chunk["data"].as_str() {
        Some(text) => text.as_bytes().to_vec(),
        None => {
            let encoded = chunk["data_base64"].as_str().unwrap_or_default();
            STANDARD.decode(encoded).unwrap_or_default()
        }
    };
    chunks.flat_map(data).collect()
}

/// The last lines. `cut`: `bytes` begin within the output, so the first line may lack its beginning
/// and gets an ellipsis.
fn lines(bytes: &[u8], cut: bool) -> Vec<String> {
    let text = String::from_utf8_lossy(bytes);
    let lines: Vec<&str> = text.lines().collect();
    let skipped = lines.len().saturating_sub(LINES_MAX);
    let mut shown: Vec<String> = lines[skipped..].iter().map(|line| visible(line)).collect();
    if let Some(first) = shown.first_mut().filter(|_| cut && skipped == 0) {
        first.insert(0, '…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_shown_and_do_nothing() {
        let many: String = (0..20).map(|n| format!("{n}\n")).collect();
        let shown = lines(many.as_bytes(), true);
        assert_eq!((shown.len(), shown[0].as_str()), (10, "10"));
        assert_eq!(lines(b"tail of a line\nend", true)[0], "…tail of a line");
        assert_eq!(lines(b"\x1b[2J\xff", false), ["\\x1b[2J\u{fffd}"]);
        assert!(lines(b"", false).is_empty());
    }

    #[test]
    fn both_encodings_are_read() {
        let reply = json!({"chunks": [
            {"data": "a"}, {"gap": {"from": 1, "to": 2}}, {"data_base64": "/w=="},
        ]});
        assert_eq!(bytes(&reply), b"a\xff");
    }
}
