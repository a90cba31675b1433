-- The ledger: what is kept about jobs, their attempts and their output.
--
-- Times are microseconds since 1970 (`…_at`), sizes are bytes, offsets are positions in a job's
-- output. States, reasons and streams are spelled as on the wire; the CHECKs carry them.

-- 'CCEX': tells our files from everybody else's.
PRAGMA application_id = 1128482136;

-- Who runs jobs. One row today; a job and an attempt name their node from the first day on.
CREATE TABLE nodes (
    id       INTEGER PRIMARY KEY,
    -- Random id of this data directory; new at its creation and at each restore of a backup.
    instance TEXT NOT NULL,
    hostname TEXT NOT NULL,
    -- Of the newest server start.
    boot_id  TEXT,
    version  TEXT NOT NULL,
    -- Counts the server starts.
    epoch    INTEGER NOT NULL DEFAULT 0 CHECK (epoch >= 0)
) STRICT;

CREATE TABLE queues (
    name        TEXT PRIMARY KEY NOT NULL CHECK (name <> ''),
    concurrency INTEGER NOT NULL CHECK (concurrency BETWEEN 1 AND 1024),
    -- A paused queue starts nothing new.
    paused      INTEGER NOT NULL DEFAULT 0 CHECK (paused IN (0, 1)),
    weight      INTEGER NOT NULL DEFAULT 1 CHECK (weight BETWEEN 1 AND 1000),
    -- NewJob keys that a job of this queue gets where it names none.
    defaults    TEXT NOT NULL DEFAULT '{}' CHECK (json_valid(defaults))
) STRICT, WITHOUT ROWID;

-- At its first opening `default` is raised to the number of cores.
INSERT INTO queues (name, concurrency) VALUES ('default', 4), ('interactive', 64);

-- Environments, stored once per content. In no view, list or export: they hold people's secrets.
CREATE TABLE environments (
    -- SHA-256 of `env`.
    hash  BLOB PRIMARY KEY NOT NULL CHECK (length(hash) = 32),
    -- The names alone, sorted: what a view may show.
    names TEXT NOT NULL CHECK (json_valid(names)),
    env   TEXT NOT NULL CHECK (json_valid(env))
) STRICT;

CREATE TABLE jobs (
    -- Small, ascending in the order of submission, never reused.
    number           INTEGER PRIMARY KEY AUTOINCREMENT,
    id               TEXT NOT NULL UNIQUE CHECK (length(id) = 36),
    node             INTEGER NOT NULL DEFAULT 1 REFERENCES nodes (id),
    state            TEXT NOT NULL CHECK (state IN ('scheduled', 'blocked', 'queued', 'running',
                         'paused', 'succeeded', 'failed', 'cancelled')),
    reason           TEXT CHECK (reason IN ('exit_code', 'signal', 'timeout', 'stalled', 'spawn',
                         'output_limit', 'dependency', 'unverified', 'lost')),

    -- What was submitted.
    -- It existed at the submission; once all its jobs are final it may be deleted.
    queue            TEXT NOT NULL,
    priority         INTEGER NOT NULL,
    name             TEXT,
    labels           TEXT NOT NULL CHECK (json_valid(labels)),
    argv             TEXT CHECK (json_valid(argv)),
    shell            TEXT,
    cwd              TEXT NOT NULL,
    environment      BLOB NOT NULL REFERENCES environments (hash),
    umask            INTEGER NOT NULL CHECK (umask BETWEEN 0 AND 511),
    stdin            TEXT,
    -- Stdin stays open for inputs.
    interactive      INTEGER NOT NULL CHECK (interactive IN (0, 1)),
    timeout_s        REAL,
    stall_timeout_s  REAL,
    grace_s          REAL NOT NULL,
    leftover         TEXT NOT NULL CHECK (leftover IN ('kill', 'keep')),
    -- What the loss of the submitting connection means.
    on_disconnect    TEXT NOT NULL CHECK (on_disconnect IN ('continue', 'cancel')),
    disconnect_delay_s REAL NOT NULL,
    output_bytes_max INTEGER,
    when_full        TEXT NOT NULL CHECK (when_full IN ('fail', 'drop_oldest', 'drop_newest')),
    idempotency_key  TEXT,
    fingerprint      BLOB NOT NULL CHECK (length(fingerprint) = 32),
    -- Id of the job that this one tries again.
    retry_of         TEXT CHECK (length(retry_of) = 36),

    -- What became of it. `attempt` is the current or last one and fences stale writers; void
    -- attempts count in it, but not in `attempts`.
    attempt          INTEGER NOT NULL DEFAULT 0 CHECK (attempt >= 0),
    attempts         INTEGER NOT NULL DEFAULT 0 CHECK (attempts BETWEEN 0 AND attempt),
    submitted_at     INTEGER NOT NULL,
    started_at       INTEGER,
    finished_at      INTEGER,
    exit_code        INTEGER,
    signal           INTEGER,
    -- Up to where output has rows (of chunks, gaps or segments).
    output_bytes     INTEGER NOT NULL DEFAULT 0 CHECK (output_bytes >= 0),
    -- What `when_full` has dropped; part of `output_bytes`.
    dropped_bytes    INTEGER NOT NULL DEFAULT 0 CHECK (dropped_bytes BETWEEN 0 AND output_bytes),
    dropped_lines    INTEGER NOT NULL DEFAULT 0 CHECK (dropped_lines >= 0),
    output_sha256    TEXT CHECK (length(output_sha256) = 64),
    spawn_error      TEXT CHECK (json_valid(spawn_error)),
    stop             TEXT CHECK (json_valid(stop)),
    leaked           INTEGER NOT NULL DEFAULT 0,
    survivors        TEXT NOT NULL DEFAULT '[]' CHECK (json_valid(survivors)),
    user_us          INTEGER NOT NULL DEFAULT 0,
    system_us        INTEGER NOT NULL DEFAULT 0,
    max_rss_bytes    INTEGER NOT NULL DEFAULT 0,

    CHECK ((argv IS NULL) <> (shell IS NULL)),
    CHECK ((state = 'failed') = (reason IS NOT NULL)),
    CHECK ((state IN ('succeeded', 'failed', 'cancelled')) = (finished_at IS NOT NULL)),
    CHECK (exit_code IS NULL OR signal IS NULL),
    CHECK (state NOT IN ('running', 'paused') OR attempt > 0)
) STRICT;

-- The claim takes from its left end.
CREATE INDEX jobs_queued ON jobs (queue, priority DESC, number) WHERE state = 'queued';
-- Slots in use.
CREATE INDEX jobs_active ON jobs (queue, state) WHERE state IN ('running', 'paused');
CREATE INDEX jobs_state ON jobs (state, number);
-- Whether an environment is still used, when a job is deleted.
CREATE INDEX jobs_environment ON jobs (environment);
CREATE UNIQUE INDEX jobs_idempotency ON jobs (idempotency_key) WHERE idempotency_key IS NOT NULL;

CREATE TABLE attempts (
    job           INTEGER NOT NULL REFERENCES jobs (number) ON DELETE CASCADE,
    attempt       INTEGER NOT NULL CHECK (attempt >= 1),
    node          INTEGER NOT NULL DEFAULT 1 REFERENCES nodes (id),
    state         TEXT NOT NULL CHECK (state IN ('claimed', 'started', 'ended', 'void', 'lost')),
    -- Named before the shim is told to run it.
    shim          TEXT NOT NULL,
    shim_version  TEXT NOT NULL,
    boot_id       TEXT NOT NULL,
    instance      TEXT NOT NULL,
    pid           INTEGER,
    start_ticks   INTEGER,
    start_offset  INTEGER NOT NULL CHECK (start_offset >= 0),
    end_offset    INTEGER CHECK (end_offset >= start_offset),
    claimed_at    INTEGER NOT NULL,
    started_at    INTEGER,
    ended_at      INTEGER,
    -- Wishes: levels, sent again after every adoption.
    stop          TEXT CHECK (json_valid(stop)),
    pause         INTEGER NOT NULL DEFAULT 0 CHECK (pause IN (0, 1)),
    pause_by      TEXT,
    pause_at      INTEGER,
    -- The shim's exit facts; NULL where nobody can know.
    exit          TEXT CHECK (json_valid(exit)),
    -- The digest at `end_offset`: of the job's output so far, and its state for the next attempt.
    output_sha256 TEXT CHECK (length(output_sha256) = 64),
    hash_state    BLOB,
    PRIMARY KEY (job, attempt),
    CHECK ((state IN ('claimed', 'started')) = (ended_at IS NULL))
) STRICT, WITHOUT ROWID;

-- A shim runs one attempt at a time.
CREATE UNIQUE INDEX attempts_shim ON attempts (shim) WHERE state IN ('claimed', 'started');

-- Every state change: the audit trail and the event feed. Outlives its job.
CREATE TABLE events (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    job        INTEGER NOT NULL,
    attempt    INTEGER,
    from_state TEXT CHECK (from_state IN ('scheduled', 'blocked', 'queued', 'running', 'paused',
                   'succeeded', 'failed', 'cancelled')),
    to_state   TEXT NOT NULL CHECK (to_state IN ('scheduled', 'blocked', 'queued', 'running',
                   'paused', 'succeeded', 'failed', 'cancelled')),
    reason     TEXT CHECK (reason IN ('exit_code', 'signal', 'timeout', 'stalled', 'spawn',
                   'output_limit', 'dependency', 'unverified', 'lost')),
    actor      TEXT NOT NULL,
    at         INTEGER NOT NULL
) STRICT;

CREATE INDEX events_job ON events (job, id);

-- Small outputs, and holes: bytes of one stream of one attempt, or the reason why there are none.
CREATE TABLE output_chunks (
    job     INTEGER NOT NULL REFERENCES jobs (number) ON DELETE CASCADE,
    offset  INTEGER NOT NULL CHECK (offset >= 0),
    length  INTEGER NOT NULL CHECK (length > 0),
    attempt INTEGER NOT NULL,
    stream  TEXT CHECK (stream IN ('stdout', 'stderr', 'pty')),
    at      INTEGER,
    gap     TEXT CHECK (gap IN ('power_loss', 'drop_oldest', 'drop_newest', 'retention',
                'deleted')),
    data    BLOB,
    PRIMARY KEY (job, offset),
    CHECK ((data IS NULL) <> (gap IS NULL)),
    CHECK ((data IS NULL) = (stream IS NULL) AND (data IS NULL) = (at IS NULL)),
    CHECK (data IS NULL OR length(data) = length)
) STRICT, WITHOUT ROWID;

-- Complete segment files of the spool. One that ended empty shares its offset with the next
-- attempt's first.
CREATE TABLE segments (
    job          INTEGER NOT NULL REFERENCES jobs (number) ON DELETE CASCADE,
    first_offset INTEGER NOT NULL CHECK (first_offset >= 0),
    attempt      INTEGER NOT NULL,
    end_offset   INTEGER NOT NULL CHECK (end_offset >= first_offset),
    -- Length of the file.
    file_bytes   INTEGER NOT NULL CHECK (file_bytes >= 0),
    -- The digest's state at `end_offset`.
    hash_state   BLOB NOT NULL,
    PRIMARY KEY (job, first_offset, attempt)
) STRICT, WITHOUT ROWID;

-- Inputs that came before the start: taken over by the attempt, gone when the job is final.
CREATE TABLE inputs (
    job      INTEGER NOT NULL REFERENCES jobs (number) ON DELETE CASCADE,
    -- In the order in which they came, from 1.
    seq      INTEGER NOT NULL CHECK (seq >= 1),
    -- A repeat is not taken twice.
    write_id TEXT,
    data     BLOB NOT NULL,
    -- Stdin is closed behind it.
    eof      INTEGER NOT NULL CHECK (eof IN (0, 1)),
    PRIMARY KEY (job, seq)
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX inputs_write_id ON inputs (job, write_id) WHERE write_id IS NOT NULL;
