//! Engines behind TLS: whose certificate is trusted.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use cluegate_perception::VisionLanguageModel;
use cluegate_remote::{RemoteErrorKind, RemoteJudge, RemoteOptions};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivatePkcs8KeyDer;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::engine::{Engine, Kind, options, routes};

/// Connections after the handshake of TLS; a client that goes away in it is none.
struct Listener(TcpListener, TlsAcceptor);

impl axum::serve::Listener for Listener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, SocketAddr) {
        loop {
            if let Ok((stream, address)) = self.0.accept().await
                && let Ok(stream) = self.1.accept(stream).await
            {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

/// The engine's routes behind TLS, with a certificate of an authority of its own, whose certificate in PEM comes back.
fn behind_tls(engine: &Engine, name: &str) -> (String, String) {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let own = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![own.der().clone()], PrivatePkcs8KeyDer::from(key.serialize_der()).into())
        .unwrap();
    let routes: Router = routes(&engine.shared);
    let listener = engine.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let port = listener.local_addr().unwrap().port();
    let listener = Listener(listener, TlsAcceptor::from(Arc::new(config)));
    engine.spawn(async move { axum::serve(listener, routes).await.unwrap() });
    (format!("https://localhost:{port}"), authority.pem())
}

#[test]
fn an_authority_of_ones_own_is_trusted_where_it_is_named_and_only_there() {
    let engine = Engine::start(Kind::TokenIds);
    let (url, pem) = behind_tls(&engine, "localhost");
    let unknown = RemoteOptions { urls: vec![url], ..options(&[]) };
    let error = RemoteJudge::open(&unknown).unwrap_err();
    assert_eq!(error.kind(), RemoteErrorKind::Untrusted);
    assert!(error.to_string().contains("name its certificate as `certificates`"), "{error}");
    assert!(!error.to_string().contains("attempts"), "another attempt meets the same certificate: {error}");

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("authority.pem");
    std::fs::write(&path, pem).unwrap();
    let named = RemoteOptions { certificates: Some(path.clone()), ..unknown };
    let judge = RemoteJudge::open(&named).unwrap();
    assert!(judge.fingerprint().starts_with("remote:"));

    // Signed by the same kind of authority, for another host.
    let (url, pem) = behind_tls(&engine, "elsewhere.example");
    std::fs::write(&path, pem).unwrap();
    let error = RemoteJudge::open(&RemoteOptions { urls: vec![url], ..named }).unwrap_err();
    assert_eq!(error.kind(), RemoteErrorKind::Untrusted);
    assert!(error.to_string().contains("localhost"), "{error}");
}
