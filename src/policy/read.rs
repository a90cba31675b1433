//! Reads a policy from TOML: every key with its check, then the examples of every rule.

use std::{
    io,
    path::{Path, PathBuf},
};

use toml::de::DeTable;

use super::{
    bounds::BoundsMax,
    example::Example,
    examples::{self, Resolve},
    names::NameSet,
    rule::{
        DirPattern, Policy, PolicyRule, ProgramPattern, RuleEffect, ShellTexts, What, Who,
        sha256_hex,
    },
    toml_value::{PolicyMistake, TomlNode, TomlTable, TomlText},
    urls::{UrlPattern, UrlSet},
    words::{ArgsPattern, WordPattern, WordSet},
};
use crate::job::SecretName;

/// The longest file, bytes.
pub const POLICY_BYTES_MAX: u64 = 1 << 20;
/// The most rules.
const RULES_MAX: usize = 1000;
/// The longest `id` of a rule, bytes.
const ID_BYTES_MAX: usize = 100;

/// Keys of a file.
const KEYS: [&str; 2] = ["default", "rule"];
/// Keys of a rule.
const RULE_KEYS: [&str; 18] = [
    "id",
    "decision",
    "who",
    "program",
    "sha256",
    "args",
    "shell",
    "cwd",
    "env",
    "secrets",
    "notify_urls",
    "timeout_s",
    "output_bytes",
    "queue",
    "priority",
    "by_path",
    "match",
    "not_match",
];

/// Why there is no policy.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// The file cannot be read.
    #[error("the policy {} cannot be read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system reports.
        source: io::Error,
    },
    /// Another user could change it.
    #[error("the policy {} is not taken: {why}", path.display())]
    Untrusted {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Its text is wrong.
    #[error("{}:{}: {}", path.display(), mistake.line, mistake.message)]
    Wrong {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        mistake: PolicyMistake,
    },
}

impl Policy {
    /// Reads a policy and runs its examples. `resolve` says where a path leads.
    ///
    /// # Errors
    ///
    /// The first mistake, with its line.
    pub fn read(text: &str, resolve: Resolve<'_>) -> Result<Self, PolicyMistake> {
        let parsed = DeTable::parse(text).map_err(|error| PolicyMistake {
            line: TomlText(text).line(&error.span().unwrap_or_default()),
            message: error.message().to_owned(),
        })?;
        let source = TomlText(text);
        let root = TomlTable::new(source, parsed.get_ref(), 1, String::new(), &KEYS)?;
        let default = root.get("default").map(|node| effect(&node)).transpose()?;
        let nodes = root.get("rule").map(|node| node.list()).transpose()?;
        let nodes = nodes.unwrap_or_default();
        if nodes.len() > RULES_MAX {
            return Err(root.wrong("rule", format!("there are more than {RULES_MAX}")));
        }
        let mut rules: Vec<PolicyRule> = Vec::with_capacity(nodes.len());
        for node in nodes {
            let rule = RuleReader::new(&node, resolve)?.read()?;
            if let Some(same) = rules.iter().find(|other| other.id == rule.id) {
                let message = format!("the rule of line {} has the same id", same.line);
                return Err(node.table(&RULE_KEYS)?.wrong("id", message));
            }
            examples::run(&rule, resolve)?;
            rules.push(rule);
        }
        Ok(Self {
            rules,
            default: default.unwrap_or(RuleEffect::Deny),
            digest: sha256_hex(text.as_bytes()),
        })
    }
}

/// A rule while it is read.
struct RuleReader<'a> {
    table: TomlTable<'a>,
    id: String,
    effect: RuleEffect,
    resolve: Resolve<'a>,
}

impl<'a> RuleReader<'a> {
    fn new(node: &TomlNode<'a>, resolve: Resolve<'a>) -> Result<Self, PolicyMistake> {
        let table = node.table(&RULE_KEYS)?;
        let missing = |key, what| table.wrong(key, format!("missing; {what}"));
        let id = table
            .get("id")
            .ok_or_else(|| missing("id", "every rule has a name of its own"))?;
        let text = id.string()?;
        if text.is_empty() || text.len() > ID_BYTES_MAX || text.contains(char::is_control) {
            return Err(id.wrong(format!(
                "must have 1 to {ID_BYTES_MAX} bytes and no control characters"
            )));
        }
        if text == Policy::DEFAULT_RULE {
            return Err(id.wrong("this name stands for the decision where no rule matches"));
        }
        let decision = table.get("decision");
        let decision = decision.ok_or_else(|| missing("decision", "\"allow\" or \"deny\""))?;
        Ok(Self {
            id: text.to_owned(),
            effect: effect(&decision)?,
            table: table.named(format!("rule {text:?}: ")),
            resolve,
        })
    }

    fn read(&self) -> Result<PolicyRule, PolicyMistake> {
        let examples = |key| self.each(key, |node| Example::read(&node));
        let flag = self.table.get("by_path").map(|node| node.boolean());
        let by_path = flag.transpose()?.unwrap_or(false);
        if by_path && self.effect == RuleEffect::Deny {
            return Err(self.table.wrong("by_path", "only an allow rule has it"));
        }
        Ok(PolicyRule {
            id: self.id.clone(),
            line: self.table.line,
            effect: self.effect,
            who: self.some("who", |node, text| who(&node, text))?,
            what: self.what()?,
            cwd: self.some("cwd", |node, text| self.directory(&node, text))?,
            env: self.some("env", pattern)?.map(NameSet),
            secrets: self.some("secrets", secret)?,
            notify_urls: self.notify_urls()?,
            bounds: self.bounds()?,
            by_path,
            matches: examples("match")?,
            not_matches: examples("not_match")?,
        })
    }

    /// The elements of the list under a key; none where there is no such key.
    fn each<T>(
        &self,
        key: &str,
        read: impl Fn(TomlNode<'a>) -> Result<T, PolicyMistake>,
    ) -> Result<Vec<T>, PolicyMistake> {
        let list = self.table.get(key).map(|node| node.list()).transpose()?;
        list.unwrap_or_default().into_iter().map(read).collect()
    }

    /// The texts under a key; `None` where there is no such key.
    fn some<T>(
        &self,
        key: &str,
        read: impl Fn(TomlNode<'a>, &'a str) -> Result<T, PolicyMistake>,
    ) -> Result<Option<Vec<T>>, PolicyMistake> {
        let Some(node) = self.table.get(key) else {
            return Ok(None);
        };
        let texts = node.strings()?;
        if texts.is_empty() && !["env", "secrets", "notify_urls"].contains(&key) {
            return Err(node.wrong("must not be empty; leave it out for any"));
        }
        let read = texts.into_iter().map(|(node, text)| read(node, text));
        read.collect::<Result<_, _>>().map(Some)
    }

    fn what(&self) -> Result<What, PolicyMistake> {
        let get = |key| self.table.get(key);
        let (program, sha256, args) = (get("program"), get("sha256"), get("args"));
        if let Some(shell) = get("shell") {
            let beside = [("program", &program), ("sha256", &sha256), ("args", &args)];
            return match beside.into_iter().find(|(_, node)| node.is_some()) {
                Some((key, _)) => Err(self.table.wrong(
                    key,
                    "a rule is for shell text or for a program with its words, not for both",
                )),
                None => shell_texts(&shell).map(What::Shell),
            };
        }
        let programs = match program {
            Some(node) if node.is_string() && node.string()? == "any" => None,
            Some(_) => self.some("program", |node, text| self.program(&node, text))?,
            None if self.effect == RuleEffect::Allow => {
                return Err(self.table.wrong(
                    "program",
                    "missing; an allow rule has an absolute path, a list of them, \"any\", or the key shell",
                ));
            }
            None if sha256.is_none() && args.is_none() => return Ok(What::Anything),
            None => None,
        };
        let args = match args {
            Some(node) => args_pattern(&node)?,
            None if self.effect == RuleEffect::Deny => ArgsPattern::any(),
            None => {
                return Err(self.table.wrong(
                    "args",
                    "missing; an allow rule has the words after the program: [] for none, [{ rest = \"any\" }] for any",
                ));
            }
        };
        Ok(What::Programs {
            programs,
            sha256: sha256
                .map(|node| digest(&node, node.string()?))
                .transpose()?,
            args,
        })
    }

    fn notify_urls(&self) -> Result<Option<UrlSet>, PolicyMistake> {
        match self.table.get("notify_urls") {
            Some(node) if node.is_string() && node.string()? == "any" => Ok(Some(UrlSet::Any)),
            _ => {
                let read = |node: TomlNode<'_>, text: &str| {
                    UrlPattern::read(text).map_err(|why| node.wrong(why))
                };
                Ok(self.some("notify_urls", read)?.map(UrlSet::Listed))
            }
        }
    }

    fn program(&self, node: &TomlNode<'_>, text: &str) -> Result<ProgramPattern, PolicyMistake> {
        let written = absolute(node, text)?;
        let real = (self.resolve)(&written);
        Ok(ProgramPattern { written, real })
    }

    fn directory(&self, node: &TomlNode<'_>, text: &str) -> Result<DirPattern, PolicyMistake> {
        let written = absolute(node, text)?;
        let real = (self.resolve)(&written);
        Ok(DirPattern { written, real })
    }

    fn bounds(&self) -> Result<BoundsMax, PolicyMistake> {
        let get = |key| self.table.get(key);
        if self.effect == RuleEffect::Deny {
            let bounds = ["timeout_s", "output_bytes", "priority"];
            if let Some(key) = bounds.into_iter().find(|key| get(key).is_some()) {
                return Err(self.table.wrong(
                    key,
                    "a bound is for allow rules: it says how much is allowed",
                ));
            }
        }
        let bytes = get("output_bytes").map(|node| match node.integer()? {
            bytes @ 1.. => Ok(bytes as u64),
            _ => Err(node.wrong("must be at least 1")),
        });
        Ok(BoundsMax {
            queues: self.some("queue", |_, text| Ok(text.to_owned()))?,
            priority: get("priority").map(|node| node.integer()).transpose()?,
            timeout_s: get("timeout_s").map(|node| node.positive()).transpose()?,
            output_bytes: bytes.transpose()?,
        })
    }
}

fn effect(node: &TomlNode<'_>) -> Result<RuleEffect, PolicyMistake> {
    let effects = [RuleEffect::Allow, RuleEffect::Deny];
    let text = node.string()?;
    let found = effects.into_iter().find(|effect| effect.name() == text);
    found.ok_or_else(|| node.wrong(format!("must be \"allow\" or \"deny\", and is {text:?}")))
}

fn who(node: &TomlNode<'_>, text: &str) -> Result<Who, PolicyMistake> {
    match text.strip_prefix("uid:") {
        None if text.is_empty() => {
            Err(node.wrong("must be the name of a token, or \"uid:NUMBER\""))
        }
        None => Ok(Who::Name(text.to_owned())),
        Some(uid) => uid.parse().map(Who::Uid).map_err(|_| {
            node.wrong(format!(
                "must be \"uid:NUMBER\" with a user's number, and is {text:?}"
            ))
        }),
    }
}

/// The whole name of a secret: a pattern would cover secrets that its author has not thought of.
fn secret(node: TomlNode<'_>, text: &str) -> Result<String, PolicyMistake> {
    let name = SecretName::read(text).map_err(|why| node.wrong(why))?;
    Ok(name.into())
}

fn pattern(node: TomlNode<'_>, text: &str) -> Result<WordPattern, PolicyMistake> {
    WordPattern::read(text).map_err(|why| node.wrong(why))
}

/// An absolute path without detours, as it is compared.
fn absolute(node: &TomlNode<'_>, text: &str) -> Result<PathBuf, PolicyMistake> {
    let path = Path::new(text);
    let plain: PathBuf = path.components().collect();
    let has_detour = text.split('/').any(|part| part == "..");
    match path.is_absolute() && !has_detour && plain.as_os_str() == path.as_os_str() {
        true => Ok(plain),
        false => Err(node.wrong(format!(
            "must be an absolute path without \".\", \"..\" and doubled or final slashes, and is {text:?}"
        ))),
    }
}

fn digest(node: &TomlNode<'_>, text: &str) -> Result<String, PolicyMistake> {
    let is_hex = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    match is_hex {
        true => Ok(text.to_ascii_lowercase()),
        false => Err(node.wrong("must be a SHA-256: 64 hexadecimal digits")),
    }
}

fn shell_texts(node: &TomlNode<'_>) -> Result<ShellTexts, PolicyMistake> {
    if node.is_string() && node.string()? == "any" {
        return Ok(ShellTexts::Any);
    }
    let texts = node.strings()?.into_iter();
    let digests = texts.map(|(node, text)| {
        digest(&node, text).map_err(|_| {
            node.wrong("must be \"any\", or the SHA-256 of the text: 64 hexadecimal digits")
        })
    });
    digests.collect::<Result<_, _>>().map(ShellTexts::Digests)
}

fn args_pattern(node: &TomlNode<'_>) -> Result<ArgsPattern, PolicyMistake> {
    let (mut each, mut rest) = (Vec::new(), None);
    for element in node.list()? {
        if rest.is_some() {
            return Err(element.wrong("follows a rest, which takes all further words"));
        }
        if element.is_string() {
            each.push(WordSet::Any(vec![WordPattern::Is(
                element.string()?.to_owned(),
            )]));
            continue;
        }
        let table = element.table(&["any", "not", "rest"])?;
        match (table.get("any"), table.get("not"), table.get("rest")) {
            (Some(any), None, None) => each.push(any_of(&any)?),
            (None, Some(not), None) => each.push(WordSet::Not(patterns(&not)?)),
            (None, None, Some(further)) => rest = Some(rest_of(&further)?),
            _ => {
                return Err(
                    element.wrong("must be a word, or a table with one of any, not and rest")
                );
            }
        }
    }
    Ok(ArgsPattern { each, rest })
}

/// `rest`: `"any"`, or a table with `any` or `not`.
fn rest_of(node: &TomlNode<'_>) -> Result<WordSet, PolicyMistake> {
    if node.is_string() {
        return match node.string()? {
            "any" => Ok(WordSet::All),
            other => Err(node.wrong(format!(
                "must be \"any\", or a table with any or not, and is {other:?}"
            ))),
        };
    }
    let table = node.table(&["any", "not"])?;
    match (table.get("any"), table.get("not")) {
        (Some(any), None) => any_of(&any),
        (None, Some(not)) => patterns(&not).map(WordSet::Not),
        _ => Err(node.wrong("must have any or not, and not both")),
    }
}

/// `any`: `true` for every word, or the list of them.
fn any_of(node: &TomlNode<'_>) -> Result<WordSet, PolicyMistake> {
    match node.boolean() {
        Ok(true) => Ok(WordSet::All),
        Ok(false) => Err(node.wrong("must be true, or a list of words")),
        Err(_) => patterns(node).map(WordSet::Any),
    }
}

fn patterns(node: &TomlNode<'_>) -> Result<Vec<WordPattern>, PolicyMistake> {
    let texts = node.strings()?;
    if texts.is_empty() {
        return Err(node.wrong("must have at least one word"));
    }
    texts
        .into_iter()
        .map(|(node, text)| pattern(node, text))
        .collect()
}
