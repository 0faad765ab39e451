//! A drawing as its client sees it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cluegate_constitution::Constitution;
use cluegate_gate::fakes::{World, picture};
use cluegate_gate::{InspectionError, Inspector, JudgeProvider, Reason};
use cluegate_judge::Report;
use cluegate_perception::{Call, Detection, Picture};
use reqwest::StatusCode;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::support::{Drawn, Gateway, Scripted, Setup, found, logged, within};

/// A judge that gives no verdict before it is called off, and tells that it was.
#[derive(Clone, Default)]
struct Endless {
    begun: CancellationToken,
    called_off: CancellationToken,
}

struct EndlessInspector(Arc<dyn Inspector>, Endless);

impl JudgeProvider for Endless {
    fn inspector(&self, constitution: Constitution) -> Result<Arc<dyn Inspector>, InspectionError> {
        Ok(Arc::new(EndlessInspector(World::new([]).inspector(constitution)?, self.clone())))
    }
}

impl Inspector for EndlessInspector {
    fn constitution(&self) -> &Constitution {
        self.0.constitution()
    }

    fn models(&self) -> BTreeMap<String, String> {
        self.0.models()
    }

    fn inspect(&self, _: &Picture, _: Option<&str>, call: &Call) -> Result<Report, InspectionError> {
        self.1.begun.cancel();
        loop {
            if let Err(over) = call.check() {
                self.1.called_off.cancel();
                return Err(over.into());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn locate(&self, _: &Picture, _: &[&str], _: f32, _: &Call) -> Result<Vec<Detection>, InspectionError> {
        Ok(Vec::new())
    }
}

#[tokio::test]
async fn a_client_that_disconnects_calls_off_upstream_and_judge() {
    let judge = Endless::default();
    let upstream =
        Scripted::new(|_, index| if index == 0 { Drawn::Picture(picture(&[3], 0)) } else { Drawn::Hangs });
    let orders = Arc::clone(&upstream);
    let setup = Setup { judge: Some(Arc::new(judge.clone())), upstream: Some(upstream), ..Setup::default() };
    let gateway = Gateway::start(setup).await;
    for stream in [false, true] {
        let asked = gateway.client().post(format!("{}/v1/images/generations", gateway.url));
        let asked = asked.header("x-request-id", format!("gone-{stream}"));
        let asked = asked.json(&json!({ "prompt": "a shop", "n": 2, "stream": stream }));
        let asked = tokio::spawn(async move {
            if let Ok(mut answer) = asked.send().await {
                while let Ok(Some(_)) = answer.chunk().await {}
            }
        });
        if !stream {
            within(judge.begun.cancelled()).await;
        }
        let order = found(|| orders.orders.lock().unwrap().get(usize::from(stream)).cloned()).await;
        assert!(!order.cancel.is_cancelled());
        asked.abort();
        within(order.cancel.cancelled()).await;
        within(judge.called_off.cancelled()).await;
        let records = found(|| {
            let records = gateway.log.records();
            (records.len() == 2 + 2 * usize::from(stream)).then_some(records)
        });
        assert!(records.await.iter().all(|record| record.reason == Reason::Cancelled));
    }
    assert!(logged("gone-false").await.contains("the client went away"));
}

#[tokio::test]
async fn a_hanging_upstream_is_answered_for_within_the_deadline() {
    let upstream = Scripted::new(|_, _| Drawn::Hangs);
    let orders = Arc::clone(&upstream);
    let gateway = Gateway::start(Setup { upstream: Some(upstream), ..Setup::default() }).await;
    for (name, value) in [("x-cluegate-timeout-ms", "200"), ("x-stainless-read-timeout", "0.2")] {
        let asked =
            gateway.client().post(format!("{}/v1/images/generations", gateway.url)).header(name, value);
        let answer = within(asked.json(&json!({ "prompt": "a shop" })).send()).await.unwrap();
        assert_eq!(answer.status(), StatusCode::GATEWAY_TIMEOUT);
        let body: serde_json::Value = answer.json().await.unwrap();
        assert!(body.to_string().contains("deadline_exceeded"), "{body}");
    }
    let drawn = orders.orders.lock().unwrap().clone();
    for order in drawn {
        within(order.cancel.cancelled()).await;
    }
    assert!(gateway.log.records().iter().all(|record| record.reason == Reason::RequestTimeout));
}

#[tokio::test]
async fn one_line_is_logged_with_its_decisions_and_neither_prompt_nor_key() {
    let upstream =
        Scripted::new(|_, index| Drawn::Picture(picture(if index == 0 { &[2] } else { &[3] }, index as u8)));
    let gateway = Gateway::start(Setup { upstream: Some(upstream), ..Setup::default() }).await;
    let asked = gateway.client().post(format!("{}/v1/images/generations?secret=query", gateway.url));
    let asked = asked
        .header("x-request-id", "access-1")
        .json(&json!({ "prompt": "a prompt of nobody else", "n": 2 }));
    let answer = asked.send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    let length = answer.bytes().await.unwrap().len();
    let lines = logged("access-1").await;
    let told: Vec<&str> = lines.lines().filter(|line| line.contains("answered")).collect();
    assert_eq!(told.len(), 1, "{lines}");
    for part in [
        " INFO ",
        "method=POST",
        "route=\"/v1/images/generations\"",
        "tenant=\"t\"",
        "key=\"key-t\"",
        "status=200",
        "outcome=withheld;reason=violation",
        "outcome=released;reason=safe",
        &format!("bytes={length}"),
        "whole=true",
        "ms=",
    ] {
        assert!(told[0].contains(part), "{part}: {}", told[0]);
    }
    for secret in ["nobody else", "secret", gateway.key.reveal()] {
        assert!(!lines.contains(secret), "{lines}");
    }
}
