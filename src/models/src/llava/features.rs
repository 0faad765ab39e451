//! From the views of a picture to what the language model reads in its place.
//!
//! Source: `get_image_features`, `pack_image_features` and `unpad_image` in `models/llava_next/modeling_llava_next.py`,
//! and `models/llava/modeling_llava.py` of transformers 5.17.

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use cluegate_perception::Picture;

use super::config::{Config, Views};
use super::image::ImageProcessor;
use crate::clip::{Activation, VisionTower};
use crate::error::{ModelError, Result};
use crate::language::{Features, PictureEncoder, PictureTokens};
use crate::layers::Linear;
use crate::weights::Weights;

/// Views of one forward pass; more are computed in turn, so that memory stays bounded whatever the grid.
const BATCH: usize = 8;

/// Where the parts lie among the tensors: as llava-hf has published them, as transformers saves them since 4.52 and
/// since 5, and as the authors do.
#[derive(Debug, Clone, Copy)]
pub(super) struct Names {
    /// The vision tower, `None` if there is none.
    pub(super) tower: Option<&'static str>,
    /// The first and the second map of the projector.
    projector: [&'static str; 2],
    newline: &'static str,
    /// The language model without its head.
    pub(super) text: &'static str,
    /// What the head lies in; empty: in nothing.
    pub(super) head: &'static str,
}

impl Names {
    /// By what is there.
    pub(super) fn find(weights: &Weights) -> Self {
        let first = |names: &[&'static str]| {
            names.iter().copied().find(|name| weights.contains_prefix(&format!("{name}.")))
        };
        let projectors = [
            ["multi_modal_projector.linear_1", "multi_modal_projector.linear_2"],
            ["model.multi_modal_projector.linear_1", "model.multi_modal_projector.linear_2"],
            ["model.mm_projector.0", "model.mm_projector.2"],
        ];
        let projector = projectors.into_iter().find(|[name, _]| weights.contains_prefix(&format!("{name}.")));
        let text = first(&["language_model.model", "model.language_model"]).unwrap_or("model");
        // Until 4.52 the language model was one whole, the head included.
        let whole = text == "language_model.model";
        Self {
            tower: first(&[
                "vision_tower.vision_model",
                "model.vision_tower.vision_model",
                "model.vision_tower.vision_tower.vision_model",
                "vision_tower",
                "model.vision_tower",
            ]),
            projector: projector.unwrap_or(projectors[0]),
            newline: if whole { "image_newline" } else { "model.image_newline" },
            text,
            head: if whole { "language_model" } else { "" },
        }
    }
}

/// The vision tower with what joins it to the language model.
#[derive(Debug)]
pub(super) struct Parts {
    tower: VisionTower,
    /// Whether the class token's state is read too.
    with_class: bool,
    /// Patches along one side of a view.
    side: usize,
    first: Linear,
    activation: Activation,
    second: Linear,
    /// Ends each row of tiles, `[hidden]`; only where there are tiles.
    newline: Option<Tensor>,
    device: Device,
    dtype: DType,
}

impl Parts {
    /// Reads the tensors below `root`.
    ///
    /// # Errors
    /// A missing or misshapen tensor.
    pub(super) fn load(config: &Config, names: &Names, root: &VarBuilder<'_>) -> candle_core::Result<Self> {
        let (width, hidden) = (config.vision.encoder.hidden_size, config.text.hidden);
        let map = |inputs: usize, name: &str| {
            if config.projector_bias {
                Linear::load(inputs, hidden, &root.pp(name))
            } else {
                Linear::load_no_bias(inputs, hidden, &root.pp(name))
            }
        };
        let tower = root.pp(names.tower.unwrap_or("vision_tower.vision_model"));
        let newline = match config.views {
            Views::One => None,
            Views::Tiles(_) => Some(root.get(hidden, names.newline)?),
        };
        Ok(Self {
            tower: VisionTower::load(&config.vision, "pre_layrnorm", tower)?.cut(config.layers),
            with_class: config.with_class,
            side: config.side(),
            first: map(width, names.projector[0])?,
            activation: config.activation,
            second: map(hidden, names.projector[1])?,
            newline,
            device: root.device().clone(),
            dtype: root.dtype(),
        })
    }

    /// Features of one view.
    fn per_view(&self) -> usize {
        self.side * self.side + usize::from(self.with_class)
    }

    /// Of views `[views, 3, side, side]` in f32, `[views, features, hidden]`.
    fn project(&self, pixels: &Tensor) -> candle_core::Result<Tensor> {
        let views = pixels.dim(0)?;
        let pixels = pixels.to_device(&self.device)?.to_dtype(self.dtype)?;
        let mut projected = Vec::with_capacity(views.div_ceil(BATCH));
        for start in (0..views).step_by(BATCH) {
            let count = BATCH.min(views - start);
            let states = self.tower.forward_inner(&pixels.narrow(0, start, count)?)?;
            let (rows, width) = states.dims2()?;
            let states = states.reshape((count, rows / count, width))?;
            let class = usize::from(!self.with_class);
            let states = states.narrow(1, class, rows / count - class)?.contiguous()?.reshape(((), width))?;
            let middle = self.first.forward_activate(&states, self.activation)?;
            projected.push(self.second.forward(&middle)?.reshape((count, self.per_view(), ()))?);
        }
        Tensor::cat(&projected, 0)
    }

    /// One sequence of the features of all views, `[views, features, hidden]`: those of the whole, then those of the
    /// tiles, row by row of all of them, without what shows padding, each row ended.
    fn pack(&self, features: &Tensor, rows: usize, window: Window) -> candle_core::Result<Tensor> {
        let (views, per_view, hidden) = features.dims3()?;
        let whole = features.get(0)?;
        let Some(newline) = &self.newline else { return Ok(whole) };
        let columns = (views - 1) / rows;
        let side = self.side;
        if per_view != side * side {
            candle_core::bail!("{per_view} features of a tile of {side} x {side} patches");
        }
        if window.rows == 0 {
            return Ok(whole);
        }
        let ends = newline.reshape((1, 1, hidden))?.expand((window.rows, 1, hidden))?;
        if window.columns == 0 {
            return Tensor::cat(&[whole, ends.reshape(((), hidden))?], 0);
        }
        let tiles = features
            .narrow(0, 1, views - 1)?
            .reshape(&[rows, columns, side, side, hidden][..])?
            .permute([0, 2, 1, 3, 4])?
            .reshape((rows * side, columns * side, hidden))?
            .narrow(0, window.top, window.rows)?
            .narrow(1, window.left, window.columns)?;
        let tiles = Tensor::cat(&[tiles, ends], 1)?.reshape(((), hidden))?;
        Tensor::cat(&[whole, tiles], 0)
    }
}

/// The part of a grid of patches that shows the picture and not padding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Window {
    top: usize,
    rows: usize,
    left: usize,
    columns: usize,
}

impl Window {
    /// Of a picture of `width` x `height` pixels in the middle of `rows` x `columns` patches. Always in the middle: a
    /// row that would be left over at one side stays.
    fn new(width: u32, height: u32, rows: usize, columns: usize) -> Self {
        let (w, h) = (f64::from(width), f64::from(height));
        let (high, wide) = (rows as f64, columns as f64);
        // How many patches of `whole` the shorter axis fills; seven digits, since quotients come out a little low.
        let filled = |length: f64, scale: f64| ((length * scale * 1e7).round() / 1e7) as usize;
        if w / h > wide / high {
            let top = rows.saturating_sub(filled(h, wide / w)) / 2;
            Self { top, rows: rows - 2 * top, left: 0, columns }
        } else {
            let left = columns.saturating_sub(filled(w, high / h)) / 2;
            Self { top: 0, rows, left, columns: columns - 2 * left }
        }
    }
}

/// The image processor and the vision tower.
#[derive(Debug)]
pub(super) struct Eyes {
    processor: ImageProcessor,
    parts: Parts,
    image_token: u32,
}

impl Eyes {
    pub(super) fn new(processor: ImageProcessor, parts: Parts, image_token: u32) -> Self {
        Self { processor, parts, image_token }
    }

    /// Rows of tiles and what of their patches shows the picture; `None` if there is but one view.
    fn tiles(&self, picture: &Picture) -> Option<(usize, Window)> {
        let (width, height) = (picture.width(), picture.height());
        let (rows, columns) = self.processor.tiles(width, height)?;
        let side = self.parts.side;
        Some((rows, Window::new(width, height, rows * side, columns * side)))
    }
}

impl PictureEncoder for Eyes {
    fn tokens(&self, picture: &Picture) -> Result<PictureTokens> {
        if picture.width() == 0 || picture.height() == 0 {
            return Err(ModelError::Request("the picture has no pixels".to_owned()));
        }
        let tiles = self.tiles(picture).map_or(0, |(_, window)| window.rows * (window.columns + 1));
        Ok(PictureTokens::in_line(vec![self.image_token; self.parts.per_view() + tiles]))
    }

    fn pixels(&self, picture: &Picture) -> Result<Tensor> {
        let views = self.processor.views(picture.pixels());
        Ok(self.processor.normalisation().batch(&views, &Device::Cpu)?)
    }

    fn features(&self, picture: &Picture) -> Result<Features> {
        let pixels = self.pixels(picture)?;
        let packed = self.parts.project(&pixels).and_then(|features| match self.tiles(picture) {
            Some((rows, window)) => self.parts.pack(&features, rows, window),
            None => features.get(0),
        });
        Ok(packed.map_err(|e| ModelError::from(e).at("the vision tower"))?.into())
    }
}

#[cfg(test)]
mod tests {
    use super::super::config::RESOLUTIONS;
    use super::super::image::best_resolution;
    use super::*;

    /// Width and height of a picture, the best of the published resolutions as height and width, rows and columns of
    /// 24 patches a tile that show the picture: what `select_best_resolution`, `unpad_image` and
    /// `LlavaNextProcessor._get_unpadded_features` of transformers 5.17 give.
    type Case = ((u32, u32), [u32; 2], (usize, usize));
    const CASES: [Case; 15] = [
        ((1024, 1024), [672, 672], (48, 48)),
        ((1024, 768), [672, 672], (36, 48)),
        ((768, 1024), [672, 672], (48, 36)),
        ((640, 480), [672, 672], (36, 48)),
        ((333, 500), [672, 336], (36, 24)),
        ((1920, 1080), [672, 672], (28, 48)),
        ((100, 1000), [1008, 336], (72, 8)),
        ((1000, 100), [336, 1008], (8, 72)),
        ((1, 1), [336, 672], (24, 24)),
        ((5000, 3), [336, 672], (0, 48)),
        ((3, 5000), [336, 672], (24, 0)),
        ((337, 336), [336, 672], (24, 24)),
        ((999, 333), [336, 1008], (24, 72)),
        ((1008, 335), [336, 1008], (24, 72)),
        ((672, 671), [672, 672], (48, 48)),
    ];

    #[test]
    fn grids_and_windows_are_those_of_the_reference() {
        for ((width, height), resolution, shown) in CASES {
            assert_eq!(best_resolution(width, height, &RESOLUTIONS), resolution, "{width} x {height}");
            let [rows, columns] = resolution.map(|edge| edge as usize / 14);
            let window = Window::new(width, height, rows, columns);
            assert_eq!((window.rows, window.columns), shown, "{width} x {height}");
            assert!(window.top + window.rows <= rows && window.left + window.columns <= columns);
        }
    }
}
