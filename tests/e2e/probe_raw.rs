//! `cluegate probe` as the contract for comparison has it: whole prompts, texts and queries against what Hugging Face
//! transformers computed with the golden models.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use serde_json::Value;

use crate::support::{Run, command, finish, folder};

/// Golden folders of language models, with eyes and without.
const JUDGES: [&str; 16] = [
    "qwen2_vl",
    "qwen2_5_vl",
    "qwen3_vl",
    "awq",
    "internvl",
    "internvl_chat_qwen2",
    "internvl_chat_internlm2",
    "llava",
    "llava_next",
    "llava_next_mistral",
    "idefics3",
    "smolvlm",
    "llama",
    "mistral",
    "qwen2",
    "qwen3",
];
/// Tolerance relative to the largest value.
const TOLERANCE: f64 = 1e-4;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/models/goldens").join(name)
}

fn tensors(folder: &Path) -> HashMap<String, Tensor> {
    candle_core::safetensors::load(folder.join("expected.safetensors"), &Device::Cpu)
        .expect("expected tensors")
}

fn values(tensor: &Tensor) -> Vec<f64> {
    tensor.to_dtype(DType::F64).and_then(|t| t.flatten_all()?.to_vec1()).expect("values")
}

fn probe<S: AsRef<std::ffi::OsStr>>(arguments: impl IntoIterator<Item = S>) -> Run {
    finish(command().arg("probe").args(arguments))
}

fn cases(judge: &Path) -> Vec<Value> {
    let text = std::fs::read(judge.join("expected.json")).expect("expected answers");
    serde_json::from_slice(&text).expect("JSON")
}

fn raw(judge: &Path, case: &Value, more: &[&str]) -> Run {
    let mut command = command();
    command.args(["probe", "--format", "json", "--mllm"]).arg(judge.join("model"));
    if let Some(picture) = case["picture"].as_str() {
        command.arg("--image").arg(judge.join(format!("{picture}.png")));
    }
    command.args(["--raw-prompt", case["prompt"].as_str().expect("a prompt")]).args(more);
    finish(&mut command)
}

/// Share of Yes by logits, each word summed over the tokens whose text spells it.
fn share(top: &[Value], logits: &[f64]) -> f64 {
    let largest = logits.iter().copied().fold(f64::MIN, f64::max);
    let mass = |word: &str| -> f64 {
        let spells = |token: &&Value| {
            token["text"].as_str().is_some_and(|text| text.trim_start().eq_ignore_ascii_case(word))
        };
        let ids = top.iter().filter(spells).map(|token| token["id"].as_u64().expect("an id") as usize);
        ids.map(|id| (logits[id] - largest).exp()).sum()
    };
    mass("yes") / (mass("yes") + mass("no"))
}

#[test]
fn raw_prompts_give_the_references_tokens_logits_and_score() {
    for name in JUDGES {
        let judge = golden(name);
        let expected = tensors(&judge);
        for case in cases(&judge) {
            let what = format!("{name}: {}", case["name"]);
            let answer = raw(&judge, &case, &["--answers", "Yes,No", "--top", "100000"]).expect(0).json();
            let keys: Vec<_> = answer.as_object().expect("an object").keys().map(String::as_str).collect();
            assert_eq!(keys, ["score", "token_ids", "top"], "{what}");
            assert_eq!(answer["token_ids"], case["tokens"], "{what}");
            let key = format!("logits.{}", case["name"].as_str().expect("a name").replace(' ', "_"));
            let logits = values(&expected[&key]);
            let largest = logits.iter().fold(0.0, |most: f64, logit| most.max(logit.abs()));
            let top = answer["top"].as_array().expect("a list");
            assert_eq!(top.len(), logits.len(), "{what}");
            for token in top {
                let (id, logit) =
                    (token["id"].as_u64().expect("an id"), token["logit"].as_f64().expect("a number"));
                let difference = (logit - logits[id as usize]).abs() / largest;
                assert!(difference <= TOLERANCE, "{what}: token {id} is off by {difference}");
            }
            let sorted = top.windows(2).all(|pair| pair[0]["logit"].as_f64() >= pair[1]["logit"].as_f64());
            assert!(sorted, "{what}: the most probable tokens do not stand first");
            let score = answer["score"].as_f64().expect("a score");
            assert!((score - share(top, &logits)).abs() < TOLERANCE, "{what}: {score}");
        }
    }
}

#[test]
fn the_first_answer_is_scored_and_twenty_tokens_are_shown() {
    let judge = golden(JUDGES[0]);
    let case = &cases(&judge)[0];
    let plain = raw(&judge, case, &[]).expect(0).json();
    assert_eq!(plain["top"].as_array().map(Vec::len), Some(20));
    let turned = raw(&judge, case, &["--answers", "no,YES", "--top", "3"]).expect(0).json();
    assert_eq!(turned["top"].as_array().map(Vec::len), Some(3));
    let sum = plain["score"].as_f64().expect("a score") + turned["score"].as_f64().expect("a score");
    assert!((sum - 1.0).abs() < 1e-9, "{sum}");
    let picture = judge.join("wide.png");
    let people = probe([
        "--mllm".as_ref(),
        judge.join("model").as_os_str(),
        "--image".as_ref(),
        picture.as_os_str(),
        "--raw-prompt".as_ref(),
        case["prompt"].as_str().expect("a prompt").as_ref(),
    ])
    .expect(0)
    .stdout;
    assert!(
        people.starts_with("score 0.") && people.contains("43 tokens") && people.lines().count() == 23,
        "{people}"
    );
}

#[test]
fn other_precisions_give_nearly_the_same_score() {
    let judge = golden(JUDGES[0]);
    let case = &cases(&judge)[0];
    let score = |more: &[&str]| raw(&judge, case, more).expect(0).json()["score"].as_f64().expect("a score");
    let exact = score(&["--dtype", "f32", "--device", "cpu"]);
    let mut apart = false;
    for dtype in ["bf16", "f16"] {
        let other = score(&["--dtype", dtype]);
        assert!((other - exact).abs() < 0.05, "{dtype}: {other} instead of {exact}");
        apart |= other != exact;
    }
    assert!(apart, "the precision changes nothing");
}

#[test]
fn prompts_that_do_not_fit_their_picture_say_so() {
    let judge = golden(JUDGES[0]);
    let (seen, unseen) = (&cases(&judge)[0], &cases(&judge)[3]);
    assert!(seen["picture"].is_string() && unseen["picture"].is_null());
    let mark = "<|image_pad|>";
    let mut without = seen.clone();
    without["prompt"] = unseen["prompt"].clone();
    let mut twice = seen.clone();
    twice["prompt"] = seen["prompt"].as_str().expect("a prompt").replace(mark, &mark.repeat(2)).into();
    let mut blind = unseen.clone();
    blind["prompt"] = seen["prompt"].clone();
    let mut at_end = seen.clone();
    at_end["prompt"] = mark.into();
    let long = {
        let mut long = unseen.clone();
        long["prompt"] = "a cat ".repeat(2000).into();
        long
    };
    for (case, needed) in [
        (&without, ["0 place(s)", mark, "expected it once"]),
        (&twice, ["2 place(s)", mark, "expected it once"]),
        (&blind, ["1 place(s)", mark, "no picture"]),
        (&at_end, ["ends with its picture", "", ""]),
        (&long, ["tokens", "holds 512", ""]),
    ] {
        let run = raw(&judge, case, &[]).expect(2);
        assert_eq!(run.stdout, "");
        assert!(needed.iter().all(|word| run.stderr.contains(word)), "{needed:?}: {}", run.stderr);
    }
}

#[test]
fn answers_that_no_token_spells_are_refused() {
    let judge = golden(JUDGES[0]);
    let case = &cases(&judge)[0];
    for (answers, needed) in [
        ("Yes", "expected two words"),
        ("Yes,No,Maybe", "expected two words"),
        ("Yes,", "\"\""),
        ("Yes,yes", "different"),
        ("Yes,n\u{f8}", "letters a to z"),
        ("Yes,hippopotamus", "Hippopotamus"),
    ] {
        let run = raw(&judge, case, &["--answers", answers]).expect(2);
        assert!(run.stderr.contains(needed), "{answers}: {}", run.stderr);
        assert_eq!(run.stdout, "");
    }
}

#[test]
fn texts_give_the_references_cosines_and_logits() {
    let texts = ["a person on fire", "A Dog,  and a cat's toy!"];
    for (name, sigmoid) in [("clip/legacy", false), ("clip/current", false), ("siglip/first", true)] {
        let (model, expected) = (golden(name), tensors(&golden(name)));
        let embeddings = |key: &str| {
            let tensor = &expected[key];
            let width = tensor.dims()[1];
            values(tensor).chunks_exact(width).map(<[f64]>::to_vec).collect::<Vec<_>>()
        };
        let (pictures, known) = (embeddings("picture_embeds"), embeddings("text_embeds"));
        for (index, picture) in ["square", "wide", "tall"].iter().enumerate() {
            let mut command = command();
            command.args(["probe", "--format", "json", "--relevance"]).arg(&model);
            command.arg("--image").arg(golden("pixels").join(format!("{picture}.png")));
            command.args(texts.iter().flat_map(|text| ["--text", text]));
            let rows = finish(&mut command).expect(0).json();
            let rows = rows.as_array().expect("a list");
            assert_eq!(rows.len(), texts.len());
            for ((row, text), own) in rows.iter().zip(texts).zip([&known[0], &known[2]]) {
                assert_eq!(row["text"], text);
                let cosine: f64 = own.iter().zip(&pictures[index]).map(|(a, b)| a * b).sum();
                let got = row["cosine"].as_f64().expect("a cosine");
                // One grey level of the resize moves a random model that far.
                assert!((got - cosine).abs() < 2e-2, "{name}, {picture}, {text}: {got} instead of {cosine}");
                assert_eq!(row["logit"].is_number(), sigmoid, "{row}");
            }
            if sigmoid {
                // The logit is a line through the cosines.
                let logit = |row: &Value| row["logit"].as_f64().expect("a logit");
                let logits = values(&expected["logits"]);
                let count = known.len();
                let near = [0, 2].map(|text| (logits[index * count + text], logits[text * count + index]));
                for (row, (one, other)) in rows.iter().zip(near) {
                    let error = (logit(row) - one).abs().min((logit(row) - other).abs());
                    assert!(error < 0.5, "{name}, {picture}: {row}, expected {one} or {other}");
                }
            }
        }
    }
    let text =
        probe(["--relevance", &golden("clip/legacy").display().to_string(), "--image"].into_iter().chain([
            golden("pixels/wide.png").display().to_string().as_str(),
            "--text",
            "fire",
        ]))
        .expect(0)
        .stdout;
    assert!(text.starts_with("  cosine  text") && text.contains("fire"), "{text}");
}

#[test]
fn queries_give_the_references_boxes() {
    let (model, expected) = (golden("owlv2_large"), tensors(&golden("owlv2_large")));
    let queries = ["fire!", "a dog", "Person who holds a weapon and stands"];
    let find = |picture: &str, threshold: &str| {
        let mut command = command();
        command.args(["probe", "--threshold", threshold, "--detector"]).arg(&model);
        command.arg("--image").arg(golden("pixels").join(format!("{picture}.png")));
        command.args(queries.iter().flat_map(|query| ["--query", query]));
        command
    };
    let mut compared = 0;
    // Their longer edges.
    for (index, picture, side) in
        [(0, "square", 32.0), (1, "wide", 97.0), (2, "tall", 64.0), (5, "large", 150.0)]
    {
        let found = finish(find(picture, "0.3").args(["--format", "json"])).expect(0).json();
        let found = found.as_array().expect("a list");
        let read = |key: &str| values(&expected[&format!("found_{key}.{index}")]);
        let (scores, labels, boxes) = (read("scores"), read("labels"), read("boxes"));
        assert_eq!(found.len(), scores.len(), "{picture}");
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
        for (row, own) in found.iter().zip(order) {
            assert_eq!(row["query"], queries[labels[own] as usize], "{picture}: {row}");
            let score = row["score"].as_f64().expect("a score");
            assert!((score - scores[own]).abs() < TOLERANCE, "{picture}: {row}");
            let corners = row["box"].as_array().expect("four edges");
            for (edge, expected) in corners.iter().zip(&boxes[4 * own..4 * own + 4]) {
                let edge = edge.as_f64().expect("a number");
                assert!((edge - expected).abs() < TOLERANCE * side, "{picture}: {row}, expected {expected}");
            }
            compared += 1;
        }
    }
    assert!(compared > 40, "only {compared} boxes");
    let text = finish(&mut find("tall", "0.3")).expect(0).stdout;
    assert!(text.starts_with("score") && text.contains("a dog"), "{text}");
    let nothing = finish(&mut find("strip", "0.99")).expect(0).stdout;
    assert!(nothing.contains("nothing scores above 0.99"), "{nothing}");
    let out = finish(&mut find("tall", "1.5")).expect(2);
    assert!(out.stderr.contains("--threshold"), "{}", out.stderr);
}

#[test]
fn a_folder_of_another_kind_is_refused_by_its_family() {
    let picture = golden("pixels/wide.png").display().to_string();
    let at = |name: &str| golden(name).display().to_string();
    let (clip, owl, judge) = (at("clip/legacy"), at("owlv2"), at("qwen2_vl/model"));
    for (arguments, found) in [
        (["--mllm", &clip, "--raw-prompt", "a"], "clip"),
        (["--mllm", &owl, "--statement", "a cat"], "owlv2"),
        (["--relevance", &judge, "--text", "a"], "qwen2_vl"),
        (["--relevance", &owl, "--text", "a"], "owlv2"),
        (["--detector", &clip, "--query", "a"], "clip"),
    ] {
        let run = probe(arguments.into_iter().chain(["--image", &picture])).expect(2);
        assert!(run.stderr.contains("model_type") && run.stderr.contains(found), "{}", run.stderr);
    }
    let nowhere = probe(["--detector", "no-such-model", "--query", "a", "--image", &picture]).expect(2);
    assert!(nowhere.stderr.contains("no-such-model"), "{}", nowhere.stderr);
}

#[test]
fn arguments_that_do_not_belong_together_are_refused() {
    let out = folder();
    let bad = out.path().join("bad.png");
    std::fs::write(&bad, "not a picture").expect("a file");
    let bad = bad.to_str().expect("a name");
    let (judge, clip) =
        (golden("qwen2_vl/model").display().to_string(), golden("clip/legacy").display().to_string());
    let cases: [(&[&str], &str); 19] = [
        (&[], "--statement"),
        (&["--image", bad], "--raw-prompt"),
        (&["--statement", "a"], "--image"),
        (&["--relevance", &clip, "--image", bad], "--text"),
        (&["--text", "a", "--image", bad], "--relevance"),
        (&["--query", "a", "--image", bad], "--detector"),
        (&["--mllm", &judge, "--relevance", &clip, "--text", "a", "--image", bad], "cannot be used with"),
        (&["--statement", "a", "--raw-prompt", "b", "--image", bad], "cannot be used with"),
        (&["--relevance", &clip, "--statement", "a", "--image", bad], "cannot be used with"),
        (&["--detector", &clip, "--raw-prompt", "a"], "cannot be used with"),
        (&["--mllm", &judge, "--text", "a", "--image", bad], "cannot be used with"),
        (&["--statement", "a", "--answers", "A,B", "--image", bad], "cannot be used with"),
        (&["--statement", "a", "--top", "3", "--image", bad], "cannot be used with"),
        (&["--raw-prompt", "a", "--threshold", "0.2"], "cannot be used with"),
        (&["--mllm", &judge, "--raw-prompt", "a", "--dtype", "f23"], "f32, bf16, f16"),
        (&["--mllm", &judge, "--raw-prompt", "a", "--device", "gpu"], "cuda:N"),
        (&["--mllm", &judge, "--raw-prompt", "a", "--quantize", "q3"], "q8_0"),
        (&["--mllm", &judge, "--raw-prompt", "a", "--image", bad], "not an image"),
        (&["--relevance", &clip, "--text", "a", "--image", bad, "--quantize", "q8_0"], "--quantize"),
    ];
    for (arguments, needed) in cases {
        let run = probe(arguments).expect(2);
        assert!(run.stderr.contains(needed), "{arguments:?}: {}", run.stderr);
        assert_eq!(run.stdout, "");
    }
    let missing = probe(["--relevance", &clip, "--text", "a", "--image", "no-such.png"]).expect(2);
    assert!(missing.stderr.contains("no-such.png"), "{}", missing.stderr);
}

#[cfg(not(feature = "cuda"))]
#[test]
fn a_gpu_is_refused_by_a_build_that_has_none() {
    let judge = golden("qwen2_vl/model").display().to_string();
    let commands: [&[&str]; 4] = [
        &["probe", "--mllm", &judge, "--raw-prompt", "a", "--device", "cuda"],
        &["judge", "--device", "cuda:1", "nowhere.png"],
        &["eval", "osbench", "--device", "cuda"],
        &["doctor", "--device", "cuda"],
    ];
    for arguments in commands {
        let run = finish(command().args(arguments)).expect(2);
        let said = format!("{}{}", run.stdout, run.stderr);
        assert!(said.contains("--features cuda") && said.contains("cuda:"), "{arguments:?}: {run:#?}");
    }
}
