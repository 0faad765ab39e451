//! Candle implementations of the perception traits.
