//! The order in which steps can be submitted: each after those that it waits for.

/// Puts `0..waits_for.len()` into an order in which each comes after those that it waits for, otherwise as
/// they are. The error is a circle: each of its entries waits for the next one, the last for the first.
pub fn order(waits_for: &[Vec<usize>]) -> Result<Vec<usize>, Vec<usize>> {
    let mut search = OrderSearch {
        waits_for,
        visits: vec![Visit::None; waits_for.len()],
        path: Vec::new(),
        order: Vec::with_capacity(waits_for.len()),
    };
    for start in 0..waits_for.len() {
        search.visit(start)?;
    }
    Ok(search.order)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Visit {
    None,
    OnPath,
    Done,
}

struct OrderSearch<'a> {
    waits_for: &'a [Vec<usize>],
    visits: Vec<Visit>,
    path: Vec<(usize, usize)>,
    order: Vec<usize>,
}

impl OrderSearch<'_> {
    /// Depth first, without recursion: a file may have a long chain.
    fn visit(&mut self, start: usize) -> Result<(), Vec<usize>> {
        if self.visits[start] == Visit::None {
            self.enter(start);
        }
        while let Some((at, next)) = self.path.last_mut() {
            let at = *at;
            let Some(other) = self.waits_for[at].get(*next).copied() else {
                self.visits[at] = Visit::Done;
                self.order.push(at);
                self.path.pop();
                continue;
            };
            *next += 1;
            match self.visits[other] {
                Visit::None => self.enter(other),
                Visit::Done => {}
                Visit::OnPath => {
                    let path = self.path.iter().map(|(at, _)| *at);
                    return Err(path.skip_while(|at| *at != other).collect());
                }
            }
        }
        Ok(())
    }

    fn enter(&mut self, at: usize) {
        self.visits[at] = Visit::OnPath;
        self.path.push((at, 0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_comes_after_those_that_it_waits_for() {
        assert_eq!(order(&[]), Ok(vec![]));
        assert_eq!(order(&[vec![], vec![], vec![]]), Ok(vec![0, 1, 2]));
        assert_eq!(order(&[vec![2], vec![0, 2], vec![]]), Ok(vec![2, 0, 1]));
        let chain: Vec<_> = (0..100_000)
            .map(|at| vec![at + 1])
            .chain([vec![]])
            .collect();
        assert_eq!(order(&chain).map(|order| order[0]), Ok(100_000));
    }

    #[test]
    fn a_circle_is_told_step_by_step() {
        assert_eq!(order(&[vec![0]]), Err(vec![0]));
        assert_eq!(
            order(&[vec![1], vec![2], vec![3], vec![1]]),
            Err(vec![1, 2, 3])
        );
    }
}
