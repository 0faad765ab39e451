//! The gateway between clients and a text-to-image server. A client keeps its code and changes the address; nothing
//! reaches it that its tenant's policy did not release.
//!
//! ```text
//! client -> listen -> router: key, deadline, limits -> front (A1111, OpenAI, ComfyUI, sd.cpp)
//!                                                        |  PictureRequest
//!                                                        v
//!                                 admission -> drawing: a session of the gate on a thread of its own
//!                                                        |  Order          ^  Event: unjudged pictures
//!                                                        v                 |
//!                                                      upstream (A1111, OpenAI, ComfyUI, sd.cpp, built-in)
//!
//! client <- front: its own dialect <- Outcome, Shown: encoded from what the session released, and nothing else
//! ```
//!
//! A front reads its dialect into a [`PictureRequest`] and writes outcomes back; an [`Upstream`] takes an [`Order`] and
//! sends [`Event`]s. Neither sees the other, so that any front works over any upstream that can express the request.
//! What an upstream sends is [`Unjudged`], which has no way into a response: only a `Shown` has one, and it is made from what
//! the session released.

mod access;
mod admin;
mod admission;
mod app;
mod body;
mod client;
mod comfyui;
pub mod config;
mod deadline;
mod drawing;
mod expiry;
mod fetch;
mod front;
mod json;
mod kept;
pub mod keys;
mod listen;
mod live;
mod measure;
mod memory;
mod openapi;
mod outcome;
mod pictures;
mod problem;
mod quota;
mod request;
mod request_id;
mod review;
mod router;
mod running;
mod sessions;
mod socket;
mod tls;
pub mod upstream;

pub use app::{App, Services};
pub use config::{Config, ConfigError, RawConfig};
pub use keys::{KeyError, KeyFile, KeyKind, NewKey};
pub use listen::{Server, ServerError};
pub use live::{Files, Loaded, PolicySource, Proposal, ReloadError, Stored};
pub use memory::keep_memory;
pub use problem::{Problem, ProblemKind};
pub use request::{Dialect, Native, PictureRequest, Source};
pub use tls::check as check_tls;
pub use upstream::{Event, Order, Progress, Unjudged, Upstream, UpstreamError, UpstreamErrorKind};
