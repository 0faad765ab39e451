//! The embedded suite at library level: what it reaches on a small Mini OS Bench, and that nothing depends on how it is
//! asked. Loaded once for all tests of this binary.

#![allow(clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod support;

use std::sync::OnceLock;

use cluegate::constitution::Constitution;
use cluegate::engine::open_suite;
use cluegate::eval::osbench::{OsbenchResult, run};
use cluegate::gate::JudgeProvider as _;
use cluegate::judge::{InspectOptions, Prepared, Report, Stages, Verdict};
use cluegate::mini::osbench::{SEED, Sample, samples};
use cluegate::mini::{Sampler, Situation, Style};
use cluegate::perception::{Call, Picture};
use cluegate::{Engine, EngineOptions};

use support::{Scenes, folder, noise, write_suite};

/// Violating, and as many borderline, pictures for each rule.
const PER_RULE: usize = 5;

struct Loaded {
    engine: Engine,
    prepared: Prepared,
    scenes: Scenes,
}

fn suite() -> &'static Loaded {
    static LOADED: OnceLock<Loaded> = OnceLock::new();
    LOADED.get_or_init(|| {
        // Nothing from memory: a picture that is judged again is to be judged.
        let options = EngineOptions { verdicts: None, ..EngineOptions::default() };
        let engine = Engine::open_with(None, &options).expect("the embedded suite loads");
        let prepared = engine.judge().prepare(&scene_rules()).expect("the constitution is known");
        Loaded { engine, prepared, scenes: Scenes::new() }
    })
}

fn scene_rules() -> Constitution {
    Constitution::shipped("scene").expect("the constitution is sound")
}

fn inspect_with(picture: &Picture, stages: Stages) -> Report {
    let options = InspectOptions { stages, ..InspectOptions::default() };
    suite().engine.judge().inspect(picture, &suite().prepared, &options).expect("a report")
}

fn inspect(picture: &Picture) -> Report {
    inspect_with(picture, Stages::ALL)
}

/// All of a report but its timings, which differ from run to run.
fn untimed(report: &Report) -> serde_json::Value {
    let mut value = serde_json::to_value(report).expect("JSON");
    value.as_object_mut().expect("an object").remove("timings_ms");
    value
}

/// A few pictures of each kind.
fn pictures() -> Vec<Picture> {
    let scenes = &suite().scenes;
    let drawn =
        |sample: &Sample| Picture::new(sample.picture(&scenes.world, Style::World).expect("a picture"));
    samples(&scenes.world, 77, 1).iter().map(drawn).collect()
}

fn bench(style: Style) -> OsbenchResult {
    let loaded = suite();
    let samples = samples(&loaded.scenes.world, SEED, PER_RULE);
    assert_eq!(samples.len(), 12 * 2 * PER_RULE);
    run(&loaded.scenes.world, &samples, style, (loaded.engine.judge(), &loaded.prepared), |_, _| ())
        .expect("a result")
}

// The floors are far below what the suite reaches on the whole benchmark: they catch a broken stage, not a bad day.
#[test]
fn the_worlds_own_pictures_are_judged_well() {
    let result = bench(Style::World);
    let (image, rule) = (result.image_level.f1(), result.rule_level.f1());
    println!("world: image-level F1 {image:.3}, rule-level F1 {rule:.3}, mistakes {:#?}", result.mistakes);
    assert_eq!(result.errors, [""; 0]);
    assert!(image >= 0.9 && rule >= 0.9, "F1 {image:.3} and {rule:.3}: {:#?}", result.mistakes);
}

#[test]
fn another_renderers_pictures_are_judged_well() {
    let result = bench(Style::Foreign);
    let rule = result.rule_level.f1();
    println!("foreign: rule-level F1 {rule:.3}, mistakes {:#?}", result.mistakes);
    assert_eq!(result.errors, [""; 0]);
    assert!(rule >= 0.85, "F1 {rule:.3}: {:#?}", result.mistakes);
}

/// Fails unless two reports say the same, each number within 1e-4: words, verdicts and boxes do not depend on what was
/// computed together.
#[track_caller]
fn assert_same(one: &serde_json::Value, other: &serde_json::Value) {
    use serde_json::Value;
    match (one, other) {
        (Value::Number(a), Value::Number(b)) => {
            let (a, b) = (a.as_f64().expect("a number"), b.as_f64().expect("a number"));
            // Places in pixels are larger numbers.
            assert!((a - b).abs() <= 1e-4 * a.abs().max(1.0), "{a} and {b}");
        }
        (Value::Array(a), Value::Array(b)) => {
            assert_eq!(a.len(), b.len(), "{one} and {other}");
            a.iter().zip(b).for_each(|(a, b)| assert_same(a, b));
        }
        (Value::Object(a), Value::Object(b)) => {
            assert!(a.keys().eq(b.keys()), "{one} and {other}");
            a.iter().for_each(|(key, value)| assert_same(value, &b[key]));
        }
        _ => assert_eq!(one, other),
    }
}

#[test]
fn neither_order_nor_callers_nor_tenants_change_a_report() {
    let pictures = pictures();
    let strict = {
        let rules = std::fs::read_to_string("src/constitution/shipped/scene.toml").expect("the shipped file");
        // Other thresholds, so that more statements get to the regions and the reasoning.
        let rules =
            rules.replacen("[[rule]]", "[thresholds]\nrelevance = 0.1\nalpha2 = 0.999\n\n[[rule]]", 1);
        Constitution::parse(&rules, "strict.toml").expect("the constitution is sound")
    };
    let judges = suite().engine.judges(true);
    let inspectors = [scene_rules(), strict].map(|rules| judges.inspector(rules).expect("known"));
    let work: Vec<(usize, usize)> = (0..2).flat_map(|i| (0..pictures.len()).map(move |p| (i, p))).collect();
    let inspect = |&(inspector, picture): &(usize, usize), tenant: usize| {
        let call = Call::new(format!("tenant {tenant}"));
        untimed(&inspectors[inspector].inspect(&pictures[picture], None, &call).expect("a report"))
    };
    let alone: Vec<_> = work.iter().rev().map(|item| inspect(item, 0)).collect();
    let callers = 16;
    let together: Vec<_> = std::thread::scope(|scope| {
        let share = |caller: usize| work.iter().enumerate().skip(caller).step_by(callers);
        let handles: Vec<_> = (0..callers)
            .map(|caller| {
                let inspect = &inspect;
                scope.spawn(move || {
                    share(caller).map(|(at, item)| (at, inspect(item, caller % 5))).collect::<Vec<_>>()
                })
            })
            .collect();
        handles.into_iter().flat_map(|handle| handle.join().expect("no panic")).collect()
    });
    assert_eq!(together.len(), work.len());
    for (at, report) in &together {
        assert_same(&alone[work.len() - 1 - at], report);
    }
    let most = suite().engine.statistics().judge.scores.largest_batch;
    assert!(most > 24, "questions of several callers were never computed together, at most {most} at once");
}

#[test]
fn a_copy_of_the_suite_on_disk_gives_the_same_reports() {
    let copy = folder();
    write_suite(copy.path(), true);
    let engine = Engine::open(Some(copy.path())).expect("the copy loads");
    assert_eq!(engine.judge().models(), suite().engine.judge().models());
    let prepared = engine.judge().prepare(&scene_rules()).expect("prepared");
    for picture in pictures().iter().step_by(3) {
        let report =
            engine.judge().inspect(picture, &prepared, &InspectOptions::default()).expect("a report");
        // The suite may be computing other tests' questions beside this one's, which moves the last digits.
        assert_same(&untimed(&report), &untimed(&inspect(picture)));
    }
    assert_eq!(
        engine.generator().expect("a generator").default_size(),
        suite().engine.generator().expect("a generator").default_size()
    );
}

#[test]
fn hardly_any_scene_counts_as_foreign_and_noise_does() {
    let loaded = suite();
    let domain = loaded.engine.domain().expect("the suite states its domain");
    let encoder = open_suite(None).expect("the suite").relevance().expect("a model");
    let foreign = |picture: &Picture| {
        domain.check_picture(picture, encoder.as_ref(), &Call::default()).expect("an answer").is_some()
    };
    let mut sampler = Sampler::new(&loaded.scenes.world, 2024);
    let mut refused = Vec::new();
    for number in 0..100_u64 {
        let scene = match number % 3 {
            0 => sampler.random(),
            1 => sampler.of("armed", Situation::Violating).expect("a rule"),
            _ => sampler.of("gambling", Situation::Borderline).expect("a rule"),
        };
        for style in [Style::World, Style::Foreign] {
            let pixels =
                cluegate::mini::render(&loaded.scenes.world, &scene, 224, style, number).expect("a picture");
            if foreign(&Picture::new(pixels)) {
                refused.push((number, style));
            }
        }
    }
    assert!(refused.len() < 4, "{} of 200 scenes were refused: {refused:?}", refused.len());
    assert!(foreign(&Picture::new(noise(224, 224))));
}

#[test]
fn each_stage_can_be_switched_off_and_then_costs_nothing() {
    let scenes = &suite().scenes;
    let picture = scenes.picture(&scenes.pair("woman", "cigarette", true));
    let whole = inspect(&picture);
    assert_eq!((whole.verdict(), whole.violated()), (Verdict::Unsafe, &["smoking".to_owned()][..]));
    assert!(whole.complete().is_some());
    let passes = |stages| {
        let report = inspect_with(&picture, stages);
        assert!(report.complete().is_none(), "a report without a stage is no permission");
        assert_eq!(report.stages(), stages);
        *report.passes()
    };
    let all = whole.passes().stages;
    assert!(all.relevance > 0 && all.detection > 0 && all.statements > 0);

    // Without the scan every rule is asked about.
    let unscanned = passes(Stages { relevance_scan: false, ..Stages::ALL }).stages;
    assert_eq!(unscanned.relevance, 0);
    assert!(unscanned.statements > all.statements, "{} > {}", unscanned.statements, all.statements);
    // Without debiasing one score decides each statement.
    let biased = passes(Stages { debias: false, crop: false, ..Stages::ALL });
    assert_eq!(
        (biased.stages.regions, biased.stages.detection, biased.stages.reasoning, biased.cascades),
        (0, 0, 0, 0)
    );
    // Without the comparison with no image every statement goes on to the regions.
    let uncompared = passes(Stages { no_image_comparison: false, ..Stages::ALL }).stages;
    assert!(uncompared.regions > all.regions, "{} > {}", uncompared.regions, all.regions);
    let unremoved = passes(Stages { region_comparison: false, ..Stages::ALL });
    assert_eq!(unremoved.stages.regions, 0);
    let unreasoned = passes(Stages { reasoning: false, no_image_comparison: false, ..Stages::ALL });
    assert_eq!((unreasoned.stages.reasoning, unreasoned.stages.rating, unreasoned.cascades), (0, 0, 0));
}
