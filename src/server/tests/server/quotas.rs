//! What a tenant gets that is over a limit of its own, in each front's dialect; and what its decisions say of who asked.

use cluegate_gate::fakes::picture;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::comfyui::workflow;
use crate::judge_api::data_url;
use crate::support::{Drawn, Gateway, Scripted, Setup};

/// A gateway whose tenant `t` has these keys in its quota.
async fn gateway(quota: &'static str) -> Gateway {
    let upstream = Some(Scripted::new(|_, index| Drawn::Picture(picture(&[3], index as u8))) as _);
    Gateway::start(Setup { upstream, tables: quota, ..Setup::default() }).await
}

/// A request for one picture of each front, and where its dialect has the code of a problem.
fn asks() -> [(&'static str, Value, &'static str); 7] {
    [
        ("/sdapi/v1/txt2img", json!({ "prompt": "a shop" }), "/error"),
        ("/v1/images/generations", json!({ "prompt": "a shop" }), "/error/code"),
        ("/prompt", json!({ "prompt": workflow(1) }), "/error/type"),
        ("/sdcpp/v1/img_gen", json!({ "prompt": "a shop" }), "/error"),
        ("/v1/judge", json!({ "image": data_url(&[3]) }), "/error"),
        (
            "/v1/moderations",
            json!({ "input": [{ "type": "image_url", "image_url": { "url": data_url(&[3]) } }] }),
            "/error/code",
        ),
        (
            "/beta/litellm_basic_guardrail_api",
            json!({ "input_type": "request", "images": [data_url(&[3])] }),
            "/error",
        ),
    ]
}

#[tokio::test]
async fn each_front_says_in_its_own_words_which_quota_is_used_up_and_until_when() {
    let gateway = gateway("[tenant.t.quota]\npictures_per_day = 1\n").await;
    let post = async |path: &str, body: &Value| {
        gateway.client().post(format!("{}{path}", gateway.url)).json(body).send().await.unwrap()
    };
    assert_eq!(post("/v1/judge", &json!({ "image": data_url(&[3]) })).await.status(), StatusCode::OK);
    for (path, body, code) in asks() {
        let answer = post(path, &body).await;
        assert_eq!(answer.status(), StatusCode::TOO_MANY_REQUESTS, "{path}");
        let header = |name: &str| answer.headers()[name].to_str().unwrap().to_owned();
        let wait: u64 = header("retry-after").parse().unwrap();
        assert!((1..=86_400).contains(&wait), "{path}: {wait}");
        assert_eq!(header("ratelimit-policy"), "\"pictures_per_day\";q=1;w=86400", "{path}");
        assert!(header("ratelimit").starts_with("\"pictures_per_day\";r=0;t="), "{path}");
        let body: Value = answer.json().await.unwrap();
        assert_eq!(body.pointer(code), Some(&json!("quota_exceeded")), "{path}: {body}");
        assert!(body.to_string().contains("`pictures_per_day` of 1 is used up: 1 spent"), "{path}: {body}");
    }
    // Another tenant has its own, and questions that ask for no work are answered.
    let other = gateway.other_client().post(format!("{}/v1/judge", gateway.url));
    let other = other.json(&json!({ "image": data_url(&[3]) })).send().await.unwrap();
    assert_eq!(other.status(), StatusCode::OK);
    let progress = gateway.client().get(format!("{}/sdapi/v1/progress", gateway.url)).send().await.unwrap();
    assert_eq!(progress.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_request_counts_once_however_many_pictures_it_brings() {
    let gateway = gateway("[tenant.t.quota]\nrequests_per_minute = 2\n").await;
    let part = json!({ "type": "image_url", "image_url": { "url": data_url(&[3]) } });
    let many = json!({ "input": vec![part; 6] });
    let post = async || {
        let asked = gateway.client().post(format!("{}/v1/moderations", gateway.url));
        asked.json(&many).send().await.unwrap()
    };
    assert_eq!((post().await.status(), post().await.status()), (StatusCode::OK, StatusCode::OK));
    let refused = post().await;
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(refused.headers()["ratelimit-policy"], "\"requests_per_minute\";q=2;w=60");
    let body: Value = refused.json().await.unwrap();
    assert_eq!(body["error"]["code"], "rate_limit_exceeded");
}

#[tokio::test]
async fn a_decision_says_which_key_asked_on_whose_behalf_and_for_which_model() {
    let gateway = gateway("").await;
    let post = async |path: &str, body: Value, subject: Option<&str>| {
        let mut asked = gateway.client().post(format!("{}{path}", gateway.url)).json(&body);
        if let Some(subject) = subject {
            asked = asked.header("x-cluegate-subject", subject);
        }
        assert_eq!(asked.send().await.unwrap().status(), StatusCode::OK, "{path}");
        let record = gateway.log.records().pop().unwrap();
        (record.requested_by, record.subject, record.model)
    };
    let said = |subject: Option<&str>, model: Option<&str>| {
        (Some("key-t".to_owned()), subject.map(str::to_owned), model.map(str::to_owned))
    };
    let asked = json!({ "prompt": "a shop", "user": "reader-7", "model": "sdxl-turbo" });
    assert_eq!(
        post("/v1/images/generations", asked.clone(), None).await,
        said(Some("reader-7"), Some("sdxl-turbo"))
    );
    assert_eq!(
        post("/v1/images/generations", asked, Some("mine")).await,
        said(Some("mine"), Some("sdxl-turbo"))
    );
    let judged = json!({ "image": data_url(&[3]), "model": "flux" });
    assert_eq!(post("/v1/judge", judged, Some("mine")).await, said(Some("mine"), Some("flux")));
    let guarded = json!({
        "input_type": "request", "images": [data_url(&[3])],
        "request_data": { "user_api_key_end_user_id": "theirs", "user_api_key_user_id": "ours" },
    });
    assert_eq!(post("/beta/litellm_basic_guardrail_api", guarded, None).await, said(Some("theirs"), None));
    assert_eq!(post("/sdapi/v1/txt2img", json!({ "prompt": "a shop" }), None).await, said(None, None));
}
