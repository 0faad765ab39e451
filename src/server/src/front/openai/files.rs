//! Released pictures by address.

use std::sync::Arc;

use axum::Extension;
use axum::extract::Path;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};

use crate::client::Client;
use crate::config::Config;
use crate::kept::Kept;
use crate::pictures::Shown;
use crate::problem::{Problem, ProblemKind};

/// Where they are fetched.
pub(super) const ROUTE: &str = "/v1/images/files/{name}";

/// Pictures that clients may fetch for a while, each with the key of its tenant.
pub(super) struct Files(Kept<Shown>);

impl Files {
    pub(super) fn new(config: &Config) -> Self {
        Self(Kept::new(config.limits.keep, config.limits.keep_bytes))
    }

    /// Keeps what a client may see of a decision, and returns the path of its address.
    pub(super) fn keep(&self, tenant: &Arc<str>, decision: &str, shown: &Shown) -> String {
        let name = format!("{decision}.{}", shown.format().extension());
        let path = ROUTE.replace("{name}", &name);
        self.0.put(tenant, name, shown.clone(), shown.bytes().len());
        path
    }
}

/// What addresses of this gate begin with: as the configuration says, else scheme and host as the client named them.
///
/// # Errors
/// If it named none.
pub(super) fn base(headers: &HeaderMap, config: &Config) -> Result<String, Problem> {
    if let Some(public) = &config.public_url {
        return Ok(public.as_str().trim_end_matches('/').to_owned());
    }
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let host =
        host.and_then(|host| host.parse::<Authority>().ok()).filter(|host| !host.as_str().contains('@'));
    let host = host.ok_or_else(|| {
        Problem::bad_request(
            "expected a `Host` header, which addresses of pictures begin with, or `b64_json`",
        )
    })?;
    Ok(format!("{}://{host}", if config.tls.is_some() { "https" } else { "http" }))
}

/// A kept picture, for its tenant.
pub(super) async fn file(
    Extension(files): Extension<Arc<Files>>,
    client: Client,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    let shown = files.0.get(&client.tenant, &name).ok_or_else(|| {
        Problem::new(ProblemKind::NotFound, "there is no such file of yours; files are kept for a while only")
    })?;
    let headers = [
        (header::CONTENT_TYPE, shown.format().media_type()),
        (header::CACHE_CONTROL, "private, no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    Ok((headers, shown.bytes().clone()).into_response())
}
