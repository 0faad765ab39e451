//! Bodies of requests: read whole before any front sees them, within limits of bytes, of time, and of what all of them
//! may take together.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, HttpBody};
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

/// Room for the bodies of all requests.
#[derive(Debug)]
pub(crate) struct Room {
    bytes: Arc<Semaphore>,
    limits: ServerLimits,
}

/// A body, and the room that it takes.
pub(crate) struct Read {
    pub(crate) bytes: Bytes,
    pub(crate) room: Option<OwnedSemaphorePermit>,
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
            return Ok(Read { bytes: Bytes::new(), room: None });
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
        Ok(Read { bytes: bytes.freeze(), room })
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
