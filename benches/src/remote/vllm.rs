//! A real vLLM on the CPU, as a process of its own on loopback.

use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};

use crate::page::doing;

/// What the engine calls the model.
pub(super) const MODEL: &str = "model";

/// What a model is served for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Role {
    /// Answers to questions about pictures.
    Judge,
    /// Embeddings.
    Relevance,
}
/// Starting takes about a minute, more where the machine is busy.
const PATIENCE: Duration = Duration::from_secs(600);

/// Runs a command in a group of its own that is killed when the other end of the standard input is closed: when this process
/// ends, however that may be.
const ENDS_WITH_US: &str = r#"exec 3<&0; (cat <&3 >/dev/null; kill -KILL 0) & exec "$@" </dev/null 3<&-"#;

/// Killed when it is dropped.
pub(super) struct Vllm {
    child: Child,
    pub(super) url: String,
    log: PathBuf,
    killed: bool,
}

impl Vllm {
    /// Starts an engine over a checkpoint; its words go to a file in `folder`.
    pub(super) fn start(
        python: &Path,
        (role, checkpoint): (Role, &Path),
        folder: &Path,
    ) -> anyhow::Result<Self> {
        // Free a moment ago; the engine takes no listener over.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let log = folder.join(format!("vllm-{port}.log"));
        let words = std::fs::File::create(&log)?;
        let mut command = Command::new("sh");
        command
            .args(["-c", ENDS_WITH_US, "sh"])
            .arg(python)
            .args(["-m", "vllm.entrypoints.openai.api_server", "--host", "127.0.0.1", "--dtype", "float32"])
            .args(["--served-model-name", MODEL, "--block-size", "32", "--enforce-eager"])
            .args(["--max-num-seqs", "512", "--disable-log-stats", "--disable-uvicorn-access-log"])
            .args(["--port", &port.to_string()])
            .arg("--model")
            .arg(checkpoint)
            .args(match role {
                Role::Judge => {
                    ["--max-model-len", "512", "--limit-mm-per-prompt", r#"{"image": 1, "video": 0}"#]
                        .as_slice()
                }
                Role::Relevance => &["--runner", "pooling"],
            })
            .env("VLLM_CPU_KVCACHE_SPACE", "2")
            .env("VLLM_NO_USAGE_STATS", "1")
            .env("HF_HUB_OFFLINE", "1")
            .env_remove("RAYON_NUM_THREADS")
            .stdin(Stdio::piped())
            .stdout(words.try_clone()?)
            .stderr(words)
            .process_group(0);
        let child = command.spawn().with_context(|| format!("starting {}", python.display()))?;
        Ok(Self { child, url: format!("http://127.0.0.1:{port}"), log, killed: false })
    }

    /// Waits until it answers.
    pub(super) fn ready(mut self) -> anyhow::Result<Self> {
        doing("vLLM starts");
        let address = self.url.trim_start_matches("http://").to_owned();
        let begin = Instant::now();
        while begin.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait()? {
                bail!("vLLM ended with {status}:\n{}", self.last_words());
            }
            if healthy(&address) {
                return Ok(self);
            }
            std::thread::sleep(Duration::from_millis(250));
        }
        bail!("vLLM is not ready after {PATIENCE:?}:\n{}", self.last_words())
    }

    /// Ends it without notice, and the processes that it has started: they would go on without it.
    pub(super) fn kill(&mut self) -> anyhow::Result<()> {
        self.killed = true;
        let group = format!("-{}", self.child.id());
        let status = Command::new("kill").args(["-KILL", "--", &group]).status().context("running kill")?;
        ensure!(status.success(), "kill ended with {status}");
        ensure!(!self.child.wait()?.success(), "a killed vLLM ended well");
        Ok(())
    }

    fn last_words(&self) -> String {
        let log = std::fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log).into_owned();
        let last: Vec<&str> = log.lines().rev().take(15).collect();
        last.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Vllm {
    fn drop(&mut self) {
        // Nobody is left to be told.
        if !self.killed {
            let _ = self.kill();
        }
    }
}

/// Whether `GET /health` is answered with 200.
fn healthy(address: &str) -> bool {
    use std::io::{Read as _, Write as _};
    let ask = || -> std::io::Result<bool> {
        let mut stream = std::net::TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        write!(stream, "GET /health HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n")?;
        let mut answer = [0; 12];
        stream.read_exact(&mut answer)?;
        Ok(answer.ends_with(b" 200"))
    };
    ask().unwrap_or(false)
}
