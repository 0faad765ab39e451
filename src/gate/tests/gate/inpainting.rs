//! Parts of pictures that are drawn anew.

use std::sync::{Arc, Mutex};

use cluegate_gate::fakes::{SIDE, World, gate, picture, shows};
use cluegate_gate::policy::RedactionMethod;
use cluegate_gate::{
    DrawJob, Drawn, Gate, GateError, Generator, GeneratorError, Instruction, MemoryLog, RequestInfo, StepHook,
};
use cluegate_perception::Picture;
use image::imageops;

const TABLES: &str = "[tenant.t.redact]\nmethod = \"inpaint\"\n[tenant.t.action]\ndefault = \"redact\"";
const STEPS: u32 = 10;

/// What a [`Painter`] does.
#[derive(Clone, Copy)]
enum Paints {
    /// Nothing of the world's objects.
    Ground,
    /// The same, half as large.
    Small,
    /// The object again.
    Again,
    Fails,
    Panics,
    /// It does not draw from pictures.
    Cannot,
    /// It draws until it is told to stop.
    Slow,
}

struct Painter {
    paints: Paints,
    jobs: Mutex<Vec<DrawJob>>,
}

impl Generator for Painter {
    fn fingerprint(&self) -> &str {
        "painter"
    }

    fn draws_from_pictures(&self) -> bool {
        !matches!(self.paints, Paints::Cannot)
    }

    fn draw(&self, jobs: &[DrawJob], hook: &mut dyn StepHook) -> Vec<Result<Drawn, GeneratorError>> {
        self.jobs.lock().unwrap().extend_from_slice(jobs);
        let ground = picture(&[], 3);
        let source = jobs[0].options.source.as_ref().unwrap();
        let mut step = 0;
        let mut go_on = || {
            step += 1;
            hook.step(0, step, STEPS, None) == cluegate_gate::Step::Continue
        };
        let drawn = match self.paints {
            Paints::Ground => (0..STEPS).all(|_| go_on()).then_some(ground),
            Paints::Small => {
                let half = imageops::resize(ground.pixels(), SIDE / 2, SIDE / 2, imageops::Triangle);
                Some(Picture::new(half))
            }
            Paints::Again => Some(source.picture.clone()),
            Paints::Fails => return vec![Err(GeneratorError::new("out of paint"))],
            Paints::Panics => panic!("the brush broke"),
            Paints::Cannot => panic!("asked to draw from a picture"),
            Paints::Slow => {
                while go_on() {
                    std::thread::yield_now();
                }
                None
            }
        };
        vec![Ok(drawn.map_or(Drawn::Stopped, Drawn::Finished))]
    }
}

fn painted(paints: Paints, head: &str) -> (Gate, Arc<MemoryLog>, Arc<Painter>) {
    let painter = Arc::new(Painter { paints, jobs: Mutex::default() });
    let (gate, log) = gate(&World::new([]), head, TABLES);
    let shared: Arc<dyn Generator> = Arc::<Painter>::clone(&painter);
    (gate.with_painter(shared).unwrap(), log, painter)
}

/// Offers a smoker; what is released, and how each try hid what.
fn offer(gate: &Gate, log: &MemoryLog) -> (Picture, Vec<RedactionMethod>) {
    let mut session = gate.session(RequestInfo::new("t", "a person, a cigarette", 7, 1)).unwrap();
    session.drew(0, STEPS, STEPS);
    let Instruction::Release(released) = session.finished(0, picture(&[0, 3], 3)).unwrap() else {
        panic!("not released")
    };
    assert!(released.is_redacted() && !shows(released.pixels(), 0) && shows(released.pixels(), 3));
    let records = log.records();
    let methods = records[0].attempts[0].redactions.iter().map(|one| one.method).collect();
    (released.picture().clone(), methods)
}

#[test]
fn what_makes_a_picture_violate_a_rule_is_drawn_anew_and_nothing_else() {
    for paints in [Paints::Ground, Paints::Small] {
        let (gate, log, painter) = painted(paints, "");
        let (released, methods) = offer(&gate, &log);
        assert_eq!(methods, [RedactionMethod::Inpaint]);
        let jobs = painter.jobs.lock().unwrap();
        let [job] = jobs.as_slice() else { panic!("{} jobs", jobs.len()) };
        assert_eq!((&*job.prompt, &*job.avoid), ("a person", &["a cigarette is visible".to_owned()][..]));
        assert_eq!(job.options.steps, Some(STEPS));
        let original = picture(&[0, 3], 3);
        let source = job.options.source.as_ref().unwrap();
        assert_eq!(source.picture.hash(), original.hash());
        let mask = source.mask.as_ref().unwrap();
        for (x, y, colour) in released.pixels().enumerate_pixels() {
            let stays = mask.pixels().get_pixel(x, y).0 == [0; 3];
            assert!(!stays || colour == original.pixels().get_pixel(x, y), "{x},{y} changed");
        }
        // The steps of the drawing and of the part; one who tells of none takes as many as were planned.
        assert_eq!(log.records()[0].cost.steps, u64::from(2 * STEPS));
    }
}

#[test]
fn what_is_drawn_violating_again_is_filled() {
    let (gate, log, painter) = painted(Paints::Again, "");
    let (_, methods) = offer(&gate, &log);
    assert_eq!(methods, [RedactionMethod::Inpaint, RedactionMethod::Fill]);
    assert_eq!(painter.jobs.lock().unwrap().len(), 1, "it is tried once");
}

#[test]
fn what_nobody_draws_anew_is_filled() {
    for paints in [Paints::Fails, Paints::Panics, Paints::Cannot] {
        let (gate, log, _) = painted(paints, "");
        assert_eq!(offer(&gate, &log).1, [RedactionMethod::Fill]);
    }
    let (gate, log) = gate(&World::new([]), "", TABLES);
    assert_eq!(offer(&gate, &log).1, [RedactionMethod::Fill]);
}

#[test]
fn a_painter_is_given_no_more_time_than_a_judge() {
    let (gate, log, _) = painted(Paints::Slow, "limits = { judge_deadline_ms = 200 }");
    assert_eq!(offer(&gate, &log).1, [RedactionMethod::Fill]);
}

#[test]
fn a_gate_takes_one_painter() {
    let (gate, ..) = painted(Paints::Ground, "");
    let another: Arc<dyn Generator> = Arc::new(Painter { paints: Paints::Ground, jobs: Mutex::default() });
    assert!(matches!(gate.with_painter(another), Err(GateError::PaintedTwice)));
}
