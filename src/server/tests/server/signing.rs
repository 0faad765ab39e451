//! Policies that want signed files, on every front that hands files out.

use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use cluegate_gate::fakes::picture;
use cluegate_gate::{Origin, Outcome, Reason, Signer, SigningError, Statement};
use cluegate_perception::FileFormat;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::judge_api::brought;
use crate::support::{Drawn, Gateway, Scripted, Setup, png};

/// Puts before each file what it was asked to state, or fails.
struct Words {
    fails: bool,
}

impl Signer for Words {
    fn sign(&self, file: &[u8], format: FileFormat, statement: &Statement) -> Result<Vec<u8>, SigningError> {
        if self.fails {
            return Err(SigningError("the certificate of s3cret-host expired".to_owned()));
        }
        let origin = match statement.origin {
            Origin::Drawn => "drawn",
            Origin::Reworked => "reworked",
            Origin::Brought => "brought",
        };
        let head = format!("signed {origin} {} {};", format.extension(), statement.decision_id);
        Ok([head.as_bytes(), file].concat())
    }
}

async fn gateway(fails: bool) -> Gateway {
    let upstream =
        Scripted::new(|order, index| Drawn::Bytes(png(&picture(&[3], (order.first + index) as u8))));
    let setup = Setup {
        head: "provenance = \"c2pa\"",
        upstream: Some(upstream),
        signer: Some(Arc::new(Words { fails })),
        ..Setup::default()
    };
    Gateway::start(setup).await
}

async fn post(gateway: &Gateway, path: &str, body: Value) -> (StatusCode, Value) {
    let answer = gateway.client().post(format!("{}{path}", gateway.url)).json(&body).send().await.unwrap();
    (answer.status(), answer.json().await.unwrap())
}

/// The picture that each front's answer holds, and what its file has to begin with.
async fn files(gateway: &Gateway) -> Vec<(&'static str, StatusCode, Value, Value)> {
    let mut told = Vec::new();
    for (format, says) in [("png", "drawn png"), ("jpeg", "drawn jpg"), ("webp", "drawn webp")] {
        let asked = json!({ "prompt": "p", "output_format": format });
        let (status, body) = post(gateway, "/v1/images/generations", asked).await;
        told.push((says, status, body["data"][0]["b64_json"].clone(), body));
    }
    let (status, body) = post(gateway, "/sdapi/v1/txt2img", json!({ "prompt": "p" })).await;
    told.push(("drawn png", status, body["images"][0].clone(), body));
    let source = json!({ "prompt": "p", "init_images": [brought(&[3])] });
    let (status, body) = post(gateway, "/sdapi/v1/img2img", source).await;
    told.push(("reworked png", status, body["images"][0].clone(), body));
    let asked = json!({ "image": brought(&[3]), "return_image": true, "format": "jpeg" });
    let (status, body) = post(gateway, "/v1/judge", asked).await;
    told.push(("brought jpg", status, body["image"].clone(), body));
    let (_, opened) = post(gateway, "/v1/sessions", json!({ "prompt": "p" })).await;
    let url = format!("{}/v1/sessions/{}/pictures/0", gateway.url, opened["id"].as_str().unwrap());
    let asked = gateway.client().post(url).header("content-type", "image/png").body(png(&picture(&[3], 0)));
    let answer = asked.send().await.unwrap();
    let (status, body): (StatusCode, Value) = (answer.status(), answer.json().await.unwrap());
    told.push(("drawn png", status, body["image"].clone(), body));
    told
}

#[tokio::test]
async fn every_front_hands_out_the_signed_file_in_the_format_that_was_asked_for() {
    let gateway = gateway(false).await;
    let files = files(&gateway).await;
    let records = gateway.log.records();
    assert_eq!(records.len(), files.len());
    for ((says, status, file, body), record) in files.iter().zip(records) {
        assert_eq!(*status, StatusCode::OK, "{says}: {body}");
        let bytes = BASE64_STANDARD.decode(file.as_str().unwrap()).unwrap();
        let head = format!("signed {says} {};", record.decision_id);
        let rest = bytes.strip_prefix(head.as_bytes());
        let pixels = image::load_from_memory(rest.unwrap_or_else(|| panic!("{head}"))).unwrap().into_rgb8();
        assert_eq!(pixels.dimensions(), (64, 64));
    }
}

#[tokio::test]
async fn a_file_that_cannot_be_signed_leaves_by_no_front_and_is_called_no_violation() {
    let gateway = gateway(true).await;
    for (says, status, _, body) in files(&gateway).await {
        let told = body.to_string();
        assert!(
            told.contains("could not be signed") && told.contains("this is no violation"),
            "{says}: {status} {told}"
        );
        // Why it failed is for who runs the gateway.
        assert!(!told.contains("s3cret"), "{says}: {told}");
        for file in [&body["data"][0]["b64_json"], &body["images"][0], &body["image"], &body["placeholder"]] {
            let Some(file) = file.as_str() else { continue };
            let shown = image::load_from_memory(&BASE64_STANDARD.decode(file).unwrap()).unwrap().into_rgb8();
            assert_ne!(shown, *picture(&[3], 0).pixels(), "{says}");
        }
    }
    for record in gateway.log.records() {
        assert_eq!((record.outcome, record.reason), (Outcome::Withheld, Reason::SigningFailure));
        assert!(
            record.message.contains("s3cret-host") && record.released_picture.is_none(),
            "{}",
            record.message
        );
    }
}
