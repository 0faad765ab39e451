//! What the environment says: the variables of Hugging Face's own tools.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use crate::error::{HubError, Result};
use crate::trust::{BUNDLES, Trust};

/// Where the hub is, unless `HF_ENDPOINT` names another place.
const ENDPOINT: &str = "https://huggingface.co";

/// Where checkpoints lie and how the hub is reached.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Folder of the cache: `HF_HUB_CACHE`, else `hub` in `HF_HOME`, else `huggingface/hub` in `XDG_CACHE_HOME`, else in
    /// `~/.cache`.
    pub cache: PathBuf,
    /// `HF_ENDPOINT`, without a `/` at its end; default `https://huggingface.co`.
    pub endpoint: String,
    /// `HF_TOKEN`, else the content of `HF_TOKEN_PATH`, else of `token` in `HF_HOME`; none if
    /// `HF_HUB_DISABLE_IMPLICIT_TOKEN` is true and only a file has one.
    pub token: Option<Token>,
    /// `HF_HUB_OFFLINE` (or `TRANSFORMERS_OFFLINE`) is 1, true, yes or on.
    pub offline: bool,
    /// Whether the files of a snapshot may be symbolic links: `HF_HUB_DISABLE_SYMLINKS` is not true.
    pub symlinks: bool,
    /// Whether progress may be drawn: `HF_HUB_DISABLE_PROGRESS_BARS` is not true.
    pub progress: bool,
    /// The bundle of authorities that `REQUESTS_CA_BUNDLE`, else `CURL_CA_BUNDLE`, else `SSL_CERT_FILE` names, else the
    /// web's. Not looked for offline.
    pub trust: Trust,
}

/// A secret that stands for an account of the hub. It is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// The token in `text`, without the space around it; none if there is nothing else.
    ///
    /// # Errors
    /// If it holds a character that a header cannot carry. The message does not show it.
    pub fn new(text: &str, source: &str) -> Result<Option<Self>> {
        let text = text.trim();
        if text.is_empty() {
            return Ok(None);
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(HubError::setting(format!(
                "{source} holds a character that no token of the hub has; expected one word such as hf_..., from \
                 the hub's page of access tokens"
            )));
        }
        Ok(Some(Self(text.to_owned())))
    }

    pub(crate) fn secret(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(hidden)")
    }
}

impl Settings {
    /// From the environment of this process.
    ///
    /// # Errors
    /// If no folder can be named, or a variable cannot be used.
    pub fn from_env() -> Result<Self> {
        Self::resolve(|name| std::env::var_os(name))
    }

    pub(crate) fn resolve(variable: impl Fn(&str) -> Option<OsString>) -> Result<Self> {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        let text = |name: &str| set(name).map(|value| value.to_string_lossy().into_owned());
        let is_true = |name: &str| {
            text(name).is_some_and(|value| {
                ["1", "on", "yes", "true"].iter().any(|word| value.eq_ignore_ascii_case(word))
            })
        };
        let home = set("HOME").or_else(|| set("USERPROFILE")).map(PathBuf::from);
        // `~` is not expanded by shells inside quotes or files, and Hugging Face's tools expand it.
        let path = |name: &str| {
            set(name).map(PathBuf::from).map(|path| match (path.strip_prefix("~"), &home) {
                (Ok(rest), Some(home)) => home.join(rest),
                _ => path,
            })
        };
        let hf_home = path("HF_HOME")
            .or_else(|| path("XDG_CACHE_HOME").map(|folder| folder.join("huggingface")))
            .or_else(|| home.as_ref().map(|home| home.join(".cache/huggingface")));
        let cache = path("HF_HUB_CACHE")
            .or_else(|| path("HUGGINGFACE_HUB_CACHE"))
            .or_else(|| hf_home.as_ref().map(|folder| folder.join("hub")))
            .ok_or_else(|| {
                HubError::setting(
                    "there is no place for models: none of HF_HUB_CACHE, HF_HOME, XDG_CACHE_HOME and HOME is set; set \
                     HF_HOME to a folder with room for them",
                )
            })?;
        let named = match text("HF_TOKEN").or_else(|| text("HUGGING_FACE_HUB_TOKEN")) {
            Some(value) => Token::new(&value, "HF_TOKEN")?,
            None => None,
        };
        let token = match named {
            None if !is_true("HF_HUB_DISABLE_IMPLICIT_TOKEN") => {
                let file = path("HF_TOKEN_PATH").or_else(|| hf_home.map(|folder| folder.join("token")));
                let content = file.as_ref().and_then(|file| std::fs::read_to_string(file).ok());
                content.map(|content| Token::new(&content, "the token file")).transpose()?.flatten()
            }
            named => named,
        };
        let offline = is_true("HF_HUB_OFFLINE") || is_true("TRANSFORMERS_OFFLINE");
        let trust = if offline { None } else { Trust::named(&BUNDLES, path)? };
        Ok(Self {
            cache,
            endpoint: endpoint(text("HF_ENDPOINT").as_deref().unwrap_or(ENDPOINT))?,
            token,
            offline,
            symlinks: !is_true("HF_HUB_DISABLE_SYMLINKS"),
            progress: !is_true("HF_HUB_DISABLE_PROGRESS_BARS"),
            trust: trust.unwrap_or_default(),
        })
    }
}

/// An endpoint as it is used: scheme and host, perhaps with a path, and nothing that a message must not show.
fn endpoint(text: &str) -> Result<String> {
    let trimmed = text.trim().trim_end_matches('/');
    let uri = trimmed.parse::<ureq::http::Uri>().ok();
    let usable = uri.as_ref().is_some_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.host().is_some_and(|host| !host.is_empty())
            && uri.authority().is_some_and(|authority| !authority.as_str().contains('@'))
            && uri.query().is_none()
    });
    if usable {
        return Ok(trimmed.to_owned());
    }
    // Not shown: it may hold a password.
    Err(HubError::setting(
        "HF_ENDPOINT cannot be used: expected an address such as https://huggingface.co, http or https, without a user \
         name and without a query",
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::error::HubErrorKind;

    fn settings(set: &[(&str, &str)]) -> Result<Settings> {
        Settings::resolve(|name| set.iter().find(|(other, _)| *other == name).map(|(_, value)| value.into()))
    }

    #[test]
    fn the_first_variable_that_is_set_names_the_cache() {
        let all = [
            ("HF_HUB_CACHE", "/a"),
            ("HUGGINGFACE_HUB_CACHE", "/b"),
            ("HF_HOME", "~/c"),
            ("XDG_CACHE_HOME", "/d"),
            ("HOME", "/home/e"),
        ];
        let expected = ["/a", "/b", "/home/e/c/hub", "/d/huggingface/hub", "/home/e/.cache/huggingface/hub"];
        for (skipped, expected) in expected.iter().enumerate() {
            assert_eq!(settings(&all[skipped..]).unwrap().cache, PathBuf::from(expected));
        }
        let error = settings(&[("HF_HUB_CACHE", "")]).unwrap_err();
        assert_eq!(error.kind(), HubErrorKind::Setting);
        assert!(error.to_string().contains("HF_HOME"), "{error}");
    }

    #[test]
    fn truth_is_spelled_in_four_ways() {
        let offline = |value: &str| settings(&[("HOME", "/h"), ("HF_HUB_OFFLINE", value)]).unwrap().offline;
        assert!(["1", "true", "TRUE", "Yes", "on"].into_iter().all(offline));
        assert!(!["", "0", "false", "no", "2", "auto"].into_iter().any(offline));
        let quiet = settings(&[("HOME", "/h"), ("HF_HUB_DISABLE_PROGRESS_BARS", "1")]).unwrap();
        assert!(!quiet.progress && !quiet.offline);
    }

    #[test]
    fn a_token_comes_from_the_variable_or_the_file_and_is_never_printed() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("token"), "hf_of_the_file\n").unwrap();
        let home = ("HF_HOME", folder.path().to_str().unwrap());
        let token =
            |set: &[(&str, &str)]| settings(set).unwrap().token.map(|token| token.secret().to_owned());
        assert_eq!(token(&[home, ("HF_TOKEN", " hf_named\r\n")]).as_deref(), Some("hf_named"));
        assert_eq!(token(&[home]).as_deref(), Some("hf_of_the_file"));
        assert_eq!(token(&[home, ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")]), None);
        assert_eq!(token(&[home, ("HF_TOKEN_PATH", "/nowhere")]), None);
        let shown = format!("{:?}", settings(&[home]).unwrap());
        assert!(!shown.contains("hf_of"), "{shown}");
        let error = settings(&[home, ("HF_TOKEN", "hf_secret\nX-Header: 1")]).unwrap_err().to_string();
        assert!(error.contains("HF_TOKEN") && !error.contains("secret"), "{error}");
    }

    #[test]
    fn an_endpoint_is_an_address_and_holds_no_secret() {
        let of =
            |value: &str| settings(&[("HOME", "/h"), ("HF_ENDPOINT", value)]).map(|found| found.endpoint);
        assert_eq!(of("https://hf-mirror.com/").unwrap(), "https://hf-mirror.com");
        assert_eq!(of("http://127.0.0.1:8080/hub").unwrap(), "http://127.0.0.1:8080/hub");
        assert_eq!(settings(&[("HOME", "/h")]).unwrap().endpoint, ENDPOINT);
        for bad in
            ["huggingface.co", "ftp://a", "https://", "https://me:password@host", "https://a/?q=password"]
        {
            let error = of(bad).unwrap_err().to_string();
            assert!(error.contains("HF_ENDPOINT") && !error.contains("password"), "{error}");
        }
    }
}
