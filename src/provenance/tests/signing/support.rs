//! Certificates of an authority of the tests, and what stands in files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use c2pa::{Context, Reader, Settings};
use cluegate_gate::{ConstitutionRecord, Origin, Signer, Statement};
use cluegate_perception::{FileFormat, encode};
use cluegate_provenance::{Algorithm, CredentialError, SigningSettings};
use image::{Rgb, RgbImage};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SignatureAlgorithm, date_time_ymd,
};
use tempfile::TempDir;

/// A folder with an authority, and with what it issued.
pub struct Desk {
    folder: TempDir,
    issuer: Issuer<'static, KeyPair>,
    /// The authority's own certificate, in PEM.
    pub root: String,
}

impl Desk {
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name = name("Test Root");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        let root = params.self_signed(&key).unwrap().pem();
        Self { folder: tempfile::tempdir().unwrap(), issuer: Issuer::new(params, key), root }
    }

    /// Where a file lies.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        std::fs::write(self.path(name), text).unwrap();
        self.path(name)
    }

    /// A certificate and its key, in PEM, as `change` has it.
    pub fn issue(
        &self,
        algorithm: &'static SignatureAlgorithm,
        change: impl FnOnce(&mut CertificateParams),
    ) -> (String, String) {
        let mut params = CertificateParams::default();
        params.distinguished_name = name("Test Gate");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::EmailProtection];
        params.use_authority_key_identifier_extension = true;
        change(&mut params);
        let key = KeyPair::generate_for(algorithm).unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    /// Settings for a certificate of the authority with a key of `algorithm`, its files written.
    pub fn settings(&self, algorithm: Algorithm) -> SigningSettings {
        let of_key = match algorithm {
            Algorithm::Es384 => &rcgen::PKCS_ECDSA_P384_SHA384,
            Algorithm::Ed25519 => &rcgen::PKCS_ED25519,
            _ => &rcgen::PKCS_ECDSA_P256_SHA256,
        };
        let (certificate, key) = self.issue(of_key, |_| {});
        self.write("chain.pem", &format!("{certificate}{}", self.root));
        self.write("signing.key", &key);
        SigningSettings { algorithm, ..self.named("chain.pem", "signing.key") }
    }

    /// Settings that name two files of the folder.
    pub fn named(&self, certificate: &str, key: &str) -> SigningSettings {
        SigningSettings {
            certificate: self.path(certificate),
            key: self.path(key),
            algorithm: Algorithm::Es256,
            timestamp_url: None,
            timestamp_timeout_ms: 1000,
        }
    }

    /// A signer for [`Desk::settings`].
    pub fn signer(&self, algorithm: Algorithm) -> Arc<dyn Signer> {
        cluegate_provenance::open(&self.settings(algorithm))
            .map_err(|error| error.to_string())
            .unwrap()
            .signer
    }
}

fn name(common: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, "Tests");
    name.push(DnType::CommonName, common);
    name
}

/// A certificate that was valid in the year before last.
pub fn expired(params: &mut CertificateParams) {
    (params.not_before, params.not_after) = (date_time_ymd(2019, 1, 1), date_time_ymd(2020, 1, 1));
}

/// A certificate of times to come.
pub fn to_come(params: &mut CertificateParams) {
    (params.not_before, params.not_after) = (date_time_ymd(3019, 1, 1), date_time_ymd(3020, 1, 1));
}

pub fn statement() -> Statement {
    Statement {
        version: "0.1.0",
        constitution: ConstitutionRecord { name: "scene".to_owned(), revision: "ab".repeat(32) },
        decision_id: "0199aaaa-0000-7000-8000-000000000001".to_owned(),
        decided_at: "2026-11-23T09:00:00Z".to_owned(),
        redacted: false,
        origin: Origin::Drawn,
    }
}

pub const FORMATS: [FileFormat; 3] = [FileFormat::Png, FileFormat::Jpeg(90), FileFormat::WebP];

/// A picture that shows something, and its file.
pub fn file(format: FileFormat) -> Vec<u8> {
    let pixels = RgbImage::from_fn(96, 64, |x, y| Rgb([(x * 2) as u8, (y * 3) as u8, ((x * y) % 251) as u8]));
    encode(&pixels, format).unwrap()
}

/// Reads a signed file, trusting `anchors`.
pub fn read(file: &[u8], format: FileFormat, anchors: Option<&str>) -> Result<Reader, c2pa::Error> {
    let mut settings = Settings::new().with_value("verify.remote_manifest_fetch", false)?;
    if let Some(anchors) = anchors {
        settings = settings.with_value("trust.trust_anchors", anchors)?;
    }
    let context = Context::new().with_settings(settings)?;
    Reader::from_context(context).with_stream(format.media_type(), std::io::Cursor::new(file))
}

/// Why `settings` cannot be used.
pub fn refused(settings: &SigningSettings) -> CredentialError {
    match cluegate_provenance::open(settings) {
        Ok(_) => panic!("{settings:?} can be used"),
        Err(error) => error,
    }
}

/// A path as errors name it.
pub fn shown(path: &Path) -> String {
    path.display().to_string()
}
