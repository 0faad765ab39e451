//! Bodies of requests: read whole before any front sees them, within limits of bytes, of time, and of what all of them
//! may take together.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::ServerLimits;
use crate::deadline::Deadline;
use crate::problem::{Problem, ProblemKind};

/// What is read of a body that nobody wants, so that its sender gets to read the refusal: a connection that is closed
/// with bytes unread is reset.
const DISCARDED: u64 = 4 << 20;
/// How long that may take.
const DISCARDING: Duration = Duration::from_secs(2);
/// Most values of a JSON body: several times what the largest workflow has.
const VALUES: usize = 250_000;
/// Values that cost a body no room beside its bytes.
const FREE_VALUES: usize = 1000;
/// What each further one takes of the room: a value in memory is many times as large as its text, up to some 300 bytes
/// for two bytes of `{"":0}`.
const VALUE_BYTES: usize = 256;

/// Room for the bodies of all requests.
#[derive(Debug)]
pub(crate) struct Room {
    bytes: Arc<Semaphore>,
    limits: ServerLimits,
}

/// A body, and the room that it takes.
pub(crate) struct Read {
    pub(crate) bytes: Bytes,
    pub(crate) room: Taken,
}

/// The room that a request's body takes. Whoever works on after the answer, with pictures of the body in its hands, keeps
/// a copy until it has ended.
#[derive(Debug, Clone, Default)]
pub(crate) struct Taken(#[allow(dead_code)] Option<Arc<OwnedSemaphorePermit>>);

impl<S: Send + Sync> FromRequestParts<S> for Taken {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Ok(parts.extensions.get::<Self>().cloned().unwrap_or_default())
    }
}

impl Room {
    pub(crate) fn new(limits: ServerLimits) -> Self {
        Self { bytes: Arc::new(Semaphore::new(limits.bodies_bytes.min(Semaphore::MAX_PERMITS))), limits }
    }

    /// Reads a body to its end.
    ///
    /// # Errors
    /// `TooLarge`, `RequestTimeout`, `DeadlineExceeded` if the client itself waits for less, `Overloaded` if the bodies of
    /// others take all the room, `BadRequest` if it breaks off.
    pub(crate) async fn read(&self, body: Body, deadline: Deadline) -> Result<Read, Problem> {
        if body.is_end_stream() {
            return Ok(Read { bytes: Bytes::new(), room: Taken::default() });
        }
        // Known before the client is told to go on and send it.
        if body.size_hint().lower() > self.limits.body_bytes as u64 {
            return Err(self.too_large());
        }
        tokio::select! {
            read = self.collect(body) => read,
            () = tokio::time::sleep(self.limits.body_timeout) => {
                let ms = self.limits.body_timeout.as_millis();
                let message = format!("the request's body did not arrive within {ms} ms; send it faster, or less");
                Err(Problem::new(ProblemKind::RequestTimeout, message))
            }
            () = tokio::time::sleep_until(deadline.0.into()) => {
                let message = "the request's deadline passed while its body arrived";
                Err(Problem::new(ProblemKind::DeadlineExceeded, message))
            }
        }
    }

    async fn collect(&self, body: Body) -> Result<Read, Problem> {
        let (mut bytes, mut room) = (BytesMut::new(), None::<OwnedSemaphorePermit>);
        let mut chunks = body.into_data_stream();
        while let Some(chunk) = chunks.next().await {
            let broken =
                |_| Problem::bad_request("the request's body broke off, or is not encoded as its head says");
            let chunk = chunk.map_err(broken)?;
            if chunk.len() > self.limits.body_bytes - bytes.len() {
                return Err(self.too_large());
            }
            let more = self.take(chunk.len())?;
            match &mut room {
                Some(room) => room.merge(more),
                None => room = Some(more),
            }
            bytes.extend_from_slice(&chunk);
        }
        if let Some(room) = &mut room {
            let values = json_values(&bytes);
            if values > VALUES {
                let message = format!("the request's body holds more than the {VALUES} JSON values allowed");
                return Err(Problem::new(ProblemKind::TooLarge, message));
            }
            room.merge(self.take(values.saturating_sub(FREE_VALUES) * VALUE_BYTES)?);
        }
        Ok(Read { bytes: bytes.freeze(), room: Taken(room.map(Arc::new)) })
    }

    fn take(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Problem> {
        let all =
            u32::try_from(bytes).ok().and_then(|n| Arc::clone(&self.bytes).try_acquire_many_owned(n).ok());
        all.ok_or_else(|| {
            let message = format!(
                "the bodies of the requests in work take all of the {} bytes that they may; come back later",
                self.limits.bodies_bytes
            );
            Problem::new(ProblemKind::Overloaded, message).retry_after(self.limits.retry_after)
        })
    }

    fn too_large(&self) -> Problem {
        let message =
            format!("the request's body is larger than the {} bytes allowed", self.limits.body_bytes);
        Problem::new(ProblemKind::TooLarge, message)
    }
}

/// How many values a body has at most if it is read as JSON, whatever type it says it has: one, and another for every
/// bracket that opens and every comma outside of texts. A body that begins neither a list nor an object has no more than
/// one.
fn json_values(body: &[u8]) -> usize {
    if !matches!(body.trim_ascii_start().first(), Some(b'[' | b'{')) {
        return 1;
    }
    let (mut values, mut rest) = (1, body);
    loop {
        let text = memchr::memchr(b'"', rest);
        let (outside, inside) = rest.split_at(text.unwrap_or(rest.len()));
        values += outside.iter().filter(|byte| matches!(byte, b'[' | b'{' | b',')).count();
        let Some((_, mut inside)) = inside.split_first() else { return values };
        // To the end of the text.
        loop {
            match memchr::memchr2(b'"', b'\\', inside) {
                None => return values,
                Some(end) if inside.get(end) == Some(&b'"') => {
                    rest = inside.get(end + 1..).unwrap_or_default();
                    break;
                }
                // What follows the backslash ends no text.
                Some(escape) => inside = inside.get(escape + 2..).unwrap_or_default(),
            }
        }
    }
}

/// Reads a little of a body that nobody wants, and keeps none of it.
pub(crate) async fn discard(body: Body) {
    if body.is_end_stream() || body.size_hint().lower() > DISCARDED {
        return;
    }
    let mut chunks = body.into_data_stream();
    let discarded = async {
        let mut left = DISCARDED;
        while let Some(Ok(chunk)) = chunks.next().await {
            left = left.saturating_sub(chunk.len() as u64);
            if left == 0 {
                break;
            }
        }
    };
    // Late or not: the refusal is sent now.
    let _ = tokio::time::timeout(DISCARDING, discarded).await;
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn count(value: &Value) -> usize {
        match value {
            Value::Array(values) => 1 + values.iter().map(count).sum::<usize>(),
            Value::Object(fields) => 1 + fields.values().map(count).sum::<usize>(),
            _ => 1,
        }
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let text = || prop_oneof!["[\\[\\]{},:\"\\\\ a]{0,8}", "\\PC{0,4}"];
        let leaf =
            prop_oneof![Just(json!(null)), any::<i32>().prop_map(Value::from), text().prop_map(Value::from)];
        leaf.prop_recursive(5, 60, 6, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::vec((text(), inner), 0..6)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn no_json_has_more_values_than_are_counted(value in any_json(), pretty in any::<bool>()) {
            let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) };
            let counted = json_values(text.unwrap().as_bytes());
            prop_assert!(count(&value) <= counted && counted <= 2 * count(&value) + 1, "{value}");
        }

        #[test]
        fn any_bytes_are_counted_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..60), quotes in "[\"\\\\{,]{0,12}") {
            let body: Vec<u8> = b"[".iter().copied().chain(quotes.bytes()).chain(bytes).collect();
            prop_assert!(json_values(&body) <= 1 + body.len());
        }
    }

    #[test]
    fn a_text_is_one_value_whatever_it_holds() {
        assert_eq!(json_values(br#" {"a": "[{,\\", "b": "\",,,"}"#), 3);
        for whole in [&b""[..], b"  ", b"null", b"\"a,b\"", b"--form\r\n,,,,"] {
            assert_eq!(json_values(whole), 1);
        }
    }
}
