//! Patterns over the names of generation models.

use std::cmp::Reverse;

/// Longest pattern in characters.
const MAX_CHARS: usize = 128;

/// What a pattern may be, for errors.
pub(super) const EXPECTED: &str = "a name of 1 to 128 characters in which `*` stands for any characters and `?` for one, without brackets, \
     braces, backslashes and control characters";

/// A name with `*` for any characters, none included, and `?` for exactly one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob(Box<[char]>);

impl Glob {
    /// Reads a pattern; none if it is empty, too long, or has a character that other kinds of patterns give a meaning.
    pub(super) fn new(pattern: &str) -> Option<Self> {
        let chars: Box<[char]> = pattern.chars().take(MAX_CHARS + 1).collect();
        let foreign = |c: &char| c.is_control() || "[]{}\\".contains(*c);
        ((1..=MAX_CHARS).contains(&chars.len()) && !chars.iter().any(foreign)).then_some(Self(chars))
    }

    /// Whether the whole of `name` fits.
    pub fn matches(&self, name: &str) -> bool {
        let name: Vec<char> = name.chars().collect();
        let (mut at, mut read) = (0, 0);
        // Where the last `*` stands, and how far what it takes reaches.
        let mut star: Option<(usize, usize)> = None;
        while read < name.len() {
            match self.0.get(at) {
                Some('*') => {
                    star = Some((at, read));
                    at += 1;
                }
                Some(c) if *c == '?' || name.get(read) == Some(c) => (at, read) = (at + 1, read + 1),
                _ => match star {
                    // The last `*` takes one more.
                    Some((place, reached)) => {
                        star = Some((place, reached + 1));
                        (at, read) = (place + 1, reached + 1);
                    }
                    None => return false,
                },
            }
        }
        self.0.iter().skip(at).all(|c| *c == '*')
    }

    /// Orders patterns from the most specific: fewer wildcards of any number, more characters of its own, then by text.
    pub(super) fn rank(&self) -> (bool, Reverse<usize>, Box<[char]>) {
        let own = self.0.iter().filter(|c| !matches!(c, '*' | '?')).count();
        (own < self.0.len(), Reverse(own), self.0.clone())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The definition, character by character.
    fn literal(pattern: &[char], name: &[char]) -> bool {
        match pattern.split_first() {
            None => name.is_empty(),
            Some(('*', rest)) => (0..=name.len()).any(|taken| literal(rest, &name[taken..])),
            Some((c, rest)) => name
                .split_first()
                .is_some_and(|(first, left)| (*c == '?' || c == first) && literal(rest, left)),
        }
    }

    proptest! {
        #[test]
        fn a_pattern_fits_as_it_is_defined(pattern in "[ab?*]{1,8}", name in "[ab]{0,10}") {
            let chars = |text: &str| text.chars().collect::<Vec<_>>();
            let glob = Glob::new(&pattern).unwrap();
            prop_assert_eq!(glob.matches(&name), literal(&chars(&pattern), &chars(&name)));
        }
    }

    #[test]
    fn patterns_are_bounded_and_ordered() {
        for bad in ["", "sd[xy]", "sd{a,b}", "sd\\*", "sd\n", &"x".repeat(129)] {
            assert_eq!(Glob::new(bad), None, "{bad:?}");
        }
        let mut patterns =
            ["*", "sdxl*", "sdxl-turbo", "sdxl-*", "sd?l-*", "*turbo"].map(|text| Glob::new(text).unwrap());
        patterns.sort_by_key(Glob::rank);
        let texts = patterns.map(|glob| glob.0.iter().collect::<String>());
        assert_eq!(texts, ["sdxl-turbo", "*turbo", "sdxl-*", "sd?l-*", "sdxl*", "*"]);
        // A long pattern of stars is no burden.
        assert!(!Glob::new(&"*a".repeat(64)).unwrap().matches(&"b".repeat(10_000)));
    }
}
