//! What a gate and a plugin say to each other.
//!
//! A plugin is a shared library that draws pictures, judges them or acts on a verdict. It exports one function,
//! [`ENTRY`], which takes a [`table::Host`] and gives a [`table::Plugin`]: tables of C functions, each with its own size
//! (see [`table`]). A plugin in C, or in whatever else can make a C library, is written against
//! `include/cluegate_plugin.h`; one in Rust implements the traits of this crate and names them in [`export_plugin!`]:
//!
//! ```
//! use cluegate_abi::{Call, Classification, Classify, Host, Label, PictureView, Plugin, PluginError, Setup};
//!
//! struct Magenta;
//!
//! impl Plugin for Magenta {
//!     const NAME: &'static str = "magenta";
//!     const VERSION: &'static str = "1.0.0";
//!     const ABOUT: &'static str = "Finds pictures that are magenta.";
//!     const SCHEMA: &'static str = r#"{ "type": "object", "additionalProperties": false }"#;
//!
//!     fn create(_: &Setup<'_>, _: Host) -> Result<Self, PluginError> {
//!         Ok(Self)
//!     }
//! }
//!
//! impl Classify for Magenta {
//!     fn classify(&self, picture: &PictureView<'_>, _: &Call<'_>) -> Result<Classification, PluginError> {
//!         let magenta = |pixel: &[u8]| pixel[0] > 200 && pixel[1] < 50 && pixel[2] > 200;
//!         let found = picture.pixels().filter(|pixel| magenta(pixel)).count();
//!         let score = found as f32 / (picture.width() * picture.height()) as f32;
//!         let label = Label { name: "magenta".to_owned(), score, region: None };
//!         Ok(Classification { flagged: score > 0.5, score, labels: vec![label] })
//!     }
//! }
//!
//! cluegate_abi::export_plugin!(Magenta: classify);
//! ```
//!
//! # Rules of the boundary
//! - **C alone crosses it**: no Rust type, no `dyn Trait`, no allocator. Whoever allocates, frees: texts and pictures are
//!   borrowed for the length of one call, and what a plugin gives is copied by the host before the function that takes it
//!   returns.
//! - **A panic never crosses it.** [`export_plugin!`] turns one into [`ErrorCode::Panic`]. A plugin that is built with
//!   `panic = "abort"` ends the process it runs in.
//! - **Tables grow at their end only**, within one major version. Every table begins with its size in bytes: what lies
//!   beyond it is not there. A function that may be missing is null.
//! - **A library is never unloaded**, so that its functions, texts and tables live as long as the process.

#![allow(unsafe_code)]

mod sdk;
pub mod table;

pub use sdk::{
    Answer, AnswerScore, Call, Classification, Classify, Control, Draw, DrawSource, Drawn, Edit, ErrorCode,
    Generate, Host, Inpaint, Label, LatentView, LogLevel, PictureBuf, PictureView, Plugin, PluginError,
    Preview, Publish, Redact, Region, Rewrite, Rewriting, Setup, Steps,
};

#[doc(hidden)]
pub use sdk::Abilities;

/// The tables' major version: it is part of the entry's name, and tables of two major versions have nothing to do with
/// each other.
pub const MAJOR: u32 = 1;

/// The tables' minor version: how often something was added to them. 1.0 had no `check` of a drawing, and 1.1 no pictures to
/// begin one from.
pub const MINOR: u32 = 2;

/// The name of the function that a plugin exports: [`table::Entry`].
pub const ENTRY: &str = "cluegate_plugin_1";

/// The C header of these tables.
pub const HEADER: &str = include_str!("../include/cluegate_plugin.h");

/// Exports a type as this library's plugin: its name, then what it can do, which is the name of the trait's function for
/// each of [`Generate`], [`Classify`], [`Answer`], [`Redact`], [`Inpaint`], [`Rewrite`] and [`Publish`] that it implements:
/// `export_plugin!(Colours: classify, answer);`. Once in a library.
#[macro_export]
macro_rules! export_plugin {
    ($plugin:ty: $($ability:ident),+ $(,)?) => {
        const _: () = {
            static ABILITIES: $crate::Abilities = $crate::Abilities::none()$(.$ability::<$plugin>())+;
            static PIPELINE: $crate::table::Pipeline = ABILITIES.pipeline;
            static JUDGE: $crate::table::Judge = ABILITIES.judge;
            static ACTION: $crate::table::Action = ABILITIES.action;
            static PLUGIN: $crate::table::Plugin =
                ABILITIES.plugin::<$plugin>(&raw const PIPELINE, &raw const JUDGE, &raw const ACTION);

            /// The entry of the plugin.
            // SAFETY: the name has the ABI's major version and belongs to it; no second entry is in a library.
            #[allow(unsafe_code, unreachable_pub)]
            #[unsafe(no_mangle)]
            pub unsafe extern "C" fn cluegate_plugin_1(
                host: *const $crate::table::Host,
                plugin: *mut *const $crate::table::Plugin,
                error: *mut $crate::table::Error,
            ) -> i32 {
                // SAFETY: passed on as they came, under the same contract.
                unsafe { $crate::Abilities::enter(&PLUGIN, host, plugin, error) }
            }
        };
    };
}
