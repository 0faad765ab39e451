//! A plugin in this process: each call on a thread that can be given up.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use cluegate_abi::{PictureBuf, PictureView, PluginError};
use cluegate_gate::{Tell, Threads, watch};
use cluegate_perception::{Call, PerceptionErrorKind, Picture};

use crate::error::{HostError, Result};
use crate::instance::{Given, Instance, Observer, Terms};
use crate::library::Library;
use crate::message::{Ask, Description};
use crate::slots::{GLANCE, NoPlace, Slots, Ticket};

/// Most calls of one plugin at a time, where it allows more than one.
const MOST_AT_ONCE: usize = 64;

/// A plugin in this process.
pub(crate) struct Local {
    plugin: String,
    instance: Arc<Instance>,
    fingerprint: String,
    threads: Arc<Threads>,
    slots: Arc<Slots>,
    deadline: Duration,
    broken: OnceLock<String>,
}

/// What a plugin's thread tells whoever waits for it.
enum Told {
    Wants { step: u32, total: u32 },
    Step { step: u32, total: u32, preview: Option<PictureBuf> },
    Ended(std::result::Result<Given, PluginError>),
}

/// Where an instance comes from.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    /// The library.
    pub(crate) path: std::path::PathBuf,
    /// The configuration, a JSON object.
    pub(crate) config: String,
    /// What relative paths of it mean.
    pub(crate) folder: String,
}

impl Origin {
    /// Loads the library and makes an instance, on this thread.
    pub(crate) fn open(&self, plugin: &str) -> Result<(Instance, String)> {
        let library = Library::open(&self.path)?.keep();
        check_keys(plugin, &self.config, &library.description)?;
        let refused = |error| HostError::Plugin { plugin: plugin.to_owned(), error };
        let instance = Instance::create(library, &self.config, &self.folder).map_err(refused)?;
        let fingerprint = instance.fingerprint().map_err(refused)?;
        Ok((instance, fingerprint))
    }
}

/// Refuses keys that a closed schema does not know, and misses those that it requires. Values are the plugin's to check.
pub(crate) fn check_keys(plugin: &str, config: &str, description: &Description) -> Result<()> {
    let wrong = |problem: String| HostError::Config { plugin: plugin.to_owned(), problem };
    let config: serde_json::Value = serde_json::from_str(config).map_err(|error| wrong(error.to_string()))?;
    let keys = config.as_object().ok_or_else(|| wrong("its configuration is no JSON object".to_owned()))?;
    let schema = &description.schema;
    let known: Vec<&str> = schema["properties"]
        .as_object()
        .map(|known| known.keys().map(String::as_str).collect())
        .unwrap_or_default();
    let closed = schema["additionalProperties"] == serde_json::Value::Bool(false);
    if let Some(unknown) = keys.keys().find(|key| closed && !known.contains(&key.as_str())) {
        let nearest = cluegate_constitution::nearest(unknown, known.iter().copied());
        let hint = cluegate_gate::policy::did_you_mean(nearest);
        return Err(wrong(format!("unknown key `{unknown}`{hint}; known here: {}", known.join(", "))));
    }
    let required = schema["required"].as_array().into_iter().flatten().filter_map(|key| key.as_str());
    if let Some(missing) = required.into_iter().find(|key| !keys.contains_key(*key)) {
        return Err(wrong(format!("its configuration lacks the key `{missing}`")));
    }
    Ok(())
}

impl Local {
    /// Opens a plugin within `patience`; afterwards each of its calls may take `deadline`.
    pub(crate) fn open(plugin: &str, origin: Origin, patience: Duration, deadline: Duration) -> Result<Self> {
        let threads = Arc::new(Threads::default());
        let (sender, receiver) = sync_channel(1);
        let named = plugin.to_owned();
        let work = move || {
            let opened = origin.open(&named);
            Box::new(move || {
                // Whoever waited may have gone.
                let _ = sender.send(opened);
            }) as Tell
        };
        threads.start(Box::new(work)).map_err(|error| no_thread(plugin, &error))?;
        let (instance, fingerprint) = match receiver.recv_timeout(patience) {
            Ok(opened) => opened?,
            Err(RecvTimeoutError::Timeout) => {
                return Err(HostError::TimedOut { plugin: plugin.to_owned(), deadline: patience });
            }
            Err(RecvTimeoutError::Disconnected) => {
                let problem = "the thread that opened it ended without an answer".to_owned();
                return Err(HostError::System { plugin: plugin.to_owned(), problem });
            }
        };
        let most = if instance.dylib().is_concurrent() { MOST_AT_ONCE } else { 1 };
        Ok(Self {
            plugin: plugin.to_owned(),
            instance: Arc::new(instance),
            fingerprint,
            threads,
            slots: Slots::new(most),
            deadline,
            broken: OnceLock::new(),
        })
    }

    pub(crate) fn description(&self) -> &Description {
        &self.instance.dylib().description
    }

    pub(crate) fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Why it is not used any more, if it is not.
    pub(crate) fn broken(&self) -> Option<&str> {
        self.broken.get().map(String::as_str)
    }

    fn give_up(&self, why: &str) -> HostError {
        let why = self.broken.get_or_init(|| why.to_owned()).clone();
        tracing::error!(plugin = self.plugin, why, "a plugin is not used any more");
        HostError::Broken { plugin: self.plugin.clone(), why }
    }

    pub(crate) fn ask(
        &self,
        ask: Ask,
        pictures: Vec<Picture>,
        call: &Call,
        observer: &mut dyn Observer,
    ) -> Result<Given> {
        if let Some(why) = self.broken.get() {
            return Err(HostError::Broken { plugin: self.plugin.clone(), why: why.clone() });
        }
        let ticket = self.slots.take(self.deadline, call).map_err(|no_place| match no_place {
            NoPlace::Stuck => self.give_up("an earlier call did not end within its deadline"),
            NoPlace::Over(over) => is_over(&self.plugin, &over),
        })?;
        let id = ticket.id();
        // Room for one each: a plugin that tells something waits for the answer.
        let (tell, told) = sync_channel(1);
        let (answer, answers) = sync_channel(1);
        let cancelled = Arc::new(AtomicU32::new(0));
        let (flag, instance, deadline) = (Arc::clone(&cancelled), Arc::clone(&self.instance), self.deadline);
        let work = move || {
            let mut proxy = Proxy { tell, answers };
            let terms = Terms { cancelled: &flag, deadline };
            let views: std::result::Result<Vec<_>, _> = pictures.iter().map(view).collect();
            let ended = views.and_then(|views| instance.ask(&ask, &views, &terms, &mut proxy));
            drop(instance);
            drop(ticket);
            Box::new(move || {
                // Whoever waited may have gone.
                let _ = proxy.tell.send(Told::Ended(ended));
            }) as Tell
        };
        self.threads.start(Box::new(work)).map_err(|error| no_thread(&self.plugin, &error))?;
        let waiting =
            Waiting { local: self, ticket: id, cancelled: &cancelled, told: &told, answer: &answer };
        waiting.wait(call, observer)
    }
}

/// The plugin's view of a picture.
fn view(picture: &Picture) -> std::result::Result<PictureView<'_>, PluginError> {
    PictureView::new(picture.pixels().as_raw(), picture.width(), picture.height())
}

fn no_thread(plugin: &str, error: &std::io::Error) -> HostError {
    let problem = format!("no thread could be started: {error}");
    HostError::System { plugin: plugin.to_owned(), problem }
}

/// Nobody waits for the answer any more.
pub(crate) fn is_over(plugin: &str, over: &cluegate_perception::PerceptionError) -> HostError {
    HostError::Over {
        plugin: plugin.to_owned(),
        problem: over.to_string(),
        late: over.kind() == PerceptionErrorKind::Timeout,
    }
}

/// Whoever waits for a plugin's thread.
struct Waiting<'a> {
    local: &'a Local,
    ticket: u64,
    cancelled: &'a AtomicU32,
    told: &'a Receiver<Told>,
    answer: &'a SyncSender<bool>,
}

impl Waiting<'_> {
    fn wait(&self, call: &Call, observer: &mut dyn Observer) -> Result<Given> {
        let plugin = || self.local.plugin.clone();
        // What the plugin has left of its deadline: what the host takes to look at a preview is not the plugin's time.
        let mut left = self.local.deadline;
        loop {
            let began = Instant::now();
            let told = watch(self.told, left.min(GLANCE));
            left = left.saturating_sub(began.elapsed());
            match told {
                Ok(Told::Ended(ended)) => {
                    return ended.map_err(|error| HostError::Plugin { plugin: plugin(), error });
                }
                Ok(Told::Wants { step, total }) => self.think(|| observer.wants(step, total)),
                Ok(Told::Step { step, total, preview }) => {
                    self.think(|| observer.step(step, total, preview));
                }
                Err(RecvTimeoutError::Timeout) => {
                    if let Err(over) = call.check() {
                        self.cancelled.store(1, Ordering::Release);
                        return Err(is_over(&self.local.plugin, &over));
                    }
                    if left.is_zero() {
                        self.cancelled.store(1, Ordering::Release);
                        let deadline = self.local.deadline;
                        self.local.give_up(&format!("it gave no answer within {} ms", deadline.as_millis()));
                        return Err(HostError::TimedOut { plugin: plugin(), deadline });
                    }
                }
                Err(RecvTimeoutError::Disconnected) => {
                    let problem = "its thread ended without an answer".to_owned();
                    return Err(HostError::System { plugin: plugin(), problem });
                }
            }
        }
    }

    fn think(&self, work: impl FnOnce() -> bool) {
        let began = Instant::now();
        let said = work();
        Ticket::extend(&self.local.slots, self.ticket, began.elapsed());
        // A plugin that tells something waits for the answer.
        let _ = self.answer.send(said);
    }
}

/// What the plugin's thread has in place of the observer. Once nobody listens, drawings are given up.
struct Proxy {
    tell: SyncSender<Told>,
    answers: Receiver<bool>,
}

impl Proxy {
    fn ask(&self, told: Told) -> bool {
        self.tell.send(told).is_ok() && self.answers.recv().unwrap_or(false)
    }
}

impl Observer for Proxy {
    fn wants(&mut self, step: u32, total: u32) -> bool {
        self.ask(Told::Wants { step, total })
    }

    fn step(&mut self, step: u32, total: u32, preview: Option<PictureBuf>) -> bool {
        self.ask(Told::Step { step, total, preview })
    }
}
