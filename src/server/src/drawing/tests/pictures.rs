//! What comes of what an upstream sends.

use cluegate_gate::{DecisionRecord, Unfinished};

use super::*;
use crate::upstream::send_if_room;

#[tokio::test]
async fn one_bad_picture_of_four_costs_only_itself() {
    let draws = |order: &Order| {
        let shows = |index| if index == 2 { picture(&[2], 2) } else { clean(index) };
        (0..order.count).map(|index| finished(index, &shows(index))).collect()
    };
    let bench = Bench::new("", &World::new([]), sends(draws));
    let finished = bench.draw(4).await.finish().await.unwrap();
    assert_eq!(reasons(&finished), [Reason::Safe, Reason::Safe, Reason::Violation, Reason::Safe]);
    assert!(finished.problem().is_none() && finished.failure.is_none());
    for (index, outcome) in finished.outcomes.iter().enumerate() {
        let shown = seen(outcome.shown().unwrap());
        assert_eq!(outcome.is_released(), index != 2);
        assert_eq!(shown.pixels() == clean(index as u32).pixels(), index != 2);
        assert!(cluegate_gate::fakes::violated(shown.pixels()).is_empty());
    }
    assert_eq!(bench.log.records().len(), 4);
}

#[tokio::test]
async fn a_violation_is_drawn_again_with_another_seed_and_words_to_avoid() {
    let upstream = player(|order: Order, send| {
        Box::pin(async move {
            for index in 0..order.count {
                let bad = order.attempt == 1 && order.first + index == 1;
                let shown = if bad { picture(&[2], 1) } else { clean(index) };
                let _ = send.send(finished(index, &shown)).await;
            }
            Ok(())
        })
    });
    let orders = Arc::clone(&upstream);
    let policy =
        "[tenant.t.action]\ndefault = \"regenerate\"\n[tenant.t.regenerate]\nstrategies = [\"avoid\"]";
    let bench = Bench::new(policy, &World::new([]), upstream);
    assert_eq!(bench.reasons(2).await, [Reason::Safe, Reason::Safe]);
    let orders = orders.orders.lock().unwrap();
    let told: Vec<_> = orders.iter().map(|order| (order.attempt, order.first, order.count)).collect();
    assert_eq!(told, [(1, 0, 2), (2, 1, 1)]);
    assert_eq!(orders[0].seed, 7);
    assert!(orders[0].avoid.is_empty() && orders[1].seed != 8 && orders[1].seed != 7);
    assert!(orders[1].negative_prompt().unwrap().contains("sword"), "{:?}", orders[1].avoid);
}

#[tokio::test]
async fn a_violation_at_every_try_is_withheld_at_the_last() {
    let always =
        |order: &Order| (0..order.count).map(|index| finished(index, &picture(&[2], index as u8))).collect();
    let bench =
        Bench::new("tries = 2\n[tenant.t.action]\ndefault = \"regenerate\"", &World::new([]), sends(always));
    assert_eq!(bench.reasons(2).await, [Reason::TriesExhausted; 2]);
}

/// A file that claims a picture of 60,000 by 60,000 pixels.
fn bomb() -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, 60_000, 60_000);
    encoder.set_color(png::ColorType::Grayscale);
    drop(encoder.write_header().unwrap());
    bytes
}

#[tokio::test]
async fn what_is_no_picture_costs_only_its_place() {
    let mut file = Vec::new();
    let pixels = clean(0);
    let encoder = image::codecs::png::PngEncoder::new(&mut file);
    image::ImageEncoder::write_image(
        encoder,
        pixels.pixels().as_raw(),
        64,
        64,
        image::ExtendedColorType::Rgb8,
    )
    .unwrap();
    let truncated = file[..file.len() / 2].to_vec();
    let bad: [(&str, Vec<u8>); 6] = [
        ("nothing", Vec::new()),
        ("a page", b"<html>502 Bad Gateway</html>".to_vec()),
        ("half a file", truncated),
        ("a claim", bomb()),
        ("JSON", br#"{"images":[]}"#.to_vec()),
        ("a signature", b"\x89PNG\r\n\x1a\n".to_vec()),
    ];
    for (what, bytes) in bad {
        let (bytes, file) = (bytes.clone(), file.clone());
        let draws = move |_: &Order| {
            vec![encoded(0, file.clone()), encoded(1, bytes.clone()), finished(2, &clean(2))]
        };
        let bench = Bench::new("", &World::new([]), sends(draws));
        assert_eq!(bench.reasons(3).await, [Reason::Safe, Reason::GeneratorFailure, Reason::Safe], "{what}");
    }
}

#[tokio::test]
async fn too_few_too_many_and_what_nobody_ordered() {
    let few = Bench::new("", &World::new([]), sends(|_| vec![finished(1, &clean(1))]));
    assert_eq!(few.reasons(3).await, [Reason::GeneratorFailure, Reason::Safe, Reason::GeneratorFailure]);
    // The first picture of an index counts: a second one can neither replace it nor be judged in its place.
    let again = |_: &Order| {
        vec![
            finished(7, &clean(7)),
            finished(u32::MAX, &clean(7)),
            finished(0, &clean(0)),
            finished(0, &picture(&[2], 0)),
            Event::Failed { index: 0, why: "too late".to_owned() },
            Event::Failed { index: 9, why: "nobody's".to_owned() },
            finished(1, &picture(&[2], 1)),
            finished(1, &clean(1)),
            finished(2, &clean(2)),
        ]
    };
    let bench = Bench::new("", &World::new([]), sends(again));
    let finished = bench.draw(2).await.finish().await.unwrap();
    assert_eq!(reasons(&finished), [Reason::Safe, Reason::Violation]);
    assert!(seen(finished.outcomes[0].shown().unwrap()).pixels() == clean(0).pixels());
    let none = Bench::new("", &World::new([]), sends(|_| Vec::new()));
    let finished = none.draw(2).await.finish().await.unwrap();
    assert_eq!(finished.problem().unwrap().kind(), ProblemKind::UpstreamFailed);
}

#[tokio::test]
async fn an_upstream_that_fails_or_panics_is_answered() {
    let fails = player(|_, send: mpsc::Sender<Event>| {
        Box::pin(async move {
            let _ = send.send(finished(0, &clean(0))).await;
            Err(UpstreamError::new(UpstreamErrorKind::Unreachable, "the connection broke"))
        })
    });
    let bench = Bench::new("", &World::new([]), fails);
    let half = bench.draw(2).await.finish().await.unwrap();
    assert_eq!(reasons(&half), [Reason::Safe, Reason::GeneratorFailure]);
    assert_eq!(half.failure.unwrap().kind(), UpstreamErrorKind::Unreachable);
    let panics = player(|_, _| Box::pin(async { panic!("the index is out of range") }));
    let bench = Bench::new("", &World::new([]), panics);
    let finished = within(async { bench.draw(1).await.finish().await.unwrap() }).await;
    assert_eq!(finished.problem().unwrap().kind(), ProblemKind::UpstreamFailed);
    let data = "iVBORw0KGgo".repeat(30);
    let talks = move |_: &Order| vec![Event::Failed { index: 0, why: data.clone() }];
    let bench = Bench::new("[tenant.t.client]\nevidence = true", &World::new([]), sends(talks));
    let finished = bench.draw(1).await.finish().await.unwrap();
    assert_eq!(reasons(&finished), [Reason::GeneratorFailure]);
    assert!(!finished.outcomes[0].report().to_string().contains("iVBORw0KGgo"));
}

fn preview(index: u32, step: u32, picture: &Picture) -> Event {
    Event::Preview { index, step, total: 4, picture: Unjudged::pixels(picture.clone()) }
}

#[tokio::test]
async fn a_preview_that_violates_ends_its_attempt() {
    let ended = CancellationToken::new();
    let tell = ended.clone();
    let upstream = player(move |order: Order, send| {
        let tell = tell.clone();
        Box::pin(async move {
            if order.attempt == 2 {
                let _ = send.send(finished(0, &clean(0))).await;
                return Ok(());
            }
            let _ = send.send(preview(0, 1, &picture(&[2], 0))).await;
            order.cancel.cancelled().await;
            tell.cancel();
            // Too late: the attempt was given up.
            let _ = send.send(finished(0, &picture(&[2], 0))).await;
            Err(UpstreamError::new(UpstreamErrorKind::Cancelled, "it was cancelled"))
        })
    });
    let policy = "previews = [1]\n[tenant.t.action]\ndefault = \"regenerate\"";
    let bench = Bench::new(policy, &World::new([]), upstream);
    let finished = within(async { bench.draw(1).await.finish().await.unwrap() }).await;
    within(ended.cancelled()).await;
    assert_eq!(reasons(&finished), [Reason::Safe]);
    assert!(finished.failure.is_none());
}

#[tokio::test]
async fn only_judged_previews_are_shown_and_never_more_than_the_client_takes() {
    let draws = |_: &Order| {
        let mut events = vec![preview(0, 1, &picture(&[2], 0)), encoded_preview(b"no picture")];
        events.extend((0..500).map(|step| preview(0, step, &clean(step))));
        events.push(finished(0, &clean(0)));
        events
    };
    // A rule that is allowed makes a picture that may be released, but no preview that may be shown.
    let policy = "[tenant.t.action]\ndefault = \"allow\"\n[tenant.t.client]\npreviews = true";
    let bench = Bench::new(policy, &World::new([]), sends(draws));
    let mut drawing = bench.draw(1).await;
    // Nobody takes anything until it is done.
    bench.idle().await;
    let (mut previews, mut outcomes) = (0, 0);
    loop {
        match within(drawing.next()).await.unwrap() {
            Update::Preview { shown, .. } => {
                previews += 1;
                assert!(cluegate_gate::fakes::violated(seen(&shown).pixels()).is_empty());
            }
            Update::Outcome(outcome) => {
                outcomes += 1;
                assert!(outcome.is_released());
            }
            Update::End { failure } => {
                assert!(failure.is_none());
                break;
            }
        }
    }
    assert!((1..=PREVIEWS).contains(&previews) && outcomes == 1, "{previews}");
    let silent = Bench::new("", &World::new([]), sends(draws));
    let mut drawing = silent.draw(1).await;
    while let Some(update) = within(drawing.next()).await {
        assert!(!matches!(update, Update::Preview { .. }));
    }
}

fn encoded_preview(bytes: &'static [u8]) -> Event {
    Event::Preview { index: 0, step: 1, total: 4, picture: Unjudged::encoded(bytes) }
}

#[tokio::test]
async fn progress_is_a_fraction_whatever_the_upstream_says() {
    let draws = |_: &Order| {
        let odd = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -3.0, 1e300];
        let progress = odd.map(|fraction| Event::Progress(Progress { fraction, ..Progress::default() }));
        progress.into_iter().chain([finished(0, &clean(0))]).collect()
    };
    let bench = Bench::new("", &World::new([]), sends(draws));
    let drawing = bench.draw(1).await;
    let mut progress = drawing.progress().clone();
    let watch = tokio::spawn(async move {
        while progress.changed().await.is_ok() {
            assert!((0.0..=1.0).contains(&progress.borrow().fraction));
        }
    });
    assert_eq!(reasons(&drawing.finish().await.unwrap()), [Reason::Safe]);
    within(watch).await.unwrap();
}

/// What is judged is told, whatever the upstream still draws; and a client that leaves with its last picture calls
/// nothing off.
#[tokio::test]
async fn each_picture_is_told_when_it_is_judged() {
    let (told, ended) = (CancellationToken::new(), Arc::new(Mutex::new(None)));
    let (wait, tell) = (told.clone(), Arc::clone(&ended));
    let upstream = player(move |order: Order, send| {
        let (wait, tell) = (wait.clone(), Arc::clone(&tell));
        Box::pin(async move {
            let _ = send.send(finished(1, &picture(&[2], 1))).await;
            wait.cancelled().await;
            let progress = Progress { fraction: 0.1, ..Progress::default() };
            let _ = send.send(Event::Progress(progress)).await;
            let _ = send.send(finished(0, &clean(0))).await;
            send.closed().await;
            *tell.lock().unwrap() = Some(order.cancel.is_cancelled());
            Ok(())
        })
    });
    let bench = Bench::new("", &World::new([]), upstream);
    let mut drawing = bench.draw(2).await;
    let Some(Update::Outcome(first)) = within(drawing.next()).await else { panic!("no outcome") };
    assert_eq!((first.member(), first.reason()), (1, Reason::Violation));
    told.cancel();
    let Some(Update::Outcome(second)) = within(drawing.next()).await else { panic!("no outcome") };
    assert_eq!((second.member(), second.reason()), (0, Reason::Safe));
    // What was decided counts, though the upstream says that it has only begun.
    assert!(drawing.progress().borrow().fraction >= 0.5);
    drop(drawing);
    let cancelled = within(async {
        loop {
            if let Some(cancelled) = *ended.lock().unwrap() {
                break cancelled;
            }
            tokio::task::yield_now().await;
        }
    });
    assert!(!cancelled.await);
    bench.idle().await;
}

/// What the policy did not ask for is judged for the client's eyes only.
#[tokio::test]
async fn a_preview_outside_of_the_schedule_is_not_shown_if_it_violates_and_ends_nothing() {
    for (scheduled, reason) in [(2, Reason::Safe), (1, Reason::Violation)] {
        let policy = format!("previews = [{scheduled}]\n[tenant.t.client]\npreviews = true");
        let world = World::new([]);
        let asked = Arc::clone(&world.unfinished);
        // The preview is the newest event, and the finished picture comes after what follows from it.
        let upstream = player(move |order: Order, send: mpsc::Sender<Event>| {
            let asked = Arc::clone(&asked);
            Box::pin(async move {
                let _ = send.send(preview(0, 1, &picture(&[2], 0))).await;
                if scheduled == 1 {
                    order.cancel.cancelled().await;
                }
                while asked.lock().unwrap().is_empty() {
                    tokio::task::yield_now().await;
                }
                let _ = send.send(finished(0, &clean(0))).await;
                Ok(())
            })
        });
        let bench = Bench::new(&policy, &world, upstream);
        let mut drawing = bench.draw(1).await;
        let mut reasons = Vec::new();
        while let Some(update) = within(drawing.next()).await {
            assert!(!matches!(update, Update::Preview { .. }));
            if let Update::Outcome(outcome) = update {
                reasons.push(outcome.reason());
            }
        }
        assert_eq!(reasons, [reason]);
        assert_eq!(*world.unfinished.lock().unwrap(), [Unfinished::Preview]);
        let records = bench.log.records();
        assert_eq!(records[0].attempts[0].previews[0].aborted, scheduled == 1);
    }
}

/// Whoever draws does not wait for whoever judges: all that has to arrive has room, and the rest is left out.
#[tokio::test]
async fn an_upstream_never_waits_for_the_judge() {
    let (world, held) = World::new([]).held();
    let sent = CancellationToken::new();
    let tell = sent.clone();
    let upstream = player(move |order: Order, send: mpsc::Sender<Event>| {
        let tell = tell.clone();
        Box::pin(async move {
            for index in 0..order.count {
                for step in 1..=3 {
                    for _ in 0..20 {
                        send_if_room(&send, Event::Progress(Progress::default()));
                        order.send_preview(&send, preview(index, 0, &clean(9))).await;
                    }
                    order.send_preview(&send, preview(index, step, &clean(index))).await;
                }
                let _ = send.send(finished(index, &clean(index))).await;
            }
            tell.cancel();
            Ok(())
        })
    });
    let bench = Bench::new("previews = [1, 2, 3]\n[tenant.t.client]\npreviews = true", &world, upstream);
    let drawing = bench.draw(3).await;
    // The judge says nothing until all is drawn.
    within(sent.cancelled()).await;
    drop(held);
    assert_eq!(reasons(&within(drawing.finish()).await.unwrap()), [Reason::Safe; 3]);
    let scheduled = |record: &DecisionRecord| {
        let previews = record.attempts.iter().flat_map(|attempt| &attempt.previews);
        previews.filter(|preview| preview.step > 0).map(|preview| preview.step).collect::<Vec<_>>()
    };
    let records = bench.log.records().into_iter().filter(|record| !record.attempts.is_empty());
    assert_eq!(records.map(|record| scheduled(&record)).collect::<Vec<_>>(), vec![vec![1, 2, 3]; 3]);
}
