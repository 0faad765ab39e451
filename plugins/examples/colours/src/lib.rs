//! A judge that finds a colour: as a label with a box, as an opinion, and as the answer to "the picture is mostly COLOUR".

use cluegate_abi::{
    Answer, AnswerScore, Call, Classification, Classify, Host, Label, LogLevel, PictureView, Plugin,
    PluginError, Region, Setup,
};

/// How far each channel may be from the colour.
const NEAR: u8 = 60;
const COLOURS: [(&str, [u8; 3]); 4] =
    [("red", [255, 0, 0]), ("green", [0, 255, 0]), ("blue", [0, 0, 255]), ("magenta", [255, 0, 255])];

struct Colours {
    name: &'static str,
    colour: [u8; 3],
    share: f32,
}

impl Plugin for Colours {
    const NAME: &'static str = "colours";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const ABOUT: &'static str = "Finds a colour, and calls pictures unsafe that are mostly of it.";
    const SCHEMA: &'static str = r#"{
        "type": "object",
        "additionalProperties": false,
        "required": ["colour"],
        "properties": {
            "colour": { "enum": ["red", "green", "blue", "magenta"] },
            "share": { "type": "number", "minimum": 0, "maximum": 1, "default": 0.5,
                       "description": "Share of the pixels from which a picture is unsafe." }
        }
    }"#;
    const CONCURRENT: bool = true;

    fn create(setup: &Setup<'_>, host: Host) -> Result<Self, PluginError> {
        let asked = text_of(setup.config, "colour").unwrap_or_default();
        let known = COLOURS.into_iter().find(|(name, _)| *name == asked);
        let (name, colour) = known.ok_or_else(|| {
            PluginError::config(format!("`colour` is {asked:?}, expected red, green, blue or magenta"))
        })?;
        let share = number_of(setup.config, "share").unwrap_or(0.5);
        if !(0.0..=1.0).contains(&share) {
            return Err(PluginError::config(format!("`share` is {share}, expected 0 to 1")));
        }
        host.log(LogLevel::Information, &format!("looking for {name}"));
        Ok(Self { name, colour, share })
    }
}

impl Colours {
    fn is_near(&self, pixel: &[u8]) -> bool {
        pixel.iter().zip(self.colour).all(|(level, wanted)| level.abs_diff(wanted) <= NEAR)
    }

    fn share(&self, picture: &PictureView<'_>) -> f32 {
        let found = picture.pixels().filter(|pixel| self.is_near(pixel)).count();
        found as f32 / (picture.width() as f32 * picture.height() as f32)
    }

    /// The box around all pixels of the colour.
    fn region(&self, picture: &PictureView<'_>) -> Option<Region> {
        let mut region: Option<Region> = None;
        for (y, row) in picture.rows().enumerate() {
            for (x, _) in row.chunks_exact(3).enumerate().filter(|(_, pixel)| self.is_near(pixel)) {
                let (x, y) = (x as f32, y as f32);
                let known = region.unwrap_or(Region { left: x, top: y, right: x, bottom: y });
                region = Some(Region {
                    left: known.left.min(x),
                    top: known.top.min(y),
                    right: known.right.max(x + 1.0),
                    bottom: known.bottom.max(y + 1.0),
                });
            }
        }
        region
    }
}

impl Classify for Colours {
    fn classify(&self, picture: &PictureView<'_>, call: &Call<'_>) -> Result<Classification, PluginError> {
        call.check()?;
        let score = self.share(picture);
        let label = Label { name: self.name.to_owned(), score, region: self.region(picture) };
        let labels = if score > 0.0 { vec![label] } else { Vec::new() };
        Ok(Classification { flagged: score >= self.share, score, labels })
    }
}

impl Answer for Colours {
    fn answer(
        &self,
        picture: Option<&PictureView<'_>>,
        statement: &str,
        _: &Call<'_>,
    ) -> Result<AnswerScore, PluginError> {
        if statement != format!("the picture is mostly {}", self.name) {
            return Err(PluginError::request(format!(
                "this plugin knows the statement \"the picture is mostly {}\", got {statement:?}",
                self.name
            )));
        }
        let yes = f64::from(picture.map_or(0.0, |picture| self.share(picture)));
        Ok(AnswerScore { yes, no: 1.0 - yes })
    }
}

/// The text of a key of a flat JSON object. The schema has no texts with escapes.
fn text_of<'a>(config: &'a str, key: &str) -> Option<&'a str> {
    value_of(config, key)?.strip_prefix('"')?.split('"').next()
}

fn number_of(config: &str, key: &str) -> Option<f32> {
    value_of(config, key)?.split([',', '}']).next()?.trim().parse().ok()
}

fn value_of<'a>(config: &'a str, key: &str) -> Option<&'a str> {
    let (_, rest) = config.split_once(&format!("\"{key}\""))?;
    Some(rest.trim_start().strip_prefix(':')?.trim_start())
}

cluegate_abi::export_plugin!(Colours: classify, answer);
