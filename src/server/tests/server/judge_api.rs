//! `POST /v1/judge` and `GET /openapi.json`, and what all fronts share that judge pictures which clients bring.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use cluegate_gate::OnUnsafe;
use cluegate_gate::fakes::{Fault, World, picture, violated};
use proptest::prelude::*;
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::{Gateway, Screener, Setup, png};

/// The object whose rule the tenant's policy speaks of.
pub(crate) const SWORD: usize = 2;

pub(crate) const EVIDENCE: &str = "[tenant.t.client]\nevidence = true\n";
pub(crate) const REDACT: &str = "[tenant.t.action]\ndefault = \"redact\"\n";

/// A picture with these objects, in base64.
pub(crate) fn brought(objects: &[usize]) -> String {
    BASE64_STANDARD.encode(png(&picture(objects, 7)))
}

pub(crate) fn data_url(objects: &[usize]) -> String {
    format!("data:image/png;base64,{}", brought(objects))
}

/// The pixels of a picture in base64 or of a data URL.
pub(crate) fn pixels(text: &str) -> image::RgbImage {
    let data = text.rsplit(',').next().unwrap();
    image::load_from_memory(&BASE64_STANDARD.decode(data).unwrap()).unwrap().into_rgb8()
}

/// A gateway whose judge fails in this way, once.
pub(crate) fn failing(fault: Fault, head: &'static str) -> Setup {
    Setup { world: Some(World::new([fault])), head, ..Setup::default() }
}

/// A transparent PNG file, whose look depends on what lies behind it.
pub(crate) fn transparent() -> Vec<u8> {
    let shown = picture(&[], 3);
    let mut bytes = std::io::Cursor::new(Vec::new());
    let rgba = image::RgbaImage::from_fn(64, 64, |x, y| {
        let [r, g, b] = shown.pixels().get_pixel(x, y).0;
        image::Rgba([r, g, b, if x < 9 { 0 } else { 255 }])
    });
    rgba.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    bytes.into_inner()
}

/// Checks an answer against the schema that the gateway's own document names for it.
pub(crate) async fn conforms(gateway: &Gateway, path: &str, status: &str, body: &Value) {
    let document: Value = gateway
        .client()
        .get(format!("{}/openapi.json", gateway.url))
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    let mut response = document["paths"][path]["post"]["responses"][status].clone();
    assert!(response.is_object(), "{path} {status} is not in the document");
    if let Some(reference) = response["$ref"].as_str() {
        response = document.pointer(reference.strip_prefix('#').unwrap()).unwrap().clone();
    }
    let schema = json!({
        "allOf": [response["content"]["application/json"]["schema"]], "components": document["components"],
    });
    let validator = jsonschema::validator_for(&schema).unwrap();
    let problems: Vec<String> = validator.iter_errors(body).map(|error| format!("{error:.300}")).collect();
    assert!(problems.is_empty(), "{path} {status}: {problems:#?}");
}

async fn ask(gateway: &Gateway, body: &Value) -> (StatusCode, Option<String>, Value) {
    post(gateway, "/v1/judge", body).await
}

/// Status, decision header and body of a POST.
pub(crate) async fn post(gateway: &Gateway, path: &str, body: &Value) -> (StatusCode, Option<String>, Value) {
    let response = gateway.client().post(format!("{}{path}", gateway.url)).json(body).send().await.unwrap();
    let (status, header) = (response.status(), response.headers().get("x-cluegate-decision").cloned());
    let header = header.map(|header| header.to_str().unwrap().to_owned());
    let body = response.json().await.unwrap();
    conforms(gateway, path, if status.is_success() { "200" } else { "default" }, &body).await;
    (status, header, body)
}

#[tokio::test]
async fn a_verdict_comes_with_its_grounds_if_the_tenant_may_see_them() {
    let told = Gateway::start(Setup { tables: EVIDENCE, ..Setup::default() }).await;
    let (status, header, safe) =
        ask(&told, &json!({ "image": brought(&[3]), "prompt": "a person", "request_id": "mine-7" })).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(
        (&safe["verdict"], &safe["reason"], &safe["outcome"]),
        (&json!("safe"), &json!("safe"), &json!("released"))
    );
    assert_eq!((&safe["request_id"], &safe["violated"]), (&json!("mine-7"), &json!([])));
    assert_eq!(safe["constitution"]["name"], "world");
    assert!(safe["image"].is_null() && safe["evidence"]["rules"].is_array());
    let id = safe["decision_id"].as_str().unwrap();
    assert_eq!(header.unwrap(), format!("{id};outcome=released;reason=safe"));

    let (_, header, bad) = ask(&told, &json!({ "image": data_url(&[SWORD]), "return_image": true })).await;
    assert_eq!(
        (&bad["verdict"], &bad["outcome"], &bad["violated"]),
        (&json!("unsafe"), &json!("withheld"), &json!(["sword"]))
    );
    assert_eq!(bad["evidence"]["violated"], json!(["sword"]));
    assert!(bad.get("image").is_none() && header.unwrap().ends_with(";outcome=withheld;reason=violation"));

    let untold = Gateway::start(Setup::default()).await;
    let (_, _, bad) = ask(&untold, &json!({ "image": brought(&[SWORD]) })).await;
    assert_eq!(bad["verdict"], "unsafe");
    for hidden in ["violated", "evidence", "action"] {
        assert!(bad.get(hidden).is_none(), "{hidden}");
    }
    assert!(!bad.to_string().contains("sword"), "{bad}");
    let records = told.log.records();
    assert_eq!(records.len(), 2);
    assert_eq!(records[0].request.id, "mine-7");
}

#[tokio::test]
async fn what_a_plugin_keeps_back_is_unsafe_and_told_of_like_other_evidence() {
    for (on_unsafe, verdict, reason) in [
        (OnUnsafe::Withhold, "unsafe", "violation"),
        (OnUnsafe::Redact, "unsafe", "redaction-failed"),
        (OnUnsafe::Note, "safe", "safe"),
    ] {
        let extensions = Screener::face(on_unsafe);
        let told = Gateway::start(Setup { tables: EVIDENCE, extensions, ..Setup::default() }).await;
        let (status, _, answer) = ask(&told, &json!({ "image": brought(&[3]) })).await;
        assert_eq!((status, &answer["verdict"]), (StatusCode::OK, &json!(verdict)), "{answer}");
        assert_eq!((&answer["reason"], &answer["violated"]), (&json!(reason), &json!([])));
        let found = &answer["plugins"][0];
        assert_eq!((&found["plugin"], &found["on_unsafe"]), (&json!("faces"), &json!(on_unsafe)));
        assert_eq!(found["labels"][0]["region"], json!([0.0, 0.0, 32.0, 64.0]));
        assert_eq!(told.log.records()[0].attempts[0].plugins[0].labels[0].name, "face");
        let extensions = Screener::face(on_unsafe);
        let untold = Gateway::start(Setup { extensions, ..Setup::default() }).await;
        let (_, _, answer) = ask(&untold, &json!({ "image": brought(&[3]) })).await;
        assert_eq!((&answer["verdict"], answer.get("plugins")), (&json!(verdict), None));
        assert!(!answer.to_string().contains("face"), "{answer}");
    }
}

#[tokio::test]
async fn a_redacted_picture_is_returned_if_it_is_asked_for_and_released() {
    let gateway = Gateway::start(Setup { tables: REDACT, ..Setup::default() }).await;
    let (_, _, kept) = ask(&gateway, &json!({ "image": brought(&[SWORD]) })).await;
    assert_eq!((&kept["reason"], kept.get("image")), (&json!("redacted"), None));
    for (format, start) in [("png", &b"\x89PNG"[..]), ("jpeg", b"\xff\xd8"), ("webp", b"RIFF")] {
        let asked = json!({ "image": brought(&[SWORD]), "return_image": true, "format": format });
        let (_, _, answer) = ask(&gateway, &asked).await;
        assert_eq!((&answer["verdict"], &answer["outcome"]), (&json!("unsafe"), &json!("released")));
        let image = answer["image"].as_str().unwrap();
        assert!(BASE64_STANDARD.decode(image).unwrap().starts_with(start));
        assert!(violated(&pixels(image)).is_empty());
    }
}

#[tokio::test]
async fn a_form_is_read_as_json_is() {
    let gateway = Gateway::start(Setup { tables: EVIDENCE, ..Setup::default() }).await;
    let file = |objects: &[usize]| {
        reqwest::multipart::Part::bytes(png(&picture(objects, 1)))
            .file_name("a.txt")
            .mime_str("text/plain")
            .unwrap()
    };
    let send = |form: reqwest::multipart::Form| {
        gateway.client().post(format!("{}/v1/judge", gateway.url)).multipart(form).send()
    };
    let form = reqwest::multipart::Form::new()
        .part("image", file(&[SWORD]))
        .text("prompt", "a knight")
        .text("request_id", "f-1");
    let answer: Value = send(form).await.unwrap().json().await.unwrap();
    conforms(&gateway, "/v1/judge", "200", &answer).await;
    assert_eq!(
        (&answer["verdict"], &answer["request_id"], &answer["violated"]),
        (&json!("unsafe"), &json!("f-1"), &json!(["sword"]))
    );
    let form = reqwest::multipart::Form::new()
        .text("image_url", data_url(&[]))
        .text("return_image", "true")
        .text("format", "webp");
    let answer: Value = send(form).await.unwrap().json().await.unwrap();
    assert!(answer["image"].is_string());
    for form in [
        reqwest::multipart::Form::new(),
        reqwest::multipart::Form::new().part("image", file(&[])).text("image_url", data_url(&[])),
        reqwest::multipart::Form::new().part("image", file(&[])).part("image", file(&[])),
        reqwest::multipart::Form::new().part("image", file(&[])).text("formt", "png"),
        reqwest::multipart::Form::new().part("image", file(&[])).text("format", "tiff"),
        reqwest::multipart::Form::new().part("image", file(&[])).text("return_image", "1"),
        reqwest::multipart::Form::new().part("image", file(&[])).text("prompt", "x".repeat(70_000)),
    ] {
        let refused = send(form).await.unwrap();
        assert!(refused.status().is_client_error());
        let body: Value = refused.json().await.unwrap();
        conforms(&gateway, "/v1/judge", "default", &body).await;
    }
    assert_eq!(gateway.log.records().len(), 2);
}

#[tokio::test]
async fn what_is_no_verdict_is_a_problem() {
    for (fault, status, code, reason) in [
        (Fault::Error, 503, "judge_failed", "judge-error"),
        (Fault::Panic, 503, "judge_failed", "judge-error"),
        (Fault::OtherPicture, 503, "judge_failed", "judge-error"),
        (Fault::Partial, 503, "judge_failed", "judge-error"),
        (Fault::OutOfTime, 504, "deadline_exceeded", "judge-timeout"),
    ] {
        let gateway = Gateway::start(failing(fault, "")).await;
        let (found, header, body) = ask(&gateway, &json!({ "image": brought(&[SWORD]) })).await;
        assert_eq!((found.as_u16(), &body["error"]), (status, &json!(code)), "{fault:?}");
        assert!(header.unwrap().ends_with(&format!(";outcome=withheld;reason={reason}")), "{fault:?}");
    }
    // Unless the policy says that pictures are released without one: then it says that there is none.
    let gateway = Gateway::start(failing(Fault::Error, "on_error = \"release-unjudged\"\n")).await;
    let (status, _, body) = ask(&gateway, &json!({ "image": brought(&[SWORD]) })).await;
    assert_eq!(
        (status, &body["verdict"], &body["reason"]),
        (StatusCode::OK, &json!("error"), &json!("unjudged"))
    );
}

#[tokio::test]
async fn what_is_no_picture_is_the_clients_error() {
    let tables = "[tenant.t.limits]\nmax_pixels = 5000\n";
    let gateway = Gateway::start(Setup { tables, ..Setup::default() }).await;
    let black = BASE64_STANDARD.encode(png(&cluegate_perception::Picture::new(image::RgbImage::new(8, 8))));
    let large = image::RgbImage::from_fn(80, 80, |x, y| image::Rgb([x as u8, y as u8, 1]));
    let large = BASE64_STANDARD.encode(png(&cluegate_perception::Picture::new(large)));
    let truncated = BASE64_STANDARD.encode(&png(&picture(&[SWORD], 1))[..200]);
    for (body, status) in [
        (json!({}), 400),
        (json!({ "image": "" }), 400),
        (json!({ "image": "bm8gcGljdHVyZQ==" }), 400),
        (json!({ "image": truncated }), 400),
        (json!({ "image": black }), 400),
        (json!({ "image": large }), 413),
        (json!({ "image": 7 }), 400),
        (json!({ "image": brought(&[]), "image_url": data_url(&[]) }), 400),
        (json!({ "image": "http://127.0.0.1/a.png" }), 400),
        (json!({ "image_url": "http://169.254.169.254/latest/meta-data" }), 400),
        (json!({ "image": brought(&[]), "request_id": "a b" }), 400),
        (json!({ "image": brought(&[]), "imge": 1 }), 400),
        (json!({ "image": brought(&[]), "format": "tiff" }), 400),
        (json!([]), 400),
    ] {
        let (found, _, answer) = ask(&gateway, &body).await;
        assert_eq!(found.as_u16(), status, "{answer}");
        assert!(answer.get("verdict").is_none());
    }
    let untyped = gateway.client().post(format!("{}/v1/judge", gateway.url)).body("{}").send().await.unwrap();
    assert_eq!(untyped.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let nobody = reqwest::Client::new()
        .post(format!("{}/v1/judge", gateway.url))
        .json(&json!({}))
        .send()
        .await
        .unwrap();
    assert_eq!(nobody.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_picture_is_fetched_from_a_listed_host_and_nowhere_else() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let file = png(&picture(&[SWORD], 2));
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 4096]).await;
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n",
                file.len()
            );
            let _ = stream.write_all(&[head.as_bytes(), &file].concat()).await;
        }
    });
    // `localhost` is listed too, but it is a name that leads to no public address.
    let config_tables = format!("[pictures]\nfetch_hosts = [\"127.0.0.1:{port}\", \"localhost:{port}\"]\n");
    let gateway = Gateway::start(Setup { config_tables, ..Setup::default() }).await;
    let (status, _, answer) =
        ask(&gateway, &json!({ "image_url": format!("http://127.0.0.1:{port}/a") })).await;
    assert_eq!((status, &answer["verdict"]), (StatusCode::OK, &json!("unsafe")));
    let (status, _, answer) =
        ask(&gateway, &json!({ "image_url": format!("http://localhost:{port}/a") })).await;
    assert_eq!(status, StatusCode::BAD_GATEWAY, "{answer}");
    let (status, _, _) =
        ask(&gateway, &json!({ "image_url": format!("http://127.0.0.1:{}/", port ^ 1) })).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn the_document_is_open_to_all() {
    let gateway = Gateway::start(Setup::default()).await;
    let document: Value = reqwest::Client::new()
        .get(format!("{}/openapi.json", gateway.url))
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1."));
    for path in ["/v1/judge", "/v1/moderations", "/beta/litellm_basic_guardrail_api"] {
        assert!(document["paths"][path]["post"].is_object(), "{path}");
    }
}

fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let leaf = prop_oneof![
        Just(json!(null)),
        any::<i64>().prop_map(|number| json!(number)),
        "\\PC{0,40}".prop_map(|text| json!(text)),
        Just(json!("data:image/png;base64,iVBORw0KGgo=")),
        Just(json!("data:image/png;base64,/9j/4AAQSkZJRg==")),
        Just(json!("http://localhost:1/a.png")),
        prop::collection::vec(any::<u8>(), 0..60).prop_map(|bytes| json!(BASE64_STANDARD.encode(bytes))),
    ];
    let keys = prop::sample::select(vec![
        "image",
        "image_url",
        "input",
        "type",
        "url",
        "images",
        "texts",
        "input_type",
        "structured_messages",
        "content",
        "model",
        "format",
        "return_image",
        "x",
    ]);
    let value = leaf.prop_recursive(4, 24, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            prop::collection::btree_map(keys.clone().prop_map(str::to_owned), inner, 0..5)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    });
    let damaged = (value, any::<prop::sample::Index>(), any::<u8>(), any::<bool>());
    damaged.prop_map(|(value, place, byte, damage)| {
        let mut bytes = value.to_string().into_bytes();
        if damage {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        bytes
    })
}

#[test]
fn no_hostile_body_gets_a_verdict_or_breaks_the_server() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let gateway = runtime.block_on(Gateway::start(Setup::default()));
    let mut runner =
        proptest::test_runner::TestRunner::new(ProptestConfig { cases: 300, ..ProptestConfig::default() });
    let client = gateway.client();
    let result = runner.run(&hostile(), |body| {
        for path in ["/v1/judge", "/v1/moderations", "/beta/litellm_basic_guardrail_api"] {
            let sent =
                client.post(format!("{}{path}", gateway.url)).header("content-type", "application/json");
            let (status, answer) = runtime.block_on(async {
                let answer = sent.body(body.clone()).send().await.unwrap();
                (answer.status(), answer.json::<Value>().await.unwrap())
            });
            // A guardrail call without a picture has nothing to say against.
            let nothing = answer["action"] == "NONE" && gateway.log.records().is_empty();
            prop_assert!(status.is_client_error() || nothing, "{path} {status}: {answer}");
            prop_assert!(answer.get("verdict").is_none() && answer.get("results").is_none());
        }
        Ok(())
    });
    result.unwrap();
    let alive = runtime.block_on(client.get(format!("{}/healthz", gateway.url)).send()).unwrap();
    assert_eq!((alive.status(), gateway.log.records().len()), (StatusCode::OK, 0));
}
