//! The perception traits over an OpenAI-compatible inference engine on another machine: vLLM, SGLang, or a cluster of
//! them behind a router.
//!
//! ```text
//! options.rs    what a user writes: endpoints, model, key, bounds
//! handshake.rs  at start and after failures: is this the model, are there log-probabilities, does it see the picture?
//! relevance.rs  pictures and texts -> embeddings
//! judge.rs      questions -> requests, all at once; answers -> scores
//! text.rs       the same without pictures
//! chat.rs       one question as a chat request, and what comes back
//! answers.rs    log-probabilities -> masses of Yes and No, or an error where what is missing could decide
//! body.rs       a request's JSON around a picture, of which there is one copy
//! client.rs     one request: endpoint, attempts, deadline
//! exchange.rs   one attempt: HTTP, and what a status means
//! endpoints.rs  which endpoint: fit, least loaded, the one that has seen the picture
//! ```
//!
//! Whoever asks is an ordinary thread; requests run on threads of this crate's own. Nothing is scored that was not
//! answered: whatever goes wrong is a typed error, and the gate fails closed.

mod answers;
mod body;
mod chat;
mod client;
mod endpoints;
mod error;
mod exchange;
mod handshake;
mod judge;
mod options;
mod picture;
mod relevance;
mod retry;
mod secret;
mod spellings;
mod text;

pub use error::{RemoteError, RemoteErrorKind};
pub use judge::RemoteJudge;
pub use options::{Dialect, RemoteOptions, RetryOptions};
pub use relevance::RemoteRelevance;
pub use secret::Secret;
pub use text::RemoteText;
