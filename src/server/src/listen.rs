//! Connections.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::Request;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::client::Peer;
use crate::config::ConfigError;
use crate::keys::KeyError;
use crate::router::router;

/// A server that cannot be started.
#[derive(Debug, Error)]
pub enum ServerError {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The key file cannot be used.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}; expected a free port of an address of this machine")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
}

/// A gateway that listens.
pub struct Server {
    app: Arc<App>,
    listener: TcpListener,
}

impl Server {
    /// Listens on the configured address.
    ///
    /// # Errors
    /// If it cannot.
    pub async fn bind(app: Arc<App>) -> Result<Self, ServerError> {
        let address = app.config.listen;
        let fail = |source| ServerError::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(fail)?;
        Ok(Self { app, listener })
    }

    /// Where it listens: with port 0 in the configuration, the port that it got.
    ///
    /// # Errors
    /// If the system does not say.
    pub fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `stop` is ready. Then takes no further request, lets those in work end for as long as the
    /// configuration says, and calls off the rest: they release nothing.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let Self { app, listener } = self;
        let routes = router(&app);
        let connections = app.config.limits.connections.min(u32::MAX as usize >> 3);
        let places = Arc::new(Semaphore::new(connections));
        let closing = CancellationToken::new();
        let mut builder = http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(app.config.limits.head_timeout);
        let mut stop = std::pin::pin!(stop);
        loop {
            let place = tokio::select! {
                () = &mut stop => break,
                place = Arc::clone(&places).acquire_owned() => place,
            };
            let accepted = tokio::select! {
                () = &mut stop => break,
                accepted = listener.accept() => accepted,
            };
            let (Ok(place), Ok((stream, peer))) = (place, accepted) else {
                // Out of file descriptors, as a rule: others have to end first.
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                continue;
            };
            let routes = routes.clone();
            let service = tower_service(routes, peer);
            let connection = builder.serve_connection(TokioIo::new(stream), service).with_upgrades();
            let closing = closing.clone();
            tokio::spawn(async move {
                let mut connection = std::pin::pin!(connection);
                let ended = tokio::select! {
                    ended = connection.as_mut() => ended,
                    () = closing.cancelled() => {
                        connection.as_mut().graceful_shutdown();
                        connection.await
                    }
                };
                if let Err(error) = ended {
                    tracing::debug!(%error, %peer, "a connection ended");
                }
                drop(place);
            });
        }
        drop(listener);
        app.admission.drain();
        closing.cancel();
        let all = places.acquire_many(u32::try_from(connections).unwrap_or(u32::MAX));
        let drained = async { tokio::join!(all, app.admission.idle()) };
        if tokio::time::timeout(app.config.limits.drain, drained).await.is_err() {
            tracing::warn!("requests in work did not end in time; they are called off");
            app.running.cancel_all();
        }
    }
}

/// The router, told where the connection comes from.
fn tower_service(
    routes: axum::Router,
    peer: SocketAddr,
) -> impl hyper::service::Service<
    hyper::Request<hyper::body::Incoming>,
    Response = axum::response::Response,
    Error = std::convert::Infallible,
    Future = impl Future<Output = Result<axum::response::Response, std::convert::Infallible>> + Send,
> + Clone
+ Send
+ 'static {
    let inner = TowerToHyperService::new(routes);
    hyper::service::service_fn(move |mut request: Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(Peer(peer.ip()));
        hyper::service::Service::call(&inner, request)
    })
}
