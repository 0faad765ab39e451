//! Certificates and keys that cannot be used.

use cluegate_provenance::{Algorithm, CredentialError, SigningSettings};
use rcgen::{
    CertificateParams, ExtendedKeyUsagePurpose, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384,
};

use crate::support::{Desk, expired, refused, shown, to_come};

#[test]
fn files_that_are_missing_or_hold_something_else_are_named() {
    let desk = Desk::new();
    desk.settings(Algorithm::Es256);
    let nowhere = desk.named("nowhere.pem", "signing.key");
    let error = refused(&nowhere);
    assert!(matches!(&error, CredentialError::Read { what: "certificate", .. }), "{error}");
    assert!(error.to_string().contains(&shown(&nowhere.certificate)), "{error}");
    let error = refused(&desk.named("chain.pem", "nowhere.key"));
    assert!(matches!(&error, CredentialError::Read { what: "key", .. }), "{error}");
    desk.write("empty", "");
    for (certificate, key, says) in [
        ("empty", "signing.key", "holds none"),
        ("signing.key", "signing.key", "a block \"PRIVATE KEY\" too"),
        ("chain.pem", "empty", "holds none"),
        ("chain.pem", "chain.pem", "a block \"CERTIFICATE\""),
    ] {
        let error = refused(&desk.named(certificate, key)).to_string();
        assert!(error.contains(says), "{certificate} {key}: {error}");
    }
}

#[test]
fn a_key_of_another_certificate_kind_or_form_is_refused_and_never_quoted() {
    let desk = Desk::new();
    desk.settings(Algorithm::Es256);
    let own = std::fs::read_to_string(desk.path("signing.key")).unwrap();
    let (_, other) = desk.issue(&PKCS_ECDSA_P256_SHA256, |_| {});
    let (_, longer) = desk.issue(&PKCS_ECDSA_P384_SHA384, |_| {});
    let cut = format!("{}\n-----END PRIVATE KEY-----\n", &own[..60]);
    for (key, says) in [
        (other, "belongs to another"),
        (longer, "no key for es256 (a P-256 key)"),
        (own.replace("PRIVATE KEY", "EC PRIVATE KEY"), "openssl pkcs8 -topk8 -nocrypt"),
        (own.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY"), "an encrypted key"),
        (cut, "no key for es256"),
    ] {
        desk.write("other.key", &key);
        let error = refused(&desk.named("chain.pem", "other.key"));
        let told = format!("{error} {error:?}");
        assert!(told.contains(says), "{says}: {told}");
        let secret = key.lines().nth(1).unwrap_or_default();
        assert!(!secret.is_empty() && !told.contains(&secret[..16]), "{told}");
    }
}

#[test]
fn the_algorithm_has_to_fit_the_certificate() {
    let desk = Desk::new();
    for (own, named, says) in [
        (Algorithm::Es256, Algorithm::Es384, "es384 signs with a P-384 key, but the certificate in"),
        (Algorithm::Es384, Algorithm::Ps256, "ps256 signs with an RSA key of 2048 bits or more"),
        (Algorithm::Ed25519, Algorithm::Es256, "is of an Ed25519 key; name the algorithm of that key"),
    ] {
        let settings = SigningSettings { algorithm: named, ..desk.settings(own) };
        let error = refused(&settings).to_string();
        assert!(error.contains(says), "{error}");
    }
}

#[test]
fn certificates_that_are_not_valid_now_say_when_they_are() {
    let desk = Desk::new();
    type Change = fn(&mut CertificateParams);
    for (change, says) in [(expired as Change, "expired at Jan  1"), (to_come, "is valid from Jan  1")] {
        let (certificate, key) = desk.issue(&PKCS_ECDSA_P256_SHA256, change);
        desk.write("old.pem", &certificate);
        desk.write("old.key", &key);
        let error = refused(&desk.named("old.pem", "old.key"));
        assert!(matches!(&error, CredentialError::NotValidNow { .. }), "{error}");
        let told = error.to_string();
        assert!(told.contains(says) && told.contains("Test Gate"), "{told}");
    }
}

#[test]
fn a_chain_has_the_signers_own_first_and_each_ones_issuer_behind_it() {
    let desk = Desk::new();
    let settings = desk.settings(Algorithm::Es256);
    let own = std::fs::read_to_string(&settings.certificate).unwrap();
    let own = own.strip_suffix(desk.root.as_str()).unwrap();
    let stranger = Desk::new().root;
    for (chain, says) in [
        (format!("{}{own}", desk.root), "which it did not issue"),
        (desk.root.clone(), "first the certificate of an authority"),
        (format!("{own}{stranger}"), "which it did not issue"),
    ] {
        desk.write("other.pem", &chain);
        let error = refused(&desk.named("other.pem", "signing.key")).to_string();
        assert!(error.contains(says), "{says}: {error}");
    }
    // The root may be left out.
    desk.write("short.pem", own);
    assert!(cluegate_provenance::open(&desk.named("short.pem", "signing.key")).is_ok());
}

#[test]
fn certificates_that_are_for_something_else_sign_no_pictures() {
    let desk = Desk::new();
    let for_servers = |params: &mut CertificateParams| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]
    };
    let (certificate, key) = desk.issue(&PKCS_ECDSA_P256_SHA256, for_servers);
    desk.write("server.pem", &certificate);
    desk.write("server.key", &key);
    let error = refused(&desk.named("server.pem", "server.key"));
    assert!(matches!(&error, CredentialError::Unfit { .. }), "{error}");
    assert!(error.to_string().contains("emailProtection"), "{error}");
    // Nor does one that vouches for itself.
    let key = KeyPair::generate().unwrap();
    desk.write(
        "self.pem",
        &CertificateParams::new(["gate".to_owned()]).unwrap().self_signed(&key).unwrap().pem(),
    );
    desk.write("self.key", &key.serialize_pem());
    let error = refused(&desk.named("self.pem", "self.key"));
    assert!(matches!(&error, CredentialError::Unfit { .. }), "{error}");
}
