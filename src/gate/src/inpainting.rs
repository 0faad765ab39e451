//! Drawing anew what is hidden, where the gate was given who draws.

use std::sync::Arc;

use cluegate_perception::{Call, Picture};
use image::imageops::{self, FilterType};
use image::{Rgb, RgbImage};

use crate::drive::{DrawJob, DrawOptions, DrawSource, Drawn, Generator, Step, StepHook};
use crate::judging::Failure;
use crate::redaction::{PixelBox, paint};
use crate::session::Session;
use crate::{Gate, GateError};

impl Gate {
    /// Says who draws parts of pictures anew, for policies with `redact.method = "inpaint"`. One that does not draw from
    /// pictures is not asked.
    ///
    /// # Errors
    /// If somebody does already.
    pub fn with_painter(self, painter: Arc<dyn Generator>) -> Result<Self, GateError> {
        self.set_painter(painter)?;
        Ok(self)
    }
}

impl Session {
    /// `picture` of `member` with what is in `boxes` drawn anew: from its prompt without the part that is nearest to the
    /// statements to `avoid`, and away from these. Outside of the boxes it is as it was. None if there is nobody to draw it.
    ///
    /// # Errors
    /// If it cannot be drawn, or not in time.
    pub(crate) fn inpaint(
        &mut self,
        member: usize,
        picture: &Picture,
        boxes: &[PixelBox],
        avoid: &[String],
    ) -> Result<Option<Picture>, Failure> {
        let painter = self.services.painter.get().filter(|painter| painter.draws_from_pictures());
        let (Some(painter), Some(state)) = (painter.cloned(), self.members.get(member)) else {
            return Ok(None);
        };
        let prompt = state.prompt.clone().unwrap_or_else(|| self.request.prompt.clone());
        let (attempt, planned) = (state.current.attempt, state.planned_steps);
        // The picture's own seed might draw the same again.
        let seed = state.current.seed.wrapping_add(1);
        let prompt = self.furthest(&prompt, avoid)?.unwrap_or(prompt);
        let source =
            DrawSource { picture: picture.clone(), mask: Some(mask(picture, boxes)), strength: None };
        let safety = self.grounds.policy.regenerate.guidance;
        let options = DrawOptions { steps: planned, source: Some(source), safety, ..DrawOptions::default() };
        let (prompt, avoid, options) = (Arc::from(prompt), avoid.to_vec(), Arc::new(options));
        let job = DrawJob { member, attempt, prompt, seed, avoid, options };
        let deadline = self.patience();
        let call = self.model_call(deadline);
        let mut hook = Steps { call: call.clone(), done: 0 };
        let drawn = self.services.painting.run(deadline, move || {
            let drawn = painter.draw(std::slice::from_ref(&job), &mut hook).into_iter().next();
            (drawn, hook.done)
        });
        call.cancel();
        let (drawn, done) = drawn.map_err(Failure::from)?;
        // Upstreams do not tell of their steps.
        self.painted(member, if done == 0 { planned.unwrap_or_default() } else { done });
        match drawn {
            Some(Ok(Drawn::Finished(painted))) => Ok(Some(composed(picture, &painted, boxes))),
            Some(Ok(Drawn::Stopped)) => Err(Failure::new("inpainting", "it was not drawn in time")),
            Some(Err(error)) => Err(Failure::new("inpainting", error.to_string())),
            None => Err(Failure::new("inpainting", "the generator gave no answer")),
        }
    }
}

/// White inside `boxes`, black elsewhere, in the size of `picture`.
fn mask(picture: &Picture, boxes: &[PixelBox]) -> Picture {
    let mut pixels = RgbImage::new(picture.width(), picture.height());
    boxes.iter().for_each(|area| paint(&mut pixels, area, Rgb([255; 3])));
    Picture::new(pixels)
}

/// `picture` with the pixels of `painted` inside `boxes`: generators change a little of what they are to leave alone.
fn composed(picture: &Picture, painted: &Picture, boxes: &[PixelBox]) -> Picture {
    let (width, height) = (picture.width(), picture.height());
    let scaled;
    let painted = if (painted.width(), painted.height()) == (width, height) {
        painted.pixels()
    } else {
        scaled = imageops::resize(painted.pixels(), width, height, FilterType::Lanczos3);
        &scaled
    };
    let mut pixels = picture.pixels().clone();
    for area in boxes {
        let part = imageops::crop_imm(painted, area.left, area.top, area.width(), area.height());
        imageops::replace(&mut pixels, &*part, area.left.into(), area.top.into());
    }
    Picture::new(pixels)
}

/// Counts the steps, and ends a drawing that nobody waits for.
struct Steps {
    call: Call,
    done: u32,
}

impl StepHook for Steps {
    fn wants_preview(&mut self, _: usize, _: u32, _: u32) -> bool {
        false
    }

    fn step(&mut self, _: usize, step: u32, _: u32, _: Option<&Picture>) -> Step {
        self.done = self.done.max(step);
        if self.call.check().is_ok() { Step::Continue } else { Step::Stop }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_changes_outside_the_boxes_whatever_size_is_painted() {
        let picture = Picture::new(RgbImage::from_fn(37, 21, |x, y| Rgb([x as u8, y as u8, 9])));
        let boxes = [
            PixelBox { left: 3, top: 2, right: 11, bottom: 9 },
            PixelBox { left: 20, top: 10, right: 37, bottom: 21 },
        ];
        for size in [(37, 21), (36, 20), (74, 42)] {
            let painted = Picture::new(RgbImage::from_pixel(size.0, size.1, Rgb([200, 100, 50])));
            let composed = composed(&picture, &painted, &boxes);
            let mask = mask(&picture, &boxes);
            for (x, y, colour) in composed.pixels().enumerate_pixels() {
                let inside = mask.pixels().get_pixel(x, y).0 == [255; 3];
                let expected = if inside { Rgb([200, 100, 50]) } else { *picture.pixels().get_pixel(x, y) };
                assert_eq!(*colour, expected, "{size:?} at {x},{y}");
                assert_eq!(inside, boxes.iter().any(|area| area.contains(x, y)));
            }
        }
    }
}
