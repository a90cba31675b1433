//! Why a user's request about a job or a queue is refused.

/// Why a NewJob, or a change of a job or a queue, is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NewJobRefusal {
    /// The value is wrong or missing, or the key is unknown.
    #[error("{key}: {message}")]
    Invalid {
        /// The key, dotted where nested.
        key: String,
        /// What is wrong and what would be right.
        message: String,
    },
    /// The protocol has the key, but this version does not support it yet.
    #[error("{key}: {message}")]
    Unsupported {
        /// The key, dotted where nested.
        key: String,
        /// What to do instead.
        message: String,
    },
}

impl NewJobRefusal {
    /// A wrong value.
    pub fn invalid(key: &str, message: impl Into<String>) -> Self {
        Self::Invalid {
            key: key.to_owned(),
            message: message.into(),
        }
    }

    /// The key that is refused.
    pub fn key(&self) -> &str {
        match self {
            Self::Invalid { key, .. } | Self::Unsupported { key, .. } => key,
        }
    }

    /// What is wrong and what would be right, without the key.
    pub fn message(&self) -> &str {
        match self {
            Self::Invalid { message, .. } | Self::Unsupported { message, .. } => message,
        }
    }

    /// The same about a key inside the object `outer`.
    pub fn within(mut self, outer: &str) -> Self {
        let (Self::Invalid { key, .. } | Self::Unsupported { key, .. }) = &mut self;
        *key = format!("{outer}.{key}");
        self
    }

    /// A key that this version does not support yet.
    pub fn unsupported(key: &str) -> Self {
        Self::Unsupported {
            key: key.to_owned(),
            message: "this version does not support it yet; leave it out".to_owned(),
        }
    }
}
