//! A generation loop of your own with a ready hook: the three lines of `hooks/rust/README.md`.
//!
//! Run it with `cargo run --release --example loop_of_your_own -- cat.png`. What draws here is a toy that draws a scene; put
//! your own model in its place. The picture is written to `cat.png` if the gate releases it.

#![allow(clippy::print_stdout)]

use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use cluegate::Engine;
use cluegate::gate::{MemberOutcome, MemoryLog, RequestInfo};
use cluegate::mini::{Object, Scene, Style, World, render};
use cluegate::perception::Picture;
use cluegate_hooks::{TENANT, regenerate_on_violation, until_decided};

fn main() -> Result<(), Box<dyn Error>> {
    let out = std::env::args().nth(1).unwrap_or_else(|| "cat.png".to_owned());
    let outcome = serve("a cat and an axe", 0, Path::new(&out))?;
    println!("{}", outcome.decision().message);
    Ok(())
}

/// Serves one request and writes its picture to `out` if the gate releases it.
pub(crate) fn serve(prompt: &str, seed: u64, out: &Path) -> Result<MemberOutcome, Box<dyn Error>> {
    let log = Arc::new(MemoryLog::new(16));
    let gate = regenerate_on_violation::gate("scene", Arc::new(Engine::open(None)?.judges(false)), log)?;
    let mut session = gate.session(RequestInfo::new(TENANT, prompt, seed, 1))?;
    let outcome = until_decided(&mut session, 0, |seed, other| draw(other.unwrap_or(prompt), seed))?;
    if let MemberOutcome::Released(picture) = &outcome {
        std::fs::write(out, picture.encode_png()?)?;
    }
    Ok(outcome)
}

/// Stands for a model. The seed 0 draws a cat that touches an axe, which the rule `armed-animal` forbids; a prompt without an
/// axe draws none.
fn draw(prompt: &str, seed: u64) -> Result<Picture, String> {
    let world = World::load().map_err(|error| error.to_string())?;
    let (cat, axe) = if seed == 0 { (92.0, 136.0) } else { (58.0, 174.0) };
    let mut objects = Vec::new();
    for (name, x, size) in [("cat", cat, 90.0), ("axe", axe, 70.0)] {
        if prompt.contains(name) {
            let class = world.class(name).map_err(|error| error.to_string())?;
            objects.push(Object { class, variant: 0, x, y: 112.0, size, flipped: false, angle: 0.0 });
        }
    }
    let scene = Scene { objects, place: 1 };
    let pixels =
        render(&world, &scene, world.picture_size, Style::World, 3).map_err(|error| error.to_string())?;
    Ok(Picture::new(pixels))
}
