//! `cluegate generate`: draw, judge, and write only what the policy releases.

use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use cluegate::Engine;
use cluegate_candle_diffusion::SchedulerKind;
use cluegate_gate::{DrawOptions, Gate, JsonlLog, MemberOutcome, Outcome, Policies, RequestInfo};
use serde_json::{Value, json};

use super::args::{Format, GenerateArgs, Sampler};
use super::{Exit, say, say_json, write_file};

/// The decision log in the output folder.
pub(super) const LOG: &str = "decisions.jsonl";

pub(super) fn run(arguments: &GenerateArgs) -> anyhow::Result<Exit> {
    let policies = match &arguments.policy {
        Some(file) => Policies::load(file)?,
        None => shipped_policies()?,
    };
    if policies.get(&arguments.tenant).is_none() {
        let tenants = policies.tenants().collect::<Vec<_>>().join(", ");
        bail!("the policy has no tenant {:?}; it has {tenants}", arguments.tenant);
    }
    std::fs::create_dir_all(&arguments.out)
        .with_context(|| format!("cannot make the folder {}", arguments.out.display()))?;
    let engine = Engine::open(arguments.models.models.as_deref())?;
    let generator = engine.generator()?.with_scheduler(match arguments.sampler {
        Sampler::Ddim => SchedulerKind::Ddim,
        Sampler::EulerA => SchedulerKind::EulerAncestral,
    });
    let log = Arc::new(JsonlLog::open(arguments.out.join(LOG))?);
    let gate = Gate::new(&policies, &engine.judges(false), log)?;
    let seed = arguments.seed.unwrap_or_else(clock_seed);
    let request = RequestInfo {
        size: Some(generator.default_size()),
        ..RequestInfo::new(&arguments.tenant, &arguments.prompt, seed, arguments.count)
    };
    let options = DrawOptions {
        steps: Some(arguments.steps),
        guidance: Some(arguments.guidance),
        negative_prompt: Some(arguments.negative_prompt.clone()),
        ..DrawOptions::default()
    };
    let outcomes = gate.drive(&generator, request, options)?;
    let rows =
        outcomes.iter().map(|outcome| save(outcome, &arguments.out)).collect::<anyhow::Result<Vec<_>>>()?;
    match arguments.format {
        Format::Json => say_json(&json!({
            "prompt": arguments.prompt, "tenant": arguments.tenant, "seed": seed,
            "log": arguments.out.join(LOG), "pictures": rows,
        }))?,
        Format::Text => {
            for row in &rows {
                let file = row["file"].as_str().unwrap_or("no picture");
                let text = |key: &str| row[key].as_str().unwrap_or_default().to_owned();
                say(format_args!("{file}: {} ({}): {}", text("outcome"), text("reason"), text("message")))?;
            }
        }
    }
    Ok(outcomes.iter().map(exit_of).max().unwrap_or(Exit::Clean))
}

/// The policies that need no file: the default one and those of the demonstration.
fn shipped_policies() -> anyhow::Result<Policies> {
    let text = format!("{}\n{}", Policies::with_defaults_toml(), Policies::demo_toml());
    Ok(Policies::from_toml(&text, "the shipped policies")?)
}

/// A seed that differs from call to call; below 2^32, which every generator takes.
fn clock_seed() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos() as u64 & 0xFFFF_FFFF)
}

/// Writes what the requester gets for one picture, and returns its row of the answer.
fn save(outcome: &MemberOutcome, out: &Path) -> anyhow::Result<Value> {
    let decision = outcome.decision();
    let number = decision.member;
    let file = match outcome {
        MemberOutcome::Released(picture) => Some((format!("picture-{number:03}.png"), picture.encode_png()?)),
        MemberOutcome::Withheld(withheld) => match withheld.placeholder() {
            Some(placeholder) => Some((format!("placeholder-{number:03}.png"), placeholder.encode_png()?)),
            None => None,
        },
        MemberOutcome::Held(held) => {
            let review = out.join("review");
            std::fs::create_dir_all(&review)?;
            write_file(
                &review.join(format!("{}.png", decision.decision_id)),
                &held.encode_png_for_review()?,
            )?;
            match held.placeholder() {
                Some(placeholder) => {
                    Some((format!("placeholder-{number:03}.png"), placeholder.encode_png()?))
                }
                None => None,
            }
        }
    };
    let path = file
        .map(|(name, bytes)| {
            let path = out.join(name);
            write_file(&path, &bytes).map(|()| path)
        })
        .transpose()?;
    Ok(json!({
        "member": number,
        "outcome": decision.outcome,
        "reason": decision.reason,
        "message": decision.message,
        "file": path,
        "violated": decision.violated,
        "attempts": decision.attempts.len(),
        "seed": decision.attempts.last().map(|attempt| attempt.seed),
        "decision_id": decision.decision_id,
    }))
}

fn exit_of(outcome: &MemberOutcome) -> Exit {
    let decision = outcome.decision();
    match decision.outcome {
        Outcome::Released => Exit::Clean,
        _ if decision.reason.is_violation() => Exit::Violation,
        _ => Exit::Error,
    }
}
