//! What stands around and between the features of a picture's tiles: marks of rows and columns, line ends.
//!
//! Source: `replace_image_token` in `models/idefics3/processing_idefics3.py` and `get_image_prompt_string` in
//! `models/smolvlm/processing_smolvlm.py` of transformers 5.17. The reference writes all of it as text before it
//! tokenises. Each piece lies between two special tokens, so that it is cut the same wherever it stands: here it is
//! tokenised once, when the model is loaded.

use crate::chat::ChatTokenizer;
use crate::error::{ModelError, Result};

/// What the chat templates write for a picture, and the processor for each feature of a tile.
pub(super) const PLACEHOLDER: &str = "<image>";

/// Stands before every tile, and behind the last one.
const FAKE: &str = "<fake_token_around_image>";

/// Tokens of each piece.
#[derive(Debug, Clone)]
pub(super) struct Marks {
    fake: u32,
    /// The image token, once for each feature of a tile.
    tile: Vec<u32>,
    /// `<row_1_col_1>` and so on, which is one token in some checkpoints and text in others.
    places: Vec<Vec<Vec<u32>>>,
    /// `<global-img>`, before the whole picture.
    whole: Vec<u32>,
    /// Ends a row of tiles.
    line: Vec<u32>,
    /// Ends the last row.
    lines: Vec<u32>,
}

impl Marks {
    /// Looks all pieces up for tiles of `features` tokens, at most `most` of them in a row or column.
    ///
    /// # Errors
    /// `Tokenizer` if a special token is missing.
    pub(super) fn find(
        tokenizer: &ChatTokenizer,
        image: u32,
        (features, most): (usize, u32),
    ) -> Result<Self> {
        if tokenizer.id(PLACEHOLDER) != Some(image) {
            let detail = format!(
                "`{PLACEHOLDER}` has the id {:?}, `image_token_id` in config.json is {image}",
                tokenizer.id(PLACEHOLDER)
            );
            return Err(ModelError::tokenizer(tokenizer.path(), detail));
        }
        let fake = tokenizer.id(FAKE).ok_or_else(|| {
            ModelError::tokenizer(
                tokenizer.path(),
                format!("has no token `{FAKE}`, which stands around pictures"),
            )
        })?;
        let between = |piece: &str| -> Result<Vec<u32>> {
            let ids = tokenizer.encode(&format!("{FAKE}{piece}{PLACEHOLDER}"))?;
            match ids[..] {
                [first, ref inner @ .., last] if (first, last) == (fake, image) => Ok(inner.to_vec()),
                _ => Err(ModelError::tokenizer(
                    tokenizer.path(),
                    format!(
                        "`{FAKE}` and `{PLACEHOLDER}` are not special tokens: `{piece}` between them is {ids:?}"
                    ),
                )),
            }
        };
        let row = |row: u32| (1..=most).map(|column| between(&format!("<row_{row}_col_{column}>"))).collect();
        Ok(Self {
            fake,
            tile: vec![image; features],
            places: (1..=most).map(row).collect::<Result<_>>()?,
            whole: between("<global-img>")?,
            line: between("\n")?,
            lines: between("\n\n")?,
        })
    }

    /// All tokens of a picture of so many rows and columns of tiles, then the whole; of the whole alone for none.
    ///
    /// # Errors
    /// `Request` for more tiles than the processor ever makes.
    pub(super) fn around(&self, rows: u32, columns: u32) -> Result<Vec<u32>> {
        let mut ids = Vec::new();
        for row in 0..rows as usize {
            for column in 0..columns as usize {
                let place = self.places.get(row).and_then(|places| places.get(column)).ok_or_else(|| {
                    ModelError::Request(format!(
                        "the picture becomes {rows} x {columns} tiles, too many to mark"
                    ))
                })?;
                ids.push(self.fake);
                ids.extend(place);
                ids.extend(&self.tile);
            }
            ids.extend(if row + 1 == rows as usize { &self.lines } else { &self.line });
        }
        ids.push(self.fake);
        ids.extend(&self.whole);
        ids.extend(&self.tile);
        ids.push(self.fake);
        Ok(ids)
    }
}
