//! A gateway before a server of OpenAI's Images API that draws scenes of the embedded world.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, ChildStderr, Command, Stdio};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use cluegate::mini::Style;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::loopback::{Loopback, Seen};
use crate::support::{Scenes, command, finish, folder};

/// A tenant who gets whatever is drawn, and one who wants nobody armed.
const POLICY: &str = "[tenant.open]\nconstitution = \"scene\"\naction.default = \"allow\"\n\
                      [tenant.strict]\nconstitution = \"scene\"\nrules = [\"armed\"]\n";

/// A folder with all that a gateway needs, a key for each tenant, and a server that draws.
pub(crate) struct Setup {
    pub(crate) folder: TempDir,
    pub(crate) open: String,
    pub(crate) strict: String,
    pub(crate) upstream: Loopback,
}

impl Setup {
    /// `tables` are further tables of the configuration.
    pub(crate) fn new(tables: &str) -> Self {
        let folder = folder();
        let upstream = Loopback::start(draw());
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).expect("a file");
        write("policy.toml", POLICY);
        let url = &upstream.url;
        write(
            "gate.toml",
            &format!(
                "listen = \"127.0.0.1:0\"\npolicy = \"policy.toml\"\n[keys]\nfile = \"keys.toml\"\n\
                 [upstream]\nkind = \"openai\"\nurl = \"{url}\"\nmodel = \"scenes\"\n{tables}"
            ),
        );
        let key = |tenant: &str| {
            let mut command = command();
            command.args(["keys", "new", "--tenant", tenant, "--id", tenant, "--file"]);
            finish(command.arg(folder.path().join("keys.toml"))).expect(0).stdout.trim().to_owned()
        };
        Self { open: key("open"), strict: key("strict"), folder, upstream }
    }

    pub(crate) fn config(&self) -> std::path::PathBuf {
        self.folder.path().join("gate.toml")
    }
}

/// Answers a request for pictures with a man who holds a knife if the prompt says so, and a cat on the grass if not.
fn draw() -> impl Fn(&Seen) -> Vec<u8> + Send + Sync {
    let scenes = Scenes::new();
    let encoded = |subject: &str, object: &str, touching: bool| {
        let mut file = std::io::Cursor::new(Vec::new());
        let pixels = scenes.draw(&scenes.pair(subject, object, touching), Style::World);
        pixels.write_to(&mut file, image::ImageFormat::Png).expect("a PNG");
        BASE64_STANDARD.encode(file.into_inner())
    };
    let (armed, peaceful) = (encoded("man", "knife", true), encoded("cat", "tree", false));
    move |seen| {
        let asked: Value = serde_json::from_slice(&seen.body).unwrap_or_default();
        let knife = asked["prompt"].as_str().is_some_and(|prompt| prompt.contains("knife"));
        let picture = if knife { &armed } else { &peaceful };
        json!({ "created": 0, "data": [{ "b64_json": picture }] }).to_string().into_bytes()
    }
}

/// A gateway that runs; killed when it is dropped.
pub(crate) struct Gateway {
    child: Child,
    stderr: BufReader<ChildStderr>,
    /// Where clients ask.
    pub(crate) url: String,
    /// Where operators ask, if the configuration says so.
    pub(crate) admin: Option<String>,
    /// What it said until it listened.
    words: Vec<String>,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Gateway {
    /// Starts it with these variables and further arguments.
    pub(crate) fn start(setup: &Setup, variables: &[(&str, &str)], arguments: &[&str]) -> Self {
        let mut command = command();
        command.arg("serve").arg("--config").arg(setup.config()).args(arguments).stderr(Stdio::piped());
        for name in ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_SERVICE_NAME", "CLUEGATE_LOG_FORMAT"] {
            command.env_remove(name);
        }
        let mut child = command.envs(variables.iter().copied()).spawn().expect("the binary runs");
        let mut stderr = BufReader::new(child.stderr.take().expect("a pipe"));
        let administered = fs::read_to_string(setup.config()).expect("a file").contains("[admin]");
        let (mut words, mut url, mut admin) = (Vec::new(), None, None);
        while url.is_none() || admin.is_some() != administered {
            let mut line = String::new();
            assert!(stderr.read_line(&mut line).expect("text") > 0, "it ended: {words:#?}");
            let address = line.trim().find("http").map(|at| line.trim()[at..].to_owned());
            if line.contains("admin") {
                admin = admin.or(address);
            } else if line.starts_with("listening on ") {
                url = address;
            }
            words.push(line.trim().to_owned());
        }
        Self { child, stderr, url: url.unwrap_or_default(), admin, words }
    }

    /// Asks for one picture in the words of OpenAI's API, with these headers; status and answer.
    pub(crate) fn generate(&self, key: &str, prompt: &str, headers: &[(&str, &str)]) -> (u16, Value) {
        let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let mut request =
            agent.post(format!("{}/v1/images/generations", self.url)).content_type("application/json");
        for (name, value) in [("authorization", format!("Bearer {key}").as_str())].iter().chain(headers) {
            request = request.header(*name, *value);
        }
        let mut answer = request.send(json!({ "prompt": prompt }).to_string()).expect("an answer");
        let text = answer.body_mut().read_to_string().expect("text");
        (answer.status().as_u16(), serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    /// Tells it to read its files again; what it says until a line begins with `words`.
    pub(crate) fn hang_up(&mut self, words: &str) -> Vec<String> {
        let told = Command::new("sh").args(["-c", &format!("kill -HUP {}", self.child.id())]).status();
        assert!(told.expect("a shell").success());
        let mut said: Vec<String> = Vec::new();
        while !said.last().is_some_and(|line| line.starts_with(words)) {
            let mut line = String::new();
            assert!(self.stderr.read_line(&mut line).expect("text") > 0, "it ended: {said:#?}");
            said.push(line.trim().to_owned());
        }
        said
    }

    /// Tells it to end, as a service manager does; all that it said, after it has ended well.
    pub(crate) fn stop(mut self) -> Vec<String> {
        let told = Command::new("sh").args(["-c", &format!("kill -TERM {}", self.child.id())]).status();
        assert!(told.expect("a shell").success());
        // It closes its standard error when it ends.
        let mut words = std::mem::take(&mut self.words);
        words.extend(std::io::BufRead::lines(&mut self.stderr).map(|line| line.expect("text")));
        assert_eq!(self.child.wait().expect("an end").code(), Some(0), "{words:#?}");
        words
    }
}
