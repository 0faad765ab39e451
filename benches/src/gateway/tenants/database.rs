//! The databases that are measured, and what is written into them before.

use std::path::Path;

use anyhow::Context as _;
use cluegate_gate::fakes::CONSTITUTION;
use cluegate_store::testing::{Durability, PostgresServer};
use cluegate_store::{Author, Database, DatabaseOptions, Expect, KeyHash, NewKey, Store};
use tokio::runtime::Runtime;

/// Who writes into the store.
pub(super) const AUTHOR: Author<'_> = Author { by: "benchmark", at_ms: 0 };

/// Goes through the files of PostgreSQL's write-ahead log that `min_wal_size` keeps, which are then used again. Whoever commits
/// first in a file that is not there waits until its 16 MiB are.
const USED_LOG: &str = "\
    DO $$ BEGIN FOR file IN 1..60 LOOP
        PERFORM pg_logical_emit_message(false, 'benchmark', 'x');
        PERFORM pg_switch_wal();
    END LOOP; END $$";

/// A file or a server, with the runtime for its connections.
pub(super) struct Place {
    pub(super) name: &'static str,
    pub(super) url: String,
    pub(super) runtime: Runtime,
    /// Stops when this is dropped.
    _server: Option<PostgresServer>,
}

impl Place {
    /// A new file in `folder`.
    pub(super) fn sqlite(folder: &Path, name: &str) -> anyhow::Result<Self> {
        let url = format!("sqlite:{}", folder.join(name).display());
        Ok(Self { name: "SQLite", url, runtime: Runtime::new()?, _server: None })
    }

    /// A new server, which waits for the disk as one in use does and, as one that has run for a while, has the files of its
    /// write-ahead log already.
    pub(super) fn postgres() -> anyhow::Result<Self> {
        let settings = ["min_wal_size=1GB"];
        let server = PostgresServer::start_with(Durability::On, &std::env::temp_dir(), &settings)?;
        let runtime = Runtime::new()?;
        runtime.block_on(async {
            server.execute(USED_LOG).await?;
            server.execute("CHECKPOINT").await
        })?;
        let url = runtime.block_on(server.database())?;
        Ok(Self { name: "PostgreSQL", url, runtime, _server: Some(server) })
    }

    /// Opens it.
    pub(super) fn open(&self) -> anyhow::Result<Database> {
        let opened = self.runtime.block_on(Database::open(&self.url, DatabaseOptions::default()));
        opened.with_context(|| format!("opening {}", self.name))
    }
}

/// A tenant's name.
pub(super) fn tenant(number: usize) -> String {
    format!("tenant-{number:05}")
}

/// A tenant's key.
pub(super) fn key(tenant: &str) -> String {
    format!("cg_benchmark_{tenant}")
}

/// A constitution's name.
pub(super) fn rules(number: usize) -> String {
    format!("rules-{number:05}")
}

/// Writes tenants with a key each into the store, and the constitutions that they share.
pub(super) fn fill(place: &Place, tenants: usize, constitutions: usize) -> anyhow::Result<()> {
    let store = Store::new(place.open()?);
    place.runtime.block_on(async {
        let mut edit = store.edit(AUTHOR).await?;
        for number in 0..constitutions {
            let name = rules(number);
            // What they say differs, not only their names.
            let text = CONSTITUTION
                .replace("name = \"world\"", &format!("name = \"{name}\""))
                .replace("No beer.", &format!("No beer of brand {number}."));
            edit.add_revision(&name, "1", &text).await?;
            edit.set_current(&name, "1", Expect::Absent).await?;
        }
        for number in 0..tenants {
            let name = tenant(number);
            edit.put_tenant(&name, &policy(number % constitutions.max(1), 3), Expect::Absent).await?;
            let sha256 = KeyHash::of(&key(&name));
            let key = NewKey {
                id: "main".into(),
                sha256,
                note: String::new(),
                not_before_ms: None,
                expires_ms: None,
            };
            edit.add_key(&name, &key).await?;
        }
        edit.commit().await?;
        store.database().close().await;
        Ok(())
    })
}

/// A tenant's policy.
pub(super) fn policy(constitution: usize, tries: usize) -> String {
    format!("constitution = \"{}\"\ntries = {tries}\n", rules(constitution))
}
