//! What a client is told when its request is refused or fails: one vocabulary, which each front writes in its dialect.

use std::time::Duration;

use axum::Json;
use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use cluegate_gate::GateError;
use cluegate_perception::DecodeError;
use serde_json::json;
use thiserror::Error;

use crate::upstream::{UpstreamError, UpstreamErrorKind};

/// Kinds of problems, each with its status and its stable code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProblemKind {
    /// The request is malformed, or a value is out of range.
    BadRequest,
    /// The upstream cannot express the request.
    Inexpressible,
    /// The key is missing or unknown.
    Unauthenticated,
    /// Too many wrong keys from one address.
    TooManyGuesses,
    /// The key's tenant may not do this.
    Forbidden,
    /// There is no such route, or no such thing of this tenant's.
    NotFound,
    /// There was such a thing of this tenant's, and it is kept no longer.
    Gone,
    /// The route has no such method.
    MethodNotAllowed,
    /// The body is too large.
    TooLarge,
    /// The body is not of a type that the route reads.
    UnsupportedType,
    /// The body did not arrive in time.
    RequestTimeout,
    /// The queue is full.
    Overloaded,
    /// The tenant's requests come faster than its policy allows.
    RateLimited,
    /// The tenant has used up what its policy allows for a day or a month.
    QuotaExceeded,
    /// The tenant is suspended.
    Suspended,
    /// The store that holds tenants, keys and quotas is gone.
    StoreGone,
    /// What is to be changed was changed by somebody else meanwhile, or is there already.
    Conflict,
    /// A policy, a template, a constitution or a key that cannot be used.
    Unusable,
    /// The server is stopping.
    Draining,
    /// The upstream refused the request.
    UpstreamRefused,
    /// The upstream failed, cannot be reached, or answers nonsense.
    UpstreamFailed,
    /// The upstream did not answer in time.
    UpstreamTimeout,
    /// The request's deadline passed.
    DeadlineExceeded,
    /// The request was called off before it was finished.
    Cancelled,
    /// No verdict could be had.
    JudgeFailed,
    /// The decision could not be logged, or something else of ours failed.
    Internal,
}

impl ProblemKind {
    /// The HTTP status.
    pub fn status(self) -> StatusCode {
        match self {
            Self::BadRequest | Self::Inexpressible | Self::UpstreamRefused => StatusCode::BAD_REQUEST,
            Self::Unauthenticated => StatusCode::UNAUTHORIZED,
            Self::TooManyGuesses | Self::Overloaded | Self::RateLimited | Self::QuotaExceeded => {
                StatusCode::TOO_MANY_REQUESTS
            }
            Self::Forbidden | Self::Suspended => StatusCode::FORBIDDEN,
            Self::Conflict => StatusCode::CONFLICT,
            Self::Unusable => StatusCode::UNPROCESSABLE_ENTITY,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::Gone => StatusCode::GONE,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::Draining | Self::StoreGone => StatusCode::SERVICE_UNAVAILABLE,
            Self::UpstreamFailed => StatusCode::BAD_GATEWAY,
            Self::UpstreamTimeout | Self::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
            Self::JudgeFailed | Self::Cancelled => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// Stable code for programs.
    pub fn code(self) -> &'static str {
        match self {
            Self::BadRequest => "bad_request",
            Self::Inexpressible => "not_expressible",
            Self::Unauthenticated => "invalid_api_key",
            Self::TooManyGuesses => "too_many_wrong_keys",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::Gone => "gone",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::TooLarge => "too_large",
            Self::UnsupportedType => "unsupported_media_type",
            Self::RequestTimeout => "request_timeout",
            Self::Overloaded => "overloaded",
            Self::RateLimited => "rate_limit_exceeded",
            Self::QuotaExceeded => "quota_exceeded",
            Self::Suspended => "suspended",
            Self::StoreGone => "store_unavailable",
            Self::Conflict => "conflict",
            Self::Unusable => "unusable",
            Self::Draining => "shutting_down",
            Self::UpstreamRefused => "upstream_refused",
            Self::UpstreamFailed => "upstream_failed",
            Self::UpstreamTimeout => "upstream_timeout",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::Cancelled => "cancelled",
            Self::JudgeFailed => "judge_failed",
            Self::Internal => "internal_error",
        }
    }
}

/// Why a request is refused or failed. As a response it has a plain JSON body, which the front of the route rewrites
/// into its dialect; the problem itself travels along in the response's extensions.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{message}")]
pub struct Problem {
    kind: ProblemKind,
    message: String,
    retry_after: Option<Duration>,
    limit: Option<LimitHit>,
}

/// A limit of a tenant's policy that a request ran into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LimitHit {
    /// Its key in the policy.
    pub(crate) name: &'static str,
    /// What the policy allows within the window.
    pub(crate) quota: u64,
    /// How long the window is.
    pub(crate) window: Duration,
    /// How long until there is something left again.
    pub(crate) resets: Duration,
}

impl Problem {
    /// A problem; `message` says what was expected, what came, and what to do. It must not quote pictures or secrets.
    pub fn new(kind: ProblemKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), retry_after: None, limit: None }
    }

    /// A malformed request.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(ProblemKind::BadRequest, message)
    }

    /// Says when to try again.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// New work that is refused because the store is gone.
    pub(crate) fn store_gone(retry_after: Duration) -> Self {
        let message = "the store that holds tenants, keys and quotas cannot be reached, and no new work is taken without \
                       it; come back later";
        Self::new(ProblemKind::StoreGone, message).retry_after(retry_after)
    }

    /// The limit of the tenant's policy that was reached, by its key.
    pub(crate) fn limit(&self) -> Option<&'static str> {
        self.limit.map(|hit| hit.name)
    }

    /// Says which limit was reached, and to try again when there is something left.
    #[must_use]
    pub(crate) fn limited(mut self, hit: LimitHit) -> Self {
        self.limit = Some(hit);
        self.retry_after(hit.resets)
    }

    /// What kind.
    pub fn kind(&self) -> ProblemKind {
        self.kind
    }

    /// For people.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// A response with this body in the status and the headers of the problem.
    pub(crate) fn respond(&self, body: impl serde::Serialize) -> Response {
        let mut response = (self.kind.status(), Json(body)).into_response();
        if let Some(wait) = self.retry_after {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds(wait)));
        }
        if let Some(hit) = &self.limit {
            // draft-ietf-httpapi-ratelimit-headers-10, sections 3 and 4.
            let name = hit.name;
            let policy = format!("\"{name}\";q={};w={}", hit.quota, seconds(hit.window));
            let left = format!("\"{name}\";r=0;t={}", seconds(hit.resets));
            for (header, value) in [("ratelimit-policy", policy), ("ratelimit", left)] {
                if let Ok(value) = HeaderValue::try_from(value) {
                    response.headers_mut().insert(HeaderName::from_static(header), value);
                }
            }
        }
        response.extensions_mut().insert(self.clone());
        response
    }
}

/// Whole seconds, up, and at least one: whoever comes back after them is not too early.
fn seconds(time: Duration) -> u64 {
    (time.as_secs() + u64::from(time.subsec_nanos() > 0)).max(1)
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        self.respond(json!({ "error": self.kind.code(), "message": self.message }))
    }
}

impl From<GateError> for Problem {
    fn from(error: GateError) -> Self {
        let kind = match error {
            GateError::Limit { .. } => ProblemKind::BadRequest,
            GateError::UnknownTenant { .. } => ProblemKind::Forbidden,
            _ => ProblemKind::Internal,
        };
        Self::new(kind, error.to_string())
    }
}

impl From<UpstreamError> for Problem {
    fn from(error: UpstreamError) -> Self {
        let kind = match error.kind() {
            UpstreamErrorKind::Inexpressible => ProblemKind::Inexpressible,
            UpstreamErrorKind::Refused => ProblemKind::UpstreamRefused,
            UpstreamErrorKind::Unreachable | UpstreamErrorKind::Failed | UpstreamErrorKind::Malformed => {
                ProblemKind::UpstreamFailed
            }
            UpstreamErrorKind::Timeout => ProblemKind::UpstreamTimeout,
            UpstreamErrorKind::Cancelled => ProblemKind::Cancelled,
        };
        Self::new(kind, error.told())
    }
}

impl From<DecodeError> for Problem {
    fn from(error: DecodeError) -> Self {
        let kind = match error {
            DecodeError::TooManyBytes { .. } => ProblemKind::TooLarge,
            _ => ProblemKind::BadRequest,
        };
        Self::new(kind, error.to_string())
    }
}
