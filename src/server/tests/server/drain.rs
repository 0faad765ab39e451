//! Stopping: what is in work ends and is answered, what comes is refused, and nothing waits for ever.

use std::sync::Arc;

use cluegate_gate::Reason;
use cluegate_gate::fakes::picture;
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use crate::support::{Drawn, Gateway, Scripted, Setup, found, within};

fn ask(gateway: &Gateway, stream: bool) -> impl Future<Output = reqwest::Result<reqwest::Response>> + use<> {
    let asked = gateway.client().post(format!("{}/v1/images/generations", gateway.url));
    asked.json(&json!({ "prompt": "a shop", "stream": stream })).send()
}

#[tokio::test]
async fn what_is_in_work_is_answered_and_what_comes_is_refused() {
    let go_on = CancellationToken::new();
    let upstream = Scripted::gated(go_on.clone(), |_, index| Drawn::Picture(picture(&[3], index as u8)));
    let orders = Arc::clone(&upstream);
    let mut gateway = Gateway::start(Setup { upstream: Some(upstream), ..Setup::default() }).await;
    let mut idle = TcpStream::connect(gateway.address).await.unwrap();
    let (plain, stream) = (tokio::spawn(ask(&gateway, false)), tokio::spawn(ask(&gateway, true)));
    found(|| (orders.orders.lock().unwrap().len() == 2).then_some(())).await;
    gateway.stop();
    // An idle connection is closed at once.
    assert_eq!(within(idle.read(&mut [0; 1])).await.unwrap_or(0), 0);
    let refused = within(ask(&gateway, false)).await.unwrap();
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(refused.headers().contains_key("retry-after"));
    let ready = reqwest::get(format!("{}/readyz", gateway.url)).await.unwrap();
    assert_eq!(ready.status(), StatusCode::SERVICE_UNAVAILABLE);
    go_on.cancel();
    let answer = within(plain).await.unwrap().unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert!(answer.json::<Value>().await.unwrap()["data"][0]["b64_json"].is_string());
    let events = within(stream).await.unwrap().unwrap().text().await.unwrap();
    assert!(events.contains("image_generation.completed"), "{events}");
    gateway.stopped().await;
    assert!(TcpStream::connect(gateway.address).await.is_err());
    assert!(gateway.log.records().iter().all(|record| record.reason == Reason::Safe));
}

#[tokio::test]
async fn what_does_not_end_in_time_is_called_off_and_told_so() {
    let upstream = Scripted::new(|_, _| Drawn::Hangs);
    let orders = Arc::clone(&upstream);
    let config_tables = "[limits]\ndrain_ms = 300\n".to_owned();
    let mut gateway =
        Gateway::start(Setup { config_tables, upstream: Some(upstream), ..Setup::default() }).await;
    let (plain, stream) = (tokio::spawn(ask(&gateway, false)), tokio::spawn(ask(&gateway, true)));
    found(|| (orders.orders.lock().unwrap().len() == 2).then_some(())).await;
    gateway.stopped().await;
    let answer = within(plain).await.unwrap().unwrap();
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(answer.text().await.unwrap().contains("cancelled"));
    let events = within(stream).await.unwrap().unwrap().text().await.unwrap();
    assert!(events.contains("error") && !events.contains("b64_json"), "{events}");
    let drawn = orders.orders.lock().unwrap().clone();
    for order in drawn {
        within(order.cancel.cancelled()).await;
    }
    let records = found(|| Some(gateway.log.records()).filter(|records| records.len() == 2)).await;
    assert!(records.iter().all(|record| record.reason == Reason::Cancelled));
}
