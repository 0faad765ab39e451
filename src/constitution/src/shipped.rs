//! The constitutions that come with the program.

use crate::{Constitution, ConstitutionError, Problem};

/// Name and text, compiled in.
const SHIPPED: [(&str, &str); 12] = [
    ("scene", include_str!("../shipped/scene.toml")),
    ("general", include_str!("../shipped/general.toml")),
    ("nine-categories", include_str!("../shipped/nine-categories.toml")),
    ("nine-categories-states", include_str!("../shipped/nine-categories-states.toml")),
    ("level-1", include_str!("../shipped/level-1.toml")),
    ("level-2", include_str!("../shipped/level-2.toml")),
    ("level-3", include_str!("../shipped/level-3.toml")),
    ("level-4", include_str!("../shipped/level-4.toml")),
    ("level-5", include_str!("../shipped/level-5.toml")),
    ("brand-safety", include_str!("../shipped/brand-safety.toml")),
    ("childrens-service", include_str!("../shipped/childrens-service.toml")),
    ("consequences", include_str!("../shipped/consequences.toml")),
];

/// Name of a shipped constitution and the prose that says the same in everyday words, rule by rule.
const PROSE: [(&str, &str); 1] = [("general", include_str!("../shipped/prose/general.md"))];

/// Names of the constitutions that come with the program.
pub fn shipped_names() -> impl Iterator<Item = &'static str> {
    SHIPPED.iter().map(|(name, _)| *name)
}

impl Constitution {
    /// A constitution that comes with the program: `scene` (the world of the embedded models), `general` (fourteen
    /// rules for real pictures), `nine-categories` and others ([`shipped_names`]).
    ///
    /// # Errors
    /// [`Problem::UnknownName`] if there is none of that name.
    pub fn shipped(name: &str) -> Result<Self, ConstitutionError> {
        match SHIPPED.iter().find(|(known, _)| *known == name) {
            Some((name, text)) => Self::parse(text, &format!("{name}.toml (shipped)")),
            None => Err(ConstitutionError::new(
                "constitution",
                None,
                Problem::UnknownName { name: name.to_owned(), known: shipped_names().collect() },
            )),
        }
    }

    /// The text of a shipped constitution, to be printed or copied as a start for one's own.
    pub fn shipped_text(name: &str) -> Option<&'static str> {
        SHIPPED.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
    }

    /// The prose from which a shipped constitution could be compiled: the rules of `general` as one would put them before
    /// they are made objective, in the same order, a list in Markdown.
    pub fn shipped_prose(name: &str) -> Option<&'static str> {
        PROSE.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
    }
}
