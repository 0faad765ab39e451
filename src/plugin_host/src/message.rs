//! What a plugin is asked and what it says, apart from pixels: the same whether it lives in this process or in its own.

use cluegate_abi::table;
use serde::{Deserialize, Serialize};

/// What a plugin is asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Ask {
    /// Whether something like this can be drawn.
    Check(Drawing),
    /// To draw a picture.
    Generate(Drawing),
    /// What is in a picture.
    Classify,
    /// Whether a statement holds, of a picture or of any.
    Answer {
        /// The statement.
        statement: String,
    },
    /// To hide regions of a picture.
    Redact(Change),
    /// To paint something else into regions of a picture.
    Inpaint(Change),
    /// Another prompt.
    Rewrite {
        /// The prompt.
        prompt: String,
        /// Statements that made earlier attempts violate a rule.
        avoid: Vec<String>,
        /// The attempt that it is for, from 1.
        attempt: u32,
    },
    /// To tell somebody of a decision.
    Publish {
        /// The decision log's entry, a JSON object.
        decision: String,
    },
}

impl Ask {
    /// The ability that it needs, by the name of the kit's function.
    pub(crate) fn ability(&self) -> &'static str {
        match self {
            Self::Check(_) | Self::Generate(_) => "generate",
            Self::Classify => "classify",
            Self::Answer { .. } => "answer",
            Self::Redact(_) => "redact",
            Self::Inpaint(_) => "inpaint",
            Self::Rewrite { .. } => "rewrite",
            Self::Publish { .. } => "publish",
        }
    }
}

/// What is to be drawn; what is `None` is the plugin's own choice.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Drawing {
    /// What is to be seen.
    pub prompt: String,
    /// What is not to be seen.
    pub negative_prompt: String,
    /// The sampler's name.
    pub sampler: Option<String>,
    /// The same seed gives the same picture.
    pub seed: u64,
    /// Weight of the prompt.
    pub guidance: Option<f64>,
    /// Number of steps, 1 or more.
    pub steps: Option<u32>,
    /// Width in pixels, 1 or more.
    pub width: Option<u32>,
    /// Height in pixels, 1 or more.
    pub height: Option<u32>,
    /// Statements that made earlier attempts violate a rule.
    pub avoid: Vec<String>,
    /// How far the result may be from the picture that it begins from, over 0 and at most 1; of no meaning without one.
    pub strength: Option<f64>,
}

/// What is to be changed in a picture.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Change {
    /// Left, upper, right and lower edge of each region in pixels.
    pub regions: Vec<[f32; 4]>,
    /// What the picture was made from; empty if nobody knows.
    pub prompt: String,
    /// The same seed gives the same picture.
    pub seed: u64,
}

/// What a plugin says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Said {
    /// That it is done.
    Done,
    /// That it gave a drawing up because it was told to.
    Aborted,
    /// A picture, which goes another way.
    Picture,
    /// What it found in a picture.
    Found(Found),
    /// How much of an answer is Yes and how much No, 0 to 1 each.
    Answer {
        /// Yes.
        yes: f64,
        /// No.
        no: f64,
    },
    /// A text.
    Text(String),
}

/// What a judge found in a picture.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Found {
    /// Whether it calls the picture unsafe.
    pub flagged: bool,
    /// How sure that is, 0 to 1.
    pub score: f32,
    /// What it found or looked for.
    pub labels: Vec<FoundLabel>,
}

/// One thing that a judge found or looked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FoundLabel {
    /// Its name.
    pub name: String,
    /// How sure the judge is, 0 to 1.
    pub score: f32,
    /// Left, upper, right and lower edge in pixels, for a judge that finds boxes.
    pub region: Option<[f32; 4]>,
}

/// A plugin as it describes itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Description {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// What it does.
    pub about: String,
    /// The version of its tables, such as `1.2`.
    pub abi: String,
    /// What it can: `generate`, `classify`, `answer`, `redact`, `inpaint`, `rewrite`, `publish`.
    pub abilities: Vec<String>,
    /// Whether it may be called from several threads at a time.
    pub concurrent: bool,
    /// Whether it draws from pictures too.
    pub from_pictures: bool,
    /// JSON Schema of its configuration.
    pub schema: serde_json::Value,
}

/// From the edges of a region.
pub(crate) fn table_region([left, top, right, bottom]: [f32; 4]) -> table::Region {
    table::Region { left, top, right, bottom }
}

/// The edges of a region.
pub(crate) fn edges(region: &table::Region) -> [f32; 4] {
    [region.left, region.top, region.right, region.bottom]
}
