//! The text-to-image server behind the gate, as a part of its own: it answers at once with prepared pictures, or draws
//! small ones and does everything wrong that a server can do, by a seed.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use cluegate_gate::fakes;
use image::{ExtendedColorType, ImageEncoder, Rgb, RgbImage};
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::http::{self, Message, Reply, answer};
use super::process::{listen, say_ready, tell_fault};

/// What it does.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Options {
    /// Answers with prepared pictures.
    Prepared {
        /// Different pictures, which take turns.
        pictures: usize,
        /// Width and height of each.
        side: u32,
        /// How long each takes, in milliseconds.
        takes_ms: u64,
    },
    /// Draws, and fails often.
    Faulty {
        /// Where to listen; 0 for anywhere.
        port: u16,
        /// Of the faults.
        seed: u64,
    },
}

/// Runs the part.
pub(super) fn run(options: &Options) -> anyhow::Result<()> {
    match *options {
        Options::Prepared { pictures, side, takes_ms } => {
            let files: Vec<Vec<u8>> =
                (0..pictures).map(|salt| photo(side, salt as u64)).collect::<Result<_, _>>()?;
            let a1111: Vec<_> = files
                .iter()
                .map(|file| Arc::new(json_answer(&a1111(std::slice::from_ref(file), 1))))
                .collect();
            let openai: Vec<_> =
                files.iter().map(|file| Arc::new(json_answer(&openai(std::slice::from_ref(file))))).collect();
            let (turn, other) = (AtomicUsize::new(0), Arc::new(json_answer(&json!({}))));
            let listener = listen(0)?;
            say_ready(listener.local_addr()?)?;
            http::serve(&listener, move |request| {
                let turn = || {
                    thread::sleep(Duration::from_millis(takes_ms));
                    turn.fetch_add(1, Ordering::Relaxed) % a1111.len()
                };
                Reply::Send(Arc::clone(match request.path() {
                    "/sdapi/v1/txt2img" => &a1111[turn()],
                    "/v1/images/generations" => &openai[turn()],
                    _ => &other,
                }))
            });
        }
        Options::Faulty { port, seed } => {
            let listener = listen(port)?;
            say_ready(listener.local_addr()?)?;
            let world = World {
                chance: Mutex::new(SmallRng::seed_from_u64(seed)),
                drawn: AtomicU64::new(seed << 32),
            };
            http::serve(&listener, move |request| world.handle(request));
        }
    }
    Ok(())
}

/// A PNG file of smooth areas and fine grain, which compresses to about half, as photographs do: with a side of 256 it has
/// about 100 kB.
pub(super) fn photo(side: u32, salt: u64) -> anyhow::Result<Vec<u8>> {
    let mut chance = SmallRng::seed_from_u64(salt);
    let phase: [f32; 3] = std::array::from_fn(|_| chance.random_range(0.0..6.0));
    let pixels = RgbImage::from_fn(side, side, |x, y| {
        let (x, y) = (x as f32 / side as f32, y as f32 / side as f32);
        Rgb(std::array::from_fn(|channel| {
            let wave = ((x * 5.0 + phase[channel]).sin() + (y * 4.0 - phase[channel]).cos()) * 45.0;
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // From 33 to 223.
            let level = (128.0 + wave + chance.random_range(-5.0..5.0)) as u8;
            level
        }))
    });
    png(&pixels)
}

/// The file as a server in Python writes it.
fn png(pixels: &RgbImage) -> anyhow::Result<Vec<u8>> {
    use image::codecs::png::{CompressionType, FilterType, PngEncoder};
    let mut bytes = Vec::new();
    PngEncoder::new_with_quality(&mut bytes, CompressionType::Default, FilterType::Adaptive).write_image(
        pixels.as_raw(),
        pixels.width(),
        pixels.height(),
        ExtendedColorType::Rgb8,
    )?;
    Ok(bytes)
}

/// The answer of AUTOMATIC1111 to `txt2img`; with several pictures a grid comes first, as it does there.
fn a1111(files: &[Vec<u8>], count: usize) -> Value {
    let info = json!({
        "seed": 1, "all_seeds": (1..=count).collect::<Vec<_>>(), "infotexts": vec!["a prompt"; files.len()],
        "index_of_first_image": files.len().saturating_sub(count),
    });
    let images: Vec<String> = files.iter().map(|file| BASE64_STANDARD.encode(file)).collect();
    json!({ "images": images, "parameters": {}, "info": info.to_string() })
}

/// The answer of OpenAI Images.
fn openai(files: &[Vec<u8>]) -> Value {
    let data: Vec<Value> =
        files.iter().map(|file| json!({ "b64_json": BASE64_STANDARD.encode(file) })).collect();
    json!({ "created": 1, "data": data, "output_format": "png" })
}

fn json_answer(body: &Value) -> Vec<u8> {
    answer("200 OK", JSON, body.to_string().as_bytes())
}

const JSON: &str = "application/json";

/// What the server does wrong with one request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Wrong {
    Nothing,
    Slow,
    Truncated,
    MediaType,
    TooFew,
    TooMany,
    NoPicture,
    HalfPicture,
    NoBase64,
    ErrorWithPicture,
    Silence,
    NoJson,
}

/// Each with the name that it is counted by.
pub(super) const WRONGS: [(Wrong, &str); 11] = [
    (Wrong::Slow, "upstream slow"),
    (Wrong::Truncated, "upstream truncated body"),
    (Wrong::MediaType, "upstream wrong content type"),
    (Wrong::TooFew, "upstream too few pictures"),
    (Wrong::TooMany, "upstream too many pictures"),
    (Wrong::NoPicture, "upstream not a picture"),
    (Wrong::HalfPicture, "upstream half a picture"),
    (Wrong::NoBase64, "upstream broken base64"),
    (Wrong::ErrorWithPicture, "upstream error with a picture"),
    (Wrong::Silence, "upstream closes without an answer"),
    (Wrong::NoJson, "upstream broken JSON"),
];
/// Share of requests with which something is wrong.
const WRONG: f64 = 0.15;
/// Share of pictures that violate a rule.
const VIOLATING: f64 = 0.4;

/// Writes an answer with these files, of as many pictures as were asked for.
type Write<'a> = &'a dyn Fn(&[Vec<u8>], usize) -> String;

struct World {
    chance: Mutex<SmallRng>,
    /// Pictures so far: each is unlike all others.
    drawn: AtomicU64,
}

impl World {
    fn random<T>(&self, draw: impl FnOnce(&mut SmallRng) -> T) -> T {
        draw(&mut self.chance.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn handle(&self, request: &Message) -> Reply {
        let asked: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        let number = |name: &str| asked[name].as_u64().unwrap_or(1).clamp(1, 8) as usize;
        match request.path() {
            "/sdapi/v1/txt2img" => {
                let count = number("batch_size") * number("n_iter");
                let write = |files: &[Vec<u8>], count: usize| {
                    if count > 1 && files.len() == count {
                        // A grid, which nobody asked for.
                        let grid = self.picture(&[2]);
                        return a1111(&[std::slice::from_ref(&grid), files].concat(), count).to_string();
                    }
                    a1111(files, files.len()).to_string()
                };
                self.draw(count, (JSON, &write))
            }
            "/v1/images/generations" if asked["stream"] == true => {
                let partial = number("partial_images");
                self.draw(1, ("text/event-stream", &|files, _| self.streamed(files, partial)))
            }
            "/v1/images/generations" => {
                let count = number("n");
                self.draw(count, (JSON, &|files, _| openai(files).to_string()))
            }
            // What is asked for by name has to be there.
            "/sdapi/v1/sd-models" => {
                let model = json!([{ "title": "m", "model_name": "m", "filename": "m.safetensors" }]);
                Reply::Send(Arc::new(json_answer(&model)))
            }
            "/sdapi/v1/schedulers" => {
                Reply::Send(Arc::new(json_answer(&json!([{ "name": "normal", "label": "Normal" }]))))
            }
            "/sdapi/v1/progress" | "/internal/progress" => {
                let step = self.random(|chance| chance.random_range(1..20));
                let (fraction, preview) =
                    (f64::from(step) / 20.0, BASE64_STANDARD.encode(self.any_picture()));
                // Both forms in one: that of the web UI's own page names a task.
                Reply::Send(Arc::new(json_answer(&json!({
                    "active": true, "queued": false, "completed": false, "progress": fraction,
                    "live_preview": format!("data:image/png;base64,{preview}"), "id_live_preview": step,
                    "eta_relative": 0.1, "current_image": preview, "textinfo": null,
                    "state": { "job": "txt2img", "job_count": 1, "sampling_step": step, "sampling_steps": 20 },
                }))))
            }
            _ => Reply::Send(Arc::new(json_answer(&json!({})))),
        }
    }

    /// A stream of OpenAI Images: previews, and the picture.
    fn streamed(&self, files: &[Vec<u8>], partial: usize) -> String {
        let event = |kind: &str, number: usize, file: &[u8]| {
            let data = json!({ "type": kind, "partial_image_index": number, "b64_json": BASE64_STANDARD.encode(file) });
            format!("event: {kind}\ndata: {data}\n\n")
        };
        let previews: String = (0..partial)
            .map(|number| event("image_generation.partial_image", number, &self.any_picture()))
            .collect();
        let finished = files.iter().map(|file| event("image_generation.completed", 0, file));
        finished.fold(previews, |stream, event| stream + &event)
    }

    /// An answer of this media type with so many pictures.
    fn draw(&self, count: usize, (media_type, write): (&str, Write)) -> Reply {
        let wrong = self
            .random(|chance| chance.random_bool(WRONG).then(|| WRONGS[chance.random_range(0..WRONGS.len())]));
        let wrong = wrong.map_or(Wrong::Nothing, |(wrong, name)| {
            tell_fault(name);
            wrong
        });
        let delay = match wrong {
            Wrong::Slow => self.random(|chance| chance.random_range(300..4000)),
            _ => self.random(|chance| chance.random_range(0..40)),
        };
        thread::sleep(Duration::from_millis(delay));
        let mut files: Vec<Vec<u8>> = (0..count).map(|_| self.any_picture()).collect();
        match wrong {
            Wrong::TooFew => files.truncate(count - 1),
            Wrong::TooMany => files.push(self.picture(&[2])),
            Wrong::NoPicture => {
                files[0] = b"this is no picture, but it is long enough to be taken for one".to_vec()
            }
            Wrong::HalfPicture => {
                let half = files[0].len() / 2;
                files[0].truncate(half);
            }
            _ => {}
        }
        let body = write(&files, count);
        let whole = answer("200 OK", media_type, body.as_bytes());
        match wrong {
            Wrong::Truncated => Reply::SendAndClose(whole[..whole.len() - body.len() / 2].to_vec()),
            Wrong::MediaType => Reply::Send(Arc::new(answer("200 OK", "image/png", &self.picture(&[2])))),
            Wrong::NoBase64 => {
                let broken = body.replace("iVBORw0KGgo", "iVB*Rw0KGgo");
                Reply::Send(Arc::new(answer("200 OK", media_type, broken.as_bytes())))
            }
            Wrong::ErrorWithPicture => {
                let picture = BASE64_STANDARD.encode(self.picture(&[2]));
                // Alone, behind words, and in lines.
                let words = match self.random(|chance| chance.random_range(0..3)) {
                    0 => picture.clone(),
                    1 => format!("{}{picture}", "the model failed at ".repeat(5)),
                    _ => picture
                        .as_bytes()
                        .chunks(76)
                        .map(String::from_utf8_lossy)
                        .collect::<Vec<_>>()
                        .join("\n"),
                };
                let body = json!({ "error": { "message": words }, "detail": words, "image": picture });
                // What blames the request is told on.
                let status = self.random(|chance| chance.random_bool(0.5));
                let status = if status { "500 Oops" } else { "400 Oops" };
                Reply::Send(Arc::new(answer(status, JSON, body.to_string().as_bytes())))
            }
            Wrong::NoJson => {
                let broken = body.replacen("\":", "\"", 1);
                Reply::Send(Arc::new(answer("200 OK", media_type, broken.as_bytes())))
            }
            Wrong::Silence => Reply::SendAndClose(Vec::new()),
            _ => Reply::Send(Arc::new(whole)),
        }
    }

    fn any_picture(&self) -> Vec<u8> {
        let violates = self.random(|chance| chance.random_bool(VIOLATING).then(|| chance.random_range(0..3)));
        match violates {
            None => self.picture(&[]),
            Some(0) => self.picture(&[2]),
            Some(1) => self.picture(&[1]),
            Some(_) => self.picture(&[0, 3]),
        }
    }

    /// A picture that shows these objects of the scripted world and is unlike every other.
    fn picture(&self, objects: &[usize]) -> Vec<u8> {
        let number = self.drawn.fetch_add(1, Ordering::Relaxed);
        png(&numbered(objects, number)).unwrap_or_default()
    }
}

/// The scripted world's picture of these objects, with a number written into its first row.
pub(super) fn numbered(objects: &[usize], number: u64) -> RgbImage {
    let mut pixels = fakes::picture(objects, 0).pixels().clone();
    for bit in 0..64 {
        // Between the greys of the background and far from every object's colour.
        let level = if number >> bit & 1 == 1 { 120 } else { 100 };
        pixels.put_pixel(bit, 0, Rgb([level; 3]));
    }
    pixels
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn photographs_differ_and_have_the_size_that_is_claimed() {
        let files: Vec<Vec<u8>> = (0..3).map(|salt| photo(256, salt).unwrap()).collect();
        assert!(files.iter().all(|file| (90_000..115_000).contains(&file.len())), "{}", files[0].len());
        assert!(files[0] != files[1] && files[1] != files[2]);
    }

    #[test]
    fn numbered_pictures_show_what_they_did() {
        assert_ne!(numbered(&[2], 5), numbered(&[2], 6));
        assert_eq!(fakes::violated(&numbered(&[2], u64::MAX)), ["sword"]);
        assert!(fakes::violated(&numbered(&[], 77)).is_empty());
    }
}
