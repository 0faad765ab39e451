//! `/v1/sessions`: hosts that draw by themselves.

use std::sync::Arc;
use std::time::Duration;

use cluegate_gate::fakes::{Fault, World, picture, violated};
use cluegate_gate::{Extensions, Outcome, Reason};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::judge_api::{EVIDENCE, SWORD, conforms, pixels};
use crate::support::{Gateway, Rewriter, Setup, found, png};

const PICTURE: &str = "/v1/sessions/{id}/pictures/{member}";
const PREVIEW: &str = "/v1/sessions/{id}/pictures/{member}/preview";
const FAILURE: &str = "/v1/sessions/{id}/pictures/{member}/failure";
const AGAIN: &str = "tries = 2\npreviews = [0.5]\naction.default = \"regenerate\"\nclient.evidence = true\n";

/// A session of a test, with checks of every answer against the gateway's own document.
struct Host<'a> {
    gateway: &'a Gateway,
    id: String,
    opened: Value,
}

impl<'a> Host<'a> {
    async fn open(gateway: &'a Gateway, asked: Value) -> Self {
        let (status, opened) = send(gateway, "/v1/sessions", asked).await;
        assert_eq!(status, StatusCode::OK, "{opened}");
        conforms(gateway, "/v1/sessions", "200", &opened).await;
        Self { gateway, id: opened["id"].as_str().unwrap().to_owned(), opened }
    }

    fn url(&self, route: &str, member: usize) -> String {
        let path = route.replace("{id}", &self.id).replace("{member}", &member.to_string());
        format!("{}{path}", self.gateway.url)
    }

    async fn post(&self, route: &str, url: String, bytes: Vec<u8>) -> (StatusCode, Value) {
        let asked = self.gateway.client().post(url).header("content-type", "image/png").body(bytes);
        let answer = asked.send().await.unwrap();
        let (status, body) = (answer.status(), answer.json().await.unwrap());
        conforms(self.gateway, route, if status.is_success() { "200" } else { "default" }, &body).await;
        (status, body)
    }

    async fn finished(&self, member: usize, objects: &[usize]) -> (StatusCode, Value) {
        self.post(PICTURE, self.url(PICTURE, member), png(&picture(objects, member as u8))).await
    }

    async fn preview(&self, member: usize, objects: &[usize], step: u32, total: u32) -> (StatusCode, Value) {
        let url = format!("{}?step={step}&total={total}", self.url(PREVIEW, member));
        self.post(PREVIEW, url, png(&picture(objects, 99))).await
    }

    async fn close(&self) -> (StatusCode, Value) {
        let url = format!("{}/v1/sessions/{}", self.gateway.url, self.id);
        let answer = self.gateway.client().request(Method::DELETE, url).send().await.unwrap();
        (answer.status(), answer.json().await.unwrap())
    }
}

async fn send(gateway: &Gateway, path: &str, body: Value) -> (StatusCode, Value) {
    let answer = gateway.client().post(format!("{}{path}", gateway.url)).json(&body).send().await.unwrap();
    (answer.status(), answer.json().await.unwrap())
}

/// Reasons of what was logged so far.
fn reasons(gateway: &Gateway) -> Vec<Reason> {
    gateway.log.records().iter().map(|record| record.reason).collect()
}

#[tokio::test]
async fn each_picture_is_decided_by_itself_and_only_a_released_one_comes_back() {
    let gateway = Gateway::start(Setup::default()).await;
    let asked = json!({ "prompt": "a shop", "count": 3, "seed": 7, "width": 64, "height": 64, "request_id": "mine-1" });
    let host = Host::open(&gateway, asked).await;
    assert_eq!((&host.opened["seeds"], &host.opened["request_id"]), (&json!([7, 8, 9]), &json!("mine-1")));
    let (status, good) = host.finished(0, &[3]).await;
    assert_eq!((status, &good["instruction"]), (StatusCode::OK, &json!("release")));
    assert_eq!(&pixels(good["image"].as_str().unwrap()), picture(&[3], 0).pixels());
    let (_, bad) = host.finished(1, &[SWORD]).await;
    assert_eq!((&bad["instruction"], bad.get("image")), (&json!("withhold"), None));
    // Something stands in for it, and it is not the picture.
    assert!(violated(&pixels(bad["placeholder"].as_str().unwrap())).is_empty());
    assert!(!bad.to_string().contains("sword"), "the rule's name is evidence: {bad}");
    let (status, told) = host.finished(1, &[3]).await;
    assert_eq!((status, &told["error"]), (StatusCode::CONFLICT, &json!("conflict")));
    assert_eq!(host.finished(3, &[3]).await.0, StatusCode::NOT_FOUND);
    let (status, closed) = host.close().await;
    assert_eq!(status, StatusCode::OK);
    let told: Vec<&str> =
        closed["outcomes"].as_array().unwrap().iter().map(|one| one["reason"].as_str().unwrap()).collect();
    assert_eq!(told, ["safe", "violation", "not-finished"]);
    assert_eq!(reasons(&gateway), [Reason::Safe, Reason::Violation, Reason::NotFinished]);
    assert_eq!(gateway.log.records()[0].request.id, "mine-1");
    assert_eq!(host.close().await.0, StatusCode::NOT_FOUND);
    assert_eq!(host.finished(2, &[3]).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_preview_ends_an_attempt_and_the_next_has_a_seed_of_its_own() {
    let gateway = Gateway::start(Setup { head: AGAIN, ..Setup::default() }).await;
    let host = Host::open(&gateway, json!({ "prompt": "a shop", "seed": 1, "steps": 10 })).await;
    assert_eq!((&host.opened["preview_steps"], &host.opened["tries"]), (&json!([5]), &json!(2)));
    // Not asked for, so not judged.
    assert_eq!(host.preview(0, &[SWORD], 3, 10).await.1, json!({ "instruction": "continue" }));
    let (_, told) = host.preview(0, &[SWORD], 5, 10).await;
    assert_eq!(told["instruction"], "abort", "{told}");
    let then = &told["then"];
    assert_eq!((&then["instruction"], &then["attempt"]), (&json!("draw_again"), &json!(2)));
    assert_eq!(then["avoid"], json!(["a sword is visible"]));
    assert_ne!(then["seed"], 1);
    assert_eq!(host.preview(0, &[3], 5, 10).await.1, json!({ "instruction": "continue" }));
    // One step is judged once, and a loop keeps its length.
    assert_eq!(host.preview(0, &[3], 5, 10).await.0, StatusCode::CONFLICT);
    assert_eq!(host.preview(0, &[3], 6, 12).await.0, StatusCode::BAD_REQUEST);
    for (step, total) in [(0, 10), (10, 10), (1, 10_001)] {
        assert_eq!(host.preview(0, &[3], step, total).await.0, StatusCode::BAD_REQUEST, "{step} of {total}");
    }
    // What is wrong with an address is said in JSON too.
    for (wrong, status) in [("/first", StatusCode::NOT_FOUND), ("/0/preview?step=5", StatusCode::BAD_REQUEST)]
    {
        let url = format!("{}/v1/sessions/{}/pictures{wrong}", gateway.url, host.id);
        assert_eq!(host.post(PREVIEW, url, png(&picture(&[3], 1))).await.0, status, "{wrong}");
    }
    let (_, told) = host.finished(0, &[SWORD]).await;
    assert_eq!(
        (&told["instruction"], &told["outcome"]["reason"]),
        (&json!("withhold"), &json!("tries-exhausted"))
    );
    assert_eq!(told["outcome"]["violated"], json!(["sword"]));
    let records = gateway.log.records();
    assert_eq!((records.len(), records[0].attempts.len()), (1, 2));
    assert!(records[0].attempts[0].previews[0].aborted);
}

#[tokio::test]
async fn a_prompt_that_a_plugin_wrote_anew_goes_to_the_host() {
    let rewritten = json!("a knight, 2");
    let strategies = "[tenant.t.regenerate]\nstrategies = [\"avoid\"]\n[tenant.t.client]";
    for (client, strategy, prompt, told_why) in [
        ("evidence = true", "avoid", &rewritten, true),
        ("instructions = true", "avoid", &rewritten, false),
        // What the host cannot be told is no strategy: not in its order, and not in the log.
        ("", "reseed", &Value::Null, false),
    ] {
        let tables: &'static str = format!("{strategies}\n{client}\n").leak();
        let head = "tries = 2\naction.default = \"regenerate\"\n";
        let write = |prompt: &str, attempt: u32| format!("{prompt}, {attempt}");
        let extensions: Option<Arc<dyn Extensions>> = Some(Arc::new(Rewriter(write)));
        let gateway = Gateway::start(Setup { head, tables, extensions, ..Setup::default() }).await;
        let host = Host::open(&gateway, json!({ "prompt": "a knight" })).await;
        let (_, told) = host.finished(0, &[SWORD]).await;
        assert_eq!((&told["instruction"], &told["prompt"]), (&json!("draw_again"), prompt), "{told}");
        let avoid = if strategy == "avoid" { json!(["a sword is visible"]) } else { json!([]) };
        assert_eq!((&told["strategy"], &told["avoid"]), (&json!(strategy), &avoid), "{told}");
        assert_eq!(host.opened["strategies"], json!([strategy]));
        assert_eq!(told["message"].as_str().unwrap().contains("sword"), told_why, "{told}");
        let (_, told) = host.finished(0, &[SWORD]).await;
        // Nobody learns the evidence from an order to draw again.
        assert_eq!(told["outcome"].get("violated").is_some(), told_why, "{told}");
        assert_eq!(gateway.log.records()[0].attempts[1].strategy.as_str(), strategy);
    }
}

#[tokio::test]
async fn what_is_redacted_comes_back_redacted_and_previews_that_may_be_shown_do_too() {
    let tables = "[tenant.t.action]\ndefault = \"redact\"\n[tenant.t.client]\npreviews = true\n";
    let gateway = Gateway::start(Setup { head: "previews = [1, 2]", tables, ..Setup::default() }).await;
    let host = Host::open(&gateway, json!({ "prompt": "a shop" })).await;
    let (_, told) = host.preview(0, &[3], 1, 4).await;
    assert_eq!(&pixels(told["preview"].as_str().unwrap()), picture(&[3], 99).pixels());
    // It is drawn on, as the finished picture can be redacted, but nobody sees this one.
    assert_eq!(host.preview(0, &[SWORD], 2, 4).await.1, json!({ "instruction": "continue" }));
    let (_, told) = host.finished(0, &[SWORD]).await;
    assert_eq!((&told["instruction"], &told["outcome"]["reason"]), (&json!("release"), &json!("redacted")));
    assert!(violated(&pixels(told["image"].as_str().unwrap())).is_empty());
}

#[tokio::test]
async fn a_host_that_cannot_draw_again_or_drew_nothing_gets_nothing() {
    let gateway = Gateway::start(Setup { head: AGAIN, ..Setup::default() }).await;
    let host = Host::open(&gateway, json!({ "prompt": "a shop", "count": 2, "max_tries": 1 })).await;
    assert_eq!(host.opened["tries"], 1);
    let (_, told) = host.finished(0, &[SWORD]).await;
    assert_eq!(
        (&told["instruction"], &told["outcome"]["reason"]),
        (&json!("withhold"), &json!("tries-exhausted"))
    );
    let url = host.url(FAILURE, 1);
    let answer = gateway.client().post(url).json(&json!({ "why": "out of memory" })).send().await.unwrap();
    let told: Value = answer.json().await.unwrap();
    conforms(&gateway, FAILURE, "200", &told).await;
    assert_eq!(told["outcome"]["reason"], "generator-failure");
    assert!(gateway.log.records()[1].message.contains("out of memory"));
}

#[tokio::test]
async fn a_judge_that_fails_and_pictures_that_are_none_release_nothing() {
    for (fault, reason) in [
        (Fault::Error, "judge-error"),
        (Fault::Panic, "judge-error"),
        (Fault::OtherPicture, "judge-error"),
        (Fault::Partial, "judge-error"),
        (Fault::OutOfTime, "judge-timeout"),
    ] {
        let world = Some(World::new([fault]));
        let gateway = Gateway::start(Setup { world, tables: EVIDENCE, ..Setup::default() }).await;
        let host = Host::open(&gateway, json!({ "prompt": "a shop", "count": 2 })).await;
        let (status, told) = host.finished(0, &[3]).await;
        assert_eq!((status, &told["instruction"]), (StatusCode::OK, &json!("withhold")), "{fault:?}: {told}");
        assert_eq!((&told["outcome"]["reason"], told.get("image")), (&json!(reason), None), "{fault:?}");
        // The session lives on, and so does the other picture.
        for broken in [Vec::new(), b"\x89PNG\r\n\x1a\nno".to_vec()] {
            assert_eq!(host.post(PICTURE, host.url(PICTURE, 1), broken).await.0, StatusCode::BAD_REQUEST);
        }
        assert_eq!(host.finished(1, &[3]).await.1["instruction"], "release");
        host.close().await;
    }
}

#[tokio::test]
async fn a_session_ends_when_nobody_is_heard_of_or_its_time_is_over() {
    let config_tables = "[limits]\nin_work = 1\nsession_idle_ms = 150\n".to_owned();
    let gateway = Gateway::start(Setup { config_tables, ..Setup::default() }).await;
    let host = Host::open(&gateway, json!({ "prompt": "a shop", "count": 2 })).await;
    host.finished(0, &[3]).await;
    // It held the only place; whoever waits for one gets it.
    let second = Host::open(&gateway, json!({ "prompt": "a shop" })).await;
    assert_eq!(host.finished(1, &[3]).await.0, StatusCode::NOT_FOUND);
    assert_eq!(reasons(&gateway), [Reason::Safe, Reason::NotFinished]);
    second.close().await;

    let asked =
        gateway.client().post(format!("{}/v1/sessions", gateway.url)).json(&json!({ "prompt": "a shop" }));
    let opened: Value =
        asked.header("x-cluegate-timeout-ms", "60").send().await.unwrap().json().await.unwrap();
    assert!(opened["expires_in_ms"].as_u64().unwrap() <= 60);
    found(|| (gateway.log.records().len() == 4).then_some(())).await;
    assert!(gateway.log.records().iter().skip(1).all(|record| record.outcome == Outcome::Withheld));
}

#[tokio::test]
async fn a_call_that_breaks_off_calls_its_session_off() {
    // The judge takes 400 ms, and its caller does not wait.
    let gateway = Gateway::start(Setup { world: Some(World::new([Fault::Hang])), ..Setup::default() }).await;
    let host = Host::open(&gateway, json!({ "prompt": "a shop", "count": 2 })).await;
    let asked = gateway.client().post(host.url(PICTURE, 0)).header("content-type", "image/png");
    let left = asked.body(png(&picture(&[3], 1))).timeout(Duration::from_millis(80)).send().await;
    assert!(left.unwrap_err().is_timeout());
    found(|| (gateway.log.records().len() == 2).then_some(())).await;
    assert!(reasons(&gateway).iter().all(|reason| *reason == Reason::Cancelled), "{:?}", reasons(&gateway));
    assert_eq!(host.finished(1, &[3]).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn what_cannot_be_opened_is_refused_at_once() {
    let gateway =
        Gateway::start(Setup { tables: "[tenant.t.limits]\nmax_pictures = 2\n", ..Setup::default() }).await;
    for (asked, word) in [
        (json!({ "prompt": "a", "count": 3 }), "pictures"),
        (json!({ "prompt": "a", "count": 0 }), "at least 1"),
        (json!({ "prompt": "a", "max_tries": 0 }), "at least 1"),
        (json!({ "prompt": "a", "width": 64 }), "height"),
        (json!({ "prompt": "a", "steps": 10_001 }), "steps"),
        (json!({ "prompt": "a", "colour": 1 }), "colour"),
        (json!({ "prompt": "a", "request_id": "a b" }), "request_id"),
        (json!({}), "prompt"),
    ] {
        let (status, told) = send(&gateway, "/v1/sessions", asked.clone()).await;
        conforms(&gateway, "/v1/sessions", "default", &told).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{asked}");
        assert!(told["message"].as_str().unwrap().contains(word), "{asked}: {told}");
    }
    assert!(gateway.log.records().is_empty());
}
