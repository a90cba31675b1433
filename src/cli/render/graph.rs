//! Draws jobs as a graph: each below the jobs that it waits or has waited for. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{describe, job::ShownJob};
use crate::escape::visible;

/// Deeper jobs are not drawn further to the right.
const DEPTH_MAX: usize = 30;

/// The jobs as lines, those that wait for no other first, in the order of their numbers. A job that waits
/// for several stands below the first of them; below the others a line refers to it.
pub fn draw(jobs: &[ShownJob]) -> String {
    let graph = Graph::of(jobs);
    let mut lines = String::new();
    let mut drawn = BTreeSet::new();
    // Last in, first out.
    let mut stack: Vec<Branch> = graph.roots().into_iter().rev().map(Branch::root).collect();
    while let Some(branch) = stack.pop() {
        let Some(job) = graph.jobs.get(&branch.job) else {
            continue;
        };
        if !drawn.insert(branch.job) {
            lines.push_str(&format!("{}{} (see above)\n", branch.lead(), branch.job));
            continue;
        }
        lines.push_str(&format!("{}{}\n", branch.lead(), graph.line(job)));
        let children = graph.children.get(&branch.job);
        let children: Vec<_> = children.into_iter().flatten().copied().collect();
        let last = children.len();
        let below = children.into_iter().enumerate();
        stack.extend(
            below
                .map(|(at, child)| branch.child(child, at + 1 == last))
                .rev(),
        );
    }
    lines
}

/// A place in the drawing.
struct Branch {
    job: i64,
    /// What stands before it, but for its own corner.
    indent: String,
    depth: usize,
    /// Whether a sibling follows; `None` at the root.
    is_last: Option<bool>,
}

impl Branch {
    fn root(job: i64) -> Self {
        Self {
            job,
            indent: String::new(),
            depth: 0,
            is_last: None,
        }
    }

    fn lead(&self) -> String {
        let corner = match self.is_last {
            None => "",
            Some(true) => "└─ ",
            Some(false) => "├─ ",
        };
        format!("{}{corner}", self.indent)
    }

    fn child(&self, job: i64, is_last: bool) -> Self {
        let more = match self.is_last {
            _ if self.depth >= DEPTH_MAX => "",
            None => "",
            Some(true) => "   ",
            Some(false) => "│  ",
        };
        Self {
            job,
            indent: format!("{}{more}", self.indent),
            depth: self.depth + 1,
            is_last: Some(is_last),
        }
    }
}

struct Graph<'a> {
    /// By id.
    numbers: HashMap<&'a str, i64>,
    jobs: BTreeMap<i64, &'a ShownJob>,
    /// By number: those that wait for it.
    children: HashMap<i64, BTreeSet<i64>>,
}

impl<'a> Graph<'a> {
    fn of(jobs: &'a [ShownJob]) -> Self {
        let numbers: HashMap<&str, i64> = jobs
            .iter()
            .map(|job| (job.id.as_str(), job.number))
            .collect();
        let mut children: HashMap<i64, BTreeSet<i64>> = HashMap::new();
        for job in jobs {
            for after in &job.after {
                if let Some(parent) = numbers.get(after.job.as_str()) {
                    children.entry(*parent).or_default().insert(job.number);
                }
            }
        }
        let jobs = jobs.iter().map(|job| (job.number, job)).collect();
        Self {
            numbers,
            jobs,
            children,
        }
    }

    /// A job on one line. Of the jobs that it waits for, those are named by their numbers that are drawn and
    /// have not ended.
    fn line(&self, job: &ShownJob) -> String {
        let what = match &job.name {
            Some(name) => visible(name),
            None => job.command(),
        };
        let mut shown = job.clone();
        if job.state == "blocked" {
            let parents = job.after.iter().filter_map(|after| {
                let number = self.numbers.get(after.job.as_str())?;
                let is_final = self.jobs.get(number)?.finished_at.is_some();
                (!is_final).then(|| {
                    let mut after = after.clone();
                    after.job = number.to_string();
                    after
                })
            });
            let parents: Vec<_> = parents.collect();
            if !parents.is_empty() {
                shown.after = parents;
            }
        }
        format!("{} {what}: {}", job.number, describe::of(&shown))
    }

    /// Those that wait for none of the others.
    fn roots(&self) -> Vec<i64> {
        let below: BTreeSet<i64> = self.children.values().flatten().copied().collect();
        let all = self.jobs.keys().copied();
        all.filter(|number| !below.contains(number)).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cli::render::job::sample;

    fn job(number: i64, after: &[i64]) -> ShownJob {
        let after: Vec<_> = after
            .iter()
            .map(|on| json!({"job": on.to_string()}))
            .collect();
        sample(
            json!({"number": number, "id": number.to_string(), "name": format!("job\u{1b}{number}"),
            "state": "succeeded", "after": after}),
        )
    }

    #[test]
    fn each_job_stands_below_those_that_it_waits_for() {
        let jobs = [
            job(1, &[]),
            job(2, &[1]),
            job(3, &[1]),
            job(4, &[2, 3]),
            job(5, &[99]),
        ];
        let drawn = draw(&jobs).replace(": succeeded: it exited with code 0", "");
        assert_eq!(
            drawn,
            "1 job\\x1b1\n\
             ├─ 2 job\\x1b2\n\
             │  └─ 4 job\\x1b4\n\
             └─ 3 job\\x1b3\n   └─ 4 (see above)\n\
             5 job\\x1b5\n"
        );
    }

    #[test]
    fn what_a_job_waits_for_is_named_by_its_number() {
        let mut first = job(1, &[]);
        first.id = "01a2".to_owned();
        first.finished_at = Some(chrono::DateTime::UNIX_EPOCH);
        let mut second = job(2, &[]);
        (second.id, second.state) = ("01a3".to_owned(), "running".to_owned());
        let after = json!([{"job": "01a2"}, {"job": "01a3"}]);
        let third =
            json!({"number": 3, "id": "01a4", "name": "c", "state": "blocked", "after": after});
        let drawn = draw(&[first, second, sample(third)]);
        assert!(drawn.contains("3 c: waits for 2\n"), "{drawn}");
    }

    #[test]
    fn a_long_chain_stays_on_the_page() {
        let jobs: Vec<_> = (1..=2000).map(|n| job(n, &[n - 1])).collect();
        let drawn = draw(&jobs);
        assert_eq!(drawn.lines().count(), 2000);
        assert!(drawn.lines().all(|line| line.chars().count() < 200));
    }
}
