//! OWLv2's picture preprocessing.

use candle_core::{Device, Tensor};
use image::RgbImage;

use crate::clip::RawProcessor;
use crate::error::{ModelError, Result};
use crate::files::FileTree;
use crate::pixels::{Normalisation, blurred_bilinear_weights, resample_planar};

/// `Owlv2ImageProcessor` of transformers 5.17 (the default, torchvision-backed one): rescale, pad to a square at the
/// right and bottom, blur and sample to the model's size, normalise. Values are within 1/255 of the reference's
/// before normalisation.
///
/// **Padding.** Version 5.17 pads with 0 (black); versions before 5 and the original training code pad with 0.5 (grey).
/// This processor does as 5.17 does, unless `preprocessor_config.json` has a field `pad_value` (0 to 1; the reference
/// ignores it). Square pictures have no padding.
///
/// **Blur.** A picture that is made smaller by a factor f is first blurred with a Gaussian of standard deviation
/// (f - 1) / 2, then sampled bilinearly without further antialiasing, as scikit-image's resize does, from which the
/// reference derives it. Blur and sampling are linear and separable, so they are applied as one weighted sum along
/// each axis, and the padded square is never built.
#[derive(Debug, Clone)]
pub struct Owlv2Processor {
    side: usize,
    pad: bool,
    pad_value: f32,
    normalisation: Normalisation,
}

impl Owlv2Processor {
    /// Reads `preprocessor_config.json` for a tower whose input has sides of `image_size` pixels.
    ///
    /// # Errors
    /// A missing or malformed file, another kind of processor, or an output that does not fit the tower.
    pub fn load(tree: &FileTree, image_size: usize) -> Result<Self> {
        let (raw, path) = RawProcessor::load(tree, &["Owlv2"])?;
        if !raw.do_resize.unwrap_or(true) {
            return Err(ModelError::unsupported(path, "`do_resize`", "false", "true"));
        }
        let size = raw.size.as_ref().map_or(Some((960, 960)), |size| size.exact());
        if size.is_none_or(|(height, width)| (height as usize, width as usize) != (image_size, image_size)) {
            let detail =
                format!("`size` is {:?}, the vision tower takes {image_size}x{image_size}", raw.size);
            return Err(ModelError::malformed(path, detail));
        }
        let pad_value = raw.pad_value.unwrap_or(0.0);
        if !(0.0..=1.0).contains(&pad_value) {
            return Err(ModelError::malformed(path, format!("`pad_value` is {pad_value}, expected 0 to 1")));
        }
        Ok(Self {
            side: image_size,
            pad: raw.do_pad.unwrap_or(true),
            pad_value,
            normalisation: raw.normalisation(&path)?,
        })
    }

    /// Side of the square, in pixels, that `picture`'s boxes relate to. Without padding each axis is stretched on its
    /// own, and boxes still relate to the longer side in the reference; such a configuration is refused by the model.
    pub(crate) fn pads(&self) -> bool {
        self.pad
    }

    /// Model inputs of pictures, shape `(pictures, 3, side, side)`, f32.
    ///
    /// # Errors
    /// No picture, or one without pixels.
    pub fn batch(&self, pictures: &[&RgbImage], device: &Device) -> Result<Tensor> {
        let mut values = Vec::with_capacity(pictures.len() * 3 * self.side * self.side);
        for picture in pictures {
            let (width, height) = (picture.width() as usize, picture.height() as usize);
            if width == 0 || height == 0 {
                return Err(ModelError::Request(format!(
                    "a picture of {width}x{height} pixels, expected any"
                )));
            }
            if (width, height) == (self.side, self.side) {
                self.normalisation.extend_planar(picture, &mut values);
                continue;
            }
            let (across, down) =
                if self.pad { (width.max(height), width.max(height)) } else { (width, height) };
            // The reference blurs only if both axes get smaller.
            let blur = across > self.side && down > self.side;
            let columns = blurred_bilinear_weights(across, self.side, width, blur);
            let rows = blurred_bilinear_weights(down, self.side, height, blur);
            resample_planar(picture, &columns, &rows, self.pad_value, &self.normalisation, &mut values);
        }
        Ok(Tensor::from_vec(values, (pictures.len(), 3, self.side, self.side), device)?)
    }
}
