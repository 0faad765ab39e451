//! A pipeline that draws test scenes: a disc on a gradient, sharper with every step, with latent previews.

use cluegate_abi::{
    Call, Control, Draw, DrawSource, Drawn, Generate, Host, LatentView, PictureBuf, Plugin, PluginError,
    Preview, Setup, Steps,
};

const SIDE: u32 = 64;
const MAX_SIDE: u32 = 2048;
/// One latent pixel for 8 x 8.
const SCALE: u32 = 8;
const COLOURS: [(&str, [f32; 3]); 4] = [
    ("red", [1.0, 0.0, 0.0]),
    ("green", [0.0, 1.0, 0.0]),
    ("blue", [0.0, 0.0, 1.0]),
    ("magenta", [1.0, 0.0, 1.0]),
];

struct Scenes;

/// What a drawing asks for, in the end.
struct Scene {
    colour: [f32; 3],
    centre: (f32, f32),
    width: u32,
    height: u32,
}

impl Scene {
    fn of(draw: &Draw<'_>) -> Self {
        let named = COLOURS.iter().find(|(name, _)| {
            draw.prompt.contains(name) && !draw.avoid.iter().any(|avoid| avoid.contains(name))
        });
        let colour = named.map_or([0.9, 0.9, 0.8], |(_, colour)| *colour);
        // Bits of the seed, mixed: neighbours look different.
        let mixed = draw.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let share = |shift: u32| 0.3 + 0.4 * f32::from((mixed >> shift) as u8) / 255.0;
        let source = draw.source.map_or((SIDE, SIDE), |from| (from.picture.width(), from.picture.height()));
        let (width, height) = (draw.width.unwrap_or(source.0), draw.height.unwrap_or(source.1));
        Self { colour, centre: (share(56), share(48)), width, height }
    }

    /// Red, green and blue at a place, 0 to 1 from left to right and from top to bottom; `sharp` from 0 to 1.
    fn at(&self, x: f32, y: f32, sharp: f32) -> [f32; 3] {
        let distance = ((x - self.centre.0).powi(2) + (y - self.centre.1).powi(2)).sqrt();
        let inside = ((0.25 - distance) * (2.0 + 200.0 * sharp) + 0.5).clamp(0.0, 1.0);
        self.colour.map(|level| inside * level + (1.0 - inside) * (0.3 + 0.3 * y))
    }

    fn preview(&self, sharp: f32) -> (Vec<f32>, u32, u32) {
        let (width, height) = (self.width.div_ceil(SCALE), self.height.div_ceil(SCALE));
        let mut values = Vec::new();
        for channel in 0..3 {
            for y in 0..height {
                for x in 0..width {
                    let (x, y) = ((x as f32 + 0.5) / width as f32, (y as f32 + 0.5) / height as f32);
                    // As latent values: from -1 to 1.
                    values.push(2.0 * self.at(x, y, sharp)[channel] - 1.0);
                }
            }
        }
        (values, width, height)
    }

    fn picture(&self, source: Option<&DrawSource<'_>>) -> Result<PictureBuf, PluginError> {
        let from = source.map(|source| (source.picture.to_buf(), source.mask.map(|mask| mask.to_buf())));
        let strength = source.and_then(|source| source.strength).unwrap_or(1.0) as f32;
        let mut pixels = Vec::with_capacity(3 * self.width as usize * self.height as usize);
        for y in 0..self.height {
            for x in 0..self.width {
                let (right, down) =
                    ((x as f32 + 0.5) / self.width as f32, (y as f32 + 0.5) / self.height as f32);
                let drawn = self.at(right, down, 1.0).map(|level| (level * 255.0) as u8);
                pixels.extend(match &from {
                    None => drawn,
                    Some((picture, mask)) => {
                        let before = nearest(picture, right, down);
                        // A mask is white where to draw anew.
                        let anew = mask.as_ref().is_none_or(|mask| nearest(mask, right, down)[0] >= 128);
                        let share = if anew { strength } else { 0.0 };
                        [0, 1, 2].map(|c| {
                            (share * f32::from(drawn[c]) + (1.0 - share) * f32::from(before[c])) as u8
                        })
                    }
                });
            }
        }
        PictureBuf::new(pixels, self.width, self.height)
    }
}

/// The pixel at a place from 0 to 1.
fn nearest(picture: &PictureBuf, right: f32, down: f32) -> [u8; 3] {
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    let (x, y) = ((right * width as f32) as usize, (down * height as f32) as usize);
    let at = 3 * (y.min(height - 1) * width + x.min(width - 1));
    let pixels = picture.pixels();
    [pixels[at], pixels[at + 1], pixels[at + 2]]
}

/// From latent values to red, green and blue: (v + 1) / 2 each.
const RGB: [f32; 12] = [0.5, 0.0, 0.0, 0.5, 0.0, 0.5, 0.0, 0.5, 0.0, 0.0, 0.5, 0.5];

impl Plugin for Scenes {
    const NAME: &'static str = "scenes";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const ABOUT: &'static str = "Draws a disc of the colour that the prompt names.";
    const SCHEMA: &'static str = r#"{ "type": "object", "additionalProperties": false }"#;
    const CONCURRENT: bool = true;

    fn create(_: &Setup<'_>, _: Host) -> Result<Self, PluginError> {
        Ok(Self)
    }

    fn fingerprint(&self) -> Result<String, PluginError> {
        Ok("discs".to_owned())
    }
}

impl Generate for Scenes {
    const FROM_PICTURES: bool = true;

    fn generate(
        &self,
        draw: &Draw<'_>,
        call: &Call<'_>,
        steps: &mut Steps<'_>,
    ) -> Result<Drawn, PluginError> {
        self.check(draw)?;
        let (scene, total) = (Scene::of(draw), draw.steps.unwrap_or(4));
        for step in 1..=total {
            call.check()?;
            let preview = steps.wants_preview(step, total).then(|| scene.preview(step as f32 / total as f32));
            let latent = match &preview {
                Some((values, width, height)) => {
                    Some(Preview::Latent(LatentView::new(values, &RGB, 3, (*width, *height))?))
                }
                None => None,
            };
            if steps.step(step, total, latent) == Control::Abort {
                return Ok(Drawn::Aborted);
            }
        }
        scene.picture(draw.source.as_ref()).map(Drawn::Finished)
    }

    fn check(&self, draw: &Draw<'_>) -> Result<(), PluginError> {
        let side = |what: &str, side: Option<u32>| match side {
            Some(side) if !(1..=MAX_SIDE).contains(&side) => {
                Err(PluginError::request(format!("the {what} is {side} pixels, expected 1 to {MAX_SIDE}")))
            }
            _ => Ok(()),
        };
        side("width", draw.width)?;
        side("height", draw.height)?;
        if let Some(strength) = draw.source.and_then(|source| source.strength)
            && !(strength > 0.0 && strength <= 1.0)
        {
            return Err(PluginError::request(format!(
                "the strength is {strength}, expected over 0 and at most 1"
            )));
        }
        match draw.sampler {
            Some(name) => {
                Err(PluginError::request(format!("it has no samplers, and none by the name {name:?}")))
            }
            None => Ok(()),
        }
    }
}

cluegate_abi::export_plugin!(Scenes: generate);
