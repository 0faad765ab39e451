//! What is asked for and what is given, without pointers.

use super::error::PluginError;
use crate::table;

/// Most channels of a latent picture.
const MAX_CHANNELS: u32 = 64;

/// A box in pixels of a picture, (0, 0) its upper left corner.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Region {
    /// Left edge.
    pub left: f32,
    /// Upper edge.
    pub top: f32,
    /// Right edge.
    pub right: f32,
    /// Lower edge.
    pub bottom: f32,
}

/// A picture of 8-bit red, green and blue, borrowed for one call.
#[derive(Debug, Clone, Copy)]
pub struct PictureView<'a> {
    bytes: &'a [u8],
    stride: usize,
    width: u32,
    height: u32,
}

impl PartialEq for PictureView<'_> {
    /// The same pixels, whatever lies between the rows.
    fn eq(&self, other: &Self) -> bool {
        (self.width, self.height) == (other.width, other.height) && self.rows().eq(other.rows())
    }
}

impl<'a> PictureView<'a> {
    /// A picture of `width` x `height` pixels in `bytes`, row by row without a gap.
    ///
    /// # Errors
    /// If there are not 3 x `width` x `height` bytes, or no pixels.
    pub fn new(bytes: &'a [u8], width: u32, height: u32) -> Result<Self, PluginError> {
        let stride = 3 * width as usize;
        if width == 0 || height == 0 || stride.checked_mul(height as usize) != Some(bytes.len()) {
            return Err(PluginError::contract(format!(
                "expected 3 x width x height bytes of a picture, got {} for {width} x {height} pixels",
                bytes.len()
            )));
        }
        Ok(Self { bytes, stride, width, height })
    }

    /// The picture at `place`.
    ///
    /// # Errors
    /// If it has no pixels, no room for them, or more than memory can hold.
    ///
    /// # Safety
    /// `place` is null or points to a picture whose rows are readable for `'a`.
    pub unsafe fn read(place: *const table::Picture) -> Result<Self, PluginError> {
        // SAFETY: says the caller.
        let Some(picture) = (unsafe { place.as_ref() }) else {
            return Err(PluginError::contract("expected a picture, got a null pointer"));
        };
        let table::Picture { data, stride, width, height } = *picture;
        let row = 3 * width as usize;
        let length =
            (height as usize).checked_sub(1).and_then(|rows| stride.checked_mul(rows)?.checked_add(row));
        match length {
            Some(length) if !data.is_null() && row > 0 && stride >= row && length <= isize::MAX as usize => {
                // SAFETY: `height` rows, `stride` apart, are readable, says the caller.
                let bytes = unsafe { std::slice::from_raw_parts(data, length) };
                Ok(Self { bytes, stride, width, height })
            }
            _ => Err(PluginError::contract(format!(
                "expected a picture with pixels, got {width} x {height}, {stride} bytes a row, at {data:?}"
            ))),
        }
    }

    /// The same as C sees it.
    pub fn table(&self) -> table::Picture {
        table::Picture {
            data: self.bytes.as_ptr(),
            stride: self.stride,
            width: self.width,
            height: self.height,
        }
    }

    /// Pixels of a row, 1 or more.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Rows, 1 or more.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// Rows from the top: 3 x width bytes each.
    pub fn rows(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let row = 3 * self.width as usize;
        self.bytes.chunks(self.stride).map(move |bytes| &bytes[..row])
    }

    /// Pixels row by row: red, green and blue.
    pub fn pixels(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        self.rows().flat_map(|row| row.chunks_exact(3))
    }

    /// A copy without gaps.
    pub fn to_buf(&self) -> PictureBuf {
        let mut pixels = Vec::with_capacity(3 * self.width as usize * self.height as usize);
        self.rows().for_each(|row| pixels.extend_from_slice(row));
        PictureBuf { pixels, width: self.width, height: self.height }
    }
}

/// A picture of 8-bit red, green and blue of one's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PictureBuf {
    pixels: Vec<u8>,
    width: u32,
    height: u32,
}

impl PictureBuf {
    /// A picture of `width` x `height` pixels, row by row from the top, 3 bytes each.
    ///
    /// # Errors
    /// If there are not 3 x `width` x `height` bytes, or no pixels.
    pub fn new(pixels: Vec<u8>, width: u32, height: u32) -> Result<Self, PluginError> {
        PictureView::new(&pixels, width, height)?;
        Ok(Self { pixels, width, height })
    }

    /// The picture for one call.
    pub fn view(&self) -> PictureView<'_> {
        PictureView {
            bytes: &self.pixels,
            stride: 3 * self.width as usize,
            width: self.width,
            height: self.height,
        }
    }

    /// Pixels of a row.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Rows.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// The pixels, row by row without a gap.
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// The same, to be changed.
    pub fn pixels_mut(&mut self) -> &mut [u8] {
        &mut self.pixels
    }

    /// The pixels' memory.
    pub fn into_pixels(self) -> Vec<u8> {
        self.pixels
    }
}

/// A latent picture with the linear map that shows what it will become: the cheap kind of preview.
#[derive(Debug, Clone, Copy)]
pub struct LatentView<'a> {
    data: &'a [f32],
    rgb: &'a [f32],
    channels: u32,
    width: u32,
    height: u32,
}

impl<'a> LatentView<'a> {
    /// Values channel by channel, row by row; for each of red, green and blue a factor per channel and then a constant, whose
    /// sums are levels from 0 to 1.
    ///
    /// # Errors
    /// If there are not `channels` x `width` x `height` values and 3 x (`channels` + 1) factors, no pixels, or more than 64
    /// channels.
    pub fn new(
        data: &'a [f32],
        rgb: &'a [f32],
        channels: u32,
        (width, height): (u32, u32),
    ) -> Result<Self, PluginError> {
        let (values, factors) = Self::lengths(channels, width, height)?;
        if (data.len(), rgb.len()) != (values, factors) {
            return Err(PluginError::contract(format!(
                "expected {values} latent values and {factors} factors, got {} and {}",
                data.len(),
                rgb.len()
            )));
        }
        Ok(Self { data, rgb, channels, width, height })
    }

    fn lengths(channels: u32, width: u32, height: u32) -> Result<(usize, usize), PluginError> {
        let pixels = (width as usize).checked_mul(height as usize).filter(|pixels| *pixels > 0);
        let values = pixels.and_then(|pixels| pixels.checked_mul(channels as usize));
        match values {
            Some(values) if (1..=MAX_CHANNELS).contains(&channels) && values <= isize::MAX as usize / 4 => {
                Ok((values, 3 * (channels as usize + 1)))
            }
            _ => Err(PluginError::contract(format!(
                "expected a latent picture with pixels and 1 to {MAX_CHANNELS} channels, got {width} x {height} and {channels}"
            ))),
        }
    }

    /// The latent picture at `place`.
    ///
    /// # Errors
    /// As for [`LatentView::new`].
    ///
    /// # Safety
    /// `place` points to a latent picture whose values and factors are readable for `'a`.
    pub unsafe fn read(place: *const table::Latent) -> Result<Self, PluginError> {
        // SAFETY: says the caller.
        let Some(latent) = (unsafe { place.as_ref() }) else {
            return Err(PluginError::contract("expected a latent picture, got a null pointer"));
        };
        let table::Latent { data, rgb, channels, width, height, .. } = *latent;
        let (values, factors) = Self::lengths(channels, width, height)?;
        if data.is_null() || rgb.is_null() {
            return Err(PluginError::contract("expected values and factors of a latent picture, got none"));
        }
        // SAFETY: as many values and factors are readable, says the caller.
        let (data, rgb) =
            unsafe { (std::slice::from_raw_parts(data, values), std::slice::from_raw_parts(rgb, factors)) };
        Ok(Self { data, rgb, channels, width, height })
    }

    /// The same as C sees it.
    pub fn table(&self) -> table::Latent {
        table::Latent {
            data: self.data.as_ptr(),
            rgb: self.rgb.as_ptr(),
            channels: self.channels,
            width: self.width,
            height: self.height,
            reserved: 0,
        }
    }

    /// Pixels of a row.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Rows.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// What it shows: a picture of as many pixels as the latent one has. Values that are no numbers are black.
    pub fn picture(&self) -> PictureBuf {
        let (pixels, channels) = (self.width as usize * self.height as usize, self.channels as usize);
        let mut shown = Vec::with_capacity(3 * pixels);
        for pixel in 0..pixels {
            for factors in self.rgb.chunks_exact(channels + 1) {
                let (constant, factors) = (factors[channels], &factors[..channels]);
                let weighted =
                    factors.iter().enumerate().map(|(channel, f)| f * self.data[channel * pixels + pixel]);
                let level: f32 = constant + weighted.sum::<f32>();
                shown.push((level.clamp(0.0, 1.0) * 255.0).round() as u8);
            }
        }
        PictureBuf { pixels: shown, width: self.width, height: self.height }
    }
}

/// What is to be drawn; what is `None` is the plugin's own choice.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Draw<'a> {
    /// What is to be seen.
    pub prompt: &'a str,
    /// What is not to be seen; empty for nothing.
    pub negative_prompt: &'a str,
    /// The sampler's name.
    pub sampler: Option<&'a str>,
    /// The same seed gives the same picture.
    pub seed: u64,
    /// Weight of the prompt (classifier-free guidance).
    pub guidance: Option<f64>,
    /// Number of steps.
    pub steps: Option<u32>,
    /// Width in pixels.
    pub width: Option<u32>,
    /// Height in pixels.
    pub height: Option<u32>,
    /// Statements that made earlier attempts violate a rule: words for a negative prompt.
    pub avoid: Vec<&'a str>,
    /// A picture to begin from, in place of noise alone; only for a plugin that says that it can.
    pub source: Option<DrawSource<'a>>,
}

/// A picture to begin from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DrawSource<'a> {
    /// The picture, which may have another size than what is to be drawn.
    pub picture: PictureView<'a>,
    /// Of the same size: white where to draw anew, black where the picture stays; `None` for everywhere.
    pub mask: Option<PictureView<'a>>,
    /// How far the result may be from the picture, over 0 and at most 1.
    pub strength: Option<f64>,
}
