//! Policies that want signed files, and what they are signed with.

use std::fs;

use crate::support::{command, finish, folder};

#[test]
#[cfg(not(feature = "c2pa"))]
fn a_policy_that_wants_signed_files_is_refused_and_says_how_to_build_for_it() {
    let root = folder();
    let write = |name: &str, text: &str| fs::write(root.path().join(name), text).expect("a file");
    write("policy.toml", "[tenant.default]\nprovenance = \"c2pa\"\n");
    write("gate.toml", "policy = \"policy.toml\"\n[keys]\nanonymous = \"default\"\n");
    let build = "cargo build --release --features c2pa";
    let policy = root.path().join("policy.toml");
    let mut generate = command();
    generate
        .args(["generate", "--prompt", "a cat", "--policy"])
        .arg(&policy)
        .arg("--out")
        .arg(root.path().join("out"));
    let refused = finish(&mut generate).expect(2).stderr;
    assert!(refused.contains("tenant default") && refused.contains(build), "{refused}");
    assert!(!root.path().join("out/picture-000.png").exists());
    let file = root.path().join("gate.toml");
    let check = || finish(command().args(["config", "check", "--json"]).arg(&file)).expect(1).json();
    let problems = check()["problems"].to_string();
    assert!(problems.contains("provenance = ") && problems.contains(build), "{problems}");
    let refused = finish(command().args(["serve", "--check", "--config"]).arg(&file)).expect(2).stderr;
    assert!(refused.contains(build), "{refused}");
    // A certificate and a key do not help such a build, whatever is in them.
    write(
        "gate.toml",
        "policy = \"policy.toml\"\n[keys]\nanonymous = \"default\"\n[provenance]\ncertificate = \"a.pem\"\nkey = \"a.key\"\n",
    );
    let problems = check()["problems"].to_string();
    assert!(
        problems.contains("was built without content credentials") && problems.contains(build),
        "{problems}"
    );
    let told = finish(command().args(["doctor", "--config"]).arg(&file)).expect(2).stdout;
    assert!(told.contains("BAD  provenance this program was built without content credentials"), "{told}");
    for start in ["serve", "generate"] {
        let mut command = command();
        match start {
            "serve" => command.args(["serve", "--config"]).arg(&file),
            _ => command
                .args(["generate", "--prompt", "a cat", "--out", "x", "--config"])
                .arg(&file)
                .current_dir(&root),
        };
        let refused = finish(&mut command).expect(2).stderr;
        assert!(
            refused.contains("[provenance] cannot be used") && refused.contains(build),
            "{start}: {refused}"
        );
    }
}

#[test]
fn a_key_that_stands_in_the_configuration_itself_is_never_shown() {
    let root = folder();
    let file = root.path().join("gate.toml");
    let text = "[keys]\nanonymous = \"default\"\n[provenance]\ncertificate = \"a.pem\"\n\
                key = \"\"\"-----BEGIN PRIVATE KEY-----\nMIGHsecret\n-----END PRIVATE KEY-----\"\"\"\n";
    fs::write(&file, text).expect("a file");
    let shown = finish(command().args(["config", "show", "--config"]).arg(&file)).expect(2);
    let checked = finish(command().args(["config", "check"]).arg(&file)).expect(1);
    for told in [shown.stdout, shown.stderr, checked.stdout, checked.stderr] {
        assert!(!told.contains("MIGH"), "{told}");
    }
}
