//! The tasks that a reviewer which has failed leaves: JSON objects, one on each of the last lines of its
//! stdout. Pure.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{labels::VARIABLE_PREFIX, rules::FixTemplate, step_command::StepCommand};

/// The most tasks of one round.
pub const TASKS_MAX: usize = 100;

/// A task for a job.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct FixTask {
    /// What is to be done, in words.
    pub task: String,
    /// What is run, if the step's `fix` does not say it.
    #[serde(flatten)]
    pub command: StepCommand,
}

/// The tasks at the end of a reviewer's stdout: the last lines, as far as each begins with `{`; blank
/// lines after and between them do not count. `first_line` is the number of the text's first line.
///
/// # Errors
///
/// A line is not a task; the message has its number.
pub fn tasks(stdout: &str, first_line: usize) -> Result<Vec<FixTask>, String> {
    let lines = stdout.lines().enumerate();
    let lines: Vec<(usize, &str)> = lines
        .map(|(at, line)| (first_line + at, line.trim()))
        .filter(|(_, line)| !line.is_empty())
        .collect();
    let begin = lines.iter().rposition(|(_, line)| !line.starts_with('{'));
    let lines = &lines[begin.map_or(0, |at| at + 1)..];
    if lines.len() > TASKS_MAX {
        return Err(format!(
            "the reviewer wrote {} tasks; a round has at most {TASKS_MAX}",
            lines.len()
        ));
    }
    lines
        .iter()
        .map(|(number, line)| task(*number, line))
        .collect()
}

fn task(number: usize, line: &str) -> Result<FixTask, String> {
    let wrong = |why: &str| {
        format!(
            "line {number} of the reviewer's stdout is no task: {why}; expected {{\"task\": TEXT}}, \
             with one of argv, shell and prompt where review.fix has none"
        )
    };
    let object: Map<String, Value> =
        serde_json::from_str(line).map_err(|error| wrong(&error.to_string()))?;
    let keys = ["task", "argv", "shell", "prompt"];
    if let Some(other) = object.keys().find(|key| !keys.contains(&key.as_str())) {
        return Err(wrong(&format!("unknown key {other:?}")));
    }
    if object.keys().filter(|key| *key != "task").count() > 1 {
        return Err(wrong("it has more than one of argv, shell and prompt"));
    }
    let task: FixTask =
        serde_json::from_value(Value::Object(object)).map_err(|error| wrong(&error.to_string()))?;
    match task.task.trim() {
        "" => Err(wrong("its task is empty")),
        // It becomes a variable.
        text if text.contains('\0') => Err(wrong("its task has a NUL")),
        _ => Ok(task),
    }
}

/// The NewJob of a task.
///
/// # Errors
///
/// Neither the task nor the template says what to run.
pub fn new_job(fix: &FixTemplate, task: &FixTask) -> Result<Map<String, Value>, String> {
    let mut variables = fix.variables.clone();
    variables.insert("task".to_owned(), task.task.clone());
    let command = fix.command.clone().replaced_by(task.command.clone());
    let made = command.new_job(&variables);
    let made = made.map_err(|fault| format!("task {:?}: {fault}", task.task))?;
    let mut job = fix.job.clone();
    job.extend(made);
    let name = format!("{VARIABLE_PREFIX}task");
    super::labels::merge(&mut job, "env", json!({name: task.task}));
    Ok(job)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_the_tasks() {
        let stdout = "{\"task\": \"said before\"}\nI found two things:\n\n{\"task\": \"a\"}\n  \
                      {\"task\": \"b\", \"shell\": \"fix b\"}\n\n";
        let found = tasks(stdout, 1).expect("tasks");
        let words: Vec<_> = found.iter().map(|task| task.task.as_str()).collect();
        assert_eq!(words, ["a", "b"]);
        assert_eq!(found[1].command.shell.as_deref(), Some("fix b"));
        assert_eq!(tasks("all bad\n", 1), Ok(vec![]));
        assert_eq!(tasks("", 1), Ok(vec![]));
    }

    #[test]
    fn lines_that_are_no_tasks_are_refused_by_their_number() {
        for line in [
            "{",
            "{}",
            "{\"task\": \" \"}",
            "{\"task\": 1}",
            "{\"task\": \"a\\u0000b\"}",
            "{\"task\": \"a\", \"colour\": 1}",
            "{\"task\": \"a\", \"shell\": \"b\", \"argv\": [\"c\"]}",
            "{\"task\": \"a\", \"argv\": \"c\"}",
            "{\"task\": \"a\"} and more",
        ] {
            let wrong = tasks(&format!("words\n{line}\n"), 10).expect_err(line);
            assert!(wrong.starts_with("line 11 of"), "{wrong}");
        }
        let many = "{\"task\": \"a\"}\n".repeat(TASKS_MAX + 1);
        assert!(tasks(&many, 1).is_err_and(|wrong| wrong.contains("101 tasks")));
    }

    #[test]
    fn a_task_fills_the_template() {
        let fix = json!({"job": {"cwd": "/a"}, "variables": {"who": "Ada"},
            "command": {"prompt": "{{who}}: {{task}}", "command": ["claude", "-p"]}});
        let fix: FixTemplate = serde_json::from_value(fix).expect("a template");
        let task = |line: &str| tasks(line, 1).expect("a task").remove(0);
        let job = |line: &str| new_job(&fix, &task(line)).map(Value::Object);
        let env = json!({"FLOW_VAR_task": "x {{who}}"});
        let expected =
            json!({"cwd": "/a", "argv": ["claude", "-p"], "stdin": "Ada: x {{who}}", "env": env});
        assert_eq!(job("{\"task\": \"x {{who}}\"}"), Ok(expected));
        let expected = json!({"cwd": "/a", "argv": ["fix"], "env": env});
        assert_eq!(
            job("{\"task\": \"x {{who}}\", \"argv\": [\"fix\"]}"),
            Ok(expected)
        );
        let bare: FixTemplate =
            serde_json::from_value(json!({"job": {}, "command": {}, "variables": {}}))
                .expect("a template");
        let refused = new_job(&bare, &task("{\"task\": \"x\"}")).expect_err("refused");
        assert!(
            refused.contains("task \"x\": needs exactly one of"),
            "{refused}"
        );
    }
}
