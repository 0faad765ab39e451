//! The answer to `txt2img` and `img2img` (`modules/api/models.py`, `TextToImageResponse`; `modules/processing.py`,
//! `Processed.js`).

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use crate::outcome::Outcome;
use crate::request::PictureRequest;

/// Pictures, the client's parameters, and `info`: JSON as a string. `info.cluegate` tells of every picture that was asked
/// for, in order, with `image`, its place in `images` or null; `all_seeds`, `all_prompts` and `infotexts` go with
/// `images`, place by place.
pub(super) fn reply(request: &PictureRequest, parameters: Map<String, Value>, outcomes: &[Outcome]) -> Value {
    let (mut images, mut seeds, mut texts, mut told) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for outcome in outcomes {
        let mut report = outcome.report();
        report["image"] = outcome.shown().map(|_| images.len()).into();
        report["placeholder"] = (outcome.shown().is_some() && !outcome.is_released()).into();
        told.push(report);
        if let Some(shown) = outcome.shown() {
            images.push(shown.base64());
            seeds.push(outcome.seed());
            texts.push(infotext(request, outcome.seed(), shown.size()));
        }
    }
    let size = outcomes.iter().find_map(Outcome::shown).map(|shown| shown.size()).or(request.size);
    let negative = request.negative_prompt.as_deref().unwrap_or_default();
    let info = json!({
        "prompt": request.prompt,
        "all_prompts": vec![&request.prompt; images.len()],
        "negative_prompt": negative,
        "all_negative_prompts": vec![negative; images.len()],
        "seed": outcomes.first().map(Outcome::seed),
        "all_seeds": seeds,
        "subseed": null,
        "all_subseeds": [],
        "subseed_strength": 0,
        "width": size.map(|size| size.0),
        "height": size.map(|size| size.1),
        "sampler_name": request.sampler,
        "cfg_scale": request.guidance,
        "steps": request.steps,
        "batch_size": request.count,
        "sd_model_name": request.model,
        "denoising_strength": request.source.as_ref().and_then(|source| source.strength),
        "extra_generation_params": {},
        "index_of_first_image": 0,
        "infotexts": texts,
        "styles": [],
        "version": concat!("cluegate ", env!("CARGO_PKG_VERSION")),
        "cluegate": { "pictures": told },
    });
    // Moved, which the macro would not: they are nearly all of the answer.
    Value::Object(Map::from_iter([
        ("images".to_owned(), Value::from(images)),
        ("parameters".to_owned(), parameters.into()),
        ("info".to_owned(), info.to_string().into()),
    ]))
}

/// What the web UI writes below a picture, as far as it is known here: the request's own words, and none of the
/// upstream's.
fn infotext(request: &PictureRequest, seed: u64, size: (u32, u32)) -> String {
    let mut text = request.prompt.clone();
    if let Some(negative) = &request.negative_prompt {
        let _ = write!(text, "\nNegative prompt: {negative}");
    }
    let optional = [
        ("Steps", request.steps.map(|steps| steps.to_string())),
        ("Sampler", request.sampler.clone()),
        ("Schedule type", request.scheduler.clone()),
        ("CFG scale", request.guidance.map(|scale| scale.to_string())),
        ("Seed", Some(seed.to_string())),
        ("Size", Some(format!("{}x{}", size.0, size.1))),
        ("Model", request.model.clone()),
    ];
    let told = optional.into_iter().filter_map(|(name, value)| Some(format!("{name}: {}", value?)));
    let told: Vec<String> = told.collect();
    text + "\n" + &told.join(", ")
}
