//! The first message of each connection over a Unix socket: where and how the client was started, for the
//! jobs that it runs. It is a notification, so that nothing waits for an answer.

use anyhow::bail;
use serde_json::{Map, Value, json};
use tokio_tungstenite::tungstenite::Utf8Bytes;

use crate::cli::{connect::wire::MESSAGE_BYTES_MAX, new_job::caller::ShellCaller, render::print};

/// The name of the notification.
const METHOD: &str = "notifications/cc-executor/caller";

/// The notification: `cwd`, `umask`, `env` and `limits`, in the forms of a NewJob; without `env` if it is
/// not wanted.
///
/// # Errors
///
/// The environment is longer than a message may be.
pub fn notification(caller: &ShellCaller, sends_env: bool) -> anyhow::Result<Utf8Bytes> {
    let mut params = Map::new();
    match caller.cwd.as_deref().map(|path| path.to_str()) {
        Some(Some(path)) => drop(params.insert("cwd".to_owned(), json!(path))),
        Some(None) | None => print::line(
            "the working directory is gone, or its path is not UTF-8: jobs run in the home directory \
             unless they name another one",
        ),
    }
    if let Some(mask) = caller.umask {
        params.insert("umask".to_owned(), json!(format!("{mask:03o}")));
    }
    if sends_env {
        let env = caller
            .env
            .iter()
            .map(|(name, value)| (name.clone(), json!(value)));
        params.insert("env".to_owned(), Value::Object(env.collect()));
    }
    if !caller.limits.is_none() {
        params.insert("limits".to_owned(), json!(caller.limits));
    }
    let message = json!({"jsonrpc": "2.0", "method": METHOD, "params": params}).to_string();
    if message.len() > MESSAGE_BYTES_MAX {
        bail!(
            "the environment has {} bytes, but at most {MESSAGE_BYTES_MAX} can be sent; leave it out with \
             --clean-env",
            message.len()
        );
    }
    Ok(message.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::Limits;

    fn caller(env: &[(&str, String)]) -> ShellCaller {
        ShellCaller {
            cwd: Some("/src".into()),
            umask: Some(0o22),
            env: env
                .iter()
                .map(|(name, value)| ((*name).to_owned(), value.clone()))
                .collect(),
            limits: Limits {
                nice: Some(5),
                ..Limits::default()
            },
        }
    }

    fn params(caller: &ShellCaller, sends_env: bool) -> Value {
        let text = notification(caller, sends_env).expect("short enough");
        let message: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(message["method"], METHOD);
        message["params"].clone()
    }

    #[test]
    fn it_has_the_keys_of_a_new_job() {
        let caller = caller(&[("PATH", "/bin".to_owned())]);
        let mut expected =
            json!({"cwd": "/src", "umask": "022", "env": {"PATH": "/bin"}, "limits": {"nice": 5}});
        assert_eq!(params(&caller, true), expected);
        expected.as_object_mut().expect("an object").remove("env");
        assert_eq!(params(&caller, false), expected);
    }

    #[test]
    fn an_environment_that_is_too_long_is_refused_with_the_remedy() {
        let caller = caller(&[("LONG", "x".repeat(MESSAGE_BYTES_MAX))]);
        let refused = notification(&caller, true)
            .expect_err("too long")
            .to_string();
        assert!(refused.contains("--clean-env"), "{refused}");
        assert!(notification(&caller, false).is_ok());
    }
}
