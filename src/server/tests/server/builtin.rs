//! The built-in generator as an upstream.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cluegate_gate::fakes::picture;
use cluegate_gate::policy::Policies;
use cluegate_gate::{DrawJob, DrawOptions, Drawn, Generator, GeneratorError, Step, StepHook};
use cluegate_server::{
    Config, Dialect, Event, Native, Order, PictureRequest, Source, Upstream, UpstreamErrorKind, upstream,
};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::support::{Gateway, Setup};

const STEPS: u32 = 10;

/// Draws the picture `[2]` (a sword) for "sword" and an empty one for other prompts, in ten steps.
#[derive(Default)]
struct Painter {
    jobs: Mutex<Vec<DrawJob>>,
    steps: AtomicUsize,
    at_once: AtomicUsize,
    most_at_once: AtomicUsize,
    /// Previews that it was asked for and that end nothing.
    only_shown: AtomicUsize,
    /// Whether it never ends by itself.
    endless: bool,
    /// Whether it draws from pictures too.
    from_pictures: bool,
}

impl Painter {
    fn draw_one(&self, index: usize, job: &DrawJob, hook: &mut dyn StepHook) -> Drawn {
        self.jobs.lock().unwrap().push(job.clone());
        let shown = picture(if job.prompt.contains("sword") { &[2] } else { &[] }, job.seed as u8);
        let mut step = 1;
        while step <= STEPS || self.endless {
            self.steps.fetch_add(1, Ordering::AcqRel);
            let wanted = hook.wants_preview(index, step.min(STEPS), STEPS);
            if wanted && !hook.may_end(index, step.min(STEPS), STEPS) {
                self.only_shown.fetch_add(1, Ordering::AcqRel);
            }
            if hook.step(index, step.min(STEPS), STEPS, wanted.then_some(&shown)) == Step::Stop {
                return Drawn::Stopped;
            }
            step += 1;
        }
        Drawn::Finished(shown)
    }
}

impl Generator for Painter {
    fn fingerprint(&self) -> &str {
        "painter"
    }

    fn draws_from_pictures(&self) -> bool {
        self.from_pictures
    }

    fn check(&self, options: &DrawOptions) -> Result<(), GeneratorError> {
        match options.steps {
            Some(steps) if steps > 100 => Err(GeneratorError::new("expected at most 100 steps")),
            _ => Ok(()),
        }
    }

    fn draw(&self, jobs: &[DrawJob], hook: &mut dyn StepHook) -> Vec<Result<Drawn, GeneratorError>> {
        let now = self.at_once.fetch_add(1, Ordering::AcqRel) + 1;
        self.most_at_once.fetch_max(now, Ordering::AcqRel);
        let drawn = jobs.iter().enumerate().map(|(index, job)| {
            if job.prompt.contains("panic") {
                panic!("the painter fell off the ladder");
            }
            if job.prompt.contains("fails") {
                return Err(GeneratorError::new("out of paint"));
            }
            Ok(self.draw_one(index, job, hook))
        });
        let drawn = drawn.collect();
        self.at_once.fetch_sub(1, Ordering::AcqRel);
        drawn
    }
}

fn open(painter: &Arc<Painter>) -> Arc<dyn Upstream> {
    let text = "[keys]\nanonymous = \"t\"\n[upstream]\nkind = \"builtin\"\nmodel = \"suite\"\n";
    let config = Config::parse(text, "gate.toml", Path::new("")).unwrap();
    upstream::open(&config.upstream.unwrap(), Some(Arc::<Painter>::clone(painter) as _)).unwrap()
}

fn order(prompt: &str, count: u32) -> Order {
    let request = PictureRequest { prompt: prompt.to_owned(), count, ..PictureRequest::default() };
    let none = Policies::from_toml("[tenant.t]\npreviews = []\n", "policy.toml").unwrap();
    Order {
        request: Arc::new(request),
        count,
        first: 0,
        seed: 7,
        attempt: 1,
        avoid: vec!["a sword".to_owned()],
        safety: Default::default(),
        previews: none.get("t").unwrap().previews.clone(),
        show_previews: false,
        deadline: Instant::now() + Duration::from_secs(60),
        cancel: CancellationToken::new(),
    }
}

/// Takes events until the sender is gone.
async fn drain(mut events: mpsc::Receiver<Event>) -> Vec<Event> {
    let mut all = Vec::new();
    while let Some(event) = events.recv().await {
        all.push(event);
    }
    all
}

#[tokio::test]
async fn each_picture_comes_once_with_its_own_seed() {
    let painter = Arc::new(Painter::default());
    let built_in = open(&painter);
    assert_eq!((built_in.dialect(), built_in.fingerprint()), (Dialect::BuiltIn, "painter"));
    built_in.ready().await.unwrap();
    let (send, events) = mpsc::channel(4);
    let order = order("a cat", 3);
    let (drawn, events) = tokio::join!(built_in.draw(&order, send), drain(events));
    drawn.unwrap();
    let indices = events.iter().filter_map(|event| match event {
        Event::Picture { index, .. } => Some(*index),
        _ => None,
    });
    assert_eq!(indices.collect::<Vec<_>>(), [0, 1, 2]);
    let jobs = painter.jobs.lock().unwrap();
    assert_eq!(jobs.iter().map(|job| job.seed).collect::<Vec<_>>(), [7, 8, 9]);
    assert!(jobs.iter().all(|job| job.avoid == ["a sword"] && &*job.prompt == "a cat"));
    let mut last = 0.0;
    for event in &events {
        if let Event::Progress(progress) = event {
            assert!((last..=1.0).contains(&progress.fraction), "{progress:?} after {last}");
            assert_eq!(progress.steps, Some(STEPS));
            last = progress.fraction;
        }
    }
    assert!(last > 0.0, "no progress was told");
    assert!(!events.iter().any(|event| matches!(event, Event::Preview { .. })), "nobody asked for previews");
}

#[tokio::test]
async fn previews_come_when_they_are_due() {
    let painter = Arc::new(Painter::default());
    let built_in = open(&painter);
    let policies = Policies::from_toml("[tenant.t]\npreviews = [0.5, 8]\n", "policy.toml").unwrap();
    let order = Order { previews: policies.get("t").unwrap().previews.clone(), ..order("a cat", 1) };
    let (send, events) = mpsc::channel(4);
    let (drawn, events) = tokio::join!(built_in.draw(&order, send), drain(events));
    drawn.unwrap();
    let steps = |events: &[Event]| {
        let steps = events.iter().filter_map(|event| match event {
            Event::Preview { step, total: STEPS, index: 0, .. } => Some(*step),
            _ => None,
        });
        steps.collect::<Vec<_>>()
    };
    assert_eq!(steps(&events), [5, 8]);
    let only_shown = || painter.only_shown.load(Ordering::Acquire);
    assert_eq!(only_shown(), 0, "what the gate judges may end the drawing");
    // For the client's eyes: the first at least, as nothing waits then, and never of the finished picture.
    let order = Order { show_previews: true, previews: Default::default(), ..order };
    let (send, events) = mpsc::channel(4);
    let (drawn, events) = tokio::join!(built_in.draw(&order, send), drain(events));
    drawn.unwrap();
    let shown = steps(&events);
    assert!(shown.first() == Some(&1) && shown.iter().all(|step| *step < STEPS), "{shown:?}");
    assert!(only_shown() >= shown.len(), "what only the client sees ends nothing");
}

#[tokio::test]
async fn it_stops_when_nobody_waits_any_more() {
    let painter = Arc::new(Painter { endless: true, ..Painter::default() });
    let built_in = open(&painter);
    // Called off.
    let called_off = order("a cat", 4);
    let (send, mut events) = mpsc::channel(4);
    let cancel = called_off.cancel.clone();
    let watch = async {
        events.recv().await;
        cancel.cancel();
        drain(events).await
    };
    let (drawn, rest) = tokio::join!(built_in.draw(&called_off, send), watch);
    assert_eq!(drawn.unwrap_err().kind(), UpstreamErrorKind::Cancelled);
    assert!(!rest.iter().any(|event| matches!(event, Event::Picture { .. })));
    // The receiver is gone.
    let (send, mut events) = mpsc::channel(4);
    let gone = order("a cat", 4);
    let watch = async {
        events.recv().await;
        drop(events);
    };
    let (drawn, ()) = tokio::join!(built_in.draw(&gone, send), watch);
    assert_eq!(drawn.unwrap_err().kind(), UpstreamErrorKind::Cancelled);
    // Two orders, of which each gave up its first picture.
    assert_eq!(painter.jobs.lock().unwrap().len(), 2);
    // The deadline passes: while it draws, or on a busy machine before it begins.
    let late = Order { deadline: Instant::now() + Duration::from_millis(30), ..order("a cat", 1) };
    let (send, events) = mpsc::channel(4);
    let (drawn, _) = tokio::join!(built_in.draw(&late, send), drain(events));
    let kind = drawn.unwrap_err().kind();
    assert!(matches!(kind, UpstreamErrorKind::Cancelled | UpstreamErrorKind::Timeout), "{kind:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_order_is_drawn_at_a_time_and_those_that_wait_can_leave() {
    let painter = Arc::new(Painter::default());
    let built_in = open(&painter);
    let draws = (0..4).map(|_| {
        let built_in = Arc::clone(&built_in);
        tokio::spawn(async move {
            let (send, events) = mpsc::channel(4);
            let order = order("a cat", 2);
            tokio::join!(built_in.draw(&order, send), drain(events)).0
        })
    });
    for draw in draws.collect::<Vec<_>>() {
        draw.await.unwrap().unwrap();
    }
    assert_eq!(painter.most_at_once.load(Ordering::Acquire), 1);

    let endless = Arc::new(Painter { endless: true, ..Painter::default() });
    let built_in = open(&endless);
    let (send, mut events) = mpsc::channel(4);
    let first = order("a cat", 1);
    let (cancel, copy) = (first.cancel.clone(), Arc::clone(&built_in));
    let drawing = tokio::spawn(async move { copy.draw(&first, send).await });
    events.recv().await.unwrap();
    let waits = order("a cat", 1);
    waits.cancel.cancel();
    let (send, nobody) = mpsc::channel(4);
    let left = built_in.draw(&waits, send).await.unwrap_err();
    assert_eq!(left.kind(), UpstreamErrorKind::Cancelled);
    drop(nobody);
    let late = Order { deadline: Instant::now(), ..order("a cat", 1) };
    let (send, _events) = mpsc::channel(4);
    assert_eq!(built_in.draw(&late, send).await.unwrap_err().kind(), UpstreamErrorKind::Timeout);
    assert_eq!(endless.jobs.lock().unwrap().len(), 1, "those who waited were not drawn");
    cancel.cancel();
    drop(events);
    assert_eq!(drawing.await.unwrap().unwrap_err().kind(), UpstreamErrorKind::Cancelled);
}

#[tokio::test]
async fn a_generator_that_fails_or_panics_is_an_error() {
    let built_in = open(&Arc::new(Painter::default()));
    let (send, events) = mpsc::channel(4);
    let fails = order("fails", 2);
    let (drawn, events) = tokio::join!(built_in.draw(&fails, send), drain(events));
    drawn.unwrap();
    let whys = events.iter().map(|event| match event {
        Event::Failed { why, index } => (*index, why.as_str()),
        other => panic!("{other:?}"),
    });
    assert_eq!(whys.collect::<Vec<_>>(), [(0, "out of paint"), (1, "out of paint")]);
    let (send, events) = mpsc::channel(4);
    let panics = order("panic", 1);
    let (drawn, events) = tokio::join!(built_in.draw(&panics, send), drain(events));
    assert_eq!((drawn.unwrap_err().kind(), events.len()), (UpstreamErrorKind::Failed, 0));
    // The next order has its turn all the same.
    let (send, events) = mpsc::channel(4);
    let next = order("a cat", 1);
    let (drawn, _) = tokio::join!(built_in.draw(&next, send), drain(events));
    drawn.unwrap();
}

#[test]
fn what_it_cannot_express_is_refused_by_name() {
    let built_in = open(&Arc::new(Painter::default()));
    let plain = PictureRequest { prompt: "a cat".to_owned(), count: 1, ..PictureRequest::default() };
    let native = |dialect, key: &str| {
        let parameters = [(key.to_owned(), serde_json::json!(1))].into_iter().collect();
        Some(Native { dialect, parameters })
    };
    for fine in [
        plain.clone(),
        PictureRequest { model: Some("suite".to_owned()), ..plain.clone() },
        PictureRequest { model: Some("builtin".to_owned()), ..plain.clone() },
        PictureRequest { size: Some((64, 64)), steps: Some(20), guidance: Some(4.0), ..plain.clone() },
        PictureRequest {
            native: Some(Native { dialect: Dialect::OpenAi, parameters: serde_json::Map::new() }),
            ..plain.clone()
        },
    ] {
        built_in.check(&fine).unwrap();
    }
    let cases = [
        (PictureRequest { source: Some(Source::default()), ..plain.clone() }, "a picture to start from"),
        (PictureRequest { scheduler: Some("karras".to_owned()), ..plain.clone() }, "karras"),
        (PictureRequest { model: Some("dall-e-3".to_owned()), ..plain.clone() }, "dall-e-3"),
        (PictureRequest { native: native(Dialect::A1111, "tiling"), ..plain.clone() }, "tiling"),
        (PictureRequest { steps: Some(101), ..plain }, "at most 100 steps"),
    ];
    for (request, named) in cases {
        let error = built_in.check(&request).unwrap_err();
        assert_eq!(error.kind(), UpstreamErrorKind::Inexpressible);
        assert!(error.to_string().contains(named), "{error}");
    }
}

#[tokio::test]
async fn a_gateway_says_whether_its_generator_draws_from_pictures() {
    for from_pictures in [false, true] {
        let upstream = Some(open(&Arc::new(Painter { from_pictures, ..Painter::default() })));
        let gateway = Gateway::start(Setup { upstream, ..Setup::default() }).await;
        let url = format!("{}/sdcpp/v1/capabilities", gateway.url);
        let told: Value = gateway.client().get(url).send().await.unwrap().json().await.unwrap();
        for feature in ["init_image", "mask_image"] {
            assert_eq!(told["features"][feature], from_pictures, "{feature}");
        }
    }
}

#[tokio::test]
async fn a_picture_to_start_from_reaches_the_generator_decoded() {
    let painter = Arc::new(Painter { from_pictures: true, ..Painter::default() });
    let built_in = open(&painter);
    let shown = picture(&[2], 3);
    let source = Source { pictures: vec![shown.png().unwrap()], mask: None, strength: Some(0.4) };
    let with = |source: Source| PictureRequest {
        prompt: "a cat".to_owned(),
        count: 1,
        source: Some(source),
        ..PictureRequest::default()
    };
    let request = with(Source { mask: Some(shown.png().unwrap()), ..source.clone() });
    built_in.check(&request).unwrap();
    let (send, events) = mpsc::channel(4);
    let fine = Order { request: Arc::new(request), ..order("", 1) };
    let (drawn, _) = tokio::join!(built_in.draw(&fine, send), drain(events));
    drawn.unwrap();
    let given = painter.jobs.lock().unwrap()[0].options.source.clone().unwrap();
    assert_eq!((given.picture.hash(), given.strength), (shown.hash(), Some(0.4)));
    assert_eq!(given.mask.map(|mask| mask.hash()), Some(shown.hash()));
    for pictures in [vec![], vec![shown.png().unwrap(); 2]] {
        let error = built_in.check(&with(Source { pictures, ..source.clone() })).unwrap_err();
        assert!(error.to_string().contains("only one"), "{error}");
    }
    let broken = with(Source { pictures: vec![b"no picture".as_slice().into()], ..source });
    let broken = Order { request: Arc::new(broken), ..order("", 1) };
    let (send, _events) = mpsc::channel(4);
    let error = built_in.draw(&broken, send).await.unwrap_err();
    assert_eq!(error.kind(), UpstreamErrorKind::Inexpressible);
    assert!(error.to_string().contains("the picture to start from"), "{error}");
}

#[test]
fn without_a_generator_there_is_none() {
    let text = "[keys]\nanonymous = \"t\"\n[upstream]\nkind = \"builtin\"\n";
    let config = Config::parse(text, "gate.toml", Path::new("")).unwrap().upstream.unwrap();
    let error = upstream::open(&config, None).err().unwrap().to_string();
    assert!(error.contains("models with a generator"), "{error}");
}
