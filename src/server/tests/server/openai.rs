//! The OpenAI Images front: its own answers, errors and files, over an upstream that draws by script.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use cluegate_gate::fakes::{Fault, World, picture, shows, violated};
use cluegate_server::Order;
use image::RgbImage;
use reqwest::multipart::{Form, Part};
use reqwest::{RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{Drawn, Gateway, Scripted, Setup, found, nobody, png, within};

const GENERATIONS: &str = "/v1/images/generations";
const EDITS: &str = "/v1/images/edits";

/// A gateway whose upstream draws a sword where the seed of the request says so: picture `i` if `swords` holds `i`.
async fn gateway(swords: &'static [u32], setup: Setup) -> Gateway {
    let upstream = Scripted::new(move |order, index| draw(order, index, swords));
    Gateway::start(Setup { upstream: Some(upstream), ..setup }).await
}

fn draw(order: &Order, index: u32, swords: &[u32]) -> Drawn {
    let member = order.first + index;
    let shown: &[usize] = if swords.contains(&member) { &[2] } else { &[3] };
    // A file with the prompt in it, as a server would send it.
    Drawn::Bytes(png(&picture(shown, member as u8)))
}

async fn post(gateway: &Gateway, path: &str, body: Value) -> Response {
    gateway.client().post(format!("{}{path}", gateway.url)).json(&body).send().await.unwrap()
}

async fn told(response: Response) -> (StatusCode, Value) {
    (response.status(), response.json().await.unwrap())
}

fn pixels(text: &Value) -> RgbImage {
    let bytes = BASE64_STANDARD.decode(text.as_str().unwrap()).unwrap();
    assert!(!bytes.windows(6).any(|window| window == b"secret"), "the upstream's text came along");
    image::load_from_memory(&bytes).unwrap().into_rgb8()
}

#[tokio::test]
async fn a_released_picture_comes_in_the_answer_with_its_decision() {
    let gateway = gateway(&[], Setup::default()).await;
    let response = post(&gateway, GENERATIONS, json!({ "prompt": "a person", "size": "64x64" })).await;
    let decision = response.headers()["x-cluegate-decision"].to_str().unwrap().to_owned();
    let (status, body) = told(response).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    assert_eq!(pixels(&body["data"][0]["b64_json"]), *picture(&[3], 0).pixels());
    let report = &body["data"][0]["cluegate"];
    assert_eq!((&report["outcome"], &report["reason"]), (&json!("released"), &json!("safe")));
    assert_eq!(decision, format!("{};outcome=released;reason=safe", report["decision_id"].as_str().unwrap()));
    assert_eq!((&body["output_format"], &body["size"]), (&json!("png"), &json!("64x64")));
    assert_eq!(body["background"], "opaque");
    assert!(body["created"].as_i64().unwrap() > 1_700_000_000);
}

#[tokio::test]
async fn one_bad_picture_of_a_batch_costs_only_that_picture() {
    for (head, stands_in) in [("", true), ("placeholder = \"none\"", false)] {
        let gateway = gateway(&[1], Setup { head, ..Setup::default() }).await;
        let (status, body) = told(post(&gateway, GENERATIONS, json!({ "prompt": "p", "n": 3 })).await).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        let data = body["data"].as_array().unwrap();
        assert_eq!(data.len(), 3);
        for index in [0, 2] {
            assert_eq!(pixels(&data[index]["b64_json"]), *picture(&[3], index as u8).pixels());
        }
        let report = &data[1]["cluegate"];
        assert_eq!((&report["outcome"], &report["reason"]), (&json!("withheld"), &json!("violation")));
        assert_eq!((report.get("evidence"), report.get("violated")), (None, None));
        match stands_in {
            true => assert_eq!(violated(&pixels(&data[1]["b64_json"])), [""; 0]),
            false => assert_eq!(data[1]["b64_json"], Value::Null),
        }
    }
}

#[tokio::test]
async fn a_request_whose_every_picture_was_withheld_is_moderation_blocked() {
    let setup = Setup { tables: "[tenant.t.client]\nevidence = true", ..Setup::default() };
    let gateway = gateway(&[0, 1], setup).await;
    let (status, body) = told(post(&gateway, GENERATIONS, json!({ "prompt": "p", "n": 2 })).await).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let error = &body["error"];
    assert_eq!(
        (&error["type"], &error["code"], &error["param"]),
        (&json!("image_generation_user_error"), &json!("moderation_blocked"), &Value::Null)
    );
    assert!(error["message"].as_str().unwrap().starts_with("all 2 pictures were withheld"), "{error}");
    assert_eq!(error["cluegate"].as_array().unwrap().len(), 2);
    assert_eq!(error["cluegate"][1]["violated"], json!(["sword"]));
}

#[tokio::test]
async fn failures_have_codes_of_their_own_and_are_never_called_blocked() {
    let world = |faults: &[Fault]| Some(World::new(faults.to_vec()));
    for (faults, n) in [(&[Fault::Error][..], 1), (&[Fault::None, Fault::Error], 2), (&[Fault::Panic; 2], 2)]
    {
        let gateway = gateway(&[0], Setup { world: world(faults), ..Setup::default() }).await;
        let (status, body) = told(post(&gateway, GENERATIONS, json!({ "prompt": "p", "n": n })).await).await;
        assert_eq!(
            (status, &body["error"]["code"]),
            (StatusCode::SERVICE_UNAVAILABLE, &json!("judge_failed"))
        );
        assert_eq!(body["error"]["type"], "server_error");
        assert_eq!(body["error"]["cluegate"].as_array().unwrap().len(), n);
    }
    for (drawn, words) in [("nothing", "fewer pictures"), ("failed", "it is tired")] {
        let upstream = Scripted::new(move |_, _| match drawn {
            "nothing" => Drawn::Nothing,
            _ => Drawn::Failed("it is tired"),
        });
        let gateway = Gateway::start(Setup { upstream: Some(upstream), ..Setup::default() }).await;
        let (status, body) = told(post(&gateway, GENERATIONS, json!({ "prompt": "p" })).await).await;
        assert_eq!((status, &body["error"]["code"]), (StatusCode::BAD_GATEWAY, &json!("upstream_failed")));
        assert_eq!(gateway.log.records().len(), 1);
        assert!(gateway.log.records()[0].message.contains(words), "{}", gateway.log.records()[0].message);
    }
}

#[tokio::test]
async fn the_gate_writes_the_format_that_is_asked_for() {
    let gateway = gateway(&[], Setup::default()).await;
    for (words, starts) in [
        (json!({ "prompt": "p", "output_format": "jpeg", "output_compression": 50 }), &b"\xff\xd8\xff"[..]),
        (json!({ "prompt": "p", "output_format": "webp" }), b"RIFF"),
        (json!({ "prompt": "p", "output_format": "png", "background": "opaque" }), b"\x89PNG"),
    ] {
        let (status, body) = told(post(&gateway, GENERATIONS, words.clone()).await).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        let bytes = BASE64_STANDARD.decode(body["data"][0]["b64_json"].as_str().unwrap()).unwrap();
        assert!(bytes.starts_with(starts), "{words}");
        assert_eq!(body["output_format"], words["output_format"]);
    }
}

#[tokio::test]
async fn a_released_file_states_where_it_comes_from_if_the_policy_says_so() {
    let gateway = gateway(&[1], Setup { head: "provenance = \"text\"", ..Setup::default() }).await;
    for format in ["png", "jpeg", "webp"] {
        let asked = json!({ "prompt": "p", "n": 2, "output_format": format });
        let (status, body) = told(post(&gateway, GENERATIONS, asked).await).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        let files: Vec<Vec<u8>> = [0, 1]
            .map(|index| BASE64_STANDARD.decode(body["data"][index]["b64_json"].as_str().unwrap()).unwrap())
            .into();
        let id = body["data"][0]["cluegate"]["decision_id"].as_str().unwrap();
        let states =
            |file: &[u8], words: &str| file.windows(words.len()).any(|seen| seen == words.as_bytes());
        let stated = format!("; decision={id}");
        assert_eq!(states(&files[0], &stated), format != "webp", "{format}");
        // What stands in for the other was released by nobody.
        assert!(!states(&files[1], "decision="), "{format}");
        let seen = image::load_from_memory(&files[0]).unwrap().into_rgb8();
        assert_eq!(seen.dimensions(), (64, 64));
        assert!(format == "jpeg" || seen == *picture(&[3], 0).pixels());
    }
}

#[tokio::test]
async fn an_address_leads_the_same_tenant_to_the_released_file_and_nobody_else() {
    let gateway = gateway(&[1], Setup::default()).await;
    let body = json!({ "prompt": "p", "n": 2, "response_format": "url", "output_format": "webp" });
    let (status, body) = told(post(&gateway, GENERATIONS, body).await).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let entry = &body["data"][0];
    let url = entry["url"].as_str().unwrap();
    let name = format!("{}.webp", entry["cluegate"]["decision_id"].as_str().unwrap());
    assert_eq!(url, format!("{}/v1/images/files/{name}", gateway.url));
    assert_eq!(entry["b64_json"], Value::Null);
    let file = gateway.client().get(url).send().await.unwrap();
    assert_eq!(
        (file.status(), &file.headers()["content-type"]),
        (StatusCode::OK, &"image/webp".parse().unwrap())
    );
    let bytes = file.bytes().await.unwrap();
    assert_eq!(image::load_from_memory(&bytes).unwrap().into_rgb8(), *picture(&[3], 0).pixels());
    // What stands in for the other.
    let stand_in = gateway.client().get(body["data"][1]["url"].as_str().unwrap()).send().await.unwrap();
    let stand_in = image::load_from_memory(&stand_in.bytes().await.unwrap()).unwrap().into_rgb8();
    assert!(!shows(&stand_in, 2));
    for (client, expected) in
        [(gateway.other_client(), StatusCode::NOT_FOUND), (nobody(), StatusCode::UNAUTHORIZED)]
    {
        assert_eq!(client.get(url).send().await.unwrap().status(), expected);
    }
    let elsewhere = url.replace(&name, "..%2fkeys.toml");
    assert_eq!(gateway.client().get(elsewhere).send().await.unwrap().status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn what_cannot_be_done_is_refused_by_name() {
    let gateway = gateway(&[], Setup::default()).await;
    for (name, value) in [
        ("prompt", json!("")),
        ("n", json!(0)),
        ("n", json!(11)),
        ("n", json!("two")),
        ("n", json!(1.5)),
        ("size", json!("large")),
        ("size", json!("0x64")),
        ("size", json!("+64x64")),
        ("background", json!("transparent")),
        ("output_format", json!("gif")),
        ("output_compression", json!(101)),
        ("output_compression", json!(50)),
        ("partial_images", json!(2)),
        ("response_format", json!("file")),
        ("quality", json!("best")),
        ("moderation", json!("none")),
        ("frame_count", json!(4)),
        ("svg", json!({ "model": "m" })),
        ("input_fidelity", json!("high")),
        ("seed", json!(7)),
        ("negative_prompt", json!("swords")),
        ("model", json!(["a"])),
        ("stream", json!("yes")),
    ] {
        let mut body = json!({ "prompt": "p" });
        body[name] = value.clone();
        let (status, body) = told(post(&gateway, GENERATIONS, body).await).await;
        let error = &body["error"];
        assert_eq!((status, &error["param"]), (StatusCode::BAD_REQUEST, &json!(name)), "{value}: {error}");
        assert_eq!(error["type"], "invalid_request_error");
    }
    let streamed = json!({ "prompt": "p", "stream": true, "response_format": "url" });
    let (status, body) = told(post(&gateway, GENERATIONS, streamed).await).await;
    assert_eq!((status, &body["error"]["param"]), (StatusCode::BAD_REQUEST, &json!("response_format")));
    assert_eq!(gateway.log.records().len(), 0);
    // What says only that all is to be as usual is no parameter.
    let usual = json!({
        "prompt": "p", "n": null, "size": "auto", "quality": "auto", "background": "auto", "moderation": "auto",
        "stream": false, "partial_images": 0, "user": "u", "output_compression": 100,
    });
    let (status, body) = told(post(&gateway, GENERATIONS, usual).await).await;
    assert_eq!((status, &body["safety_identifier"]), (StatusCode::OK, &json!("u")), "{body}");
}

#[tokio::test]
async fn bodies_of_another_kind_are_refused_in_the_dialect() {
    let setup = Setup { config_tables: "[limits]\nbody_bytes = 4000".to_owned(), ..Setup::default() };
    let gateway = gateway(&[], setup).await;
    let post = |path: &str| gateway.client().post(format!("{}{path}", gateway.url));
    let typed =
        |path: &str, kind: &str, body: &'static str| post(path).header("content-type", kind).body(body);
    let long = json!({ "prompt": "x".repeat(5000) });
    for (request, status, code) in [
        (typed(GENERATIONS, "application/json", "{\"prompt\": "), StatusCode::BAD_REQUEST, "bad_request"),
        (typed(GENERATIONS, "application/json", "[1]"), StatusCode::BAD_REQUEST, "bad_request"),
        (
            typed(GENERATIONS, "text/plain", "{}"),
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported_media_type",
        ),
        (post(GENERATIONS).json(&long), StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
        (post(EDITS).json(&json!({})), StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type"),
        (
            post(EDITS).multipart(Form::new().part("image", Part::bytes(vec![0; 5000]))),
            StatusCode::PAYLOAD_TOO_LARGE,
            "too_large",
        ),
        (post("/v1/images/variations").json(&json!({})), StatusCode::BAD_REQUEST, "not_expressible"),
        (
            gateway.client().get(format!("{}{GENERATIONS}", gateway.url)),
            StatusCode::METHOD_NOT_ALLOWED,
            "method_not_allowed",
        ),
        (nobody().post(format!("{}{EDITS}", gateway.url)), StatusCode::UNAUTHORIZED, "invalid_api_key"),
    ] {
        let (got, body) = told(request.send().await.unwrap()).await;
        assert_eq!((got, &body["error"]["code"]), (status, &json!(code)), "{body}");
        assert!(body["error"].as_object().unwrap().contains_key("param"));
    }
}

/// A request to edit pictures, with a mask that is transparent in its left half.
fn edit(gateway: &Gateway, form: Form) -> RequestBuilder {
    gateway.client().post(format!("{}{EDITS}", gateway.url)).multipart(form)
}

fn half_transparent() -> Vec<u8> {
    let mask = image::RgbaImage::from_fn(4, 4, |x, _| image::Rgba([9, 9, 9, if x < 2 { 0 } else { 255 }]));
    let mut bytes = std::io::Cursor::new(Vec::new());
    mask.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    bytes.into_inner()
}

#[tokio::test]
async fn pictures_to_edit_reach_the_upstream_with_a_mask_that_is_white_where_they_may_change() {
    let upstream = Scripted::new(|order, index| draw(order, index, &[]));
    let setup = Setup { upstream: Some(upstream.clone()), ..Setup::default() };
    let gateway = Gateway::start(setup).await;
    let (first, second) = (png(&picture(&[0], 1)), png(&picture(&[1], 2)));
    let file = |bytes: &[u8]| Part::bytes(bytes.to_vec()).file_name("a.png");
    let form = Form::new()
        .part("image[]", file(&first))
        .part("image[]", file(&second))
        .part("mask", file(&half_transparent()))
        .text("prompt", "a hat")
        .text("n", "2")
        .text("size", "64x64");
    let (status, body) = told(edit(&gateway, form).send().await.unwrap()).await;
    assert_eq!((status, body["data"].as_array().unwrap().len()), (StatusCode::OK, 2));
    let orders = upstream.orders.lock().unwrap();
    let request = &orders[0].request;
    assert_eq!((request.prompt.as_str(), request.count, request.size), ("a hat", 2, Some((64, 64))));
    let source = request.source.as_ref().unwrap();
    assert_eq!(source.pictures, [first, second]);
    let mask = image::load_from_memory(source.mask.as_ref().unwrap()).unwrap().into_luma8();
    assert_eq!((mask.get_pixel(0, 0).0, mask.get_pixel(3, 0).0), ([255], [0]));
}

#[tokio::test]
async fn what_is_no_picture_to_edit_is_refused_by_name() {
    let setup = Setup { config_tables: "[pictures]\nmax_pixels = 10000".to_owned(), ..Setup::default() };
    let gateway = gateway(&[], setup).await;
    let file = |bytes: Vec<u8>| Part::bytes(bytes).file_name("a.png");
    let good = || png(&picture(&[3], 0));
    let mut bomb = Vec::new();
    let encoder = png::Encoder::new(&mut bomb, 60_000, 60_000);
    // Only the head: nothing may be decoded before it is refused.
    drop(encoder.write_header().unwrap());
    let with = |form: Form| form.text("prompt", "p");
    for (form, name) in [
        (Form::new().text("prompt", "p"), "image"),
        (with(Form::new().part("image", file(b"no picture".to_vec()))), "image"),
        (with(Form::new().part("image", file(bomb))), "image"),
        (with(Form::new().part("image", file(good())).part("mask", file(good()))), "mask"),
        (
            with(
                Form::new()
                    .part("image", file(good()))
                    .part("mask", file(half_transparent()))
                    .part("mask", file(half_transparent())),
            ),
            "mask",
        ),
        (with(Form::new().part("image", file(good())).text("prompt", "q")), "prompt"),
        (with(Form::new().part("image", file(good())).text("n", "many")), "n"),
        (with(Form::new().part("image", file(good())).text("style", "vivid")), "style"),
        (with(Form::new().part("image", file(good())).part("markup", file(good()))), "markup"),
        (with((0..17).fold(Form::new(), |form, _| form.part("image[]", file(good())))), "image"),
    ] {
        let (status, body) = told(edit(&gateway, form).send().await.unwrap()).await;
        assert_eq!((status, &body["error"]["param"]), (StatusCode::BAD_REQUEST, &json!(name)), "{body}");
    }
    assert_eq!(gateway.log.records().len(), 0);
}

/// The events of a stream: name and data.
async fn events(response: Response) -> Vec<(String, Value)> {
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let text = response.text().await.unwrap();
    let events = text.split("\n\n").filter(|event| event.contains("data:")).map(|event| {
        let line =
            |name: &str| event.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
        (line("event:"), serde_json::from_str(&line("data:")).unwrap())
    });
    events.collect()
}

#[tokio::test]
async fn a_stream_tells_each_picture_and_a_withheld_one_among_others() {
    let gateway = gateway(&[0], Setup::default()).await;
    let body = json!({ "prompt": "p", "n": 3, "stream": true, "quality": "auto", "safety_identifier": "s" });
    let mut events = events(post(&gateway, GENERATIONS, body).await).await;
    assert_eq!(events.len(), 3);
    events.sort_by_key(|(_, data)| data["cluegate"]["member"].as_u64());
    for (member, (name, data)) in events.iter().enumerate() {
        assert_eq!((name.as_str(), &data["type"]), ("image_generation.completed", &json!(name)));
        let expected = if member == 0 { "withheld" } else { "released" };
        assert_eq!(data["cluegate"]["outcome"], expected);
        assert_eq!(violated(&pixels(&data["b64_json"])), [""; 0]);
        assert_eq!((&data["output_format"], &data["size"]), (&json!("png"), &json!("64x64")));
        assert_eq!((&data["quality"], &data["safety_identifier"]), (&json!("auto"), &json!("s")));
        assert_eq!(data["usage"]["total_tokens"], 0);
    }
    assert_eq!(pixels(&events[1].1["b64_json"]), *picture(&[3], 1).pixels());
}

#[tokio::test]
async fn a_stream_of_which_nothing_is_released_ends_with_an_error() {
    let gateway = gateway(&[0, 1], Setup::default()).await;
    let blocked = json!({ "prompt": "p", "n": 2, "stream": true });
    let told = events(post(&gateway, GENERATIONS, blocked).await).await;
    assert_eq!(told.len(), 1);
    let (name, data) = &told[0];
    assert_eq!((name.as_str(), &data["error"]["code"]), ("error", &json!("moderation_blocked")));
    assert_eq!(data["error"]["cluegate"].as_array().unwrap().len(), 2);
    let world = Some(World::new([Fault::Error]));
    let gateway = self::gateway(&[], Setup { world, ..Setup::default() }).await;
    let told = events(post(&gateway, GENERATIONS, json!({ "prompt": "p", "stream": true })).await).await;
    assert_eq!((told.len(), &told[0].1["error"]["code"]), (1, &json!("judge_failed")));
}

#[tokio::test]
async fn a_client_that_leaves_a_stream_stops_the_upstream() {
    // The second call of the upstream hangs.
    let upstream =
        Scripted::new(|order, index| if order.first > 0 { Drawn::Hangs } else { draw(order, index, &[]) });
    let setup = Setup { upstream: Some(upstream.clone()), ..Setup::default() };
    let gateway = Gateway::start(setup).await;
    let body = json!({ "prompt": "p", "n": 5, "stream": true }).to_string();
    let host = gateway.url.trim_start_matches("http://");
    let head = format!(
        "POST {GENERATIONS} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n",
        gateway.key.reveal(),
        body.len()
    );
    let mut socket = tokio::net::TcpStream::connect(host).await.unwrap();
    socket.write_all((head + &body).as_bytes()).await.unwrap();
    let mut told = Vec::new();
    while !told.windows(9).any(|window| window == b"completed") {
        assert!(socket.read_buf(&mut told).await.unwrap() > 0);
    }
    // The first call's outcomes are told before the second begins.
    let second = found(|| upstream.orders.lock().unwrap().get(1).map(|order| order.cancel.clone())).await;
    drop(socket);
    within(second.cancelled()).await;
}

#[tokio::test]
async fn models_are_listed() {
    let config = "[upstream]\nkind = \"a1111\"\nurl = \"http://127.0.0.1:1\"\nmodel = \"sd.safetensors\"";
    let gateway = gateway(&[], Setup { config_tables: config.to_owned(), ..Setup::default() }).await;
    let url = format!("{}/v1/models", gateway.url);
    let (status, body) = told(gateway.client().get(url).send().await.unwrap()).await;
    assert_eq!((status, &body["object"]), (StatusCode::OK, &json!("list")));
    assert_eq!(
        (&body["data"][0]["id"], &body["data"][0]["object"]),
        (&json!("sd.safetensors"), &json!("model"))
    );
}

#[tokio::test]
async fn addresses_begin_as_the_configuration_says() {
    let upstream = Scripted::new(|_, index| Drawn::Picture(picture(&[3], index as u8)));
    let config_head = "public_url = \"https://pictures.example.com/gate/\"\n".to_owned();
    let gateway = Gateway::start(Setup { config_head, upstream: Some(upstream), ..Setup::default() }).await;
    let asked = gateway.client().post(format!("{}/v1/images/generations", gateway.url));
    let asked = asked.json(&json!({ "prompt": "a shop", "response_format": "url" })).send().await.unwrap();
    let answer: Value = asked.json().await.unwrap();
    let address = answer["data"][0]["url"].as_str().unwrap();
    let path = address.strip_prefix("https://pictures.example.com/gate/v1/images/files/").unwrap();
    let file = gateway.client().get(format!("{}/v1/images/files/{path}", gateway.url)).send().await.unwrap();
    assert_eq!(file.status(), 200);
}

#[tokio::test]
async fn a_model_is_shown_by_its_name() {
    let upstream = Scripted::new(|_, _| Drawn::Nothing);
    let config_tables =
        "[upstream]\nkind = \"a1111\"\nurl = \"http://127.0.0.1:1\"\nmodel = \"org/fine\"\n".to_owned();
    let gateway = Gateway::start(Setup { config_tables, upstream: Some(upstream), ..Setup::default() }).await;
    let get = |path: &str| gateway.client().get(format!("{}/v1/models{path}", gateway.url)).send();
    let list: Value = get("").await.unwrap().json().await.unwrap();
    for path in ["/org/fine", "/org%2Ffine"] {
        let model: Value = get(path).await.unwrap().json().await.unwrap();
        assert_eq!((&model, &model["id"]), (&list["data"][0], &json!("org/fine")));
    }
    let unknown = get("/another").await.unwrap();
    assert_eq!(unknown.status(), 404);
    assert_eq!(unknown.json::<Value>().await.unwrap()["error"]["code"], "not_found");
}
