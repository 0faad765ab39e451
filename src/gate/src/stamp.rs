//! What the file of a released picture says of where it comes from.

use bytes::Bytes;
use cluegate_perception::{FileFormat, jpeg_with_comment, png_with_text};

use crate::{DecisionRecord, GateError};

/// Keyword of the text in a PNG file.
const KEYWORD: &str = "cluegate";

/// Gate, constitution and decision of a released picture, as a text for its file: whoever has the file finds the decision in
/// the log. Anybody can remove the text, or write one like it; it proves nothing. Written into a file, the pixels stay as they
/// are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp(String);

impl Stamp {
    /// The stamp of a decision.
    pub(crate) fn of(decision: &DecisionRecord) -> Self {
        let version = env!("CARGO_PKG_VERSION");
        let (revision, id) = (&decision.constitution.revision, &decision.decision_id);
        Self(format!("gate=cluegate {version}; constitution={revision}; decision={id}"))
    }

    /// The text: the gate with its version, the revision of the constitution in hexadecimal, and the decision's id in the log.
    pub fn text(&self) -> &str {
        &self.0
    }

    /// A file of `format` with the text; one of WebP has no place for it and stays as it is.
    pub(crate) fn on(&self, file: Bytes, format: FileFormat) -> Result<Bytes, GateError> {
        match format {
            FileFormat::Png => self.on_png(&file).map(Bytes::from),
            FileFormat::Jpeg(_) => self.on_jpeg(&file).map(Bytes::from),
            FileFormat::WebP => Ok(file),
        }
    }

    /// The PNG file `png` with the text under the keyword `cluegate`.
    ///
    /// # Errors
    /// If it is no PNG file.
    pub fn on_png(&self, png: &[u8]) -> Result<Vec<u8>, GateError> {
        png_with_text(png, KEYWORD, &self.0).ok_or_else(|| refused("PNG"))
    }

    /// The JPEG file `jpeg` with the text as its comment.
    ///
    /// # Errors
    /// If it is no JPEG file.
    pub fn on_jpeg(&self, jpeg: &[u8]) -> Result<Vec<u8>, GateError> {
        jpeg_with_comment(jpeg, &self.0).ok_or_else(|| refused("JPEG"))
    }
}

fn refused(format: &str) -> GateError {
    GateError::Encode(format!("expected a {format} file to write its provenance into"))
}
