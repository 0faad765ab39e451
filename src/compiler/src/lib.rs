//! From prose to a constitution that a judge can follow (CLUE s 3.1 and 3.3, the part that runs offline).
//!
//! Prose is split into rules by rules; a text model says of each how objective it is and puts it in better words, takes
//! it apart into preconditions and names their central words. What it answers is read by a grammar, repaired by stated
//! rules or refused with the reason; nothing is dropped silently.
//!
//! ```text
//! templates/   the prompts, each overridable
//! grammar/     what may be answered, and how that is read
//! split.rs     prose -> rules, and what is none
//! compile.rs   one rule: objectify, set parameters, take apart, name what decides
//! ask.rs       one question: from the record, the cache or the model; once more where the form is wrong
//! parameters.rs numbers inside a rule
//! guard.rs     rules that speak to the model, wordings that lost their subject
//! record.rs    what is kept beside the constitution, and what a reviewer decided
//! review.rs    what a reviewer sees
//! recording.rs a text model that was recorded
//! ```
//!
//! The compiler asks any [`VisionLanguageModel`](cluegate_perception::VisionLanguageModel), without pictures: a local
//! checkpoint, an engine on another machine, a recording, a script in tests.

mod ask;
mod compilation;
mod compile;
pub mod grammar;
mod guard;
mod parameters;
mod record;
mod recording;
pub mod review;
mod split;
mod templates;
mod text;
pub mod truth;
mod write;

pub use ask::{Asked, Failure, FailureKind};
pub use compilation::{
    Cause, Compilation, CompileError, Compiled, CompiledStatement, Failed, Link, Note, NoteKind, Options,
    Wording,
};
pub use compile::Compiler;
pub use record::{
    Decision, Earlier, MAX_RECORD_BYTES, ModelName, Record, RecordError, Review, Reviews, constitution,
};
pub use recording::{Exchange, MAX_RECORDING_BYTES, Recording, RecordingError, RecordingFile};
pub use split::{LeftOut, MAX_PROSE_BYTES, MAX_RULES, ProseError, Source, Split, split};
pub use templates::{MAX_TEMPLATE_BYTES, Step, TemplateError, Templates};
