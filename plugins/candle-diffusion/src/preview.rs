//! Previews: how they are made, and the cheapest way, a linear map from latents to colours.

use candle_core::Tensor;
use cluegate_models::{FileTree, ModelError};
use image::RgbImage;
use image::imageops::{self, FilterType};
use serde::{Deserialize, Serialize};

use crate::config::VaeConfig;
use crate::error::Result;

/// How previews are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PreviewKind {
    /// By the VAE's decoder: as sharp as the finished picture, and as costly.
    Vae,
    /// By a small decoder that was trained to draw as the VAE does: nearly as sharp, at a fraction of the cost.
    Tiny,
    /// By a linear map of each latent to a colour, scaled up: coarse, and nearly free.
    Linear,
}

/// The folder in the model's folder that holds the small decoder, an `AutoencoderTiny` such as TAESD
/// (`madebyollin/taesd`, `taesdxl`, `taesd3`, `taef1`) in the layout of diffusers.
pub const VAE_APPROX: &str = "vae_approx";

/// The file in the model's folder whose map comes before a known one: `{"factors": [[r, g, b], ..], "bias": [r, g, b]}`,
/// a row of `factors` for each channel of the latents, as the diffusion model sees them; colours are -1 to 1.
pub const LATENT_RGB: &str = "latent_rgb.json";

/// A linear map from latents to colours.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LatentRgb {
    /// Red, green and blue for each channel.
    pub factors: Vec<[f32; 3]>,
    /// Colour of latents of 0.
    #[serde(default)]
    pub bias: [f32; 3],
}

/// Channels of all published VAEs of these families; a VAE of another shape is another one, whatever its scale.
const PUBLISHED: [usize; 4] = [128, 256, 512, 512];

/// A published VAE's map.
struct Known {
    /// `scaling_factor` of its configuration, which differs from VAE to VAE.
    scaling_factor: f64,
    factors: &'static [[f32; 3]],
    bias: [f32; 3],
}

/// Fitted to the published VAEs of Stable Diffusion 1.x and 2.x, SDXL, Stable Diffusion 3 and Flux (numbers of ComfyUI at
/// 040a324, `comfy/latent_formats.py`).
const KNOWN: [Known; 4] = [
    Known {
        scaling_factor: 0.18215,
        factors: &[
            [0.3512, 0.2297, 0.3227],
            [0.3250, 0.4974, 0.2350],
            [-0.2829, 0.1762, 0.2721],
            [-0.2120, -0.2616, -0.7177],
        ],
        bias: [0.0; 3],
    },
    Known {
        scaling_factor: 0.13025,
        factors: &[
            [0.3651, 0.4232, 0.4341],
            [-0.2533, -0.0042, 0.1068],
            [0.1076, 0.1111, -0.0362],
            [-0.3165, -0.2492, -0.2188],
        ],
        bias: [0.1084, -0.0175, -0.0011],
    },
    Known {
        scaling_factor: 1.5305,
        factors: &[
            [-0.0922, -0.0175, 0.0749],
            [0.0311, 0.0633, 0.0954],
            [0.1994, 0.0927, 0.0458],
            [0.0856, 0.0339, 0.0902],
            [0.0587, 0.0272, -0.0496],
            [-0.0006, 0.1104, 0.0309],
            [0.0978, 0.0306, 0.0427],
            [-0.0042, 0.1038, 0.1358],
            [-0.0194, 0.0020, 0.0669],
            [-0.0488, 0.0130, -0.0268],
            [0.0922, 0.0988, 0.0951],
            [-0.0278, 0.0524, -0.0542],
            [0.0332, 0.0456, 0.0895],
            [-0.0069, -0.0030, -0.0810],
            [-0.0596, -0.0465, -0.0293],
            [-0.1448, -0.1463, -0.1189],
        ],
        bias: [0.2394, 0.2135, 0.1925],
    },
    Known {
        scaling_factor: 0.3611,
        factors: &[
            [-0.0346, 0.0244, 0.0681],
            [0.0034, 0.0210, 0.0687],
            [0.0275, -0.0668, -0.0433],
            [-0.0174, 0.0160, 0.0617],
            [0.0859, 0.0721, 0.0329],
            [0.0004, 0.0383, 0.0115],
            [0.0405, 0.0861, 0.0915],
            [-0.0236, -0.0185, -0.0259],
            [-0.0245, 0.0250, 0.1180],
            [0.1008, 0.0755, -0.0421],
            [-0.0515, 0.0201, 0.0011],
            [0.0428, -0.0012, -0.0036],
            [0.0817, 0.0765, 0.0749],
            [-0.1264, -0.0522, -0.1103],
            [-0.0280, -0.0881, -0.0499],
            [-0.1262, -0.0982, -0.0778],
        ],
        bias: [-0.0329, -0.0718, -0.0851],
    },
];

impl LatentRgb {
    /// The map of the model in `tree` with this VAE: its file, or the known one of a published VAE, if there is any.
    ///
    /// # Errors
    /// `Malformed` for a file that is not one, or that has another number of channels.
    pub fn load(tree: &FileTree, vae: &VaeConfig) -> Result<Option<Self>> {
        if !tree.exists(LATENT_RGB) {
            let known = KNOWN.iter().find(|known| {
                vae.channels == PUBLISHED
                    && known.factors.len() == vae.latent_channels
                    && (known.scaling_factor - vae.scaling_factor).abs() < 1e-9
            });
            return Ok(known.map(|known| Self { factors: known.factors.to_vec(), bias: known.bias }));
        }
        let map: Self = tree.read_json(LATENT_RGB)?;
        let finite = map.factors.iter().chain([&map.bias]).flatten().all(|value| value.is_finite());
        if map.factors.len() != vae.latent_channels || !finite {
            let detail = format!(
                "expected {} rows of finite `factors` (the VAE's `latent_channels`), found {}",
                vae.latent_channels,
                map.factors.len()
            );
            return Err(ModelError::malformed(tree.path_of(LATENT_RGB), detail).into());
        }
        Ok(Some(map))
    }

    /// The colours of `latents` `(1, channels, height, width)`, scaled up to `size` pixels (width, height); `None` if they
    /// are not all numbers.
    ///
    /// # Errors
    /// A failed tensor operation.
    pub(crate) fn picture(&self, latents: &Tensor, size: (u32, u32)) -> Result<Option<RgbImage>> {
        let (_, channels, height, width) = latents.dims4()?;
        let values = latents.flatten_all()?.to_vec1::<f32>()?;
        if values.iter().any(|value| !value.is_finite()) {
            return Ok(None);
        }
        let small = RgbImage::from_fn(width as u32, height as u32, |x, y| {
            let at = y as usize * width + x as usize;
            let latent = (0..channels).map(|channel| values[channel * height * width + at]);
            let colour = self.factors.iter().zip(latent).fold(self.bias, |colour, (factors, value)| {
                std::array::from_fn(|i| colour[i] + factors[i] * value)
            });
            image::Rgb(colour.map(|value| ((value * 0.5 + 0.5).clamp(0.0, 1.0) * 255.0).round() as u8))
        });
        Ok(Some(imageops::resize(&small, size.0, size.1, FilterType::Triangle)))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    fn vae(channels: usize, scaling_factor: f64) -> VaeConfig {
        VaeConfig {
            channels: PUBLISHED.to_vec(),
            layers: 1,
            latent_channels: channels,
            norm_groups: 32,
            scaling_factor,
            shift_factor: 0.0,
            quant_conv: true,
            post_quant_conv: true,
            mid_attention: true,
        }
    }

    #[test]
    fn a_file_comes_before_what_is_known() {
        let folder = tempfile::tempdir().unwrap();
        let tree = FileTree::open(folder.path()).unwrap();
        assert!(LatentRgb::load(&tree, &vae(4, 0.7)).unwrap().is_none());
        let small = VaeConfig { channels: vec![32, 64], ..vae(4, 0.18215) };
        assert!(LatentRgb::load(&tree, &small).unwrap().is_none());
        let sdxl = LatentRgb::load(&tree, &vae(4, 0.13025)).unwrap().unwrap();
        assert!((sdxl.bias[0] - 0.1084).abs() < 1e-6);
        assert_eq!(LatentRgb::load(&tree, &vae(16, 0.3611)).unwrap().unwrap().factors.len(), 16);
        let file = folder.path().join(LATENT_RGB);
        std::fs::write(&file, r#"{"factors": [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]]}"#).unwrap();
        assert_eq!(LatentRgb::load(&tree, &vae(4, 0.13025)).unwrap().unwrap().factors[1], [0.0, 1.0, 0.0]);
        for (text, word) in [(r#"{"factors": [[1, 0, 0]]}"#, "4 rows"), (r#"{"factor": []}"#, "factor")] {
            std::fs::write(&file, text).unwrap();
            let error = LatentRgb::load(&tree, &vae(4, 0.13025)).unwrap_err().to_string();
            assert!(error.contains(word) && error.contains(LATENT_RGB), "{error}");
        }
    }

    #[test]
    fn each_latent_becomes_its_colour() {
        let map = LatentRgb { factors: vec![[1.0, 0.0, 0.0], [0.0, 1.0, 0.5]], bias: [0.0, 0.0, -0.5] };
        let latents = Tensor::from_vec(vec![1f32, -1.0, 0.0, 1.0], (1, 2, 1, 2), &Device::Cpu).unwrap();
        let picture = map.picture(&latents, (2, 1)).unwrap().unwrap();
        assert_eq!(picture.as_raw(), &[255, 128, 64, 0, 255, 128]);
        let picture = map.picture(&latents, (8, 4)).unwrap().unwrap();
        assert_eq!(picture.dimensions(), (8, 4));
        let nan = (latents * f64::NAN).unwrap();
        assert!(map.picture(&nan, (2, 1)).unwrap().is_none());
    }
}
