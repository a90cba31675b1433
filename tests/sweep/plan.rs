//! What the jobs of a run do, and how they must therefore end.
//! Does not know who is killed.

use std::path::Path;

use serde_json::{Value, json};

use crate::harness::{Transcript, assert_bytes, content, emit};

/// A job that writes what can be computed.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Its name in the ledger.
    pub seed: u64,
    stdout_bytes: u64,
    exit: u64,
}

const STDERR_BYTES: u64 = 200;

impl Plan {
    /// Its output goes into rows; it fails.
    pub const SMALL: Self = Self {
        seed: 1,
        stdout_bytes: 3000,
        exit: 7,
    };
    /// Its output is two segments.
    pub const LARGE: Self = Self {
        seed: 2,
        stdout_bytes: 100_000,
        exit: 0,
    };
    /// Comes after recovery.
    pub const NEXT: Self = Self {
        seed: 3,
        stdout_bytes: 1000,
        exit: 0,
    };

    /// Its shim dies under it.
    pub const LOST: Self = Self {
        seed: 4,
        stdout_bytes: 500,
        exit: 0,
    };

    /// It is killed.
    pub const KILLED: Self = Self {
        seed: 5,
        stdout_bytes: 2000,
        exit: 0,
    };

    /// The words of its command.
    fn argv(&self, ledger: &Path) -> Vec<String> {
        let mut argv = vec![emit().to_owned(), "--ledger".to_owned()];
        argv.push(ledger.to_str().expect("a UTF-8 path").to_owned());
        for (option, number) in [
            ("--seed", self.seed),
            ("--bytes", self.stdout_bytes),
            ("--err-bytes", STDERR_BYTES),
            ("--chunk", 8192),
            // Slowly enough that most writes are read one by one.
            ("--pause-us", 15_000),
            ("--exit", self.exit),
        ] {
            argv.extend([option.to_owned(), number.to_string()]);
        }
        argv
    }

    /// The job, under a key.
    pub fn new_job(&self, ledger: &Path) -> Value {
        json!({"argv": self.argv(ledger), "idempotency_key": format!("seed-{}", self.seed)})
    }

    /// The same, which begins only when there is a file at `gate`.
    pub fn gated_job(&self, ledger: &Path, gate: &Path) -> Value {
        let gate = gate.display();
        let wait = format!("while [ ! -e {gate} ]; do sleep 0.01; done; exec \"$@\"");
        let mut job = self.new_job(ledger);
        let mut argv = ["/bin/sh", "-c", &wait, "sh"].map(str::to_owned).to_vec();
        argv.extend(self.argv(ledger));
        job["argv"] = json!(argv);
        job
    }

    /// The same, which goes on for ever when it has written everything.
    pub fn endless_job(&self, ledger: &Path) -> Value {
        let mut argv = self.argv(ledger);
        argv.extend(["--hold", "100000"].map(str::to_owned));
        let mut job = self.new_job(ledger);
        job["argv"] = json!(argv);
        job
    }

    /// How many bytes it writes.
    pub fn bytes(&self) -> u64 {
        self.stdout_bytes + STDERR_BYTES
    }

    /// Holds the end and every byte to the plan.
    #[track_caller]
    pub fn check_exact(&self, transcript: &Transcript) {
        let job = transcript.verified();
        self.check_bytes(transcript);
        let state = if self.exit == 0 {
            "succeeded"
        } else {
            "failed"
        };
        assert_eq!(job["state"], state, "{job}");
        assert_eq!(job["exit_code"], self.exit, "{job}");
        assert_eq!(job["signal"], Value::Null, "{job}");
        assert_eq!(job["attempts"], 1, "{job}");
    }

    /// It was killed after its last byte.
    #[track_caller]
    pub fn check_killed(&self, transcript: &Transcript) {
        let job = transcript.verified();
        self.check_bytes(transcript);
        assert_eq!(job["state"], "cancelled", "{job}");
        assert_eq!(job["exit_code"], Value::Null, "{job}");
        assert_eq!(job["signal"], "SIGKILL", "{job}");
        assert_eq!(job["attempts"], 1, "{job}");
    }

    #[track_caller]
    fn check_bytes(&self, transcript: &Transcript) {
        for (at, want) in self.streams().iter().enumerate() {
            assert_bytes(
                &transcript.streams[at],
                want,
                &format!("stream {at} of {self:?}"),
            );
        }
        assert!(transcript.gaps.is_empty(), "{:?}", transcript.gaps);
    }

    /// Nobody knows how it ended; what was shown is how its output began.
    #[track_caller]
    pub fn check_lost(&self, transcript: &Transcript) {
        let job = transcript.verified();
        assert_eq!(job["state"], "failed", "{job}");
        assert_eq!(job["reason"], "lost", "{job}");
        assert_eq!(job["exit_code"], Value::Null, "{job}");
        assert_eq!(job["signal"], Value::Null, "{job}");
        assert!(transcript.gaps.is_empty(), "{:?}", transcript.gaps);
        for (at, want) in self.streams().iter().enumerate() {
            let got = &transcript.streams[at];
            let length = got.len().min(want.len());
            let what = format!("stream {at} of {self:?}");
            assert_bytes(got, &want[..length], &what);
        }
    }

    fn streams(&self) -> [Vec<u8>; 2] {
        [self.stdout_bytes, STDERR_BYTES]
            .into_iter()
            .enumerate()
            .map(|(at, length)| content(self.seed, at as u64, length, false))
            .collect::<Vec<_>>()
            .try_into()
            .expect("two streams")
    }
}
