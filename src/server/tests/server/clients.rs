//! Real clients from PyPI, unmodified. `tests/clients/run` makes their environment and runs these.

use std::process::Stdio;

use cluegate_gate::fakes::picture;

use crate::support::{Drawn, Gateway, Scripted, Setup, png};

/// Runs `tests/clients/SCRIPT` and shows what it prints.
pub(crate) async fn run(script: &str, arguments: &[&str]) {
    let python = std::env::var("CLUEGATE_CLIENTS").unwrap_or_else(|_| "python3".to_owned());
    let path = format!("{}/../../tests/clients/{script}", env!("CARGO_MANIFEST_DIR"));
    let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
    let ended = tokio::task::spawn_blocking(move || {
        let mut command = std::process::Command::new(python);
        command.arg(path).args(arguments).env("NO_PROXY", "127.0.0.1").stdin(Stdio::null()).status().unwrap()
    });
    assert!(ended.await.unwrap().success(), "{script} failed");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs clients from PyPI: tests/clients/run"]
async fn openai_images() {
    // `sword:1` draws a sword as picture 1; `fail` draws nothing; all else a person, after two previews.
    let upstream = Scripted::new(|order, index| {
        let member = order.first + index;
        let prompt = &order.request.prompt;
        if prompt == "fail" {
            return Drawn::Failed("it is tired");
        }
        if *prompt == format!("sword:{member}") {
            return Drawn::Bytes(png(&picture(&[2], member as u8)));
        }
        let previews = vec![picture(&[3], 41), picture(&[3], 42)];
        Drawn::Previewed(previews, png(&picture(&[3], member as u8)))
    });
    let tables = "[upstream]\nkind = \"a1111\"\nurl = \"http://127.0.0.1:1\"\nmodel = \"scripted\"";
    let gateway = Gateway::start(Setup {
        // Previews that the policy asks for are judged however fast they come.
        head: "previews = [1, 2]",
        tables: "[tenant.t.client]\npreviews = true",
        config_tables: tables.to_owned(),
        upstream: Some(upstream),
        ..Setup::default()
    })
    .await;
    run("openai_images.py", &[&gateway.url, gateway.key.reveal()]).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs clients from PyPI: tests/clients/run"]
async fn comfyui_clients() {
    // Draws a sword where the prompt asks for one, else a person.
    let upstream = Scripted::new(|order, index| {
        let objects: &[usize] = if order.request.prompt == "a sword" { &[2] } else { &[3] };
        Drawn::Bytes(png(&picture(objects, (order.first + index) as u8)))
    });
    let head = "placeholder = \"none\"";
    let gateway = Gateway::start(Setup { head, upstream: Some(upstream), ..Setup::default() }).await;
    run("comfyui_clients.py", &[&gateway.url, gateway.key.reveal()]).await;
}
