//! The administration: what runs the gateway, at an address of its own and with keys of its own. No route of it is
//! reachable where clients are.
//!
//! ```text
//! GET                      needs the role `read`; everything else needs `write`
//! /admin/v1/tenants/NAME   a key that is limited to one tenant sees that tenant, and for it there are no others
//! ```
//!
//! Policies and constitutions travel as the TOML that they are written in; all else is JSON. What is changed is changed in
//! the store; a gateway that reads files has nothing to change here, and says so.

mod constitutions;
mod decisions;
mod door;
mod keys;
mod metrics;
mod openapi;
mod status;
mod tenants;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::Method;
use axum::middleware;
use axum::routing::{MethodRouter, get};

pub(crate) use door::Administration;

use crate::app::App;
use crate::problem::{Problem, ProblemKind};
use crate::router::{Route, name_request, unknown, wrong_method};

/// The routes that need a key.
fn routes() -> Vec<Route> {
    let mut routes = status::routes();
    routes.extend(tenants::routes());
    routes.extend(keys::routes());
    routes.extend(metrics::routes());
    routes.extend(constitutions::routes());
    routes.extend(decisions::routes());
    routes
}

/// A route of the administration.
fn route(path: &'static str, methods: &'static [&'static str], handler: MethodRouter<Arc<App>>) -> Route {
    Route { path, methods, handler }
}

/// The router of the administration's own port.
pub(crate) fn router(app: &Arc<App>) -> Router {
    let gated = routes().into_iter().fold(Router::new(), |router, Route { path, methods, handler }| {
        let refuse = move |method: Method| async move { wrong_method(&method, methods) };
        router.route(path, handler.fallback(refuse))
    });
    let gated = gated.route_layer(middleware::from_fn_with_state(Arc::clone(app), door::enter));
    Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route("/openapi.json", get(openapi::serve))
        .merge(gated)
        .fallback(unknown)
        .layer(DefaultBodyLimit::max(door::BODY_BYTES))
        .layer(middleware::from_fn(name_request))
        .with_state(Arc::clone(app))
}

/// The problem of a change to what is kept in files.
fn in_files() -> Problem {
    let message = "this gateway reads policies and keys from files, and changes none of them; change the files, or use a \
                   [store]";
    Problem::new(ProblemKind::Conflict, message)
}

#[cfg(test)]
mod tests;
