//! Plugins in a gateway that runs: a judge that is added by SIGHUP keeps pictures back from then on.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::gateway::{Gateway, Setup};
use crate::support::finish;

/// The folder of the example plugins, built.
fn examples() -> PathBuf {
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("plugins");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--release", "--offline", "--manifest-path"]);
    cargo.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("plugins/examples/Cargo.toml"));
    finish(cargo.arg("--target-dir").arg(&place)).expect(0);
    place.join("release")
}

#[test]
fn a_judge_is_added_while_the_gateway_runs() {
    let setup = Setup::new("");
    let mut gateway = Gateway::start(&setup, &[], &[]);
    let (status, _) = gateway.generate(&setup.open, "a cat and a tree", &[]);
    assert_eq!(status, 200);
    let before = fs::read_to_string(setup.config()).expect("a file");
    let table = format!(
        "[plugins]\npath = [{:?}]\nallow_unlisted = true\n[[plugins.judge]]\nplugin = \"unsure\"\n\
         [[plugins.use]]\nname = \"unsure\"\nlibrary = \"unruly\"\nisolated = true\n\
         [plugins.use.config]\ndoes = \"crash\"\n",
        examples()
    );
    fs::write(setup.config(), before + &table).expect("a file");
    let said = gateway.hang_up("opened the plugins unsure");
    // It crashes at every picture, in a process of its own: no picture gets out, and the gateway lives.
    for _ in 0..2 {
        let (status, answer) = gateway.generate(&setup.open, "a cat and a tree", &[]);
        assert!(status != 200 || !answer.to_string().contains("b64_json"), "{status} {answer} {said:?}");
    }
}
