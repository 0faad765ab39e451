//! `preprocessor_config.json`: from a picture of any size to a model's input.

use candle_core::{Device, Tensor};
use cluegate_perception::Picture;
use image::RgbImage;
use serde::Deserialize;
use serde_json::Value;

use crate::error::{ModelError, Result};
use crate::files::FileTree;
use crate::pixels::{Filter, Normalisation, Target, centre_crop, resize_window, shortest_edge_size};

/// Mean of each channel in OpenAI's training data, red, green, blue (`OPENAI_CLIP_MEAN`).
const CLIP_MEAN: [f32; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];
/// Standard deviation of each channel there (`OPENAI_CLIP_STD`).
const CLIP_STD: [f32; 3] = [0.268_629_54, 0.261_302_6, 0.275_777_1];
/// Both of SigLIP (`IMAGENET_STANDARD_MEAN`, `IMAGENET_STANDARD_STD`): values from -1 to 1.
const STANDARD: [f32; 3] = [0.5; 3];

const FILE: &str = "preprocessor_config.json";
/// Where transformers 5 puts the same fields, below `image_processor`, when it saves a whole processor.
const WHOLE_FILE: &str = "processor_config.json";

/// The fields of an image processor's configuration that matter, as written.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct RawProcessor {
    pub(crate) image_processor_type: Option<String>,
    feature_extractor_type: Option<String>,
    pub(crate) do_resize: Option<bool>,
    pub(crate) size: Option<RawSize>,
    resample: Option<u64>,
    do_center_crop: Option<bool>,
    pub(crate) crop_size: Option<RawSize>,
    do_rescale: Option<bool>,
    /// The older name of `do_rescale` in OWL-ViT and OWLv2.
    rescale: Option<bool>,
    rescale_factor: Option<f32>,
    do_normalize: Option<bool>,
    image_mean: Option<[f32; 3]>,
    image_std: Option<[f32; 3]>,
    pub(crate) do_pad: Option<bool>,
    /// Not a field of the reference: the value of padding before normalisation, see `Owlv2Processor`.
    pub(crate) pad_value: Option<f32>,
    /// Of LLaVA-NeXT: the heights and widths that a picture may be fitted into before it is cut into tiles.
    pub(crate) image_grid_pinpoints: Option<Vec<[u32; 2]>>,
}

/// A size as the reference's versions have written it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged)]
pub(crate) enum RawSize {
    Edge(u32),
    Pair([u32; 2]),
    Exact { height: u32, width: u32 },
    Shortest { shortest_edge: u32, longest_edge: Option<u32> },
    Other(Value),
}

impl RawSize {
    /// Of one number.
    pub(crate) fn edge(&self) -> Option<u32> {
        match self {
            Self::Edge(edge) | Self::Shortest { shortest_edge: edge, longest_edge: None } => Some(*edge),
            _ => None,
        }
    }

    /// Height and width; a single number counts for both.
    pub(crate) fn exact(&self) -> Option<(u32, u32)> {
        match self {
            Self::Edge(edge) => Some((*edge, *edge)),
            Self::Pair([height, width]) | Self::Exact { height, width } => Some((*height, *width)),
            Self::Shortest { .. } | Self::Other(_) => None,
        }
    }
}

impl RawProcessor {
    /// Reads the file; `kinds` are what the processor's class name may have before `ImageProcessor`. Answers the path,
    /// for messages.
    pub(crate) fn load(tree: &FileTree, kinds: &[&str]) -> Result<(Self, String)> {
        let (raw, path): (Self, String) = if !tree.exists(FILE) && tree.exists(WHOLE_FILE) {
            let path = tree.path_of(WHOLE_FILE);
            let mut whole: Value = tree.read_json(WHOLE_FILE)?;
            let Some(fields) = whole.get_mut("image_processor").map(Value::take) else {
                return Err(ModelError::malformed(path, "no field `image_processor`"));
            };
            let raw = serde_json::from_value(fields)
                .map_err(|error| ModelError::malformed(&path, format!("`image_processor`: {error}")))?;
            (raw, path)
        } else {
            (tree.read_json(FILE)?, tree.path_of(FILE))
        };
        for class in [&raw.image_processor_type, &raw.feature_extractor_type].into_iter().flatten() {
            // Before image processors had their name they were feature extractors.
            let named = |kind: &&str| {
                let rest = class.strip_prefix(*kind).unwrap_or_default();
                rest.starts_with("ImageProcessor") || rest.starts_with("FeatureExtractor")
            };
            if !kinds.iter().any(named) {
                let supported = kinds.iter().map(|kind| format!("{kind}ImageProcessor")).collect::<Vec<_>>();
                let supported = supported.join(", ");
                return Err(ModelError::unsupported(path, "`image_processor_type`", class, supported));
            }
        }
        Ok((raw, path))
    }

    /// Mean of each channel in a processor whose default is OpenAI's, 0 to 1.
    pub(crate) fn mean(&self) -> [f32; 3] {
        self.image_mean.unwrap_or(CLIP_MEAN)
    }

    /// The filter of a resize.
    pub(crate) fn filter(&self, path: &str) -> Result<Filter> {
        let code = self.resample.unwrap_or(3);
        Filter::from_pillow(code).ok_or_else(|| {
            let supported = "0 (nearest), 1 (Lanczos), 2 (bilinear), 3 (bicubic)";
            ModelError::unsupported(path, "`resample`", code, supported)
        })
    }

    /// Rescaling and normalisation, each if asked for; `mean` and `std` are what the family's processor has where the
    /// file says nothing.
    fn normalisation_or(&self, path: &str, mean: [f32; 3], std: [f32; 3]) -> Result<Normalisation> {
        let rescale = self.do_rescale.or(self.rescale).unwrap_or(true);
        let scale = if rescale { self.rescale_factor.unwrap_or(1.0 / 255.0) } else { 1.0 };
        let normalise = self.do_normalize.unwrap_or(true);
        let (mean, std) = if normalise {
            (self.image_mean.unwrap_or(mean), self.image_std.unwrap_or(std))
        } else {
            ([0.0; 3], [1.0; 3])
        };
        if !std.iter().all(|std| *std > 0.0) {
            return Err(ModelError::malformed(
                path,
                format!("`image_std` is {std:?}, expected positive numbers"),
            ));
        }
        Ok(Normalisation::new(scale, mean, std))
    }

    /// Rescaling and normalisation, each if asked for, with OpenAI's mean and standard deviation.
    pub(crate) fn normalisation(&self, path: &str) -> Result<Normalisation> {
        self.normalisation_or(path, CLIP_MEAN, CLIP_STD)
    }
}

/// Whose processor a file describes, and so what its absent fields mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ProcessorKind {
    /// `CLIPImageProcessor`: the shortest edge gets 224 pixels, and a centre square of 224 is kept.
    Clip,
    /// `SiglipImageProcessor`: stretched to 224 x 224 pixels.
    Siglip,
}

/// How large a picture becomes before the crop.
#[derive(Debug, Clone, PartialEq)]
enum Resize {
    /// The shortest edge gets this length.
    Shortest(u32),
    Exact {
        height: u32,
        width: u32,
    },
}

/// `CLIPImageProcessor` and `SiglipImageProcessor` of transformers 5.17: resize, centre crop, rescale, normalise. Values
/// are within 1/255 of the reference's before normalisation.
#[derive(Debug, Clone)]
pub struct PictureProcessor {
    resize: Option<(Resize, Filter)>,
    /// Height and width.
    crop: Option<(u32, u32)>,
    normalisation: Normalisation,
}

impl PictureProcessor {
    /// Reads `preprocessor_config.json` for a tower whose input has sides of `image_size` pixels.
    ///
    /// # Errors
    /// A missing or malformed file, another kind of processor, a resize that is not implemented, or an output that
    /// does not fit the tower.
    pub(crate) fn load(tree: &FileTree, kind: ProcessorKind, image_size: usize) -> Result<Self> {
        let name = match kind {
            ProcessorKind::Clip => "CLIP",
            ProcessorKind::Siglip => "Siglip",
        };
        let (raw, path) = RawProcessor::load(tree, &[name])?;
        Self::build(&raw, &path, kind, image_size)
    }

    /// Like [`Self::load`], from the fields of the file `path`.
    ///
    /// # Errors
    /// A resize that is not implemented, or an output that does not fit the tower.
    pub(crate) fn build(
        raw: &RawProcessor,
        path: &str,
        kind: ProcessorKind,
        image_size: usize,
    ) -> Result<Self> {
        let (default, crop, mean, std) = match kind {
            ProcessorKind::Clip => (RawSize::Edge(224), true, CLIP_MEAN, CLIP_STD),
            ProcessorKind::Siglip => (RawSize::Exact { height: 224, width: 224 }, false, STANDARD, STANDARD),
        };
        let own = Self {
            resize: Self::read_resize(raw, default, path)?,
            crop: Self::read_crop(raw, crop, path)?,
            normalisation: raw.normalisation_or(path, mean, std)?,
        };
        let output = match (&own.crop, &own.resize) {
            (Some(crop), _) => Some(*crop),
            (None, Some((Resize::Exact { height, width }, _))) => Some((*height, *width)),
            (None, _) => None,
        };
        if output.is_none_or(|(height, width)| (height as usize, width as usize) != (image_size, image_size))
        {
            let found = output.map_or("pictures of any shape".to_owned(), |(h, w)| format!("{h}x{w} pixels"));
            let detail = format!("gives {found}, the vision tower takes {image_size}x{image_size}");
            return Err(ModelError::malformed(path, detail));
        }
        Ok(own)
    }

    fn read_resize(raw: &RawProcessor, default: RawSize, path: &str) -> Result<Option<(Resize, Filter)>> {
        if !raw.do_resize.unwrap_or(true) {
            return Ok(None);
        }
        let filter = raw.filter(path)?;
        let size = raw.size.as_ref().unwrap_or(&default);
        let resize = match (size.edge(), size.exact()) {
            (Some(edge), _) if edge > 0 => Resize::Shortest(edge),
            (None, Some((height, width))) if height > 0 && width > 0 => Resize::Exact { height, width },
            _ => {
                let supported = "a length, `shortest_edge`, or `height` and `width`, at least 1";
                return Err(ModelError::unsupported(path, "`size`", format!("{size:?}"), supported));
            }
        };
        Ok(Some((resize, filter)))
    }

    fn read_crop(raw: &RawProcessor, default: bool, path: &str) -> Result<Option<(u32, u32)>> {
        if !raw.do_center_crop.unwrap_or(default) {
            return Ok(None);
        }
        let size = raw.crop_size.clone().unwrap_or(RawSize::Edge(224));
        match size.exact() {
            Some((height, width)) if height > 0 && width > 0 => Ok(Some((height, width))),
            _ => {
                let supported = "a length, or `height` and `width`, at least 1";
                Err(ModelError::unsupported(path, "`crop_size`", format!("{size:?}"), supported))
            }
        }
    }

    /// The picture at the model's size, 8 bits a channel.
    pub fn fit(&self, picture: &RgbImage) -> RgbImage {
        let (width, height) = match &self.resize {
            None => picture.dimensions(),
            Some((Resize::Exact { height, width }, _)) => (*width, *height),
            Some((Resize::Shortest(edge), _)) => shortest_edge_size(picture.width(), picture.height(), *edge),
        };
        let (crop_height, crop_width) = self.crop.unwrap_or((height, width));
        let filter = self.resize.as_ref().map_or(Filter::Bicubic, |(_, filter)| *filter);
        // Only what the crop keeps is computed; a crop beyond the picture is padded afterwards.
        let target =
            Target { width, height, columns: middle(width, crop_width), rows: middle(height, crop_height) };
        let resized = resize_window(picture, target, filter);
        if resized.dimensions() == (crop_width, crop_height) {
            resized
        } else {
            centre_crop(&resized, crop_width, crop_height)
        }
    }

    /// Model inputs of pictures, shape `(pictures, 3, side, side)`, f32.
    ///
    /// # Errors
    /// No picture.
    pub fn batch(&self, pictures: &[Picture], device: &Device) -> candle_core::Result<Tensor> {
        let fitted: Vec<_> = pictures.iter().map(|picture| self.fit(picture.pixels())).collect();
        self.normalisation.batch(&fitted, device)
    }
}

/// The middle `kept` positions of `whole`.
fn middle(whole: u32, kept: u32) -> std::ops::Range<u32> {
    let start = whole.saturating_sub(kept) / 2;
    start..start + kept.min(whole)
}
