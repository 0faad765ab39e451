//! Runs a call that may hang or panic, and waits for it no longer than agreed.

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

/// Most calls that may still be running after their deadline. A thread cannot be stopped from outside, so further
/// calls are refused until one of them has ended: a judge that hangs costs a bounded number of threads.
const MAX_LATE: usize = 4;
/// How long a thread waits for its next call.
const IDLE: Duration = Duration::from_secs(10);
/// How long somebody who waits looks for it before going to sleep. To be woken takes as long, on a virtual machine.
const WATCH: Duration = Duration::from_micros(150);

/// Why a call gave no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stopped {
    /// The deadline passed.
    TimedOut(Duration),
    /// It panicked, with this message.
    Panicked(String),
    /// It was not started: this many earlier calls are still running after their deadline.
    Busy(usize),
    /// It was not started: the system gave no thread.
    NoThread(String),
}

/// Runs calls on threads of its own, and counts those that outlived their deadline.
#[derive(Debug, Default)]
pub(crate) struct Watchdog {
    /// The calls that run, whether somebody waits for them or not.
    calls: Mutex<Vec<Running>>,
    idle: Arc<Threads>,
}

/// A call on a thread.
#[derive(Debug)]
struct Running {
    /// Its deadline.
    until: Instant,
    /// Gone once it has ended.
    alive: Weak<()>,
}

/// The answer of a call, which comes when it comes.
#[derive(Debug)]
pub(crate) struct Pending<T> {
    answer: Receiver<Result<T, String>>,
    deadline: Duration,
    until: Instant,
}

/// What a thread runs. What comes out tells whoever waits for it, who finds the thread free for the next call by then.
pub type Work = Box<dyn FnOnce() -> Tell + Send>;
/// Tells an answer; it waits for nothing.
pub type Tell = Box<dyn FnOnce()>;

/// Threads that wait for their next call, the last to have ended on top. To wake one costs less than to start one, and one
/// that has just ended need not even be woken.
#[derive(Debug, Default)]
pub struct Threads(Mutex<Vec<Idle>>);

/// A thread without a call. Whoever takes this out of the list gives it one.
#[derive(Debug)]
struct Idle {
    thread: ThreadId,
    next: SyncSender<Work>,
}

impl Threads {
    fn lock(&self) -> MutexGuard<'_, Vec<Idle>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `work` on a thread that waits, or else on a new one.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn start(self: &Arc<Self>, mut work: Work) -> io::Result<()> {
        let next = || self.lock().pop();
        while let Some(idle) = next() {
            match idle.next.send(work) {
                Ok(()) => return Ok(()),
                // It panicked while it told its last answer.
                Err(refused) => work = refused.0,
            }
        }
        let idle = Arc::downgrade(self);
        thread::Builder::new().name("cluegate-judge".to_owned()).spawn(move || serve(work, &idle)).map(drop)
    }
}

/// Runs `work`, and then whatever comes next while anybody may have something to run.
fn serve(mut work: Work, threads: &Weak<Threads>) {
    loop {
        let tell = work();
        let Some(idle) = threads.upgrade() else { return tell() };
        let (sender, receiver) = sync_channel(1);
        let thread = thread::current().id();
        idle.lock().push(Idle { thread, next: sender });
        drop(idle);
        tell();
        work = match watch(&receiver, IDLE) {
            Ok(next) => next,
            Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {
                let Some(idle) = threads.upgrade() else { return };
                let mut idle = idle.lock();
                if let Some(at) = idle.iter().position(|idle| idle.thread == thread) {
                    idle.remove(at);
                    return;
                }
                drop(idle);
                // Somebody has taken it out just now.
                let Ok(next) = receiver.recv() else { return };
                next
            }
        };
    }
}

/// Waits as [`Receiver::recv_timeout`] does, but looks for itself at first: an answer that comes at once is taken at once.
/// Between two looks whoever else wants this core has it, which may be the very thread that is to answer.
///
/// # Errors
/// As [`Receiver::recv_timeout`].
pub fn watch<T>(receiver: &Receiver<T>, patience: Duration) -> Result<T, RecvTimeoutError> {
    let until = Instant::now() + WATCH.min(patience);
    while Instant::now() < until {
        match receiver.try_recv() {
            Ok(message) => return Ok(message),
            Err(TryRecvError::Disconnected) => return Err(RecvTimeoutError::Disconnected),
            Err(TryRecvError::Empty) => thread::yield_now(),
        }
    }
    receiver.recv_timeout(patience)
}

impl Watchdog {
    /// Runs `work` on another thread and waits for it at most `deadline`. A call that is late goes on, unheard.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        deadline: Duration,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Stopped> {
        self.begin(deadline, work)?.wait()
    }

    /// Runs `work` on another thread, and leaves it to the caller when to ask for its answer. Whoever drops that does not
    /// end the call.
    pub(crate) fn begin<T: Send + 'static>(
        &self,
        deadline: Duration,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<Pending<T>, Stopped> {
        let late = self.late();
        if late >= MAX_LATE {
            return Err(Stopped::Busy(late));
        }
        let (sender, answer) = sync_channel(1);
        let alive = Arc::new(());
        let until = Instant::now() + deadline;
        self.lock().push(Running { until, alive: Arc::downgrade(&alive) });
        let span = tracing::Span::current();
        let work = move || {
            let answer = guard(|| span.in_scope(work));
            Box::new(move || {
                // The waiter may be gone, and then nobody wants the answer.
                let _ = sender.send(answer);
                drop(alive);
            }) as Tell
        };
        self.idle.start(Box::new(work)).map_err(|source| Stopped::NoThread(source.to_string()))?;
        Ok(Pending { answer, deadline, until })
    }

    /// How many calls are still running after their deadline.
    fn late(&self) -> usize {
        let now = Instant::now();
        let mut calls = self.lock();
        calls.retain(|call| call.alive.strong_count() > 0);
        calls.iter().filter(|call| call.until <= now).count()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Running>> {
        // Nothing that runs under the lock leaves the list half-changed.
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Pending<T> {
    /// Waits for the answer, until the call's deadline.
    pub(crate) fn wait(&self) -> Result<T, Stopped> {
        match self.answer.recv_timeout(self.until.saturating_duration_since(Instant::now())) {
            Ok(answer) => answer.map_err(Stopped::Panicked),
            Err(RecvTimeoutError::Disconnected) => Err(Self::died()),
            Err(RecvTimeoutError::Timeout) => Err(Stopped::TimedOut(self.deadline)),
        }
    }

    /// The answer, if it is there or will not come any more.
    pub(crate) fn poll(&self) -> Option<Result<T, Stopped>> {
        match self.answer.try_recv() {
            Ok(answer) => Some(answer.map_err(Stopped::Panicked)),
            Err(TryRecvError::Disconnected) => Some(Err(Self::died())),
            Err(TryRecvError::Empty) => {
                (self.until <= Instant::now()).then_some(Err(Stopped::TimedOut(self.deadline)))
            }
        }
    }

    fn died() -> Stopped {
        Stopped::Panicked("it ended without an answer".to_owned())
    }
}

/// Runs `work`; a panic becomes its message.
pub(crate) fn guard<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    // What `work` touched is used again only if it guards itself: a poisoned lock is an error of the next call.
    catch_unwind(AssertUnwindSafe(work)).map_err(|payload| panic_message(payload.as_ref()))
}

fn panic_message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_panics_and_time_outs_are_told_apart() {
        let watchdog = Watchdog::default();
        assert_eq!(watchdog.run(Duration::from_secs(5), || 7), Ok(7));
        let panicked: Result<(), _> = watchdog.run(Duration::from_secs(5), || panic!("out of {}", "range"));
        assert_eq!(panicked, Err(Stopped::Panicked("out of range".to_owned())));
        let short = Duration::from_millis(10);
        let slow = watchdog.run(short, || thread::sleep(Duration::from_millis(200)));
        assert_eq!(slow, Err(Stopped::TimedOut(short)));
    }

    #[test]
    fn a_thread_serves_one_call_after_another_and_survives_a_panic() {
        let watchdog = Watchdog::default();
        let call = |panics: bool| {
            watchdog.run(Duration::from_secs(60), move || {
                assert!(!panics, "as asked");
                thread::current().id()
            })
        };
        let first = call(false).unwrap();
        // It is free before its answer is there, so that no second one is ever started.
        for _ in 0..1000 {
            assert_eq!(call(false), Ok(first));
        }
        assert_eq!(call(true), Err(Stopped::Panicked("as asked".to_owned())));
        assert_eq!(call(false), Ok(first));
        // Nor for one that has gone to sleep.
        thread::sleep(10 * WATCH);
        assert_eq!(call(false), Ok(first));
        // Two at once are two threads, and none is started for a third that comes later.
        let (both, idle) = (Arc::new(std::sync::Barrier::new(2)), Arc::clone(&watchdog.idle));
        thread::scope(|scope| {
            for _ in 0..2 {
                let (both, watchdog) = (Arc::clone(&both), &watchdog);
                scope.spawn(move || watchdog.run(Duration::from_secs(60), move || both.wait()).map(drop));
            }
        });
        assert_eq!(idle.lock().len(), 2);
        call(false).unwrap();
        assert_eq!(idle.lock().len(), 2);
    }

    #[test]
    fn whoever_watches_gets_what_comes_soon_what_comes_late_and_the_time_out() {
        let (sender, receiver) = sync_channel(1);
        sender.send(1).unwrap();
        assert_eq!(watch(&receiver, Duration::ZERO), Ok(1));
        assert_eq!(watch(&receiver, WATCH / 2), Err(RecvTimeoutError::Timeout));
        assert_eq!(watch(&receiver, 2 * WATCH), Err(RecvTimeoutError::Timeout));
        thread::scope(|scope| {
            scope.spawn(|| {
                thread::sleep(100 * WATCH);
                sender.send(2)
            });
            assert_eq!(watch(&receiver, Duration::from_secs(60)), Ok(2));
        });
        drop(sender);
        assert_eq!(watch(&receiver, Duration::from_secs(60)), Err(RecvTimeoutError::Disconnected));
    }

    #[test]
    fn an_answer_can_be_asked_for_without_waiting() {
        let watchdog = Watchdog::default();
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let pending = watchdog.begin(Duration::from_secs(60), move || wait.recv().is_ok()).unwrap();
        assert_eq!(pending.poll(), None);
        go.send(()).unwrap();
        let answer = loop {
            match pending.poll() {
                Some(answer) => break answer,
                None => thread::yield_now(),
            }
        };
        assert_eq!(answer, Ok(true));
        // A call that nobody asks about any more is late only once its deadline has passed.
        let (go, wait) = std::sync::mpsc::channel::<()>();
        drop(watchdog.begin(Duration::from_secs(60), move || wait.recv().is_ok()).unwrap());
        assert_eq!((watchdog.late(), watchdog.lock().len()), (0, 1));
        let (go_late, wait) = std::sync::mpsc::channel::<()>();
        let pending = watchdog.begin(Duration::ZERO, move || wait.recv().is_ok()).unwrap();
        assert_eq!(pending.poll(), Some(Err(Stopped::TimedOut(Duration::ZERO))));
        assert_eq!(watchdog.late(), 1);
        drop((go, go_late));
    }

    #[test]
    fn late_calls_are_counted_refused_and_forgiven() {
        let watchdog = Watchdog::default();
        let (release, hold) = std::sync::mpsc::channel::<()>();
        let hold = Arc::new(std::sync::Mutex::new(hold));
        for _ in 0..MAX_LATE {
            let hold = Arc::clone(&hold);
            let late = watchdog.run(Duration::from_millis(5), move || {
                let _ = hold.lock().unwrap().recv();
            });
            assert!(matches!(late, Err(Stopped::TimedOut(_))));
        }
        assert_eq!(watchdog.run(Duration::from_secs(1), || ()), Err(Stopped::Busy(MAX_LATE)));
        drop(release);
        for _ in 0..500 {
            if watchdog.late() == 0 {
                break;
            }
            thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(watchdog.run(Duration::from_secs(1), || ()), Ok(()));
    }
}
