//! Plugins in a process of their own. This program is that process too, when it is started with the worker's command: so it
//! has a `main` of its own.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

mod support;

use std::path::Path;
use std::time::Duration;

use cluegate_gate::DrawSource;
use cluegate_perception::{Call, Picture};
use cluegate_plugin_host::{Change, Drawing, HostError, Isolation, Plugin, Spec, WORKER_COMMAND, Watch};
use serde_json::json;
use support::{open, picture, spec, unruly};

fn apart(spec: Spec) -> Spec {
    // No rest, so that nothing here waits for time to pass.
    let isolation = Isolation { rest: Duration::ZERO, room: 1 << 20, ..Isolation::default() };
    Spec { isolation: Some(isolation), ..spec }
}

fn answers_are_the_same_as_in_this_process() {
    let call = Call::default();
    let colours = || spec("colours", json!({ "colour": "magenta" }));
    let (here, there) = (open(colours()), open(apart(colours())));
    assert_eq!((here.description(), here.fingerprint()), (there.description(), there.fingerprint()));
    for colour in [[250, 10, 250], [10, 10, 10]] {
        let image = picture(colour);
        assert_eq!(here.classify(&image, &call), there.classify(&image, &call));
        let statement = "the picture is mostly magenta";
        assert_eq!(here.answer(Some(&image), statement, &call), there.answer(Some(&image), statement, &call));
    }
    assert_eq!(here.answer(None, "x", &call), there.answer(None, "x", &call));
    let folder = tempfile::tempdir().unwrap();
    let pixelate = || Spec { folder: folder.path().to_path_buf(), ..spec("pixelate", json!({})) };
    let (here, there) = (open(pixelate()), open(apart(pixelate())));
    let change = || Change { regions: vec![[2.0, 0.0, 6.0, 4.0]], ..Change::default() };
    let image = picture([1, 2, 3]);
    let hidden = here.redact(&image, change(), &call).unwrap();
    assert_eq!(there.redact(&image, change(), &call).unwrap().hash(), hidden.hash());
    assert_eq!(here.rewrite("a cat", &[], 2, &call), there.rewrite("a cat", &[], 2, &call));
    assert_eq!(there.publish("{}".to_owned(), &call), Ok(()));
}

#[derive(Default)]
struct Watcher {
    stop_at: u32,
    previews: Vec<Picture>,
}

impl Watch for Watcher {
    fn wants(&mut self, step: u32, _: u32) -> bool {
        step >= 2
    }

    fn step(&mut self, step: u32, _: u32, preview: Option<Picture>) -> bool {
        self.previews.extend(preview);
        step != self.stop_at
    }
}

fn a_drawing_tells_of_its_steps_across_processes() {
    let (here, there) = (open(spec("scenes", json!({}))), open(apart(spec("scenes", json!({})))));
    let drawing = || Drawing { prompt: "a red disc".to_owned(), seed: 5, ..Drawing::default() };
    let call = Call::default();
    let drawn = |plugin: &Plugin| {
        let mut watcher = Watcher::default();
        let drawn = plugin.generate(drawing(), &call, &mut watcher).unwrap().unwrap();
        (drawn.hash(), watcher.previews.iter().map(Picture::hash).collect::<Vec<_>>())
    };
    let expected = drawn(&here);
    assert_eq!(expected.1.len(), 3);
    assert_eq!(drawn(&there), expected);
    let mut watcher = Watcher { stop_at: 2, ..Watcher::default() };
    assert!(there.generate(drawing(), &call, &mut watcher).unwrap().is_none());
    // And the next one is whole again.
    assert_eq!(drawn(&there), expected);
    // A picture to begin from and its mask lie one behind the other in the shared memory.
    let mask =
        Picture::new(image::RgbImage::from_fn(24, 16, |x, _| image::Rgb([if x < 9 { 255 } else { 0 }; 3])));
    let source = DrawSource { picture: picture([0, 0, 200]), mask: Some(mask), strength: Some(0.5) };
    let drawn = |plugin: &Plugin| {
        let mut watcher = Watcher::default();
        plugin.generate_from(drawing(), &source, &call, &mut watcher).unwrap().unwrap().hash()
    };
    assert_eq!(drawn(&there), drawn(&here));
    // Each fits alone, and both together do not.
    let large = Picture::new(image::RgbImage::new(512, 512));
    let source = DrawSource { picture: large.clone(), mask: Some(large), strength: None };
    let error = there.generate_from(drawing(), &source, &call, &mut Watcher::default()).unwrap_err();
    assert!(error.to_string().contains("pictures of 1572864 bytes do not fit into the"), "{error}");
}

fn a_crash_costs_one_request() {
    let (call, image) = (Call::default(), picture([9, 9, 9]));
    for (does, says) in [("crash", "signal 11"), ("abort", "signal 6")] {
        let plugin = open(apart(unruly(does)));
        for _ in 0..2 {
            let error = plugin.classify(&image, &call).unwrap_err();
            assert!(
                matches!(&error, HostError::Crashed { how, .. } if how.contains(says)),
                "{does}: {error}"
            );
        }
        // Its own doing alone: what it does not crash at goes well, in a new process.
        plugin.check(Drawing::default(), &call).unwrap();
    }
    let panics = open(apart(unruly("panic")));
    assert_eq!(panics.classify(&image, &call).unwrap_err().kind(), "plugin-panic");
}

fn a_process_that_ended_rests_before_it_is_started_again() {
    let (call, image) = (Call::default(), picture([9, 9, 9]));
    let mut spec = apart(unruly("crash"));
    let day = Duration::from_secs(86_400);
    spec.isolation = Some(Isolation { rest: day, longest_rest: day, ..Isolation::default() });
    let plugin = open(spec);
    assert_eq!(plugin.classify(&image, &call).unwrap_err().kind(), "plugin-crashed");
    let error = plugin.classify(&image, &call).unwrap_err();
    assert!(matches!(&error, HostError::Resting { how, .. } if how.contains("signal 11")), "{error}");
}

fn a_process_that_hangs_is_ended() {
    let (call, image) = (Call::default(), picture([9, 9, 9]));
    let plugin = open(Spec { deadline: Duration::from_millis(50), ..apart(unruly("hang")) });
    for _ in 0..2 {
        assert!(matches!(plugin.classify(&image, &call).unwrap_err(), HostError::TimedOut { .. }));
    }
    plugin.check(Drawing::default(), &call).unwrap();
    let slow = Spec { open_deadline: Duration::from_millis(200), ..apart(unruly("hang-at-once")) };
    let error = Plugin::open(slow, &support::search(support::examples())).unwrap_err();
    assert!(matches!(error, HostError::TimedOut { .. }), "{error}");
}

fn a_call_that_is_called_off_leaves_its_process_alive() {
    let plugin = open(apart(unruly("wait")));
    let image = picture([9, 9, 9]);
    for _ in 0..2 {
        let call = Call::default();
        call.cancel();
        assert_eq!(plugin.classify(&image, &call).unwrap_err().kind(), "cancelled");
        let late = Call::default().until(std::time::Instant::now() + Duration::from_millis(20));
        assert_eq!(plugin.classify(&image, &late).unwrap_err().kind(), "timeout");
    }
    plugin.check(Drawing::default(), &Call::default()).unwrap();
}

fn a_picture_that_does_not_fit_is_refused_and_nothing_ends() {
    let plugin = open(apart(unruly("")));
    let large = Picture::new(image::RgbImage::new(1024, 1024));
    let error = plugin.classify(&large, &Call::default()).unwrap_err();
    assert!(error.to_string().contains("do not fit into the"), "{error}");
    assert!(plugin.classify(&picture([9, 9, 9]), &Call::default()).is_ok());
}

fn what_cannot_be_opened_there_is_said_here() {
    let refused =
        |spec| Plugin::open(apart(spec), &support::search(support::examples())).unwrap_err().to_string();
    let error = refused(unruly("refuse"));
    assert!(error.contains("it was told to refuse"), "{error}");
    let error = refused(spec("colours", json!({ "color": "red" })));
    assert!(error.contains("did you mean `colour`?"), "{error}");
    let nowhere = Isolation { program: Some("/no/such/program".into()), ..Isolation::default() };
    let spec = Spec { isolation: Some(nowhere), ..unruly("") };
    let error = Plugin::open(spec, &support::search(support::examples())).unwrap_err().to_string();
    assert!(error.contains("its process cannot be started"), "{error}");
}

/// Loads, uses and annoys plugins, and lets go of them: what valgrind watches.
fn exercise(folder: &Path) {
    let (call, image) = (Call::default(), picture([90, 90, 90]));
    let change = || Change { regions: vec![[2.0, 0.0, 6.0, 4.0]], ..Change::default() };
    for round in 0..3 {
        let tally = Plugin::open(spec("tally", json!({})), &support::search(folder)).unwrap();
        tally.classify(&image, &call).unwrap();
        tally.answer(None, "the picture is bright", &call).unwrap();
        tally.answer(None, "the picture is loud", &call).unwrap_err();
        tally.redact(&image, change(), &call).unwrap();
        Plugin::open(spec("tally", json!({ "not": round })), &support::search(folder)).unwrap_err();
        let colours = open(spec("colours", json!({ "colour": "red" })));
        colours.classify(&image, &call).unwrap();
        colours.answer(Some(&image), "something else", &call).unwrap_err();
        let pixelate = open(Spec { folder: folder.to_path_buf(), ..spec("pixelate", json!({})) });
        pixelate.redact(&image, change(), &call).unwrap();
        pixelate.rewrite("a cat", &[], 2, &call).unwrap();
        let scenes = open(spec("scenes", json!({})));
        scenes.generate(Drawing::default(), &call, &mut Watcher::default()).unwrap().unwrap();
        let mut watcher = Watcher { stop_at: 2, ..Watcher::default() };
        assert!(scenes.generate(Drawing::default(), &call, &mut watcher).unwrap().is_none());
        for does in ["fail", "panic", "nan"] {
            open(unruly(does)).classify(&image, &call).unwrap_err();
        }
        Plugin::open(unruly("refuse"), &support::search(support::examples())).unwrap_err();
    }
}

fn valgrind(folder: &Path) -> std::process::Output {
    let mut valgrind = std::process::Command::new("valgrind");
    valgrind.args([
        "--quiet",
        "--leak-check=full",
        "--show-leak-kinds=definite",
        "--errors-for-leak-kinds=definite",
    ]);
    valgrind.args(["--error-exitcode=99", "--num-callers=30"]).arg(std::env::current_exe().unwrap());
    valgrind.arg(EXERCISE).arg(folder).output().unwrap()
}

fn nothing_leaks_and_nothing_is_used_after_its_end() {
    if std::process::Command::new("valgrind").arg("--version").output().is_err() {
        return eprintln!("not tried: install valgrind to look for leaks of plugins");
    }
    support::examples();
    for (wrong, says) in [(0, ""), (9, "definitely lost"), (10, "Invalid read")] {
        let folder = tempfile::tempdir().unwrap();
        support::compile(folder.path(), "tally", "tally.c", &[&format!("-DWRONG={wrong}")]);
        let output = valgrind(folder.path());
        let said = String::from_utf8_lossy(&output.stderr);
        match wrong {
            0 => assert!(output.status.success(), "{said}"),
            // What is wrong on purpose is found, so that silence means something.
            _ => assert!(output.status.code() == Some(99) && said.contains(says), "{wrong}: {said}"),
        }
    }
}

/// The command of this program that valgrind watches.
const EXERCISE: &str = "exercise-plugins";

fn main() {
    match std::env::args().nth(1).as_deref() {
        Some(WORKER_COMMAND) => return cluegate_plugin_host::run_worker().unwrap(),
        Some(EXERCISE) => return exercise(Path::new(&std::env::args().nth(2).unwrap())),
        _ => {}
    }
    let filter = std::env::args().nth(1).filter(|argument| !argument.starts_with('-'));
    let tests: [(&str, fn()); 9] = [
        ("nothing_leaks_and_nothing_is_used_after_its_end", nothing_leaks_and_nothing_is_used_after_its_end),
        ("answers_are_the_same_as_in_this_process", answers_are_the_same_as_in_this_process),
        ("a_drawing_tells_of_its_steps_across_processes", a_drawing_tells_of_its_steps_across_processes),
        ("a_crash_costs_one_request", a_crash_costs_one_request),
        (
            "a_process_that_ended_rests_before_it_is_started_again",
            a_process_that_ended_rests_before_it_is_started_again,
        ),
        ("a_process_that_hangs_is_ended", a_process_that_hangs_is_ended),
        (
            "a_call_that_is_called_off_leaves_its_process_alive",
            a_call_that_is_called_off_leaves_its_process_alive,
        ),
        (
            "a_picture_that_does_not_fit_is_refused_and_nothing_ends",
            a_picture_that_does_not_fit_is_refused_and_nothing_ends,
        ),
        ("what_cannot_be_opened_there_is_said_here", what_cannot_be_opened_there_is_said_here),
    ];
    for (name, test) in tests {
        if filter.as_ref().is_none_or(|filter| name.contains(filter)) {
            test();
            println!("test {name} ... ok");
        }
    }
}
