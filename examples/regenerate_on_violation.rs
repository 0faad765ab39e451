//! A host that owns its generation loop asks the gate at each step: whether a preview is wanted, whether to draw on,
//! and what becomes of the finished picture.
//!
//! Run it with `cargo run --release --example regenerate_on_violation -- cat.png`. The loop of this host is a toy that
//! uncovers a drawing of the scene world step by step; put your own model where `Canvas` stands. Its first drawing breaks
//! a rule, the gate asks for another one, and that is released to the file `cat.png`.

#![allow(clippy::print_stdout)]

use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use cluegate::Engine;
use cluegate::gate::{
    Gate, Instruction, MemberOutcome, MemoryLog, Policies, PreviewInstruction, RequestInfo, Session,
};
use cluegate::mini::{Object, Scene, Style, World, render};
use cluegate::perception::Picture;

/// Draws again up to twice, and looks at a preview when three quarters of the steps are done.
const POLICY: &str = r#"
[tenant.studio]
tries = 3
previews = [0.75]
action.default = "regenerate"
"#;

const STEPS: u32 = 8;

fn main() -> Result<(), Box<dyn Error>> {
    let out = std::env::args().nth(1).unwrap_or_else(|| "cat.png".to_owned());
    let outcome = serve(Path::new(&out))?;
    for attempt in &outcome.decision().attempts {
        let stopped = attempt.previews.iter().find(|preview| preview.aborted);
        let fate =
            stopped.map_or("finished".to_owned(), |preview| format!("stopped after step {}", preview.step));
        println!("attempt {} with seed {}: {fate}", attempt.attempt, attempt.seed);
    }
    println!("{}", outcome.decision().message);
    Ok(())
}

/// Serves one request and writes its picture to `out` if the gate releases it.
pub(crate) fn serve(out: &Path) -> Result<MemberOutcome, Box<dyn Error>> {
    let engine = Engine::open(None)?;
    let policies = Policies::from_toml(POLICY, "the policy of this example")?;
    let gate = Gate::new(&policies, Arc::new(engine.judges(false)), Arc::new(MemoryLog::new(16)))?;
    let canvas = Canvas { world: World::load()? };

    let mut session = gate.session(RequestInfo::new("studio", "a cat and an axe", 0, 1))?;
    let mut seed = session.first_seed(0);
    let outcome = loop {
        session.start_attempt(0)?;
        // Either a decision, or the order to draw again with another seed.
        match draw(&canvas, seed, &mut session)?.into_outcome() {
            Ok(outcome) => break outcome,
            Err(again) => seed = again.seed,
        }
    };
    session.close();
    if let MemberOutcome::Released(picture) = &outcome {
        std::fs::write(out, picture.encode_png()?)?;
    }
    Ok(outcome)
}

/// One attempt: the host's loop, with the gate asked after each step.
fn draw(canvas: &Canvas, seed: u64, session: &mut Session) -> Result<Instruction, Box<dyn Error>> {
    for step in 1..STEPS {
        // Cheap; decode a preview only if this says so.
        if session.wants_preview(0, step, STEPS) {
            let preview = canvas.after(step, seed)?;
            if let PreviewInstruction::Abort(then) = session.preview(0, step, STEPS, &preview)? {
                return Ok(then);
            }
        }
    }
    Ok(session.finished(0, canvas.after(STEPS, seed)?)?)
}

/// Stands for a diffusion model: a picture that emerges from grey. The seed decides whether cat and axe touch, which
/// the rule `armed-animal` forbids.
struct Canvas {
    world: World,
}

impl Canvas {
    fn after(&self, step: u32, seed: u64) -> Result<Picture, Box<dyn Error>> {
        let object = |name, x, size| -> Result<Object, Box<dyn Error>> {
            let class = self.world.class(name)?;
            Ok(Object { class, variant: 0, x, y: 112.0, size, flipped: false, angle: 0.0 })
        };
        let (cat, axe) = if seed == 0 { (92.0, 136.0) } else { (58.0, 174.0) };
        let scene = Scene { objects: vec![object("cat", cat, 90.0)?, object("axe", axe, 70.0)?], place: 1 };
        let mut pixels = render(&self.world, &scene, self.world.picture_size, Style::World, 3)?;
        let done = step as f32 / STEPS as f32;
        for value in pixels.iter_mut() {
            *value = (128.0 + (f32::from(*value) - 128.0) * done) as u8;
        }
        Ok(Picture::new(pixels))
    }
}
