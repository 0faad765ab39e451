//! The way of spans to the collector: HTTP by the client that the program has anyway, on the exporter's own thread.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};

use crate::catalogue;

/// Most bytes of a collector's answer.
const ANSWER_BYTES: u64 = 1 << 20;
/// How often a collector that does not answer is complained of.
const COMPLAINT: Duration = Duration::from_secs(60);

/// Sends batches of spans, waits for the answer, and keeps what goes wrong to itself.
#[derive(Debug)]
pub(crate) struct Client {
    agent: ureq::Agent,
    complained: Mutex<Option<Instant>>,
}

impl Client {
    /// A client that waits at most `timeout` for one batch to be taken.
    pub(crate) fn new(timeout: Duration) -> Self {
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(timeout))
            .http_status_as_error(false)
            // The headers may hold a key, which is not for whoever we are sent to.
            .max_redirects(0)
            .user_agent(concat!("cluegate/", env!("CARGO_PKG_VERSION")));
        Self { agent: config.build().into(), complained: Mutex::default() }
    }

    fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, ureq::Error> {
        let (parts, body) = request.into_parts();
        let answer = self.agent.run(Request::from_parts(parts, &body[..]))?;
        let (parts, mut body) = answer.into_parts();
        let bytes = body.with_config().limit(ANSWER_BYTES).read_to_vec()?;
        Ok(Response::from_parts(parts, bytes.into()))
    }

    /// Once a minute at most: spans are lost by the second where a collector is gone.
    fn complain(&self, problem: &str) {
        let Ok(mut complained) = self.complained.lock() else { return };
        if complained.is_none_or(|last| last.elapsed() >= COMPLAINT) {
            *complained = Some(Instant::now());
            tracing::warn!(
                problem,
                "the trace collector did not take a batch of spans; requests go on without"
            );
        }
    }
}

#[async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let answer = self.send(request);
        let problem = match &answer {
            Ok(answer) if answer.status().is_success() => None,
            Ok(answer) => Some(format!("it answered with status {}", answer.status())),
            Err(error) => Some(error.to_string()),
        };
        catalogue::TRACE_EXPORTS.add(1, &[if problem.is_none() { "exported" } else { "failed" }]);
        if let Some(problem) = problem {
            self.complain(&problem);
        }
        Ok(answer?)
    }
}
