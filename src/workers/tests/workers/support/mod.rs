//! Scripted models, and a gate to hold them.

mod encoder;
mod gate;
mod language;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Once};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use cluegate_perception::{Call, PerceptionError, PerceptionErrorKind, Picture, Prefix, Prompt, Result};
use cluegate_workers::{AdmissionOptions, WorkerOptions};

pub(crate) use encoder::{ScriptedDetector, ScriptedEncoder};
pub(crate) use gate::Gate;
pub(crate) use language::{Event, ScriptedLanguage, fixed_completion, fixed_score, request};

/// Longer than any test takes: whoever waits so long waits for ever.
pub(crate) const FOR_EVER: Duration = Duration::from_secs(60);

/// Waits until `condition` holds.
pub(crate) fn until(condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < FOR_EVER, "what the test waits for does not come");
        std::thread::yield_now();
    }
}

/// A caller on its own thread.
pub(crate) fn spawn<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    std::thread::spawn(work)
}

/// Keeps the models' scripted panics, and those without a text, out of the test's output.
pub(crate) fn hush() {
    static HUSH: Once = Once::new();
    HUSH.call_once(|| {
        let loud = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let text = panic.payload().downcast_ref::<&str>().copied();
            let text = text.or_else(|| panic.payload().downcast_ref::<String>().map(String::as_str));
            if text.is_some_and(|text| !text.contains("scripted")) {
                loud(panic);
            }
        }));
    });
}

/// A queue of `places` that tenants share without bounds of their own, and batches of `largest`.
pub(crate) fn options(places: usize, largest_batch: usize) -> WorkerOptions {
    WorkerOptions { queue: AdmissionOptions { limit: places, per_tenant: places }, largest_batch }
}

/// A picture of one colour.
pub(crate) fn picture(number: u8) -> Picture {
    Picture::new(image::RgbImage::from_pixel(2, 2, image::Rgb([number; 3])))
}

/// A question without a picture.
pub(crate) fn prompt(text: &str) -> Prompt {
    Prompt::new(Prefix { picture: None, text: Arc::from("constant ") }, text)
}

pub(crate) fn prompts(texts: &[&str]) -> Vec<Prompt> {
    texts.iter().map(|text| prompt(text)).collect()
}

/// A number that depends on `value` only.
pub(crate) fn number(value: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// What a model does when it comes to `text`: it panics if the text begins with `panic`, and errs if with `error`.
pub(crate) fn act(text: &str) -> Result<()> {
    if text.starts_with("panic") {
        panic!("scripted: {text}");
    }
    if text.starts_with("error") {
        return Err(PerceptionError::new(PerceptionErrorKind::Request, format!("scripted: {text}")));
    }
    Ok(())
}

pub(crate) fn kind<T>(result: &Result<T>) -> Option<PerceptionErrorKind> {
    result.as_ref().err().map(PerceptionError::kind)
}

pub(crate) fn tenant(name: &str) -> Call {
    Call::new(name)
}
