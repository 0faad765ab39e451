//! An engine on loopback: a model that is a hash, behind the routes of vLLM.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use cluegate_remote::{RemoteJudge, RemoteOptions, RetryOptions};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

pub(crate) const MODEL: &str = "org/judge";
/// The fake's vocabulary, as far as it matters.
const WORDS: [(&str, u32); 6] = [("Yes", 7), ("No", 8), ("yes", 17), ("no", 18), (" Yes", 27), (" No", 28)];

/// What an engine can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// vLLM of 2026: token ids.
    TokenIds,
    /// A server that knows the most probable tokens only, and has no tokenizer route.
    TopTokens,
    /// An older vLLM: tokenizer routes, but the field of ids is ignored.
    OlderVllm,
    /// No log-probabilities at all.
    Silent,
    /// The same, and no pictures: a text model behind a plain chat route.
    Text,
    /// Forgets the picture.
    Blind,
    /// The same, and its answers to one question differ a little.
    BlindInFewDigits,
    /// Answers to one question differ a little.
    FewDigits,
    /// Puts a word in the place of every picture.
    Placeholder,
    /// Thinks first.
    Thinks,
    /// Its tokenizer splits Yes.
    Splits,
}

/// What happens to one chat request.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    Status(u16, &'static str, Option<u64>),
    CutJson,
    Hang,
    WrongModel,
    WrongRequest,
    NotANumber,
    Redirect,
    Large,
}

type Script = Box<dyn FnMut(usize) -> Option<Fault> + Send>;

pub(crate) struct Shared {
    kind: Kind,
    /// Names answers as vLLM does.
    named: bool,
    /// Chat requests but those of a check, in the order in which they came.
    pub(crate) seen: Mutex<Vec<(Value, HeaderMap)>>,
    script: Mutex<Script>,
    /// Chat requests of checks.
    checks: AtomicUsize,
    /// Everything is answered with this status.
    refuses: Mutex<Option<u16>>,
    /// How often that was.
    refused: AtomicUsize,
    /// Added to what the hash says.
    shift: f64,
    /// How the next answer is off, for an engine that computes in few digits.
    noise: AtomicUsize,
}

pub(crate) struct Engine {
    pub(crate) address: SocketAddr,
    pub(crate) shared: Arc<Shared>,
    runtime: Option<Runtime>,
}

impl Engine {
    pub(crate) fn start(kind: Kind) -> Self {
        Self::with(kind, 0.0)
    }

    pub(crate) fn with(kind: Kind, shift: f64) -> Self {
        Self::at("127.0.0.1:0".parse().unwrap(), kind, shift)
    }

    /// An engine at a certain address, such as that of one that was killed.
    pub(crate) fn at(address: SocketAddr, kind: Kind, shift: f64) -> Self {
        let runtime = Runtime::new().unwrap();
        let shared = Arc::new(Shared {
            kind,
            named: !matches!(kind, Kind::TopTokens | Kind::Text),
            seen: Mutex::default(),
            script: Mutex::new(Box::new(|_| None)),
            checks: AtomicUsize::new(0),
            refuses: Mutex::default(),
            refused: AtomicUsize::new(0),
            shift,
            noise: AtomicUsize::new(0),
        });
        let listener = runtime.block_on(tokio::net::TcpListener::bind(address)).unwrap();
        let address = listener.local_addr().unwrap();
        let routes = routes(&shared);
        runtime.spawn(async move { axum::serve(listener, routes).await });
        Self { address, shared, runtime: Some(runtime) }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on `script` says what happens to the next chat requests, which are counted from zero.
    pub(crate) fn script(&self, script: impl FnMut(usize) -> Option<Fault> + Send + 'static) {
        self.shared.seen.lock().unwrap().clear();
        *self.shared.script.lock().unwrap() = Box::new(script);
    }

    pub(crate) fn requests(&self) -> usize {
        self.shared.seen.lock().unwrap().len()
    }

    pub(crate) fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.as_ref().unwrap().block_on(work)
    }

    /// Goes on until the engine is killed.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.runtime.as_ref().unwrap().spawn(work);
    }

    /// How many chat requests of checks came.
    pub(crate) fn checks(&self) -> usize {
        self.shared.checks.load(Ordering::SeqCst)
    }

    /// From now on everything is answered with this status, or nothing any more.
    pub(crate) fn refuse(&self, status: Option<u16>) {
        *self.shared.refuses.lock().unwrap() = status;
    }

    /// How many requests of any kind were refused.
    pub(crate) fn refused(&self) -> usize {
        self.shared.refused.load(Ordering::SeqCst)
    }

    /// Afterwards nobody listens at its address.
    pub(crate) fn kill(&mut self) {
        self.runtime.take().unwrap().shutdown_timeout(Duration::from_secs(60));
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

pub(crate) fn routes(shared: &Arc<Shared>) -> Router {
    let routes = Router::new().fallback(serve).with_state(Arc::clone(shared));
    routes.layer(axum::extract::DefaultBodyLimit::disable())
}

pub(crate) fn options(engines: &[&Engine]) -> RemoteOptions {
    let retry = RetryOptions { backoff_ms: 1, longest_backoff_ms: 4_000, ..RetryOptions::default() };
    RemoteOptions { retry, timeout_ms: 20_000, ..RemoteOptions::new(engines.iter().map(|e| e.url()), MODEL) }
}

pub(crate) fn open(engines: &[&Engine]) -> RemoteJudge {
    RemoteJudge::open(&options(engines)).unwrap()
}

/// What the fake thinks of a question: masses of Yes and No.
pub(crate) fn belief(messages: &Value, shift: f64) -> (f64, f64) {
    let hash = blake3::hash(messages.to_string().as_bytes());
    let share = f64::from(hash.as_bytes()[0]) / 256.0;
    ((0.05 + 0.85 * share + shift).clamp(0.0, 0.9), (0.9 - 0.85 * share - shift).clamp(0.0, 0.9))
}

async fn serve(State(shared): State<Arc<Shared>>, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let refuses = *shared.refuses.lock().unwrap();
    if let Some(status) = refuses {
        shared.refused.fetch_add(1, Ordering::SeqCst);
        return (StatusCode::from_u16(status).unwrap(), "refused").into_response();
    }
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    match uri.path() {
        "/v1/models" => json(json!({"data": [{"id": MODEL, "root": "/models/judge"}]})),
        "/tokenize" | "/detokenize" if matches!(shared.kind, Kind::TopTokens | Kind::Text) => {
            StatusCode::NOT_FOUND.into_response()
        }
        "/tokenize" => {
            let words: HashMap<&str, u32> = WORDS.into_iter().collect();
            let known = words.get(body["prompt"].as_str().unwrap()).filter(|_| shared.kind != Kind::Splits);
            json(json!({"tokens": known.map_or(vec![3, 4], |id| vec![*id])}))
        }
        "/detokenize" => {
            let id = body["tokens"][0].as_u64().unwrap();
            let word = WORDS.iter().find(|(_, known)| u64::from(*known) == id).map_or("es", |(word, _)| word);
            json(json!({"prompt": word}))
        }
        "/v1/chat/completions" if shared.kind == Kind::Text && body["messages"][0]["content"].is_array() => {
            (StatusCode::BAD_REQUEST, "this model takes no pictures").into_response()
        }
        "/v1/chat/completions" => chat(&shared, headers, body).await,
        "/v1/embeddings" => embeddings(&shared, &headers, &body),
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn chat(shared: &Shared, headers: HeaderMap, body: Value) -> Response {
    let fault = if is_check(&body) {
        shared.checks.fetch_add(1, Ordering::SeqCst);
        None
    } else {
        let mut seen = shared.seen.lock().unwrap();
        seen.push((body.clone(), headers.clone()));
        (shared.script.lock().unwrap())(seen.len() - 1)
    };
    let mut answer = answer(shared, &headers, &body);
    match fault {
        None => json(answer),
        Some(Fault::Status(status, text, wait)) => {
            let error = json!({"error": {"message": text}});
            let mut response = (StatusCode::from_u16(status).unwrap(), error.to_string()).into_response();
            if let Some(wait) = wait {
                response.headers_mut().insert("retry-after", HeaderValue::from(wait));
            }
            response
        }
        Some(Fault::CutJson) => {
            let text = answer.to_string();
            text[..text.len() / 2].to_owned().into_response()
        }
        Some(Fault::Hang) => {
            tokio::time::sleep(Duration::from_secs(3600)).await;
            json(answer)
        }
        Some(Fault::WrongModel) => {
            answer["model"] = "org/another".into();
            json(answer)
        }
        Some(Fault::WrongRequest) => {
            answer["id"] = "chatcmpl-of-somebody-else".into();
            json(answer)
        }
        Some(Fault::NotANumber) => {
            answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"][0]["logprob"] = Value::Null;
            json(answer)
        }
        Some(Fault::Redirect) => {
            (StatusCode::TEMPORARY_REDIRECT, [("location", "http://elsewhere.invalid/")]).into_response()
        }
        Some(Fault::Large) => "x".repeat(1 << 20).into_response(),
    }
}

/// Whether a question is about the probe picture, or the same question without it.
fn is_check(body: &Value) -> bool {
    let content = &body["messages"][0]["content"];
    content[1]["text"].as_str().or(content.as_str()).is_some_and(|text| text.starts_with("Is the left half"))
}

/// Embeddings of three numbers that are a hash of what they are of.
fn embeddings(shared: &Shared, headers: &HeaderMap, body: &Value) -> Response {
    let things = match body["input"].as_array() {
        Some(texts) => texts.clone(),
        None if shared.kind == Kind::Blind => vec!["a picture".into()],
        None => vec![body["messages"][0]["content"][0]["image_url"]["url"].clone()],
    };
    let embed = |(index, thing): (usize, &Value)| {
        let hash = blake3::hash(thing.to_string().as_bytes());
        let numbers: Vec<f64> =
            hash.as_bytes()[..3].iter().map(|byte| f64::from(*byte) + 1.0 + 300.0 * shared.shift).collect();
        json!({"index": index, "object": "embedding", "embedding": numbers})
    };
    let data: Vec<Value> = things.iter().enumerate().map(embed).collect();
    let id = if shared.named { headers["x-request-id"].to_str().unwrap() } else { "7" };
    json(json!({"id": format!("embd-{id}"), "object": "list", "model": MODEL, "data": data}))
}

fn answer(shared: &Shared, headers: &HeaderMap, body: &Value) -> Value {
    let mut messages = body["messages"].clone();
    if matches!(shared.kind, Kind::Blind | Kind::BlindInFewDigits) {
        // What a text model makes of it: the words alone.
        let content = messages[0]["content"].clone();
        if let Some(parts) = content.as_array() {
            messages[0]["content"] = parts.last().unwrap()["text"].clone();
        }
    }
    if shared.kind == Kind::Placeholder && messages[0]["content"].is_array() {
        messages[0]["content"][0] = json!({"type": "text", "text": "[picture]"});
    }
    let few_digits = matches!(shared.kind, Kind::BlindInFewDigits | Kind::FewDigits);
    let noise =
        if few_digits { 0.001 * (shared.noise.fetch_add(1, Ordering::SeqCst) % 3) as f64 } else { 0.0 };
    let (yes, no) = belief(&messages, shared.shift + noise);
    let mut tokens =
        vec![("Yes", 7, 0.9 * yes), ("No", 8, 0.9 * no), ("yes", 17, 0.1 * yes), ("no", 18, 0.1 * no)];
    tokens.extend([(" Yes", 27, 1e-9), (" No", 28, 1e-9), ("Maybe", 99, (1.0 - yes - no) * 0.999)]);
    tokens.sort_by(|a, b| b.2.total_cmp(&a.2));
    let by_ids = shared.kind != Kind::OlderVllm && shared.kind != Kind::TopTokens;
    let wanted = body["logprob_token_ids"].as_array().filter(|_| by_ids);
    let as_ids = body["return_tokens_as_token_ids"] == true;
    let name = |word: &str, id: u32| if as_ids { format!("token_id:{id}") } else { word.to_owned() };
    let top = body["top_logprobs"].as_u64().unwrap_or(0) as usize;
    let listed: Vec<Value> = tokens
        .iter()
        .filter(|(_, id, _)| wanted.is_none_or(|ids| ids.contains(&Value::from(*id))))
        .take(if wanted.is_some() { usize::MAX } else { top })
        .map(|(word, id, p)| json!({"token": name(word, *id), "logprob": p.ln(), "bytes": word.as_bytes()}))
        .collect();
    let (word, id, p) = tokens[0];
    let id_of_answer = if shared.named {
        format!("chatcmpl-{}", headers["x-request-id"].to_str().unwrap())
    } else {
        "42".to_owned()
    };
    let logprobs = json!({"content": [{"token": name(word, id), "logprob": p.ln(), "top_logprobs": listed}]});
    let wants = body["logprobs"] == true && !matches!(shared.kind, Kind::Silent | Kind::Text);
    let reasoning = (shared.kind == Kind::Thinks).then_some("Let me look");
    json!({
        "id": id_of_answer, "object": "chat.completion", "model": MODEL,
        "choices": [{
            "index": 0, "finish_reason": if body["max_tokens"] == 1 { "length" } else { "stop" },
            "message": {"role": "assistant", "content": word, "reasoning_content": reasoning},
            "logprobs": if wants { logprobs } else { Value::Null },
        }],
        "usage": {"completion_tokens": 1},
    })
}

fn json(value: Value) -> Response {
    ([("content-type", "application/json")], value.to_string()).into_response()
}
