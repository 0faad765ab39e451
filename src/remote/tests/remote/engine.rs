//! An engine on loopback: a model that is a hash, behind the routes of vLLM.

use std::collections::HashMap;
use std::net::SocketAddr;
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
    /// Forgets the picture.
    Blind,
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
    /// Chat requests, in the order in which they came.
    pub(crate) seen: Mutex<Vec<(Value, HeaderMap)>>,
    script: Mutex<Script>,
    /// Added to what the hash says.
    shift: f64,
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
        let runtime = Runtime::new().unwrap();
        let shared = Arc::new(Shared {
            kind,
            named: kind != Kind::TopTokens,
            seen: Mutex::default(),
            script: Mutex::new(Box::new(|_| None)),
            shift,
        });
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let routes = Router::new().fallback(serve).with_state(Arc::clone(&shared));
        let routes = routes.layer(axum::extract::DefaultBodyLimit::disable());
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

    pub(crate) fn kill(&mut self) {
        self.runtime.take().unwrap().shutdown_background();
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

pub(crate) fn options(engines: &[&Engine]) -> RemoteOptions {
    let retry = RetryOptions { backoff_ms: 1, longest_backoff_ms: 4, ..RetryOptions::default() };
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
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    match uri.path() {
        "/v1/models" => json(json!({"data": [{"id": MODEL, "root": "/models/judge"}]})),
        "/tokenize" | "/detokenize" if shared.kind == Kind::TopTokens => {
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
        "/v1/chat/completions" => chat(&shared, headers, body).await,
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn chat(shared: &Shared, headers: HeaderMap, body: Value) -> Response {
    let fault = {
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

fn answer(shared: &Shared, headers: &HeaderMap, body: &Value) -> Value {
    let mut messages = body["messages"].clone();
    if shared.kind == Kind::Blind {
        // What a text model makes of it: the words alone.
        let content = messages[0]["content"].clone();
        if let Some(parts) = content.as_array() {
            messages[0]["content"] = parts.last().unwrap()["text"].clone();
        }
    }
    if shared.kind == Kind::Placeholder && messages[0]["content"].is_array() {
        messages[0]["content"][0] = json!({"type": "text", "text": "[picture]"});
    }
    let (yes, no) = belief(&messages, shared.shift);
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
    let wants = body["logprobs"] == true && shared.kind != Kind::Silent;
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
