//! A flow's file: its steps with their jobs, checked as a whole before anything is submitted. A fault has
//! its line and column, and says what was expected.

use std::{
    collections::{BTreeSet, HashMap},
    fs::File,
    io::Read,
    path::Path,
};

use anyhow::{Context, bail};

use super::{
    file_values::{plain_name, variables},
    graph,
    step::{FileContext, FlowFile, FlowStep},
    step_reader::{FileDefaults, ReadStep, StepReader},
    toml,
    tree::{FileFault, FileNode, FilePlace, FileTable},
    yaml,
};
use crate::{cli::connect::wire::MESSAGE_BYTES_MAX, job::DependencyCondition};

/// The longest file, bytes: its steps must fit into one message.
const FILE_BYTES_MAX: usize = MESSAGE_BYTES_MAX;

/// Reads a flow's file: YAML by its extension, else TOML.
pub fn read(path: &Path, context: &FileContext) -> anyhow::Result<FlowFile> {
    let text = text(path)?;
    let extension = path.extension().and_then(|extension| extension.to_str());
    let read = match extension {
        Some("yaml" | "yml") => yaml::read(&text),
        _ => toml::read(&text),
    };
    let flow = read.and_then(|document| flow(&document, context));
    match flow {
        Ok(flow) => Ok(flow),
        Err(fault) => bail!("{}:{fault} (nothing was submitted)", path.display()),
    }
}

/// Reads a file's text.
fn text(path: &Path) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    let file = File::open(path);
    let read = file.and_then(|file| file.take(FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes));
    read.with_context(|| format!("{} cannot be read", path.display()))?;
    if bytes.len() > FILE_BYTES_MAX {
        bail!(
            "{}: a flow's file has at most {FILE_BYTES_MAX} bytes (nothing was submitted)",
            path.display()
        );
    }
    String::from_utf8(bytes)
        .with_context(|| format!("{} cannot be read; it must be UTF-8", path.display()))
}

/// Reads a flow.
fn flow(document: &FileNode, context: &FileContext) -> Result<FlowFile, FileFault> {
    let table = document.table("a flow")?;
    table.refuse_others("a flow", &["name", "vars", "defaults", "step"])?;
    let needed = |key: &str| {
        let message = format!("{key}: is missing; a flow needs its name and its steps");
        table
            .get(key)
            .ok_or_else(|| FileFault::new(document.place, message))
    };
    let name = plain_name(needed("name")?)?;
    let mut variables = variables(table.get("vars"))?;
    let declared: BTreeSet<String> = variables.keys().cloned().collect();
    variables.extend(context.variables.clone());
    let none = FileTable::default();
    let defaults = table
        .get("defaults")
        .map(|node| node.table("defaults"))
        .transpose()?;
    let reader = StepReader {
        variables,
        defaults: FileDefaults::read(defaults.unwrap_or(&none))?,
        base: &context.base,
    };
    let nodes = needed("step")?.list("step")?;
    if nodes.is_empty() {
        return Err(needed("step")?.expected("step", "a list of steps that is not empty"));
    }
    let steps = nodes.iter().map(|node| reader.step(node));
    let steps = steps.collect::<Result<Vec<_>, FileFault>>()?;
    reader.refuse_unused(&context.variables, &declared, &steps)?;
    Ok(FlowFile {
        name,
        steps: in_order(steps)?,
    })
}

/// The steps in an order in which they can be submitted, with their dependencies resolved.
fn in_order(steps: Vec<ReadStep>) -> Result<Vec<FlowStep>, FileFault> {
    let mut named: HashMap<&str, usize> = HashMap::with_capacity(steps.len());
    for (at, step) in steps.iter().enumerate() {
        let name = step.step.name.as_str();
        if let Some(first) = named.insert(name, at) {
            let message = format!(
                "step {name:?}: there is a step of that name at {}",
                steps[first].step.place
            );
            return Err(FileFault::new(step.step.place, message));
        }
    }
    let waits_for = steps.iter().map(|step| indices(step, &steps, &named));
    let waits_for = waits_for.collect::<Result<Vec<_>, FileFault>>()?;
    let order = graph::order(&waits_for).map_err(|circle| {
        let names = circle.iter().chain(circle.first());
        let names: Vec<&str> = names.map(|at| steps[*at].step.name.as_str()).collect();
        let message = format!(
            "these steps wait for each other in a circle: {}",
            names.join(" -> ")
        );
        FileFault::new(steps[circle[0]].step.place, message)
    })?;
    let mut position = vec![0; order.len()];
    for (to, from) in order.iter().enumerate() {
        position[*from] = to;
    }
    let mut steps: Vec<(usize, FlowStep)> = steps
        .into_iter()
        .zip(waits_for)
        .enumerate()
        .map(|(at, (mut read, others))| {
            let conditions = read.after.iter().map(|(_, on, _)| *on);
            let others = others.into_iter().map(|other| position[other]);
            read.step.after = others.zip(conditions).collect();
            (position[at], read.step)
        })
        .collect();
    steps.sort_by_key(|(to, _)| *to);
    Ok(steps.into_iter().map(|(_, step)| step).collect())
}

fn indices(
    step: &ReadStep,
    steps: &[ReadStep],
    named: &HashMap<&str, usize>,
) -> Result<Vec<usize>, FileFault> {
    let find = |(name, _, place): &(String, DependencyCondition, FilePlace)| {
        let found = named.get(name.as_str()).copied();
        found.ok_or_else(|| {
            let names: Vec<&str> = steps.iter().map(|step| step.step.name.as_str()).collect();
            let message = format!(
                "step {:?}: after: there is no step {name:?}; the steps are {}",
                step.step.name,
                names.join(", ")
            );
            FileFault::new(*place, message)
        })
    };
    step.after.iter().map(find).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::cli::flow::step::StepGate;

    fn context() -> FileContext {
        let base = json!({"cwd": "/here", "env": {"PATH": "/bin"}, "umask": "022"});
        FileContext {
            variables: [("who".to_owned(), "Ada".to_owned())].into(),
            base: base.as_object().expect("an object").clone(),
        }
    }

    fn parse(text: &str) -> Result<FlowFile, String> {
        let document = toml::read(text).map_err(|fault| fault.to_string())?;
        flow(&document, &context()).map_err(|fault| fault.to_string())
    }

    const WHOLE: &str = r#"
name = "release"
vars = {who = "nobody", model = "small"}
[defaults]
command = ["claude", "-p", "--model={{model}}"]
timeout_s = 60
env = {A = "default", B = "default"}
[[step]]
name = "last"
after = ["first", {step = "middle", on = "finish"}]
argv = ["echo", "{{who}}"]
cwd = "sub"
timeout_s = 5
[[step]]
name = "middle"
after = "first"
vars = {model = "large"}
prompt = "Hello {{who}}"
env = {A = "own"}
verify = {contains = "x", regex = ["^a", "b$"], exit_codes = [0, 3], command = ["true"]}
[[step]]
name = "first"
shell = "true"
review = {rounds = 2, fix = {prompt = "{{task}} for {{who}}", exclusive = "me"}}
"#;

    #[test]
    fn a_whole_file_becomes_steps_in_order() {
        let flow = parse(WHOLE).expect("a flow");
        let names: Vec<_> = flow.steps.iter().map(|step| step.name.as_str()).collect();
        assert_eq!(names, ["first", "middle", "last"]);
        let (success, finish) = (DependencyCondition::Success, DependencyCondition::Finish);
        assert_eq!(flow.steps[2].after, [(0, success), (1, finish)]);
        let middle = Value::Object(flow.steps[1].job.clone());
        assert_eq!(middle["argv"], json!(["claude", "-p", "--model=large"]));
        assert_eq!(
            (&middle["stdin"], &middle["timeout_s"]),
            (&json!("Hello Ada"), &json!(60))
        );
        let env = json!({"PATH": "/bin", "A": "own", "B": "default", "FLOW_VAR_who": "Ada",
            "FLOW_VAR_model": "large"});
        assert_eq!(middle["env"], env);
        let last = Value::Object(flow.steps[2].job.clone());
        assert_eq!(last["argv"], json!(["echo", "{{who}}"]), "as it is");
        assert_eq!(
            (&last["cwd"], &last["timeout_s"]),
            (&json!("/here/sub"), &json!(5))
        );
        let Some(StepGate::Verify(rules)) = &flow.steps[1].gate else {
            panic!("no check");
        };
        let claims = json!([{"contains": "x"}, {"regex": "^a"}, {"regex": "b$"}]);
        assert_eq!(
            (json!(rules.claims), rules.exit_codes.as_slice()),
            (claims, &[0, 3][..])
        );
        let Some(StepGate::Review(rules)) = &flow.steps[0].gate else {
            panic!("no review");
        };
        assert_eq!(
            (rules.rounds, &rules.fix.job["exclusive"]),
            (2, &json!("me"))
        );
        assert_eq!(rules.fix.variables["who"], "Ada");
    }

    /// Changes the whole file at one place, and tells where and why that is refused.
    fn refused(from: &str, to: &str) -> String {
        assert_eq!(WHOLE.matches(from).count(), 1, "{from}");
        parse(&WHOLE.replace(from, to)).expect_err(to)
    }

    /// What is replaced in the whole file, by what, and what the fault says.
    const MISTAKES: &[(&str, &str, &str)] = &[
        (
            "after = \"first\"",
            "afer = \"first\"",
            "16:1: step \"middle\": afer: unknown key of a step; known keys are name, after,",
        ),
        (
            "after = \"first\"",
            "after = \"frist\"",
            "16:9: step \"middle\": after: there is no step \"frist\"; the steps are last, middle, first",
        ),
        (
            "after = \"first\"",
            "after = [\"first\", \"last\"]",
            "9:1: these steps wait for each other in a circle: last -> middle -> last",
        ),
        (
            "after = \"first\"",
            "after = 3",
            "16:9: step \"middle\": after: must be a step's name or",
        ),
        (
            "on = \"finish\"",
            "on = \"failure\"",
            "10:42: step \"last\": after.on: must be \"success\" or \"finish\"",
        ),
        (
            "name = \"first\"",
            "name = \"last\"",
            "22:1: step \"last\": there is a step of that name at 9:1",
        ),
        (
            "name = \"first\"",
            "name = \"a b\"",
            "22:8: name: must be 1 to 64 letters",
        ),
        ("name = \"first\"\n", "", "21:1: name: is missing"),
        (
            "Hello {{who}}",
            "Hello {{whom}}",
            "18:1: step \"middle\": prompt: there is no variable \"whom\"; there are model, who",
        ),
        (
            "{{task}} for",
            "{{job}} for",
            "review.fix: prompt: there is no variable \"job\"; there are model, task, who",
        ),
        (
            "shell = \"true\"",
            "",
            "21:1: step \"first\": needs exactly one of argv, shell and prompt",
        ),
        (
            "shell = \"true\"",
            "shell = \"true\"\nargv = [\"a\"]",
            "step \"first\": needs exactly one of",
        ),
        (
            "timeout_s = 60",
            "timeout_s = -1",
            "6:1: step \"middle\": timeout_s: must be a number of seconds",
        ),
        (
            "timeout_s = 5\n",
            "timeout_s = 5\nretry = {max_attempts = 0}\n",
            "14:10: step \"last\": retry.max_attempts: must be an integer",
        ),
        (
            "timeout_s = 5\n",
            "timeout_s = 5\nidempotency_key = \"x\"\n",
            "14:1: step \"last\": idempotency_key: unknown key of a step",
        ),
        (
            "timeout_s = 5\n",
            "timeout_s = 5\nqueue = \"flow\"\n",
            "14:1: step \"last\": queue: ",
        ),
        (
            "timeout_s = 5\n",
            "timeout_s = 5\nlabels = {flow-step = \"x\"}\n",
            "14:11: step \"last\": labels.flow-step: labels that begin with flow",
        ),
        (
            "exit_codes = [0, 3]",
            "exit_codes = [256]",
            "verify.exit_codes: must be an integer from 0 to 255",
        ),
        (
            "contains = \"x\"",
            "contain = \"x\"",
            "contain: unknown key of verify; known keys are contains, regex",
        ),
        (
            "rounds = 2",
            "rounds = 0",
            "24:20: step \"first\": review.rounds: must be an integer from 1 to 100",
        ),
        (
            "rounds = 2, fix",
            "rounds = 2, fixes",
            "fixes: unknown key of review; known keys are rounds, fix",
        ),
        (
            "vars = {who = \"nobody\", model = \"small\"}",
            "vars = {who = \"nobody\", model = []}",
            "vars.model: must be a string",
        ),
        ("name = \"release\"", "name = \"release", "2:"),
    ];

    #[test]
    fn mistakes_are_refused_with_their_places_and_what_was_expected() {
        for (from, to, expected) in MISTAKES {
            let fault = refused(from, to);
            assert!(fault.contains(expected), "{to}\n{fault}\n{expected}");
        }
        let unused = WHOLE.replace("who", "x").replace("{{x}}", "");
        let fault = parse(&unused).expect_err("refused");
        assert!(
            fault.contains("--var who: the file does not use this variable; [vars] has model, x"),
            "{fault}"
        );
        assert!(
            parse("name = \"x\"")
                .expect_err("refused")
                .contains("1:1: step: is missing")
        );
    }
}
