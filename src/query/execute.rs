//! Runs a user's statement and writes its rows as JSON, up to the limits of the reply.
//!
//! `connection`, `rules`, `confine` and `fence` limit what the statement may do.

use base64::{Engine, engine::general_purpose::STANDARD};
use rusqlite::{Connection, Error, ErrorCode, Statement, types::ValueRef};
use serde_json::value::RawValue;

use super::{
    connection::{self, VALUE_BYTES_MAX},
    fence,
    messages::{QueryParams, QueryRefusal, Question, Rows, to_sql},
};
use crate::{spool::Layout, store::LongPath, sys::lock};

/// Runs the statement of a question. All files that it needs are open before the statement is
/// compiled, so the system call filter is applied in between; if it cannot be, `missing` says why.
pub fn execute(
    layout: &Layout,
    question: &Question,
    missing: &mut Vec<String>,
) -> Result<Rows, QueryRefusal> {
    let database = LongPath::to(&layout.database())
        .map_err(|error| QueryRefusal::Internal(error.to_string()))?;
    let opened = connection::for_user(&database, layout, question.bounds.memory_bytes);
    let (conn, violation) = opened.map_err(|error| refusal(&error, question))?;
    missing.extend(fence::restrict_calls().err());
    let result = run(&conn, question);
    let denied = lock(&violation).take();
    match (result, denied) {
        (Err(_), Some(denied)) => Err(QueryRefusal::Forbidden {
            rule: denied.rule.to_owned(),
            message: denied.message,
        }),
        (result, _) => result,
    }
}

fn run(conn: &Connection, question: &Question) -> Result<Rows, QueryRefusal> {
    let mut statement = conn
        .prepare(&question.sql)
        .map_err(|error| refusal(&error, question))?;
    if statement.column_count() == 0 {
        // VACUUM INTO would get here, and an empty text.
        return Err(QueryRefusal::Invalid(
            "sql has no statement that returns rows: write one SELECT".to_owned(),
        ));
    }
    bind(&mut statement, &question.params)?;
    let bytes_max = usize::try_from(question.bytes_max).unwrap_or(usize::MAX);
    let (columns, names_bytes) = names(&statement, bytes_max / 2)?;
    let bytes_left = bytes_max.saturating_sub(names_bytes);
    let (rows, truncated) = collect(statement, bytes_left, question)?;
    Ok(Rows {
        columns,
        rows,
        truncated,
    })
}

fn bind(statement: &mut Statement<'_>, params: &QueryParams) -> Result<(), QueryRefusal> {
    let expected = statement.parameter_count();
    let given = match params {
        QueryParams::Listed(values) => values.len(),
        QueryParams::Named(values) => values.len(),
    };
    if given != expected {
        let message =
            format!("the statement has {expected} parameters, but params has {given} values");
        return Err(QueryRefusal::Invalid(message));
    }
    match params {
        QueryParams::Listed(values) => {
            for (at, value) in values.iter().enumerate() {
                bind_one(statement, at + 1, &format!("params[{at}]"), value)?;
            }
        }
        QueryParams::Named(values) => {
            for (name, value) in values {
                let found = [":", "@", "$"].into_iter().find_map(|prefix| {
                    let index = statement.parameter_index(&format!("{prefix}{name}"));
                    index.ok().flatten()
                });
                let index = found.ok_or_else(|| {
                    QueryRefusal::Invalid(format!("the statement has no parameter :{name}"))
                })?;
                bind_one(statement, index, &format!("params.{name}"), value)?;
            }
        }
    }
    Ok(())
}

fn bind_one(
    statement: &mut Statement<'_>,
    index: usize,
    name: &str,
    value: &serde_json::Value,
) -> Result<(), QueryRefusal> {
    let value = to_sql(value).map_err(|error| QueryRefusal::Invalid(format!("{name} {error}")))?;
    let bound = statement.raw_bind_parameter(index, value);
    bound.map_err(|error| QueryRefusal::Invalid(format!("{name}: {error}")))
}

/// The names of the columns, and how long they are as a JSON array: up to `bytes_max` bytes, so that there
/// is room for rows.
fn names(
    statement: &Statement<'_>,
    bytes_max: usize,
) -> Result<(Vec<String>, usize), QueryRefusal> {
    let (mut names, mut bytes) = (Vec::new(), "[]".len());
    for name in statement.column_names() {
        bytes += serde_json::json!(name).to_string().len() + ",".len();
        if bytes > bytes_max {
            let message = format!(
                "the names of the columns are longer than {bytes_max} bytes as JSON: give them \
                 shorter ones with AS, or select fewer columns"
            );
            return Err(QueryRefusal::limit("message_bytes_max", message));
        }
        names.push(name.to_owned());
    }
    Ok((names, bytes))
}

/// The rows as a JSON array, and whether there are more than fit.
fn collect(
    mut statement: Statement<'_>,
    bytes_max: usize,
    question: &Question,
) -> Result<(Box<RawValue>, bool), QueryRefusal> {
    let columns = statement.column_count();
    let mut rows = statement.raw_query();
    let (mut json, mut count, mut truncated) = (String::from("["), 0, false);
    while let Some(row) = rows.next().map_err(|error| refusal(&error, question))? {
        let before = json.len();
        if count > 0 {
            json.push(',');
        }
        if count < question.rows_max {
            json.push('[');
            for column in 0..columns {
                if column > 0 {
                    json.push(',');
                }
                let value = row
                    .get_ref(column)
                    .map_err(|error| refusal(&error, question))?;
                write(&mut json, value, bytes_max);
            }
            json.push(']');
        }
        if count >= question.rows_max || json.len() >= bytes_max {
            if count == 0 {
                return Err(QueryRefusal::limit(
                    "message_bytes_max",
                    format!(
                        "the first row is longer than {bytes_max} bytes as JSON: select less, such as \
                     substr(text, 1, 1000)"
                    ),
                ));
            }
            json.truncate(before);
            truncated = true;
            break;
        }
        count += 1;
    }
    json.push(']');
    let rows =
        RawValue::from_string(json).map_err(|error| QueryRefusal::Internal(error.to_string()))?;
    Ok((rows, truncated))
}

/// One value as JSON. A value that is longer than `bytes_max` is replaced by as many blanks: the row
/// is refused for its length anyway.
fn write(json: &mut String, value: ValueRef<'_>, bytes_max: usize) {
    let text = match value {
        ValueRef::Null => "null".to_owned(),
        ValueRef::Integer(number) => number.to_string(),
        // Infinities and NaN have no number in JSON and become null.
        ValueRef::Real(number) => serde_json::json!(number).to_string(),
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) if bytes.len() > bytes_max => {
            " ".repeat(bytes_max)
        }
        ValueRef::Text(bytes) => serde_json::json!(String::from_utf8_lossy(bytes)).to_string(),
        ValueRef::Blob(bytes) => format!("{{\"base64\":\"{}\"}}", STANDARD.encode(bytes)),
    };
    json.push_str(&text);
}

/// SQLite's error as a message for the user.
fn refusal(error: &Error, question: &Question) -> QueryRefusal {
    let memory = || {
        let bytes = question.bounds.memory_bytes;
        let message = format!("the query needs more than {bytes} bytes of memory: select less");
        QueryRefusal::limit("query_memory_bytes", message)
    };
    match error {
        Error::MultipleStatement => QueryRefusal::Invalid("sql must be one statement".to_owned()),
        Error::SqlInputError { msg, offset, .. } if *offset >= 0 => {
            QueryRefusal::Invalid(format!("{msg} (at byte {offset})"))
        }
        _ => match error.sqlite_error_code() {
            Some(ErrorCode::OutOfMemory) => memory(),
            Some(ErrorCode::TooBig) => QueryRefusal::limit(
                "query_value_bytes_max",
                format!(
                    "a value or the statement is too long: values have up to {VALUE_BYTES_MAX} bytes, \
                     a statement up to {}",
                    connection::SQL_BYTES_MAX
                ),
            ),
            Some(ErrorCode::DiskFull) => memory(),
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                QueryRefusal::Unavailable("the database is busy; try again".to_owned())
            }
            Some(
                ErrorCode::DatabaseCorrupt
                | ErrorCode::SystemIoFailure
                | ErrorCode::CannotOpen
                | ErrorCode::NotADatabase,
            ) => QueryRefusal::Internal(error.to_string()),
            _ => QueryRefusal::Invalid(error.to_string()),
        },
    }
}
