//! What a client may cost, and what is no request at all: over raw sockets where a client of good manners would not do.

use std::sync::Arc;
use std::time::Duration;

use cluegate_gate::fakes::picture;
use reqwest::StatusCode;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Drawn, Gateway, Scripted, Setup, found, logged, nobody, within};

const ROUTE: &str = "/v1/images/generations";

async fn start(limits: &str) -> Gateway {
    let upstream = Scripted::new(|_, index| Drawn::Picture(picture(&[3], index as u8)));
    let config_tables = format!("[limits]\n{limits}\n");
    Gateway::start(Setup { config_tables, upstream: Some(upstream), ..Setup::default() }).await
}

fn statuses(answers: &str) -> Vec<&str> {
    answers.split("HTTP/1.1 ").skip(1).map(|rest| &rest[..3]).collect()
}

/// Whether the other side closes the connection.
async fn is_closed(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    let _ = within(stream.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn connections_are_bounded_and_free_again() {
    let gateway = start("connections = 2").await;
    let first = TcpStream::connect(gateway.address).await.unwrap();
    let second = TcpStream::connect(gateway.address).await.unwrap();
    let mut third = TcpStream::connect(gateway.address).await.unwrap();
    third.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    logged("all connections are taken").await;
    drop(first);
    assert_eq!(statuses(&is_closed(&mut third).await), ["200"]);
    drop(second);
}

#[tokio::test]
async fn a_client_that_sends_a_byte_at_a_time_is_cut_off() {
    let gateway = start("head_timeout_ms = 300").await;
    let (mut read, mut write) = TcpStream::connect(gateway.address).await.unwrap().into_split();
    let drip = tokio::spawn(async move {
        let _ = write.write_all(b"GET /healthz HTTP/1.1\r\nx-slow: ").await;
        while write.write_all(b"a").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    let mut answer = Vec::new();
    let _ = within(read.read_to_end(&mut answer)).await;
    within(drip).await.unwrap();
    assert!(!String::from_utf8_lossy(&answer).contains("200"));
    assert!(logged("the head of a request took too long").await.contains("WARN"));
    // A connection on which nothing comes is no better.
    let mut idle = TcpStream::connect(gateway.address).await.unwrap();
    assert_eq!(is_closed(&mut idle).await, "");
}

#[tokio::test]
async fn a_body_that_takes_too_long_is_refused() {
    let gateway = start("body_timeout_ms = 300").await;
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    let head = format!(
        "POST {ROUTE} HTTP/1.1\r\nhost: x\r\nx-request-id: slow-body\r\nauthorization: Bearer {}\r\n\
         content-type: application/json\r\ncontent-length: 1000\r\n\r\n{{\"prompt\": ",
        gateway.key.reveal()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    assert_eq!(statuses(&is_closed(&mut stream).await), ["408"]);
    let line = logged("slow-body").await;
    assert!(line.contains("WARN") && line.contains("request_timeout"), "{line}");
    assert!(!line.contains(gateway.key.reveal()));
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused_before_it_is_sent() {
    let gateway = start("body_bytes = 1000").await;
    let head = |framing: &str| {
        let key = gateway.key.reveal();
        format!("POST {ROUTE} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n{framing}\r\n\r\n")
    };
    let announced = head("content-type: application/json\r\ncontent-length: 1001\r\nexpect: 100-continue");
    assert_eq!(statuses(&gateway.raw(announced.as_bytes()).await), ["413"]);
    let mut chunked = head("content-type: application/json\r\ntransfer-encoding: chunked").into_bytes();
    for _ in 0..3 {
        chunked.extend_from_slice(format!("200\r\n{}\r\n", "a".repeat(0x200)).as_bytes());
    }
    assert_eq!(statuses(&gateway.raw(&chunked).await), ["413"]);
    let form = reqwest::multipart::Form::new().text("prompt", "a shop").text("user", "u".repeat(2000));
    let edit = gateway.client().post(format!("{}/v1/images/edits", gateway.url)).multipart(form).send();
    assert_eq!(edit.await.unwrap().status(), StatusCode::PAYLOAD_TOO_LARGE);
    let small =
        gateway.client().post(format!("{}{ROUTE}", gateway.url)).json(&json!({ "prompt": "a shop" })).send();
    assert_eq!(small.await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn the_bodies_of_all_requests_share_their_room() {
    let gateway = start("bodies_bytes = 1000\nretry_after_s = 7").await;
    let send = |length: usize| {
        let body = json!({ "prompt": "a".repeat(length) });
        gateway.client().post(format!("{}{ROUTE}", gateway.url)).json(&body).send()
    };
    let refused = send(2000).await.unwrap();
    assert_eq!(
        (refused.status(), &refused.headers()["retry-after"]),
        (StatusCode::TOO_MANY_REQUESTS, &"7".parse().unwrap())
    );
    for _ in 0..3 {
        assert_eq!(send(800).await.unwrap().status(), StatusCode::OK);
    }
}

#[tokio::test]
async fn heads_are_bounded() {
    let gateway = start("").await;
    let many: String = (0..101).map(|i| format!("x-{i}: 1\r\n")).collect();
    let long = format!("x-long: {}\r\n", "a".repeat(70 << 10));
    for headers in [many, long] {
        let answer =
            gateway.raw(format!("GET /healthz HTTP/1.1\r\nhost: x\r\n{headers}\r\n").as_bytes()).await;
        assert_eq!(statuses(&answer), ["431"]);
    }
    let path = "a".repeat(66 << 10);
    let answer = gateway.raw(format!("GET /{path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await;
    assert!(matches!(statuses(&answer)[..], ["414" | "431"]), "{answer}");
}

#[tokio::test]
async fn no_request_hides_in_another() {
    let gateway = start("").await;
    let hidden = "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n";
    let post = |framing: &str, body: &str| {
        let key = gateway.key.reveal();
        format!(
            "POST {ROUTE} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\ncontent-type: application/json\r\n\
             {framing}\r\n\r\n{body}"
        )
    };
    let chunked = format!("0\r\n\r\n{hidden}");
    for (what, bytes) in [
        ("both lengths", post("content-length: 6\r\ntransfer-encoding: chunked", &chunked)),
        ("both lengths turned", post("transfer-encoding: chunked\r\ncontent-length: 6", &chunked)),
        ("two lengths", post("content-length: 2\r\ncontent-length: 50", &format!("{{}}{hidden}"))),
        ("a list of lengths", post("content-length: 2, 50", &format!("{{}}{hidden}"))),
        ("a signed length", post("content-length: +2", &format!("{{}}{hidden}"))),
        ("an odd coding", post("transfer-encoding: xchunked", &chunked)),
        ("a coding after chunked", post("transfer-encoding: chunked, identity", &chunked)),
        ("a space before the colon", post("transfer-encoding : chunked", &chunked)),
        ("a folded header", post("transfer-encoding:\r\n chunked", &chunked)),
        ("a folded value", post("x-a: b\r\n c", hidden)),
        ("a bare line feed in a value", post("x-a: b\rc", hidden)),
        ("NUL in a value", post("x-a: b\0c", hidden)),
        ("a chunk of no length", post("transfer-encoding: chunked", &format!("-1\r\n\r\n{hidden}"))),
        (
            "a chunk too long for a number",
            post("transfer-encoding: chunked", &format!("fffffffffffffffff\r\n{hidden}")),
        ),
    ] {
        let answers = gateway.raw(bytes.as_bytes()).await;
        assert_eq!(statuses(&answers), ["400"], "{what}: {answers}");
    }
    assert!(logged("a malformed request was refused").await.contains("WARN"));
    let old = "POST /healthz HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n";
    assert_eq!(statuses(&gateway.raw(old.as_bytes()).await), ["400"]);
}

#[tokio::test]
async fn a_path_is_what_it_says() {
    let gateway = start("").await;
    for target in [
        "//healthz",
        "/healthz/",
        "/healthz/../healthz",
        "/x/%2e%2e/healthz",
        "/%68ealthz",
        "/healthz%00",
        "/healthz%2f",
        "/healthz;x",
        "/.//healthz",
        "/sdapi//v1/txt2img",
        "/v1/images/generations/..%2f..%2fhealthz",
        "/file=/etc/passwd",
    ] {
        let answer = gateway
            .raw(format!("GET {target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes())
            .await;
        assert_eq!(statuses(&answer), ["404"], "{target}: {answer}");
        assert!(!answer.contains("passwd"), "{answer}");
    }
    // The form that proxies get is answered for its path, here, and fetches nothing from anywhere.
    let absolute = "GET http://elsewhere.invalid/healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let answer = gateway.raw(absolute.as_bytes()).await;
    assert!(statuses(&answer) == ["200"] && answer.ends_with("ok"), "{answer}");
    for (request, status) in [
        ("CONNECT elsewhere.invalid:443 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", "404"),
        ("OPTIONS * HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", "404"),
        ("TRACE /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", "405"),
        ("GET /a\0b HTTP/1.1\r\nhost: x\r\n\r\n", "400"),
        ("GET /a b HTTP/1.1\r\nhost: x\r\n\r\n", "400"),
        ("GET /healthz HTTP/3.0\r\nhost: x\r\n\r\n", "400"),
        ("\x16\x03\x01 this is TLS\r\n\r\n", "400"),
    ] {
        let answer = gateway.raw(request.as_bytes()).await;
        assert_eq!(statuses(&answer), [status], "{request:?}: {answer}");
    }
    let preface = gateway.raw(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await;
    assert!(!preface.contains("200"), "{preface}");
}

#[tokio::test]
async fn a_full_queue_asks_to_come_back() {
    let upstream = Scripted::new(|_, _| Drawn::Hangs);
    let orders = Arc::clone(&upstream);
    let config_tables = "[limits]\nin_work = 1\nqueue = 0\nretry_after_s = 9\n".to_owned();
    let gateway = Gateway::start(Setup { config_tables, upstream: Some(upstream), ..Setup::default() }).await;
    let ask = |id: &'static str| {
        let asked = gateway.client().post(format!("{}{ROUTE}", gateway.url)).header("x-request-id", id);
        asked.json(&json!({ "prompt": "a shop" })).send()
    };
    let first = tokio::spawn(ask("queue-1"));
    let order = found(|| orders.orders.lock().unwrap().first().cloned()).await;
    let refused = ask("queue-2").await.unwrap();
    assert_eq!(
        (refused.status(), &refused.headers()["retry-after"]),
        (StatusCode::TOO_MANY_REQUESTS, &"9".parse().unwrap())
    );
    let line = logged("queue-2").await;
    assert!(line.contains("WARN") && line.contains("status=429"), "{line}");
    first.abort();
    within(order.cancel.cancelled()).await;
}

#[tokio::test]
async fn wrong_keys_have_to_wait_and_the_right_one_does_not() {
    let gateway = start("wrong_keys = 3").await;
    let ask = |key: &str, body: String| {
        let asked = nobody().post(format!("{}{ROUTE}", gateway.url));
        asked.header("x-api-key", key).header("x-request-id", "guess").body(body).send()
    };
    let _ = gateway.client();
    for _ in 0..3 {
        // The refusal can be read, though the body was sent in vain.
        assert_eq!(ask("cg_a-guess", "x".repeat(1 << 20)).await.unwrap().status(), StatusCode::UNAUTHORIZED);
    }
    let throttled = ask("cg_a-guess", String::new()).await.unwrap();
    assert_eq!(throttled.status(), StatusCode::TOO_MANY_REQUESTS);
    assert!(throttled.headers().contains_key("retry-after"));
    let right =
        gateway.client().post(format!("{}{ROUTE}", gateway.url)).json(&json!({ "prompt": "a shop" })).send();
    assert_eq!(right.await.unwrap().status(), StatusCode::OK);
    let lines = logged("too_many_wrong_keys").await + &logged("invalid_api_key").await;
    assert!(lines.contains("WARN") && !lines.contains("cg_a-guess"), "{lines}");
    let none = reqwest::Client::new().post(format!("{}{ROUTE}", gateway.url)).send();
    assert_eq!(none.await.unwrap().status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_cut_off() {
    let gateway = start("send_timeout_ms = 300\nhead_timeout_ms = 60000").await;
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    let requests = "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n".repeat(1000);
    // The answers fill both sides' buffers; then the gateway must not wait for ever, and nor must this.
    let broke = within(async {
        loop {
            if let Err(error) = stream.write_all(requests.as_bytes()).await {
                break error;
            }
        }
    });
    broke.await;
}

#[tokio::test]
async fn a_body_that_is_small_as_text_and_large_in_memory_is_refused() {
    let gateway = start("").await;
    let ask = |path: &str, body: String| {
        let asked = gateway.client().post(format!("{}{path}", gateway.url));
        asked.header("content-type", "application/json").body(body).send()
    };
    let bomb = format!("{{\"prompt\": [{}0]}}", "{\"\":0},".repeat(150_000));
    for path in [ROUTE, "/sdapi/v1/txt2img", "/sdcpp/v1/img_gen", "/prompt", "/v1/moderations"] {
        let refused = ask(path, bomb.clone()).await.unwrap();
        assert_eq!(refused.status(), StatusCode::PAYLOAD_TOO_LARGE, "{path}");
        assert!(refused.text().await.unwrap().contains("JSON values"), "{path}");
    }
    // Values take room, too.
    let tight = start("bodies_bytes = 1000000").await;
    let asked =
        tight.client().post(format!("{}{ROUTE}", tight.url)).header("content-type", "application/json");
    let many = asked.body(format!("{{\"prompt\": [{}0]}}", "0,".repeat(10_000))).send().await.unwrap();
    assert_eq!(many.status(), StatusCode::TOO_MANY_REQUESTS);
}

/// A PNG file of one grey channel that claims this side.
fn claims(side: u32) -> String {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, side, side);
    encoder.set_color(png::ColorType::Grayscale);
    let mut writer = encoder.write_header().unwrap();
    // The begin of the data, which a reader of the head looks for.
    writer.write_chunk(png::chunk::IDAT, &[0x78, 1]).unwrap();
    drop(writer);
    base64::Engine::encode(&base64::prelude::BASE64_STANDARD, bytes)
}

#[tokio::test]
async fn no_bomb_goes_on_to_the_upstream() {
    let upstream = Scripted::new(|_, index| Drawn::Picture(picture(&[3], index as u8)));
    let orders = Arc::clone(&upstream);
    let gateway = Gateway::start(Setup { upstream: Some(upstream), ..Setup::default() }).await;
    let (bomb, plain) = (claims(60_000), claims(64));
    for (path, body) in [
        ("/sdapi/v1/img2img", json!({ "prompt": "a shop", "init_images": [bomb] })),
        ("/sdapi/v1/img2img", json!({ "prompt": "a shop", "init_images": [plain], "mask": bomb })),
        ("/sdcpp/v1/img_gen", json!({ "prompt": "a shop", "init_image": bomb })),
        ("/sdcpp/v1/img_gen", json!({ "prompt": "a shop", "ref_images": [plain, bomb] })),
        ("/sdcpp/v1/img_gen", json!({ "prompt": "a shop", "control_image": bomb })),
    ] {
        let sent = gateway.client().post(format!("{}{path}", gateway.url)).json(&body).send().await.unwrap();
        assert_eq!(sent.status(), StatusCode::PAYLOAD_TOO_LARGE, "{path}: {}", sent.text().await.unwrap());
    }
    assert!(orders.orders.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_job_keeps_the_room_of_its_body_until_it_has_ended() {
    let upstream = Scripted::new(|_, _| Drawn::Hangs);
    let orders = Arc::clone(&upstream);
    let config_tables = "[limits]\nbodies_bytes = 10000\n".to_owned();
    let gateway = Gateway::start(Setup { config_tables, upstream: Some(upstream), ..Setup::default() }).await;
    let (client, prompt) = (gateway.client(), "a".repeat(6000));
    let submit =
        || client.post(format!("{}/sdcpp/v1/img_gen", gateway.url)).json(&json!({ "prompt": prompt })).send();
    let first: serde_json::Value = submit().await.unwrap().json().await.unwrap();
    found(|| (orders.orders.lock().unwrap().len() == 1).then_some(())).await;
    assert_eq!(submit().await.unwrap().status(), StatusCode::TOO_MANY_REQUESTS);
    let cancel = format!("{}{}/cancel", gateway.url, first["poll_url"].as_str().unwrap());
    assert_eq!(client.post(cancel).send().await.unwrap().status(), StatusCode::OK);
    within(async {
        while submit().await.unwrap().status() != StatusCode::ACCEPTED {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn one_tenants_burst_keeps_no_other_out() {
    let upstream = Scripted::new(|order, index| match order.request.prompt.as_str() {
        "hangs" => Drawn::Hangs,
        _ => Drawn::Picture(picture(&[3], index as u8)),
    });
    let orders = Arc::clone(&upstream);
    let config_tables = "[limits]\nin_work = 1\nqueue = 2\n".to_owned();
    let gateway = Gateway::start(Setup { config_tables, upstream: Some(upstream), ..Setup::default() }).await;
    let (burst, quiet) = (gateway.client(), gateway.other_client());
    let submit = |prompt: &str| {
        burst.post(format!("{}/sdcpp/v1/img_gen", gateway.url)).json(&json!({ "prompt": prompt })).send()
    };
    let first: serde_json::Value = submit("hangs").await.unwrap().json().await.unwrap();
    found(|| (orders.orders.lock().unwrap().len() == 1).then_some(())).await;
    for _ in 0..2 {
        assert_eq!(submit("hangs").await.unwrap().status(), StatusCode::ACCEPTED);
    }
    assert_eq!(submit("hangs").await.unwrap().status(), StatusCode::TOO_MANY_REQUESTS);
    let url = format!("{}{ROUTE}", gateway.url);
    let asked = tokio::spawn(quiet.post(url).json(&json!({ "prompt": "a shop" })).send());
    // The burst's newest gives way; the first place goes to the other tenant, though the burst came before.
    let line = found(|| {
        let lines = crate::support::log_lines();
        lines.into_iter().find(|line| line.contains("gave way"))
    });
    line.await;
    let cancel = format!("{}{}/cancel", gateway.url, first["poll_url"].as_str().unwrap());
    assert_eq!(burst.post(cancel).send().await.unwrap().status(), StatusCode::OK);
    assert_eq!(within(asked).await.unwrap().unwrap().status(), StatusCode::OK);
}
