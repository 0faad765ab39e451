//! What is said to the server and what it says back.

use std::collections::BTreeSet;
use std::fmt;
use std::io::Cursor;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use image::ImageReader;
use serde::de::Visitor;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};

use crate::request::{PictureRequest, Source};
use crate::upstream::{Order, Unjudged, UpstreamError, UpstreamErrorKind as Kind};

/// Names that other servers give to samplers which the web UI knows by its own (`modules/sd_samplers_kdiffusion.py`): those
/// of ComfyUI and of stable-diffusion.cpp.
const SAMPLERS: [(&str, &str); 21] = [
    ("euler", "Euler"),
    ("euler_a", "Euler a"),
    ("euler_ancestral", "Euler a"),
    ("heun", "Heun"),
    ("lms", "LMS"),
    ("lcm", "LCM"),
    ("ddim", "DDIM"),
    ("uni_pc", "UniPC"),
    ("dpm2", "DPM2"),
    ("dpm_2", "DPM2"),
    ("dpm_2_ancestral", "DPM2 a"),
    ("dpm_fast", "DPM fast"),
    ("dpm_adaptive", "DPM adaptive"),
    ("dpm++2m", "DPM++ 2M"),
    ("dpmpp_2m", "DPM++ 2M"),
    ("dpm++2s_a", "DPM++ 2S a"),
    ("dpmpp_2s_ancestral", "DPM++ 2S a"),
    ("dpmpp_sde", "DPM++ SDE"),
    ("dpmpp_2m_sde", "DPM++ 2M SDE"),
    ("dpmpp_2m_sde_heun", "DPM++ 2M SDE Heun"),
    ("dpmpp_3m_sde", "DPM++ 3M SDE"),
];

/// The web UI's name of a sampler.
fn sampler(name: &str) -> &str {
    SAMPLERS.iter().find(|(other, _)| *other == name).map_or(name, |(_, own)| own)
}

/// The web UI's name of a noise schedule (`modules/sd_schedulers.py`).
pub(super) fn schedule(name: &str) -> &str {
    match name {
        "ddim_uniform" => "ddim",
        "ays" => "align_your_steps",
        own => own,
    }
}

/// Whether an entry of `/sdapi/v1/sd-models` is the checkpoint `name`, by any name that the server takes.
pub(super) fn is_model(entry: &Value, name: &str) -> bool {
    let text = |key: &str| entry.get(key).and_then(Value::as_str).unwrap_or_default();
    let file = text("filename").rsplit(['/', '\\']).next().unwrap_or_default();
    let stem = file.rsplit_once('.').map_or(file, |(stem, _)| stem);
    let title = text("title");
    let untagged = title.split_once(" [").map_or(title, |(title, _)| title);
    let names = [title, untagged, text("model_name"), text("hash"), text("sha256"), file, stem];
    !name.is_empty() && names.contains(&name)
}

/// Whether an entry of `/sdapi/v1/schedulers` is the noise schedule `name`.
pub(super) fn is_schedule(entry: &Value, name: &str) -> bool {
    ["name", "label"].iter().any(|key| entry.get(*key).and_then(Value::as_str) == Some(name))
}

/// Refuses what no call says.
///
/// # Errors
/// What, for "it ...".
pub(super) fn check(request: &PictureRequest, native: Option<&Map<String, Value>>) -> Result<(), String> {
    if let Some(source) = &request.source {
        if source.pictures.len() != 1 {
            let found = source.pictures.len();
            return Err(format!("expected 1 picture to start from, got {found}; send one request for each"));
        }
        if source.strength.is_some_and(|strength| !(0.0..=1.0).contains(&strength)) {
            return Err("`strength` (`denoising_strength`) must be from 0 to 1".to_owned());
        }
    }
    let varies = native.and_then(|native| native.get("subseed_strength")?.as_f64()).unwrap_or(0.0) != 0.0;
    if varies && request.count > 1 {
        // The server would give all pictures one seed and count the variations.
        return Err("`subseed_strength` goes with one picture; send one request for each".to_owned());
    }
    Ok(())
}

/// Some pictures of an order, for which the server is called once.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call<'a> {
    pub(super) order: &'a Order,
    /// Index of the first one in the order.
    pub(super) first: u32,
    pub(super) count: u32,
}

impl Call<'_> {
    /// The body of `txt2img` or `img2img`. `model` is asked for where the request names none, `task` is the call's name.
    ///
    /// # Errors
    /// `Inexpressible` if the size of the picture to start from cannot be read.
    pub(super) fn payload(
        &self,
        model: Option<&str>,
        task: &str,
    ) -> Result<Map<String, Value>, UpstreamError> {
        let (order, request) = (self.order, &self.order.request);
        let native = request.native.as_ref().map(|native| &native.parameters);
        let mut body = native.cloned().unwrap_or_default();
        let mut say = |name: &str, value: Value| drop(body.insert(name.to_owned(), value));
        say("prompt", request.prompt.as_str().into());
        say("negative_prompt", order.negative_prompt().unwrap_or_default().into());
        say("seed", order.seed.wrapping_add(self.first.into()).into());
        say("batch_size", self.count.into());
        say("n_iter", 1.into());
        let optional = [
            ("steps", request.steps.map(Value::from)),
            ("cfg_scale", request.guidance.map(Value::from)),
            ("sampler_name", request.sampler.as_deref().map(sampler).map(Value::from)),
            ("scheduler", request.scheduler.as_deref().map(schedule).map(Value::from)),
        ];
        for (name, value) in optional {
            if let Some(value) = value {
                say(name, value);
            }
        }
        for (name, value) in [
            ("send_images", true),
            ("save_images", false),
            ("do_not_save_samples", true),
            ("do_not_save_grid", true),
        ] {
            say(name, value.into());
        }
        say("force_task_id", task.into());
        let mut size = request.size;
        if let Some(source) = &request.source {
            size = size.map_or_else(|| size_of(source).map(Some), |size| Ok(Some(size)))?;
            let foreign = native.is_none();
            source_words(source, foreign).into_iter().for_each(|(name, value)| say(&name, value));
        }
        if let Some((width, height)) = size {
            say("width", width.into());
            say("height", height.into());
        }
        settings(&mut body, request, model);
        Ok(body)
    }
}

/// Adds the checkpoint to the settings of this one call, and that no masks come back beside the pictures.
fn settings(body: &mut Map<String, Value>, request: &PictureRequest, model: Option<&str>) {
    let mut settings = match body.remove("override_settings") {
        Some(Value::Object(settings)) => settings,
        _ => Map::new(),
    };
    if let Some(model) = request.model.as_deref().or(model) {
        settings.insert("sd_model_checkpoint".to_owned(), model.into());
    }
    if request.source.as_ref().is_some_and(|source| source.mask.is_some()) {
        settings.insert("return_mask".to_owned(), false.into());
        settings.insert("return_mask_composite".to_owned(), false.into());
    }
    if !settings.is_empty() {
        body.insert("override_settings".to_owned(), settings.into());
        body.insert("override_settings_restore_afterwards".to_owned(), true.into());
    }
}

/// The words for a picture to start from. A client of another dialect (`foreign`) expects that what the mask leaves open
/// begins as it is, and in place.
fn source_words(source: &Source, foreign: bool) -> Vec<(String, Value)> {
    let encoded = source.pictures.iter().map(|bytes| Value::from(BASE64_STANDARD.encode(bytes)));
    let mut words = vec![("init_images".to_owned(), Value::Array(encoded.collect()))];
    if let Some(mask) = &source.mask {
        words.push(("mask".to_owned(), BASE64_STANDARD.encode(mask).into()));
        if foreign {
            words.push(("inpainting_fill".to_owned(), 1.into()));
            words.push(("inpaint_full_res".to_owned(), false.into()));
        }
    }
    words.extend(source.strength.map(|strength| ("denoising_strength".to_owned(), json!(strength))));
    words
}

/// The size of the picture to start from, in steps of 8 as the server draws: without a word it would take 512 x 512.
fn size_of(source: &Source) -> Result<(u32, u32), UpstreamError> {
    let first = source.pictures.first().map(|bytes| bytes.as_ref()).unwrap_or_default();
    let size = ImageReader::new(Cursor::new(first)).with_guessed_format().ok();
    let size = size.and_then(|reader| reader.into_dimensions().ok()).ok_or_else(|| {
        UpstreamError::new(
            Kind::Inexpressible,
            "the picture to start from cannot be read; expected PNG or JPEG",
        )
    })?;
    Ok(((size.0 / 8 * 8).max(8), (size.1 / 8 * 8).max(8)))
}

/// What the server answers a call.
#[derive(Debug, Deserialize)]
pub(super) struct Reply {
    #[serde(default)]
    images: Option<Vec<Encoded>>,
    /// JSON as a string, or an empty one.
    #[serde(default)]
    info: Value,
}

/// A picture in base64, decoded from where it stands in the answer: the text itself is not kept. None if it is no base64.
#[derive(Debug, Clone)]
struct Encoded(Option<Unjudged>);

impl<'de> Deserialize<'de> for Encoded {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;

        impl Visitor<'_> for Text {
            type Value = Encoded;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a picture in base64")
            }

            fn visit_str<E>(self, text: &str) -> Result<Encoded, E> {
                let bytes = base64_simd::STANDARD.decode_to_vec(without_prefix(text));
                Ok(Encoded(bytes.ok().map(Unjudged::encoded)))
            }
        }

        deserializer.deserialize_str(Text)
    }
}

/// What is read of [`Reply::info`].
#[derive(Debug, Default, Deserialize)]
struct Info {
    #[serde(default)]
    all_seeds: Vec<Value>,
    #[serde(default)]
    index_of_first_image: usize,
}

impl Reply {
    /// The pictures of a call for `count` pictures from `seed` on, each with its index in the call and at most once.
    /// Grids before the first picture and whatever follows the last are discarded. A server that leaves a picture out
    /// (stable-diffusion.cpp does when one fails) is told apart by the seeds that it names.
    pub(super) fn pictures(self, seed: u64, count: u32) -> Vec<(u32, Result<Unjudged, String>)> {
        let info: Info = match &self.info {
            Value::String(text) => serde_json::from_str(text).unwrap_or_default(),
            other => serde_json::from_value(other.clone()).unwrap_or_default(),
        };
        let images = self.images.unwrap_or_default();
        let images = images.get(info.index_of_first_image..).unwrap_or_default();
        let indices = indices(&info.all_seeds, images.len(), seed, count);
        if images.len() > indices.len() {
            tracing::info!(
                extra = images.len() - indices.len(),
                "pictures that were not ordered are discarded"
            );
        }
        let read = |image: &Encoded| image.0.clone().ok_or_else(|| "its picture is not in base64".to_owned());
        indices.into_iter().zip(images.iter().map(read)).collect()
    }
}

/// Which pictures of the call came, in the order in which they came.
fn indices(seeds: &[Value], pictures: usize, seed: u64, count: u32) -> Vec<u32> {
    let named: Vec<u32> = seeds
        .iter()
        .filter_map(|found| u32::try_from(found.as_u64()?.checked_sub(seed)?).ok())
        .filter(|index| *index < count)
        .collect();
    let distinct: BTreeSet<u32> = named.iter().copied().collect();
    if pictures < count as usize && named.len() == pictures && distinct.len() == pictures {
        return named;
    }
    (0..count).take(pictures).collect()
}

/// The base64 of a data URL, or of bare base64.
pub(super) fn without_prefix(text: &str) -> &str {
    match text.split_once(',') {
        Some((prefix, data)) if prefix.starts_with("data:") => data,
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn reply(images: &[&str], info: &str) -> Reply {
        serde_json::from_value(json!({ "images": images, "parameters": {}, "info": info })).unwrap()
    }

    fn indices_of(reply: Reply, count: u32) -> Vec<(u32, bool)> {
        let pictures = reply.pictures(7, count).into_iter();
        pictures.map(|(index, picture)| (index, picture.is_ok())).collect()
    }

    #[test]
    fn pictures_are_counted_from_the_first_that_is_no_grid() {
        let grid = r#"{"all_seeds": [7, 8], "index_of_first_image": 1}"#;
        assert_eq!(indices_of(reply(&["Z3JpZA==", "YQ==", "Yg=="], grid), 2), [(0, true), (1, true)]);
        assert_eq!(indices_of(reply(&["YQ==", "Yg==", "bWFw"], ""), 2), [(0, true), (1, true)]);
        assert_eq!(indices_of(reply(&["data:image/png;base64,YQ==", "?"], ""), 2), [(0, true), (1, false)]);
        assert_eq!(indices_of(reply(&["YQ=="], r#"{"index_of_first_image": 9}"#), 1), []);
        // The picture in the middle failed.
        let gap = r#"{"all_seeds": [7, null, 9]}"#;
        assert_eq!(indices_of(reply(&["YQ==", "Yg=="], gap), 3), [(0, true), (2, true)]);
        // Seeds of the server's own say nothing.
        assert_eq!(indices_of(reply(&["YQ=="], r#"{"all_seeds": [1]}"#), 2), [(0, true)]);
        assert_eq!(indices_of(serde_json::from_str("{}").unwrap(), 2), []);
    }

    #[test]
    fn a_checkpoint_is_known_by_each_of_its_names() {
        let entry = json!({
            "title": "fine/v1.safetensors [abcd]", "model_name": "fine_v1", "hash": "abcd", "sha256": null,
            "filename": "/models/fine/v1.safetensors",
        });
        for name in ["fine/v1.safetensors [abcd]", "fine/v1.safetensors", "fine_v1", "abcd", "v1"] {
            assert!(is_model(&entry, name), "{name}");
        }
        assert!(!is_model(&entry, "") && !is_model(&entry, "other") && !is_model(&json!(3), "v1"));
    }

    proptest::proptest! {
        #[test]
        fn no_answer_makes_more_pictures_than_were_ordered(
            text in "\\PC{0,40}",
            images in proptest::collection::vec("[A-Za-z0-9+/=,:]{0,12}", 0..6),
            seeds in proptest::collection::vec(0_u64..12, 0..6),
            first in 0_usize..4,
            count in 1_u32..4,
        ) {
            let known = json!({ "all_seeds": seeds, "index_of_first_image": first }).to_string();
            for info in [text, known] {
                let images: Vec<&str> = images.iter().map(String::as_str).collect();
                let found = indices_of(reply(&images, &info), count);
                let distinct: BTreeSet<u32> = found.iter().map(|(index, _)| *index).collect();
                proptest::prop_assert_eq!(distinct.len(), found.len());
                proptest::prop_assert!(found.iter().all(|(index, _)| *index < count));
            }
        }
    }
}
