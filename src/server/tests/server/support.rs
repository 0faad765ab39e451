//! A gateway on a free port over the gate's scripted world, and upstreams that do as they are told.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use cluegate_gate::fakes::{CONSTITUTION, World};
use cluegate_gate::{
    DecisionLog, Extensions, FindingRecord, Gate, InspectionError, JudgeProvider, LabelRecord, MemoryLog,
    OnUnsafe, Policies, Screening, Signer,
};
use cluegate_perception::{Call, Picture, Region};
use cluegate_server::{
    App, Config, Dialect, Event, NewKey, Order, PictureRequest, Server, Unjudged, Upstream, UpstreamError,
};
use futures_util::future::BoxFuture;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// A gateway that runs until it is dropped. Its tenants are `t`, with the policy that the test names, and `other`, with
/// the defaults; each has a key.
pub(crate) struct Gateway {
    pub(crate) url: String,
    pub(crate) log: Arc<MemoryLog>,
    pub(crate) key: NewKey,
    pub(crate) other: NewKey,
    pub(crate) folder: TempDir,
    pub(crate) address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    served: JoinHandle<()>,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
    }
}

/// Writes prompts anew.
pub(crate) struct Rewriter(pub(crate) fn(&str, u32) -> String);

impl Extensions for Rewriter {
    fn rewrite(
        &self,
        prompt: &str,
        _: &[String],
        attempt: u32,
        _: &Call,
    ) -> Result<Option<String>, InspectionError> {
        Ok(Some((self.0)(prompt, attempt)))
    }
}

/// Says the same of every picture.
pub(crate) struct Screener(pub(crate) Screening);

impl Extensions for Screener {
    fn screen(&self, _: &Picture, _: &Call) -> Result<Screening, InspectionError> {
        Ok(self.0.clone())
    }
}

impl Screener {
    /// A plugin that finds a face of half the picture and thinks this of it.
    pub(crate) fn face(on_unsafe: OnUnsafe) -> Option<Arc<dyn Extensions>> {
        let region = Region { left: 0.0, top: 0.0, right: 32.0, bottom: 64.0 };
        let label = LabelRecord {
            name: "face".to_owned(),
            score: 0.75,
            region: Some([0.0, 0.0, 32.0, 64.0]),
            hide: true,
        };
        let finding = FindingRecord {
            plugin: "faces".to_owned(),
            fingerprint: "f".to_owned(),
            flagged: true,
            on_unsafe,
            score: 0.25,
            labels: vec![label],
            labels_omitted: 0,
            answers: Vec::new(),
            ms: 1.0,
        };
        let mut screening =
            Screening { regions: vec![region], findings: vec![finding], ..Screening::default() };
        let reason = vec!["the plugin faces calls the picture unsafe".to_owned()];
        match on_unsafe {
            OnUnsafe::Withhold => screening.withhold = reason,
            OnUnsafe::Redact => screening.redact = reason,
            OnUnsafe::Note => {}
        }
        Some(Arc::new(Self(screening)))
    }
}

/// What a test changes.
#[derive(Default)]
pub(crate) struct Setup {
    /// Keys of the tenant `t`, then its tables.
    pub(crate) head: &'static str,
    pub(crate) tables: &'static str,
    /// Top-level keys of the configuration, then its tables.
    pub(crate) config_head: String,
    pub(crate) config_tables: String,
    pub(crate) world: Option<World>,
    /// A judge in place of the world's.
    pub(crate) judge: Option<Arc<dyn JudgeProvider>>,
    /// Files that the configuration names, with their text.
    pub(crate) files: Vec<(&'static str, String)>,
    pub(crate) upstream: Option<Arc<dyn Upstream>>,
    /// What stands beside the judge.
    pub(crate) extensions: Option<Arc<dyn Extensions>>,
    /// Who signs files.
    pub(crate) signer: Option<Arc<dyn Signer>>,
}

impl Gateway {
    /// Starts a gateway.
    pub(crate) async fn start(setup: Setup) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (key, other) = (NewKey::generate(), NewKey::generate());
        let write = |name: &str, text: String| std::fs::write(folder.path().join(name), text).unwrap();
        write("world.toml", CONSTITUTION.to_owned());
        write("keys.toml", key.entry("key-t", "t") + &other.entry("key-other", "other"));
        write(
            "policy.toml",
            format!(
                "[tenant.t]\nconstitution = \"world.toml\"\n{}\n{}\n[tenant.other]\nconstitution = \"world.toml\"\n",
                setup.head, setup.tables
            ),
        );
        for (name, text) in setup.files {
            write(name, text);
        }
        let text = format!(
            "listen = \"127.0.0.1:0\"\npolicy = \"policy.toml\"\n{}\n[keys]\nfile = \"keys.toml\"\n{}\n",
            setup.config_head, setup.config_tables
        );
        let config = Config::parse(&text, "gate.toml", folder.path()).unwrap();
        let log = Arc::new(MemoryLog::new(10_000));
        let shared: Arc<dyn DecisionLog> = Arc::<MemoryLog>::clone(&log);
        let world = setup.world.unwrap_or_else(|| World::new([]));
        let policies = Policies::load(folder.path().join("policy.toml")).unwrap();
        let judge = setup.judge.unwrap_or_else(|| Arc::new(world));
        let gate = Gate::with_signer(&policies, judge, shared, setup.signer).unwrap();
        let gate = match setup.extensions {
            Some(extensions) => gate.with_extensions(extensions).unwrap(),
            None => gate,
        };
        let scheme = if config.tls.is_some() { "https" } else { "http" };
        log_lines();
        let app = App::new(config, Arc::new(gate), setup.upstream).unwrap();
        let server = Server::bind(app).await.unwrap();
        let address = server.local_addr().unwrap();
        let url = format!("{scheme}://{address}");
        let (stop, stopped) = oneshot::channel();
        let served = tokio::spawn(server.run(async move {
            let _ = stopped.await;
        }));
        Self { url, log, key, other, folder, address, stop: Some(stop), served }
    }

    /// Tells it to stop.
    pub(crate) fn stop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
    }

    /// Waits until it has stopped.
    pub(crate) async fn stopped(&mut self) {
        self.stop();
        within(&mut self.served).await.unwrap();
    }

    /// Sends these bytes over a connection of their own and returns all that comes back until it is closed.
    pub(crate) async fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        // It may be closed before all was sent.
        let _ = stream.write_all(bytes).await;
        let mut answer = Vec::new();
        let _ = within(stream.read_to_end(&mut answer)).await;
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// A client of tenant `t`: plain HTTP, no redirects.
    pub(crate) fn client(&self) -> reqwest::Client {
        client_with(self.key.reveal())
    }

    /// A client of tenant `other`.
    pub(crate) fn other_client(&self) -> reqwest::Client {
        client_with(self.other.reveal())
    }
}

fn client_with(key: &str) -> reqwest::Client {
    let mut headers = reqwest::header::HeaderMap::new();
    headers.insert("authorization", format!("Bearer {key}").parse().unwrap());
    client_builder().default_headers(headers).redirect(reqwest::redirect::Policy::none()).build().unwrap()
}

/// A client that shows no key.
pub(crate) fn nobody() -> reqwest::Client {
    client_builder().build().unwrap()
}

/// Every client of these tests begins here: reqwest is built without a TLS of its own, so the process needs one
/// before the first client, whichever test comes first.
pub(crate) fn client_builder() -> reqwest::ClientBuilder {
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy()
}

/// The PNG file of a picture, with a text chunk that tells the prompt, as upstreams write it.
pub(crate) fn png(picture: &Picture) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, picture.width(), picture.height());
    encoder.set_color(png::ColorType::Rgb);
    encoder.add_text_chunk("parameters".to_owned(), "secret prompt of the upstream".to_owned()).unwrap();
    encoder.write_header().unwrap().write_image_data(picture.pixels().as_raw()).unwrap();
    bytes
}

type Script = Box<dyn Fn(&Order, u32) -> Drawn + Send + Sync>;

/// An upstream in this process that draws by script.
pub(crate) struct Scripted {
    /// What each picture of each order shows; the last is repeated.
    draw: Script,
    pub(crate) orders: Mutex<Vec<Order>>,
    /// When to begin to draw.
    go_on: CancellationToken,
}

/// What comes of one picture.
pub(crate) enum Drawn {
    Picture(Picture),
    Bytes(Vec<u8>),
    /// A file, after previews.
    Previewed(Vec<Picture>, Vec<u8>),
    Failed(&'static str),
    Nothing,
    /// Waits until the order is cancelled.
    Hangs,
}

impl Scripted {
    /// Draws what `draw` says for each picture of an order.
    pub(crate) fn new(draw: impl Fn(&Order, u32) -> Drawn + Send + Sync + 'static) -> Arc<Self> {
        let go_on = CancellationToken::new();
        go_on.cancel();
        Self::gated(go_on, draw)
    }

    /// The same, once it may go on.
    pub(crate) fn gated(
        go_on: CancellationToken,
        draw: impl Fn(&Order, u32) -> Drawn + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self { draw: Box::new(draw), orders: Mutex::default(), go_on })
    }
}

impl Upstream for Scripted {
    fn dialect(&self) -> Dialect {
        Dialect::BuiltIn
    }

    fn fingerprint(&self) -> &str {
        "scripted"
    }

    fn batch_size(&self) -> u32 {
        4
    }

    fn check(&self, _: &PictureRequest) -> Result<(), UpstreamError> {
        Ok(())
    }

    fn draw<'a>(
        &'a self,
        order: &'a Order,
        events: mpsc::Sender<Event>,
    ) -> BoxFuture<'a, Result<(), UpstreamError>> {
        Box::pin(async move {
            self.orders.lock().unwrap().push(order.clone());
            self.go_on.cancelled().await;
            for index in 0..order.count {
                let picture = match (self.draw)(order, index) {
                    Drawn::Picture(picture) => Unjudged::pixels(picture),
                    Drawn::Bytes(bytes) => Unjudged::encoded(bytes),
                    Drawn::Previewed(previews, bytes) => {
                        let total = previews.len() as u32 + 1;
                        for (step, preview) in (1..).zip(previews) {
                            let picture = Unjudged::pixels(preview);
                            let _ = events.send(Event::Preview { index, step, total, picture }).await;
                        }
                        Unjudged::encoded(bytes)
                    }
                    Drawn::Failed(why) => {
                        let _ = events.send(Event::Failed { index, why: why.to_owned() }).await;
                        continue;
                    }
                    Drawn::Nothing => continue,
                    Drawn::Hangs => {
                        order.cancel.cancelled().await;
                        return Err(UpstreamError::new(
                            cluegate_server::UpstreamErrorKind::Cancelled,
                            "it was cancelled",
                        ));
                    }
                };
                let _ = events.send(Event::Picture { index, picture }).await;
            }
            Ok(())
        })
    }

    fn ready(&self) -> BoxFuture<'_, Result<(), UpstreamError>> {
        Box::pin(async { Ok(()) })
    }
}

/// Waits for an event, not for ever.
pub(crate) async fn within<T>(event: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), event).await.unwrap()
}

/// Looks again and again until `look` finds something, not for ever.
pub(crate) async fn found<T>(mut look: impl FnMut() -> Option<T>) -> T {
    within(async {
        loop {
            if let Some(found) = look() {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await
}

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// All that the gateway logged so far, of all tests in this process, at every level: a line that belongs to a request
/// holds its id.
pub(crate) fn log_lines() -> Vec<String> {
    static LINES: OnceLock<Lines> = OnceLock::new();
    let lines = LINES.get_or_init(|| {
        let lines = Lines::default();
        let copy = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter("cluegate=trace,cluegate_server=trace,cluegate_gate=trace");
        subscriber.with_ansi(false).with_writer(move || copy.clone()).init();
        lines
    });
    String::from_utf8_lossy(&lines.0.lock().unwrap()).lines().map(str::to_owned).collect()
}

/// The log's lines with this word, once there is one.
pub(crate) async fn logged(word: &str) -> String {
    found(|| {
        let lines: Vec<String> = log_lines().into_iter().filter(|line| line.contains(word)).collect();
        (!lines.is_empty()).then(|| lines.join("\n"))
    })
    .await
}
