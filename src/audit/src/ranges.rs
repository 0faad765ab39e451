//! Sets of entry numbers, by chain, small where the numbers are neighbours.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// Numbers of entries by chain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Ranges(BTreeMap<String, BTreeMap<u64, u64>>);

impl Ranges {
    /// Adds one entry.
    pub(crate) fn insert(&mut self, instance: &str, seq: u64) {
        self.insert_range(instance, seq, seq);
    }

    /// Adds the entries from `first` to `last`.
    pub(crate) fn insert_range(&mut self, instance: &str, first: u64, last: u64) {
        if !self.0.contains_key(instance) {
            self.0.insert(instance.to_owned(), BTreeMap::new());
        }
        let Some(ranges) = self.0.get_mut(instance) else { return };
        let (mut first, mut last) = (first, last);
        // The one that begins before, and all that begin within or right behind.
        if let Some((begin, end)) = ranges.range(..=first).next_back().map(|(a, b)| (*a, *b))
            && end.saturating_add(1) >= first
        {
            (first, last) = (begin, last.max(end));
        }
        while let Some((begin, end)) =
            ranges.range(first..=last.saturating_add(1)).next().map(|(a, b)| (*a, *b))
        {
            ranges.remove(&begin);
            last = last.max(end);
        }
        ranges.insert(first, last);
    }

    /// Whether it holds an entry.
    #[cfg(test)]
    fn contains(&self, instance: &str, seq: u64) -> bool {
        let before = self.0.get(instance).and_then(|ranges| ranges.range(..=seq).next_back());
        before.is_some_and(|(_, end)| *end >= seq)
    }

    /// The first entry that is not in `other`.
    pub(crate) fn first_outside(&self, other: &Self) -> Option<(&str, u64)> {
        for (instance, ranges) in &self.0 {
            for (begin, end) in ranges {
                let mut seq = *begin;
                while seq <= *end {
                    let covered = other.0.get(instance).and_then(|ranges| ranges.range(..=seq).next_back());
                    match covered.filter(|(_, last)| **last >= seq) {
                        Some((_, last)) => seq = last.saturating_add(1),
                        None => return Some((instance, seq)),
                    }
                }
            }
        }
        None
    }

    /// `{"gate-1": [[3, 5], [9, 9]]}`.
    pub(crate) fn to_json(&self) -> Value {
        let chains = self.0.iter().map(|(instance, ranges)| {
            (instance.clone(), ranges.iter().map(|(begin, end)| json!([begin, end])).collect::<Value>())
        });
        Value::Object(chains.collect())
    }

    /// Adds what [`to_json`](Self::to_json) has written; anything else in `value` is passed over.
    pub(crate) fn extend_from_json(&mut self, value: &Value) {
        for (instance, ranges) in value.as_object().into_iter().flatten() {
            for range in ranges.as_array().into_iter().flatten() {
                let bound = |index: usize| range.get(index).and_then(Value::as_u64);
                if let (Some(first), Some(last)) = (bound(0), bound(1))
                    && first <= last
                {
                    self.insert_range(instance, first, last);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ranges_are_sets(
            mine in prop::collection::vec((0_u64..40, 0_u64..5), 0..20),
            others in prop::collection::vec((0_u64..40, 0_u64..5), 0..20),
        ) {
            let (mut ranges, mut set) = (Ranges::default(), BTreeSet::new());
            for (first, more) in mine {
                ranges.insert_range("a", first, first + more);
                set.extend(first..=first + more);
            }
            let (mut other, mut other_set) = (Ranges::default(), BTreeSet::new());
            for (first, more) in others {
                other.insert_range("a", first, first + more);
                other_set.extend(first..=first + more);
            }
            for seq in 0..50 {
                prop_assert_eq!(ranges.contains("a", seq), set.contains(&seq));
            }
            let outside = set.difference(&other_set).next().copied();
            prop_assert_eq!(ranges.first_outside(&other).map(|(_, seq)| seq), outside);
            let mut read = Ranges::default();
            read.extend_from_json(&ranges.to_json());
            prop_assert_eq!(read, ranges);
        }
    }
}
