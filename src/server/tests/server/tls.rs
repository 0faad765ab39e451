//! HTTPS.

use std::path::Path;
use std::sync::Arc;

use cluegate_gate::fakes::{CONSTITUTION, World};
use cluegate_gate::{Gate, MemoryLog, Policies};
use cluegate_server::{App, Config, Server};
use rcgen::generate_simple_self_signed;
use reqwest::tls::Version;
use reqwest::{Certificate, ClientBuilder, StatusCode};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::support::{Gateway, Setup, client_builder, logged, within};

const TABLES: &str = "[tls]\ncertificate = \"certificate.pem\"\nkey = \"key.pem\"\n";

/// A certificate for this machine, and its key, in PEM.
fn identity() -> (String, String) {
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    let made = generate_simple_self_signed(names).unwrap();
    (made.cert.pem(), made.signing_key.serialize_pem())
}

async fn start(limits: &str) -> (Gateway, Certificate) {
    let (certificate, key) = identity();
    let trusted = Certificate::from_pem(certificate.as_bytes()).unwrap();
    let gateway = Gateway::start(Setup {
        config_tables: format!("{TABLES}{limits}"),
        files: vec![("certificate.pem", certificate), ("key.pem", key)],
        ..Setup::default()
    });
    (gateway.await, trusted)
}

fn trusting(certificate: &Certificate) -> ClientBuilder {
    client_builder().tls_certs_only([certificate.clone()])
}

#[tokio::test]
async fn both_versions_are_spoken_to_whoever_trusts_the_certificate() {
    let (gateway, certificate) = start("").await;
    let health = format!("{}/healthz", gateway.url);
    for version in [Version::TLS_1_2, Version::TLS_1_3] {
        let client =
            trusting(&certificate).tls_version_min(version).tls_version_max(version).build().unwrap();
        assert_eq!(client.get(&health).send().await.unwrap().status(), StatusCode::OK, "{version:?}");
    }
    let stranger = trusting(&Certificate::from_pem(identity().0.as_bytes()).unwrap()).build().unwrap();
    assert!(stranger.get(&health).send().await.is_err());
}

#[tokio::test]
async fn what_is_no_handshake_is_cut_off() {
    let (gateway, certificate) = start("[limits]\nhead_timeout_ms = 300\n").await;
    // Plain HTTP gets no answer in plain text.
    let answer = gateway.raw(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(!answer.contains("HTTP/1.1 200"), "{answer}");
    logged("a TLS handshake failed").await;
    let mut silent = TcpStream::connect(gateway.address).await.unwrap();
    let mut nothing = Vec::new();
    let _ = within(silent.read_to_end(&mut nothing)).await;
    assert!(nothing.is_empty());
    logged("a TLS handshake took too long").await;
    let client = trusting(&certificate).build().unwrap();
    assert!(client.get(format!("{}/healthz", gateway.url)).send().await.is_ok());
}

#[tokio::test]
async fn files_that_cannot_be_used_are_named_and_never_quoted() {
    let ((certificate, key), (_, other_key)) = (identity(), identity());
    let secret = key.lines().nth(1).unwrap().to_owned();
    for (files, expected) in [
        (vec![("certificate.pem", certificate.clone())], "`tls.key` must be a file with a private key"),
        (vec![("key.pem", key.clone())], "`tls.certificate` must be a file with a certificate chain"),
        (vec![("certificate.pem", key.clone()), ("key.pem", key.clone())], "`tls.certificate`"),
        (vec![("certificate.pem", certificate.clone()), ("key.pem", certificate.clone())], "`tls.key`"),
        (
            vec![("certificate.pem", certificate.clone()), ("key.pem", other_key)],
            "`tls` must be a certificate chain",
        ),
        (vec![("certificate.pem", "no PEM".to_owned()), ("key.pem", key.clone())], "`tls.certificate`"),
        (
            vec![
                ("certificate.pem", certificate.clone()),
                ("key.pem", format!("-----BEGIN PRIVATE KEY-----\n{secret}")),
            ],
            "`tls.key`",
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let error = match Server::bind(app(folder.path())).await {
            Err(error) => error.to_string(),
            Ok(_) => panic!("expected {expected}"),
        };
        assert!(error.contains(expected), "{expected}: {error}");
        assert!(!error.contains(&secret), "{error}");
    }
}

fn app(folder: &Path) -> Arc<App> {
    std::fs::write(folder.join("world.toml"), CONSTITUTION).unwrap();
    std::fs::write(folder.join("policy.toml"), "[tenant.t]\nconstitution = \"world.toml\"\n").unwrap();
    let text =
        format!("listen = \"127.0.0.1:0\"\npolicy = \"policy.toml\"\n[keys]\nanonymous = \"t\"\n{TABLES}");
    let config = Config::parse(&text, "gate.toml", folder).unwrap();
    let policies = Policies::load(folder.join("policy.toml")).unwrap();
    let gate = Gate::new(&policies, Arc::new(World::new([])), Arc::new(MemoryLog::new(1))).unwrap();
    App::new(config, Arc::new(gate), None).unwrap()
}
