//! From the body of `txt2img` and `img2img` to a request for pictures.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::parameters;
use crate::config::RawA1111;
use crate::problem::Problem;
use crate::request::{Dialect, Native, PictureRequest, Source};

/// The option that is the checkpoint.
const CHECKPOINT: &str = "sd_model_checkpoint";
/// Longest value of an option in bytes.
const MAX_OPTION: usize = 1024;
/// Side of a picture in pixels where a client names only the other: `width` and `height` of `modules/processing.py`.
const SIDE: u32 = 512;

/// What a body is read by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reading<'a> {
    /// `img2img`, else `txt2img`.
    pub(super) img2img: bool,
    /// What clients may use, and what is fixed.
    pub(super) allowed: &'a RawA1111,
    /// Options that the tenant has set.
    pub(super) options: &'a Map<String, Value>,
    /// Whether the upstream knows the web UI's own parameters.
    pub(super) speaks_a1111: bool,
}

/// What is asked for.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) request: PictureRequest,
    /// The client's words, as the answer repeats them: without pictures and scripts.
    pub(super) parameters: Map<String, Value>,
}

/// Reads a body.
///
/// # Errors
/// `BadRequest`, naming the parameter.
pub(super) fn read(mut body: Map<String, Value>, reading: Reading<'_>) -> Result<Asked, Problem> {
    for (name, value) in &reading.allowed.fixed {
        // An empty text leaves the parameter to the upstream.
        if value.as_str() == Some("") {
            body.remove(name);
        } else {
            body.insert(name.clone(), value.clone());
        }
    }
    body.retain(|_, value| !value.is_null());
    let pictures = ["init_images", "mask", "alwayson_scripts", "script_args"];
    let told = body.iter().filter(|(name, _)| !pictures.contains(&name.as_str()));
    let parameters = told.map(|(name, value)| (name.clone(), value.clone())).collect();
    let mut words = Words(body);
    words.refuse_side_effects()?;
    let source = if reading.img2img { Some(words.source()?) } else { None };
    let masked = source.as_ref().is_some_and(|source| source.mask.is_some());
    let count =
        words.whole("batch_size", 1)?.unwrap_or(1).checked_mul(words.whole("n_iter", 1)?.unwrap_or(1));
    let count = count.ok_or_else(|| Problem::bad_request("`batch_size` times `n_iter` is too large"))?;
    let size = match (words.whole("width", 1)?, words.whole("height", 1)?) {
        (None, None) => None,
        (width, height) => Some((width.unwrap_or(SIDE), height.unwrap_or(SIDE))),
    };
    let (sampler, older) = (words.text("sampler_name")?, words.text("sampler_index")?);
    let scheduler = words.text("scheduler")?.filter(|name| !name.eq_ignore_ascii_case("automatic"));
    let mut request = PictureRequest {
        prompt: words.text("prompt")?.unwrap_or_default(),
        negative_prompt: words.text("negative_prompt")?.filter(|text| !text.is_empty()),
        count,
        seed: words.seed()?,
        size,
        steps: words.whole("steps", 1)?,
        guidance: words.number("cfg_scale")?,
        sampler: sampler.into_iter().chain(older).find(|name| !name.is_empty()),
        scheduler: scheduler.filter(|name| !name.is_empty()),
        source,
        ..PictureRequest::default()
    };
    let mut native = Map::new();
    let (model, settings) = words.settings(reading)?;
    request.model = model;
    let scripts = words.scripts(&reading.allowed.scripts)?;
    for (name, value) in words.0 {
        parameters::check(&name, &value, reading.img2img).map_err(Problem::bad_request)?;
        native.insert(name, value);
    }
    if !reading.speaks_a1111 {
        parameters::forget_defaults(&mut native, reading.img2img, masked);
    }
    for (name, value) in [("override_settings", settings), ("alwayson_scripts", scripts)] {
        if !value.is_empty() {
            native.insert(name.to_owned(), value.into());
        }
    }
    // Also where there are none: an upstream of this dialect then takes the web UI's defaults and no others.
    request.native = Some(Native { dialect: Dialect::A1111, parameters: native });
    Ok(Asked { request, parameters })
}

/// Whether clients may set the option `name` to `value`.
///
/// # Errors
/// `BadRequest`, naming the option.
pub(super) fn check_option(allowed: &RawA1111, name: &str, value: &Value) -> Result<(), Problem> {
    if !allowed.options.iter().any(|option| option == name) {
        let known = allowed.options.join(", ");
        return Err(Problem::bad_request(format!(
            "the option `{name}` cannot be set here; these can: {known}"
        )));
    }
    let fits = match value {
        Value::String(text) => text.len() <= MAX_OPTION,
        Value::Array(_) | Value::Object(_) => false,
        _ => true,
    };
    let wanted =
        format!("the option `{name}` must be a number, true, false, or a text of at most {MAX_OPTION} bytes");
    if fits { Ok(()) } else { Err(Problem::bad_request(wanted)) }
}

/// The words of a body that are not read yet.
struct Words(Map<String, Value>);

impl Words {
    /// Takes `name` out and reads it.
    fn take<T>(
        &mut self,
        name: &str,
        expected: &str,
        read: impl FnOnce(&Value) -> Option<T>,
    ) -> Result<Option<T>, Problem> {
        let Some(value) = self.0.remove(name) else { return Ok(None) };
        let wrong = || Problem::bad_request(format!("`{name}` must be {expected}, not {}", shown(&value)));
        read(&value).map(Some).ok_or_else(wrong)
    }

    fn text(&mut self, name: &str) -> Result<Option<String>, Problem> {
        self.take(name, "text", |value| value.as_str().map(str::to_owned))
    }

    fn number(&mut self, name: &str) -> Result<Option<f64>, Problem> {
        self.take(name, "a number", Value::as_f64)
    }

    fn flag(&mut self, name: &str) -> Result<bool, Problem> {
        let flag = self.take(name, "true or false", |value| {
            value.as_bool().or_else(|| value.as_u64().map(|number| number != 0))
        })?;
        Ok(flag.unwrap_or(false))
    }

    fn whole(&mut self, name: &str, least: u32) -> Result<Option<u32>, Problem> {
        let expected = format!("a whole number of {least} or more");
        let read = |value: &Value| u32::try_from(value.as_u64()?).ok().filter(|number| *number >= least);
        self.take(name, &expected, read)
    }

    /// -1, or an empty text, is any seed.
    fn seed(&mut self) -> Result<Option<u64>, Problem> {
        let seed = self.take("seed", "a whole number of 0 or more, or -1 for any", |value| {
            let any = value.as_i64() == Some(-1) || value.as_str() == Some("");
            if any { Some(None) } else { value.as_u64().map(Some) }
        })?;
        Ok(seed.flatten())
    }

    /// Refuses what would reach beyond this request: files of the server, its settings, other routes to a picture.
    fn refuse_side_effects(&mut self) -> Result<(), Problem> {
        let refuse = |message: &str| Err(Problem::bad_request(message));
        if self.flag("save_images")? {
            return refuse(
                "`save_images` must be false: no picture is saved on the server before it is judged",
            );
        }
        if self.0.contains_key("send_images") && !self.flag("send_images")? {
            return refuse("`send_images` must be true: pictures come in the answer and nowhere else");
        }
        // The server reads these two from `save_images`, whatever they say.
        let _ = (self.flag("do_not_save_samples")?, self.flag("do_not_save_grid")?);
        if self.flag("include_init_images")? {
            return refuse("`include_init_images` must be false: pictures that came are not sent back");
        }
        let restores = "override_settings_restore_afterwards";
        if self.0.contains_key(restores) && !self.flag(restores)? {
            return refuse(
                "`override_settings_restore_afterwards` must be true: settings hold for one request",
            );
        }
        for (name, instead) in [
            ("infotext", "send its values as parameters"),
            ("force_task_id", "name the request by the header x-request-id"),
            (
                "script_name",
                "scripts of the server are not run; only `alwayson_scripts` that the gateway allows are",
            ),
        ] {
            if self.text(name)?.is_some_and(|text| !text.is_empty()) {
                return Err(Problem::bad_request(format!("`{name}` is not passed on; {instead}")));
            }
        }
        let arguments = self.take("script_args", "a list", |value| value.as_array().map(Vec::len))?;
        if arguments.is_some_and(|count| count > 0) {
            return refuse("`script_args` is not passed on; scripts of the server are not run");
        }
        Ok(())
    }

    fn source(&mut self) -> Result<Source, Problem> {
        let wanted = "a list of pictures in base64";
        let texts = self.take("init_images", wanted, |value| value.as_array().cloned())?.unwrap_or_default();
        if texts.is_empty() {
            return Err(Problem::bad_request(
                "`init_images` must be a list of at least one picture in base64",
            ));
        }
        let pictures = texts.iter().map(|text| picture("init_images", text)).collect::<Result<_, _>>()?;
        let mask = self.0.remove("mask").filter(|mask| mask.as_str() != Some(""));
        let mask = mask.map(|mask| picture("mask", &mask)).transpose()?;
        Ok(Source { pictures, mask, strength: self.number("denoising_strength")? })
    }

    /// The checkpoint, and the other settings of this request: the tenant's options, and over them the request's own.
    fn settings(&mut self, reading: Reading<'_>) -> Result<(Option<String>, Map<String, Value>), Problem> {
        let own = self.take("override_settings", "an object", |value| value.as_object().cloned())?;
        let mut settings = reading.options.clone();
        for (name, value) in own.unwrap_or_default() {
            check_option(reading.allowed, &name, &value)?;
            if !value.is_null() {
                settings.insert(name, value);
            }
        }
        let model = settings.remove(CHECKPOINT);
        let model = model.map(|model| match model {
            Value::String(name) => Ok(name),
            other => {
                let found = shown(&other);
                Err(Problem::bad_request(format!("`{CHECKPOINT}` must be a checkpoint's name, not {found}")))
            }
        });
        Ok((model.transpose()?.filter(|name| !name.is_empty()), settings))
    }

    fn scripts(&mut self, allowed: &[String]) -> Result<Map<String, Value>, Problem> {
        let scripts = self.take("alwayson_scripts", "an object", |value| value.as_object().cloned())?;
        let scripts = scripts.unwrap_or_default();
        // The server compares names in lower case (`script_name_to_index`).
        let is_allowed = |name: &str| allowed.iter().any(|allowed| allowed.eq_ignore_ascii_case(name));
        match scripts.keys().find(|name| !is_allowed(name)) {
            None => Ok(scripts),
            Some(name) => {
                let known = if allowed.is_empty() { "none is".to_owned() } else { allowed.join(", ") };
                let shown = shown(&json!(name));
                let message =
                    format!("`alwayson_scripts`: the script {shown} is not allowed here; allowed: {known}");
                Err(Problem::bad_request(message))
            }
        }
    }
}

/// A picture in base64, bare or as a data URL. An address is not fetched.
fn picture(name: &str, value: &Value) -> Result<Bytes, Problem> {
    let wrong = || {
        Problem::bad_request(format!(
            "`{name}` must be base64 or a data URL of a picture; addresses are not fetched"
        ))
    };
    let text = value.as_str().ok_or_else(wrong)?;
    let data = match text.split_once(',') {
        Some((prefix, data)) if prefix.starts_with("data:image/") && prefix.ends_with(";base64") => data,
        Some(_) => return Err(wrong()),
        None => text,
    };
    let decoded = BASE64_STANDARD.decode(data.trim()).map_err(|_| wrong())?;
    if decoded.is_empty() { Err(wrong()) } else { Ok(decoded.into()) }
}

/// The beginning of a value, for people.
fn shown(value: &Value) -> String {
    match value {
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
        scalar => scalar.to_string().chars().take(60).collect(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn read_with(body: Value, img2img: bool, allowed: &RawA1111) -> Result<Asked, Problem> {
        let Value::Object(body) = body else { return Err(Problem::bad_request("no object")) };
        read(body, Reading { img2img, allowed, options: &Map::new(), speaks_a1111: false })
    }

    fn problem(body: Value) -> String {
        read_with(body, false, &RawA1111::default()).unwrap_err().message().to_owned()
    }

    #[test]
    fn a_body_becomes_a_request() {
        let body = json!({
            "prompt": "a cat <lora:fine:1>", "negative_prompt": "", "seed": -1, "batch_size": 2, "n_iter": 3,
            "width": 640, "steps": 20, "cfg_scale": 7, "sampler_name": null, "sampler_index": "Euler a",
            "scheduler": "automatic", "save_images": false, "do_not_save_samples": false, "send_images": true,
            "script_name": null, "script_args": [], "alwayson_scripts": {}, "override_settings_restore_afterwards": true,
            "override_settings": { "sd_model_checkpoint": "fine.safetensors", "CLIP_stop_at_last_layers": 2 },
        });
        let asked = read_with(body, false, &RawA1111::default()).unwrap();
        let settings = json!({ "override_settings": { "CLIP_stop_at_last_layers": 2 } });
        let parameters = settings.as_object().unwrap().clone();
        let expected = PictureRequest {
            prompt: "a cat <lora:fine:1>".to_owned(),
            count: 6,
            size: Some((640, 512)),
            steps: Some(20),
            guidance: Some(7.0),
            sampler: Some("Euler a".to_owned()),
            model: Some("fine.safetensors".to_owned()),
            native: Some(Native { dialect: Dialect::A1111, parameters }),
            ..PictureRequest::default()
        };
        assert_eq!(asked.request, expected);
        assert_eq!(asked.parameters["batch_size"], 2);
    }

    #[test]
    fn what_reaches_beyond_the_request_is_refused_by_name() {
        for (body, named) in [
            (json!({ "save_images": true }), "save_images"),
            (json!({ "send_images": false }), "send_images"),
            (json!({ "infotext": "Steps: 1" }), "infotext"),
            (json!({ "force_task_id": "task(x)" }), "force_task_id"),
            (json!({ "script_name": "x/y/z plot" }), "script_name"),
            (json!({ "script_args": [1] }), "script_args"),
            (json!({ "alwayson_scripts": { "ControlNet": { "args": [] } } }), "ControlNet"),
            (json!({ "override_settings": { "outdir_samples": "/etc" } }), "outdir_samples"),
            (json!({ "override_settings": { "sd_vae": { "a": 1 } } }), "sd_vae"),
            (
                json!({ "override_settings_restore_afterwards": false }),
                "override_settings_restore_afterwards",
            ),
            (json!({ "outpath_samples": "/etc" }), "outpath_samples"),
            (json!({ "init_images": ["YQ=="] }), "init_images"),
            (json!({ "prompt": ["x"] }), "prompt"),
            (json!({ "seed": -2 }), "seed"),
            (json!({ "batch_size": 0 }), "batch_size"),
            (json!({ "batch_size": 65536, "n_iter": 65536 }), "n_iter"),
            (json!({ "steps": 1.5 }), "steps"),
        ] {
            let message = problem(body.clone());
            assert!(message.contains(named), "{body}: {message}");
        }
    }

    #[test]
    fn pictures_come_in_base64_and_from_no_address() {
        let none = RawA1111::default();
        let asked = read_with(
            json!({ "init_images": ["data:image/png;base64,YQ=="], "mask": "Yg==", "denoising_strength": 0.4 }),
            true,
            &none,
        );
        let asked = asked.unwrap();
        let source = asked.request.source.unwrap();
        assert_eq!((&source.pictures[0][..], source.mask.as_deref()), (&b"a"[..], Some(&b"b"[..])));
        assert!(!asked.parameters.contains_key("init_images") && !asked.parameters.contains_key("mask"));
        for wrong in
            [json!([]), json!(["http://10.0.0.1/x.png"]), json!(["file:///x"]), json!([""]), json!(null)]
        {
            let refused = read_with(json!({ "init_images": wrong }), true, &none);
            assert!(refused.unwrap_err().message().contains("init_images"), "{wrong}");
        }
    }

    #[test]
    fn a_fixed_value_replaces_the_clients_and_an_empty_one_removes_it() {
        let fixed = [("steps".to_owned(), json!(9)), ("sampler_name".to_owned(), json!(""))];
        let allowed = RawA1111 {
            scripts: vec!["ADetailer".to_owned()],
            fixed: fixed.into_iter().collect(),
            ..RawA1111::default()
        };
        let body = json!({
            "steps": 150, "sampler_name": "Euler", "alwayson_scripts": { "adetailer": { "args": [false] } },
        });
        let asked = read_with(body, false, &allowed).unwrap();
        assert_eq!((asked.request.steps, asked.request.sampler), (Some(9), None));
        assert!(asked.request.native.unwrap().parameters.contains_key("alwayson_scripts"));
        assert!(!asked.parameters.contains_key("alwayson_scripts"));
    }

    proptest::proptest! {
        #[test]
        fn any_object_is_read_or_refused(
            name in "(prompt|seed|batch_size|width|init_images|mask|styles|override_settings|alwayson_scripts|[a-z_]{1,9})",
            value in proptest::sample::select(vec![
                "-1", "0", "1e300", "true", "\"\"", "\"x\"", "[]", "[null]", "{}", "{\"a\": []}", "99999999999",
            ]),
            img2img in proptest::bool::ANY,
        ) {
            let mut body = Map::new();
            body.insert(name, serde_json::from_str(value).unwrap());
            if let Ok(asked) = read_with(body.into(), img2img, &RawA1111::default()) {
                proptest::prop_assert!(asked.request.count > 0);
            }
        }
    }
}
