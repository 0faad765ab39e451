//! Hosts that pictures may be fetched from.

use reqwest::Url;

/// A host, and its port where it is not the scheme's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchHost {
    /// As a URL writes it: in lower case, an IPv6 address in brackets.
    host: String,
    port: Option<u16>,
}

impl FetchHost {
    /// Reads `host`, `host:port`, or the same with an IP address; `None` if it is anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let alone = !text.contains(['/', '\\', '@', '?', '#', '*']) && !text.contains(char::is_whitespace);
        let read = |scheme: &str| Url::parse(&format!("{scheme}://{text}/")).ok().filter(|_| alone);
        let (http, https) = (read("http")?, read("https")?);
        // A URL does not keep the port that its scheme has anyway.
        let port = http.port().or(https.port());
        Some(Self { host: http.host_str()?.to_owned(), port })
    }

    /// Whether `url` is on this host and port.
    pub fn is_of(&self, url: &Url) -> bool {
        let port = match self.port {
            Some(port) => url.port_or_known_default() == Some(port),
            None => url.port().is_none(),
        };
        port && url.host_str() == Some(self.host.as_str())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_host_stands_for_itself_and_its_port_alone() {
        for (listed, url, expected) in [
            ("CDN.example.com", "https://cdn.example.com/a.png", true),
            ("cdn.example.com", "http://cdn.example.com:80/a.png", true),
            ("cdn.example.com", "http://cdn.example.com:22/", false),
            ("cdn.example.com:80", "http://cdn.example.com/", true),
            ("cdn.example.com:80", "https://cdn.example.com/", false),
            ("example.com", "http://cdn.example.com/", false),
            ("example.com", "http://example.com.evil.net/", false),
            ("example.com", "http://example.com./", false),
            ("127.0.0.1:8080", "http://0x7f.1:8080/", true),
            ("127.0.0.1", "http://[::ffff:127.0.0.1]/", false),
            ("[::1]:9", "http://[0::1]:9/", true),
        ] {
            let listed = FetchHost::parse(listed).unwrap();
            assert_eq!(listed.is_of(&Url::parse(url).unwrap()), expected, "{listed:?} {url}");
        }
        for wrong in ["", "http://x", "x/y", "u@x", "*.example.com", "x y", "x:99999", "::1"] {
            assert_eq!(FetchHost::parse(wrong), None, "{wrong}");
        }
    }
}
