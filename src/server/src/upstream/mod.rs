//! Text-to-image servers behind the gate.

mod a1111;
mod builtin;
mod comfyui;
mod driven;
mod http;
mod openai;
pub(crate) mod sdcpp;

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use cluegate_gate::policy::PreviewSchedule;
use cluegate_gate::{Generator, SafetyGuidance};
use cluegate_perception::{DecodeError, DecodeOptions, Picture};
use futures_util::future::BoxFuture;
use serde_json::Value;
use thiserror::Error;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub use self::driven::DrivenUpstream;

use self::builtin::BuiltIn;
use self::comfyui::ComfyUi;
use self::sdcpp::SdCpp;
use crate::config::{ConfigError, UpstreamConfig, UpstreamKind};
use crate::request::{Dialect, PictureRequest};

/// Events of an order that may wait for the gate beside those that must arrive.
const SPARE: usize = 4;
/// Most events that may wait.
const MOST_EVENTS: usize = 1024;

/// A text-to-image server that the gate draws with.
pub trait Upstream: Send + Sync {
    /// How it is spoken to.
    fn dialect(&self) -> Dialect;

    /// Identity for the log, without secrets: its kind and address.
    fn fingerprint(&self) -> &str;

    /// Most pictures of one order, at least 1.
    fn batch_size(&self) -> u32;

    /// Refuses what it cannot express, before anything is drawn. A parameter that it would ignore is refused too: a
    /// client must not believe in what did not happen.
    ///
    /// # Errors
    /// [`UpstreamErrorKind::Inexpressible`], naming the parameter.
    fn check(&self, request: &PictureRequest) -> Result<(), UpstreamError>;

    /// Draws the pictures of `order`. Sends each picture once, as [`Event::Picture`], and ends. When `order.cancel` is
    /// cancelled it stops the server's work, not only its own waiting, and ends with `Cancelled`. Where the receiver of
    /// `events` is gone it stops too.
    ///
    /// # Errors
    /// If the server fails; pictures that were sent before count.
    fn draw<'a>(
        &'a self,
        order: &'a Order,
        events: mpsc::Sender<Event>,
    ) -> BoxFuture<'a, Result<(), UpstreamError>>;

    /// Whether it would draw now: for `/readyz`.
    ///
    /// # Errors
    /// Why not.
    fn ready(&self) -> BoxFuture<'_, Result<(), UpstreamError>>;

    /// What the server tells about `what` in its own dialect, such as `object_info` of ComfyUI; `None` if it tells nothing
    /// about it. For fronts of the same dialect, which pass on what they know to be harmless.
    ///
    /// # Errors
    /// If the server does not answer.
    fn describe(&self, what: &'static str) -> BoxFuture<'_, Result<Option<Value>, UpstreamError>> {
        let _ = what;
        Box::pin(async { Ok(None) })
    }
}

/// The upstream that a configuration names. `generator` is the one in this process, for `builtin`.
///
/// # Errors
/// If its key or certificates cannot be read, or there is no generator where one is named.
pub fn open(
    config: &UpstreamConfig,
    generator: Option<Arc<dyn Generator>>,
) -> Result<Arc<dyn Upstream>, ConfigError> {
    let missing = || ConfigError::Value {
        origin: "the configuration".to_owned(),
        path: "upstream.kind".to_owned(),
        expected: "a server, or models with a generator for `builtin`".to_owned(),
        found: "builtin".to_owned(),
    };
    match config.kind {
        UpstreamKind::BuiltIn => Ok(Arc::new(BuiltIn::new(config, generator.ok_or_else(missing)?))),
        UpstreamKind::SdCpp => Ok(Arc::new(SdCpp::new(config)?)),
        UpstreamKind::ComfyUi => Ok(Arc::new(ComfyUi::new(config)?)),
        UpstreamKind::A1111 => Ok(a1111::A1111::new(config)?),
        UpstreamKind::OpenAi => Ok(Arc::new(openai::OpenAi::new(config)?)),
    }
}

/// One call of an upstream, for pictures with consecutive seeds.
#[derive(Debug, Clone)]
pub struct Order {
    /// What is asked for. Its `count` and `seed` are those of the whole request: `count` and `seed` below hold here.
    pub request: Arc<PictureRequest>,
    /// Index in the request of the order's first picture; picture `i` of the order is picture `first + i` there.
    pub first: u32,
    /// Number of pictures, from 1 to the upstream's batch size.
    pub count: u32,
    /// Seed of the first picture; picture `i` has `seed + i`.
    pub seed: u64,
    /// From 1.
    pub attempt: u32,
    /// Statements that made an earlier attempt violate a rule: words for a negative prompt.
    pub avoid: Vec<String>,
    /// How the built-in generator is guided away from them; servers take them as a negative prompt.
    pub safety: SafetyGuidance,
    /// After which steps previews may end a drawing. Others are of use to the client's eyes only.
    pub previews: PreviewSchedule,
    /// Whether the client may see previews, so that every one is of use.
    pub show_previews: bool,
    /// When nobody waits any more.
    pub deadline: Instant,
    /// Ends the order at once.
    pub cancel: CancellationToken,
}

impl Order {
    /// The negative prompt: the request's own, and what is to be avoided.
    pub fn negative_prompt(&self) -> Option<String> {
        let own = self.request.negative_prompt.iter().filter(|text| !text.is_empty());
        let parts: Vec<&str> = own.chain(&self.avoid).map(String::as_str).collect();
        (!parts.is_empty()).then(|| parts.join(", "))
    }

    /// Whether previews are of any use.
    pub fn wants_previews(&self) -> bool {
        self.show_previews || !self.previews.is_empty()
    }

    /// A channel for its events, with room for every picture and every preview that the policy asks for, so that whoever draws
    /// does not wait for whoever judges.
    pub fn channel(&self) -> (mpsc::Sender<Event>, mpsc::Receiver<Event>) {
        let pictures = usize::try_from(self.count).unwrap_or(usize::MAX);
        mpsc::channel(pictures.saturating_mul(self.previews.len() + 1).saturating_add(SPARE).min(MOST_EVENTS))
    }

    /// Sends a preview. One that the policy asks for is waited for; another is left out where others wait already.
    pub(crate) async fn send_preview(&self, events: &mpsc::Sender<Event>, preview: Event) {
        match &preview {
            Event::Preview { step, total, .. } if self.previews.is_due(*step, *total) => {
                let _ = events.send(preview).await;
            }
            _ => send_if_room(events, preview),
        }
    }
}

/// Sends what is out of date soon, unless others wait already: it takes no room from what has to arrive.
pub(crate) fn send_if_room(events: &mpsc::Sender<Event>, event: Event) {
    if events.max_capacity() - events.capacity() < SPARE {
        // Whoever listened may have gone, which shows elsewhere.
        let _ = events.try_send(event);
    }
}

/// What an upstream tells of an order.
#[derive(Debug)]
pub enum Event {
    /// How far it is.
    Progress(Progress),
    /// Picture `index` of the order as it looks after `step` of `total` steps.
    Preview {
        /// From 0.
        index: u32,
        /// Finished steps.
        step: u32,
        /// All steps.
        total: u32,
        /// The picture.
        picture: Unjudged,
    },
    /// Picture `index` of the order is finished.
    Picture {
        /// From 0.
        index: u32,
        /// The picture.
        picture: Unjudged,
    },
    /// Picture `index` of the order could not be drawn; `why` completes "the generator failed: ...".
    Failed {
        /// From 0.
        index: u32,
        /// Why.
        why: String,
    },
}

/// How far an order is.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Progress {
    /// From 0 to 1.
    pub fraction: f64,
    /// Finished steps, if known.
    pub step: Option<u32>,
    /// All steps, if known.
    pub steps: Option<u32>,
}

/// A picture that nobody has judged. There is no way from here into a response: it can only be decoded, for the judge.
#[derive(Clone)]
pub struct Unjudged(Content);

#[derive(Clone)]
enum Content {
    Encoded(Bytes),
    Pixels(Picture),
}

impl Unjudged {
    /// A file of any format that the gate reads.
    pub fn encoded(bytes: impl Into<Bytes>) -> Self {
        Self(Content::Encoded(bytes.into()))
    }

    /// Pixels.
    pub fn pixels(picture: Picture) -> Self {
        Self(Content::Pixels(picture))
    }

    /// Decodes it for the judge.
    ///
    /// # Errors
    /// If it is no picture within the limits, or one whose look depends on the viewer and is not to be converted.
    pub(crate) fn decode(self, options: &DecodeOptions) -> Result<Picture, DecodeError> {
        match self.0 {
            Content::Encoded(bytes) => cluegate_perception::decode(&bytes, options),
            Content::Pixels(picture) => Ok(picture),
        }
    }
}

impl fmt::Debug for Unjudged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Content::Encoded(bytes) => write!(f, "Unjudged({} bytes)", bytes.len()),
            Content::Pixels(picture) => write!(f, "Unjudged({}x{})", picture.width(), picture.height()),
        }
    }
}

/// What went wrong with an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpstreamErrorKind {
    /// It has no words for what is asked: the client's error.
    Inexpressible,
    /// It refused the request as wrong: the client's error.
    Refused,
    /// It cannot be reached, or the connection broke.
    Unreachable,
    /// It said that it failed, or is overloaded.
    Failed,
    /// Its answer makes no sense: truncated, of another type, too large.
    Malformed,
    /// The deadline passed.
    Timeout,
    /// The order was cancelled.
    Cancelled,
}

impl UpstreamErrorKind {
    /// Stable name, for metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Inexpressible => "inexpressible",
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
            Self::Failed => "failed",
            Self::Malformed => "malformed",
            Self::Timeout => "timeout",
            Self::Cancelled => "cancelled",
        }
    }
}

/// An upstream that did not draw. As text it is for the operator's log: with the server's address and a few of its words.
/// No picture and no secret of ours is in it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{message}")]
pub struct UpstreamError {
    kind: UpstreamErrorKind,
    message: String,
    told: String,
}

impl UpstreamError {
    /// An error; `message` says what was expected, what came, and what to do, in words that clients may read.
    pub fn new(kind: UpstreamErrorKind, message: impl Into<String>) -> Self {
        let told = few_words(&message.into());
        Self { kind, message: told.clone(), told }
    }

    /// An error of the server at `address`, of which `said` are its own words. Clients learn no address, and words of the
    /// server's only where it blames the request: what else it says may be about its machine, its account or its key.
    pub(crate) fn of(kind: UpstreamErrorKind, address: &str, what: &str, said: &str) -> Self {
        let said = match server_words(said) {
            words if words.is_empty() => words,
            words => format!(": {words}"),
        };
        let may_know = kind == UpstreamErrorKind::Refused;
        Self {
            kind,
            message: few_words(&format!("the upstream {address}: {what}{said}")),
            told: few_words(&format!("the upstream: {what}{}", if may_know { said.as_str() } else { "" })),
        }
    }

    /// What kind of error.
    pub fn kind(&self) -> UpstreamErrorKind {
        self.kind
    }

    /// What a client may read of it.
    pub fn told(&self) -> &str {
        &self.told
    }

    /// The same as another kind of error.
    pub(crate) fn of_kind(self, kind: UpstreamErrorKind) -> Self {
        Self { kind, ..self }
    }
}

/// Most bytes of a message about an upstream.
const MESSAGE: usize = 600;
/// Most bytes of a server's own words in it.
const SAID: usize = 200;
/// Longest word in it: longer ones are no words but data, such as a picture in base64.
const WORD: usize = 120;
/// And of a stretch in it that could be a line of base64.
const STRETCH: usize = 32;

/// What may be told of a message in which a server may have had a hand: no control characters, no data, not much.
pub(crate) fn few_words(message: &str) -> String {
    shortened(message, MESSAGE)
}

/// What may be told of a server's own words. They are cut here and not before: half of a picture in base64 would pass for
/// a word.
pub(crate) fn server_words(said: &str) -> String {
    shortened(said, SAID)
}

fn shortened(message: &str, most: usize) -> String {
    let words = message.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty());
    let mut told = String::new();
    for word in words {
        let word =
            if is_data(word) { format!("[{} characters]", word.chars().count()) } else { word.to_owned() };
        if told.len() + word.len() > most {
            told.push_str(" ...");
            break;
        }
        if !told.is_empty() {
            told.push(' ');
        }
        told.push_str(&word);
    }
    told
}

/// Whether a word is no word: too long, or with a stretch of base64 in it, in either alphabet. Names of hosts, files and
/// digests, which have no capitals, are words.
fn is_data(word: &str) -> bool {
    let is_base64 = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/-_".contains(byte);
    let mut stretches = word.as_bytes().split(|byte| !is_base64(byte));
    word.chars().count() > WORD
        || stretches.any(|part| part.len() >= STRETCH && part.iter().any(u8::is_ascii_uppercase))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_holds_words_and_no_data() {
        let plain = "the upstream http://127.0.0.1:7860: it answered with status 500: out of memory";
        assert_eq!(few_words(plain), plain);
        let data = format!("failed:\n\u{0}{} at x", "iVBORw0K".repeat(40));
        assert_eq!(few_words(&data), "failed: [320 characters] at x");
        let long = few_words(&"word ".repeat(1000));
        assert!(long.len() <= MESSAGE + 4 && long.ends_with("word ..."), "{long}");
        assert_eq!(
            UpstreamError::new(UpstreamErrorKind::Failed, data).to_string(),
            "failed: [320 characters] at x"
        );
        // In lines, as `base64` writes it, behind a prefix, and in the alphabet for addresses.
        let line = "iVBORw0KGgoAAAANSUhEUgAAAEAAAABACAIAAAAlC+aJAAABwElEQVR4nO3ZMQ0AAAjE";
        for data in [
            format!("failed: {line}\n{line}"),
            format!("failed: data:image/png;base64,{line}"),
            format!("failed: {}", line.replace('+', "-").replace('/', "_")),
            format!("{} {line}", "word ".repeat(35)),
        ] {
            let told = server_words(&data);
            assert!(!told.contains("iVBORw0K") && !told.contains("R4nO3ZMQ0"), "{told}");
        }
    }

    #[test]
    fn clients_learn_no_address_and_what_the_server_says_only_where_it_blames_them() {
        let error = |kind| UpstreamError::of(kind, "http://10.1.2.3:7860", "it said no", "key sk-1 is spent");
        let failed = error(UpstreamErrorKind::Failed);
        assert_eq!(failed.to_string(), "the upstream http://10.1.2.3:7860: it said no: key sk-1 is spent");
        assert_eq!(failed.told(), "the upstream: it said no");
        let refused = error(UpstreamErrorKind::Refused);
        assert_eq!(refused.told(), "the upstream: it said no: key sk-1 is spent");
        assert_eq!(refused.of_kind(UpstreamErrorKind::Failed).kind(), UpstreamErrorKind::Failed);
    }
}
