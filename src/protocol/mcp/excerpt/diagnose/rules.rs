//! How the lines begin that report an error, and which kind of lines follow them.
//!
//! Patterns see bytes: `.` is any byte, `\w` and `\d` are ASCII.

/// How much a diagnostic matters, most first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// An error of a known program, with its place where the program names one.
    Error,
    /// The name of a test or a step that failed.
    Failure,
    /// A line that has the words of an error.
    Mention,
    /// A warning.
    Warning,
    /// That something failed, without saying why: `could not compile`, `make: *** … Error 2`.
    Summary,
}

impl Severity {
    /// All, most important first.
    pub const ALL: [Self; 5] = [
        Self::Error,
        Self::Failure,
        Self::Mention,
        Self::Warning,
        Self::Summary,
    ];

    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Failure => "failure",
            Self::Mention => "possible error",
            Self::Warning => "warning",
            Self::Summary => "summary",
        }
    }
}

/// Which of the next lines belong to a diagnostic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Following {
    /// None.
    Nothing,
    /// Indented lines, source lines with a number and a bar, notes.
    Snippet,
    /// The next line, then indented ones.
    Statement,
    /// A blank line, then indented lines and numbered source lines.
    SpacedSnippet,
    /// All up to a blank line.
    Paragraph,
    /// Lines with a deeper indentation, blank ones between them.
    Deeper,
    /// A Python traceback: frames, the exception, and those that it was raised from.
    Traceback,
    /// Frames that begin with `at`, `from` or `Caused by:`.
    Frames,
    /// pytest's lines that begin with `E`, and the place after them.
    Assertion,
    /// The next lines of npm.
    SamePrefix,
    /// The next lines of Maven that go on with the same error.
    Maven,
    /// Gradle's explanation.
    Gradle,
    /// The goroutine that panicked.
    Goroutine,
}

/// How a line of a kind begins, or what it has in it.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) pattern: &'static str,
    /// `None`: the line reports nothing, whatever words it has.
    pub(super) severity: Option<Severity>,
    pub(super) following: Following,
}

pub(super) const fn rule(pattern: &'static str, severity: Severity, following: Following) -> Rule {
    Rule {
        pattern,
        severity: Some(severity),
        following,
    }
}

const fn harmless(pattern: &'static str) -> Rule {
    Rule {
        pattern,
        severity: None,
        following: Nothing,
    }
}

use Following::{
    Assertion, Deeper, Frames, Goroutine, Gradle, Maven, Nothing, Paragraph, SamePrefix, Snippet,
    SpacedSnippet, Statement, Traceback,
};
use Severity::{Error, Failure, Summary, Warning};

/// What a line begins with. The first rule that matches counts.
pub(super) const BEGINNINGS: &[Rule] = &[
    // Reports of what is done and of tests that passed: they name files, packages and tests.
    harmless(
        r"\s*(Compiling|Checking|Downloading|Downloaded|Fresh|Documenting|Installing|Installed|Adding|Updating|Locking|Removing|Unpacking|Setting up|Collecting|Requirement already satisfied:|Using cached|Selecting|Linking|Building|Generating|Copying|Creating|Running|Doc-tests|CC|CXX|LD|AR|INFO|DEBUG|TRACE|npm notice)\s",
    ),
    harmless(r"(\s*\S.* \.\.\. |\S+::.* )(ok|ignored|skipped|PASSED|SKIPPED|XFAIL)\b"),
    harmless(
        r"\s*(✓|✔|√|ok\s|PASS\b|--- (PASS|SKIP)|\[\s+(OK|RUN|PASSED)\s+\]|=== (RUN|PAUSE|CONT))",
    ),
    harmless(r"not ok .*# (TODO|SKIP)"),
    harmless(r"(\++|_{3,}) "),
    // Rust.
    rule(
        r"error(\[\w+\])?: (could not compile|aborting due to|test failed|\d+ targets? failed|build failed|\d+ (previous )?errors? )",
        Summary,
        Nothing,
    ),
    rule(r"error(\[[\w:-]+\])?: ", Error, Snippet),
    rule(
        r"warning: (`.*` \(.*\) generated|\d+ warnings? (emitted|generated))",
        Summary,
        Nothing,
    ),
    rule(r"warning(\[[\w:-]+\])?: ", Warning, Snippet),
    rule(r"thread '.*'.* panicked at", Error, Paragraph),
    rule(
        r"(fatal runtime error|internal compiler error): ",
        Error,
        Snippet,
    ),
    rule(r"test .* \.\.\. FAILED", Failure, Nothing),
    rule(r"(failures:|test result: FAILED)", Summary, Deeper),
    // C, C++ and all that reports as their compilers do: javac, swiftc, zig, ghc, nix.
    rule(
        r"\S+\.(java|kt|scala|groovy):\d+: error: ",
        Error,
        Statement,
    ),
    rule(
        r"\S+\.(java|kt|scala|groovy):\d+: warning: ",
        Warning,
        Statement,
    ),
    rule(
        r"[^\s:(][^:(]*:\d+:(\d+:)? (fatal |internal compiler )?[Ee]rror[: ]",
        Error,
        Snippet,
    ),
    rule(
        r"[^\s:(][^:(]*:\d+:(\d+:)? [Ww]arning[: ]",
        Warning,
        Snippet,
    ),
    harmless(r"[^\s:(][^:(]*:\d+:(\d+:)? note: "),
    rule(
        r"[^\s(][^(]*\(\d+(,\d+)*\) ?: (fatal )?error \w+: ",
        Error,
        Snippet,
    ),
    rule(
        r"[^\s(][^(]*\(\d+(,\d+)*\) ?: warning \w+: ",
        Warning,
        Snippet,
    ),
    rule(
        r".*(undefined reference to|multiple definition of|undefined symbol:)",
        Error,
        Snippet,
    ),
    rule(
        r"(collect2: error|clang\S*: error: linker command failed)",
        Summary,
        Nothing,
    ),
    harmless(r"(\S*/)?ld(\.\w+)?: .*: in function "),
    rule(r"(\S*/)?ld(\.\w+)?: warning", Warning, Nothing),
    rule(r"(\S*/)?(ld(\.\w+)?|lld|gold): ", Error, Snippet),
    rule(r"Undefined symbols for architecture", Error, Snippet),
    rule(
        r"(cc1\S*|gcc|g\+\+|clang\S*|as|cc): (fatal )?error: ",
        Error,
        Snippet,
    ),
    rule(r".*: Failure$", Error, Paragraph),
    rule(r"\[\s+FAILED\s+\] ", Failure, Nothing),
    rule(r"==\d+==\s*ERROR: ", Error, Frames),
    // Go.
    rule(r"(vet: )?[\w./-]+\.go:\d+(:\d+)?: ", Error, Nothing),
    rule(r"\s*--- FAIL: ", Failure, Deeper),
    rule(r"(panic: |fatal error: |SIGSEGV: )", Error, Goroutine),
    rule(r"FAIL(\t\S.*)?$", Summary, Nothing),
    // TypeScript and JavaScript.
    rule(r"[^\s:][^:]*:\d+:\d+ - error ", Error, SpacedSnippet),
    rule(r"[^\s:][^:]*:\d+:\d+ - warning ", Warning, SpacedSnippet),
    rule(r"\s+\d+:\d+\s+error\s+", Error, Nothing),
    rule(r"\s+\d+:\d+\s+warning\s+", Warning, Nothing),
    rule(
        r"(✖|Found) [1-9]\d* (problem|error|warning)s?\b",
        Summary,
        Nothing,
    ),
    rule(r"\s*● ", Error, Deeper),
    rule(r"\s*(FAIL|❯ FAIL)\s+\S", Failure, Nothing),
    rule(r"\s*(✕|✗|✖|✘|×) ", Failure, Deeper),
    rule(r"\s*not ok ", Failure, Deeper),
    rule(
        r"(Test Suites|Tests|Test Files):? .*\d+ failed",
        Summary,
        Nothing,
    ),
    rule(r"npm (ERR!|error)( |$)", Error, SamePrefix),
    rule(r"npm (WARN|warn) ", Warning, SamePrefix),
    rule(r"(✘ )?\[ERROR\] Could not resolve", Error, SpacedSnippet),
    rule(
        r"(Module not found|Module build failed|ERROR in) ",
        Error,
        Paragraph,
    ),
    rule(r"\s*(ERR_PNPM_\w+|ELIFECYCLE)\b", Error, Nothing),
    // Python.
    rule(
        r"[\s+|]*(Exception Group )?Traceback \(most recent call last\):",
        Error,
        Traceback,
    ),
    rule(r#"  File ".*", line \d+"#, Error, Traceback),
    rule(r"E   +\S", Error, Assertion),
    rule(r"(FAILED|ERROR) \S+(::| - |$)", Failure, Nothing),
    rule(r"(FAIL|ERROR): \S+ \(.*\)$", Failure, Nothing),
    rule(r"\S.* \.\.\. (FAIL|ERROR)$", Failure, Nothing),
    rule(r"FAILED \((failures|errors)=", Summary, Nothing),
    rule(r"=+ .*\b\d+ (failed|errors?)\b.*=+$", Summary, Nothing),
    rule(r"\w*Warning: ", Warning, Nothing),
    rule(r".*:\d+: \w*Warning: ", Warning, Snippet),
    // Java.
    rule(r#"Exception in thread ""#, Error, Frames),
    rule(r"Caused by: ", Error, Frames),
    harmless(r"\[ERROR\] (-> |To see|Re-run|For more|\[Help|\s*$)"),
    rule(r"\[ERROR\] (Tests run:|BUILD)", Summary, Nothing),
    rule(r"\[ERROR\] +\S", Error, Maven),
    rule(r"\[WARNING\] ", Warning, Nothing),
    rule(r"FAILURE: ", Error, Gradle),
    rule(r"e: (file:|/)", Error, Nothing),
    rule(r"> Task \S+ FAILED", Failure, Nothing),
    rule(r"(\[INFO\] )?BUILD (FAILED|FAILURE)", Summary, Nothing),
    // make, ninja, CMake.
    rule(r"\S*make(\[\d+\])?: \*\*\* No rule", Error, Nothing),
    rule(
        r"\S*make(\[\d+\])?: (\*\*\* |Target .* not remade)",
        Summary,
        Nothing,
    ),
    rule(r"ninja: (error|fatal): ", Error, Nothing),
    rule(r"ninja: build stopped", Summary, Nothing),
    rule(r"FAILED: ", Failure, Nothing),
    rule(r"CMake Error", Error, Deeper),
    rule(r"CMake (Deprecation |)Warning", Warning, Deeper),
    // Others.
    rule(r"rspec \S+:\d+ ", Failure, Nothing),
    rule(r"(PHP )?(Fatal|Parse) error: ", Error, Frames),
    rule(r"\*\* \(\w", Error, Deeper),
    rule(r"(fatal|FATAL): ", Error, Nothing),
    rule(
        r"([\w$]+[.:]+)*[A-Z][\w$]*(Error|Exception)( \[\w+\])?(:|$)",
        Error,
        Frames,
    ),
    rule(
        r"(AssertionError|KeyboardInterrupt|StopIteration)\b",
        Error,
        Frames,
    ),
    rule(r"(ERROR|Error): ", Error, Frames),
    // What npm and yarn are about to run.
    harmless(r"(>|\$) "),
];
