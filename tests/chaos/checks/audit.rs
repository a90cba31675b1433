//! What `audit verify` says of the data directory when the load is over and no server runs: the chain is whole, and every job
//! is as its entries say.
//! Does not run it.

use super::Violation;

const NAME: &str = "audit";

/// A finding, or a verification that has not come to its end.
pub fn check(code: i32, said: &str) -> Option<Violation> {
    let is_intact = code == 0 && said.lines().any(|line| line.starts_with("intact: "));
    (!is_intact).then(|| Violation::general(NAME, said))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_trail_passes() {
        assert_eq!(check(0, "intact: entries 1 to 9\nfirst key: x\n"), None);
        for (code, said) in [
            (1, "entry 3 is missing\nNOT intact: entries 1 to 9\n"),
            (1, "intact: entries 1 to 9\n"),
            (0, ""),
        ] {
            assert!(check(code, said).is_some(), "{said}");
        }
    }
}
