//! Requests to the hub: redirects, refusals and time-outs, each with what to do about it.

use std::io::Read;
use std::time::{Duration, SystemTime};

use ureq::http::{Response, StatusCode, Uri};
use ureq::{Agent, Body};

use crate::digest::Digest;
use crate::error::{HubError, HubErrorKind, Result};
use crate::info::RepoInfo;
use crate::names::{Commit, FileName, RepoId, Revision};
use crate::settings::{Settings, Token};

/// The bounds within which the hub is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Longest wait for a connection. Default 10 s.
    pub connect: Duration,
    /// Longest wait for the head of an answer. Default 30 s.
    pub answer: Duration,
    /// Longest time in which no byte comes before the connection is given up. Default 30 s.
    pub stall: Duration,
    /// Attempts in a row that may bring nothing. Default 6.
    pub attempts: u32,
    /// Wait before the second attempt; it doubles from one to the next, up to half a minute. Default 0.5 s.
    pub backoff: Duration,
    /// Longest wait that a hub may ask for (`Retry-After`). Default 5 min.
    pub longest_wait: Duration,
    /// Most bytes of an answer about a repository, or of an index. Default 64 MiB.
    pub description: u64,
    /// Most bytes of one file. Default 500 GB.
    pub file: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            answer: Duration::from_secs(30),
            stall: Duration::from_secs(30),
            attempts: 6,
            backoff: Duration::from_millis(500),
            longest_wait: Duration::from_secs(300),
            description: 64 << 20,
            file: 500_000_000_000,
        }
    }
}

/// Redirects that are followed from one address to the next.
const MAX_REDIRECTS: usize = 5;

/// Why a request brought nothing.
pub(crate) enum Failure {
    /// It may work in a while; the hub may have said when.
    Again { why: String, after: Option<Duration> },
    /// It will not.
    Final(HubError),
}

impl From<HubError> for Failure {
    fn from(error: HubError) -> Self {
        Self::Final(error)
    }
}

/// How long to wait between attempts, and when to give up.
pub(crate) struct Attempts {
    limits: Limits,
    failed: u32,
}

impl Attempts {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { limits, failed: 0 }
    }

    /// Something came: the count begins anew.
    pub(crate) fn progress(&mut self) {
        self.failed = 0;
    }

    /// The wait before the next attempt, or the error that ends it.
    pub(crate) fn next(&mut self, what: &str, why: &str, after: Option<Duration>) -> Result<Duration> {
        self.failed += 1;
        let failed = |why: String| HubError::new(HubErrorKind::Network, format!("{what}: {why}"));
        if self.failed >= self.limits.attempts {
            return Err(failed(format!(
                "{why}, {} times in a row. Check the connection, HF_ENDPOINT and proxies, then start the same command \
                 again: what was fetched is kept",
                self.failed
            )));
        }
        let doubled = self.limits.backoff.saturating_mul(1 << (self.failed - 1).min(16));
        let wait = doubled.min(Duration::from_secs(30).max(self.limits.backoff));
        match after {
            Some(asked) if asked > self.limits.longest_wait => Err(failed(format!(
                "{why}, and the hub asks to wait for {} s. Start the same command again after that; with a token \
                 (HF_TOKEN) more requests are allowed",
                asked.as_secs()
            ))),
            Some(asked) => Ok(asked.max(wait.min(self.limits.backoff))),
            None => Ok(wait),
        }
    }
}

/// The hub at one endpoint, asked by one account or nobody in particular.
#[derive(Debug)]
pub(crate) struct Client {
    agent: Agent,
    endpoint: String,
    token: Option<Token>,
    pub(crate) limits: Limits,
}

/// What a request is about, for messages.
#[derive(Clone, Copy)]
pub(crate) struct Subject<'a> {
    pub(crate) repo: &'a RepoId,
    pub(crate) revision: &'a str,
    pub(crate) file: Option<&'a FileName>,
}

impl std::fmt::Display for Subject<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.file {
            Some(file) => write!(f, "{file} of {}", self.repo),
            None => write!(f, "{} at {}", self.repo, self.revision),
        }
    }
}

impl Client {
    pub(crate) fn new(settings: &Settings, limits: Limits) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            // Followed here, so that the token does not go with them.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("cluegate/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(limits.connect))
            .timeout_recv_response(Some(limits.answer))
            .timeout_per_read(Some(limits.stall))
            .timeout_per_write(Some(limits.stall))
            .tls_config(settings.trust.tls())
            .build();
        let token = settings.token.clone().filter(|_| {
            let safe = may_carry_secrets(&settings.endpoint);
            if !safe {
                tracing::warn!("the token is not sent: HF_ENDPOINT is not encrypted; name an https address");
            }
            safe
        });
        Self { agent: config.new_agent(), endpoint: settings.endpoint.clone(), token, limits }
    }

    /// The page of a repository, where its licence can be accepted.
    pub(crate) fn page(&self, repo: &RepoId) -> String {
        format!("{}/{repo}", self.endpoint)
    }

    /// The files of a commit.
    pub(crate) fn info(&self, repo: &RepoId, revision: &Revision) -> Result<RepoInfo> {
        let subject = Subject { repo, revision: revision.as_str(), file: None };
        let path = format!("/api/models/{repo}/revision/{}?blobs=true", escape(revision.as_str(), ""));
        let body = self.with_retries(&subject.to_string(), || {
            let response = self.request("GET", &path, None, subject)?;
            self.read_whole(response)
        })?;
        RepoInfo::parse(&body).map_err(|error| HubError::new(error.kind(), format!("{subject}: {error}")))
    }

    /// Size and checksum of a file, where the description of the commit does not have them.
    pub(crate) fn head(&self, repo: &RepoId, commit: &Commit, file: &FileName) -> Result<(u64, Digest)> {
        let subject = Subject { repo, revision: commit.as_str(), file: Some(file) };
        let path = resolve_path(repo, commit, file);
        self.with_retries(&subject.to_string(), || {
            let response = self.head_of(&path, subject)?;
            let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
            if header("x-repo-commit").is_some_and(|found| found != commit.as_str()) {
                return Err(HubError::answer(format!("{subject}: expected it at {commit}, the hub sent another commit")).into());
            }
            let etag = header("x-linked-etag").or_else(|| header("etag"));
            let size = header("x-linked-size")
                .or_else(|| header("content-length").filter(|_| response.status().is_success()))
                .and_then(|size| size.parse().ok());
            match (etag.map(Digest::from_etag), size) {
                (Some(Ok(digest)), Some(size)) => Ok((size, digest)),
                _ => Err(HubError::answer(format!(
                    "{subject}: the server gives no size or no checksum for it, so that it cannot be checked; is \
                     HF_ENDPOINT a Hugging Face hub or a full mirror of one?"
                ))
                .into()),
            }
        })
    }

    /// The body of a file from byte `from` on, and where it really begins: a server may send all of it.
    pub(crate) fn open(
        &self,
        repo: &RepoId,
        commit: &Commit,
        file: &FileName,
        from: u64,
    ) -> std::result::Result<(u64, impl Read + use<>), Failure> {
        let subject = Subject { repo, revision: commit.as_str(), file: Some(file) };
        let path = resolve_path(repo, commit, file);
        let range = (from > 0).then(|| format!("bytes={from}-"));
        let mut response = self.request("GET", &path, range.as_deref(), subject)?;
        if response.status() == StatusCode::RANGE_NOT_SATISFIABLE {
            response = self.request("GET", &path, None, subject)?;
        }
        let start = match response.status() {
            StatusCode::PARTIAL_CONTENT => {
                let header = response.headers().get("content-range").and_then(|value| value.to_str().ok());
                let start =
                    header.and_then(|text| text.strip_prefix("bytes ")?.split('-').next()?.parse().ok());
                start.filter(|start| *start == from).ok_or_else(|| {
                    HubError::answer(format!(
                        "{subject}: asked for bytes from {from} on, the server sent {header:?}"
                    ))
                })?
            }
            _ => 0,
        };
        Ok((start, response.into_body().into_reader()))
    }

    /// The hub's own answer about a file: the headers that are asked for stand on it, not where it sends for the bytes.
    fn head_of(&self, path: &str, subject: Subject<'_>) -> std::result::Result<Response<Body>, Failure> {
        let mut address = format!("{}{path}", self.endpoint);
        for _ in 0..=MAX_REDIRECTS {
            let response = self.send("HEAD", &address, None, true)?;
            let headers = response.headers();
            let target = headers.get("location").and_then(|value| value.to_str().ok());
            // A repository that was renamed lies elsewhere on the same hub.
            let moved = target.and_then(|target| join(&address, target)).filter(|target| self.is_own(target));
            match moved {
                Some(target)
                    if response.status().is_redirection() && !headers.contains_key("x-linked-etag") =>
                {
                    address = target;
                }
                _ => {
                    self.check_status(&response, subject)?;
                    return Ok(response);
                }
            }
        }
        Err(HubError::answer(format!("{subject}: more than {MAX_REDIRECTS} redirects")).into())
    }

    fn read_whole(&self, response: Response<Body>) -> std::result::Result<Vec<u8>, Failure> {
        let limit = self.limits.description;
        let mut body = Vec::new();
        let read = response.into_body().into_reader().take(limit + 1).read_to_end(&mut body);
        read.map_err(|error| Failure::Again { why: self.clean(&error.to_string()), after: None })?;
        if body.len() as u64 > limit {
            return Err(HubError::answer(format!("the hub's answer is longer than {limit} bytes")).into());
        }
        Ok(body)
    }

    fn with_retries<T>(
        &self,
        what: &str,
        mut attempt: impl FnMut() -> std::result::Result<T, Failure>,
    ) -> Result<T> {
        let mut attempts = Attempts::new(self.limits);
        loop {
            match attempt() {
                Ok(value) => return Ok(value),
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Again { why, after }) => {
                    let wait = attempts.next(what, &why, after)?;
                    tracing::info!(what, why, ?wait, "asking again");
                    std::thread::sleep(wait);
                }
            }
        }
    }

    /// Sends a request to the endpoint, follows redirects and checks the status.
    fn request(
        &self,
        method: &str,
        path: &str,
        range: Option<&str>,
        subject: Subject<'_>,
    ) -> std::result::Result<Response<Body>, Failure> {
        let mut address = format!("{}{path}", self.endpoint);
        for _ in 0..=MAX_REDIRECTS {
            let own = self.is_own(&address);
            let response = self.send(method, &address, range, own)?;
            if !response.status().is_redirection() {
                self.check_status(&response, subject)?;
                return Ok(response);
            }
            let target = response.headers().get("location").and_then(|value| value.to_str().ok());
            address = target.and_then(|target| join(&address, target)).ok_or_else(|| {
                HubError::answer(format!("{subject}: the server redirects to no usable address"))
            })?;
            if self.endpoint.starts_with("https:") && !address.starts_with("https:") {
                return Err(HubError::answer(format!(
                    "{subject}: the server redirects to an address that is not encrypted: {}",
                    without_query(&address)
                ))
                .into());
            }
        }
        Err(HubError::answer(format!("{subject}: more than {MAX_REDIRECTS} redirects")).into())
    }

    fn send(
        &self,
        method: &str,
        address: &str,
        range: Option<&str>,
        own: bool,
    ) -> std::result::Result<Response<Body>, Failure> {
        let mut request = if method == "HEAD" { self.agent.head(address) } else { self.agent.get(address) };
        // A compressed body would have another length and another checksum.
        request = request.header("accept-encoding", "identity");
        if let Some(range) = range {
            request = request.header("range", range);
        }
        if let (Some(token), true) = (&self.token, own) {
            request = request.header("authorization", format!("Bearer {}", token.secret()));
        }
        request.call().map_err(|error| {
            let shown = without_query(address);
            match error {
                ureq::Error::BadUri(_) | ureq::Error::Http(_) | ureq::Error::InvalidProxyUrl => {
                    Failure::Final(HubError::answer(format!("{shown} is no usable address")))
                }
                other => Failure::Again {
                    why: format!("{shown}: {}", self.clean(&other.to_string())),
                    after: None,
                },
            }
        })
    }

    /// Whether an address is the endpoint's: same scheme, host and port.
    fn is_own(&self, address: &str) -> bool {
        let origin = |text: &str| {
            let uri = text.parse::<Uri>().ok()?;
            let scheme = uri.scheme_str()?.to_owned();
            let port = uri.port_u16().unwrap_or(if scheme == "https" { 443 } else { 80 });
            Some((scheme, uri.host()?.to_ascii_lowercase(), port))
        };
        origin(address).is_some_and(|found| Some(found) == origin(&self.endpoint))
    }

    fn check_status(
        &self,
        response: &Response<Body>,
        subject: Subject<'_>,
    ) -> std::result::Result<(), Failure> {
        let status = response.status();
        if status.is_success() || status.is_redirection() || status == StatusCode::RANGE_NOT_SATISFIABLE {
            return Ok(());
        }
        let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
        let said =
            header("x-error-message").map(|text| format!(" ({})", self.clean(text))).unwrap_or_default();
        if matches!(status.as_u16(), 408 | 429 | 500..=599) {
            let why = format!("the server answered {status}{said}");
            let after = header("retry-after").and_then(retry_after);
            let after =
                after.or_else(|| header("ratelimit").filter(|_| status.as_u16() == 429).and_then(reset_of));
            return Err(Failure::Again { why, after });
        }
        let code = header("x-error-code").unwrap_or_default();
        Err(Failure::Final(self.refusal(status, code, &said, subject)))
    }

    /// What a status that will not change means, and what to do.
    fn refusal(&self, status: StatusCode, code: &str, said: &str, subject: Subject<'_>) -> HubError {
        let (repo, page) = (subject.repo, self.page(subject.repo));
        let token = "set HF_TOKEN to a token of that account, or log in with `hf auth login`";
        let error = |kind, message: String| HubError::new(kind, message);
        match (status.as_u16(), code) {
            (401 | 403, "GatedRepo") => error(
                HubErrorKind::Gated,
                format!(
                    "{repo} is gated{said}: open {page} in a browser, accept its licence with your account, and {token}"
                ),
            ),
            (401, _) if self.token.is_some() => error(
                HubErrorKind::Refused,
                format!(
                    "{subject}: the hub does not accept the token{said}: it may have expired, or {repo} does not exist \
                     or is not open to this account; see {page} and make a new token"
                ),
            ),
            (401, _) => error(
                HubErrorKind::Gated,
                format!(
                    "{subject}: the hub answers only to an account{said}: {repo} is private, or does not exist. Check \
                     the spelling; if it is private or gated, open {page} with an account that may see it, accept its \
                     licence, and {token}"
                ),
            ),
            (403, _) => error(
                HubErrorKind::Refused,
                format!(
                    "{subject}: the hub refuses access{said}: see {page}; the token needs the right to read this \
                     repository"
                ),
            ),
            (404 | 410, "RevisionNotFound") => error(
                HubErrorKind::NotFound,
                format!(
                    "{repo} has no revision {:?}{said}: {page}/commits shows those that exist",
                    subject.revision
                ),
            ),
            (404 | 410, "EntryNotFound") => {
                error(HubErrorKind::NotFound, format!("there is no {subject}{said}"))
            }
            (404 | 410, "RepoNotFound") => error(
                HubErrorKind::NotFound,
                format!("there is no repository {repo}{said}: check the spelling"),
            ),
            (404 | 410, _) => error(
                HubErrorKind::NotFound,
                format!(
                    "the hub does not find {subject}{said}: check the repository, the revision and HF_ENDPOINT ({})",
                    self.endpoint
                ),
            ),
            _ => error(HubErrorKind::Refused, format!("{subject}: the server answered {status}{said}")),
        }
    }

    /// Text of others for a message: short, on one line, without the token.
    pub(crate) fn clean(&self, text: &str) -> String {
        let hidden = match &self.token {
            Some(token) => text.replace(token.secret(), "[token]"),
            None => text.to_owned(),
        };
        hidden.chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect()
    }
}

fn resolve_path(repo: &RepoId, commit: &Commit, file: &FileName) -> String {
    format!("/{repo}/resolve/{commit}/{}", escape(file.as_str(), "/"))
}

/// Percent-encodes all but letters, digits, `-._~` and the characters of `kept`.
fn escape(text: &str, kept: &str) -> String {
    use std::fmt::Write as _;
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        let c = char::from(byte);
        if c.is_ascii_alphanumeric() || "-._~".contains(c) || kept.contains(c) {
            escaped.push(c);
        } else {
            let _ = write!(escaped, "%{byte:02X}");
        }
    }
    escaped
}

/// Whether a token may go to this address: it is encrypted, or leads to this machine.
fn may_carry_secrets(endpoint: &str) -> bool {
    let uri = endpoint.parse::<Uri>().ok();
    let host = uri.as_ref().and_then(Uri::host).unwrap_or_default().trim_matches(['[', ']']);
    let loopback = host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
    endpoint.starts_with("https:") || loopback
}

/// The address that a redirect from `base` leads to.
fn join(base: &str, target: &str) -> Option<String> {
    let absolute = target.parse::<Uri>().ok().filter(|uri| uri.scheme().is_some());
    if absolute.is_some() {
        return (target.starts_with("https://") || target.starts_with("http://")).then(|| target.to_owned());
    }
    let base = base.parse::<Uri>().ok()?;
    let scheme = base.scheme_str()?;
    match target.strip_prefix("//") {
        Some(rest) => Some(format!("{scheme}://{rest}")),
        None => target.starts_with('/').then(|| Some(format!("{scheme}://{}{target}", base.authority()?)))?,
    }
}

/// An address without what signs it.
fn without_query(address: &str) -> &str {
    address.split(['?', '#']).next().unwrap_or_default()
}

/// `Retry-After`: a number of seconds; a date is read as far as it is needed, as the time from now on.
fn retry_after(text: &str) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let date = http_date(text.trim())?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok()?;
    Some(Duration::from_secs(date).saturating_sub(now))
}

/// The seconds until requests are counted anew, as the hub states them: `"api";r=0;t=55`.
fn reset_of(header: &str) -> Option<Duration> {
    let seconds = header.split(';').find_map(|part| part.trim().strip_prefix("t=")?.parse().ok())?;
    Some(Duration::from_secs(seconds))
}

/// Seconds since 1970 of `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110, the one form that servers may send).
fn http_date(text: &str) -> Option<u64> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let words: Vec<&str> = text.split_once(", ")?.1.split([' ', ':']).collect();
    let [day, month, year, hour, minute, second, "GMT"] = words[..] else { return None };
    let number = |text: &str| text.parse::<u64>().ok().filter(|number| *number < 10_000);
    let month = MONTHS.iter().position(|name| *name == month)? as u64 + 1;
    let (day, year) = (number(day).filter(|day| *day > 0)?, number(year).filter(|year| *year >= 1970)?);
    // Days from the civil calendar, with years that begin in March.
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1;
    let days = days.checked_sub(719_468)?;
    Some(days * 86_400 + number(hour)? * 3600 + number(minute)? * 60 + number(second)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn addresses_are_escaped_joined_and_shown_without_their_query() {
        assert_eq!(escape("refs/pr/15", ""), "refs%2Fpr%2F15");
        assert_eq!(escape("a b/ü?.json", "/"), "a%20b/%C3%BC%3F.json");
        let base = "https://hub.example:8443/a/resolve/b?x=1";
        let cases = [
            ("/c/d?e", Some("https://hub.example:8443/c/d?e")),
            ("//cdn.example/f", Some("https://cdn.example/f")),
            ("http://cdn.example/f", Some("http://cdn.example/f")),
            ("ftp://cdn.example/f", None),
            ("file:///etc/passwd", None),
            ("d", None),
        ];
        for (target, expected) in cases {
            assert_eq!(join(base, target).as_deref(), expected, "{target}");
        }
        assert_eq!(without_query("https://a/b?Signature=secret#c"), "https://a/b");
    }

    #[test]
    fn the_token_goes_only_where_it_is_safe() {
        for safe in ["https://huggingface.co", "http://127.0.0.1:1", "http://localhost:1", "http://[::1]:1"] {
            assert!(may_carry_secrets(safe), "{safe}");
        }
        for unsafe_ in ["http://huggingface.co", "http://10.0.0.1", "http://localhost.example"] {
            assert!(!may_carry_secrets(unsafe_), "{unsafe_}");
        }
    }

    #[test]
    fn waits_are_read_in_both_forms() {
        assert_eq!(retry_after(" 7 "), Some(Duration::from_secs(7)));
        assert_eq!(http_date("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777));
        assert_eq!(http_date("Thu, 29 Feb 2024 00:00:00 GMT"), Some(1_709_164_800));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::ZERO));
        assert_eq!(reset_of("\"api\";r=0;t=55"), Some(Duration::from_secs(55)));
        assert_eq!(reset_of("\"api\";r=0"), None);
        for bad in ["", "soon", "-1", "Sun, 06 Foo 1994 08:49:37 GMT", "Sun, 06 Nov 0001 08:49:37 GMT", ", "]
        {
            assert_eq!(retry_after(bad), None, "{bad}");
        }
    }

    #[test]
    fn waits_double_and_end() {
        let limits = Limits { attempts: 4, backoff: Duration::from_secs(1), ..Limits::default() };
        let mut attempts = Attempts::new(limits);
        let mut next = |after| attempts.next("a", "b", after).map(|wait| wait.as_secs());
        assert_eq!(
            (next(None).unwrap(), next(None).unwrap(), next(Some(Duration::from_secs(9))).unwrap()),
            (1, 2, 9)
        );
        let error = next(None).unwrap_err();
        assert_eq!(error.kind(), HubErrorKind::Network);
        assert!(error.to_string().contains("4 times"), "{error}");
        let error = Attempts::new(limits).next("a", "b", Some(Duration::from_secs(301))).unwrap_err();
        assert!(error.to_string().contains("301 s"), "{error}");
    }
}
