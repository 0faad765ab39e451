//! What a host asks the gate for.

use std::time::Instant;

use cluegate_perception::FileFormat;

use crate::signing::Origin;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RequestInfo {
    /// Whose policy applies.
    pub tenant: String,
    /// What to draw.
    pub prompt: String,
    /// Seed of the first picture; the others follow.
    pub seed: u64,
    /// Number of pictures.
    pub count: u32,
    /// The caller's name for the request; the gate makes one if there is none.
    pub id: Option<String>,
    /// The generation model by the name that the client uses, which chooses among the policy's `model` tables. None
    /// chooses the tenant's own keys.
    pub model: Option<String>,
    /// Id of the API key that the request came with, for the log.
    pub requested_by: Option<String>,
    /// The end user on whose behalf the client asks, as the client names them, for the log.
    pub subject: Option<String>,
    /// Fingerprint of the generator, for the log.
    pub generator: Option<String>,
    /// Width and height of the pictures, for placeholders where nothing was drawn.
    pub size: Option<(u32, u32)>,
    /// Until when the requester waits, if that is sooner than the policy's `request_deadline`.
    pub deadline: Option<Instant>,
    /// Most attempts at one picture, if the host can make fewer than the policy's `tries`: 1 for a host that has a
    /// finished picture and no generator.
    pub max_tries: Option<u32>,
    /// Whether a client of a gateway draws, which may know no more than the policy's `client` says: how to draw again is
    /// told with `client.evidence` or `client.instructions` only, and without it another attempt has another seed and
    /// nothing else. A host that is one process with the gate knows everything anyway.
    pub drawn_by_client: bool,
    /// Denoising steps of an attempt, if the host knows them: for the policy's bounds and the cost in the log.
    pub steps: Option<u32>,
    /// How the files of released pictures will be written: under `provenance = "c2pa"` a file is signed before its decision is
    /// logged.
    pub file: FileFormat,
    /// Where the pictures come from, for such files.
    pub origin: Origin,
}

impl RequestInfo {
    /// A request for `count` pictures.
    pub fn new(tenant: impl Into<String>, prompt: impl Into<String>, seed: u64, count: u32) -> Self {
        Self { tenant: tenant.into(), prompt: prompt.into(), seed, count, ..Self::default() }
    }
}
