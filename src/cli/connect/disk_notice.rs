//! The line about a data directory that takes much of the disk.

use serde_json::Value;

use super::link::Link;
use crate::cli::render::{print, size};

/// The line for the key `disk` of `server.info`, if the directory takes more than it should.
pub fn line(disk: &Value) -> Option<String> {
    let (bytes, limit) = (disk["bytes"].as_u64()?, disk["warn_bytes"].as_u64()?);
    (bytes >= limit).then(|| {
        format!(
            "the data directory takes {}: {}; `cc-executor du` says which jobs, queues and labels use \
             it, `cc-executor prune` and `cc-executor retention` free it",
            size::short(bytes),
            kinds(disk)
        )
    })
}

/// What takes it, by kind of file.
pub fn kinds(disk: &Value) -> String {
    let parts = [
        ("database", "database_bytes"),
        ("its log", "log_bytes"),
        ("outputs in the spool", "spool_bytes"),
        ("other files", "other_bytes"),
    ];
    let parts = parts.map(|(name, key)| {
        let bytes = disk[key].as_u64().unwrap_or(0);
        format!("{name} {}", size::short(bytes))
    });
    parts.join(", ")
}

/// Prints that line on stderr, if there is one. A server that cannot tell is no error.
pub async fn print_if_due(link: &mut Link) {
    if let Ok(info) = link.request("server.info", &serde_json::json!({})).await
        && let Some(text) = line(&info["disk"])
    {
        print::line(&text);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn it_is_said_from_the_limit_on() {
        let disk = |bytes: u64, limit: Value| {
            json!({"bytes": bytes, "warn_bytes": limit, "database_bytes": 1 << 20,
                "log_bytes": 0, "spool_bytes": 10_u64 << 30, "other_bytes": 5})
        };
        let said = line(&disk(10 << 30, json!(10_u64 << 30))).expect("said");
        for part in ["10.0 GiB", "database 1.0 MiB", "du", "prune"] {
            assert!(said.contains(part), "{said}");
        }
        assert_eq!(line(&disk(10 << 30, json!((10_u64 << 30) + 1))), None);
        assert_eq!(line(&disk(10 << 30, Value::Null)), None);
        assert_eq!(line(&Value::Null), None);
    }
}
