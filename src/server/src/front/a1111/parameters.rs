//! Parameters that only the web UI has words for: `modules/processing.py`, `StableDiffusionProcessing` and its two
//! descendants, of AUTOMATIC1111 and Forge. What is not named here or in [`super::request`] is refused.

use serde_json::{Map, Value};

/// What a value must be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Kind {
    Flag,
    Number,
    Text,
    Texts,
}

impl Kind {
    fn fits(self, value: &Value) -> bool {
        match self {
            Self::Flag => value.is_boolean() || matches!(value.as_i64(), Some(0 | 1)),
            // `inpaint_full_res` and `inpainting_mask_invert` come either way.
            Self::Number => value.is_number() || value.is_boolean(),
            Self::Text => value.is_string(),
            Self::Texts => value.as_array().is_some_and(|texts| texts.iter().all(Value::is_string)),
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Flag => "true or false",
            Self::Number => "a number",
            Self::Text => "text",
            Self::Texts => "a list of texts",
        }
    }
}

/// A value that asks for nothing: clients send all parameters with such values, and then any upstream will do.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Nothing {
    False,
    Is(f64),
    /// This or less.
    Most(f64),
    Empty,
    /// There is no such value.
    Never,
}

impl Nothing {
    fn is(self, value: &Value) -> bool {
        let number = || value.as_f64().or_else(|| value.as_bool().map(|flag| f64::from(u8::from(flag))));
        match self {
            Self::False => number() == Some(0.0),
            Self::Is(nothing) => number() == Some(nothing),
            Self::Most(nothing) => number().is_some_and(|number| number <= nothing),
            Self::Empty => {
                value.as_str().is_some_and(|text| matches!(text, "" | "None" | "Use same checkpoint"))
                    || value.as_array().is_some_and(Vec::is_empty)
            }
            Self::Never => false,
        }
    }
}

type Parameter = (&'static str, Kind, Nothing);

/// Of both calls.
const BOTH: [Parameter; 20] = [
    ("styles", Kind::Texts, Nothing::Empty),
    ("subseed", Kind::Number, Nothing::Is(-1.0)),
    ("subseed_strength", Kind::Number, Nothing::Is(0.0)),
    ("seed_resize_from_h", Kind::Number, Nothing::Most(0.0)),
    ("seed_resize_from_w", Kind::Number, Nothing::Most(0.0)),
    ("distilled_cfg_scale", Kind::Number, Nothing::Is(3.5)),
    ("restore_faces", Kind::Flag, Nothing::False),
    ("tiling", Kind::Flag, Nothing::False),
    // The web UI's own value for ancestral samplers; `webuiapi` sends it always.
    ("eta", Kind::Number, Nothing::Is(1.0)),
    ("s_min_uncond", Kind::Number, Nothing::Is(0.0)),
    ("s_churn", Kind::Number, Nothing::Is(0.0)),
    ("s_tmax", Kind::Number, Nothing::Is(0.0)),
    ("s_tmin", Kind::Number, Nothing::Is(0.0)),
    ("s_noise", Kind::Number, Nothing::Is(1.0)),
    ("refiner_checkpoint", Kind::Text, Nothing::Empty),
    ("refiner_switch_at", Kind::Number, Nothing::Never),
    ("disable_extra_networks", Kind::Flag, Nothing::False),
    ("token_merging_ratio", Kind::Number, Nothing::Is(0.0)),
    ("hr_distilled_cfg", Kind::Number, Nothing::Is(3.5)),
    ("hr_cfg", Kind::Number, Nothing::Is(1.0)),
];

/// Of `txt2img`.
const TEXT: [Parameter; 16] = [
    ("enable_hr", Kind::Flag, Nothing::False),
    ("denoising_strength", Kind::Number, Nothing::Never),
    ("firstphase_width", Kind::Number, Nothing::Is(0.0)),
    ("firstphase_height", Kind::Number, Nothing::Is(0.0)),
    ("hr_scale", Kind::Number, Nothing::Never),
    ("hr_upscaler", Kind::Text, Nothing::Never),
    ("hr_second_pass_steps", Kind::Number, Nothing::Is(0.0)),
    ("hr_resize_x", Kind::Number, Nothing::Is(0.0)),
    ("hr_resize_y", Kind::Number, Nothing::Is(0.0)),
    ("hr_checkpoint_name", Kind::Text, Nothing::Empty),
    ("hr_additional_modules", Kind::Texts, Nothing::Empty),
    ("hr_sampler_name", Kind::Text, Nothing::Empty),
    ("hr_scheduler", Kind::Text, Nothing::Empty),
    ("hr_prompt", Kind::Text, Nothing::Empty),
    ("hr_negative_prompt", Kind::Text, Nothing::Empty),
    ("token_merging_ratio_hr", Kind::Number, Nothing::Is(0.0)),
];

/// Of `img2img`.
const PICTURE: [Parameter; 11] = [
    ("resize_mode", Kind::Number, Nothing::Is(0.0)),
    // Of one kind of checkpoint, and sent by `webuiapi` always.
    ("image_cfg_scale", Kind::Number, Nothing::Is(1.5)),
    ("mask_blur", Kind::Number, Nothing::Is(4.0)),
    ("mask_blur_x", Kind::Number, Nothing::Is(4.0)),
    ("mask_blur_y", Kind::Number, Nothing::Is(4.0)),
    ("mask_round", Kind::Flag, Nothing::Is(1.0)),
    ("inpainting_fill", Kind::Number, Nothing::Is(0.0)),
    ("inpaint_full_res", Kind::Number, Nothing::Is(1.0)),
    ("inpaint_full_res_padding", Kind::Number, Nothing::Is(0.0)),
    ("inpainting_mask_invert", Kind::Number, Nothing::Is(0.0)),
    ("initial_noise_multiplier", Kind::Number, Nothing::Is(1.0)),
];

fn parameter(name: &str, img2img: bool) -> Option<&'static Parameter> {
    let own: &[Parameter] = if img2img { &PICTURE } else { &TEXT };
    BOTH.iter().chain(own).find(|(known, ..)| *known == name)
}

/// Refuses what is unknown or of the wrong kind.
///
/// # Errors
/// The parameter and what is wrong with it.
pub(super) fn check(name: &str, value: &Value, img2img: bool) -> Result<(), String> {
    match parameter(name, img2img) {
        None => Err(format!("the parameter `{name}` is not known here and is not passed on")),
        Some((_, kind, _)) if !kind.fits(value) => Err(format!("`{name}` must be {}", kind.words())),
        Some(_) => Ok(()),
    }
}

/// Takes out what asks for nothing, so that an upstream of another dialect sees only what it would have to do.
pub(super) fn forget_defaults(native: &mut Map<String, Value>, img2img: bool, masked: bool) {
    let on = |name: &str| {
        let (value, parameter) = (native.get(name), parameter(name, img2img));
        value.zip(parameter).is_some_and(|(value, (.., nothing))| !nothing.is(value))
    };
    let (enlarges, varies, refines) = (on("enable_hr"), on("subseed_strength"), on("refiner_checkpoint"));
    native.retain(|name, value| {
        let means_nothing = match name.as_str() {
            "denoising_strength" => !enlarges,
            "subseed" => !varies,
            "refiner_switch_at" => !refines,
            name if name.starts_with("hr_") || name == "token_merging_ratio_hr" => !enlarges,
            name if name.starts_with("mask_") || name.starts_with("inpaint") => !masked,
            _ => false,
        };
        let nothing = parameter(name, img2img).is_some_and(|(.., nothing)| nothing.is(value));
        !means_nothing && !nothing
    });
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn left(native: Value, img2img: bool, masked: bool) -> Vec<String> {
        let Value::Object(mut native) = native else { return Vec::new() };
        for (name, value) in &native {
            assert_eq!(check(name, value, img2img), Ok(()), "{name}");
        }
        forget_defaults(&mut native, img2img, masked);
        native.keys().cloned().collect()
    }

    #[test]
    fn what_clients_send_by_habit_asks_for_nothing() {
        let habit = json!({
            "enable_hr": false, "hr_scale": 2, "hr_upscaler": "Latent", "hr_prompt": "", "denoising_strength": 0.7,
            "subseed": 5, "subseed_strength": 0.0, "seed_resize_from_h": -1, "eta": 1.0, "s_noise": 1, "styles": [],
            "restore_faces": false, "tiling": false, "firstphase_width": 0,
        });
        assert!(left(habit, false, false).is_empty());
        let larger = json!({ "enable_hr": true, "hr_scale": 2, "denoising_strength": 0.7, "hr_prompt": "" });
        assert_eq!(left(larger, false, false), ["enable_hr", "hr_scale", "denoising_strength"]);
        let mask = json!({ "mask_blur": 9, "inpaint_full_res": true, "inpainting_mask_invert": 1 });
        assert_eq!(left(mask.clone(), true, true), ["mask_blur", "inpainting_mask_invert"]);
        assert!(left(mask, true, false).is_empty());
    }

    #[test]
    fn the_unknown_and_the_misshapen_are_refused_by_name() {
        for (name, value, img2img) in [
            ("firstpass_image", json!("aGk="), false),
            ("outpath_samples", json!("/etc"), false),
            ("mask_blur", json!(4), false),
            ("enable_hr", json!("yes"), false),
            ("styles", json!("one"), true),
        ] {
            let why = check(name, &value, img2img);
            assert!(why.is_err_and(|why| why.contains(name)), "{name}");
        }
    }
}
