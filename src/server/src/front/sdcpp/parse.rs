//! From a body of `POST /sdcpp/v1/img_gen` to a request (`api.md`, "Request Body"; `from_json_str` in
//! `examples/common/common.cpp`). What has no word in the shared vocabulary goes to a server of the same dialect, if it is
//! on the list below and changes anything; every other name is refused. A picture's metadata tells its prompt, and released
//! pictures have none, whatever `embed_image_metadata` says.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use cluegate_perception::DecodeOptions;
use serde_json::{Map, Value, json};

use crate::pictures::Format;
use crate::problem::Problem;
use crate::request::{Dialect, Native, PictureRequest, Source, refuse_bomb};

/// Most entries of a list.
const MOST_ENTRIES: usize = 64;

/// What a parameter may be.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Is {
    Number,
    Integer,
    Flag,
    Numbers,
    Integers,
    Picture,
    Pictures,
    /// A word of letters, digits, blanks, `_`, `-`, `.`, `(` and `)`.
    Word,
    Loras,
    /// Nothing but its neutral value: text that the server would parse further, or look for in its folders.
    Nothing,
}

/// Parameters of this dialect alone, by dotted path: what each may be, and the value with which it changes nothing.
/// Whole objects that are not `enabled` change nothing either.
const NATIVE: [(&str, Is, &str); 47] = [
    ("clip_skip", Is::Integer, "-1"),
    ("auto_resize_ref_image", Is::Flag, "true"),
    ("increase_ref_index", Is::Flag, "false"),
    ("control_strength", Is::Number, "0.9"),
    ("ip_adapter_strength", Is::Number, "1.0"),
    ("ref_images", Is::Pictures, "[]"),
    ("control_image", Is::Picture, "null"),
    ("ip_adapter_image", Is::Picture, "null"),
    ("lora", Is::Loras, "[]"),
    ("cache_mode", Is::Word, "\"disabled\""),
    ("cache_option", Is::Nothing, "\"\""),
    ("scm_mask", Is::Nothing, "\"\""),
    ("scm_policy_dynamic", Is::Flag, "true"),
    ("sample_params.eta", Is::Number, "null"),
    ("sample_params.shifted_timestep", Is::Integer, "0"),
    ("sample_params.custom_sigmas", Is::Numbers, "[]"),
    ("sample_params.flow_shift", Is::Number, "null"),
    ("sample_params.extra_sample_args", Is::Nothing, "\"\""),
    ("sample_params.guidance.img_cfg", Is::Number, "null"),
    ("sample_params.guidance.distilled_guidance", Is::Number, "null"),
    ("sample_params.guidance.slg.layers", Is::Integers, "[]"),
    ("sample_params.guidance.slg.layer_start", Is::Number, "null"),
    ("sample_params.guidance.slg.layer_end", Is::Number, "null"),
    ("sample_params.guidance.slg.scale", Is::Number, "0.0"),
    ("hires.enabled", Is::Flag, "false"),
    ("hires.upscaler", Is::Word, "null"),
    ("hires.scale", Is::Number, "null"),
    ("hires.target_width", Is::Integer, "0"),
    ("hires.target_height", Is::Integer, "0"),
    ("hires.steps", Is::Integer, "0"),
    ("hires.denoising_strength", Is::Number, "null"),
    ("hires.custom_sigmas", Is::Numbers, "[]"),
    ("hires.upscale_tile_size", Is::Integer, "null"),
    ("vae_tiling_params.enabled", Is::Flag, "false"),
    ("vae_tiling_params.temporal_tiling", Is::Flag, "false"),
    ("vae_tiling_params.tile_size_x", Is::Integer, "0"),
    ("vae_tiling_params.tile_size_y", Is::Integer, "0"),
    ("vae_tiling_params.target_overlap", Is::Number, "null"),
    ("vae_tiling_params.rel_size_x", Is::Number, "0.0"),
    ("vae_tiling_params.rel_size_y", Is::Number, "0.0"),
    ("vae_tiling_params.extra_tiling_args", Is::Nothing, "\"\""),
    // Of the second model that videos are drawn with, of adapters that look for faces, and of layered pictures, which
    // would be more than were asked for.
    ("ad_model", Is::Nothing, "\"\""),
    ("ad_prompt", Is::Nothing, "\"\""),
    ("ad_negative_prompt", Is::Nothing, "\"\""),
    ("extra_ad_args", Is::Nothing, "\"\""),
    ("qwen_image_layers", Is::Nothing, "0"),
    ("upscale_repeats", Is::Nothing, "1"),
];

/// Objects that count only if their `enabled` is true.
const SWITCHED: [&str; 2] = ["hires", "vae_tiling_params"];

/// Reads a body.
///
/// # Errors
/// `BadRequest`, naming the parameter, what it may be, and what it is.
pub(super) fn request(body: &[u8], limits: &DecodeOptions) -> Result<(PictureRequest, Format), Problem> {
    let body: Value = serde_json::from_slice(body)
        .map_err(|error| Problem::bad_request(format!("expected a JSON object: {error}")))?;
    let Value::Object(body) = body else {
        return Err(Problem::bad_request("expected a JSON object, got another JSON value"));
    };
    let mut fields = Fields::default();
    fields.flatten("", body)?;
    let mut request = PictureRequest {
        prompt: fields.text("prompt")?.ok_or_else(|| expected("prompt", "a text", &Value::Null))?,
        negative_prompt: fields.text("negative_prompt")?.filter(|text| !text.is_empty()),
        count: fields.whole("batch_count", 1, u32::MAX.into())?.unwrap_or(1) as u32,
        seed: fields.seed()?,
        size: fields.size()?,
        steps: fields.whole("sample_params.sample_steps", 1, 10_000)?.map(|steps| steps as u32),
        guidance: fields.number("sample_params.guidance.txt_cfg")?,
        sampler: fields.text("sample_params.sample_method")?.filter(|name| name != "default"),
        scheduler: fields.text("sample_params.scheduler")?.filter(|name| name != "default"),
        source: fields.source()?,
        ..PictureRequest::default()
    };
    fields.flag("embed_image_metadata")?;
    let format = fields.format()?;
    let parameters = fields.native(limits)?;
    if !parameters.is_empty() {
        request.native = Some(Native { dialect: Dialect::SdCpp, parameters });
    }
    Ok((request, format))
}

fn expected(path: &str, what: &str, found: &Value) -> Problem {
    let found = match found {
        Value::Null => "nothing".to_owned(),
        Value::String(_) => "a text".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
        number => number.to_string(),
    };
    Problem::bad_request(format!("`{path}`: expected {what}, got {found}"))
}

/// The values of a body by dotted path, each taken once.
#[derive(Default)]
struct Fields(Map<String, Value>);

impl Fields {
    fn flatten(&mut self, path: &str, object: Map<String, Value>) -> Result<(), Problem> {
        for (key, value) in object {
            let here = if path.is_empty() { key } else { format!("{path}.{key}") };
            match value {
                // Of no more levels than the list above has.
                Value::Object(inner) if here.matches('.').count() < 3 => self.flatten(&here, inner)?,
                value => {
                    if self.0.insert(here.clone(), value).is_some() {
                        return Err(Problem::bad_request(format!("`{here}` is there twice")));
                    }
                }
            }
        }
        Ok(())
    }

    /// What is there and not null.
    fn take(&mut self, path: &str) -> Option<Value> {
        self.0.remove(path).filter(|value| !value.is_null())
    }

    fn text(&mut self, path: &str) -> Result<Option<String>, Problem> {
        match self.take(path) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(expected(path, "a text", &other)),
        }
    }

    fn flag(&mut self, path: &str) -> Result<Option<bool>, Problem> {
        let Some(value) = self.take(path) else { return Ok(None) };
        value.as_bool().map(Some).ok_or_else(|| expected(path, "true or false", &value))
    }

    fn number(&mut self, path: &str) -> Result<Option<f64>, Problem> {
        let Some(value) = self.take(path) else { return Ok(None) };
        let finite = value.as_f64().filter(|number| number.is_finite());
        finite.map(Some).ok_or_else(|| expected(path, "a number", &value))
    }

    fn whole(&mut self, path: &str, least: u64, most: u64) -> Result<Option<u64>, Problem> {
        let Some(value) = self.take(path) else { return Ok(None) };
        let whole = value.as_u64().filter(|number| (least..=most).contains(number));
        let what = || format!("a whole number from {least} to {most}");
        whole.map(Some).ok_or_else(|| expected(path, &what(), &value))
    }

    /// A negative seed leaves the choice to the server.
    fn seed(&mut self) -> Result<Option<u64>, Problem> {
        let Some(value) = self.take("seed") else { return Ok(None) };
        let seed = value.as_i64().ok_or_else(|| expected("seed", "a whole number below 2^63", &value))?;
        Ok(u64::try_from(seed).ok())
    }

    fn size(&mut self) -> Result<Option<(u32, u32)>, Problem> {
        let mut side = |path| self.whole(path, 1, u32::MAX.into()).map(|side| side.map(|side| side as u32));
        match (side("width")?, side("height")?) {
            (Some(width), Some(height)) => Ok(Some((width, height))),
            (None, None) => Ok(None),
            _ => Err(Problem::bad_request("expected `width` and `height`, or neither, got one of them")),
        }
    }

    fn source(&mut self) -> Result<Option<Source>, Problem> {
        let mut picture = |path: &str| self.take(path).map(|value| picture(path, &value)).transpose();
        let (start, mask) = (picture("init_image")?, picture("mask_image")?);
        // Clients send the default of 0.75 along with every request: without a picture to start from it says nothing.
        let strength = self.number("strength")?;
        match (start, mask) {
            (Some(start), mask) => Ok(Some(Source { pictures: vec![start], mask, strength })),
            (None, None) => Ok(None),
            (None, Some(_)) => Err(Problem::bad_request("`mask_image` is of use with `init_image` only")),
        }
    }

    fn format(&mut self) -> Result<Format, Problem> {
        let name = self.text("output_format")?.unwrap_or_else(|| "png".to_owned());
        let quality = self.whole("output_compression", 0, 100)?.unwrap_or(100);
        match name.to_ascii_lowercase().as_str() {
            "png" => Ok(Format::Png),
            "jpeg" => Ok(Format::Jpeg(quality.max(1) as u8)),
            "webp" if quality == 100 => Ok(Format::WebP),
            "webp" => Err(Problem::bad_request(
                "`output_compression`: expected 100 for webp, which is written without loss here",
            )),
            _ => Err(Problem::bad_request("`output_format`: expected png, jpeg or webp, got another format")),
        }
    }

    /// What is left, as far as it is known and changes anything.
    fn native(mut self, limits: &DecodeOptions) -> Result<Map<String, Value>, Problem> {
        for name in SWITCHED {
            let path = format!("{name}.enabled");
            if self.0.get(&path).is_none_or(|value| *value == json!(false)) {
                // What is not known is refused below all the same.
                self.0.retain(|key, _| {
                    let inside = key.strip_prefix(name).is_some_and(|rest| rest.starts_with('.'));
                    !(inside && known(key))
                });
            }
        }
        let mut parameters = Map::new();
        for (path, value) in self.0 {
            let Some((_, is, neutral)) = NATIVE.into_iter().find(|(known, ..)| *known == path) else {
                return Err(Problem::bad_request(format!("`{path}`: this parameter is not known here")));
            };
            let changes = !value.is_null() && !same(&value, neutral);
            if changes {
                let value = checked(&path, is, value, limits)?;
                parameters.insert(path, value);
            }
        }
        // Skip-layer guidance of no weight has no layers.
        if !parameters.contains_key("sample_params.guidance.slg.scale") {
            parameters.retain(|path, _| !path.starts_with("sample_params.guidance.slg."));
        }
        Ok(parameters)
    }
}

fn known(path: &str) -> bool {
    NATIVE.iter().any(|(known, ..)| *known == path)
}

/// Whether a value is the neutral one: numbers by what they are, not by how they are written.
fn same(value: &Value, neutral: &str) -> bool {
    let neutral: Value = serde_json::from_str(neutral).unwrap_or_default();
    match (value.as_f64(), neutral.as_f64()) {
        (Some(value), Some(neutral)) => value == neutral,
        _ => *value == neutral,
    }
}

/// A value of the kind that its parameter may have.
fn checked(path: &str, is: Is, value: Value, limits: &DecodeOptions) -> Result<Value, Problem> {
    let list = |what: &str, each: fn(&Value) -> bool| {
        let entries = value.as_array().filter(|entries| entries.len() <= MOST_ENTRIES);
        let fits = entries.is_some_and(|entries| entries.iter().all(each));
        if fits { Ok(value.clone()) } else { Err(expected(path, what, &value)) }
    };
    let harmless = |value: &Value| {
        let picture = picture(path, value)?;
        refuse_bomb(&picture, limits).map(|()| BASE64_STANDARD.encode(picture))
    };
    let one =
        |what: &str, fits: bool| if fits { Ok(value.clone()) } else { Err(expected(path, what, &value)) };
    match is {
        Is::Number => one("a number", value.is_number()),
        Is::Integer => one("a whole number", value.is_i64()),
        Is::Flag => one("true or false", value.is_boolean()),
        Is::Numbers => list("a list of at most 64 numbers", Value::is_number),
        Is::Integers => list("a list of at most 64 whole numbers", Value::is_i64),
        Is::Word => one("a name", value.as_str().is_some_and(is_word)),
        Is::Loras => list("a list of at most 64 of {path, multiplier, is_high_noise}", is_lora),
        Is::Nothing => Err(Problem::bad_request(format!("`{path}`: this parameter is not allowed here"))),
        Is::Picture => Ok(json!(harmless(&value)?)),
        Is::Pictures => {
            let entries = value.as_array().filter(|entries| entries.len() <= MOST_ENTRIES);
            let entries = entries.ok_or_else(|| expected(path, "a list of at most 64 pictures", &value))?;
            Ok(json!(entries.iter().map(harmless).collect::<Result<Vec<String>, Problem>>()?))
        }
    }
}

fn is_word(word: &str) -> bool {
    let harmless = |c: char| c.is_alphanumeric() || " _-.()".contains(c);
    (1..=128).contains(&word.len()) && !word.contains("..") && word.chars().all(harmless)
}

/// An entry of `lora`: a path below the server's folder of them, and two optional values.
fn is_lora(entry: &Value) -> bool {
    let Some(entry) = entry.as_object() else { return false };
    let path = entry.get("path").and_then(Value::as_str).unwrap_or_default();
    let inside = path.split('/').all(|part| is_word(part) && part != ".");
    let rest = entry.iter().all(|(key, value)| match key.as_str() {
        "path" => true,
        "multiplier" => value.is_number(),
        "is_high_noise" => value.is_boolean(),
        _ => false,
    });
    inside && rest
}

/// A picture in base64, alone or as a data URL. An address is neither, so that nothing is fetched.
fn picture(path: &str, value: &Value) -> Result<Bytes, Problem> {
    let wrong = || expected(path, "a picture in base64 or as a data URL", value);
    let text = value.as_str().ok_or_else(wrong)?.trim();
    let encoded = match text.strip_prefix("data:") {
        Some(rest) => rest.split_once(";base64,").ok_or_else(wrong)?.1,
        None => text,
    };
    let bytes = BASE64_STANDARD.decode(encoded).map_err(|_| wrong())?;
    if bytes.is_empty() { Err(wrong()) } else { Ok(bytes.into()) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;
    use crate::upstream::sdcpp::set;

    /// JSON with the words of this dialect in unlikely places.
    fn hostile() -> impl Strategy<Value = Value> {
        let word = prop_oneof![
            Just("../../x".to_owned()),
            Just("http://169.254.169.254/".to_owned()),
            Just("euler_a".to_owned()),
            Just("iVBORw0K".to_owned()),
            "\\PC{0,12}",
        ];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(|number| json!(number)),
            word.prop_map(Value::from),
        ];
        let names: Vec<String> = NATIVE
            .iter()
            .flat_map(|(path, ..)| path.split('.'))
            .chain([
                "prompt",
                "seed",
                "width",
                "height",
                "batch_count",
                "init_image",
                "path",
                "output_format",
            ])
            .map(str::to_owned)
            .chain(["sample_params.eta".to_owned(), "unknown".to_owned()])
            .collect();
        leaf.prop_recursive(4, 48, 8, move |inner| {
            let name = prop::sample::select(names.clone());
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec((name, inner), 0..8)
                    .prop_map(|entries| Value::Object(entries.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_read_is_on_the_list_and_leads_nowhere(
            body in hostile(),
            entries in prop::collection::vec((prop::sample::select(NATIVE.to_vec()), hostile()), 0..3),
            plain in any::<bool>(),
        ) {
            let mut body = match body {
                Value::Object(body) if !plain => body,
                _ => Map::new(),
            };
            body.insert("prompt".to_owned(), json!("a cat"));
            for ((path, ..), value) in entries {
                set(&mut body, path, value);
            }
            let body = Value::Object(body);
            if let Ok((request, _)) = request(body.to_string().as_bytes(), &DecodeOptions::default()) {
                prop_assert!(request.count >= 1 && request.guidance.is_none_or(f64::is_finite));
                for (path, value) in request.native.map(|native| native.parameters).unwrap_or_default() {
                    let (_, is, neutral) = NATIVE.into_iter().find(|(known, ..)| *known == path).unwrap();
                    prop_assert!(is != Is::Nothing && !same(&value, neutral), "{path}: {value}");
                    let told = value.to_string();
                    prop_assert!(!told.contains("..") && !told.contains("://"), "{path}: {value}");
                }
            }
        }

        #[test]
        fn bytes_that_are_no_request_are_refused(body in prop::collection::vec(any::<u8>(), 0..64)) {
            prop_assert!(request(&body, &DecodeOptions::default()).is_err());
        }
    }
}
