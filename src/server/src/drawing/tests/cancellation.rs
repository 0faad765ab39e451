//! Who stops when nobody waits any more.

use std::collections::BTreeMap;

use cluegate_constitution::Constitution;
use cluegate_gate::{InspectionError, Inspector};
use cluegate_judge::Report;
use cluegate_perception::{Call, Detection};

use super::*;

/// A judge that gives no verdict before it is called off, and tells that it was.
#[derive(Clone)]
struct Endless {
    world: World,
    begun: CancellationToken,
    called_off: CancellationToken,
}

struct EndlessInspector {
    inner: Arc<dyn Inspector>,
    begun: CancellationToken,
    called_off: CancellationToken,
}

impl Endless {
    fn new() -> Self {
        let (begun, called_off) = (CancellationToken::new(), CancellationToken::new());
        Self { world: World::new([]), begun, called_off }
    }
}

impl JudgeProvider for Endless {
    fn inspector(&self, constitution: Constitution) -> Result<Arc<dyn Inspector>, InspectionError> {
        let inner = self.world.inspector(constitution)?;
        let (begun, called_off) = (self.begun.clone(), self.called_off.clone());
        Ok(Arc::new(EndlessInspector { inner, begun, called_off }))
    }
}

impl Inspector for EndlessInspector {
    fn constitution(&self) -> &Constitution {
        self.inner.constitution()
    }

    fn models(&self) -> BTreeMap<String, String> {
        self.inner.models()
    }

    fn inspect(&self, _: &Picture, _: Option<&str>, call: &Call) -> Result<Report, InspectionError> {
        self.begun.cancel();
        loop {
            if let Err(over) = call.check() {
                self.called_off.cancel();
                return Err(over.into());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn locate(&self, _: &Picture, _: &[&str], _: f32, _: &Call) -> Result<Vec<Detection>, InspectionError> {
        Ok(Vec::new())
    }
}

#[tokio::test]
async fn a_client_that_goes_away_stops_the_upstream() {
    let (upstream, cancelled) = hangs();
    let bench = Bench::new("", &World::new([]), upstream);
    let drawing = bench.draw(2).await;
    assert!(!cancelled.is_cancelled());
    drop(drawing);
    within(cancelled.cancelled()).await;
    bench.idle().await;
    assert!(bench.app.running.of("t").is_empty());
    let reasons: Vec<_> = bench.log.records().iter().map(|record| record.reason).collect();
    assert_eq!(reasons, [Reason::Cancelled; 2]);
}

#[tokio::test]
async fn a_client_that_goes_away_stops_judge_and_upstream_at_once() {
    let cancelled = CancellationToken::new();
    let tell = cancelled.clone();
    let upstream = player(move |order: Order, send| {
        let tell = tell.clone();
        Box::pin(async move {
            let _ = send.send(finished(0, &clean(0))).await;
            order.cancel.cancelled().await;
            tell.cancel();
            Err(UpstreamError::new(UpstreamErrorKind::Cancelled, "it was cancelled"))
        })
    });
    let judge = Endless::new();
    let bench = Bench::new("", &judge, upstream);
    let drawing = bench.draw(2).await;
    within(judge.begun.cancelled()).await;
    drop(drawing);
    within(judge.called_off.cancelled()).await;
    within(cancelled.cancelled()).await;
    bench.idle().await;
    assert!(bench.log.records().iter().all(|record| record.reason == Reason::Cancelled));
}

#[tokio::test]
async fn a_judgment_is_called_off_when_its_client_goes_away() {
    let judge = Endless::new();
    let bench = Bench::new("", &judge, hangs().0);
    let app = Arc::clone(&bench.app);
    let asked = tokio::spawn(async move {
        let client = Client::new("t", "k");
        let deadline = Deadline(Instant::now() + Duration::from_secs(60));
        let picture = Unjudged::pixels(clean(0));
        let (prompt, model, subject, format) = (String::new(), None, None, Format::Png);
        let brought = crate::app::Brought { picture, prompt, model, subject, format };
        let _ = app.judge(&client, "r", deadline, brought).await;
    });
    within(judge.begun.cancelled()).await;
    asked.abort();
    within(judge.called_off.cancelled()).await;
    bench.idle().await;
}

#[tokio::test]
async fn the_deadline_of_client_or_policy_ends_what_hangs() {
    for (policy, client) in [("", 300), ("[tenant.t.limits]\nrequest_deadline_ms = 300", 600_000)] {
        let (upstream, cancelled) = hangs();
        let bench = Bench::new(policy, &World::new([]), upstream);
        let drawing = bench.draw_until(2, Duration::from_millis(client)).await;
        let finished = within(drawing.finish()).await.unwrap();
        assert_eq!(reasons(&finished), [Reason::RequestTimeout; 2]);
        assert_eq!(finished.problem().unwrap().kind(), ProblemKind::DeadlineExceeded);
        within(cancelled.cancelled()).await;
        bench.idle().await;
    }
}

#[tokio::test]
async fn whoever_holds_the_canceller_ends_a_request_and_its_client_is_told() {
    let (upstream, cancelled) = hangs();
    let bench = Bench::new("", &World::new([]), upstream);
    let drawing = bench.draw(1).await;
    bench.app.call_off();
    let finished = within(drawing.finish()).await.unwrap();
    assert_eq!(reasons(&finished), [Reason::Cancelled]);
    assert_eq!(finished.problem().unwrap().kind(), ProblemKind::Cancelled);
    within(cancelled.cancelled()).await;
}

#[tokio::test]
async fn an_order_that_is_settled_is_not_interrupted() {
    let (go_on, ended) = (CancellationToken::new(), Arc::new(Mutex::new(None)));
    let (wait, tell) = (go_on.clone(), Arc::clone(&ended));
    let upstream = player(move |order: Order, send| {
        let (wait, tell) = (wait.clone(), Arc::clone(&tell));
        Box::pin(async move {
            let _ = send.send(finished(0, &clean(0))).await;
            // Tidies up, while others draw on the same server.
            wait.cancelled().await;
            *tell.lock().unwrap() = Some(order.cancel.is_cancelled());
            Ok(())
        })
    });
    let bench = Bench::new("", &World::new([]), upstream);
    assert_eq!(bench.reasons(1).await, [Reason::Safe]);
    bench.idle().await;
    go_on.cancel();
    let cancelled = within(async {
        loop {
            if let Some(cancelled) = *ended.lock().unwrap() {
                break cancelled;
            }
            tokio::task::yield_now().await;
        }
    });
    assert!(!cancelled.await);
}
