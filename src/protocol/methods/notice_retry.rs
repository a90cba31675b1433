//! `notice.retry`: makes a notice due now, with all the attempts that a new one has.

use serde_json::{Map, Value, json, value::RawValue};

use crate::{
    executor::NoticeRef,
    protocol::{
        caller::Caller,
        jsonrpc::{envelope::to_raw, error::Refusal, params::Params},
    },
};

fn notice(params: &Params<'_>) -> Result<NoticeRef, Refusal> {
    let wrong = || params.wrong("notice", "must be a notice's number or its id");
    match params.get("notice") {
        Some(Value::Number(number)) => number.as_i64().map(NoticeRef::Number),
        Some(Value::String(text)) => Some(match text.parse() {
            Ok(number) => NoticeRef::Number(number),
            Err(_) => NoticeRef::Id(text.clone()),
        }),
        _ => None,
    }
    .ok_or_else(wrong)
}

pub async fn execute(
    caller: &Caller,
    params: Map<String, Value>,
) -> Result<Box<RawValue>, Refusal> {
    let notice = notice(&Params::new(&params, &["notice"])?)?;
    caller.executor().retry_notice(notice).await?;
    Ok(to_raw(&json!({})))
}
