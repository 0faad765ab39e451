//! Telling a server of every decision: behind the durable log, in order, at least once.
//!
//! How far the receiver has come is kept in a file for each chain, so that a restart, or a crash, goes on from there: what
//! was sent but not acknowledged is sent again. Batches are signed as the Standard Webhooks specification says
//! (standardwebhooks.com): `webhook-id`, `webhook-timestamp`, and `webhook-signature` with `v1,` and the base64 of
//! HMAC-SHA256 over `ID.TIMESTAMP.BODY`, once for each key of the key file.

mod delivery;
mod sending;
mod source;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::database::LogTables;
use crate::entry::Position;
use crate::error::{AuditError, Result};
use crate::places::{file_maintenance, maintenance_path, tables_maintenance};
use crate::settings::{LogSettings, WebhookSettings};

pub(crate) use delivery::Delivery;
use sending::Sender;
use source::Source;

/// How far a receiver has come in one chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Cursor {
    instance: String,
    /// The last entry that it has, or that is among the dead letters.
    seq: u64,
}

/// One chain on its way to the receiver.
#[derive(Debug)]
struct Stream {
    source: Source,
    cursor: Cursor,
    path: PathBuf,
    /// Whether the gateway writes it, and says how far it is durable; the other is written by whoever removes something.
    own: bool,
}

/// A receiver, and how far it has come.
#[derive(Debug)]
pub(crate) struct Webhook {
    settings: WebhookSettings,
    sender: Sender,
    folder: PathBuf,
    streams: Vec<Stream>,
}

impl Webhook {
    /// Opens the receiver's folder. A receiver that is new is told of what comes from now on.
    pub(crate) fn open(
        webhook: &WebhookSettings,
        log: &LogSettings,
        tables: Option<LogTables>,
        instance: &str,
        last: Option<&Position>,
    ) -> Result<Self> {
        let Some(folder) = webhook.folder.clone() else {
            let problem = "is needed where there is no log file: how far the receiver has come is kept there"
                .to_owned();
            return Err(AuditError::Setting { key: "webhook.folder", problem });
        };
        std::fs::create_dir_all(&folder).map_err(AuditError::io(&folder, "made"))?;
        let runtime = tokio::runtime::Handle::current();
        let own = match (&log.file, &tables) {
            (Some(file), _) => Source::file(file, instance),
            (None, Some(tables)) => Source::tables(tables, &runtime, instance),
            (None, None) => return Err(AuditError::Closed),
        };
        let (maintenance, name) = match (&log.file, &tables) {
            (Some(file), _) => {
                let name = file_maintenance(instance);
                (Source::file(&maintenance_path(file), &name), name)
            }
            (None, Some(tables)) => {
                let name = tables_maintenance(instance);
                (Source::tables(tables, &runtime, &name), name)
            }
            (None, None) => return Err(AuditError::Closed),
        };
        let streams = vec![
            Stream::open(own, &folder, instance, last.map_or(0, |last| last.seq), true)?,
            Stream::open(maintenance, &folder, &name, 0, false)?,
        ];
        Ok(Self { sender: Sender::new(webhook)?, settings: webhook.clone(), folder, streams })
    }
}

impl Stream {
    fn open(source: Source, folder: &Path, instance: &str, new_from: u64, own: bool) -> Result<Self> {
        let path = folder.join(format!("cursor-{instance}.json"));
        let cursor = match std::fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).map_err(|problem| {
                AuditError::content(&path, format!("no cursor of a webhook: {problem}"))
            })?,
            Err(source) if source.kind() == std::io::ErrorKind::NotFound => {
                Cursor { instance: instance.to_owned(), seq: new_from }
            }
            Err(source) => return Err(AuditError::io(&path, "read")(source)),
        };
        let stream = Self { source, cursor, path, own };
        stream.keep()?;
        Ok(stream)
    }

    /// Keeps the cursor, whole or not at all.
    fn keep(&self) -> Result<()> {
        let part = self.path.with_extension("part");
        let text =
            serde_json::to_vec(&self.cursor).map_err(|problem| AuditError::Entry(problem.to_string()))?;
        let write = || {
            use std::io::Write as _;
            let mut file = std::fs::File::create(&part)?;
            file.write_all(&text)?;
            file.sync_data()?;
            std::fs::rename(&part, &self.path)
        };
        write().map_err(AuditError::io(&self.path, "written"))
    }
}
