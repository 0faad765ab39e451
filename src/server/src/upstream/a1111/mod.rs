//! AUTOMATIC1111's web UI, Forge and whatever else serves `/sdapi/v1`, as stable-diffusion.cpp does.
//!
//! Read from AUTOMATIC1111 `modules/api/api.py` and `modules/api/models.py` at 0050a35, Forge `modules/api/api.py`,
//! `modules/progress.py` and `modules/processing.py` at dfdcbab, and stable-diffusion.cpp
//! `examples/server/routes_sdapi.cpp` at 97d2990.
//!
//! Pictures are asked for in the answer and never on the server's disk, without a grid. Such a server draws one call after
//! another, in any order of tenants, and its `/interrupt` stops whatever it draws then: see [`server`].

mod server;
mod wire;

use std::sync::Arc;
use std::time::Instant;

use futures_util::future::BoxFuture;
use serde_json::Value;
use tokio::sync::mpsc;
use uuid::Uuid;

use self::server::Server;
use self::wire::Call;
use super::http::Http;
use super::{Event, Order, Upstream, UpstreamError, UpstreamErrorKind as Kind, send_if_room};
use crate::config::{ConfigError, UpstreamConfig};
use crate::request::{Dialect, PictureRequest};

/// A server that speaks `/sdapi/v1`.
pub(super) struct A1111 {
    server: Server,
    fingerprint: String,
    batch: u32,
    model: Option<String>,
}

impl A1111 {
    /// The server that `config` names.
    ///
    /// # Errors
    /// If its key or certificates cannot be read.
    pub(super) fn new(config: &UpstreamConfig) -> Result<Arc<Self>, ConfigError> {
        let http = Http::new(config)?;
        let fingerprint = format!("a1111 {}", http.address());
        let server = Server::new(http, config.poll, config.timeout);
        Ok(Arc::new(Self { server, fingerprint, batch: config.batch, model: config.model.clone() }))
    }

    fn inexpressible(&self, what: &str) -> UpstreamError {
        UpstreamError::new(Kind::Inexpressible, format!("the upstream {}: {what}", self.fingerprint))
    }

    /// Makes sure that the server has what the order names: it would silently draw with something else.
    async fn has(&self, order: &Order) -> Result<(), UpstreamError> {
        let model = order.request.model.as_ref().or(self.model.as_ref());
        let schedule = order.request.scheduler.as_deref().map(wire::schedule);
        if let Some(model) = model {
            let known = self.list("/sdapi/v1/sd-models", order.deadline).await?;
            if !known.iter().any(|entry| wire::is_model(entry, model)) {
                return Err(
                    self.inexpressible(&format!("it has no checkpoint {model:?}; see /sdapi/v1/sd-models"))
                );
            }
        }
        if let Some(schedule) = schedule {
            let known = self.list("/sdapi/v1/schedulers", order.deadline).await?;
            if !known.iter().any(|entry| wire::is_schedule(entry, schedule)) {
                return Err(self
                    .inexpressible(&format!("it has no scheduler {schedule:?}; see /sdapi/v1/schedulers")));
            }
        }
        Ok(())
    }

    fn over(&self, order: &Order, why: &str) -> UpstreamError {
        let kind = if Instant::now() < order.deadline { Kind::Cancelled } else { Kind::Timeout };
        self.server.http.error(kind, why)
    }

    async fn list(&self, path: &str, deadline: Instant) -> Result<Vec<Value>, UpstreamError> {
        self.server.http.json(self.server.http.get(path), deadline).await
    }

    /// Draws pictures `first..first + count` of the order with one call.
    async fn call(&self, call: Call<'_>, events: &mpsc::Sender<Event>) -> Result<(), UpstreamError> {
        let Call { order, first, count } = call;
        let task = format!("task(cluegate-{})", Uuid::now_v7().simple());
        let payload = call.payload(self.model.as_deref(), &task)?;
        let path = if order.request.source.is_some() { "/sdapi/v1/img2img" } else { "/sdapi/v1/txt2img" };
        let turn = tokio::select! {
            biased;
            why = over(order, events) => return Err(self.over(order, why)),
            turn = self.server.turn() => turn,
        };
        let mut drawing = self.server.begin(path, (task.clone(), payload), turn);
        let ended = tokio::select! {
            biased;
            why = over(order, events) => Err(why),
            reply = drawing.reply() => Ok(reply?),
            never = watch(&self.server, &task, &call, events) => match never {},
        };
        let reply = match ended {
            Ok(reply) => reply,
            Err(why) => {
                drawing.stop();
                return Err(self.over(order, why));
            }
        };
        let pictures = reply.pictures(order.seed.wrapping_add(first.into()), count);
        for (index, picture) in pictures {
            let index = first + index;
            let event = match picture {
                Ok(picture) => Event::Picture { index, picture },
                Err(why) => Event::Failed { index, why },
            };
            if events.send(event).await.is_err() {
                break;
            }
        }
        Ok(())
    }
}

/// Waits until nobody waits for an order any more, and says why.
async fn over(order: &Order, events: &mpsc::Sender<Event>) -> &'static str {
    tokio::select! {
        () = order.cancel.cancelled() => "the order was cancelled",
        () = events.closed() => "nobody waits for its pictures",
        () = tokio::time::sleep_until(order.deadline.into()) => "the request's deadline passed",
    }
}

/// Tells how far a call is, with previews where they are of use, for as long as it is asked to.
async fn watch(
    server: &Server,
    task: &str,
    call: &Call<'_>,
    events: &mpsc::Sender<Event>,
) -> std::convert::Infallible {
    let mut seen = server::Seen::new(call.order);
    loop {
        tokio::time::sleep(server.poll).await;
        // The gate learns of a failing server from the call itself.
        let Ok(told) = server.look(task, &mut seen).await else { continue };
        if let Some(progress) = told.progress {
            send_if_room(events, Event::Progress(progress));
        }
        if let Some((step, picture)) = told.preview {
            let preview = Event::Preview { index: call.first, step, total: seen.total(), picture };
            call.order.send_preview(events, preview).await;
        }
    }
}

impl Upstream for A1111 {
    fn dialect(&self) -> Dialect {
        Dialect::A1111
    }

    fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    fn batch_size(&self) -> u32 {
        self.batch
    }

    fn check(&self, request: &PictureRequest) -> Result<(), UpstreamError> {
        let native = request.native_for(Dialect::A1111).map_err(|names| {
            self.inexpressible(&format!("it has no words for these parameters of another dialect: {names}"))
        })?;
        wire::check(request, native).map_err(|what| self.inexpressible(&what))
    }

    fn draw<'a>(
        &'a self,
        order: &'a Order,
        events: mpsc::Sender<Event>,
    ) -> BoxFuture<'a, Result<(), UpstreamError>> {
        Box::pin(async move {
            self.has(order).await?;
            // A preview of several pictures is a grid of them, or shows the first alone.
            let each = if order.wants_previews() { 1 } else { order.count.max(1) };
            let mut first = 0;
            while first < order.count {
                let count = each.min(order.count - first);
                self.call(Call { order, first, count }, &events).await?;
                first += count;
            }
            Ok(())
        })
    }

    /// A list of `/sdapi/v1`, by the last part of its path.
    fn describe(&self, what: &'static str) -> BoxFuture<'_, Result<Option<Value>, UpstreamError>> {
        Box::pin(async move {
            let asked = self.server.http.get(&format!("/sdapi/v1/{what}"));
            match self.server.http.json(asked, Instant::now() + server::NEWS).await {
                Ok(list) => Ok(Some(list)),
                Err(error) if error.kind() == Kind::Refused => Ok(None),
                Err(error) => Err(error),
            }
        })
    }

    fn ready(&self) -> BoxFuture<'_, Result<(), UpstreamError>> {
        Box::pin(async {
            let deadline = Instant::now() + server::READY;
            self.list("/sdapi/v1/samplers", deadline).await.map(drop)
        })
    }
}
