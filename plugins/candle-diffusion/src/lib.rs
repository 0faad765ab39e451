//! The Stable Diffusion loop in candle, with step hooks.
