//! JSON-RPC 2.0 for every interface that uses it: strict JSON, requests, parameters, errors.

pub(super) mod envelope;
pub(super) mod error;
pub(super) mod params;
mod strict_json;
