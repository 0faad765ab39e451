//! Until when a client waits.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::request::Parts;

/// Our own header: milliseconds.
const MILLISECONDS: &str = "x-cluegate-timeout-ms";
/// What the OpenAI clients send of their read time-out: seconds (openai-python `_base_client.py`, `_build_headers`).
const STAINLESS: &str = "x-stainless-read-timeout";

/// The moment after which a request is of no use: the client's time-out as far as it names one, and never later than the
/// server allows. Upstream and judge share it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Deadline(pub(crate) Instant);

impl Deadline {
    /// The deadline of a request with these headers that begins now and may last `longest`.
    pub(crate) fn of(headers: &HeaderMap, longest: Duration) -> Self {
        let number = |name: &str| headers.get(name)?.to_str().ok()?.trim().parse::<f64>().ok();
        let asked = number(MILLISECONDS).map(|ms| ms / 1000.0).or_else(|| number(STAINLESS));
        let asked = asked.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        Self(Instant::now() + asked.map_or(longest, |asked| asked.min(longest)))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Deadline {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        // The router sets it on every gated route; without one nobody waits, and nothing is drawn.
        Ok(parts.extensions.get::<Self>().copied().unwrap_or(Self(Instant::now())))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    fn seconds(name: &'static str, value: &str) -> f64 {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().unwrap());
        let deadline = Deadline::of(&headers, Duration::from_secs(100));
        deadline.0.saturating_duration_since(Instant::now()).as_secs_f64()
    }

    #[test]
    fn the_clients_word_counts_up_to_the_servers() {
        assert!((4.0..=5.0).contains(&seconds(MILLISECONDS, "5000")));
        assert!((8.0..=9.0).contains(&seconds(STAINLESS, "9.0")));
        for (name, value) in [
            (STAINLESS, "1e9"),
            (STAINLESS, "NOT_GIVEN"),
            (STAINLESS, "-3"),
            (MILLISECONDS, "nan"),
            (MILLISECONDS, "inf"),
        ] {
            assert!((99.0..=100.0).contains(&seconds(name, value)), "{name}: {value}");
        }
    }

    proptest! {
        #[test]
        fn no_header_names_a_deadline_beyond_the_servers_or_panics(
            ms in prop_oneof![
                any::<f64>().prop_map(|number| number.to_string()),
                "[-+]?[0-9.eE]{0,24}".prop_map(String::from),
                prop::collection::vec(any::<u8>(), 0..24).prop_map(|bytes| String::from_utf8_lossy(&bytes).into_owned()),
            ],
            seconds in prop::collection::vec(any::<u8>(), 0..24),
        ) {
            let mut headers = HeaderMap::new();
            for (name, value) in [(MILLISECONDS, ms.as_bytes()), (STAINLESS, seconds.as_slice())] {
                if let Ok(value) = axum::http::HeaderValue::from_bytes(value) {
                    headers.append(name, value);
                }
            }
            let begin = Instant::now();
            let deadline = Deadline::of(&headers, Duration::from_secs(100));
            prop_assert!(begin <= deadline.0 && deadline.0 <= Instant::now() + Duration::from_secs(100));
        }
    }
}
