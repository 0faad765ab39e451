//! Who asks.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use jiff::Timestamp;

use crate::keys::{Key, KeyRefusal, KeyRing, Lapse};
use crate::problem::{Problem, ProblemKind};

/// Within which wrong keys are counted.
const WINDOW: Duration = Duration::from_secs(60);
/// Most addresses whose wrong keys are counted; beyond them the oldest are forgotten.
const ADDRESSES: usize = 65_536;
/// Where a key may stand beside `Authorization`.
pub(crate) const KEY_HEADER: &str = "x-api-key";
/// Where a client may say on behalf of which of its own users it asks.
pub(crate) const SUBJECT_HEADER: &str = "x-cluegate-subject";
/// Longest name of a subject in bytes.
const LONGEST_SUBJECT: usize = 256;

/// Who asks: the owner of the key that came with the request.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    /// Whose policy applies.
    pub(crate) tenant: Arc<str>,
    /// Name of the key, for logs; `anonymous` without one.
    pub(crate) key: Arc<str>,
    /// On behalf of which of its users it asks, if its header says so.
    pub(crate) subject: Option<Arc<str>>,
    /// Whether this request was counted against the tenant's rate: it is once, whatever number of pictures it brings.
    pub(crate) counted: Counted,
}

/// Whether a request was counted. All copies are of one request.
#[derive(Debug, Clone, Default)]
pub(crate) struct Counted(Arc<AtomicBool>);

impl Counted {
    /// Says whether this is the first time, and that it was.
    pub(crate) fn is_first(&self) -> bool {
        !self.0.swap(true, Ordering::Relaxed)
    }
}

impl Client {
    /// A client of `tenant`.
    pub(crate) fn new(tenant: &str, key: &str) -> Self {
        Self { tenant: tenant.into(), key: key.into(), subject: None, counted: Counted::default() }
    }
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
    keys: ArcSwap<KeyRing>,
    wrong_keys: u32,
    guesses: Mutex<HashMap<IpAddr, (Instant, u32)>>,
}

/// What a request presents.
#[derive(Debug)]
pub(crate) enum Presented {
    /// A key that holds.
    Key(Arc<Key>),
    /// None.
    Nothing,
}

impl Authenticator {
    /// Knows the owners of `keys`. After `wrong_keys` wrong ones within a minute an address has to wait.
    pub(crate) fn new(keys: KeyRing, wrong_keys: u32) -> Self {
        Self { keys: ArcSwap::from_pointee(keys), wrong_keys, guesses: Mutex::default() }
    }

    /// Knows these keys from now on, and no other.
    pub(crate) fn replace(&self, keys: KeyRing) {
        self.keys.store(Arc::new(keys));
    }

    /// The keys that are known now.
    pub(crate) fn keys(&self) -> Arc<KeyRing> {
        self.keys.load_full()
    }

    /// What a request with these headers presents.
    ///
    /// # Errors
    /// `Unauthenticated` with an unknown key, one that does not hold now, or several; `TooManyGuesses`.
    pub(crate) fn presented(&self, headers: &HeaderMap, Peer(peer): Peer) -> Result<Presented, Problem> {
        let refused = |message: String| Err(Problem::new(ProblemKind::Unauthenticated, message));
        let key = match presented(headers) {
            Ok(Some(key)) => key,
            Ok(None) => return Ok(Presented::Nothing),
            Err(problem) => return refused(problem.to_owned()),
        };
        // A known key is let through whatever else came from its address, which many clients may share behind a proxy:
        // nobody guesses 256 bits, and nobody must be able to lock others out.
        match self.keys.load().check(&key, Timestamp::now()) {
            Ok(key) => return Ok(Presented::Key(Arc::clone(key))),
            // Only who holds the key learns of it.
            Err(KeyRefusal::Lapsed(lapse)) => return refused(lapsed(lapse)),
            Err(KeyRefusal::Unknown) => {}
        }
        if self.count_guess(network(peer)) > self.wrong_keys {
            let message = "too many wrong API keys came from this address; wait a minute";
            return Err(Problem::new(ProblemKind::TooManyGuesses, message).retry_after(WINDOW));
        }
        refused("this API key is not known here; ask whoever runs this server for one".to_owned())
    }

    /// Who sent a request with these headers. Who presents no key is the tenant `anonymous`, if there is one.
    ///
    /// # Errors
    /// As [`Authenticator::presented`]; `BadRequest` if the header that names the subject cannot be used.
    pub(crate) fn client(
        &self,
        headers: &HeaderMap,
        peer: Peer,
        anonymous: Option<&str>,
    ) -> Result<Client, Problem> {
        let presented = self.presented(headers, peer)?;
        let (tenant, id) = match (&presented, anonymous) {
            (Presented::Key(key), _) => (key.tenant.as_deref().unwrap_or_default(), key.id.as_str()),
            (Presented::Nothing, Some(tenant)) => (tenant, "anonymous"),
            (Presented::Nothing, None) => return Err(no_key()),
        };
        Ok(Client { subject: subject(headers)?, ..Client::new(tenant, id) })
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

/// The problem of a request without a key, where one is needed.
pub(crate) fn no_key() -> Problem {
    let message = "expected an API key: `Authorization: Bearer KEY`, `x-api-key: KEY`, or HTTP Basic with the key as \
                   password";
    Problem::new(ProblemKind::Unauthenticated, message)
}

fn lapsed(lapse: Lapse) -> String {
    let advice = match lapse {
        Lapse::NotYet(_) => "use it then",
        Lapse::Expired(_) | Lapse::Revoked(_) => "ask whoever runs this server for a new one",
    };
    format!("this API key {lapse}; {advice}")
}

/// The subject that the headers name.
fn subject(headers: &HeaderMap) -> Result<Option<Arc<str>>, Problem> {
    let Some(value) = headers.get(SUBJECT_HEADER) else { return Ok(None) };
    let named = value.to_str().ok().map(str::trim);
    let named = named.filter(|name| (1..=LONGEST_SUBJECT).contains(&name.len()));
    named.map(|name| Some(name.into())).ok_or_else(|| {
        Problem::bad_request(format!(
            "expected `{SUBJECT_HEADER}` to be 1 to {LONGEST_SUBJECT} ASCII characters"
        ))
    })
}

/// A subject that a body names, cut to what may be kept. An empty one is none.
pub(crate) fn subject_of(named: Option<&str>) -> Option<String> {
    let named = named.map(str::trim).filter(|name| !name.is_empty())?;
    Some(named.chars().take(LONGEST_SUBJECT).collect())
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
    use crate::keys::{KeyKind, NewKey};

    const HERE: Peer = Peer(IpAddr::V4(Ipv4Addr::LOCALHOST));

    fn headers(pairs: &[(&'static str, String)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    fn ring(keys: impl IntoIterator<Item = Key>) -> KeyRing {
        KeyRing::new(keys, KeyKind::Client, "keys").unwrap()
    }

    #[test]
    fn a_key_is_read_from_each_place_and_two_are_refused() {
        let key = NewKey::generate();
        let authenticator = Authenticator::new(ring([key.of_tenant("k", "kids")]), 30);
        let basic = |text: String| format!("Basic {}", BASE64_STANDARD.encode(text));
        for (name, value) in [
            ("authorization", format!("Bearer {}", key.reveal())),
            ("authorization", format!("bearer  {}", key.reveal())),
            ("authorization", basic(format!("anyone:{}", key.reveal()))),
            ("authorization", basic(format!("{}:", key.reveal()))),
            ("x-api-key", key.reveal().to_owned()),
        ] {
            let client = authenticator.client(&headers(&[(name, value)]), HERE, None).unwrap();
            assert_eq!((&*client.tenant, &*client.key, client.subject), ("kids", "k", None));
        }
        let twice =
            [("x-api-key", key.reveal().to_owned()), ("authorization", format!("Bearer {}", key.reveal()))];
        for refused in [headers(&[]), headers(&twice), headers(&[("authorization", "Digest x".to_owned())])] {
            let problem = authenticator.client(&refused, HERE, None).unwrap_err();
            assert_eq!(problem.kind(), ProblemKind::Unauthenticated);
        }
    }

    #[test]
    fn a_key_that_lapsed_is_told_so_and_one_that_was_replaced_is_unknown() {
        let (key, other) = (NewKey::generate(), NewKey::generate());
        let past: Timestamp = "2020-01-01T00:00:00Z".parse().unwrap();
        let expired = Key { expires: Some(past), ..key.of_tenant("k", "kids") };
        let authenticator = Authenticator::new(ring([expired]), 30);
        let told = |key: &NewKey| {
            let presented = headers(&[("x-api-key", key.reveal().to_owned())]);
            // No key of somebody's falls back to those who bring none.
            authenticator.client(&presented, HERE, Some("desk")).map_err(|problem| problem.to_string())
        };
        assert!(told(&key).unwrap_err().contains("expired at 2020-01-01T00:00:00Z; ask whoever runs"));
        assert!(told(&other).unwrap_err().contains("not known here"));
        authenticator.replace(ring([other.of_tenant("k", "kids")]));
        assert!(told(&key).unwrap_err().contains("not known here"));
        assert_eq!(&*told(&other).unwrap().tenant, "kids");
    }

    #[test]
    fn the_subject_is_the_headers() {
        let authenticator = Authenticator::new(KeyRing::default(), 3);
        let subject = |value: &str| {
            let headers = headers(&[(SUBJECT_HEADER, value.to_owned())]);
            authenticator.client(&headers, HERE, Some("desk")).map(|client| client.subject)
        };
        assert_eq!(subject(" user-7 ").unwrap().as_deref(), Some("user-7"));
        for odd in ["", "\u{e9}", &"x".repeat(257)] {
            assert_eq!(subject(odd).unwrap_err().kind(), ProblemKind::BadRequest, "{odd}");
        }
        assert_eq!(subject_of(Some("  ")), None);
        assert_eq!(subject_of(Some(&"\u{e9}".repeat(300))).unwrap().chars().count(), 256);
    }

    #[test]
    fn a_wrong_key_is_nobodys_and_many_have_to_wait() {
        let authenticator = Authenticator::new(KeyRing::default(), 3);
        let client = |headers: &HeaderMap, peer| authenticator.client(headers, peer, Some("desk"));
        assert_eq!(&*client(&headers(&[]), HERE).unwrap().tenant, "desk");
        let wrong = headers(&[("x-api-key", "cg_wrong".to_owned())]);
        for _ in 0..3 {
            assert_eq!(client(&wrong, HERE).unwrap_err().kind(), ProblemKind::Unauthenticated);
        }
        assert_eq!(client(&wrong, HERE).unwrap_err().kind(), ProblemKind::TooManyGuesses);
        let close: [Peer; 2] = ["2001:db8::1", "2001:db8::ffff:2"].map(|peer| Peer(peer.parse().unwrap()));
        for _ in 0..3 {
            assert!(client(&wrong, close[0]).is_err());
        }
        assert_eq!(client(&wrong, close[1]).unwrap_err().kind(), ProblemKind::TooManyGuesses);
        let elsewhere = Peer(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)));
        assert_eq!(client(&wrong, elsewhere).unwrap_err().kind(), ProblemKind::Unauthenticated);
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
            let authenticator = Authenticator::new(ring([key.of_tenant("k", "kids")]), 3);
            let rest = if encoded { BASE64_STANDARD.encode(&rest).into_bytes() } else { rest };
            let mut headers = HeaderMap::new();
            if let Ok(value) = axum::http::HeaderValue::from_bytes(&[start.as_bytes(), &rest].concat()) {
                headers.append(named, value);
                // A wrong key is nobody's: it does not fall back to those who bring none.
                prop_assert!(authenticator.client(&headers, HERE, Some("desk")).is_err());
            }
        }
    }
}
