//! Runs a call that may hang or panic, and waits for it no longer than agreed.

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::Duration;

/// Most calls that may still be running after their deadline. A thread cannot be stopped from outside, so further
/// calls are refused until one of them has ended: a judge that hangs costs a bounded number of threads.
const MAX_LATE: usize = 4;
/// How long a thread waits for its next call.
const IDLE: Duration = Duration::from_secs(10);

const RUNNING: u8 = 0;
const ENDED: u8 = 1;
const LATE: u8 = 2;

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
    late: Arc<AtomicUsize>,
    idle: Arc<Threads>,
}

type Work = Box<dyn FnOnce() + Send>;

/// Threads that wait for their next call, the last to have ended on top. To wake one costs less than to start one.
#[derive(Debug, Default)]
pub struct Threads(Mutex<Vec<SyncSender<Work>>>);

impl Threads {
    fn lock(&self) -> MutexGuard<'_, Vec<SyncSender<Work>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `work` on a thread that waits, or else on a new one.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn start(self: &Arc<Self>, mut work: Work) -> io::Result<()> {
        // Not under the lock: to hand over waits until the thread is there to take it.
        let next = || self.lock().pop();
        while let Some(thread) = next() {
            match thread.send(work) {
                Ok(()) => return Ok(()),
                // It had waited long enough a moment before.
                Err(refused) => work = refused.0,
            }
        }
        let idle = Arc::downgrade(self);
        thread::Builder::new().name("cluegate-judge".to_owned()).spawn(move || serve(work, &idle)).map(drop)
    }
}

/// Runs `work`, and then whatever comes next while anybody may have something to run.
fn serve(mut work: Work, idle: &Weak<Threads>) {
    loop {
        work();
        let Some(idle) = idle.upgrade() else { return };
        // From hand to hand: what is sent has been taken, and whoever comes too late is told so.
        let (sender, receiver) = sync_channel(0);
        idle.lock().push(sender);
        drop(idle);
        let Ok(next) = receiver.recv_timeout(IDLE) else { return };
        work = next;
    }
}

impl Watchdog {
    /// Runs `work` on another thread and waits for it at most `deadline`. A call that is late goes on, unheard.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        deadline: Duration,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Stopped> {
        let late_before = self.late.load(Ordering::SeqCst);
        if late_before >= MAX_LATE {
            return Err(Stopped::Busy(late_before));
        }
        let (sender, receiver) = sync_channel(1);
        let state = Arc::new(AtomicU8::new(RUNNING));
        let (worker_state, late) = (Arc::clone(&state), Arc::clone(&self.late));
        let span = tracing::Span::current();
        let work = move || {
            let answer = guard(|| span.in_scope(work));
            // The waiter may be gone, and then nobody wants the answer.
            let _ = sender.send(answer);
            if worker_state.swap(ENDED, Ordering::SeqCst) == LATE {
                late.fetch_sub(1, Ordering::SeqCst);
            }
        };
        self.idle.start(Box::new(work)).map_err(|source| Stopped::NoThread(source.to_string()))?;
        match receiver.recv_timeout(deadline) {
            Ok(answer) => answer.map_err(Stopped::Panicked),
            Err(RecvTimeoutError::Disconnected) => {
                Err(Stopped::Panicked("it ended without an answer".to_owned()))
            }
            Err(RecvTimeoutError::Timeout) => {
                self.late.fetch_add(1, Ordering::SeqCst);
                if state.compare_exchange(RUNNING, LATE, Ordering::SeqCst, Ordering::SeqCst).is_err() {
                    self.late.fetch_sub(1, Ordering::SeqCst);
                }
                Err(Stopped::TimedOut(deadline))
            }
        }
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
        let wait = || {
            // It says that it waits only after its answer.
            while watchdog.idle.lock().is_empty() {
                thread::yield_now();
            }
        };
        let first = call(false).unwrap();
        wait();
        assert_eq!(call(true), Err(Stopped::Panicked("as asked".to_owned())));
        wait();
        assert_eq!(call(false), Ok(first));
        // Two at once are two threads, and none is started for a third that comes later.
        let (both, idle) = (Arc::new(std::sync::Barrier::new(2)), Arc::clone(&watchdog.idle));
        thread::scope(|scope| {
            for _ in 0..2 {
                let (both, watchdog) = (Arc::clone(&both), &watchdog);
                scope.spawn(move || watchdog.run(Duration::from_secs(60), move || both.wait()).map(drop));
            }
        });
        while idle.lock().len() < 2 {
            thread::yield_now();
        }
        call(false).unwrap();
        assert!(idle.lock().len() <= 2);
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
            if watchdog.late.load(Ordering::SeqCst) == 0 {
                break;
            }
            thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(watchdog.run(Duration::from_secs(1), || ()), Ok(()));
    }
}
