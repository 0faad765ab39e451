//! Settings, which every build reads.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::path::Path;

use cluegate_provenance::{Algorithm, SigningSettings};

fn settings() -> SigningSettings {
    SigningSettings {
        certificate: "chain.pem".into(),
        key: "signing.key".into(),
        algorithm: Algorithm::Es256,
        timestamp_url: None,
        timestamp_timeout_ms: 5000,
    }
}

#[test]
fn values_are_checked_and_paths_are_the_configurations() {
    let own = settings().in_folder(Path::new("/etc/gate"));
    assert_eq!(own.certificate, Path::new("/etc/gate/chain.pem"));
    assert_eq!(own.key, Path::new("/etc/gate/signing.key"));
    assert_eq!(own.check(), Ok(()));
    let with = |url: &str| SigningSettings { timestamp_url: Some(url.to_owned()), ..settings() };
    assert_eq!(with("http://tsa.example.com").check(), Ok(()));
    let (key, expected, found) = with("tsa.example.com").check().unwrap_err();
    assert_eq!((key, &*found), ("timestamp_url", "\"tsa.example.com\""));
    assert!(expected.contains("https://"), "{expected}");
    // A key that stands in the configuration itself is refused without being shown.
    let pem = "-----BEGIN PRIVATE KEY-----\nsecret\n-----END PRIVATE KEY-----";
    let told = SigningSettings { key: pem.into(), ..settings() }.check().unwrap_err();
    assert_eq!(told, ("key", "the name of a file in PEM", "the text of one".to_owned()));
    for ms in [0, 60_001] {
        let (key, ..) = SigningSettings { timestamp_timeout_ms: ms, ..settings() }.check().unwrap_err();
        assert_eq!(key, "timestamp_timeout_ms");
    }
}

#[test]
#[cfg(not(feature = "c2pa"))]
fn a_build_that_cannot_sign_says_how_to_build_one_that_can() {
    let Err(error) = cluegate_provenance::open(&settings()) else { panic!("it signs") };
    assert_eq!(error, cluegate_provenance::CredentialError::NotBuilt);
    assert!(error.to_string().contains("cargo build --release --features c2pa"), "{error}");
}
