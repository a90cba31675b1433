//! Secrets at the entry: whether a job may refer to them here, and whether its client may have them unmasked.
//! Their values are looked for when the job starts.

use super::{Actor, Error, Executor};
use crate::{
    access::Scope,
    job::{JobSpec, secret::references},
};

impl Executor {
    /// The names of the sources of secrets that this server has.
    pub fn secret_sources(&self) -> Vec<&'static str> {
        let sources = &self.inner.supervisor.context().secrets;
        sources.kinds().map(|kind| kind.name()).collect()
    }

    /// Refuses a reference where no secret can be found, and unmasked output to a client that may not read
    /// values. That a secret is missing is no error here: it is looked for when the job starts.
    pub(super) fn check_secrets(&self, job: &JobSpec, actor: &Actor) -> Result<(), Error> {
        let Some((variable, _)) = references(&job.env).next() else {
            return Ok(());
        };
        if self.inner.supervisor.context().secrets.is_empty() {
            let message = "this server has no secrets: start it with --secrets-dir DIR (secrets_dir), or as a systemd \
                           service with LoadCredential=";
            return Err(Error::invalid(message.to_owned()).about(format!("env.{variable}.secret")));
        }
        if !job.output.redact {
            actor.principal().require(&[Scope::ReadSecrets])?;
        }
        Ok(())
    }
}
