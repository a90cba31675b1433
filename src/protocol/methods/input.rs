//! `job.input`: bytes for the stdin of an interactive job, or its end.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Map, Value, json, value::RawValue};

use crate::{
    job::Input,
    protocol::{
        caller::Caller,
        jsonrpc::{envelope::to_raw, error::Refusal, params::Params},
    },
};

const KEYS: [&str; 5] = ["job", "data", "data_base64", "eof", "write_id"];

pub async fn execute(
    caller: &Caller,
    params: Map<String, Value>,
) -> Result<Box<RawValue>, Refusal> {
    let params = Params::new(&params, &KEYS)?;
    let job = params.job()?;
    let input = input(&params)?;
    let accepted = caller.executor().input(job, input).await?;
    Ok(to_raw(&json!({"accepted_bytes": accepted})))
}

fn input(params: &Params<'_>) -> Result<Input, Refusal> {
    let eof = params.flag("eof")?.unwrap_or(false);
    Ok(Input {
        data: data(params, eof)?,
        eof,
        write_id: write_id(params)?,
    })
}

fn data(params: &Params<'_>, eof: bool) -> Result<Vec<u8>, Refusal> {
    match (params.text("data")?, params.text("data_base64")?) {
        (Some(text), None) => Ok(text.as_bytes().to_vec()),
        (None, Some(text)) => STANDARD.decode(text).map_err(|error| {
            let message = format!("must be base64 with padding (RFC 4648, 4): {error}");
            params.wrong("data_base64", &message)
        }),
        (Some(_), Some(_)) => Err(params.wrong("data", "either data or data_base64, not both")),
        (None, None) if eof => Ok(Vec::new()),
        (None, None) => Err(params.wrong("data", "missing; give data, data_base64 or eof: true")),
    }
}

fn write_id(params: &Params<'_>) -> Result<Option<String>, Refusal> {
    let max = Input::WRITE_ID_BYTES_MAX;
    match params.text("write_id")? {
        Some(id) if id.is_empty() || id.len() > max => {
            Err(params.wrong("write_id", &format!("must have 1 to {max} bytes")))
        }
        id => Ok(id.map(str::to_owned)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: Value) -> Option<Input> {
        input(&Params::new(value.as_object()?, &KEYS).ok()?).ok()
    }

    #[test]
    fn bytes_come_as_text_or_base64_or_not_at_all_with_an_end() {
        let bytes = |data: &[u8], eof| {
            let data = data.to_vec();
            Some(Input {
                data,
                eof,
                write_id: None,
            })
        };
        assert_eq!(read(json!({"data": "é\n"})), bytes("é\n".as_bytes(), false));
        assert_eq!(read(json!({"data": ""})), bytes(b"", false));
        let binary = json!({"data_base64": "AP8=", "eof": true});
        assert_eq!(read(binary), bytes(b"\0\xff", true));
        assert_eq!(read(json!({"eof": true})), bytes(b"", true));
        let named = read(json!({"data": "x", "write_id": "w"})).expect("an input");
        assert_eq!(named.write_id.as_deref(), Some("w"));
    }

    #[test]
    fn wrong_inputs_are_refused() {
        for wrong in [
            json!({}),
            json!({"eof": false}),
            json!({"data": 1}),
            json!({"data": "x", "data_base64": "eA=="}),
            json!({"data_base64": "%%"}),
            json!({"data_base64": "eA"}),
            json!({"data": "x", "eof": "yes"}),
            json!({"data": "x", "write_id": ""}),
            json!({"data": "x", "write_id": 7}),
            json!({"data": "x", "write_id": "w".repeat(257)}),
            json!({"data": "x", "text": "y"}),
        ] {
            assert_eq!(read(wrong.clone()), None, "{wrong}");
        }
    }
}
