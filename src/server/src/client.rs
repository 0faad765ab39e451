//! Who asks.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use crate::keys::KeyFile;
use crate::problem::{Problem, ProblemKind};

/// Within which wrong keys are counted.
const WINDOW: Duration = Duration::from_secs(60);
/// Most addresses whose wrong keys are counted; beyond them the oldest are forgotten.
const ADDRESSES: usize = 65_536;
/// Where a key may stand beside `Authorization`.
pub(crate) const KEY_HEADER: &str = "x-api-key";

/// Who asks: the owner of the key that came with the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Client {
    /// Whose policy applies.
    pub(crate) tenant: Arc<str>,
    /// Name of the key, for logs; `anonymous` without one.
    pub(crate) key: Arc<str>,
    /// Where from.
    pub(crate) peer: IpAddr,
}

impl<S: Send + Sync> FromRequestParts<S> for Client {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        let missing = || Problem::new(ProblemKind::Unauthenticated, "the request has no owner");
        parts.extensions.get::<Self>().cloned().ok_or_else(missing)
    }
}

/// Where a connection comes from, as the listener saw it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub(crate) IpAddr);

impl Default for Peer {
    fn default() -> Self {
        Self(IpAddr::V4(Ipv4Addr::UNSPECIFIED))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Peer {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Ok(parts.extensions.get::<Self>().copied().unwrap_or_default())
    }
}

/// Tells who asks, and makes those wait who try many keys.
#[derive(Debug)]
pub(crate) struct Authenticator {
    keys: KeyFile,
    anonymous: Option<Arc<str>>,
    wrong_keys: u32,
    guesses: Mutex<HashMap<IpAddr, (Instant, u32)>>,
}

impl Authenticator {
    /// Knows the owners of `keys`; who brings none is `anonymous`, if there is such a tenant. After `wrong_keys` wrong ones
    /// within a minute an address has to wait.
    pub(crate) fn new(keys: KeyFile, anonymous: Option<String>, wrong_keys: u32) -> Self {
        Self { keys, anonymous: anonymous.map(Arc::from), wrong_keys, guesses: Mutex::default() }
    }

    /// Who sent a request with these headers.
    ///
    /// # Errors
    /// `Unauthenticated` without a key, with an unknown one, or with several; `TooManyGuesses`.
    pub(crate) fn client(&self, headers: &HeaderMap, Peer(peer): Peer) -> Result<Client, Problem> {
        let refused = |message: &str| Err(Problem::new(ProblemKind::Unauthenticated, message));
        let presented = match presented(headers) {
            Ok(presented) => presented,
            Err(problem) => return refused(problem),
        };
        let Some(key) = presented else {
            return match &self.anonymous {
                Some(tenant) => Ok(Client { tenant: Arc::clone(tenant), key: "anonymous".into(), peer }),
                None => refused(
                    "expected an API key: `Authorization: Bearer KEY`, `x-api-key: KEY`, or HTTP Basic with the key as \
                     password",
                ),
            };
        };
        // A known key is let through whatever else came from its address, which many clients may share behind a proxy:
        // nobody guesses 256 bits, and nobody must be able to lock others out.
        if let Some(owner) = self.keys.owner(&key) {
            return Ok(Client { tenant: owner.tenant.as_str().into(), key: owner.id.as_str().into(), peer });
        }
        if self.count_guess(network(peer)) > self.wrong_keys {
            let message = "too many wrong API keys came from this address; wait a minute";
            return Err(Problem::new(ProblemKind::TooManyGuesses, message).retry_after(WINDOW));
        }
        refused("this API key is not known here; ask whoever runs this server for one")
    }

    /// Counts a wrong key, and says how many there were within the window.
    fn count_guess(&self, peer: IpAddr) -> u32 {
        let mut guesses = self.guesses.lock().unwrap_or_else(PoisonError::into_inner);
        if guesses.len() >= ADDRESSES {
            guesses.retain(|_, (since, _)| since.elapsed() < WINDOW);
        }
        if guesses.len() >= ADDRESSES {
            guesses.clear();
        }
        let entry = guesses.entry(peer).or_insert((Instant::now(), 0));
        if entry.0.elapsed() >= WINDOW {
            *entry = (Instant::now(), 0);
        }
        entry.1 = entry.1.saturating_add(1);
        entry.1
    }
}

/// Those who count as one: an IPv4 address, or the 2^64 addresses that one IPv6 customer has at least.
fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) & !u128::from(u64::MAX)).into()),
        v4 => v4,
    }
}

/// The key that a request presents, if any.
fn presented(headers: &HeaderMap) -> Result<Option<String>, &'static str> {
    let named = || headers.get_all(AUTHORIZATION).iter().chain(headers.get_all(KEY_HEADER));
    if named().count() > 1 {
        // Two keys may be two owners, and which one counts must not depend on who reads them.
        return Err("expected one API key, got several; send one header `Authorization` or `x-api-key`");
    }
    if let Some(key) = headers.get(KEY_HEADER) {
        return key.to_str().map(|key| Some(key.trim().to_owned())).map_err(|_| "the API key is not text");
    }
    let Some(value) = headers.get(AUTHORIZATION) else { return Ok(None) };
    let value = value.to_str().map_err(|_| "the header `Authorization` is not text")?;
    let (scheme, rest) = value.split_once(' ').unwrap_or((value, ""));
    if scheme.eq_ignore_ascii_case("bearer") {
        return Ok(Some(rest.trim().to_owned()));
    }
    if scheme.eq_ignore_ascii_case("basic") {
        let decoded =
            BASE64_STANDARD.decode(rest.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let decoded =
            decoded.ok_or("the header `Authorization: Basic` does not hold base64 of `user:key`")?;
        let (user, password) = decoded.split_once(':').unwrap_or((decoded.as_str(), ""));
        return Ok(Some(if password.is_empty() { user } else { password }.to_owned()));
    }
    Err("expected `Authorization: Bearer KEY` or `Authorization: Basic`, got another scheme")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;
    use crate::keys::NewKey;

    const HERE: Peer = Peer(IpAddr::V4(Ipv4Addr::LOCALHOST));

    fn headers(pairs: &[(&'static str, String)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn a_key_is_read_from_each_place_and_two_are_refused() {
        let key = NewKey::generate();
        let keys = KeyFile::parse(&key.entry("k", "kids"), "keys").unwrap();
        let authenticator = Authenticator::new(keys, None, 30);
        let basic = |text: String| format!("Basic {}", BASE64_STANDARD.encode(text));
        for (name, value) in [
            ("authorization", format!("Bearer {}", key.reveal())),
            ("authorization", format!("bearer  {}", key.reveal())),
            ("authorization", basic(format!("anyone:{}", key.reveal()))),
            ("authorization", basic(format!("{}:", key.reveal()))),
            ("x-api-key", key.reveal().to_owned()),
        ] {
            let client = authenticator.client(&headers(&[(name, value)]), HERE).unwrap();
            assert_eq!((&*client.tenant, &*client.key), ("kids", "k"));
        }
        let twice =
            [("x-api-key", key.reveal().to_owned()), ("authorization", format!("Bearer {}", key.reveal()))];
        for refused in [headers(&[]), headers(&twice), headers(&[("authorization", "Digest x".to_owned())])] {
            let problem = authenticator.client(&refused, HERE).unwrap_err();
            assert_eq!(problem.kind(), ProblemKind::Unauthenticated);
        }
    }

    #[test]
    fn a_wrong_key_is_nobodys_and_many_have_to_wait() {
        let authenticator = Authenticator::new(KeyFile::default(), Some("desk".to_owned()), 3);
        assert_eq!(&*authenticator.client(&headers(&[]), HERE).unwrap().tenant, "desk");
        let wrong = headers(&[("x-api-key", "cg_wrong".to_owned())]);
        for _ in 0..3 {
            assert_eq!(authenticator.client(&wrong, HERE).unwrap_err().kind(), ProblemKind::Unauthenticated);
        }
        assert_eq!(authenticator.client(&wrong, HERE).unwrap_err().kind(), ProblemKind::TooManyGuesses);
        let close: [Peer; 2] = ["2001:db8::1", "2001:db8::ffff:2"].map(|peer| Peer(peer.parse().unwrap()));
        for _ in 0..3 {
            assert!(authenticator.client(&wrong, close[0]).is_err());
        }
        assert_eq!(authenticator.client(&wrong, close[1]).unwrap_err().kind(), ProblemKind::TooManyGuesses);
        let elsewhere = Peer(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)));
        assert_eq!(authenticator.client(&wrong, elsewhere).unwrap_err().kind(), ProblemKind::Unauthenticated);
    }

    proptest! {
        #[test]
        fn no_header_is_anybodys_key_or_panics(
            start in prop::sample::select(vec!["", "Bearer ", "bearer", "Basic ", "basic  ", "Digest "]),
            rest in prop::collection::vec(any::<u8>(), 0..40),
            encoded in any::<bool>(),
            named in prop::sample::select(vec!["authorization", KEY_HEADER]),
        ) {
            let key = NewKey::generate();
            let keys = KeyFile::parse(&key.entry("k", "kids"), "keys").unwrap();
            let authenticator = Authenticator::new(keys, Some("desk".to_owned()), 3);
            let rest = if encoded { BASE64_STANDARD.encode(&rest).into_bytes() } else { rest };
            let mut headers = HeaderMap::new();
            if let Ok(value) = axum::http::HeaderValue::from_bytes(&[start.as_bytes(), &rest].concat()) {
                headers.append(named, value);
                // A wrong key is nobody's: it does not fall back to those who bring none.
                prop_assert!(authenticator.client(&headers, HERE).is_err());
            }
        }
    }
}
