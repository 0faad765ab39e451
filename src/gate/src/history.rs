//! What became of earlier attempts at the same prompt: how likely another one is to help.
//!
//! Each strategy has a Beta distribution over the chance that its picture passes, which starts from a prior and counts every
//! attempt of this request and of earlier ones for the same prompt. Only counts are kept, under a keyed hash of what they
//! belong to; nothing of a prompt can be read from them, and nothing of one tenant reaches another.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use cluegate_constitution::Revision;

use crate::policy::Strategy;

/// Prompts of a generation. Two generations are kept: some 6 MB at most.
const GENERATION: usize = 32_768;

/// The Beta prior of a picture that is drawn without anything to hold it back. Fitted to what I2P's published rates per prompt
/// say of Stable Diffusion 1.4: after 1, 2 and 3 violating pictures the next one violates with probability 0.60, 0.71, 0.78;
/// this prior says 0.60, 0.71, 0.77.
const PLAIN: [f64; 2] = [1.06, 0.58];
/// The Beta prior of the other strategies: nothing is known of them before they are tried.
const GUIDED: [f64; 2] = [1.0, 1.0];

/// Whose prompt it is, and what its pictures are judged by.
pub(crate) type PromptKey = [u8; 16];

/// The key of a prompt.
pub(crate) fn key(tenant: &str, model: Option<&str>, revision: Revision, prompt: &str) -> PromptKey {
    let mut hasher = blake3::Hasher::new();
    for part in [tenant, model.unwrap_or_default(), &revision.to_hex(), prompt] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    let mut key = [0; 16];
    hasher.finalize_xof().fill(&mut key);
    key
}

/// Attempts of one kind: those that passed, and those that did not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Attempts {
    passed: u32,
    failed: u32,
}

/// How attempts at one prompt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Past([Attempts; 3]);

impl Past {
    /// Which attempts speak for a strategy. A first picture is drawn as a reseeded one is.
    fn index(strategy: Strategy) -> usize {
        match strategy {
            Strategy::First | Strategy::Reseed => 0,
            Strategy::Avoid => 1,
            Strategy::Rewrite => 2,
        }
    }

    /// Counts an attempt.
    pub(crate) fn count(&mut self, strategy: Strategy, passed: bool) {
        let attempts = &mut self.0[Self::index(strategy)];
        let counter = if passed { &mut attempts.passed } else { &mut attempts.failed };
        *counter = counter.saturating_add(1);
    }

    /// The expected chance that a picture of this strategy passes: the mean of its Beta distribution, over 0 and under 1.
    pub(crate) fn chance(&self, strategy: Strategy) -> f64 {
        let [a, b] = if Self::index(strategy) == 0 { PLAIN } else { GUIDED };
        let Attempts { passed, failed } = self.0[Self::index(strategy)];
        (a + f64::from(passed)) / (a + b + f64::from(passed) + f64::from(failed))
    }
}

/// The prompts of late. When a generation is full the one before it is forgotten, so that memory is bounded and what is in use
/// stays.
#[derive(Debug, Default)]
pub(crate) struct History {
    generations: Mutex<[HashMap<PromptKey, Past>; 2]>,
}

impl History {
    /// What became of earlier attempts at a prompt.
    pub(crate) fn of(&self, key: &PromptKey) -> Past {
        let generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        generations.iter().find_map(|generation| generation.get(key)).copied().unwrap_or_default()
    }

    /// Counts an attempt at a prompt.
    pub(crate) fn count(&self, key: PromptKey, strategy: Strategy, passed: bool) {
        let mut generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        let [young, old] = &mut *generations;
        if young.len() >= GENERATION && !young.contains_key(&key) {
            *old = std::mem::take(young);
        }
        let before = || old.get(&key).copied().unwrap_or_default();
        young.entry(key).or_insert_with(before).count(strategy, passed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(n: u32) -> PromptKey {
        let mut key = [0; 16];
        key[..4].copy_from_slice(&n.to_le_bytes());
        key
    }

    #[test]
    fn the_prior_says_what_i2p_says() {
        let mut past = Past::default();
        for expected in [0.60, 0.71, 0.78] {
            past.count(Strategy::Reseed, false);
            let bad = 1.0 - past.chance(Strategy::Reseed);
            assert!((bad - expected).abs() < 0.015, "{bad}, expected {expected}");
        }
        // Of a strategy that was not tried they say nothing.
        assert!((past.chance(Strategy::Rewrite) - 0.5).abs() < 1e-12);
    }

    #[test]
    fn a_first_picture_speaks_for_a_new_seed_and_for_nothing_else() {
        let history = History::default();
        history.count(number(1), Strategy::First, true);
        let past = history.of(&number(1));
        assert!(past.chance(Strategy::Reseed) > Past::default().chance(Strategy::Reseed));
        assert_eq!(past.chance(Strategy::Avoid), Past::default().chance(Strategy::Avoid));
        assert_eq!(history.of(&number(2)), Past::default());
    }

    #[test]
    fn what_is_in_use_stays_and_the_rest_is_forgotten() {
        let history = History::default();
        let most = GENERATION as u32;
        for n in 0..3 * most {
            history.count(number(n), Strategy::First, false);
            history.count(number(0), Strategy::First, true);
        }
        let kept: usize =
            history.generations.lock().map(|both| both.iter().map(HashMap::len).sum()).unwrap_or(0);
        assert!(kept <= 2 * GENERATION, "{kept}");
        assert!(history.of(&number(0)).chance(Strategy::First) > 0.99);
        assert_eq!(history.of(&number(1)), Past::default());
        assert_ne!(history.of(&number(3 * most - 1)), Past::default());
    }
}
