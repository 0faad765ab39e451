//! What is answered before any front is asked.

use reqwest::StatusCode;

use crate::support::{Drawn, Gateway, Scripted, Setup};

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
