//! Finds rules that allow more than they seem to: programs that run whatever their words, their input or
//! their directory say.

use super::{
    names::is_start_up,
    rule::{Policy, PolicyRule, RuleEffect, ShellTexts, What},
    words::{ArgsPattern, WordPattern, WordSet},
};

/// A rule that allows more than it seems to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LintFinding {
    /// The rule.
    pub rule: String,
    /// Its line.
    pub line: usize,
    /// What it allows, and what to do.
    pub message: String,
}

/// Programs that run what they are told. A star at the end stands for a version.
const RUNS_ANYTHING: &[(&str, &[&str])] = &[
    (
        "a shell",
        &[
            "sh", "bash", "dash", "zsh", "ksh*", "mksh", "ash", "fish", "csh", "tcsh", "busybox",
            "toybox", "pwsh",
        ],
    ),
    (
        "a program that runs another one",
        &[
            "env",
            "xargs",
            "find",
            "parallel",
            "nice",
            "ionice",
            "nohup",
            "setsid",
            "timeout",
            "time",
            "stdbuf",
            "script",
            "watch",
            "flock",
            "chroot",
            "unshare",
            "nsenter",
            "setarch",
            "linux64",
            "taskset",
            "chrt",
            "strace",
            "ltrace",
            "gdb",
            "lldb",
            "perf",
            "valgrind",
            "ld.so*",
            "ld-linux*",
            "sudo",
            "su",
            "doas",
            "pkexec",
            "runuser",
            "setpriv",
            "capsh",
            "start-stop-daemon",
            "systemd-run",
            "at",
            "batch",
            "crontab",
            "expect",
            "screen",
            "tmux",
            "entr",
            "run-parts",
            "xvfb-run",
            "dbus-run-session",
            "faketime",
            "firejail",
            "bwrap",
            "proot",
            "fakeroot",
        ],
    ),
    (
        "an interpreter",
        &[
            "python*",
            "pypy*",
            "perl*",
            "ruby*",
            "irb",
            "node",
            "nodejs",
            "deno",
            "bun",
            "lua*",
            "php*",
            "tclsh*",
            "wish*",
            "R",
            "Rscript",
            "julia",
            "guile*",
            "erl",
            "elixir",
            "iex",
            "java",
            "jshell",
            "groovy",
            "scala",
            "kotlin",
            "awk",
            "gawk",
            "mawk",
            "nawk",
            "sed",
            "m4",
            "bc",
            "dc",
            "gnuplot",
            "octave",
            "sqlite3",
            "psql",
            "mysql",
            "osascript",
        ],
    ),
    (
        "a program that runs what a file of its directory says",
        &[
            "make",
            "gmake",
            "ninja",
            "cmake",
            "meson",
            "just",
            "rake",
            "gradle",
            "gradlew",
            "mvn",
            "ant",
            "npm",
            "npx",
            "yarn",
            "pnpm",
            "pip*",
            "pipx",
            "uv",
            "poetry",
            "tox",
            "nox",
            "pytest*",
            "cargo",
            "rustc",
            "go",
            "gcc*",
            "g++*",
            "cc",
            "c++",
            "clang*",
            "bazel",
            "docker",
            "podman",
            "kubectl",
            "helm",
            "ansible*",
            "terraform",
            "vagrant",
            "nix*",
            "git",
        ],
    ),
    (
        "an editor or a pager, which has a command for a shell",
        &[
            "vi", "vim*", "nvim", "view", "ex", "ed", "nano", "emacs*", "less", "more", "most",
            "man", "pg",
        ],
    ),
    (
        "a program that runs commands elsewhere, or with an option here",
        &[
            "ssh", "scp", "sftp", "rsync", "telnet", "nc", "ncat", "socat", "curl", "wget", "tar",
            "zip", "unzip", "7z", "rpm", "dpkg", "apt*", "yum", "dnf", "openssl",
        ],
    ),
];

fn kind_of(name: &str) -> Option<&'static str> {
    let is = |known: &&&str| match known.strip_suffix('*') {
        Some(begin) => name.strip_prefix(begin).is_some_and(|rest| {
            rest.chars()
                .all(|c| c.is_ascii_digit() || ".-+".contains(c))
        }),
        None => name == **known,
    };
    let kind = RUNS_ANYTHING
        .iter()
        .find(|(_, names)| names.iter().any(|known| is(&known)));
    kind.map(|(kind, _)| *kind)
}

impl Policy {
    /// Rules that allow more than they seem to, in the order of the file.
    pub fn lint(&self) -> Vec<LintFinding> {
        let mut findings = Vec::new();
        if self.default == RuleEffect::Allow {
            findings.push(LintFinding {
                rule: Self::DEFAULT_RULE.to_owned(),
                line: 1,
                message: "what no rule denies is allowed: a list of what is forbidden is never complete, because a \
                          program can be copied, linked and called by another; use default = \"deny\""
                    .to_owned(),
            });
        }
        for rule in self
            .rules
            .iter()
            .filter(|rule| rule.effect == RuleEffect::Allow)
        {
            let messages = [about_command(rule), about_env(rule), about_examples(rule)];
            findings.extend(messages.into_iter().flatten().map(|message| LintFinding {
                rule: rule.id.clone(),
                line: rule.line,
                message,
            }));
        }
        findings
    }
}

fn about_command(rule: &PolicyRule) -> Option<String> {
    let (programs, args) = match &rule.what {
        What::Shell(ShellTexts::Any) => {
            return Some("it allows every shell text, so everything; list the SHA-256 of texts, or allow programs".to_owned());
        }
        What::Shell(ShellTexts::Digests(_)) => return None,
        What::Anything | What::Programs { programs: None, .. } => {
            return Some("it allows every program; name programs by their paths".to_owned());
        }
        What::Programs {
            programs: Some(programs),
            args,
            ..
        } => (programs, args),
    };
    programs.iter().find_map(|program| {
        let name = |path: &std::path::Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
        let names = [name(&program.written), name(&program.real)];
        let kind = names.iter().flatten().find_map(|name| kind_of(name))?;
        let written = program.written.display();
        match freedom(args) {
            Freedom::Any => Some(format!(
                "it allows {written} with any words, and that is {kind}; write out the words that are needed"
            )),
            Freedom::Options => Some(format!(
                "it allows {written} with words that may be options, and that is {kind}; refuse them with \
                 {{ not = [\"-*\"] }}, or write out the words that are needed"
            )),
            // With words that are written out it does what these say, and so does its directory.
            Freedom::Arguments | Freedom::None => match rule.cwd {
                None if kind.contains("directory") => Some(format!(
                    "it allows {written} in every directory, and that is {kind}; name directories in cwd"
                )),
                _ => None,
            },
        }
    })
}

/// How free the words of a rule are, at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Freedom {
    /// All are written out.
    None,
    /// Some are free, and cannot be options.
    Arguments,
    /// Some may be options.
    Options,
    /// All are free.
    Any,
}

fn freedom(args: &ArgsPattern) -> Freedom {
    if args.each.is_empty() && args.rest == Some(WordSet::All) {
        return Freedom::Any;
    }
    let sets = args.each.iter().chain(&args.rest);
    sets.map(freedom_of).max().unwrap_or(Freedom::None)
}

fn freedom_of(set: &WordSet) -> Freedom {
    let refuses_options = |patterns: &[WordPattern]| {
        patterns.iter().any(|pattern| match pattern {
            WordPattern::Begins(begin) => begin.is_empty() || begin == "-",
            WordPattern::Is(_) => false,
        })
    };
    match set {
        WordSet::All => Freedom::Options,
        WordSet::Not(patterns) if refuses_options(patterns) => Freedom::Arguments,
        WordSet::Not(_) => Freedom::Options,
        WordSet::Any(patterns) => {
            let of_pattern = |pattern: &WordPattern| match pattern {
                WordPattern::Is(_) => Freedom::None,
                WordPattern::Begins(begin) if begin.is_empty() || begin.starts_with('-') => {
                    Freedom::Options
                }
                WordPattern::Begins(_) => Freedom::Arguments,
            };
            patterns
                .iter()
                .map(of_pattern)
                .max()
                .unwrap_or(Freedom::None)
        }
    }
}

fn about_env(rule: &PolicyRule) -> Option<String> {
    let listed = rule.env.as_ref()?;
    listed.0.iter().find_map(|pattern| match pattern {
        WordPattern::Is(name) if is_start_up(name) => Some(format!(
            "it allows the variable {name}, which can change what is run; leave it out of env"
        )),
        // Up to a part of a name: the variables of one program, or of one purpose.
        WordPattern::Begins(begin) if !begin.ends_with('_') => Some(format!(
            "it allows the variables {begin}*, which are those of many programs; the list of variables that can \
             change what is run is never complete, so write names out, or a beginning that ends with _"
        )),
        _ => None,
    })
}

fn about_examples(rule: &PolicyRule) -> Option<String> {
    (rule.matches.is_empty() || rule.not_matches.is_empty()).then(|| {
        "it has no examples of both kinds; match and not_match show, each time it is loaded, that it still means \
         what it did"
            .to_owned()
    })
}

#[cfg(test)]
mod tests {
    use crate::policy::testing::policy;

    fn findings(rule: &str) -> Vec<String> {
        let text = format!("[[rule]]\nid = \"r\"\ndecision = \"allow\"\n{rule}\nmatch = []\n");
        let findings = policy(&text)
            .lint()
            .into_iter()
            .map(|finding| finding.message);
        findings
            .filter(|message| !message.starts_with("it has no examples"))
            .collect()
    }

    #[test]
    fn rules_that_allow_anything_are_named() {
        for name in [
            "sh",
            "bash",
            "dash",
            "zsh",
            "busybox",
            "env",
            "xargs",
            "find",
            "nice",
            "timeout",
            "sudo",
            "python3",
            "python3.12",
            "perl",
            "node",
            "awk",
            "make",
            "cargo",
            "git",
            "vim",
            "vim.basic",
            "less",
            "ssh",
            "rsync",
            "tar",
            "systemd-run",
        ] {
            let found = findings(&format!(
                "program = \"/usr/bin/{name}\"\nargs = [{{ rest = \"any\" }}]"
            ));
            let expected = name != "vim.basic";
            assert_eq!(!found.is_empty(), expected, "{name}: {found:?}");
        }
        for rule in [
            "shell = \"any\"",
            "program = \"any\"\nargs = []",
            "program = \"/bin/ls\"\nargs = []\nenv = [\"LD_PRELOAD\"]",
            "program = \"/bin/ls\"\nargs = []\nenv = [\"*\"]",
            "program = \"/bin/ls\"\nargs = []\nenv = [\"LANG\", \"PY*\"]",
        ] {
            assert!(!findings(rule).is_empty(), "{rule}");
        }
        let free = findings(
            "program = \"/usr/bin/git\"\ncwd = \"/srv\"\nargs = [\"log\", { rest = \"any\" }]",
        );
        assert!(free[0].contains("may be options"), "{free:?}");
        let everywhere = findings("program = \"/usr/bin/make\"\nargs = [\"test\"]");
        assert!(everywhere[0].contains("every directory"), "{everywhere:?}");
    }

    #[test]
    fn a_narrow_rule_has_no_finding() {
        for rule in [
            "program = \"/usr/bin/git\"\ncwd = \"/srv\"\nargs = [\"log\", { rest = { not = [\"-*\"] } }]",
            "program = \"/usr/bin/make\"\ncwd = \"/srv\"\nargs = [\"test\"]",
            "program = \"/bin/ls\"\nargs = [{ rest = \"any\" }]",
            "program = \"/bin/ls\"\nargs = []\nenv = [\"LANG\", \"LC_*\"]",
            "shell = \"0000000000000000000000000000000000000000000000000000000000000000\"",
        ] {
            assert_eq!(findings(rule), [""; 0], "{rule}");
        }
        assert_eq!(policy("default = \"allow\"").lint().len(), 1);
    }
}
