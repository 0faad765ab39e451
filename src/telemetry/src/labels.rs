//! Values of labels that others choose, such as names of tenants: as many as may be, and `other` for the rest.

use std::collections::HashSet;
use std::sync::{PoisonError, RwLock};

use crate::recorder::OTHER;

/// The first values of a label; they keep their names until the program ends.
#[derive(Debug)]
pub(crate) struct Bounded {
    most: usize,
    known: RwLock<HashSet<String>>,
}

impl Bounded {
    pub(crate) fn new(most: usize) -> Self {
        Self { most, known: RwLock::default() }
    }

    /// `value`, or [`OTHER`] if it came after as many others as there may be.
    pub(crate) fn admit<'v>(&self, value: &'v str) -> &'v str {
        if self.known.read().unwrap_or_else(PoisonError::into_inner).contains(value) {
            return value;
        }
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if known.contains(value) || (known.len() < self.most && known.insert(value.to_owned())) {
            value
        } else {
            OTHER
        }
    }

    /// All values that have a name of their own.
    pub(crate) fn known(&self) -> Vec<String> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_keep_their_names_and_the_rest_share_one() {
        let tenants = Bounded::new(2);
        for _ in 0..2 {
            assert_eq!(["a", "b", "c", "d"].map(|name| tenants.admit(name)), ["a", "b", OTHER, OTHER]);
        }
        assert_eq!(tenants.known().len(), 2);
        assert_eq!(Bounded::new(0).admit("a"), OTHER);
    }
}
