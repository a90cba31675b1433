//! What one job of the run does, from its seed, and how it must therefore end.

use std::path::Path;

use serde_json::{Value, json};

use crate::harness::{Transcript, assert_bytes, content, emit, mix};

/// A job that writes what can be computed.
#[derive(Debug, Clone)]
pub struct Plan {
    pub seed: u64,
    raw: bool,
    stdout_bytes: u64,
    stderr_bytes: u64,
    chunk_max: u64,
    pause_us: u64,
    end: End,
}

#[derive(Debug, Clone, Copy)]
enum End {
    Code(u64),
    Killed,
}

impl Plan {
    /// Mostly small jobs, some of several segments, some slow, some that fail.
    pub fn new(seed: u64) -> Self {
        let random = |salt: u64| mix(seed ^ mix(salt));
        let stdout_bytes = match random(1) % 10 {
            0 => 0,
            1 => random(2) % 6_000_000,
            2..4 => random(2) % 500_000,
            _ => random(2) % 20_000,
        };
        Self {
            seed,
            raw: random(3) % 3 == 0,
            stdout_bytes,
            stderr_bytes: random(4) % 3000,
            chunk_max: [1, 100, 4096, 65_536][(random(5) % 4) as usize]
                .max(stdout_bytes / 1000 + 1),
            pause_us: [0, 0, 200, 1000][(random(6) % 4) as usize],
            end: match random(7) % 6 {
                0 => End::Killed,
                1 => End::Code(random(8) % 256),
                _ => End::Code(0),
            },
        }
    }

    /// The job, with the key under which it is submitted as often as needed.
    pub fn new_job(&self, ledger: &Path, env: &Value) -> Value {
        let mut argv = vec![
            emit().to_owned(),
            "--ledger".to_owned(),
            ledger.to_str().expect("a UTF-8 path").to_owned(),
        ];
        for (option, number) in [
            ("--seed", self.seed),
            ("--bytes", self.stdout_bytes),
            ("--err-bytes", self.stderr_bytes),
            ("--pause-us", self.pause_us),
        ] {
            argv.extend([option.to_owned(), number.to_string()]);
        }
        argv.extend(["--chunk".to_owned(), format!("1:{}", self.chunk_max)]);
        if self.raw {
            argv.push("--raw".to_owned());
        }
        match self.end {
            End::Code(code) => argv.extend(["--exit".to_owned(), code.to_string()]),
            End::Killed => argv.extend(["--signal".to_owned(), "KILL".to_owned()]),
        }
        json!({"argv": argv, "env": env, "idempotency_key": format!("seed-{}", self.seed)})
    }

    /// Compares every byte of both streams, and the end.
    pub fn check(&self, transcript: &Transcript) {
        let what = |stream: &str| format!("{stream} of {self:?}");
        let stdout = content(self.seed, 0, self.stdout_bytes, self.raw);
        assert_bytes(&transcript.streams[0], &stdout, &what("stdout"));
        let stderr = content(self.seed, 1, self.stderr_bytes, self.raw);
        assert_bytes(&transcript.streams[1], &stderr, &what("stderr"));
        self.check_end(transcript.verified());
    }

    /// Compares the facts of the end.
    pub fn check_end(&self, job: &Value) {
        let (state, code, signal) = match self.end {
            End::Code(0) => ("succeeded", json!(0), Value::Null),
            End::Code(code) => ("failed", json!(code), Value::Null),
            End::Killed => ("failed", Value::Null, json!("SIGKILL")),
        };
        assert_eq!(job["state"], state, "{job}");
        assert_eq!(job["exit_code"], code, "{job}");
        assert_eq!(job["signal"], signal, "{job}");
        assert_eq!(job["attempts"], 1, "{job}");
        assert_eq!(job["output_bytes"], self.stdout_bytes + self.stderr_bytes);
    }
}
