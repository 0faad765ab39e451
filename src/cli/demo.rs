//! `cluegate demo`: the whole product in two minutes, offline, on the models that ship with it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use anyhow::Context;
use cluegate::CandleGenerator;
use cluegate_gate::{
    DrawJob, DrawOptions, Drawn, Gate, Generator, GeneratorError, JsonlLog, MemberOutcome, Outcome, Policies,
    Reason, RequestInfo, Step, StepHook,
};
use cluegate_perception::Picture;

use super::args::{DemoArgs, ModelArgs};
use super::generate::LOG;
use super::{Exit, open_engine, progress, say, write_file};
use crate::report::{Case, Drawings, Page, Tally, marks, render};

/// The seed for which the demonstration is known to show every outcome.
pub(crate) const SEED: u64 = 7;

/// What is drawn, and for whom. The same prompt and seed make the same picture, so that a pair of tenants shows how
/// one picture fares under two constitutions.
const REQUESTS: [(&str, &[&str]); 10] = [
    ("a cat and a tree on the grass", &["kids"]),
    ("a man holding a knife on a street", &["kids", "newsroom"]),
    ("a woman smoking a cigarette on a beach", &["kids", "newsroom"]),
    ("a dog with a bloody injury on the grass", &["kids", "newsroom"]),
    ("a dog and fire on the grass", &["kids"]),
    ("a man and a glass of beer in a room", &["kids"]),
    ("a girl and a cake in a room", &["kids"]),
    ("a boy and a glass of wine in a room", &["newsroom"]),
    ("a woman taking a pill in a room", &["newsroom"]),
    ("a house and a car on a street", &["newsroom"]),
];

/// One request that was served.
struct Served {
    prompt: &'static str,
    outcome: MemberOutcome,
    drawings: Drawings,
}

pub(super) fn run(arguments: &DemoArgs) -> anyhow::Result<Exit> {
    let begin = Instant::now();
    let out = &arguments.out;
    std::fs::create_dir_all(out).with_context(|| format!("cannot make the folder {}", out.display()))?;
    let models = ModelArgs { models: None, compute: arguments.compute.clone() };
    let engine = open_engine(&models)?;
    let recorder = Recorder { generator: engine.generator()?, drawings: Mutex::default() };
    // A demonstration starts anew; a log of decisions is otherwise never removed.
    let log = out.join(LOG);
    if log.exists() {
        std::fs::remove_file(&log).with_context(|| format!("cannot replace {}", log.display()))?;
    }
    let judges = engine.judges(false).with_rationale(true);
    let gate = Gate::new(&Policies::demo()?, Arc::new(judges), Arc::new(JsonlLog::open(&log)?))?;
    gate.prepare_all()?;
    let served = serve(&gate, &recorder, arguments.seed)?;
    let mut cases = Vec::with_capacity(served.len());
    for (index, request) in served.iter().enumerate() {
        save(request, index + 1, out)?;
        cases.push(Case::new(index + 1, request.prompt, &request.outcome, &request.drawings)?);
    }
    let seconds = begin.elapsed().as_secs_f64();
    let page = Page {
        title: "What the gate let through".to_owned(),
        subtitle: format!(
            "{} requests of two tenants, seed {}: drawn, judged and decided in {seconds:.0} s on this machine, with the \
             models that ship with the program.",
            served.len(),
            arguments.seed
        ),
        tally: tally(&served),
        cases,
    };
    let report = out.join("report.html");
    write_file(&report, render(&page)?.as_bytes())?;
    for entry in &page.tally {
        say(format_args!("{:3}  {}", entry.count, entry.label))?;
    }
    say(format_args!("report: {}", report.display()))?;
    Ok(Exit::Clean)
}

fn serve(gate: &Gate, recorder: &Recorder, seed: u64) -> anyhow::Result<Vec<Served>> {
    let total = REQUESTS.iter().map(|(_, tenants)| tenants.len() as u64).sum();
    let bar = progress::bar(total, "drawing");
    let mut served = Vec::new();
    for (number, (prompt, tenants)) in (0..).zip(REQUESTS) {
        for &tenant in tenants {
            bar.set_message(format!("{tenant}: {prompt}"));
            let size = Some(recorder.generator.default_size());
            let request = RequestInfo { size, ..RequestInfo::new(tenant, prompt, seed + number, 1) };
            let outcomes = gate.drive(recorder, request, DrawOptions::default())?;
            let drawings = recorder.take();
            let outcome = outcomes.into_iter().next().context("the gate gave no outcome for a picture")?;
            served.push(Served { prompt, outcome, drawings });
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    Ok(served)
}

/// How often each thing happened that a gate is for.
fn tally(served: &[Served]) -> Vec<Tally> {
    let reason = |wanted: Reason| move |served: &Served| served.outcome.decision().reason == wanted;
    let marked =
        |word: &'static str| move |s: &Served| marks(&s.outcome).iter().any(|mark| mark.contains(word));
    let count = |label, happened: &dyn Fn(&Served) -> bool| Tally {
        label,
        count: served.iter().filter(|served| happened(served)).count(),
        anchor: format!("case-{}", served.iter().position(happened).map_or(1, |index| index + 1)),
    };
    let redrawn = |s: &Served| s.outcome.decision().outcome == Outcome::Released && marked("drawn")(s);
    vec![
        count("released: no rule is violated", &reason(Reason::Safe)),
        count("released: this tenant allows it", &reason(Reason::Allowed)),
        count("released after redaction", &reason(Reason::Redacted)),
        count("released after another try", &redrawn),
        count("stopped at a preview", &marked("preview")),
        count("held for a person", &reason(Reason::HeldForReview)),
        count("blocked", &|s: &Served| s.outcome.decision().outcome == Outcome::Withheld),
    ]
}

/// Writes what was drawn and what is handed out, numbered as in the report.
fn save(served: &Served, number: usize, out: &std::path::Path) -> anyhow::Result<()> {
    let png = |pixels: &image::RgbImage| -> anyhow::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        pixels.write_to(&mut std::io::Cursor::new(&mut bytes), image::ImageFormat::Png)?;
        Ok(bytes)
    };
    for (attempt, picture) in &served.drawings.finished {
        write_file(&out.join(format!("{number:02}-attempt-{attempt}.png")), &png(picture.pixels())?)?;
    }
    if let MemberOutcome::Released(picture) = &served.outcome {
        write_file(&out.join(format!("{number:02}-released.png")), &picture.encode_png()?)?;
    }
    Ok(())
}

/// Draws, and keeps what the decision log does not: the pictures themselves, for the report.
struct Recorder {
    generator: CandleGenerator,
    drawings: Mutex<Drawings>,
}

impl Recorder {
    fn take(&self) -> Drawings {
        std::mem::take(&mut self.drawings.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Generator for Recorder {
    fn fingerprint(&self) -> &str {
        self.generator.fingerprint()
    }

    fn draw(&self, jobs: &[DrawJob], hook: &mut dyn StepHook) -> Vec<Result<Drawn, GeneratorError>> {
        let drawn = self.generator.draw(jobs, &mut RecordingHook { hook, jobs, drawings: &self.drawings });
        let mut drawings = self.drawings.lock().unwrap_or_else(PoisonError::into_inner);
        for (job, drawn) in jobs.iter().zip(&drawn) {
            if let Ok(Drawn::Finished(picture)) = drawn {
                drawings.finished.insert(job.attempt, picture.clone());
            }
        }
        drawn
    }
}

struct RecordingHook<'a> {
    hook: &'a mut dyn StepHook,
    jobs: &'a [DrawJob],
    drawings: &'a Mutex<Drawings>,
}

impl StepHook for RecordingHook<'_> {
    fn wants_preview(&mut self, job: usize, step: u32, total: u32) -> bool {
        self.hook.wants_preview(job, step, total)
    }

    fn may_end(&mut self, job: usize, step: u32, total: u32) -> bool {
        self.hook.may_end(job, step, total)
    }

    fn step(&mut self, job: usize, step: u32, total: u32, preview: Option<&Picture>) -> Step {
        if let (Some(job), Some(preview)) = (self.jobs.get(job), preview) {
            let mut drawings = self.drawings.lock().unwrap_or_else(PoisonError::into_inner);
            drawings.previews.insert(job.attempt, preview.clone());
        }
        self.hook.step(job, step, total, preview)
    }
}
