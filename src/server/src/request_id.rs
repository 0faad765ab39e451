//! The name of a request.

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::request::Parts;

use crate::problem::Problem;

/// Longest name that a client may give.
const LONGEST: usize = 128;

/// A request's name in logs, decisions and the answer: the client's `x-request-id` if it is a harmless word, else a UUID.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RequestId(Arc<str>);

impl RequestId {
    /// The name of a request with these headers.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let named = headers.get("x-request-id").and_then(|value| value.to_str().ok());
        named.and_then(Self::named).unwrap_or_else(|| Self(uuid::Uuid::now_v7().to_string().into()))
    }

    /// The name that a client gave, if it is a harmless word: up to 128 ASCII letters, digits, `-`, `_`, `.` and `:`.
    pub(crate) fn named(name: &str) -> Option<Self> {
        let harmless = (1..=LONGEST).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte));
        harmless.then(|| Self(name.into()))
    }

    /// What a body is told that names a request otherwise.
    pub(crate) fn expected() -> Problem {
        Problem::bad_request("`request_id` must have from 1 to 128 letters, digits, `-`, `_`, `.` or `:`")
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl<S: Send + Sync> FromRequestParts<S> for RequestId {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Ok(parts.extensions.get::<Self>().cloned().unwrap_or_else(|| Self::of(&parts.headers)))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_harmless_name_is_taken_and_another_replaced() {
        let named = |name: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("x-request-id", name.parse().unwrap());
            RequestId::of(&headers).as_str().to_owned()
        };
        assert_eq!(named("job-17:a.b_c"), "job-17:a.b_c");
        for odd in ["a b", "<script>", "", "\u{e9}", &"x".repeat(129)] {
            assert_eq!(named(odd).len(), 36, "{odd}");
        }
    }
}
