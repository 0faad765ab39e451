//! Signs files of released pictures.

use std::io::Cursor;
use std::sync::Arc;
use std::time::Duration;

use c2pa::{BoxedSigner, Context, SigningAlg};
use cluegate_gate::{ConstitutionRecord, Origin, Signer, SigningError, Statement};
use cluegate_perception::{FileFormat, encode_png};

use crate::credentials::{Credentials, Valid};
use crate::timestamp::Authority;
use crate::{CredentialError, SigningSettings, manifest};

/// Bytes of a signature and what stands around it, without certificates and timestamp.
const SIGNATURE_BYTES: usize = 2048;
/// Bytes for a timestamp with its certificates.
const TIMESTAMP_BYTES: usize = 10_000;

/// Signs files with one certificate.
pub(crate) struct ContentSigner {
    key: Key,
    context: Arc<Context>,
}

/// The key with its certificates and, if the settings name one, the timestamp authority.
struct Key {
    signer: BoxedSigner,
    chain: Vec<Vec<u8>>,
    authority: Option<Authority>,
}

impl ContentSigner {
    /// Opens and tries what `settings` name. No timestamp is asked for.
    pub(crate) fn open(settings: &SigningSettings) -> Result<(Self, Valid), CredentialError> {
        let Credentials { signer, chain, valid } = Credentials::open(settings)?;
        let unfit = |problem: String| CredentialError::Unfit { path: settings.certificate.clone(), problem };
        let context = manifest::context().map_err(|error| unfit(error.to_string()))?;
        let mut opened = Self { key: Key { signer, chain, authority: None }, context };
        opened.try_out().map_err(unfit)?;
        let timeout = Duration::from_millis(settings.timestamp_timeout_ms);
        opened.key.authority = settings.timestamp_url.as_deref().map(|url| Authority::new(url, timeout));
        Ok((opened, valid))
    }

    /// Signs a picture of one pixel.
    fn try_out(&self) -> Result<(), String> {
        let pixel = encode_png(&image::RgbImage::new(1, 1)).map_err(|error| error.to_string())?;
        let constitution = ConstitutionRecord { name: "none".to_owned(), revision: String::new() };
        let statement = Statement {
            version: env!("CARGO_PKG_VERSION"),
            constitution,
            decision_id: String::new(),
            decided_at: String::new(),
            redacted: false,
            origin: Origin::Drawn,
        };
        self.signed(&pixel, FileFormat::Png, &statement).map(drop).map_err(|error| error.to_string())
    }

    fn signed(&self, file: &[u8], format: FileFormat, statement: &Statement) -> Result<Vec<u8>, c2pa::Error> {
        let mut builder = manifest::builder(&self.context, statement, format)?;
        let (mut source, mut signed) = (Cursor::new(file), Cursor::new(Vec::with_capacity(2 * file.len())));
        builder.sign(&self.key, format.media_type(), &mut source, &mut signed)?;
        Ok(signed.into_inner())
    }
}

impl Signer for ContentSigner {
    fn sign(&self, file: &[u8], format: FileFormat, statement: &Statement) -> Result<Vec<u8>, SigningError> {
        self.signed(file, format, statement).map_err(|error| SigningError(error.to_string()))
    }
}

impl c2pa::Signer for Key {
    fn sign(&self, data: &[u8]) -> Result<Vec<u8>, c2pa::Error> {
        self.signer.sign(data)
    }

    fn alg(&self) -> SigningAlg {
        self.signer.alg()
    }

    fn certs(&self) -> Result<Vec<Vec<u8>>, c2pa::Error> {
        Ok(self.chain.clone())
    }

    fn reserve_size(&self) -> usize {
        let chain: usize = self.chain.iter().map(Vec::len).sum();
        SIGNATURE_BYTES + chain + if self.authority.is_some() { TIMESTAMP_BYTES } else { 0 }
    }

    // Without an address of its own the library asks nobody by itself.
    fn time_authority_url(&self) -> Option<String> {
        None
    }

    fn send_timestamp_request(&self, message: &[u8]) -> Option<Result<Vec<u8>, c2pa::Error>> {
        self.authority.as_ref().map(|authority| authority.stamp(message))
    }
}
