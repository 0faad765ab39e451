//! Bad days of a gateway: policies that cannot be used, keys that end, a store that is gone, a disk that is full.

use std::fs;
use std::io::BufRead as _;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use crate::serve::{Gateway, Setup};
use crate::support::{Scenes, command, folder, run};

fn hang_up(gateway: &Gateway) {
    let told = Command::new("sh").args(["-c", &format!("kill -HUP {}", gateway.child.id())]).status();
    assert!(told.expect("a shell").success());
}

/// What the gateway says next.
fn line(gateway: &mut Gateway) -> String {
    let mut line = String::new();
    gateway.stderr.read_line(&mut line).expect("a line");
    line
}

/// The first line with this word.
fn line_with(gateway: &mut Gateway, word: &str) -> String {
    loop {
        let line = line(gateway);
        assert!(!line.is_empty(), "the gateway ended before it said {word:?}");
        if line.contains(word) {
            return line;
        }
    }
}

fn picture() -> Value {
    let scenes = Scenes::new();
    let root = folder();
    let path = scenes.save(&scenes.pair("cat", "tree", false), root.path(), "picture.png");
    let bytes = fs::read(path).expect("a file");
    json!({ "image": base64::Engine::encode(&base64::prelude::BASE64_STANDARD, bytes) })
}

fn judge(gateway: &Gateway, key: &str, body: &Value) -> (u16, Value) {
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let asked = agent.post(format!("{}/v1/judge", gateway.url)).header("x-api-key", key);
    let mut answer = asked.content_type("application/json").send(body.to_string()).expect("an answer");
    let text = answer.body_mut().read_to_string().expect("text");
    (answer.status().as_u16(), serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

#[test]
fn a_reload_under_load_drops_nothing_and_a_refused_one_changes_nothing() {
    let setup = Setup::new();
    let root = setup.folder.path();
    // Nobody looks but who is told to.
    let text = fs::read_to_string(setup.config()).expect("a file");
    fs::write(setup.config(), format!("{text}[reload]\npoll_ms = 0\n")).expect("a file");
    let mut gateway = Gateway::start(&setup);
    let (body, over) = (picture(), AtomicBool::new(false));
    let policy = fs::read_to_string(root.join("policy.toml")).expect("a file");
    let url = gateway.url.clone();
    let answers: Vec<(u16, Value)> = std::thread::scope(|scope| {
        let load: Vec<_> = (0..3)
            .map(|_| {
                let (url, key, body, over) = (url.clone(), &setup.open, &body, &over);
                scope.spawn(move || {
                    let agent: ureq::Agent =
                        ureq::Agent::config_builder().http_status_as_error(false).build().into();
                    let mut answers = Vec::new();
                    while !over.load(Ordering::Relaxed) {
                        let asked = agent.post(format!("{url}/v1/judge")).header("x-api-key", key);
                        let mut answer =
                            asked.content_type("application/json").send(body.to_string()).expect("an answer");
                        let text = answer.body_mut().read_to_string().expect("text");
                        answers.push((answer.status().as_u16(), Value::String(text)));
                    }
                    answers
                })
            })
            .collect();
        fs::write(root.join("policy.toml"), format!("{policy}[tenant.more]\ntrise = 1\n")).expect("a file");
        hang_up(&gateway);
        let refused = line_with(&mut gateway, "not reloaded");
        assert!(
            refused.contains("what is in use stays") && refused.contains("did you mean `tries`?"),
            "{refused}"
        );
        fs::write(root.join("policy.toml"), format!("{policy}[tenant.more]\ntries = 1\n")).expect("a file");
        let key = crate::serve::new_key(root, "more", "more").expect(0).stdout.trim().to_owned();
        assert_eq!(judge(&gateway, &key, &body).0, 401, "nobody told it yet");
        for _ in 0..5 {
            hang_up(&gateway);
            assert_eq!(line_with(&mut gateway, "reloaded"), "reloaded\n");
        }
        assert_eq!(judge(&gateway, &key, &body).0, 200);
        over.store(true, Ordering::Relaxed);
        load.into_iter().flat_map(|load| load.join().expect("an end")).collect()
    });
    assert!(answers.len() >= 3 && answers.iter().all(|(status, _)| *status == 200), "{answers:#?}");
    assert_eq!(gateway.stop().0, 0);
}

#[test]
fn a_key_ends_when_its_time_is_over() {
    let setup = Setup::new();
    let mut arguments =
        vec!["keys", "new", "--tenant", "open", "--id", "brief", "--expires", "20s", "--file"];
    let file = setup.folder.path().join("keys.toml");
    arguments.push(file.to_str().expect("a name"));
    let gateway = Gateway::start(&setup);
    let key = run(arguments).expect(0).stdout.trim().to_owned();
    // It is read when the file is looked at again, and then it holds, until it does not.
    let (mut held, mut told) = (false, String::new());
    for _ in 0..3000 {
        let (status, body) = gateway.call("GET", "/v1/models", &key, &Value::Null);
        held |= status == 200;
        told = body.to_string();
        if told.contains("this API key expired at") {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    assert!(held && told.contains("this API key expired at"), "{told}");
}

#[test]
fn a_gateway_without_its_store_does_not_start() {
    let setup = Setup::new();
    for (url, says) in [
        ("postgres://gate:secret@127.0.0.1:1/gate", "127.0.0.1:1"),
        ("sqlite:nowhere/gate.db", "nowhere"),
        ("mysql://127.0.0.1/gate", "sqlite:"),
    ] {
        let text = format!("listen = \"127.0.0.1:0\"\n[store]\nurl = \"{url}\"\n");
        fs::write(setup.config(), text).expect("a file");
        let ended = run(["serve".as_ref(), "--config".as_ref(), setup.config().as_os_str()]).expect(2);
        assert!(ended.stderr.contains(says) && !ended.stderr.contains("secret"), "{}", ended.stderr);
    }
    let both = "policy = \"policy.toml\"\n[store]\nurl = \"sqlite:gate.db\"\n";
    fs::write(setup.config(), both).expect("a file");
    let ended = run(["serve".as_ref(), "--config".as_ref(), setup.config().as_os_str()]).expect(2);
    assert!(ended.stderr.contains("cluegate tenants import"), "{}", ended.stderr);
}

/// Files may not grow beyond some kilobytes, as on a full disk.
#[cfg(unix)]
#[test]
fn a_full_disk_withholds() {
    let setup = Setup::new();
    let binary = command();
    let mut shell = Command::new("sh");
    shell.envs(binary.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let line = format!(
        "trap '' XFSZ; ulimit -f 24; exec '{}' serve --config '{}'",
        env!("CARGO_BIN_EXE_cluegate"),
        setup.config().display()
    );
    let gateway = Gateway::of(shell.args(["-c", &line]).stderr(Stdio::piped()));
    let body = picture();
    let mut last = (0, Value::Null);
    for _ in 0..200 {
        last = judge(&gateway, &setup.open, &body);
        if last.0 != 200 {
            break;
        }
    }
    assert_eq!((last.0, &last.1["error"]), (500, &json!("internal_error")), "{last:#?}");
    // Nothing was released that is not in the log.
    assert!(!setup.log().is_empty());
}
