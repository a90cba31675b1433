//! What a user's statement may do: read the views, and call functions that only compute.
//!
//! SQLite asks for each part of a statement while it compiles it (sqlite3_set_authorizer). `confine`
//! limits time and memory.

use rusqlite::hooks::{AuthAction, AuthContext};

/// The views. Tables are read only through them.
pub const VIEWS: [&str; 4] = [
    "history_jobs",
    "history_attempts",
    "history_events",
    "history_output",
];

/// Table-valued functions that read only their arguments.
const TABLE_FUNCTIONS: [&str; 2] = ["json_each", "json_tree"];

/// The columns that the views read. None of them holds a secret, so a statement that gets past
/// [`TrustedViews`] gains nothing.
const COLUMNS: [(&str, &[&str]); 6] = [
    (
        "jobs",
        &[
            "number",
            "id",
            "state",
            "reason",
            "exit_code",
            "signal",
            "queue",
            "priority",
            "name",
            "labels",
            "interactive",
            "on_lost",
            "spec",
            "environment",
            "stdin_length",
            "idempotency_key",
            "retry_of",
            "attempt",
            "attempts",
            "submitted_at",
            "started_at",
            "finished_at",
            "output_bytes",
            "dropped_bytes",
            "dropped_lines",
            "output_sha256",
            "spawn_error",
            "stop",
            "leaked",
            "survivors",
            "survivors_unknown",
            "user_us",
            "system_us",
            "max_rss_bytes",
            "ready_at",
            "exclusive",
            "failed_dependency",
            "unmet_expectations",
            "schedule",
            "schedule_at",
        ],
    ),
    // The digest is only used for joins; it is made with a key (`store/sqlite/keys.rs`).
    ("environments", &["hash", "names"]),
    ("signal_names", &["number", "name"]),
    (
        "attempts",
        &[
            "job",
            "attempt",
            "state",
            "stop",
            "exit",
            "pid",
            "shim",
            "shim_version",
            "boot_id",
            "start_offset",
            "end_offset",
            "claimed_at",
            "started_at",
            "ended_at",
        ],
    ),
    (
        "events",
        &[
            "id",
            "job",
            "attempt",
            "from_state",
            "to_state",
            "reason",
            "actor",
            "at",
        ],
    ),
    (
        "output_chunks",
        &["job", "attempt", "offset", "length", "stream", "at", "data"],
    ),
];

/// Tables with one row for each row of a view: how many there are is no secret.
const COUNTED: [&str; 3] = ["jobs", "attempts", "events"];

/// All tables of the database.
const TABLES: [&str; 24] = [
    "nodes",
    "queues",
    "environments",
    "jobs",
    "attempts",
    "events",
    "output_chunks",
    "segments",
    "inputs",
    "signal_names",
    "audit",
    "audit_base",
    "audit_keys",
    "digest_key",
    "shim_key",
    "mcp_sessions",
    "mcp_answered",
    "job_labels",
    "dependencies",
    "retention_rules",
    "removals",
    "notices",
    "schedules",
    "tokens",
];

/// Functions that only compute, and operators that SQLite treats as functions.
pub const FUNCTIONS: [&str; 97] = [
    "->",
    "->>",
    "abs",
    "ago",
    "avg",
    "ceil",
    "ceiling",
    "char",
    "coalesce",
    "concat",
    "concat_ws",
    "count",
    "cume_dist",
    "date",
    "datetime",
    "dense_rank",
    "first_value",
    "floor",
    "format",
    "glob",
    "group_concat",
    "hex",
    "if",
    "ifnull",
    "iif",
    "instr",
    "json",
    "json_array",
    "json_array_length",
    "json_error_position",
    "json_extract",
    "json_group_array",
    "json_group_object",
    "json_insert",
    "json_object",
    "json_patch",
    "json_pretty",
    "json_quote",
    "json_remove",
    "json_replace",
    "json_set",
    "json_type",
    "json_valid",
    "julianday",
    "lag",
    "last_value",
    "lead",
    "length",
    "like",
    "likelihood",
    "likely",
    "ln",
    "log",
    "log10",
    "log2",
    "lower",
    "ltrim",
    "max",
    "min",
    "mod",
    "nth_value",
    "ntile",
    "nullif",
    "octet_length",
    "percent_rank",
    "pow",
    "power",
    "printf",
    "quote",
    "random",
    "randomblob",
    "rank",
    "regexp",
    "replace",
    "round",
    "row_number",
    "rtrim",
    "sign",
    "sqrt",
    "strftime",
    "string_agg",
    "substr",
    "substring",
    "sum",
    "time",
    "timediff",
    "total",
    "trim",
    "trunc",
    "typeof",
    "unhex",
    "unicode",
    "unixepoch",
    "unlikely",
    "upper",
    "zeroblob",
    "sqlite_version",
];

/// Why a part of a statement is not allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denied {
    /// The rule's name, for programs: `read_only`, `views_only` or `functions`.
    pub rule: &'static str,
    /// What was refused, and what is allowed instead.
    pub message: String,
}

/// The random names of the views that may read tables, which only this connection has. SQLite names
/// the view that reads a column, and a user can give a subquery or a CTE any name that the user knows:
/// these are unknown to every user (`views`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustedViews(pub Vec<String>);

impl TrustedViews {
    fn has(&self, accessor: Option<&str>) -> bool {
        accessor.is_some_and(|name| self.0.iter().any(|own| own == name))
    }
}

/// Whether a statement may do this.
pub fn judge(context: &AuthContext<'_>, trusted: &TrustedViews) -> Result<(), Denied> {
    match context.action {
        AuthAction::Select | AuthAction::Recursive => Ok(()),
        AuthAction::Read {
            table_name,
            column_name,
        } => read(table_name, column_name, trusted, context.accessor),
        AuthAction::Function { function_name } => call(function_name),
        ref other => Err(Denied {
            rule: "read_only",
            message: format!(
                "{} is not allowed; write one SELECT over {}",
                statement(other),
                VIEWS.join(", ")
            ),
        }),
    }
}

fn read(
    table: &str,
    column: &str,
    trusted: &TrustedViews,
    accessor: Option<&str>,
) -> Result<(), Denied> {
    let is = |name: &&str| table.eq_ignore_ascii_case(name);
    // Reading a view is allowed: what the view itself reads is checked in its turn.
    if VIEWS.iter().any(&is) || TABLE_FUNCTIONS.iter().any(&is) || trusted.has(Some(table)) {
        return Ok(());
    }
    let is_trusted = trusted.has(accessor);
    let known = COLUMNS.iter().find(|(name, _)| is(name));
    // An empty column name: the statement counts rows and reads no column.
    let open = known.is_some_and(|(_, columns)| column.is_empty() || columns.contains(&column));
    // For a user's own subqueries, SQLite asks only this.
    let own = column.is_empty() && !is_ours(table);
    // A statement that only counts a view's rows reads no column, and SQLite names the table alone.
    let counted = column.is_empty() && COUNTED.iter().any(&is);
    if own || counted || (is_trusted && open) {
        return Ok(());
    }
    let views = VIEWS.join(", ");
    Err(Denied {
        rule: "views_only",
        message: format!("{table} cannot be read; read {views}, json_each or json_tree"),
    })
}

/// Whether a name is that of a table of the database, or of one that SQLite provides.
fn is_ours(table: &str) -> bool {
    let name = table.to_ascii_lowercase();
    let provided = ["sqlite_", "pragma_", "dbstat", "fts", "rtree", "_sqlx"];
    TABLES.contains(&name.as_str()) || provided.iter().any(|prefix| name.starts_with(prefix))
}

fn call(function: &str) -> Result<(), Denied> {
    let allowed = FUNCTIONS
        .iter()
        .any(|name| function.eq_ignore_ascii_case(name));
    allowed.then_some(()).ok_or_else(|| Denied {
        rule: "functions",
        message: format!(
            "the function {function} is not allowed; docs/sql.md lists those that are"
        ),
    })
}

/// The refused action in the words of a message.
fn statement(action: &AuthAction<'_>) -> &'static str {
    match action {
        AuthAction::Attach { .. } | AuthAction::Detach { .. } => "ATTACH or DETACH",
        AuthAction::Pragma { .. } => "PRAGMA",
        AuthAction::Transaction { .. } | AuthAction::Savepoint { .. } => "a transaction",
        AuthAction::Insert { .. } | AuthAction::Update { .. } | AuthAction::Delete { .. } => {
            "a change of data"
        }
        AuthAction::Reindex { .. } | AuthAction::Analyze { .. } => "REINDEX or ANALYZE",
        _ => "a change of the schema",
    }
}

#[cfg(test)]
mod tests {
    use super::{super::testing::DataDir, *};

    fn rule(action: AuthAction<'_>, accessor: Option<&str>) -> Option<&'static str> {
        let context = AuthContext {
            action,
            database_name: None,
            accessor,
        };
        let trusted = TrustedViews(vec!["secret-1".to_owned()]);
        judge(&context, &trusted).err().map(|denied| denied.rule)
    }

    fn read_of<'a>(table_name: &'a str, column_name: &'a str) -> AuthAction<'a> {
        AuthAction::Read {
            table_name,
            column_name,
        }
    }

    #[test]
    fn views_are_read_and_tables_only_on_their_behalf() {
        let trusted = Some("secret-1");
        assert_eq!(rule(read_of("history_jobs", "id"), None), None);
        assert_eq!(rule(read_of("jobs", "id"), trusted), None);
        assert_eq!(rule(read_of("jobs", ""), trusted), None);
        let denied = Some("views_only");
        assert_eq!(rule(read_of("jobs", "id"), None), denied);
        for table in ["jobs", "attempts", "events"] {
            assert_eq!(rule(read_of(table, ""), None), None, "only counted");
        }
        assert_eq!(rule(read_of("environments", ""), None), denied);
        assert_eq!(rule(read_of("a_subquery", ""), None), None);
        for name in ["mine", "history_jobs", "secret", "secret-2"] {
            assert_eq!(rule(read_of("jobs", "id"), Some(name)), denied, "{name}");
            assert_eq!(rule(read_of("environments", "hash"), Some(name)), denied);
        }
        for (table, column) in [
            ("environments", "env"),
            ("jobs", "stdin"),
            ("jobs", "fingerprint"),
            ("attempts", "hash_state"),
            ("inputs", "data"),
            ("digest_key", "key"),
            ("shim_key", "key"),
            ("sqlite_master", "sql"),
            ("dbstat", ""),
            ("pragma_table_info", "name"),
        ] {
            assert_eq!(
                rule(read_of(table, column), trusted),
                denied,
                "{table}.{column}"
            );
        }
    }

    /// A table that is missing here could be counted, and a column that is missing could not be read.
    #[test]
    fn every_table_of_the_database_is_known_and_every_column_that_the_views_read() {
        let directory = DataDir::new();
        let conn = rusqlite::Connection::open(directory.layout().database()).expect("opens");
        let list = |sql: &str| -> Vec<String> {
            let mut statement = conn.prepare(sql).expect("compiles");
            let rows = statement.query_map([], |row| row.get(0)).expect("runs");
            rows.map(|row| row.expect("a name")).collect()
        };
        for table in list("SELECT name FROM sqlite_schema WHERE type = 'table'") {
            assert!(is_ours(&table), "{table} is missing in TABLES");
        }
        for (table, columns) in COLUMNS {
            let real = list(&format!("SELECT name FROM pragma_table_xinfo('{table}')"));
            for column in columns {
                assert!(real.iter().any(|name| name == column), "{table}.{column}");
            }
        }
        let conn = directory.for_user();
        for view in VIEWS {
            for sql in [
                format!("SELECT * FROM {view}"),
                format!("SELECT count(*) FROM {view}"),
            ] {
                conn.prepare(&sql)
                    .unwrap_or_else(|error| panic!("{sql}: {error}"));
            }
        }
    }

    #[test]
    fn only_functions_that_compute_are_called() {
        let call = |function_name| rule(AuthAction::Function { function_name }, None);
        assert_eq!((call("COUNT"), call("ago")), (None, None));
        for name in [
            "load_extension",
            "fts3_tokenizer",
            "readfile",
            "edit",
            "sqlite_log",
        ] {
            assert_eq!(call(name), Some("functions"), "{name}");
        }
    }

    #[test]
    fn nothing_is_changed_attached_or_set() {
        for action in [
            AuthAction::Attach { filename: "/tmp/x" },
            AuthAction::Pragma {
                pragma_name: "journal_mode",
                pragma_value: None,
            },
            AuthAction::Insert { table_name: "jobs" },
            AuthAction::CreateTempTable { table_name: "t" },
            AuthAction::DropView {
                view_name: "history_jobs",
            },
            AuthAction::Analyze { table_name: "jobs" },
        ] {
            assert_eq!(rule(action, Some("secret-1")), Some("read_only"));
        }
    }
}
