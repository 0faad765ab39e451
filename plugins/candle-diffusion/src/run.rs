//! One generation, from texts and noise to the picture (diffusers 0.42.1, the pipelines' `__call__`, for text, pictures and
//! masks).

use std::time::Instant;

use candle_core::Tensor;
use cluegate_models::on_all_cores;
use image::RgbImage;

use crate::error::{GeneratorFailure, GeneratorFailureKind, Result};
use crate::family::{Conditioning, Guidance, Text};
use crate::hook::{Control, Start, Step, StepHook};
use crate::noise::NoiseSource;
use crate::pipeline::Pipeline;
use crate::request::{GenerateRequest, Notice, Outcome, Timings};
use crate::safety::{Predictions, Pushes};
use crate::scheduler::{Plan, StepResult};
use crate::source::Source;

/// Channel value up to which a pixel counts as black: what is left of a safety checker's black picture after rounding.
const BLACK: u8 = 2;

/// One generation under way.
pub(crate) struct Run<'a> {
    pipeline: &'a Pipeline,
    request: &'a GenerateRequest,
    plan: Plan,
    timings: Timings,
    notices: Vec<Notice>,
    pushes: Pushes,
}

/// What keeps the rest of a picture as it is while a part is drawn anew.
#[derive(Clone)]
pub(crate) struct Kept {
    /// 1 where to draw.
    mask: Tensor,
    /// Latents of the picture.
    origin: Tensor,
    /// The noise that the generation began with.
    noise: Tensor,
}

impl Kept {
    /// `drawn` latents as step `index` begins with them, the rest of the picture with as much noise.
    fn beside(&self, drawn: &Tensor, plan: &Plan, index: usize) -> Result<Tensor> {
        self.blend(drawn, &plan.add_noise(index, &self.origin, &self.noise)?)
    }

    /// `drawn` where the mask says so, else `kept`.
    fn blend(&self, drawn: &Tensor, kept: &Tensor) -> Result<Tensor> {
        let rest = self.mask.affine(-1.0, 1.0)?;
        Ok((kept.broadcast_mul(&rest)? + drawn.broadcast_mul(&self.mask)?)?)
    }
}

/// Where a generation stands.
#[derive(Clone)]
pub(crate) struct State {
    pub(crate) latents: Tensor,
    kept: Option<Kept>,
    /// What an inpainting UNet sees beside the latents: mask, and latents of the masked picture.
    beside: Option<Tensor>,
}

impl<'a> Run<'a> {
    /// Plans a request that [`Pipeline::check`] has let pass.
    pub(crate) fn new(pipeline: &'a Pipeline, request: &'a GenerateRequest) -> Result<Self> {
        let plan = pipeline.plan(request)?;
        let (timings, notices, pushes) = (Timings::default(), Vec::new(), Pushes::default());
        Ok(Self { pipeline, request, plan, timings, notices, pushes })
    }

    pub(crate) fn draw(mut self, noise: &mut dyn NoiseSource, hook: &mut dyn StepHook) -> Result<Outcome> {
        let request = self.request;
        let total = self.plan.len();
        let start = Start {
            total,
            seed: request.seed,
            index: request.index,
            width: request.width,
            height: request.height,
        };
        if self.timed_hook(|| hook.start(&start)) == Control::Abort {
            return Ok(self.aborted(0));
        }
        let conditioning = self.encode_texts()?;
        let mut state = self.begin(noise)?;
        for index in 0..total {
            let wanted = self.timed_hook(|| hook.wants_preview(index, total));
            let ahead = wanted && self.timed_hook(|| hook.looks_ahead(index, total));
            let before = ahead.then(|| state.clone());
            let origin = self.step(index, &mut state, &conditioning, noise)?;
            let preview =
                if wanted { Some(self.preview(index, before, origin, &conditioning)?) } else { None };
            let step = Step { index, total, timestep: self.plan.timestep(index), preview };
            if self.timed_hook(|| hook.on_step(step)) == Control::Abort {
                return Ok(self.aborted(index + 1));
            }
        }
        self.finish(&state.latents)
    }

    /// Draws without a host, and answers what each step takes the finished latents to be.
    pub(crate) fn origins(mut self, noise: &mut dyn NoiseSource) -> Result<Vec<Tensor>> {
        let conditioning = self.encode_texts()?;
        let mut state = self.begin(noise)?;
        (0..self.plan.len()).map(|index| self.step(index, &mut state, &conditioning, noise)).collect()
    }

    /// What the text encoders make of the negative prompt, the prompt, and what is to be kept out if there is guidance, else of
    /// the prompt.
    pub(crate) fn encode_texts(&mut self) -> Result<Conditioning> {
        let clock = Instant::now();
        let mut texts = vec![Text::prompt(&self.request.prompt)];
        if self.guided() {
            texts.insert(0, Text::negative(&self.request.negative_prompt));
            texts.extend(self.request.safety.as_ref().map(|safety| Text::concept(&safety.concept)));
        } else {
            let unused = [
                (!self.request.negative_prompt.is_empty()).then_some(Notice::NegativePromptUnused),
                self.request.safety.is_some().then_some(Notice::SafeGuidanceUnused),
            ];
            self.notices.extend(unused.into_iter().flatten());
        }
        let conditioning = self.pipeline.model().encode(&texts, &mut self.notices)?;
        self.timings.text += clock.elapsed();
        Ok(conditioning)
    }

    /// Whether each step predicts for the negative prompt too.
    fn guided(&self) -> bool {
        self.pipeline.about().guidance == Guidance::Classifier && self.request.guidance_scale > 1.0
    }

    /// The first latents: noise, or the given picture's with noise.
    pub(crate) fn begin(&mut self, noise: &mut dyn NoiseSource) -> Result<State> {
        let vae = self.pipeline.vae().config();
        let (factor, request) = (vae.downscale(), self.request);
        let side = |pixels: u32| pixels as usize / factor;
        let shape = [1, vae.latent_channels, side(request.height), side(request.width)];
        let Some(source) = &request.source else {
            let latents = (noise.draw(&shape, self.pipeline.device())? * self.plan.initial_scale())?;
            return Ok(State { latents, kept: None, beside: None });
        };
        let clock = Instant::now();
        let state = self.begin_from(source, factor, noise.draw(&shape, self.pipeline.device())?)?;
        self.timings.encode += clock.elapsed();
        Ok(state)
    }

    fn begin_from(&self, source: &Source, factor: usize, noise: Tensor) -> Result<State> {
        let (size, device) = ((self.request.width, self.request.height), self.pipeline.device());
        let vae = self.pipeline.vae();
        let origin = vae.encode_scaled(&source.pixels(size, device)?)?;
        let mask = source.latent_mask(size, factor, device)?;
        // With all steps the masked part begins from nothing; a picture as a whole keeps what little shows through.
        let latents = if mask.is_some() && source.strength >= 1.0 {
            (&noise * self.plan.initial_scale())?
        } else {
            self.plan.add_noise(0, &origin, &noise)?
        };
        let Some(mask) = mask else { return Ok(State { latents, kept: None, beside: None }) };
        if self.pipeline.about().inpaints {
            let masked = vae.encode_scaled(&source.masked_pixels(size, device)?)?;
            return Ok(State { latents, kept: None, beside: Some(Tensor::cat(&[mask, masked], 1)?) });
        }
        Ok(State { latents, kept: Some(Kept { mask, origin, noise }), beside: None })
    }

    /// One step of `state`; answers what its prediction takes the finished latents to be.
    pub(crate) fn step(
        &mut self,
        index: usize,
        state: &mut State,
        conditioning: &Conditioning,
        noise: &mut dyn NoiseSource,
    ) -> Result<Tensor> {
        let clock = Instant::now();
        let fresh = if self.plan.takes_noise(index) {
            Some(noise.draw(state.latents.dims(), self.pipeline.device())?)
        } else {
            None
        };
        let StepResult { latents, origin } = self.stepped(index, state, conditioning, fresh.as_ref())?;
        state.latents = latents;
        self.timings.denoise += clock.elapsed();
        Ok(origin)
    }

    /// What step `index` makes of `state`.
    fn stepped(
        &mut self,
        index: usize,
        state: &State,
        conditioning: &Conditioning,
        noise: Option<&Tensor>,
    ) -> Result<StepResult> {
        let prediction = self.predict(index, state, conditioning)?;
        let mut result = self.plan.step(index, &state.latents, &prediction, noise)?;
        let finite = all_finite(&result.latents)? && all_finite(&result.origin)?;
        if let Some(kept) = &state.kept {
            result.latents = kept.beside(&result.latents, &self.plan, index + 1)?;
            result.origin = kept.blend(&result.origin, &kept.origin)?;
        }
        if finite {
            Ok(result)
        } else {
            let kind = GeneratorFailureKind::LatentsNotFinite;
            Err(GeneratorFailure { kind, step: Some(index) }.into())
        }
    }

    /// What the picture is becoming, told from `state` at step `index` and from what that step takes the finished latents to be.
    ///
    /// That `origin` is a mean over all that the noise may still become, and shows it blurred. So the generation is carried
    /// on in a few long strides, of which nothing is kept.
    fn look_ahead(
        &mut self,
        index: usize,
        mut state: State,
        mut origin: Tensor,
        conditioning: &Conditioning,
    ) -> Result<Tensor> {
        let pushes = self.pushes.clone();
        let mut at = index;
        let left = self.plan.len() - 1 - index;
        for next in strides(index, left, self.request.look_ahead(left)) {
            let noise = self.plan.noise(at, &state.latents, &origin)?;
            state.latents = self.plan.add_noise(next, &origin, &noise)?;
            if let Some(kept) = &state.kept {
                state.latents = kept.beside(&state.latents, &self.plan, next)?;
            }
            origin = self.stepped(next, &state, conditioning, None)?.origin;
            at = next;
        }
        self.pushes = pushes;
        Ok(origin)
    }

    fn predict(&mut self, index: usize, state: &State, conditioning: &Conditioning) -> Result<Tensor> {
        let mut input = self.plan.model_input(index, &state.latents)?;
        if let Some(beside) = &state.beside {
            input = Tensor::cat(&[&input, beside], 1)?;
        }
        let timestep = self.plan.timestep(index);
        let (pipeline, request) = (self.pipeline, self.request);
        let predict = |input: &Tensor| {
            let model = pipeline.model();
            on_all_cores(pipeline.device(), || model.predict(input, timestep, conditioning, request))
        };
        if !self.guided() {
            return predict(&input);
        }
        let safety = self.request.safety.as_ref();
        let copies = vec![&input; if safety.is_some() { 3 } else { 2 }];
        let predicted = predict(&Tensor::cat(&copies, 0)?)?;
        let (without, with) = (predicted.narrow(0, 0, 1)?, predicted.narrow(0, 1, 1)?);
        let mut direction = (&with - &without)?;
        if let Some(safety) = safety {
            let concept = predicted.narrow(0, 2, 1)?;
            let predictions = Predictions { without: &without, with: &with, concept: &concept };
            direction = (direction - self.pushes.next(safety, &predictions, (index, self.plan.len()))?)?;
        }
        Ok((&without + (direction * self.request.guidance_scale)?)?)
    }

    fn preview(
        &mut self,
        index: usize,
        ahead_of: Option<State>,
        origin: Tensor,
        conditioning: &Conditioning,
    ) -> Result<RgbImage> {
        let clock = Instant::now();
        let origin = match ahead_of {
            Some(state) => self.look_ahead(index, state, origin, conditioning)?,
            None => origin,
        };
        let picture = self.pipeline.preview(&origin, self.request, index)?;
        self.timings.previews += clock.elapsed();
        Ok(picture)
    }

    fn finish(mut self, latents: &Tensor) -> Result<Outcome> {
        let clock = Instant::now();
        let picture = self.pipeline.decode(latents, None)?;
        self.timings.decode += clock.elapsed();
        if picture.as_raw().iter().all(|value| *value <= BLACK) {
            return Err(GeneratorFailure { kind: GeneratorFailureKind::AllBlack, step: None }.into());
        }
        Ok(Outcome::Finished {
            picture,
            seed: self.request.seed,
            index: self.request.index,
            steps: self.plan.len(),
            timings: self.timings,
            notices: self.notices,
        })
    }

    fn aborted(self, at_step: usize) -> Outcome {
        Outcome::Aborted { at_step, timings: self.timings, notices: self.notices }
    }

    fn timed_hook<T>(&mut self, call: impl FnOnce() -> T) -> T {
        let clock = Instant::now();
        let answer = call();
        self.timings.hook += clock.elapsed();
        answer
    }
}

/// The steps that divide the way from step `index` to the end, after `left` more, into even strides: `count` of those `left`.
fn strides(index: usize, left: usize, count: usize) -> impl Iterator<Item = usize> {
    (1..=count).map(move |stride| index + (left + 1) * stride / (count + 1))
}

/// Whether no value is NaN or infinite.
fn all_finite(x: &Tensor) -> Result<bool> {
    Ok(x.flatten_all()?.to_vec1::<f32>()?.iter().all(|v| v.is_finite()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strides_are_even_and_end_within_the_generation() {
        for left in 0..60 {
            for count in 0..=left {
                let (index, end) = (7, 7 + left + 1);
                let ends: Vec<usize> =
                    [index].into_iter().chain(strides(index, left, count)).chain([end]).collect();
                assert_eq!(ends.len() - 2, count);
                let lengths = ends.windows(2).map(|pair| pair[1] - pair[0]);
                let (least, most) = (lengths.clone().min().unwrap_or(0), lengths.max().unwrap_or(0));
                assert!(least > 0 && most <= least + 1, "{ends:?}");
            }
        }
    }
}
