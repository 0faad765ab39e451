//! Gateways over a store, with an administration.

use std::net::SocketAddr;
use std::sync::Arc;

use cluegate_audit::{AuditLog, LogPlaces, LogSettings};
use cluegate_gate::fakes::{CONSTITUTION, World};
use cluegate_gate::{DecisionLog, Gate, MemoryLog};
use cluegate_server::keys::{NewKey, Role};
use cluegate_server::{App, Config, PolicySource, Server, Services, Upstream};
use cluegate_store::{Author, Database, DatabaseOptions, Edit, Expect, KeyHash, Store};
use reqwest::{Method, StatusCode};
use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::support::{log_lines, nobody};

/// A store with the tenants `t` and `other`, which build on the template `base`.
pub(crate) struct Stored {
    pub(crate) folder: TempDir,
    url: String,
    pub(crate) store: Store,
    pub(crate) key: NewKey,
    pub(crate) other: NewKey,
    /// Of the administration: may change everything, look at everything, change `t`.
    pub(crate) writer: NewKey,
    pub(crate) reader: NewKey,
    pub(crate) limited: NewKey,
}

/// A gateway over a store; told to stop when it is dropped.
pub(crate) struct Administered {
    pub(crate) url: String,
    pub(crate) admin: String,
    _stop: oneshot::Sender<()>,
}

/// Begins an edit that nobody checks.
pub(crate) async fn edit(store: &Store) -> Edit {
    store.edit(Author { by: "test", at_ms: 1 }).await.unwrap()
}

impl Stored {
    /// `t` has these keys in its table.
    pub(crate) async fn new(t: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", folder.path().join("gate.db").display());
        Self::over(folder, url, t).await
    }

    /// The same in the database at `url`, which may be a server's.
    pub(crate) async fn over(folder: TempDir, url: String, t: &str) -> Self {
        let store = Store::new(Database::open(&url, DatabaseOptions::default()).await.unwrap());
        let [key, other, writer, reader, limited] = std::array::from_fn(|_| NewKey::generate());
        let revision = cluegate_constitution::Constitution::parse(CONSTITUTION, "world").unwrap();
        let revision = revision.revision().to_hex();
        let mut edit = edit(&store).await;
        edit.add_revision("world", &revision, CONSTITUTION).await.unwrap();
        edit.set_current("world", &revision, Expect::Absent).await.unwrap();
        edit.put_template("base", "constitution = \"world\"\n", Expect::Absent).await.unwrap();
        edit.put_tenant("t", &format!("extends = \"base\"\n{t}"), Expect::Absent).await.unwrap();
        edit.put_tenant("other", "extends = \"base\"\n", Expect::Absent).await.unwrap();
        for (tenant, key) in [("t", &key), ("other", &other)] {
            let (id, sha256) = ("first".to_owned(), KeyHash(key.hash()));
            let key = cluegate_store::NewKey {
                id,
                sha256,
                note: String::new(),
                not_before_ms: None,
                expires_ms: None,
            };
            edit.add_key(tenant, &key).await.unwrap();
        }
        edit.commit().await.unwrap();
        let admins = [
            writer.of_admin("writer", Role::Write, None),
            reader.of_admin("reader", Role::Read, None),
            limited.of_admin("limited", Role::Write, Some("t")),
        ];
        let text = admins.map(|key| key.entry()).join("\n");
        std::fs::write(folder.path().join("admin.keys"), text).unwrap();
        Self { folder, url, store, key, other, writer, reader, limited }
    }

    /// Starts a gateway over it; `tables` are further tables of the configuration.
    pub(crate) async fn start(&self, upstream: Option<Arc<dyn Upstream>>, tables: &str) -> Administered {
        self.start_with(upstream, "", tables).await
    }

    /// The same, and it serves on while the store is gone.
    pub(crate) async fn start_serving_on(&self, tables: &str) -> Administered {
        self.start_with(None, "when_gone = \"serve\"\n", tables).await
    }

    async fn start_with(
        &self,
        upstream: Option<Arc<dyn Upstream>>,
        gone: &str,
        tables: &str,
    ) -> Administered {
        let log: Arc<dyn DecisionLog> = Arc::new(MemoryLog::new(10_000));
        self.serve((log, None), upstream, gone, tables).await
    }

    /// The same, and decisions are logged in the store's database. Needs a runtime of several threads.
    pub(crate) async fn start_logged(&self, instance: &str) -> Administered {
        let settings =
            LogSettings { database: true, instance: Some(instance.to_owned()), ..LogSettings::default() };
        let database = self.store.database().clone();
        let log = AuditLog::open(&settings, Some(database.clone())).await.unwrap();
        let places = LogPlaces::open(&settings, Some((database, Handle::current()))).unwrap();
        self.serve((Arc::new(log), Some(places)), None, "", "").await
    }

    async fn serve(
        &self,
        (log, decisions): (Arc<dyn DecisionLog>, Option<LogPlaces>),
        upstream: Option<Arc<dyn Upstream>>,
        gone: &str,
        tables: &str,
    ) -> Administered {
        let url = &self.url;
        let text = format!(
            "listen = \"127.0.0.1:0\"\n[store]\nurl = \"{url}\"\n{gone}[admin]\nlisten = \"127.0.0.1:0\"\n\
             key_file = \"admin.keys\"\n{tables}\n"
        );
        log_lines();
        let config = Config::parse(&text, "gate.toml", self.folder.path()).unwrap();
        let source = PolicySource::store(self.store.clone());
        let loaded = source.load().await.unwrap();
        let gate = Gate::new(loaded.policies(), Arc::new(World::new([])), log).unwrap();
        let app =
            App::open(config, Arc::new(gate), Services { source, loaded, upstream, decisions }).unwrap();
        let server = Server::bind(app).await.unwrap();
        let address = |address: SocketAddr| format!("http://{address}");
        let (url, admin) =
            (address(server.local_addr().unwrap()), address(server.admin_addr().unwrap().unwrap()));
        let (stop, stopped) = oneshot::channel();
        tokio::spawn(server.run(async move {
            let _ = stopped.await;
        }));
        Administered { url, admin, _stop: stop }
    }
}

impl Administered {
    /// Asks the administration.
    pub(crate) async fn ask(
        &self,
        key: &NewKey,
        method: Method,
        path: &str,
        body: impl Into<reqwest::Body>,
        headers: &[(&str, &str)],
    ) -> (StatusCode, String) {
        let asked = nobody();
        let mut asked = asked
            .request(method, format!("{}{path}", self.admin))
            .header("x-api-key", key.reveal())
            .body(body);
        for (name, value) in headers {
            asked = asked.header(*name, *value);
        }
        let answer = asked.send().await.unwrap();
        (answer.status(), answer.text().await.unwrap())
    }

    /// The answer to a question that must be answered.
    pub(crate) async fn get(&self, key: &NewKey, path: &str) -> Value {
        let (status, body) = self.ask(key, Method::GET, path, "", &[]).await;
        assert_eq!(status, StatusCode::OK, "{path}: {body}");
        serde_json::from_str(&body).unwrap()
    }

    /// Has a picture judged in the name of whoever has this key.
    pub(crate) async fn judge(&self, key: &str) -> (StatusCode, Value) {
        let asked = nobody();
        let body = serde_json::json!({ "image": crate::judge_api::brought(&[3]) });
        let asked = asked.post(format!("{}/v1/judge", self.url)).header("x-api-key", key).json(&body);
        let answer = asked.send().await.unwrap();
        (answer.status(), answer.json().await.unwrap())
    }
}
