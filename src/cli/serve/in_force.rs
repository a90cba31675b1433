//! What the last server of a data directory had in force: its policy, and its sources of secrets. A server that
//! a verb has started goes on with the same: without them it would start jobs that the operator's server refuses,
//! and end those that wait for their secrets.

use std::{
    io::Read,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

use crate::{
    config::Settings,
    data_dir::{Access, OwnDir},
    executor::Ceased,
    secrets::CREDENTIALS_VARIABLE,
    spool::Layout,
};

/// The longest file, bytes.
const BYTES_MAX: u64 = 64 << 10;

/// What a server has in force.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InForce {
    /// The file of its policy.
    policy: Option<PathBuf>,
    /// Its directory of secrets.
    secrets_dir: Option<PathBuf>,
    /// Whether it has credentials of the service manager.
    credentials: bool,
}

impl InForce {
    /// That of the last server; nothing where no server has written it down.
    ///
    /// # Errors
    ///
    /// It cannot be read: then it is not known what a server may do without.
    pub fn of_last(dir: &OwnDir) -> anyhow::Result<Self> {
        let Some(file) = dir.open_file(Layout::IN_FORCE, Access::Read)? else {
            return Ok(Self::default());
        };
        let path = || dir.path().join(Layout::IN_FORCE).display().to_string();
        let mut text = Vec::new();
        let read = file.take(BYTES_MAX).read_to_end(&mut text);
        read.with_context(|| format!("cannot read {}", path()))?;
        serde_json::from_slice(&text).with_context(|| {
            format!(
                "{} does not say which policy was in force; remove it to begin without one",
                path()
            )
        })
    }

    /// What these settings put in force.
    pub fn of_settings(settings: &Settings) -> Self {
        let absolute = |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone());
        Self {
            policy: settings.policy.as_ref().map(absolute),
            secrets_dir: settings.secrets_dir.as_ref().map(absolute),
            credentials: std::env::var_os(CREDENTIALS_VARIABLE)
                .is_some_and(|path| Path::new(&path).is_absolute()),
        }
    }

    /// Completes the settings of a server that a verb has started by what the last server had. What is set
    /// stays. Returns whether anything is taken over.
    ///
    /// # Errors
    ///
    /// The last server had credentials of the service manager, which this one cannot have.
    pub fn complete(&self, settings: &mut Settings) -> anyhow::Result<bool> {
        let own = Self::of_settings(settings);
        if self.credentials && !own.credentials {
            bail!(
                "the last server of this data directory had secrets from the service manager (LoadCredential=), which \
                 a server that a command starts cannot have; start the service, or `cc-executor serve`"
            );
        }
        let mut is_completed = false;
        for (setting, before) in [
            (&mut settings.policy, &self.policy),
            (&mut settings.secrets_dir, &self.secrets_dir),
        ] {
            if setting.is_none() && before.is_some() {
                setting.clone_from(before);
                is_completed = true;
            }
        }
        Ok(is_completed)
    }

    /// Adds to an error of a start with what was taken over how to start without that.
    pub fn explain(&self, error: anyhow::Error) -> anyhow::Error {
        let shown = |what: &str, path: &Option<PathBuf>| {
            let path = path.as_ref()?;
            Some(format!("{what} {}", path.display()))
        };
        let policy = shown("the policy", &self.policy);
        let secrets = shown("the secrets of", &self.secrets_dir);
        let both: Vec<String> = policy.into_iter().chain(secrets).collect();
        error.context(format!(
            "a server that a command starts goes on with what the last server of this data directory had in force \
             ({}); `cc-executor serve` starts one with other settings",
            both.join(", ")
        ))
    }

    /// What the last server had, and a server with these settings has not.
    pub fn ceased(&self, settings: &Settings) -> Ceased {
        let now = Self::of_settings(settings);
        Ceased {
            policy: self.policy.clone().filter(|_| now.policy.is_none()),
            secrets: (self.secrets_dir.is_some() && now.secrets_dir.is_none())
                || (self.credentials && !now.credentials),
        }
    }

    /// Writes down what these settings put in force, if the file says something else.
    ///
    /// # Errors
    ///
    /// It cannot be written: a server that a verb starts later would go on with something else.
    pub fn remember(&self, settings: &Settings, dir: &OwnDir) -> anyhow::Result<()> {
        let now = Self::of_settings(settings);
        if now == *self {
            return Ok(());
        }
        let write = || -> anyhow::Result<()> {
            let draft = format!("{}.draft", Layout::IN_FORCE);
            Ok(dir.replace_file(Layout::IN_FORCE, &draft, &serde_json::to_vec(&now)?)?)
        };
        write().context("cannot write down which policy and secrets are in force")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::config;

    fn settings(policy: Option<&str>, secrets_dir: Option<&str>) -> Settings {
        let loaded = config::load_from(None, BTreeMap::new(), &BTreeMap::new());
        let mut settings = loaded.expect("the defaults").settings;
        settings.policy = policy.map(PathBuf::from);
        settings.secrets_dir = secrets_dir.map(PathBuf::from);
        settings
    }

    #[test]
    fn what_is_not_set_is_taken_over() {
        let last = InForce::of_settings(&settings(Some("/p"), Some("/s")));
        let mut own = settings(None, Some("/other"));
        assert!(last.complete(&mut own).expect("completed"));
        assert_eq!(own.policy, Some("/p".into()));
        assert_eq!(own.secrets_dir, Some("/other".into()));
        assert!(!last.complete(&mut own).expect("completed"));
        let of_service = InForce {
            credentials: true,
            ..last
        };
        assert!(of_service.complete(&mut own).is_err());
    }

    #[test]
    fn what_has_ceased_is_known_until_the_next_start() {
        let directory = tempfile::tempdir().expect("a directory");
        let dir = OwnDir::make(directory.path()).expect("a data directory");
        let nothing = InForce::of_last(&dir).expect("no file");
        assert_eq!(nothing, InForce::default());
        let with = settings(Some("/p"), Some("/s"));
        nothing.remember(&with, &dir).expect("written");
        let last = InForce::of_last(&dir).expect("read");
        assert_eq!(last.ceased(&with), Ceased::default());
        let without = settings(None, None);
        let ceased = last.ceased(&without);
        assert_eq!((ceased.policy, ceased.secrets), (Some("/p".into()), true));
        last.remember(&without, &dir).expect("written");
        assert_eq!(InForce::of_last(&dir).expect("read"), InForce::default());
    }
}
