//! From prose to a constitution that a judge can follow (CLUE s 3.1 and 3.3, the part that runs offline).
//!
//! Prose is split into rules by rules; a text model says of each how objective it is and puts it in better words, takes
//! it apart into preconditions and names their central words. What it answers is read by a grammar, repaired by stated
//! rules or refused with the reason; nothing is dropped silently.
//!
//! ```text
//! templates/   the prompts, each overridable
//! grammar/     what may be answered, and how that is read
//! recording.rs a text model that was recorded
//! ```
//!
//! The compiler asks any [`VisionLanguageModel`](cluegate_perception::VisionLanguageModel), without pictures: a local
//! checkpoint, an engine on another machine, a recording, a script in tests.

pub mod grammar;
mod recording;
mod templates;
mod text;

pub use recording::{Exchange, MAX_RECORDING_BYTES, Recording, RecordingError, RecordingFile};
pub use templates::{MAX_TEMPLATE_BYTES, Step, TemplateError, Templates};
