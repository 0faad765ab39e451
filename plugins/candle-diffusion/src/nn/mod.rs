//! The layers that text encoder, UNet and VAE are made of.
//!
//! Pictures and latents travel through them as `(batch, height, width, channels)`: a convolution is then one matrix
//! product over rows that lie together in memory, group norm and activation run over the same rows, and the
//! transformer blocks take a picture as tokens without a copy. On the CPU in f32 the work around the matrix products
//! is done by the operations of [`ops`]; elsewhere by candle's own.

mod attention;
mod blocks;
mod joint;
mod layers;
mod math;
mod ops;
mod winograd;

pub(crate) use attention::{AttentionBlock, SpatialTransformer, TransformerShape};
pub(crate) use blocks::{Downsample, ResnetBlock, ResnetShape, Upsample};
pub(crate) use joint::{
    Embedder, FeedForward, FinalNorm, Modulation, PICTURE, Projected, Projections, RmsNorm, Rope, TEXT,
    TimeText, add_gated, attend_jointly, from_patches, modulate, normalise, sinusoids, to_patches,
};
pub(crate) use layers::{Conv, GroupNorm, Linear};
pub(crate) use ops::{add_to, relu, to_channels_first, to_channels_last};
