//! Connections.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::Request;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::admin;
use crate::app::App;
use crate::client::Peer;
use crate::config::{ConfigError, RawTls, ServerLimits};
use crate::keys::KeyError;
use crate::live::ReloadError;
use crate::router::router;
use crate::socket::Socket;
use crate::tls;

/// Most headers of a request. More are answered with 431.
const HEADERS: usize = 100;
/// Most bytes of a request's head. More are answered with 431.
const HEAD_BYTES: usize = 64 << 10;
/// What is read from a connection at a time.
const BUFFER_BYTES: usize = 128 << 10;
/// How long requests that were called off at the end may take to be answered, and WebSockets to be closed.
const FAREWELL: Duration = Duration::from_secs(5);
/// How long to wait where the system gives no socket.
const BREATH: Duration = Duration::from_millis(50);
/// Most connections of the administration.
const ADMIN_CONNECTIONS: usize = 64;

/// A server that cannot be started.
#[derive(Debug, Error)]
pub enum ServerError {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The key file cannot be used.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// Policies or keys cannot be used, or not be had.
    #[error(transparent)]
    Policies(#[from] ReloadError),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}; expected a free port of an address of this machine")]
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
    public: Port,
    admin: Option<Port>,
}

/// An address that is listened on.
struct Port {
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
}

impl Port {
    async fn bind(address: SocketAddr, tls: Option<&RawTls>) -> Result<Self, ServerError> {
        let tls = tls.map(tls::acceptor).transpose()?;
        let fail = |source| ServerError::Listen { address, source };
        Ok(Self { listener: TcpListener::bind(address).await.map_err(fail)?, tls })
    }
}

impl Server {
    /// Listens on the configured address, and on the administration's, if there is one.
    ///
    /// # Errors
    /// If it cannot, or a certificate or its key cannot be used.
    pub async fn bind(app: Arc<App>) -> Result<Self, ServerError> {
        let public = Port::bind(app.config.listen, app.config.tls.as_ref()).await?;
        let admin = match &app.config.admin {
            Some(admin) => Some(Port::bind(admin.listen, admin.tls.as_ref()).await?),
            None => None,
        };
        Ok(Self { app, public, admin })
    }

    /// Where it listens: with port 0 in the configuration, the port that it got.
    ///
    /// # Errors
    /// If the system does not say.
    pub fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.public.listener.local_addr()
    }

    /// Where the administration listens, if there is one.
    ///
    /// # Errors
    /// If the system does not say.
    pub fn admin_addr(&self) -> std::io::Result<Option<SocketAddr>> {
        self.admin.as_ref().map(|admin| admin.listener.local_addr()).transpose()
    }

    /// Serves until `stop` is ready. Then takes no further request, lets those in work end for as long as
    /// `limits.drain_ms` says, and calls off the rest: they release nothing, and are answered so. Returns at most ten
    /// seconds after that time. A judgment that does not heed being called off may still run on its thread. The
    /// administration is served until the end.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let Self { app, public: Port { listener, tls }, admin } = self;
        let limits = app.config.limits;
        let door = Door::new(router(&app), tls, limits);
        let mut beside = JoinSet::new();
        beside.spawn(Arc::clone(&app).watch());
        beside.spawn(Arc::clone(&app).expire_regularly());
        if let Some(Port { listener, tls }) = admin {
            let limits = ServerLimits { connections: ADMIN_CONNECTIONS, ..limits };
            let door = Door::new(admin::router(&app), tls, limits);
            beside.spawn(async move { match door.serve(&listener, &mut JoinSet::new(), false).await {} });
        }
        let (mut connections, mut late) = (JoinSet::new(), JoinSet::new());
        tokio::select! {
            () = stop => {}
            never = door.serve(&listener, &mut connections, false) => match never {},
        }
        tracing::info!(in_work = app.admission.in_work(), "stopping: no further request is taken");
        app.admission.drain();
        door.closing.cancel();
        tokio::select! {
            () = async { tokio::join!(app.admission.idle(), all_ended(&mut connections)); } => {}
            // Whoever comes now is told so, which is more than a refused connection says.
            never = door.serve(&listener, &mut late, true) => match never {},
            () = sleep(limits.drain) => {
                tracing::warn!(in_work = app.admission.in_work(), "requests in work did not end in time; they are called off");
                app.call_off();
                let _ = timeout(FAREWELL, async { tokio::join!(app.admission.idle(), all_ended(&mut connections)) }).await;
            }
        }
        drop(listener);
        // Those that became WebSockets are closed by their fronts.
        let _ = timeout(FAREWELL, door.all_closed()).await;
        door.cut.cancel();
        connections.shutdown().await;
        late.shutdown().await;
        beside.shutdown().await;
        app.farewell().await;
    }
}

/// Waits until every task has ended.
async fn all_ended(tasks: &mut JoinSet<()>) {
    while let Some(ended) = tasks.join_next().await {
        report_panic(ended);
    }
}

fn report_panic(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!("a connection's task panicked; the connection is closed");
    }
}

/// Most connections of a door.
fn places(limits: ServerLimits) -> usize {
    limits.connections.min(u32::MAX as usize >> 3)
}

/// What all connections of a port share.
struct Door {
    routes: axum::Router,
    builder: http1::Builder,
    tls: Option<TlsAcceptor>,
    limits: ServerLimits,
    places: Arc<Semaphore>,
    /// Ends connections that are idle, and the others after their answer.
    closing: CancellationToken,
    /// Breaks all connections, WebSockets too.
    cut: CancellationToken,
}

impl Door {
    fn new(routes: axum::Router, tls: Option<TlsAcceptor>, limits: ServerLimits) -> Arc<Self> {
        let mut builder = http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(limits.head_timeout);
        builder.max_headers(HEADERS).max_header_size(HEAD_BYTES).max_buf_size(BUFFER_BYTES);
        Arc::new(Self {
            routes,
            places: Arc::new(Semaphore::new(places(limits))),
            closing: CancellationToken::new(),
            cut: CancellationToken::new(),
            builder,
            tls,
            limits,
        })
    }

    /// Waits until no connection is left.
    async fn all_closed(&self) {
        // The semaphore is never closed.
        let _ = self.places.acquire_many(u32::try_from(places(self.limits)).unwrap_or(u32::MAX)).await;
    }

    /// Takes connections for ever. `last` says that each is closed after one answer.
    async fn serve(
        self: &Arc<Self>,
        listener: &TcpListener,
        tasks: &mut JoinSet<()>,
        last: bool,
    ) -> Infallible {
        loop {
            let Some(place) = self.place().await else {
                // The semaphore is never closed.
                sleep(BREATH).await;
                continue;
            };
            let (stream, peer) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of file descriptors, as a rule: others have to end first.
                    tracing::warn!(%error, "no connection could be taken");
                    sleep(BREATH).await;
                    continue;
                }
            };
            while let Some(ended) = tasks.try_join_next() {
                report_panic(ended);
            }
            tasks.spawn(Arc::clone(self).connection(stream, peer, place, last));
        }
    }

    async fn place(&self) -> Option<OwnedSemaphorePermit> {
        if let Ok(place) = Arc::clone(&self.places).try_acquire_owned() {
            return Some(place);
        }
        tracing::warn!(
            connections = self.limits.connections,
            "all connections are taken; further ones have to wait"
        );
        Arc::clone(&self.places).acquire_owned().await.ok()
    }

    async fn connection(
        self: Arc<Self>,
        stream: TcpStream,
        peer: SocketAddr,
        place: OwnedSemaphorePermit,
        last: bool,
    ) {
        // Otherwise the end of an answer may wait for the client's word about its begin.
        let _ = stream.set_nodelay(true);
        let socket = Socket::new(stream, place, self.cut.clone(), self.limits.send_timeout);
        match &self.tls {
            None => self.http(socket, peer, last).await,
            Some(tls) => match timeout(self.limits.head_timeout, tls.accept(socket)).await {
                Ok(Ok(stream)) => self.http(stream, peer, last).await,
                Ok(Err(error)) => tracing::warn!(%peer, %error, "a TLS handshake failed"),
                Err(_) => tracing::warn!(%peer, "a TLS handshake took too long"),
            },
        }
    }

    async fn http(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        peer: SocketAddr,
        last: bool,
    ) {
        let service = tower_service(self.routes.clone(), peer);
        let mut builder = self.builder.clone();
        let connection =
            builder.keep_alive(!last).serve_connection(TokioIo::new(stream), service).with_upgrades();
        let mut connection = std::pin::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = self.closing.cancelled(), if !last => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        match ended {
            Ok(()) => {}
            // What hyper says of a head is a phrase of its own, and quotes nothing.
            Err(error) if error.is_parse() => {
                tracing::warn!(%peer, %error, "a malformed request was refused")
            }
            Err(error) if error.is_timeout() => {
                tracing::warn!(%peer, "the head of a request took too long; the connection is closed");
            }
            Err(error) => tracing::debug!(%peer, %error, "a connection broke"),
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
    Error = Infallible,
    Future = impl Future<Output = Result<axum::response::Response, Infallible>> + Send,
> + Clone
+ Send
+ 'static {
    let inner = TowerToHyperService::new(routes);
    hyper::service::service_fn(move |mut request: Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(Peer(peer.ip()));
        hyper::service::Service::call(&inner, request)
    })
}
