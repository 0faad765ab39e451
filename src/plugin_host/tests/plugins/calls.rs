//! Calls that go well, and calls that do not.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cluegate_gate::DrawSource;
use cluegate_perception::{Call, Picture};
use cluegate_plugin_host::{Change, Drawing, HostError, Plugin, Spec, Watch};
use image::{Rgb, RgbImage};
use serde_json::json;

use crate::support::{open, picture, spec, unruly};

#[test]
fn a_judge_in_rust_labels_and_answers() {
    let plugin = open(spec("colours", json!({ "colour": "magenta", "share": 0.9 })));
    let call = Call::default();
    let found = plugin.classify(&picture([250, 10, 250]), &call).unwrap();
    assert!(found.flagged && found.score > 0.99, "{found:?}");
    assert_eq!(found.labels[0].region, Some([0.0, 0.0, 24.0, 16.0]));
    let found = plugin.classify(&picture([10, 10, 10]), &call).unwrap();
    assert!(!found.flagged && found.labels.is_empty(), "{found:?}");
    let statement = "the picture is mostly magenta";
    assert!(plugin.answer(Some(&picture([255, 0, 255])), statement, &call).unwrap().ratio() > 0.9);
    assert_eq!(plugin.answer(None, statement, &call).unwrap().ratio(), 0.0);
    let error = plugin.generate(Drawing::default(), &call, &mut cluegate_plugin_host::Unwatched).unwrap_err();
    assert_eq!(error.to_string(), "plugin colours cannot generate; it can classify, answer");
}

#[test]
fn an_action_in_rust_hides_paints_and_rewrites() {
    let folder = tempfile::tempdir().unwrap();
    let plugin = open(Spec { folder: folder.path().to_path_buf(), ..spec("pixelate", json!({})) });
    let call = Call::default();
    let change = || Change { regions: vec![[2.0, 0.0, 6.0, 4.0]], ..Change::default() };
    let original = picture([0, 0, 0]);
    let hidden = plugin.redact(&original, change(), &call).unwrap();
    // One white pixel of sixteen.
    assert_eq!([(3, 1), (5, 3), (6, 3)].map(|(x, y)| hidden.pixels().get_pixel(x, y).0[0]), [15, 15, 0]);
    let painted = plugin.inpaint(&original, change(), &call).unwrap();
    assert_eq!(painted.pixels().get_pixel(3, 1).0, [0; 3]);
    let avoid = ["a sword is visible".to_owned()];
    let prompt = plugin.rewrite("a knight", &avoid, 2, &call).unwrap();
    assert_eq!(prompt, "a knight, without: a sword is visible");
    plugin.publish("{\"decision\":1}".to_owned(), &call).unwrap();
    plugin.publish("{\"decision\":2}".to_owned(), &call).unwrap();
    let published = std::fs::read_to_string(folder.path().join("published.jsonl")).unwrap();
    assert_eq!(published, "{\"decision\":1}\n{\"decision\":2}\n");
}

/// Wants a preview at every step from the second, and stops at a step.
#[derive(Default)]
struct Watcher {
    stop_at: u32,
    previews: Vec<(u32, Picture)>,
    steps: u32,
}

impl Watch for Watcher {
    fn wants(&mut self, step: u32, _: u32) -> bool {
        step >= 2
    }

    fn step(&mut self, step: u32, _: u32, preview: Option<Picture>) -> bool {
        self.steps += 1;
        self.previews.extend(preview.map(|preview| (step, preview)));
        step != self.stop_at
    }
}

#[test]
fn a_pipeline_in_rust_begins_from_a_picture() {
    let plugin = open(spec("scenes", json!({})));
    assert!(plugin.description().from_pictures);
    let drawing = || Drawing { prompt: "a red disc".to_owned(), seed: 5, ..Drawing::default() };
    let call = Call::default();
    let half = |x: u32| if x < 6 { Rgb([255; 3]) } else { Rgb([0; 3]) };
    // A mask of another size is scaled.
    let mask = Picture::new(RgbImage::from_fn(12, 8, |x, _| half(x)));
    let mut source = DrawSource { picture: picture([0, 0, 200]), mask: Some(mask), strength: Some(0.5) };
    let draw = |source: &DrawSource| {
        let drawn = plugin.generate_from(drawing(), source, &call, &mut cluegate_plugin_host::Unwatched);
        drawn.unwrap().unwrap()
    };
    let masked = draw(&source);
    assert_eq!((masked.width(), masked.height()), (24, 16));
    let blue = source.picture.pixels();
    assert!((14..24).all(|x| masked.pixels().get_pixel(x, 9) == blue.get_pixel(x, 9)));
    assert!(masked.pixels().get_pixel(2, 2) != source.picture.pixels().get_pixel(2, 2));
    source.mask = None;
    let whole = draw(&source);
    assert!(
        whole.pixels().get_pixel(2, 2) == masked.pixels().get_pixel(2, 2)
            && whole.pixels() != masked.pixels()
    );
    // At full strength nothing is left of it but its size.
    source.strength = Some(1.0);
    let alone = Drawing { width: Some(24), height: Some(16), ..drawing() };
    let alone = plugin.generate(alone, &call, &mut cluegate_plugin_host::Unwatched).unwrap().unwrap();
    assert_eq!(draw(&source).pixels(), alone.pixels());
    source.strength = Some(1.5);
    let error =
        plugin.generate_from(drawing(), &source, &call, &mut cluegate_plugin_host::Unwatched).unwrap_err();
    assert!(error.to_string().contains("the strength is 1.5"), "{error}");
}

#[test]
fn a_pipeline_in_rust_draws_with_latent_previews_and_can_be_stopped() {
    let plugin = open(spec("scenes", json!({})));
    let drawing = || Drawing { prompt: "a red disc".to_owned(), seed: 5, ..Drawing::default() };
    let call = Call::default();
    let mut watcher = Watcher::default();
    let drawn = plugin.generate(drawing(), &call, &mut watcher).unwrap().unwrap();
    assert_eq!(watcher.previews.iter().map(|(step, _)| *step).collect::<Vec<_>>(), [2, 3, 4]);
    // A latent preview has a pixel for 8 x 8, and the last one shows what is drawn.
    let last = &watcher.previews[2].1;
    assert_eq!((last.width(), drawn.width()), (8, 64));
    let red = |picture: &Picture| {
        picture.pixels().pixels().filter(|pixel| pixel.0[0] > 200 && pixel.0[1] < 60).count()
    };
    assert!(red(&drawn) > 500 && red(last) > 5, "{} {}", red(&drawn), red(last));
    assert_eq!(
        plugin.generate(drawing(), &call, &mut Watcher::default()).unwrap().unwrap().hash(),
        drawn.hash()
    );
    let mut watcher = Watcher { stop_at: 3, ..Watcher::default() };
    assert!(plugin.generate(drawing(), &call, &mut watcher).unwrap().is_none());
    assert_eq!(watcher.steps, 3);
    let error = plugin.check(Drawing { sampler: Some("DDIM".to_owned()), ..drawing() }, &call).unwrap_err();
    assert!(error.to_string().contains("(request): it has no samplers"), "{error}");
}

#[test]
fn what_a_plugin_does_wrong_is_an_error_of_that_call() {
    let (call, image) = (Call::default(), picture([9, 9, 9]));
    let classified = |does: &str| open(unruly(does)).classify(&image, &call).map(|found| found.score);
    assert_eq!(classified(""), Ok(9.0 / 255.0));
    for (does, kind, says) in [
        ("fail", "plugin-failed", "it was told to fail"),
        ("panic", "plugin-panic", "it panicked: it was told to panic"),
        ("nan", "plugin-contract", "expected a score from 0 to 1, it gave NaN"),
    ] {
        let error = classified(does).unwrap_err();
        assert!(error.kind() == kind && error.to_string().contains(says), "{does}: {error}");
    }
    let error = open(unruly("nan")).answer(None, "x", &call).unwrap_err().to_string();
    assert!(error.contains("expected the probability of Yes from 0 to 1, it gave 2"), "{error}");
    let error = open(unruly("larger")).redact(&image, Change::default(), &call).unwrap_err().to_string();
    assert!(
        error.contains("expected a picture of 24 x 16 pixels like the one that was given, it gave 25 x 16"),
        "{error}"
    );
    let drawn = |does: &str, stop_at| {
        open(unruly(does)).generate(Drawing::default(), &call, &mut Watcher { stop_at, ..Watcher::default() })
    };
    assert!(drawn("forget", 0).unwrap_err().to_string().contains("gave a drawing up that nobody told it to"));
    // Told to stop, it gives a picture all the same: nobody gets it.
    assert!(drawn("insist", 1).unwrap().is_none());
    // A plugin that panicked is used again.
    let panics = open(unruly("panic"));
    assert!((0..2).all(|_| panics.classify(&image, &call).unwrap_err().kind() == "plugin-panic"));
    assert_eq!(panics.broken(), None);
}

#[test]
fn a_plugin_that_hangs_is_given_up() {
    let hangs = open(Spec { deadline: Duration::from_millis(30), ..unruly("hang") });
    let (call, image) = (Call::default(), picture([9, 9, 9]));
    let error = hangs.classify(&image, &call).unwrap_err();
    assert!(matches!(error, HostError::TimedOut { .. }) && error.kind() == "timeout", "{error}");
    let error = hangs.classify(&image, &call).unwrap_err();
    assert_eq!(error.kind(), "plugin-broken");
    assert!(hangs.broken().unwrap().contains("no answer within 30 ms"), "{error}");
    // Another instance of the same library is not to blame.
    assert!(open(unruly("")).classify(&image, &call).is_ok());
}

#[test]
fn a_call_that_is_called_off_ends_and_the_plugin_is_used_again() {
    let waits = Arc::new(open(unruly("wait")));
    let image = picture([9, 9, 9]);
    for _ in 0..2 {
        let call = Call::default();
        let (theirs, plugin, copy) = (call.clone(), Arc::clone(&waits), image.clone());
        let waiting = std::thread::spawn(move || plugin.classify(&copy, &theirs));
        call.cancel();
        assert_eq!(waiting.join().unwrap().unwrap_err().kind(), "cancelled");
    }
    let late = Call::default().until(Instant::now() + Duration::from_millis(20));
    assert_eq!(waits.classify(&image, &late).unwrap_err().kind(), "timeout");
    assert_eq!(waits.broken(), None);
}

#[test]
fn calls_from_many_threads_come_to_their_own_answers() {
    fn each(plugin: &Plugin) {
        std::thread::scope(|scope| {
            for level in [40_u8, 80, 120, 160] {
                scope.spawn(move || {
                    for _ in 0..20 {
                        let found = plugin.classify(&picture([level, 0, 0]), &Call::default()).unwrap();
                        assert!(found.score <= 1.0);
                        if plugin.name() == "unruly" {
                            assert_eq!(found.score, f32::from(level) / 255.0);
                        }
                    }
                });
            }
        });
    }
    // One call at a time, and many at once.
    each(&open(unruly("")));
    each(&open(spec("colours", json!({ "colour": "red" }))));
}
