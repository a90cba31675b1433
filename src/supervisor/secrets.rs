//! Resolves the secrets of a claimed job, each time that an attempt starts.

use std::sync::Arc;

use crate::{
    job::{SpawnError, secret::references},
    secrets::SecretSources,
    spool::RunSpec,
    store::ClaimedJob,
    sys::threads::blocking,
};

/// Puts the values of the job's secrets into what its shim is given, or the refusal of the attempt.
pub(super) async fn resolve(spec: &mut RunSpec, sources: &Arc<SecretSources>, claim: &ClaimedJob) {
    if spec.refusal.is_some() || references(&claim.job.env).next().is_none() {
        return;
    }
    let (sources, env) = (Arc::clone(sources), claim.job.env.clone());
    let redact = spec.redact;
    // Files of a directory that may be anywhere.
    let resolved = blocking(move || Ok(sources.resolve(&env, redact))).await;
    let refusal = match resolved {
        Ok(Ok(values)) => {
            spec.secret_env = values;
            return;
        }
        Ok(Err(error)) => error.as_spawn_error(),
        Err(error) => SpawnError {
            errno: libc::EIO,
            name: "EIO".to_owned(),
            what: format!("start, because its secrets cannot be read: {error}"),
        },
    };
    let job = claim.number;
    tracing::warn!(
        job,
        why = refusal.what,
        "a job fails to start without its secrets"
    );
    // For a shim that does not know the refusal.
    spec.argv = vec!["/bin/false".to_owned()];
    spec.refusal = Some(refusal);
}
