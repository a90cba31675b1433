//! Templates: `{{NAME}}` in a prompt or in a word of its command is a variable's value.

use std::collections::BTreeMap;

/// Variables by their names.
pub type Variables = BTreeMap<String, String>;

/// A variable that a template names and that there is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingVariable(pub String);

/// Replaces every `{{NAME}}`; spaces inside the braces do not count. Braces around anything that cannot
/// be a name stay as they are. What a value contains is not read again.
pub fn fill(template: &str, variables: &Variables) -> Result<String, MissingVariable> {
    let mut filled = String::with_capacity(template.len());
    let mut rest = template;
    while let Some(at) = rest.find("{{") {
        let (before, braces) = rest.split_at(at);
        filled.push_str(before);
        let inner = braces[2..].split_once("}}").map(|(inner, _)| inner);
        match inner.filter(|inner| looks_like_a_name(inner.trim())) {
            Some(inner) => {
                let name = inner.trim();
                let value = variables.get(name);
                filled.push_str(value.ok_or_else(|| MissingVariable(name.to_owned()))?);
                rest = &braces[inner.len() + 4..];
            }
            None => {
                filled.push('{');
                rest = &braces[1..];
            }
        }
    }
    filled.push_str(rest);
    Ok(filled)
}

/// Whether a template has this variable.
pub fn names(template: &str, name: &str) -> bool {
    let parts = template.split("{{").skip(1);
    let mut named = parts.filter_map(|part| part.split_once("}}"));
    named.any(|(inner, _)| inner.trim() == name)
}

/// What is in braces and looks like this is meant to be a variable, so that a typo is noticed.
fn looks_like_a_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c))
}

/// Whether a variable may be called so: as in a shell.
pub fn is_variable_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_filled_in_once() {
        let variables = [("a", "{{b}}"), ("b", "B"), ("c_1", "")];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let variables = Variables::from(variables);
        for (template, filled) in [
            ("", "".to_owned()),
            ("plain { } {{ }}", "plain { } {{ }}".to_owned()),
            ("{{a}}{{ b }}{{c_1}}", "{{b}}B".to_owned()),
            ("{{.Names}} {{{b}}}", "{{.Names}} {B}".to_owned()),
            ("{{b", "{{b".to_owned()),
            ("ü{{b}}ü", "üBü".to_owned()),
        ] {
            assert_eq!(fill(template, &variables), Ok(filled), "{template}");
        }
        for (template, missing) in [
            ("x {{nope}}", "nope"),
            ("{{steps.a.output}}", "steps.a.output"),
        ] {
            assert_eq!(
                fill(template, &variables),
                Err(MissingVariable(missing.to_owned()))
            );
        }
        assert!(names("a {{ prompt }}", "prompt") && !names("{{prompts}} {prompt}", "prompt"));
    }
}
