//! A hub on loopback that answers as the real one does: metadata with sizes and checksums, redirects of large files to
//! another host, ranges, refusals with their headers. Faults are asked for by test.

// Each test binary uses its own part.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

// The root's tests share this file.
use cluegate_hub::Digest;
use serde_json::{Value, json};

/// The commit of a repository that has only one.
pub(crate) const COMMIT: &str = "57c216476eefef5ab752ec549e440a49ae4ae5f3";

/// From this size on a file is a large one: named by SHA-256, and sent by the other host.
const LARGE: usize = 1000;

/// What goes wrong with the body of a file, once each.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// The connection ends after so many bytes of the body.
    Cut(usize),
    /// The same, and the range is ignored.
    CutWithoutRange(usize),
    /// The body stops after so many bytes, and the connection stays open for so long.
    Stall(usize, Duration),
    /// Another byte in the middle.
    Corrupt,
    /// More bytes than were announced.
    Longer,
    /// A status, with headers.
    Status(u16, Vec<(&'static str, String)>),
    /// The range is ignored.
    NoRange,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Repo {
    pub(crate) commit: String,
    pub(crate) files: BTreeMap<String, Vec<u8>>,
    /// Who may read: nobody in particular, or this token.
    pub(crate) token: Option<String>,
    /// Whether the licence has to be accepted.
    pub(crate) gated: bool,
    /// Whether the metadata has sizes and checksums.
    pub(crate) bare: bool,
    /// Sizes that the metadata claims instead of the true ones.
    pub(crate) claimed: BTreeMap<String, u64>,
}

/// What was asked.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) range: Option<String>,
    pub(crate) authorization: Option<String>,
    /// Whether the other host was asked.
    pub(crate) cdn: bool,
}

#[derive(Default)]
struct State {
    repos: BTreeMap<String, Repo>,
    faults: BTreeMap<String, Vec<Fault>>,
    requests: Vec<Request>,
    redirects: BTreeMap<String, String>,
}

/// The hub; its threads end with the process.
pub(crate) struct FakeHub {
    state: Arc<Mutex<State>>,
    address: String,
}

struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    fault: Option<Fault>,
}

impl FakeHub {
    pub(crate) fn start() -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let [hub, cdn] = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let address = format!("http://{}", hub.local_addr().unwrap());
        // Another name, because clients may take the same host on another port for the same.
        let other = format!("http://localhost:{}", cdn.local_addr().unwrap().port());
        for (listener, is_cdn) in [(hub, false), (cdn, true)] {
            let (state, other) = (Arc::clone(&state), other.clone());
            std::thread::spawn(move || {
                for stream in listener.incoming() {
                    let (state, other) = (Arc::clone(&state), other.clone());
                    std::thread::spawn(move || serve(stream.unwrap(), &state, &other, is_cdn));
                }
            });
        }
        Self { state, address }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// For `HF_ENDPOINT`.
    pub(crate) fn endpoint(&self) -> &str {
        &self.address
    }

    /// Adds a repository of these files at [`COMMIT`].
    pub(crate) fn repo(&self, name: &str, files: &[(&str, &[u8])]) {
        let files = files.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.to_vec())).collect();
        let repo = Repo { commit: COMMIT.to_owned(), files, ..Repo::default() };
        self.state().repos.insert(name.to_owned(), repo);
    }

    pub(crate) fn change(&self, name: &str, change: impl FnOnce(&mut Repo)) {
        change(self.state().repos.get_mut(name).unwrap());
    }

    /// The next requests for the bytes of this file go wrong, one fault each.
    pub(crate) fn faults(&self, file: &str, faults: &[Fault]) {
        self.state().faults.entry(file.to_owned()).or_default().extend_from_slice(faults);
    }

    /// Requests for this path are sent to another one.
    pub(crate) fn redirect(&self, from: &str, to: &str) {
        self.state().redirects.insert(from.to_owned(), to.to_owned());
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.state().requests.clone()
    }

    /// How often bytes of this file were sent.
    pub(crate) fn downloads(&self, file: &str) -> usize {
        let bytes =
            |request: &&Request| request.method == "GET" && request.path.ends_with(&format!("/{file}"));
        let large = self.requests().iter().filter(bytes).filter(|request| request.cdn).count();
        let small = self.requests().iter().filter(bytes).filter(|request| !request.cdn).count();
        if large > 0 { large } else { small }
    }
}

/// A small model in the layout of transformers, with weights in two shards. The second shard has `size` bytes.
pub(crate) fn sharded(size: usize) -> Vec<(&'static str, Vec<u8>)> {
    let index = json!({"metadata": {}, "weight_map": {
        "a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}});
    let pattern =
        |size: usize, seed: u8| (0..size).map(|i| (i as u8).wrapping_mul(31) ^ seed).collect::<Vec<u8>>();
    vec![
        ("README.md", b"---\nlicense: apache-2.0\n---\n# A model\n".to_vec()),
        ("config.json", br#"{"model_type":"clip"}"#.to_vec()),
        ("model-00001-of-00002.safetensors", pattern(3000, 1)),
        ("model-00002-of-00002.safetensors", pattern(size, 2)),
        ("model.safetensors.index.json", index.to_string().into_bytes()),
        ("tokenizer.json", b"{}".to_vec()),
        ("pytorch_model.bin", pattern(5000, 3)),
        ("onnx/model.onnx", pattern(5000, 4)),
    ]
}

pub(crate) fn as_slices<'a>(files: &'a [(&'static str, Vec<u8>)]) -> Vec<(&'a str, &'a [u8])> {
    files.iter().map(|(name, bytes)| (*name, bytes.as_slice())).collect()
}

fn digest(bytes: &[u8]) -> Digest {
    if bytes.len() >= LARGE { Digest::sha256(bytes) } else { Digest::git(bytes) }
}

fn serve(mut stream: TcpStream, state: &Mutex<State>, cdn: &str, is_cdn: bool) {
    let Some(request) = read(&stream, is_cdn) else { return };
    let answer = {
        let mut state = state.lock().unwrap();
        state.requests.push(request.clone());
        if is_cdn { bytes_of(&mut state, &request) } else { hub(&mut state, &request, cdn) }
    };
    write(&mut stream, &request, answer);
}

fn read(stream: &TcpStream, cdn: bool) -> Option<Request> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|count| *count > 0)?;
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, path) = (words.next()?, words.next()?);
    let (mut range, mut authorization) = (None, None);
    loop {
        line.clear();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        match name.to_ascii_lowercase().as_str() {
            "range" => range = Some(value.to_owned()),
            "authorization" => authorization = Some(value.to_owned()),
            _ => {}
        }
    }
    Some(Request { method, path, range, authorization, cdn })
}

fn write(stream: &mut TcpStream, request: &Request, mut answer: Answer) {
    let length = answer.body.len();
    match &answer.fault {
        Some(Fault::Corrupt) if length > 0 => answer.body[length / 2] ^= 0xff,
        Some(Fault::Longer) => answer.body.extend_from_slice(b"more"),
        _ => {}
    }
    let mut head = format!("HTTP/1.1 {} -\r\nconnection: close\r\n", answer.status);
    // A body that is longer than announced can only come without a length.
    if !matches!(answer.fault, Some(Fault::Longer)) {
        head += &format!("content-length: {length}\r\n");
    }
    for (name, value) in &answer.headers {
        head += &format!("{name}: {value}\r\n");
    }
    let _ = stream.write_all(format!("{head}\r\n").as_bytes());
    if request.method == "HEAD" {
        return;
    }
    let until = match answer.fault {
        Some(Fault::Cut(bytes) | Fault::CutWithoutRange(bytes) | Fault::Stall(bytes, _)) => bytes.min(length),
        _ => answer.body.len(),
    };
    let _ = stream.write_all(&answer.body[..until]);
    if let Some(Fault::Stall(_, time)) = answer.fault {
        let _ = stream.flush();
        std::thread::sleep(time);
    }
}

fn refusal(status: u16, code: &str, message: &str) -> Answer {
    let headers = [("x-error-code", code), ("x-error-message", message)];
    let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    Answer { status, headers, body: b"{\"error\":\"-\"}".to_vec(), fault: None }
}

fn hub(state: &mut State, request: &Request, cdn: &str) -> Answer {
    let path = request.path.split('?').next().unwrap_or_default().replace("%2F", "/");
    if let Some(target) = state.redirects.get(&path) {
        let headers = vec![("location".to_owned(), target.clone())];
        return Answer { status: 307, headers, body: Vec::new(), fault: None };
    }
    let (name, rest, is_api) = match path.strip_prefix("/api/models/") {
        Some(rest) => match rest.split_once("/revision/") {
            Some((name, revision)) => (name.to_owned(), revision.to_owned(), true),
            None => return refusal(404, "", "no such route"),
        },
        None => match path[1..].split_once("/resolve/") {
            Some((name, rest)) => (name.to_owned(), rest.to_owned(), false),
            None => return refusal(404, "", "no such route"),
        },
    };
    let Some(repo) = state.repos.get(&name).cloned() else {
        // The real hub does not tell strangers what exists.
        let status = if request.authorization.is_some() { 404 } else { 401 };
        return refusal(status, "RepoNotFound", "Repository not found");
    };
    let allowed =
        repo.token.as_ref().is_none_or(|token| request.authorization == Some(format!("Bearer {token}")));
    // What is gated is described to everybody.
    let public = repo.gated && is_api;
    if !allowed && !public {
        let status = if request.authorization.is_some() { 403 } else { 401 };
        return refusal(
            status,
            if repo.gated { "GatedRepo" } else { "" },
            "Access to this model is restricted",
        );
    }
    if is_api {
        return match rest.as_str() {
            "main" | "refs/pr/3" => describe(&repo),
            commit if commit == repo.commit => describe(&repo),
            _ => refusal(404, "RevisionNotFound", "Invalid rev id"),
        };
    }
    let file = rest.split_once('/').map_or("", |(_, file)| file).to_owned();
    let Some(bytes) = repo.files.get(&file) else { return refusal(404, "EntryNotFound", "Entry not found") };
    let etag = format!("\"{}\"", digest(bytes));
    let mut headers = vec![("x-repo-commit".to_owned(), repo.commit.clone())];
    if bytes.len() < LARGE {
        headers.push(("etag".to_owned(), etag));
        let mut answer = bytes_of(state, request);
        answer.headers.extend(headers);
        return answer;
    }
    headers.push(("x-linked-etag".to_owned(), etag));
    headers.push(("x-linked-size".to_owned(), bytes.len().to_string()));
    headers.push(("location".to_owned(), format!("{cdn}{}?Signature=secret", request.path)));
    Answer { status: 302, headers, body: b"Found. Redirecting".to_vec(), fault: None }
}

fn describe(repo: &Repo) -> Answer {
    let file = |(name, bytes): (&String, &Vec<u8>)| {
        if repo.bare {
            return json!({"rfilename": name});
        }
        let size = repo.claimed.get(name).copied().unwrap_or(bytes.len() as u64);
        let mut file = json!({"rfilename": name, "size": size, "blobId": Digest::git(bytes).to_string()});
        if bytes.len() >= LARGE {
            file["lfs"] =
                json!({"sha256": Digest::sha256(bytes).to_string(), "size": size, "pointerSize": 134});
        }
        file
    };
    let files: Vec<Value> = repo.files.iter().map(file).collect();
    let gated = if repo.gated { json!("manual") } else { json!(false) };
    let body = json!({"id": "x", "sha": repo.commit, "gated": gated, "cardData": {"license": "apache-2.0"}, "siblings": files});
    Answer { status: 200, headers: Vec::new(), body: body.to_string().into_bytes(), fault: None }
}

/// The bytes of a file, or those that the range asks for, with the next fault.
fn bytes_of(state: &mut State, request: &Request) -> Answer {
    let path = request.path.split('?').next().unwrap_or_default();
    let (name, rest) = path[1..].split_once("/resolve/").unwrap_or_default();
    let file = rest.split_once('/').map_or("", |(_, file)| file);
    let bytes = state.repos.get(name).and_then(|repo| repo.files.get(file)).cloned().unwrap_or_default();
    let faults = state.faults.get_mut(file).filter(|faults| request.method == "GET" && !faults.is_empty());
    let fault = faults.map(|faults| faults.remove(0));
    if let Some(Fault::Status(status, headers)) = &fault {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        return Answer { status: *status, headers, body: Vec::new(), fault: None };
    }
    let range =
        request.range.as_ref().filter(|_| !matches!(fault, Some(Fault::NoRange | Fault::CutWithoutRange(_))));
    let start =
        range.and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
    match start {
        Some(start) if start < bytes.len() => {
            let range = format!("bytes {start}-{}/{}", bytes.len() - 1, bytes.len());
            let headers = vec![("content-range".to_owned(), range)];
            Answer { status: 206, headers, body: bytes[start..].to_vec(), fault }
        }
        Some(_) => Answer { status: 416, headers: Vec::new(), body: Vec::new(), fault: None },
        None => Answer { status: 200, headers: Vec::new(), body: bytes, fault },
    }
}
