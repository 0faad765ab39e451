//! The plugin behind a gateway that runs: a picture that is released, a preview that is seen, a drawing that a preview ends,
//! and a libtorch that is not there. `check` runs these, with the gateway's program in `CLUEGATE`.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::panic, unsafe_code, dead_code)]

mod support;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base64::Engine as _;
use serde_json::{Value, json};
use support::{difference, generator, golden, read_png};

/// A tenant who sees previews, all of which are judged: early ones are still noise, which the judge takes for anything, so that
/// one that violates a rule must not end the drawing. And a tenant for whom it must.
const POLICY: &str = r#"
[tenant.open]
constitution = "scene"
previews = [0.75]
action.default = "allow"
client.previews = true

[tenant.strict]
constitution = "scene"
rules = ["armed"]
previews = [0.75]
action.default = "block"
"#;

/// What the built-in generator draws an armed man from.
const ARMED: (&str, u64) = ("a man holding a knife on a street", 8);

fn cluegate() -> Command {
    let program = std::env::var_os("CLUEGATE").unwrap_or_else(|| {
        panic!(
            "CLUEGATE is not set: run plugins/torch-diffusers/check, which names the gateway's program in it"
        )
    });
    let mut command = Command::new(program);
    for variable in
        ["CLUEGATE_MODELS", "CLUEGATE_STORE", "CLUEGATE_PLUGIN_PATH", "LD_LIBRARY_PATH", "RUST_LOG"]
    {
        command.env_remove(variable);
    }
    command.stdin(Stdio::null());
    command
}

/// Runs a command to its end; its exit code, and what it said on both streams.
fn finish(command: &mut Command) -> (Option<i32>, String, String) {
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// Folder of the library as cargo leaves it for users.
fn built() -> PathBuf {
    support::library().parent().unwrap().parent().unwrap().to_path_buf()
}

/// A folder with all that a gateway needs.
struct Setup {
    folder: tempfile::TempDir,
    open: String,
    strict: String,
}

impl Setup {
    /// As README.md shows it, with the library of `libraries`; `more` stands in the plugin's table.
    fn new(libraries: &Path, more: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (code, listed, said) =
            finish(cluegate().args(["plugins", "list", "--format", "json", "--path"]).arg(libraries));
        assert_eq!(code, Some(0), "{said}");
        let listed: Value = serde_json::from_str(&listed).unwrap();
        let is_ours =
            |one: &&Value| one["path"].as_str().unwrap().ends_with("/libcluegate_torch_diffusers.so");
        let sha256 = &listed.as_array().unwrap().iter().find(is_ours).unwrap()["sha256"];
        let config = format!(
            "listen = \"127.0.0.1:0\"\npolicy = \"policy.toml\"\n[keys]\nfile = \"keys.toml\"\n\
             [log]\nfile = \"decisions.jsonl\"\n[upstream]\nkind = \"builtin\"\n\
             [plugins]\npath = [{libraries:?}]\nallow = [{sha256}]\npipeline = \"torch\"\n\
             [[plugins.use]]\nname = \"torch\"\nlibrary = \"cluegate-torch-diffusers\"\ndeadline_ms = 120000\n\
             config = {{ model = {:?}, steps = 12, guidance = 5 }}\n{more}",
            generator()
        );
        std::fs::write(folder.path().join("gate.toml"), config).unwrap();
        std::fs::write(folder.path().join("policy.toml"), POLICY).unwrap();
        let key = |tenant: &str| {
            let keys = folder.path().join("keys.toml");
            let (code, key, said) = finish(
                cluegate().args(["keys", "new", "--tenant", tenant, "--id", tenant, "--file"]).arg(keys),
            );
            assert_eq!(code, Some(0), "{said}");
            key.trim().to_owned()
        };
        Self { open: key("open"), strict: key("strict"), folder }
    }

    fn config(&self) -> PathBuf {
        self.folder.path().join("gate.toml")
    }

    /// The decision log, one decision a line.
    fn decisions(&self) -> Vec<Value> {
        let log = std::fs::read_to_string(self.folder.path().join("decisions.jsonl")).unwrap();
        let decisions = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        decisions.filter(|entry| entry.get("decision_id").is_some()).collect()
    }
}

/// A gateway that runs; ended when it is dropped.
struct Gateway {
    child: Child,
    address: String,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Gateway {
    fn start(setup: &Setup) -> Self {
        let mut command = cluegate();
        command.args(["serve", "--config"]).arg(setup.config()).stderr(Stdio::piped());
        let mut gateway = Self { child: command.spawn().unwrap(), address: String::new() };
        let mut words = Vec::new();
        for line in BufReader::new(gateway.child.stderr.take().unwrap()).lines() {
            let line = line.unwrap();
            if let Some(url) = line.strip_prefix("listening on http://") {
                gateway.address = url.trim().to_owned();
                return gateway;
            }
            words.push(line);
        }
        panic!("it ended: {words:#?}");
    }

    /// Asks in the web UI's words; status and answer.
    fn ask(&self, key: &str, method: &str, path: &str, body: &str) -> (u16, Value) {
        // Version 1.0: the answer ends with the connection.
        let request = format!(
            "{method} /sdapi/v1/{path} HTTP/1.0\r\nhost: {}\r\nauthorization: Bearer {key}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            self.address,
            body.len()
        );
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(300))).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), serde_json::from_str(body).unwrap())
    }

    /// Has one picture drawn; status, answer, and the previews that were shown meanwhile.
    fn draw(&self, key: &str, prompt: &str, seed: u64) -> (u16, Value, Vec<String>) {
        let is_over = AtomicBool::new(false);
        let body = json!({ "prompt": prompt, "seed": seed }).to_string();
        std::thread::scope(|scope| {
            let watching = scope.spawn(|| {
                let mut shown: Vec<String> = Vec::new();
                while !is_over.load(Ordering::Acquire) {
                    let (_, progress) = self.ask(key, "GET", "progress", "");
                    let preview = progress["current_image"].as_str().map(str::to_owned);
                    shown.extend(preview.filter(|preview| shown.last() != Some(preview)));
                    std::thread::sleep(Duration::from_millis(20));
                }
                shown
            });
            let (status, answer) = self.ask(key, "POST", "txt2img", &body);
            is_over.store(true, Ordering::Release);
            (status, answer, watching.join().unwrap())
        })
    }
}

fn decoded(picture: &str) -> cluegate_abi::PictureBuf {
    let bytes = base64::prelude::BASE64_STANDARD.decode(picture).unwrap();
    read_png(std::io::Cursor::new(bytes))
}

/// The picture is the one that the built-in generator draws, its previews lead there, and each has a decision.
#[test]
#[ignore = "run by check, which names the gateway's program in CLUEGATE"]
fn a_gateway_shows_a_preview_and_releases_the_picture() {
    for more in ["", "isolated = true\n"] {
        let setup = Setup::new(&built(), more);
        let gateway = Gateway::start(&setup);
        let (status, answer, shown) = gateway.draw(&setup.open, "a cat and a tree on the grass", 7);
        assert_eq!(status, 200, "{answer}");
        let info: Value = serde_json::from_str(answer["info"].as_str().unwrap()).unwrap();
        let told = &info["cluegate"]["pictures"][0];
        assert_eq!((&told["outcome"], &told["reason"]), (&json!("released"), &json!("safe")), "{told}");
        let picture = decoded(answer["images"][0].as_str().unwrap());
        let (largest, mean) = difference(&picture, &golden("cat-and-tree-7.png"));
        assert!(largest <= 1 && mean <= 0.01, "off by {largest} levels at most, {mean} in the mean");
        let (_, off) = difference(&decoded(shown.last().unwrap()), &picture);
        assert!(off < 20.0, "the last of {} previews is off by {off}", shown.len());
        let decisions = setup.decisions();
        let (decision, of_previews) = decisions.split_last().unwrap();
        assert_eq!(
            (&decision["decision_id"], &decision["result"]["reason"]),
            (&told["decision_id"], &json!("safe"))
        );
        assert!(!of_previews.is_empty(), "nothing is shown without a decision");
        for preview in of_previews {
            assert_eq!(
                (&preview["result"]["outcome"], &preview["result"]["reason"]),
                (&json!("released"), &json!("preview"))
            );
        }
        // As many steps as the plugin's configuration says.
        let attempt = &decision["input"]["attempts"][0];
        let judged = attempt["previews"].as_array().unwrap().iter().any(|preview| preview["step"] == 9);
        assert!(judged && attempt["steps"] == 12, "{attempt:#}");
    }
}

#[test]
#[ignore = "run by check, which names the gateway's program in CLUEGATE"]
fn a_preview_that_violates_a_rule_ends_the_drawing() {
    for more in ["", "isolated = true\n"] {
        let setup = Setup::new(&built(), more);
        let gateway = Gateway::start(&setup);
        let (status, answer, shown) = gateway.draw(&setup.strict, ARMED.0, ARMED.1);
        let decisions = setup.decisions();
        let [decision] = &decisions[..] else { panic!("one decision: {decisions:#?} {status} {answer}") };
        assert_eq!(
            (&decision["result"]["outcome"], &decision["result"]["reason"], &decision["result"]["violated"]),
            (&json!("withheld"), &json!("violation"), &json!(["armed"])),
            "{decision:#}"
        );
        let attempt = &decision["input"]["attempts"][0];
        let previews = attempt["previews"].as_array().unwrap();
        assert!(
            previews.len() == 1 && previews[0]["step"] == 9 && previews[0]["aborted"] == true,
            "{decision:#}"
        );
        // Three steps and the decoding of the picture were spared.
        assert_eq!((&attempt["steps"], attempt.get("picture")), (&json!(9), None), "{decision:#}");
        assert!(shown.is_empty(), "previews are not for this tenant");
        let info: Value = serde_json::from_str(answer["info"].as_str().unwrap()).unwrap();
        assert_eq!(
            (status, &info["cluegate"]["pictures"][0]["placeholder"]),
            (200, &json!(true)),
            "{answer}"
        );
    }
}

#[test]
#[ignore = "run by check, which names the gateway's program in CLUEGATE"]
fn a_libtorch_that_is_gone_is_named_with_what_to_do() {
    let libraries = tempfile::tempdir().unwrap();
    let copy = libraries.path().join("libcluegate_torch_diffusers.so");
    // The folder of libtorch in the library, as if it had moved.
    let mut bytes = std::fs::read(support::library()).unwrap();
    let folder = concat!(env!("LIBTORCH_LIB"), "/lib:$ORIGIN").as_bytes();
    let at = bytes.windows(folder.len()).position(|window| window == folder).unwrap();
    bytes[at + 1] = b'-';
    std::fs::write(&copy, bytes).unwrap();
    let setup = Setup::new(libraries.path(), "");
    let (_, rows, said) =
        finish(cluegate().args(["doctor", "--format", "json", "--config"]).arg(setup.config()));
    let rows: Value = serde_json::from_str(&rows).unwrap_or_else(|error| panic!("{error}: {rows} {said}"));
    let of_plugins = |row: &&Value| row["what"] == "plugins";
    let row = rows.as_array().unwrap().iter().find(of_plugins).unwrap();
    let (found, fix) = (row["found"].as_str().unwrap(), row["fix"].as_str().unwrap());
    assert!(row["ok"] == false && found.contains("libtorch_cpu.so") && found.contains("libc10.so"), "{row}");
    assert!(fix.contains("plugins/torch-diffusers/setup"), "{row}");
    // And nothing is served without it.
    let (code, _, said) = finish(cluegate().args(["serve", "--config"]).arg(setup.config()));
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("libtorch_cpu.so") && said.contains("plugins/torch-diffusers/setup"), "{said}");
    // Beside the library it is found again, as README.md says.
    let real = Path::new(env!("LIBTORCH_LIB")).join("lib");
    for entry in real.read_dir().unwrap() {
        let entry = entry.unwrap();
        std::os::unix::fs::symlink(entry.path(), libraries.path().join(entry.file_name())).unwrap();
    }
    let (_, rows, _) =
        finish(cluegate().args(["doctor", "--format", "json", "--config"]).arg(setup.config()));
    let rows: Value = serde_json::from_str(&rows).unwrap();
    assert_eq!(rows.as_array().unwrap().iter().find(of_plugins).unwrap()["ok"], true);
}
