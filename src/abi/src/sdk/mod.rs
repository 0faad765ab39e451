//! The kit for plugins in Rust: traits with safe values, and the functions between them and the tables.

mod abilities;
mod error;
mod traits;
mod values;

pub use abilities::Abilities;
pub use error::{ErrorCode, PluginError};
pub use traits::{
    Answer, AnswerScore, Call, Classification, Classify, Control, Drawn, Edit, Generate, Host, Inpaint,
    Label, LogLevel, Plugin, Preview, Publish, Redact, Rewrite, Rewriting, Setup, Steps,
};
pub use values::{Draw, DrawSource, LatentView, PictureBuf, PictureView, Region};
