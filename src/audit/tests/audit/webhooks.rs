//! Webhooks against a real server on loopback that fails in every way.

use std::collections::HashSet;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use base64::Engine as _;
use cluegate_audit::{Entry, LogSettings, WebhookSettings};
use ring::hmac;
use serde_json::{Value, json};

use crate::support::{append, open, record, runtime, settings};

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the server does with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Accept,
    Fail(u16),
    /// Reads the request and closes the connection.
    Die,
    /// Answers after the client has given up.
    Hang,
}

/// A request as it came.
#[derive(Debug)]
struct Got {
    headers: Vec<(String, String)>,
    body: String,
    answer: Answer,
}

impl Got {
    fn header(&self, name: &str) -> &str {
        &self.headers.iter().find(|(found, _)| found == name).unwrap().1
    }

    fn entries(&self) -> Vec<Entry> {
        serde_json::from_str(&self.body).unwrap()
    }
}

fn read_request(stream: &TcpStream) -> Option<(Vec<(String, String)>, String)> {
    let mut reader = BufReader::new(stream);
    let mut headers = Vec::new();
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|count| *count > 0)?;
    loop {
        line.clear();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.push((name.to_ascii_lowercase(), value.to_owned()));
    }
    let length = headers.iter().find(|(name, _)| name == "content-length")?.1.parse().ok()?;
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((headers, String::from_utf8(body).ok()?))
}

/// A server that answers by `script`, given the body and how many requests came before. One request a connection.
fn serve(script: impl Fn(&str, usize) -> Answer + Send + 'static) -> (String, Receiver<Got>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/decisions", listener.local_addr().unwrap());
    let (sender, receiver): (Sender<Got>, _) = channel();
    std::thread::spawn(move || {
        for (count, stream) in listener.incoming().enumerate() {
            let mut stream = stream.unwrap();
            let Some((headers, body)) = read_request(&stream) else { continue };
            let answer = script(&body, count);
            match answer {
                Answer::Accept => {
                    drop(stream.write_all(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n"))
                }
                Answer::Fail(status) => {
                    let text =
                        format!("HTTP/1.1 {status} No\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
                    drop(stream.write_all(text.as_bytes()));
                }
                Answer::Die => {}
                Answer::Hang => {
                    // Held open until the client closes it.
                    let mut rest = Vec::new();
                    drop(stream.read_to_end(&mut rest));
                }
            }
            if sender.send(Got { headers, body, answer }).is_err() {
                break;
            }
        }
    });
    (url, receiver)
}

fn with_webhook(folder: &std::path::Path, url: &str, change: Value) -> LogSettings {
    let key = folder.join("hook.key");
    std::fs::write(&key, format!("new:{}\nold:{}\n", "0b".repeat(32), "0a".repeat(32))).unwrap();
    let mut webhook = json!({ "url": url, "key_file": key, "folder": folder.join("webhook"), "timeout_ms": 500,
                              "backoff_ms": 20, "batch": 5 });
    webhook.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
    let webhook: WebhookSettings = serde_json::from_value(webhook).unwrap();
    LogSettings { webhook: Some(webhook), ..settings(folder) }
}

/// Numbers of the accepted entries, in the order in which they came, until `last` has come.
fn accepted_until(receiver: &Receiver<Got>, last: u64) -> Vec<u64> {
    let mut seqs = Vec::new();
    while seqs.last() != Some(&last) {
        let got = receiver.recv_timeout(PATIENCE).unwrap();
        if got.answer == Answer::Accept {
            seqs.extend(got.entries().iter().map(|entry| entry.chain.seq));
        }
    }
    seqs
}

#[test]
fn batches_are_signed_hold_nothing_to_erase_and_verify() {
    let folder = tempfile::tempdir().unwrap();
    let (url, receiver) = serve(|_, _| Answer::Accept);
    let runtime = runtime();
    let settings = with_webhook(folder.path(), &url, json!({}));
    let log = open(&runtime, &settings, None);
    append(&log, &record("kids", 1)).unwrap();
    let got = receiver.recv_timeout(PATIENCE).unwrap();
    drop(log);
    let (id, time) = (got.header("webhook-id"), got.header("webhook-timestamp"));
    assert_eq!(id, "gate-1:1-1");
    let signed = format!("{id}.{time}.{}", got.body);
    let signatures: Vec<&str> = got.header("webhook-signature").split(' ').collect();
    assert_eq!(signatures.len(), 2);
    for (signature, byte) in signatures.iter().zip([0x0b, 0x0a]) {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &[byte; 32]);
        let expected = base64::engine::general_purpose::STANDARD.encode(hmac::sign(&key, signed.as_bytes()));
        assert_eq!(*signature, format!("v1,{expected}"));
    }
    let entry = &got.entries()[0];
    assert_eq!(entry.fault().unwrap(), None);
    assert!(
        !got.body.contains("secret") && !got.body.contains("Ada") && !got.body.contains("hmac-sha256:k1")
    );
    assert!(entry.erased.contains(&"/input/request/prompt".to_owned()));
    assert!(entry.salts.is_empty());
}

#[test]
fn a_receiver_that_fails_dies_and_hangs_gets_everything_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let answers =
        [Answer::Fail(500), Answer::Die, Answer::Accept, Answer::Hang, Answer::Fail(429), Answer::Accept];
    let (url, receiver) = serve(move |_, count| answers[count % answers.len()]);
    let runtime = runtime();
    let settings = with_webhook(folder.path(), &url, json!({ "attempts": 50 }));
    let log = open(&runtime, &settings, None);
    for number in 1..=12 {
        append(&log, &record("kids", number)).unwrap();
    }
    assert_eq!(accepted_until(&receiver, 12), (1..=12).collect::<Vec<_>>());
    drop(log);
    assert!(!folder.path().join("webhook/dead-letters.jsonl").exists());
}

#[test]
fn delivery_goes_on_after_a_restart_and_over_rotated_files() {
    let folder = tempfile::tempdir().unwrap();
    let (url, receiver) =
        serve(|body, _| if body.contains("request-4") { Answer::Fail(503) } else { Answer::Accept });
    let runtime = runtime();
    let path = folder.path().join("decisions.jsonl");
    let settings = with_webhook(folder.path(), &url, json!({ "batch": 1, "attempts": 1000 }));
    let log = open(&runtime, &settings, None);
    for number in 1..=4 {
        append(&log, &record("kids", number)).unwrap();
    }
    assert_eq!(accepted_until(&receiver, 3), [1, 2, 3]);
    std::fs::rename(&path, folder.path().join("decisions.jsonl.1")).unwrap();
    append(&log, &record("kids", 5)).unwrap();
    drop(log);
    let (url, receiver) = serve(|_, _| Answer::Accept);
    let settings = with_webhook(folder.path(), &url, json!({ "batch": 1 }));
    let log = open(&runtime, &settings, None);
    append(&log, &record("kids", 6)).unwrap();
    assert_eq!(accepted_until(&receiver, 6), [4, 5, 6]);
    drop(log);
}

#[test]
fn what_is_never_taken_goes_to_the_dead_letters_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (url, receiver) =
        serve(|body, _| if body.contains("request-7\"") { Answer::Fail(422) } else { Answer::Accept });
    let runtime = runtime();
    let settings = with_webhook(folder.path(), &url, json!({ "batch": 8 }));
    let log = open(&runtime, &settings, None);
    for number in 1..=10 {
        append(&log, &record("kids", number)).unwrap();
    }
    let accepted: HashSet<u64> = accepted_until(&receiver, 10).into_iter().collect();
    drop(log);
    assert_eq!(accepted, (1..=10).filter(|seq| *seq != 7).collect());
    let dead = std::fs::read_to_string(folder.path().join("webhook/dead-letters.jsonl")).unwrap();
    let dead: Vec<Value> = dead.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(dead.len(), 1);
    assert_eq!(dead[0]["entry"]["chain"]["seq"], 7);
    assert!(dead[0]["problem"].as_str().unwrap().contains("422"));
}

#[test]
fn erasures_are_told_too() {
    let folder = tempfile::tempdir().unwrap();
    let (url, receiver) = serve(|_, _| Answer::Accept);
    let runtime = runtime();
    let settings = with_webhook(folder.path(), &url, json!({ "erasable_parts": true }));
    let log = open(&runtime, &settings, None);
    append(&log, &record("kids", 1)).unwrap();
    let got = receiver.recv_timeout(PATIENCE).unwrap();
    assert!(got.body.contains("a secret prompt 1"));
    let places = crate::support::places(&runtime, &settings, None);
    let erasure =
        cluegate_audit::Erasure::Decision { tenant: "kids".into(), id: record("kids", 1).decision_id };
    assert_eq!(places.erase(&erasure).unwrap().entries, 1);
    let got = receiver.recv_timeout(PATIENCE).unwrap();
    let told = &got.entries()[0];
    assert_eq!(told.path, cluegate_audit::entry::ERASED);
    assert_eq!(told.input["entries"], json!({ "gate-1": [[1, 1]] }));
    drop(log);
}
