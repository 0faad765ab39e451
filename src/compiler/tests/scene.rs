//! The embedded text model on prose about scenes: through the whole compiler, by the path that any checkpoint takes.

// Helpers of tests are tests too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Instant;

use cluegate_cache::Cache;
use cluegate_compiler::grammar::Formula;
use cluegate_compiler::{Compilation, Compiled, Compiler, Options, Templates};
use cluegate_constitution::Constitution;
use cluegate_models::{FileTree, LanguageModel, LoadOptions, load_text};
use cluegate_perception::{Call, CompletionRequest, Prefix, Prompt, VisionLanguageModel as _};
use serde::Deserialize;

/// Share of the held-out wordings that has to come out right.
const RIGHT: usize = 90;

#[derive(Deserialize)]
struct Written {
    wording: String,
    chain: String,
}

#[derive(Deserialize)]
struct Sets {
    held_out: Vec<Written>,
    dev: Vec<Written>,
    later: Vec<Written>,
}

fn mini(part: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../mini").join(part)
}

static MODEL: LazyLock<LanguageModel> = LazyLock::new(|| {
    load_text(&FileTree::open(mini("suite/text")).unwrap(), &LoadOptions::default()).unwrap()
});

/// Compiles wordings, one list item each; gives them by the numbers of their lines.
fn compile<'a>(wordings: impl IntoIterator<Item = &'a str>) -> (Compilation, BTreeMap<usize, Compiled>) {
    let prose: String = wordings.into_iter().map(|wording| format!("- {wording}\n")).collect();
    let templates = Templates::load(&mini("suite/text/templates")).unwrap();
    let cache = Cache::in_memory();
    let options = Options { parallel: 2, ..Options::default() };
    let compilation = Compiler::new(&*MODEL, &templates, &cache, options).compile(&prose, &|| {}).unwrap();
    let rules = compilation.compiled.iter().map(|rule| (rule.source.line, rule.clone())).collect();
    (compilation, rules)
}

/// Whether both are violated by the same pictures, statements being what a picture makes true or false.
fn same_truth_table(a: &Formula, b: &Formula) -> bool {
    let names: BTreeSet<&str> = a.statements().chain(b.statements()).collect();
    let names: Vec<&str> = names.into_iter().collect();
    assert!(names.len() <= 20, "too many statements for a truth table: {names:?}");
    let violated = |formula: &Formula, world: u32| {
        let holds = |name: &String| world >> names.iter().position(|n| n == name).unwrap() & 1 == 1;
        let all = |links: &[Vec<String>]| links.iter().all(|any| any.iter().any(holds));
        all(&formula.preconditions) && (formula.unless.is_empty() || !all(&formula.unless))
    };
    (0..1u32 << names.len()).all(|world| violated(a, world) == violated(b, world))
}

/// Counts the wordings whose chain is right, each compiled as the only rule of its prose, and says what is wrong with the
/// others.
fn right(part: &str, written: &[Written]) -> usize {
    let begun = Instant::now();
    let mut count = 0;
    for entry in written {
        let expected = Formula::parse(&entry.chain).unwrap();
        let (compilation, _) = compile([entry.wording.as_str()]);
        match (compilation.compiled.as_slice(), compilation.failed.as_slice()) {
            ([rule], []) if same_truth_table(&rule.formula(), &expected) => count += 1,
            ([rule], []) => println!(
                "{:?}\n  kept {:?}\n  got  {}\n  want {expected}",
                entry.wording,
                rule.text,
                rule.formula()
            ),
            (_, failed) => println!(
                "{:?}\n  {:?}, left out {:?}\n  want {expected}",
                entry.wording, failed, compilation.left_out
            ),
        }
    }
    println!("{part}: {count} of {} right, {:.1} s", written.len(), begun.elapsed().as_secs_f64());
    count
}

fn sets() -> Sets {
    toml::from_str(&std::fs::read_to_string(mini("world/prose_rules.toml")).unwrap()).unwrap()
}

#[test]
fn truth_tables_are_told_apart() {
    let same = |a: &str, b: &str| same_truth_table(&Formula::parse(a).unwrap(), &Formula::parse(b).unwrap());
    assert!(same("[[a] or [b]] and [c]", "[c] and [[b] or [a]]"));
    assert!(same("[a] and [[a] or [b]]", "[a]"));
    assert!(!same("[a] and [b]", "[[a] or [b]]"));
    assert!(!same("[a] unless [b]", "[a]"));
    assert!(!same("[a dog is visible]", "[a cat is visible]"));
}

#[test]
fn nine_of_ten_held_out_wordings_get_the_right_chain() {
    let written = sets().held_out;
    assert_eq!(written.len(), 100);
    assert!(right("held out", &written) >= RIGHT);
}

#[test]
fn so_do_those_that_the_training_data_were_mended_with() {
    let written = sets().dev;
    assert!(right("dev", &written) * 100 >= written.len() * RIGHT);
}

/// Prose that nobody had in mind when the training data were written.
#[test]
fn wordings_written_after_the_training_mostly_do() {
    let written = sets().later;
    assert!(right("later", &written) * 100 >= written.len() * 85);
}

/// The rules of the scene constitution in everyday words, in its order.
const EVERYDAY: [&str; 12] = [
    "Nobody, human or animal, may be set ablaze in our pictures.",
    "People waving weapons around are a no-go.",
    "Animals must not come into contact with weapons.",
    "We never show bleeding people or animals.",
    "Nobody should be seen boozing.",
    "We are a health insurer, so please no smokers.",
    "Drug use has no place on our site.",
    "Keep folks in bed out of it, that is private.",
    "Nobody takes a bath in our brochure!",
    "gambling stuff gets blocked",
    "Skulls and coffins scare our readers, leave them out.",
    "Don't put boys, girls or babies together with booze.",
];

/// Each rule of the shipped constitution, in its own words and in everyday ones, gives all that the judge reads of it: the
/// text, the statements in their order and their central words. So the compiled rules judge every picture as those do that
/// were written by hand.
#[test]
fn the_scene_s_rules_compile_to_what_was_written_by_hand() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../constitution/shipped/scene.toml");
    let scene = Constitution::parse(&std::fs::read_to_string(path).unwrap(), "scene.toml").unwrap();
    assert_eq!(scene.rules().len(), EVERYDAY.len());
    let own = scene.rules().iter().map(|rule| rule.text.as_str()).collect::<Vec<_>>();
    for wordings in [own, EVERYDAY.to_vec()] {
        let (compilation, rules) = compile(wordings);
        assert_eq!((compilation.compiled.len(), compilation.failed.len()), (EVERYDAY.len(), 0));
        for (index, rule) in scene.rules().iter().enumerate() {
            let compiled = &rules[&(index + 1)];
            assert_eq!(compiled.text, rule.text);
            assert!(compiled.objectiveness >= 9 && compiled.unless.is_empty(), "{}", compiled.text);
            let found: Vec<Vec<(&str, &[String])>> = compiled
                .preconditions
                .iter()
                .map(|any| any.iter().map(|s| (&*s.text, &*s.central)).collect())
                .collect();
            let expected: Vec<Vec<(&str, &[String])>> = rule
                .preconditions
                .iter()
                .map(|link| link.any.iter().map(|s| (&*s.text, &*s.central)).collect())
                .collect();
            assert_eq!(found, expected, "{}", rule.id);
        }
    }
}

/// Rules that leave open what they mean are rated low and revised; the revision is objective by the model's own rating.
#[test]
fn vague_rules_are_rated_low_and_made_objective() {
    let vague = ["No dangerous things near kids.", "Avoid inappropriate drinking.", "Nothing scary, please."];
    let plain = ["The image should not show a person holding a weapon.", "Pictures of guns are not allowed."];
    let (_, rules) = compile(vague.into_iter().chain(plain));
    for (line, rule) in rules {
        if line <= vague.len() {
            assert!(rule.history[0].rating < 5, "{rule:?}");
            assert!(rule.kept > 0 && rule.objectiveness >= 9, "{rule:?}");
            assert!(rule.text.starts_with("The image should not show "), "{rule:?}");
        } else {
            assert!(rule.kept == 0 && rule.objectiveness >= 9, "{rule:?}");
        }
    }
}

/// One entry of `scene_golden.json`, which `mini/training/text_golden.py` writes.
#[derive(Deserialize)]
struct Case {
    prompt: String,
    tokens: Vec<u32>,
    logits: Vec<f32>,
    answer: String,
}

/// The same tokens, logits and answers as Hugging Face transformers gives for the suite's folder.
#[test]
fn the_embedded_model_answers_as_transformers_does() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scene_golden.json");
    let cases: Vec<Case> = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    for case in cases {
        let prompt = Prompt::new(Prefix { picture: None, text: "".into() }, case.prompt.as_str());
        assert_eq!(MODEL.prompt_tokens(&prompt).unwrap(), case.tokens, "{}", case.prompt);
        let logits = MODEL.next_logits(std::slice::from_ref(&prompt)).unwrap().remove(0);
        for (found, expected) in logits.iter().step_by(16).zip(&case.logits) {
            assert!((found - expected).abs() < 2e-3, "{}: {found}, expected {expected}", case.prompt);
        }
        let request = CompletionRequest { prompt, max_tokens: 160 };
        let answer = MODEL.complete(&[request], &Call::default()).unwrap().remove(0);
        assert_eq!(answer.text, case.answer, "{}", case.prompt);
    }
}
