//! What is answered before any front is asked.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use cluegate_server::{Dialect, Event, Order, PictureRequest, Upstream, UpstreamError, UpstreamErrorKind};
use futures_util::future::BoxFuture;
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::support::{Drawn, Gateway, Scripted, Setup, nobody};

#[tokio::test]
async fn health_is_open_and_unknown_routes_are_refused() {
    let gateway = Gateway::start(Setup::default()).await;
    let client = gateway.client();
    let health = client.get(format!("{}/healthz", gateway.url)).send().await.unwrap();
    assert_eq!((health.status(), health.headers().contains_key("x-request-id")), (StatusCode::OK, true));
    let ready = client.get(format!("{}/readyz", gateway.url)).send().await.unwrap();
    assert_eq!(ready.status(), StatusCode::OK);
    for path in ["/", "/sdapi/v1/unknown", "/file=secret.png", "/v1/../healthz/x", "/%2e%2e/etc/passwd"] {
        let refused = client.get(format!("{}{path}", gateway.url)).send().await.unwrap();
        assert_eq!(refused.status(), StatusCode::NOT_FOUND, "{path}");
    }
    let named = client.get(format!("{}/nowhere", gateway.url)).header("x-request-id", "mine-1").send();
    assert_eq!(named.await.unwrap().headers()["x-request-id"], "mine-1");
    drop(Scripted::new(|_, _| Drawn::Nothing));
}

/// An upstream that is not ready, says why in too many words, and breaks when it is asked anything else.
#[derive(Default)]
struct Broken {
    asked: AtomicU32,
}

impl Upstream for Broken {
    fn dialect(&self) -> Dialect {
        Dialect::BuiltIn
    }

    fn fingerprint(&self) -> &str {
        "broken"
    }

    fn batch_size(&self) -> u32 {
        1
    }

    fn check(&self, _: &PictureRequest) -> Result<(), UpstreamError> {
        panic!("the index is out of range")
    }

    fn draw<'a>(&'a self, _: &'a Order, _: mpsc::Sender<Event>) -> BoxFuture<'a, Result<(), UpstreamError>> {
        Box::pin(async { Ok(()) })
    }

    fn ready(&self) -> BoxFuture<'_, Result<(), UpstreamError>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        Box::pin(async { Err(UpstreamError::new(UpstreamErrorKind::Failed, "http://10.1.2.3 is down")) })
    }
}

#[tokio::test]
async fn a_panic_is_answered_in_the_fronts_dialect_and_costs_no_place() {
    let upstream = Some(Arc::new(Broken::default()) as Arc<dyn Upstream>);
    let config_tables = "[limits]\nin_work = 1\nqueue = 0\n".to_owned();
    let gateway = Gateway::start(Setup { upstream, config_tables, ..Setup::default() }).await;
    let client = gateway.client();
    for _ in 0..3 {
        let asked = client.post(format!("{}/v1/images/generations", gateway.url));
        let answer = asked.json(&json!({ "prompt": "a shop" })).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR);
        let body: Value = answer.json().await.unwrap();
        assert_eq!(
            (&body["error"]["type"], &body["error"]["code"]),
            (&json!("server_error"), &json!("internal_error"))
        );
        assert!(!body.to_string().contains("index"), "{body}");
    }
}

#[tokio::test]
async fn whoever_asks_whether_it_is_ready_neither_busies_the_upstream_nor_learns_of_it() {
    let upstream = Arc::new(Broken::default());
    let gateway = Gateway::start(Setup {
        upstream: Some(Arc::clone(&upstream) as Arc<dyn Upstream>),
        ..Setup::default()
    })
    .await;
    let begin = std::time::Instant::now();
    for _ in 0..50 {
        let answer = reqwest::get(format!("{}/readyz", gateway.url)).await.unwrap();
        assert!(answer.status().is_server_error());
        assert!(!answer.text().await.unwrap().contains("10.1.2.3"));
    }
    let asked = u64::from(upstream.asked.load(Ordering::SeqCst));
    assert!(asked <= 1 + begin.elapsed().as_secs(), "{asked}");
}

#[tokio::test]
async fn a_page_of_another_site_cannot_use_what_a_browser_knows() {
    let gateway = Gateway::start(Setup::default()).await;
    let own = gateway.url.clone();
    let basic = |key: &str| {
        format!("Basic {}", base64::Engine::encode(&base64::prelude::BASE64_STANDARD, format!("a:{key}")))
    };
    let (remembered, bearer) = (basic(gateway.key.reveal()), format!("Bearer {}", gateway.key.reveal()));
    for (origin, key, status) in [
        (Some("http://evil.example"), &remembered, StatusCode::FORBIDDEN),
        (Some("null"), &remembered, StatusCode::FORBIDDEN),
        (Some(own.as_str()), &remembered, StatusCode::OK),
        (None, &remembered, StatusCode::OK),
        // A page has no key of its own unless somebody gave it one.
        (Some("http://evil.example"), &bearer, StatusCode::OK),
    ] {
        let asked = nobody();
        let mut asked =
            asked.post(format!("{}/sdapi/v1/interrupt", gateway.url)).header("authorization", key);
        if let Some(origin) = origin {
            asked = asked.header("origin", origin);
        }
        let answer = asked.header("content-type", "text/plain").body("{}").send().await.unwrap();
        assert_eq!(answer.status(), status, "{origin:?} {key}");
    }
}

#[tokio::test]
async fn a_prompt_whose_handler_panics_is_off_the_list() {
    let upstream = Some(Arc::new(Broken::default()) as Arc<dyn Upstream>);
    let gateway = Gateway::start(Setup { upstream, ..Setup::default() }).await;
    let client = gateway.client();
    let body = json!({ "prompt": crate::comfyui::workflow(1) });
    let answer = client.post(format!("{}/prompt", gateway.url)).json(&body).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR);
    let counts: Value =
        client.get(format!("{}/prompt", gateway.url)).send().await.unwrap().json().await.unwrap();
    assert_eq!(counts, json!({ "exec_info": { "queue_remaining": 0 } }));
}
