//! Each example does what it says.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use cluegate::gate::{MemberOutcome, Outcome, Reason};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use crate::generate::assert_pixels_only;
use crate::serve::{Gateway, new_key};
use crate::support::{Scenes, command, finish, folder, judge, run};

// The examples as they are, compiled into this binary: their `main` only adds arguments and printing.
#[allow(dead_code)]
#[path = "../../examples/drive_a_generator.rs"]
mod drive_a_generator;
#[allow(dead_code)]
#[path = "../../examples/judge_a_picture.rs"]
mod judge_a_picture;
#[allow(dead_code)]
#[path = "../../examples/loop_of_your_own.rs"]
mod loop_of_your_own;
#[allow(dead_code)]
#[path = "../../examples/per_tenant_policies.rs"]
mod per_tenant_policies;
#[allow(dead_code)]
#[path = "../../examples/regenerate_on_violation.rs"]
mod regenerate_on_violation;

fn policy(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/policies").join(name)
}

#[test]
fn judge_a_picture_names_the_violated_rule() {
    let (scenes, out) = (Scenes::new(), folder());
    let armed = scenes.save(&scenes.pair("man", "knife", true), out.path(), "armed.png");
    assert_eq!(judge_a_picture::judge(&armed).expect("a report").violated(), ["armed"]);
    let missing = judge_a_picture::judge(&out.path().join("missing.png")).expect_err("there is no such file");
    assert!(missing.to_string().contains("No such file"), "{missing}");
}

#[test]
fn regenerate_on_violation_stops_the_first_drawing_and_releases_the_second() {
    let out = folder();
    let file = out.path().join("cat.png");
    let outcome = regenerate_on_violation::serve(&file).expect("an outcome");
    let decision = outcome.decision();
    assert_eq!(
        (decision.outcome, decision.reason),
        (Outcome::Released, Reason::Safe),
        "{}",
        decision.message
    );
    let [first, second] = decision.attempts.as_slice() else { panic!("{:?}", decision.attempts) };
    // Six of eight steps are three quarters.
    let preview = &first.previews[0];
    assert_eq!((preview.step, preview.total, preview.aborted), (6, 8, true));
    assert_eq!(preview.judgment.violated, ["armed-animal"]);
    assert!(first.picture.is_none(), "an aborted attempt has no picture");
    assert!(!second.previews[0].aborted && second.picture.is_some());
    assert_pixels_only(&file);
}

#[test]
fn a_loop_of_your_own_is_the_hooks_page_and_draws_again() {
    let page = include_str!("../../hooks/rust/README.md");
    let lines: Vec<&str> = page.split("```rust\n").nth(1).expect("a block").lines().collect();
    let lines = &lines[..lines.iter().position(|line| *line == "```").expect("its end")];
    let example = include_str!("../../examples/loop_of_your_own.rs");
    let code: Vec<&str> = example.lines().map(str::trim_start).collect();
    assert!(lines.len() == 3 && code.windows(3).any(|three| three == lines), "{lines:#?}");
    let out = folder();
    let file = out.path().join("cat.png");
    let outcome = loop_of_your_own::serve("a cat and an axe", 0, &file).expect("an outcome");
    let decision = outcome.decision();
    assert_eq!(
        (decision.outcome, decision.reason),
        (Outcome::Released, Reason::Safe),
        "{}",
        decision.message
    );
    assert_eq!(decision.attempts.len(), 2);
    assert_pixels_only(&file);
}

#[test]
fn drive_a_generator_decides_each_picture_and_writes_the_released_ones() {
    let out = folder();
    let outcomes = drive_a_generator::draw("a dog and a ball on a beach", 2, out.path()).expect("outcomes");
    assert_eq!(outcomes.len(), 2);
    for (member, outcome) in outcomes.iter().enumerate() {
        let file = out.path().join(format!("{member}.png"));
        assert_eq!(file.exists(), matches!(outcome, MemberOutcome::Released(_)));
        if file.exists() {
            assert_pixels_only(&file);
        }
        assert!(!outcome.decision().attempts.is_empty());
    }
    let log = std::fs::read_to_string(out.path().join("decisions.jsonl")).expect("a log");
    assert_eq!(log.lines().count(), 2);
}

#[test]
fn per_tenant_policies_let_one_see_what_another_may_not() {
    let (scenes, out) = (Scenes::new(), folder());
    let in_bed = scenes.save(&scenes.pair("man", "bed", true), out.path(), "bed.png");
    let told = per_tenant_policies::judge_for(&["readers", "illustrators"], &in_bed).expect("outcomes");
    let reasons: Vec<Reason> = told.iter().map(|outcome| outcome.decision().reason).collect();
    assert_eq!(reasons, [Reason::TriesExhausted, Reason::Allowed], "{:#?}", told[0].decision().violated);
}

/// A page of the web UI's API: it draws a man, and one who holds a knife if the prompt names one.
fn stable_diffusion_server() -> String {
    let scenes = Scenes::new();
    let draw = |touching| {
        let mut file = std::io::Cursor::new(Vec::new());
        let picture = scenes.draw(&scenes.pair("man", "knife", touching), cluegate::mini::Style::World);
        picture.write_to(&mut file, image::ImageFormat::Png).expect("a file");
        BASE64_STANDARD.encode(file.into_inner())
    };
    let drawings = [draw(false), draw(true)];
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let drawings = drawings.clone();
            std::thread::spawn(move || while answer(&stream, &drawings).is_some() {});
        }
    });
    url
}

/// Answers one request; none if there is no further one.
fn answer(stream: &TcpStream, [apart, armed]: &[String; 2]) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let (mut head, mut length) = (String::new(), 0);
    while !head.ends_with("\r\n\r\n") {
        let begin = head.len();
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
        let line = head[begin..].to_ascii_lowercase();
        length = line
            .strip_prefix("content-length:")
            .map_or(length, |value| value.trim().parse().expect("a length"));
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let asked: Value = serde_json::from_slice(&body).unwrap_or_default();
    let told = if head.starts_with("POST /sdapi/v1/txt2img") {
        let picture = if asked["prompt"].as_str()?.contains("holding") { armed } else { apart };
        let info = json!({ "seed": 1, "all_seeds": [1], "infotexts": [""], "index_of_first_image": 0 });
        json!({ "images": [picture], "parameters": {}, "info": info.to_string() })
    } else if head.starts_with("GET /sdapi/v1/progress") {
        json!({ "progress": 0.5, "eta_relative": 0.0, "state": {}, "current_image": null, "textinfo": null })
    } else {
        json!([])
    };
    let told = told.to_string();
    let mut stream = stream;
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        told.len()
    );
    stream.write_all((head + &told).as_bytes()).ok()
}

#[test]
fn wrap_a_stable_diffusion_server_gates_what_it_draws() {
    let out = folder();
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/wrap_a_stable_diffusion_server");
    std::fs::copy(example.join("policy.toml"), out.path().join("policy.toml")).expect("a policy");
    // As it stands, but for the two addresses.
    let config = std::fs::read_to_string(example.join("gate.toml")).expect("a configuration");
    let config = config.replace("\"127.0.0.1:7800\"", "\"127.0.0.1:0\"");
    let config = config.replace("http://127.0.0.1:7860", &stable_diffusion_server());
    assert!(!config.contains("7860") && config.contains("127.0.0.1:0"));
    std::fs::write(out.path().join("gate.toml"), config).expect("a file");
    let [kids, news] =
        ["kids", "newsroom"].map(|tenant| new_key(out.path(), tenant, tenant).expect(0).stdout);
    let mut serve = command();
    let serve = serve.args(["serve", "--config"]).arg(out.path().join("gate.toml"));
    let gateway = Gateway::of(serve.current_dir(out.path()).stderr(Stdio::piped()));
    for (key, prompt, outcome) in [
        (&kids, "a man and a knife", ["released", "safe"]),
        (&kids, "a man holding a knife", ["withheld", "violation"]),
        (&news, "a man holding a knife", ["released", "safe"]),
    ] {
        let (status, told) =
            gateway.call("POST", "/sdapi/v1/txt2img", key.trim(), &json!({ "prompt": prompt }));
        assert_eq!(status, 200, "{told}");
        let info: Value = serde_json::from_str(told["info"].as_str().expect("info")).expect("JSON");
        let told = &info["cluegate"]["pictures"][0];
        assert_eq!(json!([told["outcome"], told["reason"]]), json!(outcome), "{prompt}: {told}");
    }
}

#[test]
fn the_policies_and_rules_are_sound() {
    for (name, tenants) in
        [("childrens-service.toml", &["readers", "illustrators"][..]), ("newsroom.toml", &["desk"])]
    {
        let checked = run([Path::new("policy"), Path::new("check"), &policy(name)]).expect(0);
        assert!(
            tenants.iter().all(|tenant| checked.stdout.contains(&format!("{tenant}: "))),
            "{}",
            checked.stdout
        );
    }
    let rules = policy("newsroom-rules.toml");
    let checked = run([Path::new("constitution"), Path::new("check"), &rules]).expect(0);
    assert!(checked.stdout.contains("newsroom: 4 rules"), "{}", checked.stdout);
}

#[test]
fn the_newsrooms_rules_know_their_exception() {
    let (scenes, out) = (Scenes::new(), folder());
    let man = scenes.save(&scenes.pair("man", "gun", true), out.path(), "man.png");
    let officer = scenes.save(&scenes.pair("police officer", "gun", true), out.path(), "officer.png");
    let rules = policy("newsroom-rules.toml");
    let lines =
        judge(&["--constitution", rules.to_str().expect("a name")], &[&man, &officer]).expect(1).lines();
    assert_eq!(lines[0]["violated"], serde_json::json!(["armed-civilian"]));
    assert_eq!(lines[1]["verdict"], "safe", "{}", lines[1]);
    let rule =
        lines[1]["rules"].as_array().expect("rules").iter().find(|rule| rule["id"] == "armed-civilian");
    assert_eq!(rule.expect("the rule")["outcome"], "excepted");
}

#[test]
fn the_newsrooms_policy_draws() {
    let out = folder();
    let draw = ["generate", "--prompt", "a man holding a gun on a street", "--tenant", "desk", "--seed", "3"];
    let run = finish(
        command().args(draw).arg("--policy").arg(policy("newsroom.toml")).arg("--out").arg(out.path()),
    );
    assert!(
        run.code < 2 && run.stdout.contains("(") && out.path().join("decisions.jsonl").exists(),
        "{run:#?}"
    );
}
