//! Certificates and keys, checked before the first picture needs them.

use std::path::Path;

use c2pa::crypto::raw_signature::validator_for_signing_alg;
use c2pa::{BoxedSigner, SigningAlg};
use x509_parser::certificate::X509Certificate;
use x509_parser::error::X509Error;
use x509_parser::pem::Pem;
use x509_parser::prelude::FromDer as _;
use x509_parser::time::ASN1Time;

use crate::{Algorithm, CredentialError, SigningSettings};

/// What the file of certificates holds.
const CHAIN: &str = "a certificate chain in PEM (`-----BEGIN CERTIFICATE-----`), the signer's own first, then each one's issuer";
/// What the file of the key holds.
const KEY: &str = "a private key in PEM (`-----BEGIN PRIVATE KEY-----`, PKCS#8, not encrypted)";
/// What is signed to see whether a key belongs to a certificate.
const PROBE: &[u8] = b"cluegate credentials";

/// The algorithm by the library's name.
pub(crate) fn algorithm(algorithm: Algorithm) -> SigningAlg {
    match algorithm {
        Algorithm::Es256 => SigningAlg::Es256,
        Algorithm::Es384 => SigningAlg::Es384,
        Algorithm::Es512 => SigningAlg::Es512,
        Algorithm::Ps256 => SigningAlg::Ps256,
        Algorithm::Ps384 => SigningAlg::Ps384,
        Algorithm::Ps512 => SigningAlg::Ps512,
        Algorithm::Ed25519 => SigningAlg::Ed25519,
    }
}

/// A certificate chain and the key of its first certificate, which belong together.
pub(crate) struct Credentials {
    /// Signs bytes, and knows no timestamp authority.
    pub(crate) signer: BoxedSigner,
    /// The chain in DER, the signer's own first.
    pub(crate) chain: Vec<Vec<u8>>,
    pub(crate) valid: Valid,
}

/// Whose a certificate is, and how long it counts.
pub(crate) struct Valid {
    pub(crate) subject: String,
    /// When the first certificate of the chain expires.
    pub(crate) until: String,
    /// The signer's public key in DER.
    public_key: Vec<u8>,
}

impl Credentials {
    /// Reads and checks the files of `settings`.
    pub(crate) fn open(settings: &SigningSettings) -> Result<Self, CredentialError> {
        let (certificate, key) = (settings.certificate.as_path(), settings.key.as_path());
        let pem = read("certificate", CHAIN, certificate)?;
        let chain = parse_chain(&pem, certificate)?;
        let valid = check_chain(&chain, settings)?;
        let private = read("key", KEY, key)?;
        check_label(&private, key)?;
        let alg = algorithm(settings.algorithm);
        // What the library says of a key that it cannot read may quote it.
        let signer = c2pa::create_signer::from_keys(&pem, &private, alg, None).map_err(|_| {
            let found = format!("no key for {} ({})", settings.algorithm.as_str(), settings.algorithm.keys());
            CredentialError::Content { what: "key", expected: KEY, path: key.to_path_buf(), found }
        })?;
        let mismatch =
            || CredentialError::Mismatch { certificate: certificate.to_path_buf(), key: key.to_path_buf() };
        let signature = signer.sign(PROBE).map_err(|_| mismatch())?;
        let validator = validator_for_signing_alg(alg).ok_or_else(mismatch)?;
        validator.validate(&signature, PROBE, &valid.public_key).map_err(|_| mismatch())?;
        Ok(Self { signer, chain, valid })
    }
}

fn read(what: &'static str, expected: &'static str, path: &Path) -> Result<Vec<u8>, CredentialError> {
    std::fs::read(path).map_err(|source| CredentialError::Read {
        what,
        expected,
        path: path.to_path_buf(),
        problem: source.to_string(),
    })
}

fn no_chain(path: &Path, found: impl Into<String>) -> CredentialError {
    CredentialError::Content {
        what: "certificate",
        expected: CHAIN,
        path: path.to_path_buf(),
        found: found.into(),
    }
}

fn parse_chain(pem: &[u8], path: &Path) -> Result<Vec<Vec<u8>>, CredentialError> {
    let mut chain = Vec::new();
    for block in Pem::iter_from_buffer(pem) {
        let block = block.map_err(|_| no_chain(path, "something that is no PEM"))?;
        if block.label != "CERTIFICATE" {
            return Err(no_chain(path, format!("a block {:?} too", block.label)));
        }
        chain.push(block.contents);
    }
    if chain.is_empty() { Err(no_chain(path, "none")) } else { Ok(chain) }
}

/// Refuses a key file of another form, by its label alone.
fn check_label(pem: &[u8], path: &Path) -> Result<(), CredentialError> {
    let label = Pem::iter_from_buffer(pem).find_map(Result::ok).map(|block| block.label);
    let found = match label.as_deref() {
        Some("PRIVATE KEY") => return Ok(()),
        Some("ENCRYPTED PRIVATE KEY") => {
            "an encrypted key (`openssl pkcs8 -in KEY -out NEW` decrypts it)".to_owned()
        }
        Some("EC PRIVATE KEY" | "RSA PRIVATE KEY") => {
            "a key of the older form (`openssl pkcs8 -topk8 -nocrypt -in KEY -out NEW` rewrites it)"
                .to_owned()
        }
        Some(other) => format!("a block {other:?}"),
        None => "none".to_owned(),
    };
    Err(CredentialError::Content { what: "key", expected: KEY, path: path.to_path_buf(), found })
}

/// Checks that every certificate is valid now and issued by the next one, and that the first is of the algorithm.
fn check_chain(chain: &[Vec<u8>], settings: &SigningSettings) -> Result<Valid, CredentialError> {
    let path = settings.certificate.as_path();
    let parsed = chain.iter().map(|der| X509Certificate::from_der(der).map(|(_, certificate)| certificate));
    let parsed: Vec<X509Certificate<'_>> =
        parsed.collect::<Result<_, _>>().map_err(|_| no_chain(path, "a block that is no certificate"))?;
    let now = ASN1Time::now();
    for certificate in &parsed {
        check_time(certificate, now, path)?;
    }
    for pair in parsed.windows(2) {
        let [one, issuer] = pair else { continue };
        // A signature of a kind that cannot be verified here is left to whoever reads the files.
        let forged =
            one.verify_signature(Some(issuer.public_key())) == Err(X509Error::SignatureVerificationError);
        if forged || one.issuer() != issuer.subject() {
            let found = format!(
                "the certificate of {} behind that of {}, which it did not issue",
                issuer.subject(),
                one.subject()
            );
            return Err(no_chain(path, found));
        }
    }
    let own = parsed.first().ok_or_else(|| no_chain(path, "none"))?;
    if own.is_ca() {
        return Err(no_chain(path, format!("first the certificate of an authority, {}", own.subject())));
    }
    let found = kind_of_key(own);
    if !fits(settings.algorithm, found) {
        return Err(CredentialError::Algorithm {
            algorithm: settings.algorithm.as_str(),
            expected: settings.algorithm.keys(),
            found: found.to_owned(),
            path: path.to_path_buf(),
        });
    }
    let until = parsed.iter().map(|certificate| certificate.validity().not_after).min();
    Ok(Valid {
        subject: own.subject().to_string(),
        until: until.map(|until| until.to_string()).unwrap_or_default(),
        public_key: own.public_key().raw.to_vec(),
    })
}

fn check_time(certificate: &X509Certificate<'_>, now: ASN1Time, path: &Path) -> Result<(), CredentialError> {
    let validity = certificate.validity();
    if validity.is_valid_at(now) {
        return Ok(());
    }
    let when = match now < validity.not_before {
        true => format!("is valid from {} on", validity.not_before),
        false => format!("expired at {}", validity.not_after),
    };
    Err(CredentialError::NotValidNow {
        subject: certificate.subject().to_string(),
        path: path.to_path_buf(),
        when,
    })
}

const P256: &str = "a P-256 key";
const P384: &str = "a P-384 key";
const P521: &str = "a P-521 key";
const RSA: &str = "an RSA key";
const ED25519: &str = "an Ed25519 key";

/// What kind of key a certificate is of (RFC 5480, RFC 8017, RFC 8410).
fn kind_of_key(certificate: &X509Certificate<'_>) -> &'static str {
    let algorithm = &certificate.public_key().algorithm;
    match algorithm.algorithm.to_id_string().as_str() {
        "1.2.840.10045.2.1" => {
            let curve = algorithm.parameters.as_ref().and_then(|curve| curve.as_oid().ok());
            match curve.map(|curve| curve.to_id_string()).as_deref() {
                Some("1.2.840.10045.3.1.7") => P256,
                Some("1.3.132.0.34") => P384,
                Some("1.3.132.0.35") => P521,
                _ => "a key on another curve",
            }
        }
        "1.2.840.113549.1.1.1" | "1.2.840.113549.1.1.10" => RSA,
        "1.3.101.112" => ED25519,
        _ => "a key of another kind",
    }
}

fn fits(algorithm: Algorithm, kind: &str) -> bool {
    let expected = match algorithm {
        Algorithm::Es256 => P256,
        Algorithm::Es384 => P384,
        Algorithm::Es512 => P521,
        Algorithm::Ps256 | Algorithm::Ps384 | Algorithm::Ps512 => RSA,
        Algorithm::Ed25519 => ED25519,
    };
    kind == expected
}
