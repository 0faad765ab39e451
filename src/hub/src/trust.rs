//! Whose certificates are believed: those of the web's authorities, or the bundle that the environment names, as where a
//! network has an authority of its own.

use std::fmt;
use std::path::{Path, PathBuf};

use ureq::tls::{PemItem, RootCerts, TlsConfig};

use crate::error::{HubError, Result};

/// The variables by which Python's clients are told of a bundle, in the order in which they count: those of requests, then
/// that of OpenSSL.
pub(crate) const BUNDLES: [&str; 3] = ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"];

/// The authorities whose certificates are believed. By default those that Mozilla's list names.
#[derive(Clone, Default)]
pub struct Trust(Option<RootCerts>);

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Trust(a bundle)" } else { "Trust(the web's)" })
    }
}

impl Trust {
    /// The authorities in a file of certificates in PEM, and no others. `variable` is what named it.
    ///
    /// # Errors
    /// `Setting` if it cannot be read or holds no certificate.
    pub(crate) fn bundle(variable: &str, path: &Path) -> Result<Self> {
        let pem = std::fs::read(path).map_err(|error| {
            let path = path.display();
            HubError::setting(format!(
                "{variable} names {path}, which cannot be read ({error}); expected a file of certificates in PEM"
            ))
        })?;
        let items = ureq::tls::parse_pem(&pem).filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        });
        let certificates: Vec<_> = items.collect();
        if certificates.is_empty() {
            return Err(HubError::setting(format!(
                "{variable} names {}, which holds no certificate; expected a file of certificates in PEM",
                path.display()
            )));
        }
        Ok(Self(Some(RootCerts::new_with_certs(&certificates))))
    }

    /// The bundle that the first of `variables` names that is set, if one is.
    ///
    /// # Errors
    /// As [`Self::bundle`].
    pub(crate) fn named(variables: &[&str], path: impl Fn(&str) -> Option<PathBuf>) -> Result<Option<Self>> {
        let found = variables.iter().find_map(|variable| Some((variable, path(variable)?)));
        found.map(|(variable, path)| Self::bundle(variable, &path)).transpose()
    }

    /// How connections are encrypted.
    pub(crate) fn tls(&self) -> TlsConfig {
        let tls = TlsConfig::builder();
        self.0.clone().map_or_else(TlsConfig::default, |roots| tls.root_certs(roots).build())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::error::HubErrorKind;

    // The framing is what is read here; whether a certificate is any good shows in a handshake.
    const PEM: &str = "a comment\n-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";

    #[test]
    fn the_first_variable_that_is_set_names_the_bundle() {
        let folder = tempfile::tempdir().unwrap();
        let good = folder.path().join("good.pem");
        std::fs::write(&good, [PEM, PEM].concat()).unwrap();
        let named = |set: &[(&str, &str)]| {
            Trust::named(&BUNDLES, |name| {
                set.iter().find(|(other, _)| *other == name).map(|(_, path)| folder.path().join(path))
            })
        };
        assert!(named(&[]).unwrap().is_none());
        let roots = |trust: Trust| match trust.tls().root_certs() {
            RootCerts::Specific(certificates) => certificates.len(),
            _ => 0,
        };
        assert_eq!(roots(named(&[("SSL_CERT_FILE", "good.pem")]).unwrap().unwrap()), 2);
        let both = [("SSL_CERT_FILE", "none.pem"), ("REQUESTS_CA_BUNDLE", "good.pem")];
        assert_eq!(roots(named(&both).unwrap().unwrap()), 2);
        assert_eq!(roots(Trust::default()), 0);
    }

    #[test]
    fn a_bundle_that_is_none_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let empty = folder.path().join("empty.pem");
        std::fs::write(&empty, "nothing").unwrap();
        for (path, expected) in [(empty, "no certificate"), (folder.path().join("none"), "cannot be read")] {
            let error = Trust::bundle("PIP_CERT", &path).unwrap_err();
            assert_eq!(error.kind(), HubErrorKind::Setting);
            let text = error.to_string();
            assert!(text.contains("PIP_CERT") && text.contains(expected), "{text}");
        }
    }
}
