//! LiteLLM's generic guardrail.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use cluegate_gate::fakes::{Fault, violated};
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::judge_api::{REDACT, SWORD, brought, data_url, failing, pixels, post, transparent};
use crate::support::{Gateway, Setup};

const PATH: &str = "/beta/litellm_basic_guardrail_api";

/// A call as `litellm` 1.106.2 sends it, chat messages included.
fn call(pictures: &[String]) -> Value {
    let mut content = vec![json!({ "type": "text", "text": "what is this?" })];
    content.extend(pictures.iter().map(|url| json!({ "type": "image_url", "image_url": { "url": url } })));
    json!({
        "input_type": "request", "litellm_call_id": "0c2a8b1e-call", "litellm_trace_id": null,
        "structured_messages": [
            { "role": "system", "content": "be kind" }, { "role": "user", "content": content },
        ],
        "images": pictures, "tools": null, "texts": ["be kind", "what is this?"],
        "request_data": { "user_api_key_team_id": "kids" }, "request_headers": { "host": "localhost" },
        "litellm_version": "1.106.2", "additional_provider_specific_params": {}, "tool_calls": null, "model": "gpt-4o",
    })
}

#[tokio::test]
async fn clean_pictures_pass_and_a_bad_one_blocks_the_call() {
    let gateway = Gateway::start(Setup::default()).await;
    let (status, header, answer) =
        post(&gateway, PATH, &call(&[data_url(&[]), data_url(&[3]), brought(&[0])])).await;
    assert_eq!((status, &answer["action"]), (StatusCode::OK, &json!("NONE")));
    assert_eq!(answer["images"].as_array().unwrap().len(), 3);
    assert_eq!(header.unwrap().split(", ").count(), 3);
    let (_, _, answer) = post(&gateway, PATH, &call(&[data_url(&[]), data_url(&[SWORD])])).await;
    assert_eq!(answer["action"], "BLOCKED");
    let reason = answer["blocked_reason"].as_str().unwrap();
    assert!(reason.starts_with("picture 2 of 2:") && reason.contains("against the policy"), "{reason}");
    assert!(!reason.contains("sword"), "{reason}");
    assert!(gateway.log.records().iter().all(|record| record.request.id == "0c2a8b1e-call"));
}

#[tokio::test]
async fn a_call_without_pictures_passes_untouched() {
    let gateway = Gateway::start(Setup::default()).await;
    let mut asked = call(&[]);
    asked["images"] = json!(null);
    let (_, header, answer) = post(&gateway, PATH, &asked).await;
    assert_eq!((answer["action"].as_str(), &answer["texts"], header), (Some("NONE"), &asked["texts"], None));
    assert!(gateway.log.records().is_empty());
}

#[tokio::test]
async fn a_picture_that_only_the_messages_hold_is_judged_too() {
    let gateway = Gateway::start(Setup::default()).await;
    for part in [
        json!({ "type": "image_url", "image_url": { "url": data_url(&[SWORD]) } }),
        json!({ "type": "image_url", "image_url": data_url(&[SWORD]) }),
        json!({ "type": "input_image", "image_url": data_url(&[SWORD]) }),
        json!({ "type": "file", "file": { "file_data": data_url(&[SWORD]) } }),
    ] {
        let mut asked = call(&[data_url(&[])]);
        asked["structured_messages"][1]["content"].as_array_mut().unwrap().push(part);
        let (_, _, answer) = post(&gateway, PATH, &asked).await;
        assert_eq!(answer["action"], "BLOCKED");
    }
    let mut odd = call(&[]);
    odd["structured_messages"][1]["content"] = json!([{ "type": "image_url", "image_url": 7 }]);
    assert_eq!(post(&gateway, PATH, &odd).await.0, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_redacted_picture_takes_the_place_of_the_one_that_came() {
    let gateway = Gateway::start(Setup { tables: REDACT, ..Setup::default() }).await;
    let (_, _, answer) = post(&gateway, PATH, &call(&[data_url(&[]), data_url(&[SWORD])])).await;
    assert_eq!(answer["action"], "GUARDRAIL_INTERVENED");
    let images = answer["images"].as_array().unwrap();
    assert_eq!((images.len(), &images[0]), (2, &json!(data_url(&[]))));
    let redacted = images[1].as_str().unwrap();
    assert!(redacted.starts_with("data:image/png;base64,") && violated(&pixels(redacted)).is_empty());
    // LiteLLM reads the messages and not `images`.
    let content = &answer["structured_messages"][1]["content"];
    assert_eq!((&content[1]["image_url"]["url"], &content[2]["image_url"]["url"]), (&images[0], &images[1]));
    assert_eq!(content[0]["text"], "what is this?");
}

#[tokio::test]
async fn a_redacted_picture_without_a_place_blocks_litellm_and_nobody_else() {
    let gateway = Gateway::start(Setup { tables: REDACT, ..Setup::default() }).await;
    let mut asked = call(&[data_url(&[SWORD])]);
    asked["structured_messages"] = json!(null);
    let (_, _, answer) = post(&gateway, PATH, &asked).await;
    assert_eq!(answer["action"], "BLOCKED");
    assert!(answer["blocked_reason"].as_str().unwrap().contains("no place"));
    let own =
        json!({ "input_type": "response", "texts": [], "images": [brought(&[SWORD])], "request_data": {} });
    let (_, _, answer) = post(&gateway, PATH, &own).await;
    assert_eq!(answer["action"], "GUARDRAIL_INTERVENED");
    assert!(violated(&pixels(answer["images"][0].as_str().unwrap())).is_empty());
}

#[tokio::test]
async fn a_picture_that_looks_different_to_different_viewers_goes_on_as_it_was_judged() {
    let gateway = Gateway::start(Setup::default()).await;
    let url = format!("data:image/png;base64,{}", BASE64_STANDARD.encode(transparent()));
    let (_, _, answer) = post(&gateway, PATH, &call(&[url])).await;
    assert_eq!(answer["action"], "GUARDRAIL_INTERVENED");
    let shown = pixels(answer["structured_messages"][1]["content"][1]["image_url"]["url"].as_str().unwrap());
    assert_eq!(shown.get_pixel(0, 0).0, [255; 3]);
}

#[tokio::test]
async fn an_error_is_an_error_so_that_litellm_fails_the_call() {
    for (fault, status) in [(Fault::Error, 503), (Fault::Panic, 503), (Fault::OutOfTime, 504)] {
        let gateway = Gateway::start(failing(fault, "")).await;
        let (found, _, answer) = post(&gateway, PATH, &call(&[data_url(&[SWORD])])).await;
        assert_eq!((found.as_u16(), answer.get("action")), (status, None));
    }
    let gateway = Gateway::start(Setup::default()).await;
    for images in [json!(["bm8="]), json!(["http://example.com/a.png"]), json!([7]), json!("x")] {
        let mut asked = call(&[]);
        asked["images"] = images;
        let (status, _, answer) = post(&gateway, PATH, &asked).await;
        assert_eq!((status, answer.get("action")), (StatusCode::BAD_REQUEST, None));
    }
}
