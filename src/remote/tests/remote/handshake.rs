//! What is found out at start.

use cluegate_perception::VisionLanguageModel;
use cluegate_remote::{Dialect, RemoteErrorKind, RemoteJudge, RemoteOptions};

use super::engine::{Engine, Kind, options};

fn refused(kind: Kind) -> cluegate_remote::RemoteError {
    RemoteJudge::open(&options(&[&Engine::start(kind)])).unwrap_err()
}

#[test]
fn an_engine_without_log_probabilities_is_refused() {
    let error = refused(Kind::Silent);
    assert_eq!(error.kind(), RemoteErrorKind::NoProbabilities);
    assert!(error.to_string().contains("without"), "{error}");
}

#[test]
fn an_engine_that_drops_the_picture_is_refused() {
    let error = refused(Kind::Blind);
    assert_eq!(error.kind(), RemoteErrorKind::Blind);
    assert!(error.to_string().contains("drops the picture"), "{error}");
    let error = refused(Kind::Placeholder);
    assert_eq!(error.kind(), RemoteErrorKind::Blind);
    assert!(error.to_string().contains("mirror"), "{error}");
    // What it says with a picture and without differs, but not by more than what it says twice.
    assert_eq!(refused(Kind::BlindInFewDigits).kind(), RemoteErrorKind::Blind);
    assert!(RemoteJudge::open(&options(&[&Engine::start(Kind::FewDigits)])).is_ok());
}

#[test]
fn a_model_that_thinks_first_is_refused_with_advice() {
    let error = refused(Kind::Thinks);
    assert_eq!(error.kind(), RemoteErrorKind::Thinks);
    assert!(error.to_string().contains("enable_thinking"), "{error}");
}

#[test]
fn a_tokenizer_that_splits_yes_is_refused() {
    let error = refused(Kind::Splits);
    assert_eq!(error.kind(), RemoteErrorKind::NoProbabilities);
    assert!(error.to_string().contains("splits"), "{error}");
}

#[test]
fn a_wrong_model_name_is_refused_with_the_names_that_there_are() {
    let engine = Engine::start(Kind::TokenIds);
    let wrong = RemoteOptions { model: "org/judgement".to_owned(), ..options(&[&engine]) };
    let error = RemoteJudge::open(&wrong).unwrap_err();
    assert_eq!(error.kind(), RemoteErrorKind::UnknownModel);
    assert!(error.to_string().contains("org/judge"), "{error}");
}

#[test]
fn nobody_at_the_address_is_said_so() {
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut options = options(&[]);
    options.urls = vec![format!("http://{address}")];
    let error = RemoteJudge::open(&options).unwrap_err();
    assert_eq!(error.kind(), RemoteErrorKind::Unreachable);
    assert!(error.to_string().contains("attempts") && error.to_string().contains("engine runs"), "{error}");
}

#[test]
fn endpoints_with_other_weights_are_refused() {
    let (one, other) = (Engine::start(Kind::TokenIds), Engine::with(Kind::TokenIds, 0.2));
    let error = RemoteJudge::open(&options(&[&one, &other])).unwrap_err();
    assert_eq!(error.kind(), RemoteErrorKind::Mixed);
    assert!(error.to_string().contains(&other.url()), "{error}");
}

#[test]
fn the_fingerprint_is_that_of_the_weights() {
    let fingerprint = |engine: &Engine| RemoteJudge::open(&options(&[engine])).unwrap().fingerprint().clone();
    let engine = Engine::start(Kind::TokenIds);
    assert_eq!(fingerprint(&engine), fingerprint(&Engine::start(Kind::TokenIds)));
    assert_ne!(fingerprint(&engine), fingerprint(&Engine::with(Kind::TokenIds, 0.1)));
}

#[test]
fn the_dialect_can_be_chosen() {
    let engine = Engine::start(Kind::TopTokens);
    let ids = RemoteOptions { dialect: Dialect::TokenIds, ..options(&[&engine]) };
    assert_eq!(RemoteJudge::open(&ids).unwrap_err().kind(), RemoteErrorKind::NoProbabilities);
    let words = RemoteOptions { dialect: Dialect::TopTokens, ..options(&[&engine]) };
    assert!(RemoteJudge::open(&words).is_ok());
}

#[test]
fn options_that_cannot_be_used_are_refused_before_anything_is_sent() {
    let change = |change: &dyn Fn(&mut RemoteOptions)| {
        let mut options = RemoteOptions::new(["http://127.0.0.1:9"], "m");
        change(&mut options);
        let error = RemoteJudge::open(&options).unwrap_err();
        assert_eq!(error.kind(), RemoteErrorKind::Options, "{error}");
        error.to_string()
    };
    assert!(change(&|o| o.urls.clear()).contains("at least one"));
    assert!(change(&|o| o.urls[0] = "gpu-1".to_owned()).contains("http://host:8000"));
    assert!(change(&|o| o.urls[0] = "ftp://gpu-1".to_owned()).contains("https://"));
    assert!(change(&|o| o.urls[0] = "http://h:1/v1".to_owned()).contains("without /v1"));
    assert!(change(&|o| o.urls.push("http://127.0.0.1:9/".to_owned())).contains("twice"));
    let secret = change(&|o| o.urls[0] = "http://user:hunter2@h".to_owned());
    assert!(secret.contains("key-file") && !secret.contains("hunter2"), "{secret}");
    let secret = change(&|o| o.urls[0] = "http://h/?key=hunter2".to_owned());
    assert!(secret.contains("without ?") && !secret.contains("hunter2"), "{secret}");
    assert!(change(&|o| o.model = " ".to_owned()).contains("blank"));
    assert!(change(&|o| o.uncertainty = f64::NAN).contains("0.5"));
    assert!(change(&|o| o.concurrency = 0).contains("over zero"));
    assert!(change(&|o| o.key_file = Some("/nowhere/key".into())).contains("/nowhere/key"));
    assert!(change(&|o| o.certificates = Some(file!().into())).contains(file!()));
}
