//! Pictures that a client brings: in base64, as a data URL, or by an address.
//!
//! An address is fetched only from a host that the configuration lists. A name must resolve to public addresses alone,
//! and the connection goes to the very addresses that were checked, so that a name that changes between check and use
//! leads nowhere else. Redirects are not followed, and proxies of the environment are not used. What comes is a picture
//! if it decodes as one; what the server says of its type does not count.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{StatusCode, Url, redirect};
use tokio::sync::Semaphore;

use crate::config::{ConfigError, FetchHost, PictureOptions};
use crate::deadline::Deadline;
use crate::problem::{Problem, ProblemKind};
use crate::upstream::Unjudged;

/// Padding is left out by many clients.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Asks for the addresses of a name.
type Lookup = Arc<dyn Fn(String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> + Send + Sync>;

/// Reads the pictures that clients bring.
pub(crate) struct Fetcher {
    /// Only if there are hosts to fetch from.
    client: Option<reqwest::Client>,
    hosts: Vec<FetchHost>,
    max_bytes: usize,
    timeout: Duration,
    /// Each of those under way may hold a whole file.
    under_way: Semaphore,
}

impl Fetcher {
    /// Reads and fetches as `options` say, at most `at_once` at a time.
    ///
    /// # Errors
    /// If there is no HTTP client to be had, such as for want of certificates.
    pub(crate) fn new(options: &PictureOptions, at_once: usize) -> Result<Self, ConfigError> {
        let lookup: Lookup = Arc::new(|host| {
            Box::pin(async move {
                let found = tokio::net::lookup_host((host.as_str(), 0)).await?;
                Ok(found.map(|address| address.ip()).collect())
            })
        });
        Self::with_lookup(options, at_once, lookup)
    }

    fn with_lookup(options: &PictureOptions, at_once: usize, lookup: Lookup) -> Result<Self, ConfigError> {
        let client = if options.fetch_hosts.is_empty() { None } else { Some(client(options, lookup)?) };
        Ok(Self {
            client,
            hosts: options.fetch_hosts.clone(),
            max_bytes: options.decode.max_bytes,
            timeout: options.fetch_timeout,
            under_way: Semaphore::new(at_once.min(Semaphore::MAX_PERMITS)),
        })
    }

    /// The picture that `named` is or names: base64, a data URL, or an http(s) address.
    ///
    /// # Errors
    /// `BadRequest` if it is none of these or may not be fetched, `TooLarge`, and `UpstreamFailed`, `UpstreamTimeout` or
    /// `DeadlineExceeded` if it may but does not come.
    pub(crate) async fn read(&self, named: &str, deadline: Deadline) -> Result<Unjudged, Problem> {
        if is_address(named) {
            return Ok(Unjudged::encoded(self.fetch(named, deadline).await?));
        }
        let data = if has_scheme(named, "data:") { data_of(named)? } else { named };
        Ok(Unjudged::encoded(decode_base64(data, self.max_bytes)?))
    }

    async fn fetch(&self, address: &str, deadline: Deadline) -> Result<Bytes, Problem> {
        let (client, url) = self.allowed(address)?;
        let host = url.host_str().unwrap_or_default().to_owned();
        let until = deadline.0.min(Instant::now() + self.timeout);
        let fetched = async {
            // Closed never; were it, nothing would be fetched.
            let _permit = self.under_way.acquire().await.map_err(|_| failed(&host, "nothing is fetched"))?;
            self.get(client, url, &host).await
        };
        match tokio::time::timeout_at(until.into(), fetched).await {
            Ok(fetched) => fetched,
            Err(_) if Instant::now() >= deadline.0 => {
                let message = format!("the request's deadline passed before the picture on {host} came");
                Err(Problem::new(ProblemKind::DeadlineExceeded, message))
            }
            Err(_) => {
                let message =
                    format!("the picture on {host} did not come within {} ms", self.timeout.as_millis());
                Err(Problem::new(ProblemKind::UpstreamTimeout, message))
            }
        }
    }

    /// The URL, if it may be fetched.
    fn allowed(&self, address: &str) -> Result<(&reqwest::Client, Url), Problem> {
        let refused = |why: &str| Err(Problem::bad_request(format!("the picture's address {why}")));
        let Ok(url) = Url::parse(address) else { return refused("is no URL") };
        if !url.username().is_empty() || url.password().is_some() {
            return refused("holds a user or a password; expected one without");
        }
        let listed = self.hosts.iter().any(|host| host.is_of(&url));
        match &self.client {
            Some(client) if listed => Ok((client, url)),
            _ => refused(
                "is on a host that this server does not fetch from; send the picture as a data URL \
                 (data:image/png;base64,...), or have the host listed in `pictures.fetch_hosts`",
            ),
        }
    }

    async fn get(&self, client: &reqwest::Client, url: Url, host: &str) -> Result<Bytes, Problem> {
        let mut response = client.get(url).send().await.map_err(|error| failed(host, &words(&error)))?;
        let status = response.status();
        if status != StatusCode::OK {
            let hint = if status.is_redirection() { "; redirects are not followed" } else { "" };
            return Err(failed(host, &format!("its server answered with status {status}{hint}")));
        }
        let too_large = || {
            let message = format!("the picture on {host} has more than the {} bytes allowed", self.max_bytes);
            Problem::new(ProblemKind::TooLarge, message)
        };
        if response.content_length().is_some_and(|length| length > self.max_bytes as u64) {
            return Err(too_large());
        }
        let mut body = BytesMut::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| failed(host, &words(&error)))? {
            if body.len() + chunk.len() > self.max_bytes {
                return Err(too_large());
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body.freeze())
    }
}

/// Whether `named` is an address to fetch from, as opposed to the picture itself.
pub(crate) fn is_address(named: &str) -> bool {
    has_scheme(named, "http:") || has_scheme(named, "https:")
}

fn has_scheme(named: &str, scheme: &str) -> bool {
    named.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme))
}

/// The base64 part of a data URL (RFC 2397). Its media type does not count.
fn data_of(url: &str) -> Result<&str, Problem> {
    let expected = "expected a data URL in base64, such as data:image/png;base64,iVBORw0...";
    let (head, data) = url.split_once(',').ok_or_else(|| Problem::bad_request(expected))?;
    let is_base64 = head.rsplit_once(';').is_some_and(|(_, last)| last.trim().eq_ignore_ascii_case("base64"));
    if is_base64 { Ok(data) } else { Err(Problem::bad_request(expected)) }
}

/// Decodes base64 of the standard alphabet, line breaks allowed, to at most `max_bytes`.
fn decode_base64(text: &str, max_bytes: usize) -> Result<Vec<u8>, Problem> {
    let decoded = if text.bytes().any(|byte| byte.is_ascii_whitespace()) {
        let dense: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
        decode_dense(&dense, max_bytes)?
    } else {
        decode_dense(text.as_bytes(), max_bytes)?
    };
    let expected = "expected a picture in base64 (standard alphabet), a data URL, or an http(s) address";
    match decoded {
        Some(bytes) if !bytes.is_empty() => Ok(bytes),
        Some(_) => Err(Problem::bad_request(format!("{expected}; got nothing"))),
        None => Err(Problem::bad_request(format!("{expected}; got text that is no base64"))),
    }
}

fn decode_dense(text: &[u8], max_bytes: usize) -> Result<Option<Vec<u8>>, Problem> {
    // Four characters hold three bytes.
    if text.len() / 4 > max_bytes / 3 + 1 {
        let message = format!("the picture has more than the {max_bytes} bytes allowed");
        return Err(Problem::new(ProblemKind::TooLarge, message));
    }
    Ok(BASE64.decode(text).ok())
}

fn failed(host: &str, why: &str) -> Problem {
    Problem::new(ProblemKind::UpstreamFailed, format!("the picture on {host} could not be fetched: {why}"))
}

/// The innermost words of an error: the outer ones repeat the address, which may hold a signature.
fn words(error: &reqwest::Error) -> String {
    let mut inner: &dyn std::error::Error = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    if std::ptr::addr_eq(inner, error as &dyn std::error::Error) {
        "the connection broke".to_owned()
    } else {
        inner.to_string()
    }
}

fn client(options: &PictureOptions, lookup: Lookup) -> Result<reqwest::Client, ConfigError> {
    // Another part of the program may have chosen one already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = reqwest::Client::builder()
        .dns_resolver(Arc::new(Checked { lookup }))
        .connect_timeout(options.fetch_timeout)
        .redirect(redirect::Policy::none())
        .no_proxy()
        // Every fetch is checked anew.
        .pool_max_idle_per_host(0)
        .user_agent(concat!("cluegate/", env!("CARGO_PKG_VERSION")));
    builder.build().map_err(|error| ConfigError::Value {
        origin: "the configuration".to_owned(),
        path: "pictures.fetch_hosts".to_owned(),
        expected: "usable for an HTTP client".to_owned(),
        found: error.to_string(),
    })
}

/// Resolves names to public addresses only. A host that is an address itself never comes here: it was listed as such.
struct Checked {
    lookup: Lookup,
}

impl Resolve for Checked {
    fn resolve(&self, name: Name) -> Resolving {
        let found = (self.lookup)(name.as_str().to_owned());
        Box::pin(async move {
            let found = found.await?;
            if found.is_empty() || !found.iter().all(|address| is_public(*address)) {
                tracing::warn!(
                    host = name.as_str(),
                    "a picture on a host without public addresses was refused"
                );
                return Err(io::Error::other("its name does not lead to public addresses alone").into());
            }
            let addresses: Addrs = Box::new(found.into_iter().map(|address| SocketAddr::new(address, 0)));
            Ok(addresses)
        })
    }
}

/// Whether an address is one of the open network: not this machine's, not of a local network, not a cloud's own for
/// metadata, and none that stands for such (IANA special-purpose address registries).
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, d] = address.octets();
    let special = match (a, b, c) {
        // This network, private, loopback, link-local with the metadata service, multicast and reserved.
        (0 | 10 | 127 | 224.., _, _) | (169, 254, _) | (172, 16..=31, _) | (192, 168, _) => true,
        // Shared by carriers; protocol assignments; 6to4 relays; benchmarks; documentation.
        (100, 64..=127, _) | (192, 0, 0 | 2) | (192, 88, 99) | (198, 18 | 19, _) => true,
        (198, 51, 100) | (203, 0, 113) => true,
        // Azure's address for the host of a virtual machine.
        (168, 63, 129) => d == 16,
        _ => false,
    };
    !special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let [a, b, c, d, e, f, g, h] = address.segments();
    let v4 = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        is_public_v4(Ipv4Addr::new(a, b, c, d))
    };
    match (a, b) {
        // Mapped IPv4, and NAT64, which lead to the IPv4 address inside.
        (0, 0) => (c, d, e, f) == (0, 0, 0, 0xffff) && v4(g, h),
        (0x64, 0xff9b) => (c, d, e, f) == (0, 0, 0, 0) && v4(g, h),
        // 6to4 likewise; Teredo and other protocol assignments; documentation.
        (0x2002, _) => v4(b, c),
        (0x2001, 0..=0x1ff | 0xdb8) | (0x3fff, 0..=0xfff) => false,
        // Global unicast, and nothing else: neither loopback, nor local, nor multicast.
        _ => a & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests;
