//! Decides about a job: any deny rule wins, then the first allow rule, then the default. Pure.

use super::{
    digests::FileDigest,
    names::NameSet,
    predicate::{Predicate, PredicateFailure},
    rule::{Policy, PolicyRule, RuleEffect, What, Who, sha256_hex},
    subject::Subject,
    urls::{JudgedUrl, UrlSet},
    words::shown,
};

/// The decision about a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Whether the job is taken.
    pub effect: RuleEffect,
    /// The rule that decided, or `default`.
    pub rule: String,
    /// Whether that rule lets a script see its path.
    pub by_path: bool,
    /// The digest that the program's file must have.
    pub sha256: Option<String>,
    /// Why, a sentence for people.
    pub why: String,
}

/// What a rule makes of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleReport {
    /// The rule.
    pub rule: String,
    /// What it decides about jobs that it matches.
    pub effect: RuleEffect,
    /// The first predicate that the job does not meet, and how; `None`: the rule matches.
    pub failure: Option<PredicateFailure>,
}

impl Policy {
    /// The decision about a job.
    pub fn judge(&self, subject: &Subject<'_>) -> Verdict {
        let matching = |effect| {
            let mut rules = self.rules.iter().filter(move |rule| rule.effect == effect);
            rules.find(|rule| rule.first_failure(subject, |_| true).is_none())
        };
        let deciding = matching(RuleEffect::Deny).or_else(|| matching(RuleEffect::Allow));
        match deciding {
            Some(rule) => Verdict {
                effect: rule.effect,
                rule: rule.id.clone(),
                by_path: rule.by_path,
                sha256: rule
                    .sha256()
                    .filter(|_| rule.effect == RuleEffect::Allow)
                    .cloned(),
                why: match rule.effect {
                    RuleEffect::Allow => format!("the rule {:?} allows it", rule.id),
                    RuleEffect::Deny => format!("the rule {:?} denies it", rule.id),
                },
            },
            None => Verdict {
                effect: self.default,
                rule: Self::DEFAULT_RULE.to_owned(),
                by_path: false,
                sha256: None,
                why: self.why_no_rule(subject),
            },
        }
    }

    /// The decision about a notice by itself: the URL counts for every job of the requester and the queue for
    /// which a rule lists it.
    pub fn judge_url(&self, judged: &JudgedUrl) -> Verdict {
        let lists = |rule: &&PolicyRule| {
            let listed = rule.notify_urls.as_ref();
            let mut who = rule.who.iter().flatten();
            (rule.who.is_none() || who.any(|who| who.is(&judged.requester)))
                && rule.bounds.queue_failure(&judged.queue).is_none()
                && listed.is_some_and(|listed| listed.has(&judged.url))
        };
        let of = |effect| self.rules.iter().filter(move |rule| rule.effect == effect);
        // What else a deny rule asks for was judged with the job.
        let mut denying = of(RuleEffect::Deny).filter(|rule| rule.is_about_urls_alone());
        let deciding = denying
            .find(lists)
            .or_else(|| of(RuleEffect::Allow).find(lists));
        let (effect, rule) = match deciding {
            Some(rule) => (rule.effect, rule.id.as_str()),
            None => (self.default, Self::DEFAULT_RULE),
        };
        let url = shown(&judged.url);
        Verdict {
            effect,
            rule: rule.to_owned(),
            by_path: false,
            sha256: None,
            why: match (deciding, effect) {
                (Some(_), RuleEffect::Deny) => format!("the rule {rule:?} denies notices to {url}"),
                (None, RuleEffect::Deny) => format!("no rule allows notices to {url}"),
                (_, RuleEffect::Allow) => format!("notices to {url} are allowed"),
            },
        }
    }

    /// Whether the decision depends on the digest of the program's file: all else of a rule that has one fits.
    pub fn wants_digest(&self, subject: &Subject<'_>) -> bool {
        let mut rules = self.rules.iter().filter(|rule| rule.sha256().is_some());
        subject.program.real.is_some()
            && rules.any(|rule| {
                let failure = rule.first_failure(subject, |one| one != Predicate::Sha256);
                failure.is_none()
            })
    }

    /// What each rule makes of a job, in the order of the file.
    pub fn explain(&self, subject: &Subject<'_>) -> Vec<RuleReport> {
        let report = |rule: &PolicyRule| RuleReport {
            rule: rule.id.clone(),
            effect: rule.effect,
            failure: rule.first_failure(subject, |_| true),
        };
        self.rules.iter().map(report).collect()
    }

    /// Names the allow rule that came nearest.
    fn why_no_rule(&self, subject: &Subject<'_>) -> String {
        if self.default == RuleEffect::Allow {
            return "no rule denies it".to_owned();
        }
        let allowing = self
            .rules
            .iter()
            .filter(|rule| rule.effect == RuleEffect::Allow);
        let failures = allowing.filter_map(|rule| {
            let failure = rule.first_failure(subject, |_| true)?;
            Some((rule, failure))
        });
        // Of several the first.
        let nearest =
            failures.reduce(
                |nearest, next| match next.1.predicate > nearest.1.predicate {
                    true => next,
                    false => nearest,
                },
            );
        match nearest {
            Some((rule, failure)) if failure.predicate > Predicate::Program => format!(
                "no rule allows it; the nearest is {:?}, whose {} does not fit: {}",
                rule.id,
                failure.predicate.name(),
                failure.message
            ),
            _ => match subject.shell() {
                Some(_) => "no rule allows this shell text; shell text is not read for what it would do, so give the \
                            program and its words as argv"
                    .to_owned(),
                None => format!("no rule allows the program {}", subject.program.text()),
            },
        }
    }
}

impl PolicyRule {
    /// The first predicate that a job does not meet; only those are examined for which `examined` says
    /// so.
    pub fn first_failure(
        &self,
        subject: &Subject<'_>,
        examined: impl Fn(Predicate) -> bool,
    ) -> Option<PredicateFailure> {
        let mut predicates = Predicate::ALL.into_iter();
        predicates.find_map(|predicate| {
            if !examined(predicate) {
                return None;
            }
            let message = self.failure(predicate, subject)?;
            Some(PredicateFailure { predicate, message })
        })
    }

    fn failure(&self, predicate: Predicate, subject: &Subject<'_>) -> Option<String> {
        let bounds = &subject.job.bounds;
        match predicate {
            Predicate::Who => self.who_failure(subject),
            Predicate::Shell => self.shell_failure(subject),
            Predicate::Program => self.program_failure(subject),
            Predicate::Sha256 => self.sha256_failure(subject),
            Predicate::Args => self.args_failure(subject),
            Predicate::Cwd => self.cwd_failure(subject),
            Predicate::Env => self.env_failure(subject),
            Predicate::Secrets => self.secrets_failure(subject),
            Predicate::NotifyUrls => self.urls_failure(subject),
            Predicate::Queue => self.bounds.queue_failure(&bounds.queue),
            Predicate::Priority => self.bounds.priority_failure(bounds.priority),
            Predicate::TimeoutS => self.bounds.timeout_failure(bounds.timeout_s),
            Predicate::OutputBytes => self.bounds.output_failure(bounds.output_bytes),
        }
    }

    /// Whether it asks for nothing but who, the queue, and URLs of notices.
    fn is_about_urls_alone(&self) -> bool {
        self.what == What::Anything
            && (&self.cwd, &self.env, &self.secrets) == (&None, &None, &None)
    }

    /// The digest that it asks for.
    pub fn sha256(&self) -> Option<&String> {
        match &self.what {
            What::Programs { sha256, .. } => sha256.as_ref(),
            What::Anything | What::Shell(_) => None,
        }
    }

    fn who_failure(&self, subject: &Subject<'_>) -> Option<String> {
        let who = self.who.as_ref()?;
        let requester = &subject.job.requester;
        if who.iter().any(|who| who.is(requester)) {
            return None;
        }
        let uid = requester.uid.map(|uid| format!(" (uid {uid})"));
        let known: Vec<String> = who.iter().map(Who::text).collect();
        Some(format!(
            "it is asked for by {:?}{}; the rule is for {}",
            requester.name,
            uid.unwrap_or_default(),
            known.join(", ")
        ))
    }

    fn shell_failure(&self, subject: &Subject<'_>) -> Option<String> {
        match (&self.what, subject.shell()) {
            (What::Anything, _) | (What::Programs { .. }, None) => None,
            (What::Shell(texts), Some(text)) => (!texts.has(text)).then(|| {
                format!(
                    "the text has the SHA-256 {}, which the rule does not list",
                    sha256_hex(text.as_bytes())
                )
            }),
            (What::Shell(_), None) => Some("the job is no shell text".to_owned()),
            // A shell that is denied as a program is denied with a text, too.
            (What::Programs { .. }, Some(_)) if self.effect == RuleEffect::Deny => None,
            (What::Programs { .. }, Some(_)) => Some(
                "the job is shell text, and the rule is for a program with its words".to_owned(),
            ),
        }
    }

    fn program_failure(&self, subject: &Subject<'_>) -> Option<String> {
        let What::Programs {
            programs: Some(programs),
            ..
        } = &self.what
        else {
            return None;
        };
        let located = &subject.program;
        let (found, real) = (located.found.as_deref(), located.real.as_deref());
        if self.effect == RuleEffect::Deny {
            let touched = programs.iter().any(|program| program.touches(located));
            return (!touched).then(|| format!("the program is {}", located.text()));
        }
        let Some((found, real)) = found.zip(real) else {
            return Some(format!(
                "the program {} was not found",
                shown(&located.word)
            ));
        };
        if located.is_relative {
            return Some(format!(
                "the program is {}, which is found relative to a directory",
                located.text()
            ));
        }
        let Some(program) = programs.iter().find(|program| program.is_called(found)) else {
            return Some(format!("the program is {}", located.text()));
        };
        (program.real != real).then(|| {
            format!(
                "{} leads to {} now, and led to {} when the policy was loaded; load it again if that is right",
                found.display(),
                real.display(),
                program.real.display()
            )
        })
    }

    fn sha256_failure(&self, subject: &Subject<'_>) -> Option<String> {
        let expected = self.sha256()?;
        match &subject.sha256 {
            FileDigest::Is(found) if found == expected => None,
            FileDigest::Is(found) => Some(format!("the program's file has the SHA-256 {found}")),
            // It may be the one that is denied.
            _ if self.effect == RuleEffect::Deny && subject.program.real.is_some() => None,
            FileDigest::Unknown(why) => Some(format!("the program's file {why}")),
            FileDigest::NotYet => Some("the program's file was not read".to_owned()),
        }
    }

    fn args_failure(&self, subject: &Subject<'_>) -> Option<String> {
        let What::Programs { args, .. } = &self.what else {
            return None;
        };
        match subject.shell() {
            Some(text) => args.first_failure(&["-c".to_owned(), text.to_owned()]),
            None => args.first_failure(subject.args()),
        }
    }

    fn cwd_failure(&self, subject: &Subject<'_>) -> Option<String> {
        let dirs = self.cwd.as_ref()?;
        let fits = match self.effect {
            RuleEffect::Allow => dirs.iter().any(|dir| dir.holds(subject)),
            RuleEffect::Deny => dirs.iter().any(|dir| dir.touches(subject)),
        };
        let known = || {
            let paths: Vec<String> = dirs
                .iter()
                .map(|dir| dir.written.display().to_string())
                .collect();
            paths.join(", ")
        };
        (!fits).then(|| match &subject.real_cwd {
            None => format!("there is no directory {}", shown(&subject.job.cwd)),
            Some(real) => format!(
                "the directory is {}; it must be below {}",
                real.display(),
                known()
            ),
        })
    }

    fn secrets_failure(&self, subject: &Subject<'_>) -> Option<String> {
        let listed = self.secrets.as_deref().unwrap_or_default();
        let mut names = subject.job.secrets.iter();
        match self.effect {
            RuleEffect::Deny if self.secrets.is_none() => None,
            RuleEffect::Deny => {
                let refers = names.any(|name| listed.contains(name));
                (!refers).then(|| "the job refers to none of its secrets".to_owned())
            }
            RuleEffect::Allow => {
                let other = names.find(|name| !listed.contains(name))?;
                Some(format!(
                    "the job refers to the secret {other}; {}",
                    match listed.is_empty() {
                        true => "the rule allows none".to_owned(),
                        false => format!("it may refer to {}", listed.join(", ")),
                    }
                ))
            }
        }
    }

    fn urls_failure(&self, subject: &Subject<'_>) -> Option<String> {
        let (listed, urls) = (self.notify_urls.as_ref(), &subject.job.urls);
        match (self.effect, listed) {
            (RuleEffect::Allow, listed) => UrlSet::first_failure(listed, urls),
            (RuleEffect::Deny, None) => None,
            (RuleEffect::Deny, Some(listed)) => {
                let is_told = urls.iter().any(|url| listed.has(url));
                (!is_told).then(|| "no notice is sent to one of its notify_urls".to_owned())
            }
        }
    }

    fn env_failure(&self, subject: &Subject<'_>) -> Option<String> {
        let mut names = subject.job.names.iter().map(String::as_str);
        match (self.effect, &self.env) {
            (RuleEffect::Deny, None) => None,
            (RuleEffect::Deny, Some(env)) => {
                let sets = names.any(|name| env.names(name));
                (!sets).then(|| "the job sets none of its variables".to_owned())
            }
            (RuleEffect::Allow, env) => {
                let none = NameSet::default();
                env.as_ref().unwrap_or(&none).first_failure(names)
            }
        }
    }
}
