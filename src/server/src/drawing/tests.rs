#![allow(clippy::unwrap_used, clippy::panic)]

mod cancellation;
mod judging;
mod pictures;

use std::sync::Mutex;
use std::time::{Duration, Instant};

use cluegate_gate::fakes::{CONSTITUTION, World, picture};
use cluegate_gate::{DecisionLog, Gate, JudgeProvider, MemoryLog, Policies, Reason};
use cluegate_perception::{Picture, decode};
use futures_util::future::BoxFuture;
use tempfile::TempDir;

use super::*;
use crate::app::App;
use crate::client::Client;
use crate::config::Config;
use crate::request::Dialect;
use crate::upstream::Unjudged;

/// An upstream that plays a script.
struct Player<F> {
    play: F,
    orders: Mutex<Vec<Order>>,
}

type Played = BoxFuture<'static, Result<(), UpstreamError>>;

fn player<F>(play: F) -> Arc<Player<F>>
where
    F: Fn(Order, mpsc::Sender<Event>) -> Played + Send + Sync,
{
    Arc::new(Player { play, orders: Mutex::default() })
}

/// An upstream that sends these events for each order, and ends.
fn sends(events: impl Fn(&Order) -> Vec<Event> + Send + Sync + 'static) -> Arc<impl Upstream> {
    player(move |order, send| {
        let events = events(&order);
        Box::pin(async move {
            for event in events {
                if send.send(event).await.is_err() {
                    break;
                }
            }
            Ok(())
        })
    })
}

/// An upstream that says so when an order is cancelled, and draws nothing.
fn hangs() -> (Arc<impl Upstream>, CancellationToken) {
    let (seen, cancelled) = (CancellationToken::new(), CancellationToken::new());
    let tell = cancelled.clone();
    let upstream = player(move |order: Order, send| {
        let (seen, tell) = (seen.clone(), tell.clone());
        Box::pin(async move {
            seen.cancel();
            order.cancel.cancelled().await;
            tell.cancel();
            drop(send);
            Err(UpstreamError::new(UpstreamErrorKind::Cancelled, "it was cancelled"))
        })
    });
    (upstream, cancelled)
}

impl<F> Upstream for Player<F>
where
    F: Fn(Order, mpsc::Sender<Event>) -> Played + Send + Sync,
{
    fn dialect(&self) -> Dialect {
        Dialect::BuiltIn
    }

    fn fingerprint(&self) -> &str {
        "player"
    }

    fn batch_size(&self) -> u32 {
        4
    }

    fn check(&self, _: &PictureRequest) -> Result<(), UpstreamError> {
        Ok(())
    }

    fn draw<'a>(
        &'a self,
        order: &'a Order,
        events: mpsc::Sender<Event>,
    ) -> BoxFuture<'a, Result<(), UpstreamError>> {
        self.orders.lock().unwrap().push(order.clone());
        (self.play)(order.clone(), events)
    }

    fn ready(&self) -> BoxFuture<'_, Result<(), UpstreamError>> {
        Box::pin(async { Ok(()) })
    }
}

fn finished(index: u32, picture: &Picture) -> Event {
    Event::Picture { index, picture: Unjudged::pixels(picture.clone()) }
}

fn encoded(index: u32, bytes: impl Into<bytes::Bytes>) -> Event {
    Event::Picture { index, picture: Unjudged::encoded(bytes) }
}

fn clean(index: u32) -> Picture {
    picture(&[3], index as u8)
}

/// The state of a gateway without its door.
struct Bench {
    app: Arc<App>,
    log: Arc<MemoryLog>,
    folder: TempDir,
}

impl Bench {
    fn new(
        policy: &str,
        judge: &(impl JudgeProvider + Clone + 'static),
        upstream: Arc<dyn Upstream>,
    ) -> Self {
        let log = Arc::new(MemoryLog::new(1000));
        Self::with_log(policy, judge, upstream, Arc::clone(&log) as Arc<dyn DecisionLog>, log)
    }

    fn with_log(
        policy: &str,
        judge: &(impl JudgeProvider + Clone + 'static),
        upstream: Arc<dyn Upstream>,
        writes: Arc<dyn DecisionLog>,
        log: Arc<MemoryLog>,
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("world.toml"), CONSTITUTION).unwrap();
        let policy = format!("[tenant.t]\nconstitution = \"world.toml\"\n{policy}\n");
        std::fs::write(folder.path().join("policy.toml"), policy).unwrap();
        let policies = Policies::load(folder.path().join("policy.toml")).unwrap();
        let text = "policy = \"policy.toml\"\n[keys]\nanonymous = \"t\"\n";
        let config = Config::parse(text, "gate.toml", folder.path()).unwrap();
        let gate = Gate::new(&policies, Arc::new(judge.clone()), writes).unwrap();
        Self { app: App::new(config, Arc::new(gate), Some(upstream)).unwrap(), log, folder }
    }

    async fn draw_until(&self, count: u32, deadline: Duration) -> Drawing {
        let client = Client::new("t", "k");
        let request =
            PictureRequest { prompt: "a shop".to_owned(), count, seed: Some(7), ..PictureRequest::default() };
        let deadline = Deadline(Instant::now() + deadline);
        let ordered = self.app.order(&client, request).await.unwrap();
        self.app.draw(&client, "r", deadline, ordered, Format::Png).await.unwrap()
    }

    async fn draw(&self, count: u32) -> Drawing {
        self.draw_until(count, Duration::from_secs(60)).await
    }

    async fn reasons(&self, count: u32) -> Vec<Reason> {
        reasons(&self.draw(count).await.finish().await.unwrap())
    }

    /// Waits until nothing is in work.
    async fn idle(&self) {
        tokio::time::timeout(Duration::from_secs(20), self.app.admission.idle()).await.unwrap();
    }
}

fn reasons(finished: &Finished) -> Vec<Reason> {
    finished.outcomes.iter().map(Outcome::reason).collect()
}

/// The pixels that a client would see.
fn seen(shown: &Shown) -> Picture {
    decode(shown.bytes(), &DecodeOptions::default()).unwrap()
}

/// Waits for an event, not for ever.
async fn within<T>(event: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), event).await.unwrap()
}

#[test]
fn orders_have_consecutive_seeds_and_fit_the_batch() {
    let due = |member, attempt, seed| Due { member, attempt, seed, avoid: Vec::new(), prompt: None };
    let first: Vec<Due> = (0..5).map(|i| due(i, 1, 7 + i as u64)).collect();
    let sizes = |due: &[Due], batch| orders(due, batch).iter().map(|run| run.len()).collect::<Vec<_>>();
    assert_eq!(sizes(&first, 2), [2, 2, 1]);
    assert_eq!(sizes(&first, 8), [5]);
    // What is drawn again has words of its own to avoid.
    assert_eq!(sizes(&[due(0, 2, 7), due(1, 2, 8)], 8), [1, 1]);
    assert_eq!(sizes(&[due(0, 1, u64::MAX), due(1, 1, 0)], 8), [1, 1]);
}

/// An end that comes before every picture has its outcome is none, whoever listens: a front that told it would answer
/// for fewer pictures than were asked for.
#[tokio::test]
async fn an_end_without_all_outcomes_is_no_end() {
    let short = || {
        let (send, updates) = mpsc::channel(1);
        send.try_send(Update::End { failure: None }).unwrap();
        let (token, progress) = (CancellationToken::new(), watch::channel(Progress::default()).1);
        let canceller = Canceller::new(Default::default(), token);
        Drawing { request_id: "r".to_owned(), count: 1, told: 0, updates, progress, canceller }
    };
    assert!(short().next().await.is_none());
    assert_eq!(short().finish().await.unwrap_err().kind(), ProblemKind::Internal);
}
