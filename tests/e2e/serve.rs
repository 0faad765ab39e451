//! `cluegate serve`, `keys` and `config`: the gateway as people start it, over the embedded suite.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::plugins::steps;
use crate::support::{Run, Scenes, command, finish, folder, run, write_suite};

/// Longest wait for anything, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(300);

/// A tenant who gets whatever is drawn, and one who wants no cats, however faint.
const POLICY: &str = "[tenant.open]\npreviews = []\naction.default = \"allow\"\n\
                      [tenant.strict]\nconstitution = \"no-cats.toml\"\npreviews = []\nplaceholder = \"none\"\n";
const NO_CATS: &str = include_str!("../support/no-cats.toml");

/// A folder with all that a gateway needs, and a key for each tenant.
pub(crate) struct Setup {
    pub(crate) folder: TempDir,
    pub(crate) open: String,
    pub(crate) strict: String,
}

impl Setup {
    pub(crate) fn new() -> Self {
        let folder = folder();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).expect("a file");
        write("policy.toml", POLICY);
        write("no-cats.toml", NO_CATS);
        write(
            "gate.toml",
            "listen = \"127.0.0.1:0\"\npolicy = \"policy.toml\"\n[keys]\nfile = \"keys.toml\"\n\
             [upstream]\nkind = \"builtin\"\n",
        );
        let [open, strict] =
            ["open", "strict"].map(|tenant| new_key(folder.path(), tenant, tenant).expect(0).stdout);
        Self { open: open.trim().to_owned(), strict: strict.trim().to_owned(), folder }
    }

    pub(crate) fn config(&self) -> std::path::PathBuf {
        self.folder.path().join("gate.toml")
    }

    pub(crate) fn log(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.folder.path().join("decisions.jsonl")).expect("a log");
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }
}

pub(crate) fn new_key(folder: &Path, tenant: &str, id: &str) -> Run {
    let mut command = command();
    command.args(["keys", "new", "--tenant", tenant, "--id", id, "--file"]).arg(folder.join("keys.toml"));
    finish(&mut command)
}

/// A gateway that runs; killed when it is dropped.
pub(crate) struct Gateway {
    pub(crate) child: Child,
    pub(crate) stderr: BufReader<ChildStderr>,
    pub(crate) url: String,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Gateway {
    pub(crate) fn start(setup: &Setup) -> Self {
        let mut command = command();
        Self::of(command.arg("serve").arg("--config").arg(setup.config()).stderr(Stdio::piped()))
    }

    /// The gateway that this command starts.
    pub(crate) fn of(command: &mut Command) -> Self {
        let mut child = command.spawn().expect("the binary runs");
        let mut stderr = BufReader::new(child.stderr.take().expect("a pipe"));
        let mut line = String::new();
        stderr.read_line(&mut line).expect("a line");
        let url = line.trim().strip_prefix("listening on ").unwrap_or_else(|| panic!("{line}")).to_owned();
        Self { child, stderr, url }
    }

    pub(crate) fn call(&self, method: &str, path: &str, key: &str, body: &Value) -> (u16, Value) {
        let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let url = format!("{}{path}", self.url);
        let bearer = format!("Bearer {key}");
        let answer = match method {
            "GET" => agent.get(&url).header("authorization", &bearer).call(),
            _ => agent.post(&url).header("authorization", &bearer).send(body.to_string()),
        };
        let mut answer = answer.expect("an answer");
        let text = answer.body_mut().read_to_string().expect("text");
        (answer.status().as_u16(), serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    fn submit(&self, key: &str, body: &Value) -> String {
        let (status, job) = self.call("POST", "/sdcpp/v1/img_gen", key, body);
        assert_eq!(status, 202, "{job}");
        job["poll_url"].as_str().expect("an address").to_owned()
    }

    /// Asks for a job until `until` is true of it.
    fn wait(&self, key: &str, path: &str, until: impl Fn(&Value) -> bool) -> Value {
        let begin = Instant::now();
        loop {
            let (status, job) = self.call("GET", path, key, &Value::Null);
            assert_eq!(status, 200, "{job}");
            if until(&job) {
                return job;
            }
            assert!(begin.elapsed() < PATIENCE, "{job:#}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Tells it to end, as a service manager does, and returns its exit code and last words.
    pub(crate) fn stop(mut self) -> (i32, Vec<String>) {
        let told = Command::new("sh").args(["-c", &format!("kill -TERM {}", self.child.id())]).status();
        assert!(told.expect("a shell").success());
        // It closes its standard error when it ends.
        let words = std::io::BufRead::lines(&mut self.stderr).map(|line| line.expect("text")).collect();
        (self.child.wait().expect("an end").code().expect("a code"), words)
    }
}

#[test]
fn a_picture_is_released_to_one_tenant_and_withheld_from_another() {
    let setup = Setup::new();
    let gateway = Gateway::start(&setup);
    assert_eq!(gateway.call("GET", "/healthz", "", &Value::Null).0, 200);
    assert_eq!(gateway.call("GET", "/readyz", "", &Value::Null).0, 200);
    let cat =
        json!({"prompt": "a cat", "seed": 5, "sample_params": {"sample_steps": 20, "sample_method": "ddim"}});
    assert_eq!(gateway.call("POST", "/sdcpp/v1/img_gen", "cg_wrong", &cat).0, 401);

    let path = gateway.submit(&setup.open, &cat);
    let job = gateway.wait(&setup.open, &path, |job| !job["completed"].is_null());
    assert_eq!(job["status"], "completed", "{job:#}");
    let picture = job["result"]["images"][0]["b64_json"].as_str().expect("a picture");
    let picture = base64::Engine::decode(&base64::prelude::BASE64_STANDARD, picture).expect("base64");
    let picture = image::load_from_memory_with_format(&picture, image::ImageFormat::Png).expect("a PNG");
    assert!(
        picture.width() > 0
            && picture.to_rgb8().pixels().any(|pixel| pixel != picture.to_rgb8().get_pixel(0, 0))
    );
    // The other tenant's key does not lead to it.
    assert_eq!(gateway.call("GET", &path, &setup.strict, &Value::Null).0, 404);

    let path = gateway.submit(&setup.strict, &cat);
    let job = gateway.wait(&setup.strict, &path, |job| !job["completed"].is_null());
    assert_eq!((&job["status"], &job["result"]), (&"failed".into(), &Value::Null), "{job:#}");
    assert_eq!(job["error"]["code"], "moderation_blocked");

    // What the generator cannot do is said before anything is drawn.
    let odd = json!({"prompt": "a cat", "width": 130, "height": 130});
    let (status, refused) = gateway.call("POST", "/sdcpp/v1/img_gen", &setup.open, &odd);
    assert_eq!((status, &refused["error"]), (400, &"not_expressible".into()), "{refused}");

    let (code, _) = gateway.stop();
    assert_eq!(code, 0);
    let log = setup.log();
    let told: Vec<_> = log
        .iter()
        .map(|entry| (entry["labels"]["tenant"].as_str(), entry["result"]["outcome"].as_str()))
        .collect();
    assert_eq!(told, [(Some("open"), Some("released")), (Some("strict"), Some("withheld"))]);
    let generator = |entry: &Value| entry["input"]["models"]["generator"].as_str().map(str::len);
    assert!(log.iter().all(|entry| generator(entry).is_some_and(|length| length >= 16)));
    let keys: Vec<_> = log.iter().map(|entry| entry["requested_by"].as_str()).collect();
    assert_eq!(keys, [Some("open"), Some("strict")]);
}

#[test]
fn what_violates_a_rule_is_drawn_anew_by_the_upstream() {
    let setup = Setup::new();
    let policy = "[tenant.open]\n[tenant.strict]\nconstitution = \"no-cats.toml\"\n\
                  action.default = \"redact\"\nredact.method = \"inpaint\"\n";
    fs::write(setup.folder.path().join("policy.toml"), policy).expect("a file");
    let gateway = Gateway::start(&setup);
    let sample = json!({"sample_steps": 20, "sample_method": "ddim"});
    let cat = json!({"prompt": "a cat beside a tree", "seed": 5, "batch_count": 2, "sample_params": sample});
    let path = gateway.submit(&setup.strict, &cat);
    let job = gateway.wait(&setup.strict, &path, |job| !job["completed"].is_null());
    assert_eq!(gateway.stop().0, 0);
    let log = setup.log();
    assert_eq!(log.len(), 2, "{log:#?}");
    let painted = |entry: &&Value| entry.to_string().contains("\"method\":\"inpaint\"");
    assert!(log.iter().any(|entry| painted(&entry)), "{log:#?}");
    // Whatever was drawn there, only what passes the whole constitution is released.
    let released = log.iter().filter(|entry| entry["result"]["outcome"] == "released").count();
    assert_eq!(job["result"]["images"].as_array().map_or(0, Vec::len), released, "{job:#}");
}

#[test]
fn what_is_in_work_ends_before_the_server_does() {
    let setup = Setup::new();
    let gateway = Gateway::start(&setup);
    let many = json!({"prompt": "a cat", "batch_count": 3, "sample_params": {"sample_steps": 20}});
    let path = gateway.submit(&setup.open, &many);
    gateway.wait(&setup.open, &path, |job| job["status"] == "generating");
    let url = gateway.url.clone();
    let (code, words) = gateway.stop();
    assert_eq!(code, 0);
    assert_eq!(words, ["stopping: requests in work may end, no further one is taken", "stopped"]);
    let log = setup.log();
    assert_eq!(log.len(), 3, "{log:#?}");
    assert!(log.iter().all(|entry| entry["result"]["outcome"] == "released"), "{log:#?}");
    assert!(ureq::get(format!("{url}/healthz")).call().is_err(), "it still answers");
}

#[test]
fn check_opens_everything_and_listens_on_nothing() {
    let setup = Setup::new();
    let check = run(["serve".as_ref(), "--check".as_ref(), "--config".as_ref(), setup.config().as_os_str()])
        .expect(0);
    assert!(check.stdout.starts_with("ok: would listen on 127.0.0.1:0; drawn by "), "{}", check.stdout);
    assert!(check.stdout.trim_end().ends_with("; tenants open, strict"), "{}", check.stdout);
    assert!(!setup.folder.path().join("decisions.jsonl").exists());
    let parsed = run(["config".as_ref(), "check".as_ref(), setup.config().as_os_str()]).expect(0);
    assert!(parsed.stdout.ends_with("gate.toml: ok\n"), "{}", parsed.stdout);
}

#[test]
fn what_is_wrong_with_a_configuration_is_said_with_what_would_be_right() {
    let setup = Setup::new();
    let root = setup.folder.path();
    let write = |name: &str, text: &str| fs::write(root.join(name), text).expect("a file");
    write("broken-policy.toml", "[tenant.open]\ntrise = 2\n");
    write(
        "secret-keys.toml",
        "[[key]]\nid = \"a\"\ntenant = \"open\"\nhash = \"cg_a-key-in-place-of-its-hash\"\n",
    );
    write(
        "foreign-keys.toml",
        &fs::read_to_string(root.join("keys.toml"))
            .expect("keys")
            .replace("tenant = \"open\"", "tenant = \"opne\""),
    );
    write_suite(&root.join("judges"), false);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").port().to_string();
    let good = "policy = \"policy.toml\"\n[keys]\nfile = \"keys.toml\"\n";
    let cases = [
        ("not TOML", "listen = 127.0.0.1\n".to_owned()),
        ("an unknown key", format!("lisen = \"127.0.0.1:0\"\n{good}")),
        ("an unknown table", format!("{good}[limit]\nqueue = 3\n")),
        ("nobody may ask", "policy = \"policy.toml\"\n".to_owned()),
        ("no address", format!("listen = \"localhost\"\n{good}")),
        ("an address that is taken", format!("listen = \"127.0.0.1:{port}\"\n{good}")),
        ("an unknown front", format!("fronts = [\"a1111\", \"dalle\"]\n{good}")),
        ("an unknown upstream", format!("{good}[upstream]\nkind = \"forge\"\n")),
        ("an upstream without an address", format!("{good}[upstream]\nkind = \"sdcpp\"\n")),
        ("a limit of nothing", format!("{good}[limits]\nin_work = 0\n")),
        ("no key file", "policy = \"policy.toml\"\n[keys]\nfile = \"nowhere.toml\"\n".to_owned()),
        (
            "a key in the key file",
            "policy = \"policy.toml\"\n[keys]\nfile = \"secret-keys.toml\"\n".to_owned(),
        ),
        ("a key of nobody", "policy = \"policy.toml\"\n[keys]\nfile = \"foreign-keys.toml\"\n".to_owned()),
        ("an anonymous nobody", "policy = \"policy.toml\"\n[keys]\nanonymous = \"guests\"\n".to_owned()),
        ("no policy", "policy = \"nowhere.toml\"\n[keys]\nfile = \"keys.toml\"\n".to_owned()),
        ("a broken policy", "policy = \"broken-policy.toml\"\n[keys]\nfile = \"keys.toml\"\n".to_owned()),
        (
            "models without a generator",
            format!("models = \"judges\"\n{good}[upstream]\nkind = \"builtin\"\n"),
        ),
    ];
    let mut told = String::new();
    for (name, text) in cases {
        write("gate.toml", &text);
        let ended = run(["serve".as_ref(), "--config".as_ref(), setup.config().as_os_str()]).expect(2);
        assert_eq!(ended.stdout, "", "{name}");
        let words = ended.stderr.replace(root.to_str().expect("a name"), "ROOT").replace(&port, "PORT");
        told.push_str(&format!("# {name}\n{words}\n"));
    }
    let missing = run(["serve", "--config", "no-such-gate.toml"]).expect(2);
    told.push_str(&format!("# no configuration\n{}", missing.stderr));
    insta::assert_snapshot!("serve-bad-config", told);
}

#[test]
fn a_key_is_shown_once_and_its_hash_is_kept() {
    let root = folder();
    let (first, second) =
        (new_key(root.path(), "kids", "a").expect(0), new_key(root.path(), "kids", "b").expect(0));
    let file = root.path().join("keys.toml");
    let text = fs::read_to_string(&file).expect("a file");
    for key in [&first.stdout, &second.stdout] {
        assert!(key.starts_with("cg_") && key.trim().len() > 40 && !text.contains(key.trim()), "{text}");
    }
    assert_eq!(text.matches("[[key]]").count(), 2);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(fs::metadata(&file).expect("a file").permissions().mode() & 0o777, 0o600);
    }
    // An id that is there, a file that is no key file, another command at work: refused, and the file is as it was.
    let again = new_key(root.path(), "kids", "a").expect(2);
    assert!(again.stderr.contains("two keys with the id \"a\""), "{}", again.stderr);
    fs::write(root.path().join("keys.toml.part"), "").expect("a file");
    let busy = new_key(root.path(), "kids", "c").expect(2);
    assert!(busy.stderr.contains("another command is changing the file"), "{}", busy.stderr);
    assert!(root.path().join("keys.toml.part").exists());
    assert_eq!(fs::read_to_string(&file).expect("a file"), text);
    // Without a file, the key and its entry.
    let printed = run(["keys", "new", "--tenant", "kids", "--id", "tablet"]).expect(0).stdout;
    assert!(
        printed.contains("# cg_")
            && printed.contains("[[key]]\nid = \"tablet\"\ntenant = \"kids\"\nhash = \"sha256:"),
        "{printed}"
    );
    run(["keys", "new", "--tenant", "", "--id", "x"]).expect(2);
}

#[test]
fn every_default_is_printed_and_so_is_the_schema() {
    let shown = run(["config", "show"]).expect(0).stdout;
    for word in ["listen = \"127.0.0.1:7800\"", "in_work = 16", "#kind = \"a1111\"", "drain_ms = 60000"] {
        assert!(shown.contains(word), "{word}: {shown}");
    }
    let root = folder();
    let file = root.path().join("gate.toml");
    fs::write(&file, shown.replace("#anonymous", "anonymous")).expect("a file");
    run(["config".as_ref(), "check".as_ref(), file.as_os_str()]).expect(0);
    let schema = run(["config", "schema"]).expect(0).json();
    assert_eq!(schema["title"], "cluegate gateway");
}

#[test]
fn the_page_on_sessions_can_be_followed_literally() {
    let setup = Setup::new();
    let scenes = Scenes::new();
    scenes.save(&scenes.pair("cat", "tree", false), setup.folder.path(), "cat.png");
    let gateway = Gateway::start(&setup);
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/gateway-sessions.md");
    let steps = steps(&fs::read_to_string(page).expect("the page"));
    let [(None, lines)] = steps.as_slice() else { panic!("{steps:?}") };
    assert_eq!(lines.matches("localhost:7800").count(), 2);
    let lines = lines.replace("localhost:7800", &gateway.url);
    for (key, instruction, reason) in
        [(&setup.open, "release", "safe"), (&setup.strict, "withhold", "violation")]
    {
        let mut shell = Command::new("sh");
        shell
            .args(["-e", "-c", &lines])
            .current_dir(setup.folder.path())
            .env("KEY", key)
            .env("NO_PROXY", "*");
        let said = finish(&mut shell).expect(0).stdout;
        let told: Vec<Value> =
            serde_json::Deserializer::from_str(&said).into_iter().map(|value| value.expect("JSON")).collect();
        let [decided, closed] = told.as_slice() else { panic!("{said}") };
        assert_eq!(decided["instruction"], instruction, "{said}");
        assert_eq!(decided.get("image").is_some(), instruction == "release", "{said}");
        let reasons: Vec<&Value> =
            closed["outcomes"].as_array().expect("outcomes").iter().map(|one| &one["reason"]).collect();
        // The second of the two was never drawn.
        assert_eq!(reasons, [reason, "not-finished"], "{said}");
    }
}
