# The commands of this project. `scripts/test` installs what `just check` needs and calls it.

set shell := ["bash", "-euo", "pipefail", "-c"]

# sqlx checks queries against the committed `.sqlx`, never against a database.
export SQLX_OFFLINE := "true"

python := if path_exists(".venv/bin/python") == "true" { ".venv/bin/python" } else { "python3" }

# List the commands.
default:
    @just --list

# Everything that CI checks.
check: fmt queries lint doc test conformance

# Checks the formatting with rustfmt.
fmt:
    cargo fmt --check

# Checks that the committed `.sqlx` is what the queries need.
queries:
    scripts/prepare-queries --check

# Clippy; a warning is an error.
lint:
    cargo clippy --locked --all-targets -- -D warnings

# Builds the documentation; a broken link is an error.
doc:
    RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --quiet

# Unit tests, tests of the real binary over its public interfaces, and a short seeded run with kills.
# Most of them wait for processes and disks, so there are two for each core.
test:
    RUST_TEST_THREADS=${RUST_TEST_THREADS:-$((2 * $(nproc)))} cargo test --locked --no-fail-fast

# With an example, cargo selects the same features of the dependencies as for the tests. A plain
# `cargo build` selects fewer: it would compile many of them, and this crate, a second time.
# The debug binary and the fixtures, as the tests have them.
build:
    cargo build --locked --bin cc-executor --examples

# The unit tests of one module: `just unit shim::attempt`. After a change in one file, under a minute.
unit module="":
    cargo test --locked --lib -- {{ module }}

# One floor of tests (store, shim, recovery, server, cli, tidy), or those of it with a word in their
# name: `just floor server input`.
floor name *words:
    cargo test --locked --test {{ name }} -- {{ words }}

# One client is written from the protocol's page alone, one is the example; Gemini CLI follows a script.
# Python clients and Gemini CLI against the debug binary; asciinema's own parser on exported recordings.
conformance: mcp
    {{ python }} tests/python/conformance.py target/debug/cc-executor
    {{ python }} tests/python/conversation.py target/debug/cc-executor
    {{ python }} tests/python/casts.py target/debug/cc-executor
    {{ python }} tests/agents/run.py target/debug/cc-executor --install --only gemini --quick

# `just agents --only codex --scenario build_fails`. Agents that cannot be installed are skipped.
# Claude Code, Codex, Gemini CLI and opencode with a scripted model, without a network.
agents *args: build
    {{ python }} tests/agents/run.py target/debug/cc-executor --install --may-skip {{ args }}

# MCP with other people's clients and the protocol's conformance suite: `just mcp tasks`.
mcp *parts: build
    {{ python }} tests/mcp/run.py target/debug/cc-executor target/debug/examples/mcp_conformance {{ parts }}

# With `--binary FILE` the servers are that one, instead of the one that is built here.
# A longer seeded run with kills (docs/chaos.md): `just chaos --seed 42 --minutes 10`.
chaos *args:
    #!/usr/bin/env bash
    set -euo pipefail
    set -- {{ args }}
    minutes=5
    while [ $# -gt 0 ]; do
        case "$1" in
            --seed) export CC_CHAOS_SEED="${2:?--seed needs a number}" ;;
            --minutes) minutes="${2:?--minutes needs a number}" ;;
            --binary) CC_CHAOS_BINARY=$(realpath "${2:?--binary needs a file}"); export CC_CHAOS_BINARY ;;
            *) echo "just chaos [--seed N] [--minutes M] [--binary FILE], not $1" >&2; exit 64 ;;
        esac
        shift 2
    done
    export CC_CHAOS_SECONDS=$((minutes * 60))
    cargo test --locked --release --test chaos -- --nocapture nothing_is_lost

# `just sweep sample 42` repeats the sample of seed 42; `just sweep blows` and `just sweep errors`
# run all points of one kind.
# Kills server and shims at every call that leaves something behind; the tables of docs/sweep.md.
sweep points="all" seed="":
    CC_SWEEP={{ points }} {{ if seed == "" { "" } else { "CC_SWEEP_SEED=" + seed } }} \
        cargo test --locked --test sweep -- --nocapture

# Every fuzz target with CASES cases; a failure prints the smallest input that fails.
fuzz cases="20000":
    PROPTEST_CASES={{ cases }} cargo test --locked --lib --test server fuzz_ -- --nocapture

# The figures of docs/benchmarks.md, each beside its yardstick.
bench:
    cargo bench --locked --bench figures

# Honest tails beside a thousand hostile connections; the table of docs/hostile.md.
bench-hostile:
    cargo bench --locked --bench hostile

# Builds the container image without a container engine, and tests the server in it; needs root.
image:
    scripts/image

# The systemd unit under a real systemd: no restart touches a running job; needs root.
service: build
    scripts/service

# Measures how soon a killed server is ready again, with many running and many final jobs.
bench-recovery binary="target/release/cc-executor":
    {{ python }} benches/recovery.py {{ binary }}

# Checks that running jobs survive restarts under limits of 40 to 200 open files (docs/chaos.md).
restarts count="1000" binary="target/release/cc-executor":
    {{ python }} benches/restarts.py {{ binary }} --restarts {{ count }}

# Measures what a backup costs a busy server.
bench-backup binary="target/release/cc-executor":
    {{ python }} benches/backup.py {{ binary }}

# Measures how long the write-ahead log becomes beside clients with hostile queries.
bench-wal minutes="5" binary="target/release/cc-executor" *options:
    {{ python }} benches/wal.py {{ binary }} --minutes {{ minutes }} {{ options }}

# Measures submits while half of 100,000 jobs are deleted, and that the space is returned.
bench-prune binary="target/release/cc-executor" *options:
    {{ python }} benches/prune.py {{ binary }} {{ options }}

# Checks 100,000 jobs of every kind, and measures submits while half of them are deleted.
bench-mix binary="target/release/cc-executor" *options:
    {{ python }} benches/mix.py {{ binary }} {{ options }}

# Measures what overwriting deleted rows and confining queries cost, beside another binary.
bench-forgetting other binary="target/release/cc-executor":
    {{ python }} benches/forgetting.py {{ binary }} {{ other }}

# Measures queries over 200,000 jobs, and what they cost a live tail.
bench-history binary="target/release/cc-executor":
    {{ python }} -W ignore benches/history.py {{ binary }}

# Measures how old the lines of a live tail are, beside another binary, and with masked output.
bench-tails other binary="target/release/cc-executor" *options:
    {{ python }} benches/tails.py {{ other }} {{ binary }} --secret {{ options }}

# Measures a directory of a million jobs beside an empty one; needs 12 GB of disk.
bench-growth binary="target/release/cc-executor" *options:
    {{ python }} -W ignore benches/growth.py {{ binary }} {{ options }}

# Writes `.sqlx` anew after a query or a migration has changed.
prepare:
    scripts/prepare-queries
