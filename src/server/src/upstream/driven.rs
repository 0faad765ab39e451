//! An upstream as a generator that a gate drives itself: for measurements and commands, which serve nobody.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use cluegate_gate::policy::PreviewSchedule;
use cluegate_gate::{DrawJob, DrawOptions, DrawSource, Drawn, Generator, GeneratorError, StepHook};
use cluegate_perception::{DecodeOptions, Picture};
use image::RgbImage;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::{Event, Order, Unjudged, Upstream, UpstreamError};
use crate::request::{PictureRequest, Source};

/// Draws with an [`Upstream`], one picture at a time. Previews are not looked at.
pub struct DrivenUpstream {
    upstream: Arc<dyn Upstream>,
    runtime: Handle,
    decode: DecodeOptions,
    timeout: Duration,
}

impl DrivenUpstream {
    /// Draws with `upstream` on the threads of `runtime`, which must not be those that call; `timeout` is the longest wait
    /// for one picture.
    pub fn new(upstream: Arc<dyn Upstream>, runtime: Handle, timeout: Duration) -> Self {
        let decode = DecodeOptions { convert: true, ..DecodeOptions::default() };
        Self { upstream, runtime, decode, timeout }
    }

    fn draw_one(&self, job: &DrawJob) -> Result<Drawn, GeneratorError> {
        let order = Order {
            request: Arc::new(request(&job.prompt, Some(job.seed), &job.options)?),
            first: 0,
            count: 1,
            seed: job.seed,
            attempt: job.attempt,
            avoid: job.avoid.clone(),
            safety: job.options.safety,
            previews: PreviewSchedule::default(),
            show_previews: false,
            deadline: Instant::now() + self.timeout,
            cancel: CancellationToken::new(),
        };
        let picture = self.runtime.block_on(self.ordered(&order))?;
        let refuse = |error: cluegate_perception::DecodeError| GeneratorError::new(error.to_string());
        Ok(Drawn::Finished(picture.decode(&self.decode).map_err(refuse)?))
    }

    async fn ordered(&self, order: &Order) -> Result<Unjudged, GeneratorError> {
        let (send, mut events) = order.channel();
        let mut drawn = Err(GeneratorError::new("the upstream sent no picture"));
        let take = async {
            while let Some(event) = events.recv().await {
                match event {
                    Event::Picture { picture, .. } => drawn = Ok(picture),
                    Event::Failed { why, .. } => drawn = Err(GeneratorError::new(why)),
                    Event::Progress(_) | Event::Preview { .. } => {}
                }
            }
        };
        let both = async { tokio::join!(self.upstream.draw(order, send), take).0 };
        let ended = tokio::time::timeout_at(order.deadline.into(), both).await;
        match ended {
            Ok(Ok(())) => drawn,
            Ok(Err(error)) => Err(refused(&error)),
            Err(_) => {
                order.cancel.cancel();
                let seconds = self.timeout.as_secs();
                Err(GeneratorError::new(format!("the upstream drew nothing within {seconds} s")))
            }
        }
    }
}

impl Generator for DrivenUpstream {
    fn fingerprint(&self) -> &str {
        self.upstream.fingerprint()
    }

    /// Whether the upstream takes a picture with a part of it to draw anew.
    fn draws_from_pictures(&self) -> bool {
        let picture = Picture::new(RgbImage::new(64, 64));
        let source = DrawSource { mask: Some(picture.clone()), picture, strength: None };
        self.check(&DrawOptions { source: Some(source), ..DrawOptions::default() }).is_ok()
    }

    fn check(&self, options: &DrawOptions) -> Result<(), GeneratorError> {
        self.upstream.check(&request("", None, options)?).map_err(|error| refused(&error))
    }

    fn draw(&self, jobs: &[DrawJob], _: &mut dyn StepHook) -> Vec<Result<Drawn, GeneratorError>> {
        jobs.iter().map(|job| self.draw_one(job)).collect()
    }
}

fn refused(error: &UpstreamError) -> GeneratorError {
    GeneratorError::new(error.to_string())
}

fn request(prompt: &str, seed: Option<u64>, options: &DrawOptions) -> Result<PictureRequest, GeneratorError> {
    let own = options.source.as_ref().map(|source| (source.picture.width(), source.picture.height()));
    Ok(PictureRequest {
        prompt: prompt.to_owned(),
        negative_prompt: options.negative_prompt.clone(),
        count: 1,
        seed,
        size: options.width.zip(options.height).or(own),
        steps: options.steps,
        guidance: options.guidance,
        sampler: options.sampler.clone(),
        source: options.source.as_ref().map(source).transpose()?,
        ..PictureRequest::default()
    })
}

/// The picture to begin from, as files.
fn source(source: &DrawSource) -> Result<Source, GeneratorError> {
    let file = |picture: &Picture| -> Result<Bytes, GeneratorError> {
        picture.png().map_err(|error| GeneratorError::new(format!("a picture to begin from: {error}")))
    };
    Ok(Source {
        pictures: vec![file(&source.picture)?],
        mask: source.mask.as_ref().map(file).transpose()?,
        strength: source.strength,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use futures_util::future::BoxFuture;
    use image::Rgb;
    use tokio::sync::mpsc;

    use super::*;
    use crate::request::Dialect;
    use crate::upstream::UpstreamErrorKind;

    /// Draws the seed as a grey, and fails, is silent or hangs where the prompt says so.
    struct Greys;

    impl Upstream for Greys {
        fn dialect(&self) -> Dialect {
            Dialect::BuiltIn
        }

        fn fingerprint(&self) -> &str {
            "greys"
        }

        fn batch_size(&self) -> u32 {
            4
        }

        fn check(&self, request: &PictureRequest) -> Result<(), UpstreamError> {
            let message = "greys know no steps";
            let refused = Err(UpstreamError::new(UpstreamErrorKind::Inexpressible, message));
            if request.steps.is_some() { refused } else { Ok(()) }
        }

        fn draw<'a>(
            &'a self,
            order: &'a Order,
            events: mpsc::Sender<Event>,
        ) -> BoxFuture<'a, Result<(), UpstreamError>> {
            Box::pin(async move {
                assert_eq!((order.count, order.request.count), (1, 1));
                match order.request.prompt.as_str() {
                    "fail" => Err(UpstreamError::new(UpstreamErrorKind::Failed, "out of grey")),
                    "nothing" => Ok(()),
                    "hang" => std::future::pending().await,
                    _ => {
                        let grey = u8::try_from(order.seed).unwrap();
                        let mut pixels = RgbImage::from_pixel(8, 8, Rgb([grey; 3]));
                        if let Some(source) = &order.request.source {
                            assert_eq!((order.request.size, source.pictures.len()), (Some((8, 8)), 1));
                            let read = |file: &Bytes| image::load_from_memory(file).unwrap().to_rgb8();
                            let (before, mask) =
                                (read(&source.pictures[0]), read(source.mask.as_ref().unwrap()));
                            let stays = mask.enumerate_pixels().filter(|(_, _, mark)| mark.0 == [0; 3]);
                            stays.for_each(|(x, y, _)| pixels.put_pixel(x, y, *before.get_pixel(x, y)));
                        }
                        let picture = Picture::new(pixels);
                        let picture = Unjudged::pixels(picture);
                        let _ = events.send(Event::Picture { index: 0, picture }).await;
                        Ok(())
                    }
                }
            })
        }

        fn ready(&self) -> BoxFuture<'_, Result<(), UpstreamError>> {
            Box::pin(async { Ok(()) })
        }
    }

    struct Nobody;

    impl StepHook for Nobody {
        fn wants_preview(&mut self, _: usize, _: u32, _: u32) -> bool {
            false
        }

        fn step(&mut self, _: usize, _: u32, _: u32, _: Option<&Picture>) -> cluegate_gate::Step {
            panic!("no step was told")
        }
    }

    #[test]
    fn an_upstream_draws_job_by_job_and_its_failures_are_the_generators() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let wait = Duration::from_millis(50);
        let driven = DrivenUpstream::new(Arc::new(Greys), runtime.handle().clone(), wait);
        let job = |prompt: &str, seed| DrawJob {
            member: 0,
            attempt: 1,
            prompt: Arc::from(prompt),
            seed,
            avoid: Vec::new(),
            options: Arc::default(),
        };
        let jobs = [job("grey", 7), job("fail", 0), job("nothing", 0), job("hang", 0), job("grey", 9)];
        let said: Vec<String> = driven
            .draw(&jobs, &mut Nobody)
            .into_iter()
            .map(|drawn| match drawn {
                Ok(Drawn::Finished(picture)) => picture.pixels().get_pixel(3, 3).0[0].to_string(),
                Ok(Drawn::Stopped) => "stopped".to_owned(),
                Err(error) => error.to_string(),
            })
            .collect();
        let expected =
            ["7", "out of grey", "the upstream sent no picture", "the upstream drew nothing within 0 s", "9"];
        assert_eq!(said, expected);
        assert_eq!(driven.fingerprint(), "greys");
        let steps = DrawOptions { steps: Some(3), ..DrawOptions::default() };
        assert!(driven.check(&steps).unwrap_err().to_string().contains("no steps"));
        driven.check(&DrawOptions::default()).unwrap();
    }

    #[test]
    fn an_upstream_draws_a_part_of_a_picture_anew() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let wait = Duration::from_secs(60);
        let driven = DrivenUpstream::new(Arc::new(Greys), runtime.handle().clone(), wait);
        assert!(driven.draws_from_pictures());
        let picture = Picture::new(RgbImage::from_pixel(8, 8, Rgb([200, 0, 0])));
        let mask = RgbImage::from_fn(8, 8, |x, _| Rgb([if x < 4 { 255 } else { 0 }; 3]));
        let source = DrawSource { picture, mask: Some(Picture::new(mask)), strength: None };
        let options = Arc::new(DrawOptions { source: Some(source), ..DrawOptions::default() });
        let job =
            DrawJob { member: 0, attempt: 1, prompt: "grey".into(), seed: 7, avoid: Vec::new(), options };
        let Ok(Drawn::Finished(drawn)) = driven.draw(&[job], &mut Nobody).remove(0) else {
            panic!("not drawn")
        };
        let at = |x| drawn.pixels().get_pixel(x, 5).0;
        assert_eq!((at(3), at(4)), ([7; 3], [200, 0, 0]));
    }
}
