//! The gate as a host sees it, over scripted models.

mod actions;
mod driven;
mod failures;
mod logging;
mod properties;
mod world;
