//! What waits, in the order in which it is served: tenants in turn, and each tenant's own first come, first served.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// One lane a tenant. Every lane has a turn, the round in which its next item is due; the lane with the earliest turn is
/// served, at equal turns the item that came first. A tenant that comes anew is due in the current round, before
/// whoever was served in it, and cannot save up turns by staying away (start-time fair queueing: Goyal, Vin and Cheng,
/// IEEE/ACM Transactions on Networking 5(5), 1997; every item costs one turn).
#[derive(Debug)]
pub(crate) struct Lanes<T> {
    lanes: HashMap<Arc<str>, Lane<T>>,
    round: u64,
    arrivals: u64,
}

#[derive(Debug)]
struct Lane<T> {
    /// With the number of each one's arrival.
    waiting: VecDeque<(u64, T)>,
    turn: u64,
}

impl<T> Lanes<T> {
    pub(crate) fn new() -> Self {
        Self { lanes: HashMap::new(), round: 0, arrivals: 0 }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lanes.values().all(|lane| lane.waiting.is_empty())
    }

    /// Puts `item` at the end of its tenant's lane.
    pub(crate) fn push(&mut self, tenant: &Arc<str>, item: T) {
        let new = || Lane { waiting: VecDeque::new(), turn: self.round };
        let lane = self.lanes.entry(Arc::clone(tenant)).or_insert_with(new);
        if lane.waiting.is_empty() {
            lane.turn = lane.turn.max(self.round);
        }
        lane.waiting.push_back((self.arrivals, item));
        self.arrivals += 1;
    }

    /// Takes the next item that `fits`. A lane whose first item does not fit is passed over and keeps its turn, so it
    /// is the first to be asked next time.
    pub(crate) fn take(&mut self, fits: impl Fn(&T) -> bool) -> Option<T> {
        let due = |lane: &&mut Lane<T>| lane.waiting.front().is_some_and(|(_, item)| fits(item));
        let order = |lane: &&mut Lane<T>| (lane.turn, lane.waiting.front().map(|(arrival, _)| *arrival));
        let lane = self.lanes.values_mut().filter(due).min_by_key(order)?;
        let (_, item) = lane.waiting.pop_front()?;
        self.round = self.round.max(lane.turn);
        lane.turn += 1;
        // An empty lane is remembered only as long as its tenant had its turn in this round already.
        self.lanes.retain(|_, lane| !lane.waiting.is_empty() || lane.turn > self.round);
        Some(item)
    }

    /// Removes what need not wait any longer. That costs nobody a turn.
    pub(crate) fn retain(&mut self, mut keep: impl FnMut(&T) -> bool) {
        for lane in self.lanes.values_mut() {
            lane.waiting.retain(|(_, item)| keep(item));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tenant(name: impl ToString) -> Arc<str> {
        Arc::from(name.to_string())
    }

    fn drain<T>(lanes: &mut Lanes<T>) -> Vec<T> {
        std::iter::from_fn(|| lanes.take(|_| true)).collect()
    }

    #[test]
    fn tenants_take_turns() {
        let mut lanes = Lanes::new();
        for item in ["a1", "a2", "a3", "b1", "c1", "b2"] {
            lanes.push(&tenant(&item[..1]), item);
        }
        assert_eq!(drain(&mut lanes), ["a1", "b1", "c1", "a2", "b2", "a3"]);
        assert!(lanes.is_empty());
    }

    #[test]
    fn one_who_comes_anew_is_next_and_one_who_comes_often_is_not() {
        let mut lanes = Lanes::new();
        (0..1000).for_each(|item| lanes.push(&tenant("busy"), format!("busy {item}")));
        for item in 0..5 {
            assert_eq!(lanes.take(|_| true), Some(format!("busy {item}")));
        }
        lanes.push(&tenant("single"), "single".to_owned());
        assert_eq!(lanes.take(|_| true).as_deref(), Some("single"));
        // To come again at once does not displace who waits already.
        lanes.push(&tenant("single"), "again".to_owned());
        assert_eq!(lanes.take(|_| true).as_deref(), Some("busy 5"));
        assert_eq!(lanes.take(|_| true).as_deref(), Some("again"));
    }

    #[test]
    fn what_does_not_fit_is_first_next_time() {
        let mut lanes = Lanes::new();
        for (name, item) in [("a", 1), ("a", 1), ("b", 2), ("b", 1), ("c", 1)] {
            lanes.push(&tenant(name), item);
        }
        let ones: Vec<i32> = std::iter::from_fn(|| lanes.take(|item| *item == 1)).collect();
        assert_eq!(ones, [1, 1, 1]);
        lanes.push(&tenant("c"), 3);
        assert_eq!(drain(&mut lanes), [2, 1, 3]);
    }

    #[test]
    fn nothing_is_remembered_of_tenants_who_are_gone() {
        let mut lanes = Lanes::new();
        for name in 0..10_000 {
            lanes.push(&tenant(name), name);
            lanes.push(&tenant("regular"), name);
            lanes.take(|_| true);
            lanes.take(|_| true);
        }
        assert!(lanes.lanes.len() <= 3, "{}", lanes.lanes.len());
    }

    proptest! {
        /// In any history of pushes, takes and removals: nothing is lost or doubled, each tenant's items keep their
        /// order, and between two turns of a waiting tenant no other has more than two.
        #[test]
        fn fair_and_complete(steps in prop::collection::vec((0_u8..4, 0_u8..3), 1..300)) {
            let mut lanes = Lanes::new();
            let mut waiting: Vec<Vec<usize>> = vec![Vec::new(); 4];
            let mut since: Vec<Vec<usize>> = vec![vec![0; 4]; 4];
            for (number, (name, action)) in steps.into_iter().enumerate() {
                if action < 2 {
                    if waiting[usize::from(name)].is_empty() {
                        since[usize::from(name)] = vec![0; 4];
                    }
                    lanes.push(&tenant(name), (usize::from(name), number));
                    waiting[usize::from(name)].push(number);
                } else if let Some((owner, taken)) = lanes.take(|_| true) {
                    prop_assert_eq!(waiting[owner].remove(0), taken);
                    since[owner] = vec![0; 4];
                    for other in (0..4).filter(|other| *other != owner && !waiting[*other].is_empty()) {
                        since[other][owner] += 1;
                        prop_assert!(since[other][owner] <= 2, "{other} waited for {owner}");
                    }
                } else {
                    prop_assert!(waiting.iter().all(Vec::is_empty));
                }
            }
            lanes.retain(|(owner, _)| *owner != 1);
            waiting[1].clear();
            let left: Vec<(usize, usize)> = drain(&mut lanes);
            for (owner, own) in waiting.iter().enumerate() {
                let rest: Vec<usize> = left.iter().filter(|(name, _)| *name == owner).map(|(_, item)| *item).collect();
                prop_assert_eq!(&rest, own);
            }
        }
    }
}
