//! What a caller may choose.

use std::sync::Arc;

use cluegate_perception::Call;
use serde::{Deserialize, Serialize};

/// Which stages of the method run. All of them by default; switching one off is for ablations (CLUE, Table 6 and
/// neighbours), and a report made without a stage is no permission to release a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Stages {
    /// Off: every rule counts as relevant.
    pub relevance_scan: bool,
    /// Off: no debiasing at all; a statement holds if its score is above one half.
    pub debias: bool,
    /// Off: the comparison with `M(None, c)` (the lines with a1 and a2) is left out, and every statement goes on to the
    /// region comparison.
    pub no_image_comparison: bool,
    /// Off: the comparison with the central objects removed is left out.
    pub region_comparison: bool,
    /// Off: a statement that is still undecided holds if its score is above one half.
    pub reasoning: bool,
    /// Off: small objects are looked at in the whole picture.
    pub crop: bool,
    /// Off: the relevance scan looks at the whole picture alone, not also at the squares that cover one that is not square.
    #[serde(default = "on")]
    pub views: bool,
}

/// Reports of before there was the stage had it.
fn on() -> bool {
    true
}

impl Stages {
    /// The whole method.
    pub const ALL: Self = Self {
        relevance_scan: true,
        debias: true,
        no_image_comparison: true,
        region_comparison: true,
        reasoning: true,
        crop: true,
        views: true,
    };

    /// What is left for a [`Glance`](crate::Glance): one view of the picture, compared with what the model says without it.
    pub const GLANCE: Self =
        Self { region_comparison: false, reasoning: false, crop: false, views: false, ..Self::ALL };

    /// Whether the detector is needed at all.
    pub(crate) fn detects(self) -> bool {
        self.crop || (self.debias && self.region_comparison)
    }
}

impl Default for Stages {
    fn default() -> Self {
        Self::ALL
    }
}

/// Choices of one inspection.
#[derive(Debug, Clone, Default)]
pub struct InspectOptions {
    /// Which stages run.
    pub stages: Stages,
    /// Ask the whole method though the judge has a pre-filter: for labels to learn from, and for policies that refuse its
    /// word. A stage that is switched off switches the pre-filter off too.
    pub without_prefilter: bool,
    /// Decode a rationale for every statement that reasoning decided. Costs decoded tokens; leave it off when nobody
    /// will read it. The verdict does not depend on it.
    pub rationale: bool,
    /// The words that the picture was made from, if the host knows them. Only consequence rules are shown them, when
    /// they project what is likely to follow. They come from whoever is to be judged, who may choose them to sway that
    /// projection.
    pub prompt: Option<Arc<str>>,
    /// For whom the models work. After its deadline, or once it is called off, no model is called and the inspection
    /// fails with [`JudgeErrorKind::Timeout`](crate::JudgeErrorKind::Timeout) or
    /// [`JudgeErrorKind::Cancelled`](crate::JudgeErrorKind::Cancelled). How soon a call that has begun ends is the
    /// model's affair.
    pub call: Call,
}

/// Choices of a judge, the same for all inspections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JudgeOptions {
    /// Most tokens of a chain of thought. A thought that is cut there is rated as it stands.
    pub max_reasoning_tokens: usize,
    /// Most tokens of a projection of consequences; one that is cut there is an error, for what it did not come to say
    /// may be the harm.
    pub max_projection_tokens: usize,
    /// Most tokens of a rationale; one that is cut there cannot be parsed, which is an error.
    pub max_rationale_tokens: usize,
    /// Least side of a crop, in pixels: a smaller region is widened to it within the picture, because vision towers
    /// refuse or misread pictures of a few pixels.
    pub min_crop_side: u32,
}

impl Default for JudgeOptions {
    fn default() -> Self {
        Self {
            max_reasoning_tokens: 256,
            max_projection_tokens: 256,
            max_rationale_tokens: 192,
            min_crop_side: 32,
        }
    }
}
