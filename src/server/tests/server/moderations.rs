//! `POST /v1/moderations`.

use cluegate_gate::OnUnsafe;
use cluegate_gate::fakes::Fault;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::judge_api::{EVIDENCE, REDACT, SWORD, data_url, failing, post};
use crate::support::{Gateway, Screener, Setup};

const PATH: &str = "/v1/moderations";

fn input(pictures: &[&[usize]]) -> Value {
    let mut parts = vec![json!({ "type": "text", "text": "what is this?" })];
    parts.extend(
        pictures
            .iter()
            .map(|objects| json!({ "type": "image_url", "image_url": { "url": data_url(objects) } })),
    );
    json!({ "model": "omni-moderation-latest", "input": parts })
}

#[tokio::test]
async fn categories_are_the_rules_of_the_tenants_constitution() {
    let gateway = Gateway::start(Setup { tables: EVIDENCE, ..Setup::default() }).await;
    let (status, header, answer) = post(&gateway, PATH, &input(&[&[SWORD]])).await;
    assert_eq!(status, StatusCode::OK);
    assert!(answer["model"].as_str().unwrap().starts_with("cluegate/world@"));
    let result = &answer["results"][0];
    assert_eq!(result["flagged"], true);
    assert_eq!(result["categories"], json!({ "smoking": false, "beer": false, "sword": true }));
    let scores = &result["category_scores"];
    // The scripted judge reads 0.99 from a picture that shows what a statement names, and 0.01 from any other.
    assert_eq!(scores, &json!({ "smoking": 0.01, "beer": 0.01, "sword": 0.99 }));
    assert_eq!(result["category_applied_input_types"]["beer"], json!(["image"]));
    assert!(header.unwrap().ends_with("reason=violation"));

    let (_, header, answer) = post(&gateway, PATH, &input(&[&[3], &[1], &[]])).await;
    assert_eq!(answer["results"].as_array().unwrap().len(), 1);
    assert_eq!(answer["results"][0]["categories"], json!({ "smoking": false, "beer": true, "sword": false }));
    assert_eq!(header.unwrap().split(", ").count(), 3);
    let (_, _, clean) = post(&gateway, PATH, &input(&[&[3]])).await;
    assert_eq!(clean["results"][0]["flagged"], false);
}

#[tokio::test]
async fn a_tenant_that_may_not_see_evidence_learns_of_the_policy_alone() {
    let gateway = Gateway::start(Setup::default()).await;
    for (objects, flagged, score) in [(&[SWORD][..], true, 1.0), (&[], false, 0.0)] {
        let (_, _, answer) = post(&gateway, PATH, &input(&[objects])).await;
        assert_eq!(
            answer["results"][0],
            json!({
                "flagged": flagged, "categories": { "policy": flagged }, "category_scores": { "policy": score },
                "category_applied_input_types": { "policy": ["image"] },
            })
        );
        assert!(!answer.to_string().contains("sword"));
    }
}

#[tokio::test]
async fn a_plugin_that_keeps_a_picture_back_is_a_category_beside_the_rules() {
    for (on_unsafe, judged) in [(OnUnsafe::Withhold, 0.0), (OnUnsafe::Redact, 0.01)] {
        let extensions = Screener::face(on_unsafe);
        let gateway = Gateway::start(Setup { tables: EVIDENCE, extensions, ..Setup::default() }).await;
        let (status, _, answer) = post(&gateway, PATH, &input(&[&[]])).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        let result = &answer["results"][0];
        assert_eq!(result["flagged"], true);
        let categories = json!({ "smoking": false, "beer": false, "sword": false, "plugins": true });
        assert_eq!(result["categories"], categories);
        assert_eq!(result["category_scores"]["plugins"], 0.5);
        assert_eq!(result["category_scores"]["beer"], judged);
    }
    let extensions = Screener::face(OnUnsafe::Note);
    let gateway = Gateway::start(Setup { tables: EVIDENCE, extensions, ..Setup::default() }).await;
    let (_, _, answer) = post(&gateway, PATH, &input(&[&[]])).await;
    assert_eq!(answer["results"][0]["flagged"], false);
    assert!(answer["results"][0]["categories"].get("plugins").is_none());
}

#[tokio::test]
async fn what_the_policy_allows_is_not_flagged_and_what_it_would_redact_is() {
    let allow = "[tenant.t.action]\ndefault = \"allow\"\n[tenant.t.client]\nevidence = true\n";
    for (tables, flagged) in [(allow, false), (REDACT, true)] {
        let gateway = Gateway::start(Setup { tables, ..Setup::default() }).await;
        let (_, _, answer) = post(&gateway, PATH, &input(&[&[SWORD]])).await;
        assert_eq!(answer["results"][0]["flagged"], flagged, "{tables}");
        if tables == allow {
            assert_eq!(answer["results"][0]["categories"]["sword"], true);
        }
    }
}

#[tokio::test]
async fn text_alone_and_failures_are_errors_in_openais_form() {
    let gateway = Gateway::start(Setup::default()).await;
    for asked in [json!("how are you?"), json!(["a", "b"]), json!([{ "type": "text", "text": "a" }])] {
        let (status, _, answer) = post(&gateway, PATH, &json!({ "input": asked })).await;
        assert_eq!(
            (status, &answer["error"]["type"]),
            (StatusCode::BAD_REQUEST, &json!("invalid_request_error"))
        );
        assert!(answer["error"]["message"].as_str().unwrap().contains("judges pictures"));
    }
    let many: Vec<&[usize]> = vec![&[]; 17];
    let (status, _, answer) = post(&gateway, PATH, &input(&many)).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(answer["error"]["message"].as_str().unwrap().contains("at most 16 pictures"));
    for (fault, head, status) in [
        (Fault::Error, "", 503),
        (Fault::OutOfTime, "", 504),
        // To let a picture pass without a verdict is the policy's right; to call it clean is nobody's.
        (Fault::Error, "on_error = \"release-unjudged\"\n", 503),
    ] {
        let gateway = Gateway::start(failing(fault, head)).await;
        let (found, header, answer) = post(&gateway, PATH, &input(&[&[SWORD]])).await;
        assert_eq!((found.as_u16(), &answer["error"]["type"]), (status, &json!("server_error")));
        assert!(header.is_some());
    }
}
