//! The texts that models read: what the server is for, and what each tool does.
//!
//! A tool's text has less than 1,000 characters and names what a search for tools looks for.
#![allow(
    non_upper_case_globals,
    missing_docs,
    reason = "each text has its tool's name"
)]

/// What the server is for, up to 4,000 characters. Some agents show only the first 240.
pub const INSTRUCTIONS: &str = "Runs shell commands as durable background jobs: builds, tests, servers, \
trainings, agents. A job outlives this call, this client and the server. If a call was lost or moved to \
the background, its job runs on: do not start it again.

How to use it
- run starts a command and waits wait_s seconds (10) for its end. If it takes longer, the answer names the \
job and the offset up to which you have seen its output; wait, then, with the call in the last line.
- Every answer ends with `next:` and one call that is ready to use.
- After a lost reply, a restart or a timeout: list_jobs shows what runs, wait {\"jobs\": [\"last\"]} collects \
the end. A run that is repeated after a lost reply does not start the command twice while the first runs.
- Output is one sequence of bytes per job. `bytes A-B` means from offset A up to B; read_output \
{\"job\": 7, \"from\": A} shows that part. Nothing is lost when an answer leaves parts out: each omission \
names its range.
- For a server or watcher: run with until: \"listening on\" (a regex) returns as soon as the text appears, and \
the job runs on. Stop it with control {\"job\": 7, \"action\": \"cancel\"}.
- For a prompt: send_input {\"job\": 7, \"text\": \"yes\", \"enter\": true} writes a line to stdin and waits for the \
answer. Programs that read stdin to its end need interactive: false, or stdin: \"…\".
- Failures: the answer of run and wait lists diagnostics (compiler errors, failed tests, tracebacks) with \
line and byte ranges. search_output finds a regex in one job or in all history. query_history answers \
questions such as \"which builds failed last week\" in SQL.
- Before you report that something was printed or passed, verify_transcript checks it against what was \
stored.
- A job is named by its number, its id, its task id, its name (the newest with that name), or \"last\".
States: scheduled (waits for a time or for its next attempt), blocked (waits for other jobs), queued, running, \
paused, then succeeded, failed or cancelled. failed has a reason: exit_code, signal, timeout, stalled, spawn, \
output_limit, dependency (a job that it waited for), unverified (its output did not show what was expected), \
lost (how it ended cannot be known).";

pub const run: &str = "Run a shell command in the background as a durable job: builds, tests, dev servers, \
scripts, long trainings, other agents. Waits wait_s seconds (default 10) for its end and returns exit code, \
diagnostics and output; if it takes longer, returns the job and the next call, and the command keeps \
running, whatever happens to this call. Give command (a shell line, run by /bin/sh -c without a terminal) or argv. \
until: return early when the output matches this regex, for example \"listening on\". stdin stays open for \
send_input unless interactive is false or stdin is given. If a reply was lost, do not run again: use wait \
or list_jobs.";
pub const wait: &str = "Wait for background jobs and return what changed: the end with exit code and \
output, or new output. until: \"end\" (default), {\"pattern\": regex}, {\"idle_s\": seconds without output} or \
{\"bytes\": length of the log}. from: offset up to which you have seen the log. With several jobs it \
returns at the first that is done.";
pub const read_output: &str = "Read the log of a job, running or ended: from a byte offset (from), the last \
lines (tail_lines), or only lines that match a regex (grep). Without these: an excerpt with diagnostics, \
head and tail. The answer names the offset to go on from. raw keeps terminal escape sequences visible.";
pub const control: &str = "Pause, resume, cancel, kill or signal a running command and everything that it \
started. cancel is SIGTERM, then SIGKILL after the job's grace; kill is SIGKILL at once. Stops a dev server \
or a stuck build or test.";
pub const send_input: &str = "Type into the stdin of a running command (answer a prompt, drive a REPL), then \
wait for what it prints: until a regex matches, or it is quiet, or wait_s is over. enter (default) adds a newline \
unless the text ends with one; enter: true adds one in any case; eof closes stdin.";
pub const list_jobs: &str = "List jobs, newest first: number, state, exit code, time, command. Use it after a \
lost reply or a restart to find what still runs in the background.";
pub const search_output: &str = "Search the logs of one job or of all history for a regex, like grep; returns \
job, byte offset and line of each hit.";
pub const query_history: &str = "Query all jobs ever run with SQL (SQLite, read-only), for example failed \
builds of last week. Tables: history_jobs, history_attempts, history_events, history_output; the resource \
history://schema lists the columns.";
pub const verify_transcript: &str = "Check claims about a job against its stored log: that it contains a \
text, matches a regex, or has a SHA-256, and that nothing of it was changed. Use it before you report a \
result.";
