//! Who administers, and what of it they may.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::{self as axum_body, Body};
use axum::extract::{FromRequestParts, RawPathParams, Request, State};
use axum::http::Method;
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt as _;

use crate::app::App;
use crate::body::{self, Room};
use crate::client::{Authenticator, Client, Peer, Presented, no_key};
use crate::config::ServerLimits;
use crate::deadline::Deadline;
use crate::keys::{Key, KeyError, KeyFile, KeyKind, KeyRing, Role};
use crate::problem::{Problem, ProblemKind};

/// Most bytes of a body: the text of a policy or a constitution.
pub(super) const BODY_BYTES: usize = 1 << 20;
/// Most bytes of all bodies together.
const BODIES_BYTES: usize = 16 << 20;
/// Longest life of a request.
const LONGEST: Duration = Duration::from_secs(30);
/// How a tenant is called in a route.
const TENANT: &str = "tenant";

/// Who may administer, and room for what they send.
pub(crate) struct Administration {
    key_file: PathBuf,
    authenticator: Authenticator,
    room: Room,
}

impl Administration {
    /// Reads the keys.
    ///
    /// # Errors
    /// If they cannot be read or used, or there is none that may change anything or look at it.
    pub(crate) fn open(key_file: &Path, limits: ServerLimits) -> Result<Self, KeyError> {
        let limits = ServerLimits { body_bytes: BODY_BYTES, bodies_bytes: BODIES_BYTES, ..limits };
        Ok(Self {
            key_file: key_file.to_path_buf(),
            authenticator: Authenticator::new(load(key_file)?, limits.wrong_keys),
            room: Room::new(limits),
        })
    }

    /// Reads the keys again.
    ///
    /// # Errors
    /// As [`Administration::open`]; those that were known stay.
    pub(crate) fn reload(&self) -> Result<(), KeyError> {
        self.authenticator.replace(load(&self.key_file)?);
        Ok(())
    }
}

fn load(key_file: &Path) -> Result<KeyRing, KeyError> {
    let keys = KeyFile::load(key_file, KeyKind::Admin)?;
    if keys.is_empty() {
        let problem = "there is no key in it; `cluegate keys new --role write --id I --file FILE` adds one";
        return Err(KeyError::new(key_file.display().to_string(), problem));
    }
    Ok(keys)
}

/// Who asks: the owner of one of the administration's keys.
#[derive(Debug, Clone)]
pub(super) struct Admin {
    key: Arc<Key>,
}

impl Admin {
    /// Who it is, for the log of changes.
    pub(super) fn name(&self) -> String {
        format!("admin:{}", self.key.id)
    }

    /// Whether the key may do what needs this role.
    fn may(&self, role: Role) -> bool {
        self.key.role.is_some_and(|own| own >= role)
    }

    /// The only tenant that the key sees, if it is limited to one.
    pub(super) fn tenant(&self) -> Option<&str> {
        self.key.tenant.as_deref()
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Admin {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        parts.extensions.get::<Self>().cloned().ok_or_else(no_key)
    }
}

/// The names in the path of a request.
pub(super) struct Names(Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for Names {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Self::Rejection> {
        let params = RawPathParams::from_request_parts(parts, state).await;
        let names = params.map(|params| {
            params.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect::<Vec<_>>()
        });
        Ok(Self(names.unwrap_or_default()))
    }
}

impl Names {
    /// The name at `place` of the route, such as `tenant`; empty if the route has none.
    pub(super) fn get(&self, place: &str) -> &str {
        self.0.iter().find(|(name, _)| name == place).map_or("", |(_, value)| value)
    }
}

/// The door of all routes: which key, what it may, whose tenant it is about. The body is here before the route is asked.
pub(super) async fn enter(
    State(app): State<Arc<App>>,
    peer: Peer,
    names: Names,
    request: Request,
    next: Next,
) -> Response {
    let (mut parts, body) = request.into_parts();
    let Some(administration) = &app.administration else {
        return Problem::new(ProblemKind::NotFound, "there is no administration here").into_response();
    };
    let admin = match admit(administration, &parts, peer, &names) {
        Ok(admin) => admin,
        Err(problem) => {
            body::discard(body).await;
            return problem.into_response();
        }
    };
    let client = Client::new(admin.tenant().unwrap_or("-"), &admin.name());
    let deadline = Deadline(Instant::now() + LONGEST);
    let mut response = match administration.room.read(body, deadline).await {
        Ok(body::Read { bytes, room }) => {
            let (method, path) = (parts.method.clone(), parts.uri.path().to_owned());
            parts.extensions.insert(admin);
            let answer = next.run(Request::from_parts(parts, Body::from(bytes)));
            let answer = AssertUnwindSafe(tokio::time::timeout(LONGEST, answer)).catch_unwind().await;
            drop(room);
            match answer {
                Ok(Ok(answer)) => {
                    if method != Method::GET && answer.status().is_success() {
                        tracing::info!(by = &*client.key, %method, path, "administered");
                    }
                    answer
                }
                Ok(Err(_)) => {
                    let message = format!("this took longer than the {} s that it may", LONGEST.as_secs());
                    Problem::new(ProblemKind::DeadlineExceeded, message).into_response()
                }
                Err(_) => {
                    tracing::error!(
                        "a route of the administration panicked; its request is answered with an error"
                    );
                    Problem::new(ProblemKind::Internal, "the gateway failed while it answered")
                        .into_response()
                }
            }
        }
        Err(problem) => problem.into_response(),
    };
    response.extensions_mut().insert(client);
    response
}

fn admit(
    administration: &Administration,
    parts: &Parts,
    peer: Peer,
    names: &Names,
) -> Result<Admin, Problem> {
    let Presented::Key(key) = administration.authenticator.presented(&parts.headers, peer)? else {
        return Err(no_key());
    };
    let admin = Admin { key };
    let needed = if matches!(parts.method, Method::GET | Method::HEAD) { Role::Read } else { Role::Write };
    if !admin.may(needed) {
        let message =
            format!("this key may look and change nothing; a key of the role `{}` may", needed.as_str());
        return Err(Problem::new(ProblemKind::Forbidden, message));
    }
    match (admin.tenant(), names.get(TENANT)) {
        (Some(_), "") => {
            let message = "this key is limited to one tenant, and this is about all of them";
            Err(Problem::new(ProblemKind::Forbidden, message))
        }
        // As if there were no other, so that it cannot be told which there are.
        (Some(own), asked) if own != asked => Err(no_such("tenant", asked)),
        _ => Ok(admin),
    }
}

/// The problem of a name that nothing has.
pub(super) fn no_such(what: &str, name: &str) -> Problem {
    Problem::new(ProblemKind::NotFound, format!("there is no {what} {name:.128?}"))
}

/// The text of a body.
///
/// # Errors
/// `BadRequest` if it is no UTF-8.
pub(super) async fn text(body: Body) -> Result<String, Problem> {
    let bytes = axum_body::to_bytes(body, BODY_BYTES).await;
    let bytes =
        bytes.map_err(|error| Problem::bad_request(format!("the body could not be read: {error}")))?;
    String::from_utf8(bytes.into()).map_err(|_| Problem::bad_request("expected a body of UTF-8 text"))
}
