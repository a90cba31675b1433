//! What a verification finds.

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrailFinding {
    /// The entry's number, where it is about one.
    pub seq: Option<u64>,
    /// What is wrong with it, a sentence without its end.
    pub what: String,
}

impl TrailFinding {
    /// One about an entry.
    pub fn at(seq: u64, what: impl Into<String>) -> Self {
        Self {
            seq: Some(seq),
            what: what.into(),
        }
    }

    /// One about the trail.
    pub fn general(what: impl Into<String>) -> Self {
        Self {
            seq: None,
            what: what.into(),
        }
    }
}

impl std::fmt::Display for TrailFinding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.seq {
            Some(seq) => write!(f, "entry {seq}: {}", self.what),
            None => f.write_str(&self.what),
        }
    }
}
