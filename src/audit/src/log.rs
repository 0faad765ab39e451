//! The decision log as the gate uses it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use cluegate_gate::{Decision, DecisionLog, LogError};
use cluegate_store::Database;
use crossbeam_channel::{SendTimeoutError, Sender};
use serde_json::{Value, json};

use crate::chain::{Chain, Placed};
use crate::database::LogTables;
use crate::entry::{Entry, Position, RECOVERED};
use crate::error::{AuditError, Result};
use crate::file::{LogFile, Standing};
use crate::keys::{Key, Keyring};
use crate::pictures::PictureStore;
use crate::progress::Progress;
use crate::settings::LogSettings;
use crate::webhook::{Delivery, Webhook};
use crate::writer::{Places, Request, Writer};

/// Labels of every entry.
pub(crate) type Labels = BTreeMap<String, String>;

/// Entries that one place lacks are brought to it this many at a time.
const CATCH_UP: usize = 500;

/// The decision log: entries in a hash chain, durable in every configured place before [`DecisionLog::append`] returns.
///
/// Dropping it writes what was asked for and ends its threads.
#[derive(Debug)]
pub struct AuditLog {
    place: String,
    labels: Labels,
    subject_keys: Option<Keyring>,
    pictures: Option<PictureStore>,
    timeout: Duration,
    requests: Option<Sender<Request>>,
    progress: Arc<Progress>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl AuditLog {
    /// Opens the log, repairs what a crash left, and starts its threads. `settings` are resolved
    /// ([`LogSettings::resolve`]). Call it within the tokio runtime that `database` was opened in, which must have more
    /// than one thread and outlive the log.
    ///
    /// # Errors
    /// If a setting cannot be used, a file or the database cannot be opened, another process writes the file, or the end
    /// of the log is missing.
    pub async fn open(settings: &LogSettings, database: Option<Database>) -> Result<Self> {
        settings.check()?;
        let load = |path: &Option<PathBuf>| path.as_deref().map(Keyring::load).transpose();
        let (head_keys, subject_keys) = (load(&settings.head_key_file)?, load(&settings.subject_key_file)?);
        let instance = settings.instance_name()?;
        let tables = tables(settings, database, head_keys.clone())?;
        let opened = settings.file.as_deref().map(|path| LogFile::open(path, head_keys)).transpose()?;
        let (mut file, standing) =
            opened.map_or((None, Standing::default()), |(file, standing)| (Some(file), standing));
        let (last, stranger) = match standing.last {
            Some(last) if last.instance == instance => (Some(last), None),
            other => (None, other),
        };
        let last = match (&tables, &mut file) {
            (Some(tables), file) => reconcile(tables, file.as_mut(), &instance, last).await?,
            (None, _) => last,
        };
        let labels = labels(settings, &instance);
        let progress = Arc::new(Progress::default());
        let places = settings.file.iter().map(|path| path.display().to_string());
        let place = places.chain(tables.as_ref().map(|tables| tables.database.place().to_owned()));
        let place = place.collect::<Vec<_>>().join(" and ");
        if place.is_empty() {
            let problem = "is missing, and so is `log.database`: decisions need a place".to_owned();
            return Err(AuditError::Setting { key: "file", problem });
        }
        let webhook = match &settings.webhook {
            Some(webhook) => {
                Some(Webhook::open(webhook, settings, tables.clone(), &instance, last.as_ref())?)
            }
            None => None,
        };
        let tables = tables.map(|tables| (tables, tokio::runtime::Handle::current()));
        let chain = Chain::after(&instance, last.as_ref())?;
        progress.reached(last.map_or(0, |last| last.seq));
        let mut writer = Writer::new(Places { file, tables }, chain, labels.clone(), Arc::clone(&progress));
        if standing.torn > 0 || stranger.is_some() {
            let input = recovered(standing.torn, stranger.as_ref());
            let draft = Entry::about_log(RECOVERED, input, &labels).draft()?;
            // Waits for the database, which needs this thread.
            writer = tokio::task::spawn_blocking(move || writer.append(vec![draft]).map(|()| writer))
                .await
                .map_err(|_| AuditError::Closed)??;
        }
        let pictures = settings.pictures.as_ref().map(PictureStore::open).transpose()?;
        let (sender, receiver) = crossbeam_channel::bounded(settings.queue);
        let mut threads = vec![start("cluegate-log", move || writer.run(&receiver))?];
        if let Some(webhook) = webhook {
            let progress = Arc::clone(&progress);
            threads.push(start("cluegate-webhook", move || Delivery::new(webhook, progress).run())?);
        }
        Ok(Self {
            place,
            labels,
            subject_keys,
            pictures,
            timeout: Duration::from_millis(settings.timeout_ms),
            requests: Some(sender),
            progress,
            threads: Mutex::new(threads),
        })
    }

    /// The number of the last entry that is durable.
    pub fn last_seq(&self) -> u64 {
        self.progress.seq()
    }

    fn entry(&self, decision: &Decision<'_>) -> Result<Entry> {
        let record = decision.record;
        let subject = match (&record.subject, &self.subject_keys) {
            (Some(subject), Some(keys)) => Some(masked_subject(keys.current(), &record.tenant, subject)),
            _ => None,
        };
        let pictures = match &self.pictures {
            Some(store) => store.keep(decision)?,
            None => Vec::new(),
        };
        Entry::decision(record, subject, &pictures, &self.labels)
    }

    fn write(&self, decision: &Decision<'_>) -> std::result::Result<(), String> {
        let deadline = Instant::now() + self.timeout;
        let draft = self.entry(decision).and_then(Entry::draft).map_err(|problem| problem.to_string())?;
        let (request, pending) = Request::new(draft);
        let requests = self.requests.as_ref().ok_or_else(|| AuditError::Closed.to_string())?;
        metrics::gauge!("cluegate_log_queue").set(requests.len() as f64);
        requests.send_deadline(request, deadline).map_err(|problem| {
            let problem = match problem {
                SendTimeoutError::Timeout(_) => AuditError::Overloaded("its queue is full".to_owned()),
                SendTimeoutError::Disconnected(_) => AuditError::Closed,
            };
            problem.to_string()
        })?;
        pending.wait(deadline)
    }
}

impl DecisionLog for AuditLog {
    fn append(&self, decision: &Decision<'_>) -> std::result::Result<(), LogError> {
        let begun = Instant::now();
        let written = self.write(decision);
        metrics::histogram!("cluegate_log_append_seconds").record(begun.elapsed().as_secs_f64());
        written.map_err(|problem| LogError::new(&self.place, format!("could not be written: {problem}")))
    }
}

impl Drop for AuditLog {
    fn drop(&mut self) {
        // The writer ends when nobody can ask any more, and tells the others.
        self.requests = None;
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a thread of the decision log panicked");
            }
        }
    }
}

/// What stands in the log for an end user: `hmac-sha256:KEY-ID:DIGITS`, with HMAC-SHA256 over the tenant, a NUL, and the
/// user's name as the client gave it.
pub(crate) fn masked_subject(key: &Key, tenant: &str, subject: &str) -> String {
    format!("hmac-sha256:{}:{}", key.id(), key.hmac(&[tenant.as_bytes(), b"\0", subject.as_bytes()]))
}

pub(crate) fn labels(settings: &LogSettings, instance: &str) -> Labels {
    let mut labels = settings.labels.clone();
    labels.insert("product".to_owned(), "cluegate".to_owned());
    labels.insert("version".to_owned(), env!("CARGO_PKG_VERSION").to_owned());
    labels.entry("id".to_owned()).or_insert_with(|| instance.to_owned());
    labels
}

fn tables(
    settings: &LogSettings,
    database: Option<Database>,
    keys: Option<Keyring>,
) -> Result<Option<LogTables>> {
    match (settings.database, database) {
        (true, Some(database)) => Ok(Some(LogTables { database, keys })),
        (true, None) => {
            let problem = "is on, and there is no database: set `store.url`".to_owned();
            Err(AuditError::Setting { key: "database", problem })
        }
        (false, _) => Ok(None),
    }
}

fn recovered(torn: u64, stranger: Option<&Position>) -> Value {
    let mut input = json!({ "torn_bytes": torn });
    if let Some(stranger) = stranger {
        input["after"] = json!(stranger);
    }
    input
}

fn start(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(work);
    thread.map_err(AuditError::io(std::path::Path::new(name), "started"))
}

/// Brings to the file or to the database what only the other has, which is what is left when a process dies between the
/// two. Gives the last entry.
async fn reconcile(
    tables: &LogTables,
    file: Option<&mut LogFile>,
    instance: &str,
    in_file: Option<Position>,
) -> Result<Option<Position>> {
    let in_database = tables.head(instance).await?.map(|head| head.position);
    let (Some(file), Some(f), Some(d)) = (file, &in_file, &in_database) else {
        return Ok(later(in_file, in_database));
    };
    if f.seq == d.seq && f.hash != d.hash {
        let problem = format!(
            "entry {} of the chain {instance} differs from the one in the database; run `cluegate log verify`",
            f.seq
        );
        return Err(AuditError::content(file.path(), problem));
    }
    if f.seq > d.seq {
        let mut before = d.clone();
        let mut behind = crate::reader::Behind::open(file.path(), instance, d.seq)?;
        loop {
            let entries = behind.next(CATCH_UP)?;
            let Some(last) = entries.last().map(|entry: &Placed| entry.link.position()) else { break };
            tables.append(Some(&before), &entries).await?;
            before = last;
        }
    }
    let mut seq = f.seq;
    while d.seq > seq {
        let lines = tables.after(instance, seq, CATCH_UP).await?;
        let Some((last, _)) = lines.last() else {
            let place = tables.database.place().to_owned();
            return Err(AuditError::CutOff { place, head: d.clone(), found: seq });
        };
        seq = *last;
        let text: String = lines.iter().flat_map(|(_, line)| [line.as_str(), "\n"]).collect();
        file.append(text.as_bytes())?;
    }
    Ok(later(in_file, in_database))
}

fn later(a: Option<Position>, b: Option<Position>) -> Option<Position> {
    match (a, b) {
        (Some(a), Some(b)) => Some(if a.seq >= b.seq { a } else { b }),
        (a, b) => a.or(b),
    }
}
