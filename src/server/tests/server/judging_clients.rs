//! Real clients, unmodified, of the fronts that judge what a client brings. `tests/clients/run` makes their environments and
//! runs these.

use std::path::Path;
use std::process::{Command, Stdio};

use cluegate_gate::fakes::picture;

use crate::support::{Gateway, Setup, png};

/// Runs a client against a gateway that blocks swords, redacts beer and tells the evidence.
async fn run(program: String, script: &str) {
    let tables = "[tenant.t.action.rule]\nbeer = \"redact\"\n[tenant.t.client]\nevidence = true\n";
    let gateway = Gateway::start(Setup { tables, ..Setup::default() }).await;
    let folder = tempfile::tempdir().unwrap();
    for (name, objects) in [("clean", &[3][..]), ("beer", &[1]), ("sword", &[2])] {
        std::fs::write(folder.path().join(format!("{name}.png")), png(&picture(objects, 7))).unwrap();
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/clients").join(script);
    let mut command = Command::new(program);
    command.arg(script).args([&gateway.url, gateway.key.reveal()]).arg(folder.path());
    command.env("NO_PROXY", "127.0.0.1").stdin(Stdio::null());
    let ended = tokio::task::spawn_blocking(move || command.status().unwrap()).await.unwrap();
    let log = std::fs::read_to_string(folder.path().join("litellm.log")).unwrap_or_default();
    assert!(ended.success(), "the client failed; {log}");
}

fn python(environment: &str) -> String {
    std::env::var(environment).unwrap_or_else(|_| "python3".to_owned())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs curl: tests/clients/run"]
async fn curl_judge() {
    run("sh".to_owned(), "curl_judge.sh").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs clients from PyPI: tests/clients/run"]
async fn openai_moderations() {
    run(python("CLUEGATE_CLIENTS"), "openai_moderations.py").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs clients from PyPI: tests/clients/run"]
async fn litellm_guardrail() {
    run(python("CLUEGATE_LITELLM"), "litellm_guardrail.py").await;
}
