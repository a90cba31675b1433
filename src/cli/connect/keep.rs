//! The options that say how many final jobs stay, and the keys of a request that they become.

use serde_json::{Map, Value, json};

use crate::cli::render::{duration, size};

/// Options that say how many of the chosen jobs stay. A job goes as soon as one of them says so.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct KeepOptions {
    /// Jobs that ended longer ago go (90s, 12h, 30d)
    #[arg(long, value_name = "TIME", value_parser = whole_seconds)]
    older_than: Option<u64>,

    /// Only so many jobs stay, the newest
    #[arg(long, value_name = "N")]
    keep_newest: Option<u64>,

    /// Only so much stored output stays, that of the newest jobs (500MiB, 5GiB)
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    keep_bytes: Option<u64>,
}

impl KeepOptions {
    /// Adds its keys to a request.
    pub fn add_to(&self, params: &mut Map<String, Value>) {
        let keys = [
            ("older_than_s", self.older_than),
            ("keep_newest", self.keep_newest),
            ("keep_bytes", self.keep_bytes),
        ];
        for (key, value) in keys {
            if let Some(value) = value {
                params.insert(key.to_owned(), json!(value));
            }
        }
    }
}

fn whole_seconds(text: &str) -> Result<u64, String> {
    let seconds = duration::parse(text)?;
    match seconds.fract() == 0.0 && seconds < u64::MAX as f64 {
        true => Ok(seconds as u64),
        false => Err(format!("{text:?} is not a whole number of seconds")),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        keep: KeepOptions,
    }

    fn keys(words: &[&str]) -> Option<Value> {
        let words = std::iter::once(&"x").chain(words);
        let mut params = Map::new();
        Line::try_parse_from(words).ok()?.keep.add_to(&mut params);
        Some(Value::Object(params))
    }

    #[test]
    fn options_become_keys() {
        assert_eq!(keys(&[]), Some(json!({})));
        let all = keys(&[
            "--older-than",
            "30d",
            "--keep-newest",
            "5",
            "--keep-bytes",
            "5GiB",
        ]);
        let expected =
            json!({"older_than_s": 2_592_000, "keep_newest": 5, "keep_bytes": 5_u64 << 30});
        assert_eq!(all, Some(expected));
        for wrong in [
            ["--older-than", "soon"],
            ["--older-than", "1500ms"],
            ["--keep-newest", "-1"],
            ["--keep-bytes", "much"],
        ] {
            assert_eq!(keys(&wrong), None, "{wrong:?}");
        }
    }
}
