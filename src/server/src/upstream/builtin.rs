//! A generator in this process as an upstream.

use std::sync::Arc;
use std::time::Instant;

use cluegate_gate::{DrawJob, DrawOptions, DrawSource, Drawn, Generator, Step, StepHook};
use cluegate_perception::{DecodeOptions, Picture, decode};
use futures_util::future::BoxFuture;
use tokio::sync::{Semaphore, mpsc};

use super::{
    Event, Order, Progress, Unjudged, Upstream, UpstreamError, UpstreamErrorKind as Kind, send_if_room,
};
use crate::config::UpstreamConfig;
use crate::request::{Dialect, PictureRequest, Source};

/// Its name among models, where a request has to name one.
const MODEL: &str = "builtin";

/// Draws with a [`Generator`] on a blocking thread, one order at a time: the generator takes all cores for itself, so that
/// two at once would both be late.
pub(super) struct BuiltIn {
    generator: Arc<dyn Generator>,
    batch: u32,
    model: Option<String>,
    turn: Arc<Semaphore>,
}

impl BuiltIn {
    pub(super) fn new(config: &UpstreamConfig, generator: Arc<dyn Generator>) -> Self {
        Self {
            generator,
            batch: config.batch,
            model: config.model.clone(),
            turn: Arc::new(Semaphore::new(1)),
        }
    }

    /// Waits until no other order is drawn.
    async fn turn(
        &self,
        order: &Order,
        events: &mpsc::Sender<Event>,
    ) -> Result<tokio::sync::OwnedSemaphorePermit, UpstreamError> {
        tokio::select! {
            biased;
            () = order.cancel.cancelled() => Err(called_off()),
            () = events.closed() => Err(called_off()),
            () = tokio::time::sleep_until(order.deadline.into()) => {
                let message = "the request's deadline passed while the generator drew for others";
                Err(UpstreamError::new(Kind::Timeout, message))
            }
            turn = Arc::clone(&self.turn).acquire_owned() => turn.map_err(|_| called_off()),
        }
    }
}

impl Upstream for BuiltIn {
    fn dialect(&self) -> Dialect {
        Dialect::BuiltIn
    }

    fn fingerprint(&self) -> &str {
        self.generator.fingerprint()
    }

    fn batch_size(&self) -> u32 {
        self.batch
    }

    fn check(&self, request: &PictureRequest) -> Result<(), UpstreamError> {
        let refuse = |what: &str| {
            let message = format!("the built-in generator cannot express {what}; leave it out");
            Err(UpstreamError::new(Kind::Inexpressible, message))
        };
        if request.source.is_some() && !self.generator.draws_from_pictures() {
            return refuse("a picture to start from");
        }
        if let Some(source) = request.source.as_ref().filter(|source| source.pictures.len() != 1) {
            return refuse(&format!("{} pictures to start from, only one", source.pictures.len()));
        }
        if let Some(name) = &request.scheduler {
            return refuse(&format!("the noise schedule {name:?}"));
        }
        if let Some(name) = &request.model
            && name != MODEL
            && Some(name) != self.model.as_ref()
        {
            return refuse(&format!("the model {name:?}"));
        }
        if let Some(native) = request.native.as_ref().filter(|native| !native.parameters.is_empty()) {
            let names: Vec<&str> = native.parameters.keys().map(String::as_str).collect();
            return refuse(&names.join(", "));
        }
        // The pictures are decoded where they are drawn from; whether any can be does not hang on their pixels.
        let stand_in = || Picture::new(image::RgbImage::new(1, 1));
        let source = request.source.as_ref().map(|source| DrawSource {
            picture: stand_in(),
            mask: source.mask.as_ref().map(|_| stand_in()),
            strength: source.strength,
        });
        self.generator.check(&DrawOptions { source, ..options(request) }).map_err(|error| {
            UpstreamError::new(Kind::Inexpressible, format!("the built-in generator: {error}"))
        })
    }

    fn draw<'a>(
        &'a self,
        order: &'a Order,
        events: mpsc::Sender<Event>,
    ) -> BoxFuture<'a, Result<(), UpstreamError>> {
        Box::pin(async move {
            let turn = self.turn(order, &events).await?;
            let (generator, order) = (Arc::clone(&self.generator), order.clone());
            let drawing = tokio::task::spawn_blocking(move || {
                // Held by the thread and not by whoever waits for it: the next order begins when this one has ended.
                let _turn = turn;
                draw(generator.as_ref(), &order, &events)
            });
            drawing.await.unwrap_or_else(|panic| {
                tracing::error!(%panic, "the generator's thread ended");
                Err(UpstreamError::new(Kind::Failed, "the built-in generator panicked"))
            })
        })
    }

    fn ready(&self) -> BoxFuture<'_, Result<(), UpstreamError>> {
        Box::pin(async { Ok(()) })
    }
}

fn called_off() -> UpstreamError {
    UpstreamError::new(Kind::Cancelled, "the order was called off")
}

fn options(request: &PictureRequest) -> DrawOptions {
    DrawOptions {
        steps: request.steps,
        width: request.size.map(|(width, _)| width),
        height: request.size.map(|(_, height)| height),
        guidance: request.guidance,
        negative_prompt: request.negative_prompt.clone(),
        sampler: request.sampler.clone(),
        ..DrawOptions::default()
    }
}

/// The pictures of a request, decoded.
fn decoded(source: &Source) -> Result<DrawSource, UpstreamError> {
    // What the client may send, the front has checked.
    let limits = DecodeOptions { convert: true, ..DecodeOptions::default() };
    let read = |what: &str, bytes: &[u8]| {
        decode(bytes, &limits).map_err(|error| {
            UpstreamError::new(Kind::Inexpressible, format!("the {what} to start from: {error}"))
        })
    };
    let picture = source.pictures.first().map_or(&[][..], |bytes| bytes.as_ref());
    Ok(DrawSource {
        picture: read("picture", picture)?,
        mask: source.mask.as_ref().map(|mask| read("mask", mask)).transpose()?,
        strength: source.strength,
    })
}

/// Draws an order, as many pictures at a time as the generator can, and sends each group as soon as it is there.
fn draw(generator: &dyn Generator, order: &Order, events: &mpsc::Sender<Event>) -> Result<(), UpstreamError> {
    let source = order.request.source.as_ref().map(decoded).transpose()?;
    let options = DrawOptions { source, safety: order.safety, ..options(&order.request) };
    let (prompt, options) = (Arc::from(order.request.prompt.as_str()), Arc::new(options));
    let jobs: Vec<DrawJob> = (0..order.count)
        .map(|index| DrawJob {
            member: index as usize,
            attempt: order.attempt,
            prompt: Arc::clone(&prompt),
            seed: order.seed.wrapping_add(index.into()),
            avoid: order.avoid.clone(),
            options: Arc::clone(&options),
        })
        .collect();
    for group in jobs.chunks(generator.batch_size().max(1)) {
        let mut hook = Hook { order, events, group };
        let mut drawn = generator.draw(group, &mut hook).into_iter();
        let over = hook.over();
        for index in group.iter().map(|job| job.member as u32) {
            let event = match drawn.next() {
                Some(Ok(Drawn::Finished(picture))) => {
                    Event::Picture { index, picture: Unjudged::pixels(picture) }
                }
                Some(Ok(Drawn::Stopped)) if over => return Err(called_off()),
                Some(Ok(Drawn::Stopped)) => failed(index, "it stopped without being asked to"),
                Some(Err(error)) => failed(index, &error.to_string()),
                None => failed(index, "it gave no answer"),
            };
            if events.blocking_send(event).is_err() {
                return Err(called_off());
            }
        }
        if drawn.next().is_some() {
            tracing::warn!("the built-in generator drew more pictures than were ordered; they are discarded");
        }
        if over {
            return Err(called_off());
        }
    }
    Ok(())
}

fn failed(index: u32, why: &str) -> Event {
    Event::Failed { index, why: why.to_owned() }
}

/// What the generator calls after each step.
struct Hook<'a> {
    order: &'a Order,
    events: &'a mpsc::Sender<Event>,
    /// The jobs of the call.
    group: &'a [DrawJob],
}

impl Hook<'_> {
    /// Whether nobody waits any more.
    fn over(&self) -> bool {
        self.order.cancel.is_cancelled() || self.events.is_closed() || self.order.deadline <= Instant::now()
    }

    /// Index of a job's picture in the order.
    fn index(&self, job: usize) -> u32 {
        self.group.get(job).map_or(u32::MAX, |job| job.member as u32)
    }
}

impl StepHook for Hook<'_> {
    fn wants_preview(&mut self, _: usize, step: u32, total: u32) -> bool {
        // Those that only the client's eyes want are drawn when nothing waits to be judged, so that they cost no more time
        // than the judge has.
        let idle = self.events.capacity() == self.events.max_capacity();
        !self.over()
            && (self.order.previews.is_due(step, total) || (self.order.show_previews && idle && step < total))
    }

    fn may_end(&mut self, _: usize, step: u32, total: u32) -> bool {
        self.order.previews.is_due(step, total)
    }

    fn step(&mut self, job: usize, step: u32, total: u32, preview: Option<&Picture>) -> Step {
        if self.over() {
            return Step::Stop;
        }
        let index = self.index(job);
        let pictures = f64::from(index) + f64::from(step) / f64::from(total.max(1));
        let fraction = (pictures / f64::from(self.order.count.max(1))).min(1.0);
        // Progress that nobody had time to read is out of date.
        send_if_room(
            self.events,
            Event::Progress(Progress { fraction, step: Some(step), steps: Some(total) }),
        );
        let Some(preview) = preview else { return Step::Continue };
        let event = Event::Preview { index, step, total, picture: Unjudged::pixels(preview.clone()) };
        if self.order.previews.is_due(step, total) {
            // The gate judges this one, and keeps room for it.
            let _ = self.events.blocking_send(event);
        } else {
            send_if_room(self.events, event);
        }
        Step::Continue
    }
}
