//! The embedded suite at library level: what it reaches on a small Mini OS Bench, and that nothing depends on how it is
//! asked. Loaded once for all tests of this binary.

#![allow(clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod support;

use std::sync::OnceLock;

use cluegate::Engine;
use cluegate::constitution::Constitution;
use cluegate::engine::open_suite;
use cluegate::eval::osbench::{OsbenchResult, run};
use cluegate::judge::{InspectOptions, Prepared, Report, Stages, Verdict};
use cluegate::mini::osbench::{SEED, Sample, samples};
use cluegate::mini::{Sampler, Situation, Style};
use cluegate::perception::{Call, Picture};

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
        let engine = Engine::open(None).expect("the embedded suite loads");
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

#[test]
fn neither_order_nor_threads_change_a_report() {
    let pictures = pictures();
    let forwards: Vec<_> = pictures.iter().map(|picture| untimed(&inspect(picture))).collect();
    let mut backwards: Vec<_> = pictures.iter().rev().map(|picture| untimed(&inspect(picture))).collect();
    backwards.reverse();
    assert_eq!(forwards, backwards);
    let judge = |half: &[Picture]| half.iter().map(|picture| untimed(&inspect(picture))).collect::<Vec<_>>();
    let (left, right) = pictures.split_at(pictures.len() / 2);
    let together = std::thread::scope(|scope| {
        let left = scope.spawn(|| judge(left));
        let right = judge(right);
        [left.join().expect("no panic"), right].concat()
    });
    assert_eq!(forwards, together);
}

#[test]
fn a_copy_of_the_suite_on_disk_gives_identical_reports() {
    let copy = folder();
    write_suite(copy.path(), true);
    let engine = Engine::open(Some(copy.path())).expect("the copy loads");
    assert_eq!(engine.judge().models(), suite().engine.judge().models());
    let prepared = engine.judge().prepare(&scene_rules()).expect("prepared");
    for picture in pictures().iter().step_by(3) {
        let report =
            engine.judge().inspect(picture, &prepared, &InspectOptions::default()).expect("a report");
        assert_eq!(untimed(&report), untimed(&inspect(picture)));
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
