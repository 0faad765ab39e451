//! The revision of a constitution: a hash over what it says, not over how it is written.

use std::fmt;

use serde::{Serialize, Serializer};

use crate::rule::{Constitution, Precondition, Rule, Thresholds};

/// BLAKE3 over the canonical content of a constitution. Displayed as its first 16 hexadecimal digits, serialised as all
/// 64.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Revision([u8; 32]);

impl Revision {
    /// 64 lower-case hexadecimal digits.
    pub fn to_hex(self) -> String {
        blake3::Hash::from_bytes(self.0).to_hex().to_string()
    }

    /// Stands in until the content is complete and can be hashed.
    pub(crate) const UNSET: Self = Self([0; 32]);

    /// Hash of everything that `constitution` says. Every field carries its length, so that no two contents share an
    /// encoding; the order of rules counts, because reports follow it.
    pub(crate) fn of(constitution: &Constitution) -> Self {
        let mut canonical = Canonical(blake3::Hasher::new());
        canonical.text("cluegate constitution, encoding 1");
        canonical.text(&constitution.name);
        canonical.text(&constitution.description);
        canonical.thresholds(&constitution.thresholds);
        canonical.count(constitution.rules.len());
        for rule in &constitution.rules {
            canonical.rule(rule);
        }
        Self(*canonical.0.finalize().as_bytes())
    }
}

struct Canonical(blake3::Hasher);

impl Canonical {
    fn count(&mut self, count: usize) {
        self.0.update(&(count as u64).to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        self.count(text.len());
        self.0.update(text.as_bytes());
    }

    fn number(&mut self, number: f64) {
        // Adding zero turns -0.0 into 0.0: they mean the same threshold.
        self.0.update(&(number + 0.0).to_bits().to_le_bytes());
    }

    fn thresholds(&mut self, thresholds: &Thresholds) {
        self.count(usize::from(thresholds.relevance.is_some()));
        self.number(thresholds.relevance.map_or(0.0, f64::from));
        self.number(thresholds.alpha1);
        self.number(thresholds.alpha2);
        self.number(thresholds.beta);
        self.number(f64::from(thresholds.detection_confidence));
        self.number(thresholds.small_object_area);
    }

    fn chain(&mut self, chain: &[Precondition]) {
        self.count(chain.len());
        for link in chain {
            self.count(link.any.len());
            for statement in &link.any {
                self.text(&statement.text);
                self.count(statement.central.len());
                for word in &statement.central {
                    self.text(word);
                }
            }
        }
    }

    fn rule(&mut self, rule: &Rule) {
        self.text(&rule.id);
        self.text(&rule.text);
        self.count(usize::from(rule.objectiveness));
        self.text(rule.severity.as_str());
        self.chain(&rule.preconditions);
        self.chain(&rule.unless);
        if rule.consequence {
            // Written only where it is asked for, so that every other constitution keeps its revision. No id of a rule
            // begins with a plus sign, so that the next rule cannot be taken for it.
            self.text("+consequence");
        }
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_hex()[..16])
    }
}

impl fmt::Debug for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Revision({self})")
    }
}

impl Serialize for Revision {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.to_hex())
    }
}
