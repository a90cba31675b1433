//! The number by which the processes of a job are found again even if they have changed their
//! environment: the soft limit of time under real-time scheduling (`RLIMIT_RTTIME`, setrlimit(2)).
//!
//! A fork and an exec keep a limit, and the kernel shows the limits of every process to every user
//! (`/proc/PID/limits`). `supervisor::orphans` searches for it.

use sha2::{Digest as _, Sha256};

use crate::job::JobId;

/// The smallest number, µs: 73,000 years, so that no process is ever limited by it.
pub const NUMBER_MIN: u64 = 1 << 61;

/// The number of a job's processes in the data directory of that instance, µs; at least
/// [`NUMBER_MIN`]. Two jobs have the same with a probability of 2^-61.
pub fn number(job: JobId, instance: &str) -> u64 {
    let digest = Sha256::digest(format!("{job} {instance}"));
    let bits = digest[..8]
        .iter()
        .fold(0, |bits, byte| bits << 8 | u64::from(*byte));
    NUMBER_MIN | bits & (NUMBER_MIN - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_one_jobs_in_one_data_directory_and_bounds_nobody() {
        let [one, other] = [7, 8].map(|n| JobId(uuid::Uuid::from_u128(n)));
        let here = number(one, "here");
        assert_eq!(here, number(one, "here"));
        assert_ne!(here, number(other, "here"));
        assert_ne!(here, number(one, "elsewhere"));
        assert!((NUMBER_MIN..NUMBER_MIN << 1).contains(&here));
    }
}
