//! Judges made ready for constitutions: at first use or ahead of it, never twice at a time for one revision, a bounded
//! number of them kept.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use cluegate_constitution::{Constitution, Revision};
use cluegate_perception::{Call, PerceptionErrorKind};

use crate::inspector::{Inspector, JudgeProvider};
use crate::judging::Failure;
use crate::watchdog::guard;

/// After a preparation that failed the next one waits this long, then twice as long each time,
const FIRST_DELAY: Duration = Duration::from_secs(1);
/// up to this.
const LONGEST_DELAY: Duration = Duration::from_secs(60);
/// How long a waiting request may not notice that it was called off.
const LOOK: Duration = Duration::from_millis(20);

/// Bounds on the judges that a gate keeps ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PreparedOptions {
    /// Most judges that are kept ready, 1 or more; of more, those that were not used for longest are given up and prepared
    /// again when they are needed. Default 1024. A judge of ten rules takes some ten kilobytes.
    pub kept: usize,
    /// Most judges that are prepared at a time, 1 or more. Default 2.
    pub at_once: usize,
}

impl Default for PreparedOptions {
    fn default() -> Self {
        Self { kept: 1024, at_once: 2 }
    }
}

/// The judges of a gate.
pub(crate) struct Judges {
    provider: Arc<dyn JudgeProvider>,
    options: PreparedOptions,
    state: Mutex<State>,
    /// Something in the state has changed.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    slots: HashMap<Revision, Slot>,
    /// What is to be prepared, the next one first.
    queue: VecDeque<Arc<Constitution>>,
    threads: usize,
    /// Grows with each use.
    clock: u64,
}

struct Slot {
    stage: Stage,
    /// When it was used last, by the clock.
    used: u64,
}

enum Stage {
    /// In the queue or in work; the delay is that of the failure before, if there was one.
    Waiting(Option<Duration>),
    Ready(Arc<dyn Inspector>),
    Failed {
        problem: String,
        until: Instant,
        delay: Duration,
    },
}

impl Judges {
    pub(crate) fn new(provider: Arc<dyn JudgeProvider>, options: PreparedOptions) -> Arc<Self> {
        let options = PreparedOptions { kept: options.kept.max(1), at_once: options.at_once.max(1) };
        Arc::new(Self { provider, options, state: Mutex::default(), changed: Condvar::new() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that runs under this lock can panic half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The judge for `constitution`, prepared now if there is none, waited for until `call` is over.
    pub(crate) fn get(
        self: &Arc<Self>,
        constitution: &Arc<Constitution>,
        call: &Call,
    ) -> Result<Arc<dyn Inspector>, Failure> {
        let revision = constitution.revision();
        let mut state = self.lock();
        // Somebody waits for this one; whatever is prepared ahead of use comes later.
        if let Some(place) = state.queue.iter().position(|queued| queued.revision() == revision)
            && let Some(queued) = state.queue.remove(place)
        {
            state.queue.push_front(queued);
        }
        loop {
            state.clock += 1;
            let (clock, now) = (state.clock, Instant::now());
            let slot = state.slots.get_mut(&revision).map(|slot| {
                slot.used = clock;
                &mut slot.stage
            });
            let delay = match slot {
                Some(Stage::Ready(inspector)) => return Ok(Arc::clone(inspector)),
                Some(Stage::Failed { problem, until, .. }) if now < *until => {
                    return Err(not_prepared(problem, *until - now));
                }
                Some(Stage::Waiting(_)) => {
                    call.check().map_err(|over| still_preparing(over.kind()))?;
                    let left = call.time_left().unwrap_or(LOOK).min(LOOK);
                    let waited = self.changed.wait_timeout(state, left);
                    state = waited.unwrap_or_else(PoisonError::into_inner).0;
                    continue;
                }
                Some(Stage::Failed { delay, .. }) => Some(*delay),
                None => None,
            };
            state.slots.insert(revision, Slot { stage: Stage::Waiting(delay), used: clock });
            state.queue.push_front(Arc::clone(constitution));
            self.start(&mut state);
        }
    }

    /// Prepares what is not there yet, in the background and in this order, as far as there is room.
    pub(crate) fn warm_up(self: &Arc<Self>, constitutions: impl IntoIterator<Item = Arc<Constitution>>) {
        let mut state = self.lock();
        for constitution in constitutions {
            if state.slots.len() >= self.options.kept {
                break;
            }
            let Entry::Vacant(slot) = state.slots.entry(constitution.revision()) else { continue };
            slot.insert(Slot { stage: Stage::Waiting(None), used: 0 });
            state.queue.push_back(constitution);
        }
        while state.threads < self.options.at_once.min(state.queue.len()) {
            let before = state.threads;
            self.start(&mut state);
            if state.threads == before {
                break;
            }
        }
    }

    /// Waits until nothing is being prepared and nothing waits to be.
    pub(crate) fn settle(&self) {
        let mut state = self.lock();
        while state.threads > 0 {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Why the judge of this revision could not be prepared the last time.
    pub(crate) fn problem(&self, revision: Revision) -> Option<String> {
        match &self.lock().slots.get(&revision)?.stage {
            Stage::Failed { problem, .. } => Some(problem.clone()),
            Stage::Waiting(_) | Stage::Ready(_) => None,
        }
    }

    /// How many judges are ready.
    pub(crate) fn ready(&self) -> usize {
        self.lock().slots.values().filter(|slot| matches!(slot.stage, Stage::Ready(_))).count()
    }

    /// Starts a thread that prepares what is in the queue, unless there are enough.
    fn start(self: &Arc<Self>, state: &mut State) {
        if state.threads >= self.options.at_once {
            return;
        }
        let judges = Arc::downgrade(self);
        let thread = std::thread::Builder::new().name("cluegate-prepare".to_owned());
        match thread.spawn(move || work(&judges)) {
            Ok(_) => state.threads += 1,
            // Those that are at it take it over.
            Err(_) if state.threads > 0 => {}
            Err(source) => {
                let problem = format!("no thread could be started: {source}");
                for constitution in std::mem::take(&mut state.queue) {
                    self.put(state, constitution.revision(), Err(problem.clone()));
                }
            }
        }
    }

    /// Keeps what a preparation gave.
    fn put(&self, state: &mut State, revision: Revision, prepared: Result<Arc<dyn Inspector>, String>) {
        let Some(slot) = state.slots.get_mut(&revision) else { return };
        let before = match slot.stage {
            Stage::Waiting(delay) => delay,
            _ => None,
        };
        slot.stage = match prepared {
            Ok(inspector) => Stage::Ready(inspector),
            Err(problem) => {
                let delay = before.map_or(FIRST_DELAY, |before| (before * 2).min(LONGEST_DELAY));
                tracing::warn!(%revision, problem, ?delay, "a judge could not be prepared; tried again when it is needed");
                Stage::Failed { problem, until: Instant::now() + delay, delay }
            }
        };
        // Out goes what was not used for longest, and what waits stays.
        while state.slots.len() > self.options.kept {
            let idle = state.slots.iter().filter(|(_, slot)| !matches!(slot.stage, Stage::Waiting(_)));
            let Some(oldest) = idle.min_by_key(|(_, slot)| slot.used).map(|(revision, _)| *revision) else {
                break;
            };
            state.slots.remove(&oldest);
        }
        self.changed.notify_all();
    }
}

/// Prepares one after the other until the queue is empty or the gate is gone.
fn work(judges: &Weak<Judges>) {
    while let Some(judges) = judges.upgrade() {
        let next = {
            let mut state = judges.lock();
            let next = state.queue.pop_front();
            if next.is_none() {
                state.threads -= 1;
                judges.changed.notify_all();
            }
            next
        };
        let Some(constitution) = next else { return };
        let prepared = prepare(judges.provider.as_ref(), &constitution);
        judges.put(&mut judges.lock(), constitution.revision(), prepared);
    }
}

fn prepare(provider: &dyn JudgeProvider, constitution: &Constitution) -> Result<Arc<dyn Inspector>, String> {
    let inspector = guard(|| provider.inspector(constitution.clone()))
        .map_err(|panic| format!("it panicked: {panic}"))?
        .map_err(|error| error.to_string())?;
    if inspector.constitution().revision() == constitution.revision() {
        Ok(inspector)
    } else {
        Err("it was prepared for another revision of the constitution".to_owned())
    }
}

fn not_prepared(problem: &str, left: Duration) -> Failure {
    let seconds = left.as_secs_f64().ceil();
    Failure::new(
        "not-prepared",
        format!("it cannot be prepared: {problem}; tried again in {seconds} s at the soonest"),
    )
}

fn still_preparing(over: PerceptionErrorKind) -> Failure {
    match over {
        PerceptionErrorKind::Cancelled => Failure::new("cancelled", "nobody waits for it any more"),
        _ => Failure::late("it was still being prepared"),
    }
}
