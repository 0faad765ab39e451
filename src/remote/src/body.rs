//! The body of a request: JSON around a picture that all requests about it share.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use serde_json::Value;

use crate::error::{RemoteError, RemoteErrorKind};

/// JSON in pieces: what comes before a picture's data URL, the URL, and what follows. Copies share the pieces, and requests
/// about one picture share its URL: of a picture of megabytes there is one copy, however many questions wait.
#[derive(Debug, Clone)]
pub(crate) struct Body([Bytes; 3]);

impl Body {
    /// The JSON that `json` makes of a data URL, or of none.
    ///
    /// # Errors
    /// `Refused` if `json` does not show the URL exactly once.
    pub(crate) fn new(
        url: Option<&Bytes>,
        json: impl FnOnce(Option<&str>) -> Value,
    ) -> Result<Self, RemoteError> {
        let Some(url) = url else {
            return Ok(Self([json(None).to_string().into(), Bytes::new(), Bytes::new()]));
        };
        // Nobody can have put it into a text before: it is random, and made here.
        let mark = uuid::Uuid::now_v7().to_string();
        let text = Bytes::from(json(Some(&mark)).to_string());
        let mut places = find(&text, mark.as_bytes());
        let (Some(place), None) = (places.next(), places.next()) else {
            let message = "expected the picture once in its request";
            return Err(RemoteError::new(RemoteErrorKind::Refused, "the picture", message));
        };
        Ok(Self([text.slice(..place), url.clone(), text.slice(place + mark.len()..)]))
    }

    fn bytes(&self) -> u64 {
        self.0.iter().map(|piece| piece.len() as u64).sum()
    }
}

/// Where `word` begins in `text`.
fn find<'a>(text: &'a [u8], word: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
    text.windows(word.len()).enumerate().filter(move |(_, window)| *window == word).map(|(place, _)| place)
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let next = self.0.iter_mut().find(|piece| !piece.is_empty());
        Poll::Ready(next.map(|piece| Ok(Frame::data(std::mem::take(piece)))))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes() == 0
    }

    fn size_hint(&self) -> SizeHint {
        // Sent as content-length: not every server takes a body in chunks.
        SizeHint::with_exact(self.bytes())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;

    use super::*;

    #[test]
    fn requests_about_a_picture_share_it() {
        let url = Bytes::from(format!("data:image/png;base64,{}", "A".repeat(1 << 20)));
        let bodies: Vec<Body> = (0..576)
            .map(|n| Body::new(Some(&url), |url| json!({"n": n, "url": url, "text": "a \"b\""})).unwrap())
            .collect();
        for (n, body) in bodies.iter().enumerate() {
            let copy = body.clone();
            assert_eq!([body.0[1].as_ptr(), copy.0[1].as_ptr()], [url.as_ptr(); 2], "another copy");
            let own: usize = [0, 2].map(|piece| body.0[piece].len()).iter().sum();
            assert!(own < 100, "{own} bytes of its own");
            let all: Value = serde_json::from_slice(&body.0.concat()).unwrap();
            assert_eq!(all, json!({"n": n, "url": std::str::from_utf8(&url).unwrap(), "text": "a \"b\""}));
            assert_eq!(body.bytes(), body.0.concat().len() as u64);
        }
    }

    #[test]
    fn a_picture_that_is_not_shown_or_twice_is_refused() {
        let url = Bytes::from_static(b"data:");
        assert!(Body::new(Some(&url), |_| json!({})).is_err());
        assert!(Body::new(Some(&url), |url| json!([url, url])).is_err());
        assert_eq!(Body::new(None, |url| json!([url])).unwrap().0.concat(), b"[null]");
    }
}
