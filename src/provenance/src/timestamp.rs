//! Timestamps by an authority (RFC 3161), for settings that name one.

use std::io::Read;
use std::time::Duration;

use c2pa::Context;
use c2pa::crypto::time_stamp::{default_rfc3161_message, default_rfc3161_request};
use c2pa::http::http::header::CONTENT_TYPE;
use c2pa::http::http::{Request, Response};
use c2pa::http::{HttpResolverError, SyncHttpResolver};
use ureq::Agent;

/// A timestamp authority.
pub(crate) struct Authority {
    url: String,
    context: Context,
}

impl Authority {
    /// The authority at `url`, which has `timeout` for an answer.
    pub(crate) fn new(url: &str, timeout: Duration) -> Self {
        let config = Agent::config_builder().timeout_global(Some(timeout)).max_redirects(0).build();
        let context = Context::new().with_resolver(Http(Agent::new_with_config(config)));
        Self { url: url.to_owned(), context }
    }

    /// A timestamp for `message`, checked against it.
    ///
    /// # Errors
    /// If there is none in time, or the answer is no timestamp for it.
    pub(crate) fn stamp(&self, message: &[u8]) -> Result<Vec<u8>, c2pa::Error> {
        let asked = default_rfc3161_message(message)?;
        Ok(default_rfc3161_request(&self.url, None, &asked, message, &self.context)?)
    }
}

struct Http(Agent);

impl SyncHttpResolver for Http {
    fn http_resolve(&self, request: Request<Vec<u8>>) -> Result<Response<Box<dyn Read>>, HttpResolverError> {
        let answer = self.0.run(request).map_err(|error| HttpResolverError::Other(Box::new(error)))?;
        let mut response = Response::builder().status(answer.status());
        if let Some(kind) = answer.headers().get(CONTENT_TYPE) {
            response = response.header(CONTENT_TYPE, kind);
        }
        Ok(response.body(Box::new(answer.into_body().into_reader()) as Box<dyn Read>)?)
    }
}
