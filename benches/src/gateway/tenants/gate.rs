//! The gate under test, as a part of its own: the real server over the store and the decision log in its database, with a
//! judge that finds everything safe.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use cluegate_audit::{AuditLog, LogPlaces, LogSettings};
use cluegate_gate::Gate;
use cluegate_server::{App, Config, PolicySource, Server, Services, upstream};
use cluegate_store::{Database, DatabaseOptions, Store};
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;

use crate::gateway::gate::Instant;
use crate::gateway::process::say_ready;

/// What it is made of.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in crate::gateway) struct Options {
    /// Folder for its files.
    pub(super) folder: PathBuf,
    /// Address of the store, which also has the decisions.
    pub(super) url: String,
    /// The configuration without `listen` and `[store]`.
    pub(super) config: String,
}

/// How the gateway is called in the log, at each of its starts.
pub(super) const INSTANCE: &str = "gate";

/// Where decisions are kept.
pub(super) fn log_settings() -> LogSettings {
    LogSettings { database: true, instance: Some(INSTANCE.to_owned()), ..LogSettings::default() }
}

/// Runs the part.
pub(in crate::gateway) fn run(options: &Options) -> anyhow::Result<()> {
    let text = format!("listen = \"127.0.0.1:0\"\n{}\n[store]\nurl = {:?}\n", options.config, options.url);
    let config = Config::parse(&text, "the benchmark's configuration", &options.folder)?;
    cluegate_server::keep_memory();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let database = Database::open(&options.url, DatabaseOptions::default()).await?;
        let log = AuditLog::open(&log_settings(), Some(database.clone())).await?;
        let decisions = Some(LogPlaces::open(&log_settings(), Some((database.clone(), Handle::current())))?);
        let source = PolicySource::store(Store::new(database));
        let loaded = source.load().await?;
        let gate = Arc::new(Gate::new(loaded.policies(), Arc::new(Instant::new()?), Arc::new(log))?);
        let upstream = config.upstream.as_ref().map(|named| upstream::open(named, None)).transpose()?;
        let app = App::open(config, Arc::clone(&gate), Services { source, loaded, upstream, decisions })?;
        let server = Server::bind(app).await?;
        if let Some(admin) = server.admin_addr()? {
            std::fs::write(options.folder.join(ADMIN_ADDRESS), admin.to_string())?;
        }
        gate.warm_up();
        say_ready(server.local_addr().context("no address")?)?;
        server.run(std::future::pending()).await;
        Ok(())
    })
}

/// The file in which it says where its administration listens.
pub(super) const ADMIN_ADDRESS: &str = "admin.address";
