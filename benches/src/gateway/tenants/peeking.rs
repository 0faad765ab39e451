//! One tenant tries to see what is another's: by every route that is documented, with every id that the other was given, by
//! the administration with a key of its own tenant, and by queries of the log and the store.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use cluegate_audit::{LogPlaces, Query};
use cluegate_server::keys::Role;
use cluegate_store::{Expect, KeyHash, NewKey, Store};
use serde_json::Value;

use super::database::{AUTHOR, Place, fill, key, policy, tenant};
use super::gate::{ADMIN_ADDRESS, Options, log_settings};
use crate::gateway::http::{Connection, Message};
use crate::gateway::process::{Faults, Part};
use crate::gateway::upstream;
use crate::page::{Page, doing};
use crate::table::Table;

/// What only the first tenant knows; it stands in its prompts, its policy and its key's name.
const MARK: &str = "heron-at-dusk-7f3a";
/// Longest wait for one answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// What one kind of attempt came to.
#[derive(Default)]
struct Attempts {
    made: u64,
    read: u64,
    examples: Vec<String>,
}

impl Attempts {
    /// Counts an answer to a request that held `sent`: it may say again what was sent, and no more of `marks`.
    fn look(&mut self, request: &str, body: &[u8], marks: &BTreeSet<String>) {
        self.made += 1;
        let text = String::from_utf8_lossy(body);
        let told = marks.iter().find(|mark| !request.contains(mark.as_str()) && text.contains(mark.as_str()));
        if let Some(mark) = told {
            self.found(format!("{} told of {mark}", request.lines().next().unwrap_or_default()));
        }
    }

    fn found(&mut self, example: String) {
        self.read += 1;
        if self.examples.len() < 5 {
            self.examples.push(example);
        }
    }
}

/// Tries, and gives the number of reads that should not have been.
pub(super) fn run(folder: &Path, page: &mut Page) -> anyhow::Result<u64> {
    let folder = folder.join("peeking");
    std::fs::create_dir(&folder)?;
    let place = Place::sqlite(&folder, "gate.db")?;
    fill(&place, 2, 2)?;
    mark_first(&place)?;
    let drawer = upstream::Options::Prepared { pictures: 16, side: 64, takes_ms: 0 };
    let drawer = Part::start("upstream", &drawer, &Faults::default())?;
    let admin = cluegate_server::NewKey::generate();
    std::fs::write(
        folder.join("admin.keys"),
        admin.of_admin("second", Role::Read, Some(&tenant(1))).entry(),
    )?;
    let config = format!(
        "[upstream]\nkind = \"a1111\"\nurl = \"http://{}\"\n[admin]\nlisten = \"127.0.0.1:0\"\nkey_file = \"admin.keys\"\n\
         [limits]\nwrong_keys = 1000000\n",
        drawer.address
    );
    let options = Options { folder: folder.clone(), url: place.url.clone(), config };
    let gate = Part::start("tenants-gate", &options, &Faults::default())?;
    let admin_address: SocketAddr = std::fs::read_to_string(folder.join(ADMIN_ADDRESS))?.parse()?;

    doing("what the first tenant does");
    let marks = first_tenant(gate.address)?;
    let second = tenant(1);
    let (own, limited) = (key(&second), admin.reveal().to_owned());
    let client = (gate.address, routes(gate.address, &own)?);
    let administration = (admin_address, routes(admin_address, &limited)?);
    let mut kinds = Vec::new();
    for (name, (address, document), secret) in [
        ("routes, with the other's key", &client, Some(&own)),
        ("administration, limited to the other", &administration, Some(&limited)),
        ("routes, without a key", &client, None),
        ("administration, without a key", &administration, None),
        ("administration, with a client's key", &administration, Some(&own)),
        ("routes, with an administrator's key", &client, Some(&limited)),
    ] {
        doing(name);
        kinds.push((name, every_route(document, *address, secret.map(String::as_str), &marks)?));
    }
    kinds.push(("queries of the log", log_queries(&place, &marks)?));
    kinds.push(("ids in the store", store_reads(&place, &marks)?));

    page.heading("What is another tenant's")?;
    page.text(&format!(
        "One tenant has pictures drawn by every front that draws; {} marks stand in its prompts, ids, policy and key. Then \
         everybody else asks for them: every documented route with every method and each of those ids in every place.",
        marks.len()
    ))?;
    let mut table = Table::new(&["by", "attempts", "reads"]);
    for (name, attempts) in &kinds {
        table.row(*name, [attempts.made.to_string(), attempts.read.to_string()]);
        for example in &attempts.examples {
            page.text(example)?;
        }
    }
    page.table(table)?;
    Ok(kinds.iter().map(|(_, attempts)| attempts.read).sum())
}

/// Puts the mark into what the store holds of the first tenant.
fn mark_first(place: &Place) -> anyhow::Result<()> {
    let store = Store::new(place.open()?);
    place.runtime.block_on(async {
        let mut edit = store.edit(AUTHOR).await?;
        let text = format!("# {MARK}-policy\n{}", policy(0, 3));
        edit.put_tenant(&tenant(0), &text, Expect::Any).await?;
        let (id, note) = (format!("{MARK}-key"), format!("{MARK}-note"));
        let sha256 = KeyHash::of("cg_marked");
        edit.add_key(&tenant(0), &NewKey { id, sha256, note, not_before_ms: None, expires_ms: None }).await?;
        edit.commit().await?;
        store.database().close().await;
        Ok(())
    })
}

/// Has pictures drawn for the first tenant, and gives all that nobody else may learn.
fn first_tenant(address: SocketAddr) -> anyhow::Result<BTreeSet<String>> {
    let mut marks: BTreeSet<String> =
        ["policy", "key", "note", "prompt", "request"].map(|what| format!("{MARK}-{what}")).into();
    let prompt = format!("a lake, {MARK}-prompt");
    let workflow = serde_json::json!({
        "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "any.safetensors"}},
        "2": {"class_type": "CLIPTextEncode", "inputs": {"text": prompt, "clip": ["1", 1]}},
        "3": {"class_type": "CLIPTextEncode", "inputs": {"text": "", "clip": ["1", 1]}},
        "4": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}},
        "5": {"class_type": "KSampler", "inputs": {"model": ["1", 0], "positive": ["2", 0], "negative": ["3", 0],
            "latent_image": ["4", 0], "seed": 7, "steps": 20, "cfg": 7.0, "sampler_name": "euler",
            "scheduler": "normal", "denoise": 1.0}},
        "6": {"class_type": "VAEDecode", "inputs": {"samples": ["5", 0], "vae": ["1", 2]}},
        "7": {"class_type": "SaveImage", "inputs": {"images": ["6", 0], "filename_prefix": format!("{MARK}-file")}},
    });
    let bodies = [
        ("/sdapi/v1/txt2img", serde_json::json!({"prompt": prompt, "seed": 7, "width": 64, "height": 64})),
        ("/v1/images/generations", serde_json::json!({"prompt": prompt, "size": "1024x1024"})),
        ("/sdcpp/v1/img_gen", serde_json::json!({"prompt": prompt, "width": 64, "height": 64})),
        ("/prompt", serde_json::json!({"prompt": workflow, "client_id": format!("{MARK}-client")})),
    ];
    let mut drawn = 0;
    for (path, body) in bodies {
        let headers = format!("x-request-id: {MARK}-request\r\n");
        let answer = call(address, "POST", path, (Some(&key(&tenant(0))), &headers), &body.to_string())?;
        drawn += usize::from(answer.status() < 300);
        let decisions = answer.header("x-cluegate-decision").unwrap_or_default().to_owned();
        marks.extend(decisions.split(", ").filter_map(|one| one.split(';').next()).map(str::to_owned));
        let json: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        for name in ["prompt_id", "id", "job_id"] {
            marks.extend(json[name].as_str().map(str::to_owned));
        }
    }
    ensure!(drawn >= 2, "expected at least two fronts to draw for the first tenant, got {drawn}");
    marks.remove("");
    Ok(marks)
}

fn call(
    address: SocketAddr,
    method: &str,
    path: &str,
    (secret, headers): (Option<&str>, &str),
    body: &str,
) -> anyhow::Result<Message> {
    let secret = secret.map(|secret| format!("authorization: Bearer {secret}\r\n")).unwrap_or_default();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: bench\r\nconnection: close\r\ncontent-type: application/json\r\n{secret}{headers}\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut connection = Connection::open(address, PATIENCE)?;
    connection.call(request.as_bytes()).with_context(|| format!("{method} {path}"))
}

/// The routes that an address documents, to somebody who has a key there.
fn routes(address: SocketAddr, secret: &str) -> anyhow::Result<Value> {
    let answer = call(address, "GET", "/openapi.json", (Some(secret), ""), "")?;
    let document: Value = serde_json::from_slice(&answer.body).context("the list of routes")?;
    ensure!(document["paths"].as_object().is_some_and(|paths| paths.len() > 5), "there are no routes");
    Ok(document)
}

/// Asks for each mark by every documented route, in the path, the query and the body.
fn every_route(
    document: &Value,
    address: SocketAddr,
    secret: Option<&str>,
    marks: &BTreeSet<String>,
) -> anyhow::Result<Attempts> {
    let first = tenant(0);
    let mut guesses: BTreeSet<String> = marks.clone();
    guesses.extend([first.clone(), "main".to_owned(), "*".to_owned(), "%25".to_owned()]);
    let mut attempts = Attempts::default();
    let paths = document["paths"].as_object().cloned().unwrap_or_default();
    for (path, methods) in &paths {
        // A socket is opened by another request than a call.
        if path.ends_with("/ws") || path == "/openapi.json" {
            continue;
        }
        for method in ["get", "post", "put", "delete"] {
            // What is not documented is asked for as well, once.
            let known = methods.get(method).is_some();
            for guess in guesses.iter().take(if known { usize::MAX } else { 1 }) {
                for tenant in [&first, &tenant(1)] {
                    let filled = fill_in(path, guess, tenant);
                    let query = format!(
                        "{filled}?prompt_id={guess}&id={guess}&filename={guess}&type=output&tenant={first}&request={guess}&after="
                    );
                    let body = serde_json::json!({"id": guess, "prompt_id": guess, "delete": [guess], "tenant": first});
                    for (target, body) in [(&filled, ""), (&query, ""), (&filled, &*body.to_string())] {
                        let answer = call(address, &method.to_uppercase(), target, (secret, ""), body)?;
                        let sent = format!("{} {target}\n{body}", method.to_uppercase());
                        attempts.look(&sent, &answer.body, marks);
                        let headers: Vec<String> =
                            answer.headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
                        attempts.look(&sent, headers.join("\n").as_bytes(), marks);
                    }
                    if !path.contains("{tenant}") {
                        break;
                    }
                }
            }
        }
    }
    Ok(attempts)
}

/// The path with `guess` in the place of each name but the tenant's.
fn fill_in(path: &str, guess: &str, tenant: &str) -> String {
    let filled = path.split('/').map(|part| match part {
        "{tenant}" => tenant,
        part if part.starts_with('{') => guess,
        part => part,
    });
    filled.collect::<Vec<_>>().join("/")
}

/// Asks the log for the other tenant's decisions, with all that could lead to those of the first.
fn log_queries(place: &Place, marks: &BTreeSet<String>) -> anyhow::Result<Attempts> {
    let (first, second) = (tenant(0), tenant(1));
    let places = LogPlaces::open(&log_settings(), Some((place.open()?, place.runtime.handle().clone())))?;
    let mut all = 0;
    places.query(&Query::for_tenant(first.as_str()), &mut |_| {
        all += 1;
        Ok(ControlFlow::Continue(()))
    })?;
    ensure!(all > 0, "the first tenant has no decision");
    let mut attempts = Attempts::default();
    let mut queries = vec![Query::for_tenant(second.as_str()), Query::for_tenant("%"), Query::for_tenant("")];
    for mark in marks.iter().chain([&first]) {
        let asked = || Query::for_tenant(second.as_str());
        queries.push(Query { request: Some(mark.clone()), ..asked() });
        queries.push(Query { decision: Some(mark.clone()), ..asked() });
        queries.push(Query { subjects: vec![mark.clone()], ..asked() });
        queries.push(Query { model: Some(mark.clone()), ..asked() });
        queries.push(Query::for_tenant(format!("{second}' OR tenant = '{first}")));
    }
    for query in queries {
        attempts.made += 1;
        places.query(&query, &mut |entry| {
            if entry.tenant() != Some(second.as_str()) {
                attempts.found(format!("{query:?} gave a decision of {:?}", entry.tenant()));
            }
            Ok(ControlFlow::Continue(()))
        })?;
    }
    Ok(attempts)
}

/// Asks the store for keys and usage of the other tenant, by what are names and ids of the first.
fn store_reads(place: &Place, marks: &BTreeSet<String>) -> anyhow::Result<Attempts> {
    let (first, second) = (tenant(0), tenant(1));
    let store = Store::new(place.open()?);
    let mut attempts = Attempts::default();
    for guess in
        marks.iter().chain([&first, &"main".to_owned(), &"%".to_owned(), &format!("{second}' OR '1'='1")])
    {
        attempts.made += 3;
        place.runtime.block_on(async {
            let mut keys = store.keys(&second, guess, 1_000).await?;
            keys.extend(store.key(&second, guess).await?);
            for key in keys.iter().filter(|key| key.tenant != second) {
                attempts.found(format!("{guess} gave a key of {}", key.tenant));
            }
            if guess != &first && !store.keys(guess, "", 1_000).await?.is_empty() {
                attempts.found(format!("{guess} has keys"));
            }
            Ok::<_, cluegate_store::StoreError>(())
        })?;
    }
    Ok(attempts)
}
