//! The constitutions that come with the program.

use crate::{Constitution, ConstitutionError, Problem};

/// Name and text, compiled in.
const SHIPPED: [(&str, &str); 2] =
    [("scene", include_str!("../shipped/scene.toml")), ("general", include_str!("../shipped/general.toml"))];

/// Names of the constitutions that come with the program.
pub fn shipped_names() -> impl Iterator<Item = &'static str> {
    SHIPPED.iter().map(|(name, _)| *name)
}

impl Constitution {
    /// A constitution that comes with the program: `scene` (the world of the embedded models) or `general` (fourteen
    /// rules for real pictures).
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
}
