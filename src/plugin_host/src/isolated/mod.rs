//! A plugin in a process of its own: what crashes or hangs there costs one request. The process is this program again, with
//! another command; it is started when it is needed, and rests a while after it ended on its own.

mod backoff;
mod shared;
pub(crate) mod wire;
mod worker;

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use cluegate_abi::{ErrorCode, PictureBuf, PluginError};
use cluegate_perception::{Call, Picture};

pub use self::worker::run as run_worker;

use self::backoff::Backoff;
use self::shared::{Shared, Side};
use self::wire::{Frames, FromWorker, Size, ToWorker};
use crate::error::{HostError, Result};
use crate::instance::{Given, Observer};
use crate::local::{Origin, is_over};
use crate::message::{Ask, Description};
use crate::slots::{GLANCE, NoPlace, Slots};

/// How a plugin's process is started and started again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Isolation {
    /// The program; this one if there is none.
    pub program: Option<PathBuf>,
    /// What it is started with.
    pub arguments: Vec<OsString>,
    /// Bytes of room for each picture that is shared with it.
    pub room: usize,
    /// How long it rests after it ended for the first time; twice as long after each further time.
    pub rest: Duration,
    /// How long it rests at most.
    pub longest_rest: Duration,
}

/// The hidden command of the program that serves a plugin.
pub const WORKER_COMMAND: &str = "plugin-worker";

impl Default for Isolation {
    fn default() -> Self {
        Self {
            program: None,
            arguments: vec![WORKER_COMMAND.into()],
            room: 128 << 20,
            rest: Duration::from_millis(100),
            longest_rest: Duration::from_secs(30),
        }
    }
}

/// A plugin in a process of its own.
pub(crate) struct Isolated {
    plugin: String,
    origin: Origin,
    sha256: String,
    isolation: Isolation,
    patience: Duration,
    deadline: Duration,
    description: Description,
    fingerprint: String,
    slots: Arc<Slots>,
    state: Mutex<State>,
}

struct State {
    worker: Option<Worker>,
    backoff: Backoff,
    /// How the last process ended.
    how: String,
}

/// A process that serves a plugin.
struct Worker {
    child: Child,
    stream: UnixStream,
    frames: Frames,
    shared: Shared,
    /// A call that nobody waits for any more, and the moment by which it has to end.
    left_behind: Option<Instant>,
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It may have ended, and then there is nothing to end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Why a conversation ended without an answer.
enum Lost {
    /// The process ended, or said what it must not.
    Ended(io::Error),
    /// The plugin's deadline passed.
    Late,
    /// Nobody waits any more.
    Over(HostError),
}

/// Gives drawings up that nobody waits for.
struct Nobody;

impl Observer for Nobody {
    fn wants(&mut self, _: u32, _: u32) -> bool {
        false
    }

    fn step(&mut self, _: u32, _: u32, _: Option<PictureBuf>) -> bool {
        false
    }
}

impl Isolated {
    /// Starts the process and opens the plugin there, within `patience`.
    pub(crate) fn open(
        plugin: &str,
        (origin, sha256): (Origin, String),
        isolation: Isolation,
        (patience, deadline): (Duration, Duration),
    ) -> Result<Self> {
        let backoff = Backoff::new(isolation.rest, isolation.longest_rest);
        let (worker, description, fingerprint) =
            Worker::start(plugin, &origin, &sha256, &isolation, patience)?;
        Ok(Self {
            plugin: plugin.to_owned(),
            origin,
            sha256,
            isolation,
            patience,
            deadline,
            description,
            fingerprint,
            slots: Slots::new(1),
            state: Mutex::new(State { worker: Some(worker), backoff, how: String::new() }),
        })
    }

    pub(crate) fn description(&self) -> &Description {
        &self.description
    }

    pub(crate) fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    pub(crate) fn ask(
        &self,
        ask: Ask,
        pictures: Vec<Picture>,
        call: &Call,
        observer: &mut dyn Observer,
    ) -> Result<Given> {
        // The place is held by this thread, which the process cannot keep from ending.
        let _ticket = self.slots.take(self.deadline, call).map_err(|no_place| match no_place {
            NoPlace::Stuck => {
                let problem = "an earlier call is still being ended".to_owned();
                HostError::System { plugin: self.plugin.clone(), problem }
            }
            NoPlace::Over(over) => is_over(&self.plugin, &over),
        })?;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        self.ready(&mut state)?;
        let Some(worker) = state.worker.as_mut() else { return Err(self.system("it has no process")) };
        let conversation = worker.put(ask, &pictures, self.deadline);
        let conversation = conversation.map_err(|error| match error.kind() {
            io::ErrorKind::InvalidInput => Lost::Over(self.system(&error.to_string())),
            _ => Lost::Ended(error),
        });
        let given =
            conversation.and_then(|()| worker.converse(&self.plugin, self.deadline, Some(call), observer));
        match given {
            Ok(given) => {
                state.backoff.succeeded();
                given.map_err(|error| HostError::Plugin { plugin: self.plugin.clone(), error })
            }
            Err(lost) => Err(self.lost(&mut state, lost)),
        }
    }

    fn system(&self, problem: &str) -> HostError {
        HostError::System { plugin: self.plugin.clone(), problem: problem.to_owned() }
    }

    /// A process that has nothing left to do, started again if it has to be.
    fn ready(&self, state: &mut State) -> Result<()> {
        if let Some(until) = state.worker.as_mut().and_then(|worker| worker.left_behind.take()) {
            let left = until.saturating_duration_since(Instant::now());
            let ended = match state.worker.as_mut() {
                Some(worker) => worker.converse(&self.plugin, left, None, &mut Nobody).map(drop),
                None => Ok(()),
            };
            if let Err(lost) = ended {
                self.lost(state, lost);
            }
        }
        if state.worker.is_some() {
            return Ok(());
        }
        if let Some(wait) = state.backoff.wait(Instant::now()) {
            return Err(HostError::Resting { plugin: self.plugin.clone(), how: state.how.clone(), wait });
        }
        match Worker::start(&self.plugin, &self.origin, &self.sha256, &self.isolation, self.patience) {
            Ok((_, description, fingerprint))
                if (&description, &fingerprint) != (&self.description, &self.fingerprint) =>
            {
                state.backoff.failed(Instant::now());
                Err(self.system("its process opened another plugin than before; reload the configuration"))
            }
            Ok((worker, ..)) => {
                tracing::warn!(plugin = self.plugin, "the process of a plugin was started again");
                state.worker = Some(worker);
                Ok(())
            }
            Err(error) => {
                state.backoff.failed(Instant::now());
                state.how = error.to_string();
                Err(error)
            }
        }
    }

    /// What is said of a call without an answer; the process is ended unless it may still end the call by itself.
    fn lost(&self, state: &mut State, lost: Lost) -> HostError {
        let (how, error) = match lost {
            Lost::Over(error) => return error,
            Lost::Late => {
                let how = format!("it gave no answer within {} ms and was ended", self.deadline.as_millis());
                (how, HostError::TimedOut { plugin: self.plugin.clone(), deadline: self.deadline })
            }
            Lost::Ended(source) => {
                let status = state.worker.as_mut().and_then(Worker::status);
                let how = status.map_or_else(|| source.to_string(), in_words);
                (how.clone(), HostError::Crashed { plugin: self.plugin.clone(), how })
            }
        };
        tracing::error!(plugin = self.plugin, how, "the process of a plugin ended");
        state.worker = None;
        state.backoff.failed(Instant::now());
        state.how = how;
        error
    }
}

/// "signal 11", "status 3".
fn in_words(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(signal), _) => format!("signal {signal}{}", signal_name(signal)),
        (None, code) => format!("status {}", code.unwrap_or(-1)),
    }
}

fn signal_name(signal: i32) -> &'static str {
    match signal {
        libc::SIGSEGV => " (it read or wrote memory that is not its own)",
        libc::SIGABRT => " (it gave itself up)",
        libc::SIGKILL => " (it was ended from outside, perhaps for want of memory)",
        libc::SIGBUS => " (it read or wrote memory that is not there)",
        libc::SIGILL => " (an instruction that this processor does not have)",
        libc::SIGFPE => " (a division by zero)",
        _ => "",
    }
}

impl Worker {
    fn start(
        plugin: &str,
        origin: &Origin,
        sha256: &str,
        isolation: &Isolation,
        patience: Duration,
    ) -> Result<(Self, Description, String)> {
        let system = |problem: String| HostError::System { plugin: plugin.to_owned(), problem };
        let cannot = |error: io::Error| system(format!("its process cannot be started: {error}"));
        let program = isolation.program.clone().map_or_else(std::env::current_exe, Ok).map_err(cannot)?;
        let (shared, memory) = Shared::create(isolation.room).map_err(cannot)?;
        let (stream, theirs) = UnixStream::pair().map_err(cannot)?;
        stream.set_read_timeout(Some(GLANCE)).map_err(cannot)?;
        // The two descriptors that need no further agreement. The process moves both at once, so that what a plugin prints
        // does not end in the memory.
        let child = Command::new(program)
            .args(&isolation.arguments)
            .stdin(OwnedFd::from(theirs))
            .stdout(OwnedFd::from(memory))
            .spawn()
            .map_err(cannot)?;
        let mut worker = Self { child, stream, frames: Frames::default(), shared, left_behind: None };
        let open = ToWorker::Open {
            plugin: plugin.to_owned(),
            path: origin.path.clone(),
            sha256: sha256.to_owned(),
            config: origin.config.clone(),
            folder: origin.folder.clone(),
        };
        wire::write(&mut worker.stream, &open).map_err(cannot)?;
        let until = Instant::now() + patience;
        match worker.hear(until, None, plugin) {
            Ok(FromWorker::Opened { description, fingerprint }) => Ok((worker, description, fingerprint)),
            Ok(FromWorker::NotOpened { problem }) => Err(system(problem)),
            Ok(_) => Err(system("its process did not begin as it should".to_owned())),
            Err(Lost::Late) => Err(HostError::TimedOut { plugin: plugin.to_owned(), deadline: patience }),
            Err(Lost::Over(error)) => Err(error),
            Err(Lost::Ended(source)) => {
                let how = worker.status().map_or_else(|| source.to_string(), in_words);
                Err(HostError::Crashed { plugin: plugin.to_owned(), how })
            }
        }
    }

    /// How the process ended. Called once its socket is closed: it ends, or has ended.
    fn status(&mut self) -> Option<ExitStatus> {
        let until = Instant::now() + Duration::from_secs(1);
        while Instant::now() < until {
            match self.child.try_wait() {
                Ok(Some(status)) => return Some(status),
                Ok(None) => std::thread::yield_now(),
                Err(_) => return None,
            }
        }
        None
    }

    fn put(&mut self, ask: Ask, pictures: &[Picture], deadline: Duration) -> io::Result<()> {
        self.shared.set_cancelled(false);
        let pixels: Vec<&[u8]> = pictures.iter().map(|picture| &picture.pixels().as_raw()[..]).collect();
        self.shared.put(Side::ToWorker, &pixels)?;
        let size = |picture: &Picture| Size { width: picture.width(), height: picture.height() };
        let pictures = pictures.iter().map(size).collect();
        let deadline_ms = u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX);
        wire::write(&mut self.stream, &ToWorker::Ask { ask, pictures, deadline_ms })
    }

    /// The next message, before `until`, as long as anybody waits.
    fn hear(
        &mut self,
        until: Instant,
        call: Option<&Call>,
        plugin: &str,
    ) -> std::result::Result<FromWorker, Lost> {
        loop {
            match self.frames.read(&mut &self.stream) {
                Ok(message) => return Ok(message),
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted => {}
                    _ => return Err(Lost::Ended(error)),
                },
            }
            if let Some(Err(over)) = call.map(Call::check) {
                self.shared.set_cancelled(true);
                self.left_behind = Some(until);
                return Err(Lost::Over(is_over(plugin, &over)));
            }
            if Instant::now() >= until {
                return Err(Lost::Late);
            }
        }
    }

    /// Listens until the answer is there. What the observer takes to think is not the plugin's time.
    fn converse(
        &mut self,
        plugin: &str,
        deadline: Duration,
        call: Option<&Call>,
        observer: &mut dyn Observer,
    ) -> std::result::Result<std::result::Result<Given, PluginError>, Lost> {
        let mut until = Instant::now() + deadline;
        loop {
            let message = self.hear(until, call, plugin)?;
            let began = Instant::now();
            let go = match message {
                FromWorker::Wants { step, total } => observer.wants(step, total),
                FromWorker::Step { step, total, preview } => {
                    let preview = preview.map(|size| self.picture(size)).transpose().map_err(Lost::Ended)?;
                    observer.step(step, total, preview)
                }
                FromWorker::Given { said, picture } => {
                    let picture = picture.map(|size| self.picture(size)).transpose().map_err(Lost::Ended)?;
                    return Ok(Ok((said, picture)));
                }
                FromWorker::Failed { code, message } => {
                    return Ok(Err(PluginError::new(ErrorCode::of(code), message)));
                }
                FromWorker::Opened { .. } | FromWorker::NotOpened { .. } => {
                    return Err(Lost::Ended(io::ErrorKind::InvalidData.into()));
                }
            };
            until += began.elapsed();
            wire::write(&mut self.stream, &ToWorker::Go(go)).map_err(Lost::Ended)?;
        }
    }

    fn picture(&self, size: Size) -> io::Result<PictureBuf> {
        let pixels = self.shared.take(Side::FromWorker, size)?;
        PictureBuf::new(pixels, size.width, size.height)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.message().to_owned()))
    }
}
