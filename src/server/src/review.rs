//! Pictures that wait for a person.

use std::io;
use std::path::PathBuf;

use cluegate_gate::HeldPicture;

/// A folder that only its owner may look into, with a PNG file for each held picture, named by its decision.
#[derive(Debug)]
pub(crate) struct Review {
    folder: PathBuf,
}

impl Review {
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Keeps a picture. One that cannot be kept is reported in the log: the requester gets nothing either way.
    pub(crate) fn keep(&self, held: &HeldPicture) {
        if let Err(error) = self.write(held) {
            tracing::error!(decision = %held.decision().decision_id, %error, "a held picture could not be kept");
        }
    }

    /// Writes it under another name, and then renames it.
    fn write(&self, held: &HeldPicture) -> io::Result<()> {
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(&self.folder)?;
        let bytes = held.encode_png_for_review().map_err(|error| io::Error::other(error.to_string()))?;
        let id = &held.decision().decision_id;
        let (part, whole) = (self.folder.join(format!("{id}.part")), self.folder.join(format!("{id}.png")));
        std::fs::write(&part, bytes).and_then(|()| std::fs::rename(&part, whole)).inspect_err(|_| {
            // May never have been made; the error that matters is the first one.
            let _ = std::fs::remove_file(&part);
        })
    }
}
