//! A receiver of notices in one line.

use serde_json::Value;

use super::shell::shell_word;
use crate::escape::visible;

/// The receiver of an entry of `notify`, of a notice or of a test, as a user wrote it.
pub fn receiver(entry: &Value) -> String {
    match entry["url"].as_str() {
        Some(url) => visible(url),
        None => {
            let words = entry["argv"].as_array().into_iter().flatten();
            let words: Vec<_> = words.filter_map(Value::as_str).map(shell_word).collect();
            visible(&words.join(" "))
        }
    }
}

/// The entries of a job's `notify`: the states, the receiver, whether requests are signed.
pub fn entries(notify: &Value) -> String {
    let entries = notify.as_array().into_iter().flatten().map(|entry| {
        let on = entry["on"].as_array().into_iter().flatten();
        let on: Vec<_> = on.filter_map(Value::as_str).map(visible).collect();
        let signed = match entry["has_secret"].as_bool() {
            Some(true) => " (signed)",
            _ => "",
        };
        format!("{} of {}{signed}", receiver(entry), on.join(", "))
    });
    entries.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_entry_says_whom_and_of_what() {
        let notify = json!([
            {"on": ["failed"], "url": "https://h/x", "argv": null, "has_secret": true},
            {"on": ["running", "paused"], "url": null, "argv": ["mail", "a b"], "has_secret": false},
        ]);
        assert_eq!(
            entries(&notify),
            "https://h/x of failed (signed); mail 'a b' of running, paused"
        );
        assert_eq!(entries(&json!([])), "");
    }
}
