//! TLS 1.2 and 1.3 by rustls.

use std::path::Path;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use crate::config::{ConfigError, RawTls};

/// Whether the certificate and the key of these files can be used.
///
/// # Errors
/// As for a server that would take connections with them.
pub fn check(files: &RawTls) -> Result<(), ConfigError> {
    acceptor(files).map(drop)
}

/// What takes TLS connections with the certificate and the key of these files.
///
/// # Errors
/// If a file cannot be read, holds nothing of the kind, or the key does not belong to the certificate. The error shows
/// nothing of the key.
pub(crate) fn acceptor(files: &RawTls) -> Result<TlsAcceptor, ConfigError> {
    let refuse = |path: &str, expected: &str, found: String| ConfigError::Value {
        origin: "the configuration".to_owned(),
        path: path.to_owned(),
        expected: expected.to_owned(),
        found,
    };
    let found = |path: &Path, problem: &pem::Error| {
        let problem = match problem {
            pem::Error::Io(source) => source.to_string(),
            pem::Error::NoItemsFound => "a file without such a section".to_owned(),
            // Other messages quote the file.
            _ => "a file that is no PEM".to_owned(),
        };
        format!("{} ({problem})", path.display())
    };
    let expected =
        "a file with a certificate chain in PEM (`-----BEGIN CERTIFICATE-----`), the server's own first";
    let refuse_chain =
        |problem: pem::Error| refuse("tls.certificate", expected, found(&files.certificate, &problem));
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(&files.certificate)
        .map_err(refuse_chain)?
        .collect::<Result<_, _>>()
        .map_err(refuse_chain)?;
    if chain.is_empty() {
        return Err(refuse_chain(pem::Error::NoItemsFound));
    }
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|problem| {
        let expected = "a file with a private key in PEM (`-----BEGIN PRIVATE KEY-----`, not encrypted)";
        refuse("tls.key", expected, found(&files.key, &problem))
    })?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key));
    let mut config = config.map_err(|problem| {
        let expected = "a certificate chain and the private key of its first certificate";
        let names = format!("{} and {} ({problem})", files.certificate.display(), files.key.display());
        refuse("tls", expected, names)
    })?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
