//! Prompts: three tasks in the words of a user, for clients that offer them as commands.

use rmcp::{
    ErrorData,
    model::{
        GetPromptResult, JsonObject, ListPromptsResult, Prompt, PromptArgument, PromptMessage, Role,
    },
};
use serde_json::Value;

use super::reply;

/// A prompt and how its text is made from its argument.
struct PromptRow {
    name: &'static str,
    description: &'static str,
    /// Name, description, and whether it is required.
    argument: Option<(&'static str, &'static str, bool)>,
    text: fn(&str) -> String,
}

static PROMPTS: [PromptRow; 3] = [
    PromptRow {
        name: "start_and_watch",
        description: "Start a long command and follow it to its end",
        argument: Some(("command", "the shell command line", true)),
        text: |command| {
            format!(
                "Start this command with the tool run and wait_s: 10:\n\n{command}\n\nIf it takes longer, do \
                 not start it again. Follow it with wait and the offset in the last line of each answer. Tell \
                 me when something fails, and at the end the exit code, how long it took, and the errors \
                 with their byte ranges. Check with verify_transcript what you quote."
            )
        },
    },
    PromptRow {
        name: "why_did_it_fail",
        description: "Find out why a job failed",
        argument: Some(("job", "number, id, name, or last", false)),
        text: |job| {
            let job = if job.is_empty() { "last" } else { job };
            format!(
                "Find out why job {job} failed. Call read_output {{\"job\": \"{job}\"}} for its exit code and \
                 diagnostics, then read the bytes around the first error with from. If it failed because of \
                 another job, find out why that one failed. If its log does not say it, use search_output with \
                 error|fail|panic and compare with the last run of the same command that succeeded \
                 (query_history). Quote the line that shows the cause, with its \
                 offset, and say what to change. Do not guess: if the log does not show the cause, say so."
            )
        },
    },
    PromptRow {
        name: "what_ran_today",
        description: "Summarise the jobs of the last 24 hours",
        argument: None,
        text: |_| {
            "Summarise what ran in the last 24 hours. Call query_history with\n\nSELECT number, name, command, \
             state, reason, exit_code, duration_s FROM history_jobs WHERE submitted_at > ago('24 hours') ORDER \
             BY number DESC LIMIT 50\n\nand list_jobs with state running. Group by command, say what failed and \
             what still runs, and name the jobs by number."
                .to_owned()
        },
    },
];

/// `prompts/list`.
pub fn list() -> ListPromptsResult {
    let prompts = PROMPTS.iter().map(|row| {
        let arguments = row.argument.map(|(name, description, required)| {
            vec![
                PromptArgument::new(name)
                    .with_description(description)
                    .with_required(required),
            ]
        });
        Prompt::new(row.name, Some(row.description), arguments)
    });
    ListPromptsResult::with_all_items(prompts.collect())
}

/// `prompts/get`.
///
/// # Errors
///
/// There is no such prompt, or its argument is missing or no text.
pub fn get(name: &str, arguments: JsonObject) -> Result<GetPromptResult, ErrorData> {
    let Some(row) = PROMPTS.iter().find(|row| row.name == name) else {
        let names: Vec<&str> = PROMPTS.iter().map(|row| row.name).collect();
        let message = format!(
            "there is no prompt {:?}; the prompts are {}",
            reply::shortened(name),
            names.join(", ")
        );
        return Err(ErrorData::invalid_params(message, None));
    };
    let argument = match row.argument {
        None => "",
        Some((key, _, required)) => match arguments.get(key) {
            Some(Value::String(text)) => text,
            None if !required => "",
            _ => {
                let message = format!("{key}: must be a text");
                return Err(ErrorData::invalid_params(message, None));
            }
        },
    };
    let message = PromptMessage::new_text(Role::User, (row.text)(argument));
    Ok(GetPromptResult::new(vec![message]).with_description(row.description))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_prompt_contains_its_argument() {
        let arguments = json!({"command": "cargo test"});
        let found = get(
            "start_and_watch",
            arguments.as_object().expect("object").clone(),
        );
        let text = serde_json::to_string(&found.expect("a prompt")).expect("JSON");
        assert!(text.contains("cargo test"));
        assert!(get("start_and_watch", JsonObject::new()).is_err());
        assert!(get("why_did_it_fail", JsonObject::new()).is_ok());
        assert!(get("other", JsonObject::new()).is_err());
    }
}
