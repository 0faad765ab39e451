//! The result of an inspection. Only [`Judge::inspect`](crate::Judge::inspect) makes one.

use std::fmt;
use std::time::Duration;

use cluegate_constitution::Revision;
use cluegate_perception::{ContentHash, Fingerprint};
use serde::{Deserialize, Serialize, Serializer};

use crate::evidence::{FoundRegion, Outcome, RuleEvidence, Verdict};
use crate::options::Stages;

/// A stage of the method that calls a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Embeddings of picture and rules.
    Relevance,
    /// The search for central objects.
    Detection,
    /// The projection of consequences.
    Projection,
    /// `M(x, c)` and `M(None, c)`.
    Statements,
    /// `M(x minus region, c)`.
    Regions,
    /// The chain of thought.
    Reasoning,
    /// The rating of the chain of thought.
    Rating,
    /// The decoding of a rationale.
    Rationale,
}

impl Stage {
    /// Stable name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Relevance => "relevance",
            Self::Detection => "detection",
            Self::Projection => "projection",
            Self::Statements => "statements",
            Self::Regions => "regions",
            Self::Reasoning => "reasoning",
            Self::Rating => "rating",
            Self::Rationale => "rationale",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One value for each stage.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct PerStage<T> {
    /// Embedding of the picture.
    pub relevance: T,
    /// The search for central objects.
    pub detection: T,
    /// The projection of consequences; nothing where no consequence rule was relevant.
    #[serde(default)]
    pub projection: T,
    /// `M(x, c)`.
    pub statements: T,
    /// `M(x minus region, c)`.
    pub regions: T,
    /// Chains of thought.
    pub reasoning: T,
    /// Ratings.
    pub rating: T,
    /// Rationales.
    pub rationale: T,
}

impl<T> PerStage<T> {
    pub(crate) fn get_mut(&mut self, stage: Stage) -> &mut T {
        match stage {
            Stage::Relevance => &mut self.relevance,
            Stage::Detection => &mut self.detection,
            Stage::Projection => &mut self.projection,
            Stage::Statements => &mut self.statements,
            Stage::Regions => &mut self.regions,
            Stage::Reasoning => &mut self.reasoning,
            Stage::Rating => &mut self.rating,
            Stage::Rationale => &mut self.rationale,
        }
    }
}

/// Wall-clock time in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Timings {
    /// Inside the models, by stage.
    #[serde(flatten)]
    pub stages: PerStage<f64>,
    /// The whole inspection.
    pub total: f64,
}

/// Forward passes as one at a time would need them: one for each embedded or searched picture and each scored
/// question, one for each decoded token. Batching changes the time, not these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Passes {
    /// By stage.
    #[serde(flatten)]
    pub stages: PerStage<u64>,
    /// Reasoning cascades begun: the paper's cost measure (1.16 an image with InternVL2-8B-AWQ).
    pub cascades: u64,
}

impl Eq for PerStage<u64> {}

impl Passes {
    /// All forward passes, over all stages.
    pub fn total(&self) -> u64 {
        let PerStage { relevance, detection, projection, statements, regions, reasoning, rating, rationale } =
            self.stages;
        [relevance, detection, projection, statements, regions, reasoning, rating, rationale]
            .into_iter()
            .fold(0, u64::saturating_add)
    }
}

/// Fingerprints of the three models that a verdict rests on.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Models {
    /// Relevance encoder.
    pub relevance: Fingerprint,
    /// Region detector.
    pub detector: Fingerprint,
    /// Vision-language model.
    pub judge: Fingerprint,
}

/// What the pre-filter said of a picture (CLUE, Appendix E).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PrefilterEvidence {
    /// Fingerprint of the student.
    pub student: Fingerprint,
    /// Its score, a logit, of the look that decided: the first, at the picture's views, or a closer one, at parts of it.
    pub score: f64,
    /// The score from which a picture goes on to the whole method, in that look.
    pub threshold: f64,
    /// Whether it took a closer look.
    pub closer: bool,
    /// Whether the picture was cleared: then no chain was asked, and the verdict is the pre-filter's.
    pub cleared: bool,
}

/// The result of an inspection: a verdict over every rule of the constitution, and what it rests on. Complete by
/// construction: any failure on the way is a [`JudgeError`](crate::JudgeError) instead.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    pub(crate) verdict: Verdict,
    pub(crate) violated: Vec<String>,
    pub(crate) rules: Vec<RuleEvidence>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) prefilter: Option<PrefilterEvidence>,
    pub(crate) constitution: String,
    pub(crate) revision: Revision,
    #[serde(serialize_with = "hash_in_hex")]
    pub(crate) picture: ContentHash,
    pub(crate) models: Models,
    pub(crate) templates: String,
    pub(crate) stages: Stages,
    pub(crate) timings_ms: Timings,
    pub(crate) passes: Passes,
    pub(crate) from_cache: bool,
}

fn hash_in_hex<S: Serializer>(hash: &ContentHash, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&hash.to_hex())
}

impl Report {
    /// Safe, or unsafe if any rule is violated.
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// Ids of the violated rules, in the order of the constitution.
    pub fn violated(&self) -> &[String] {
        &self.violated
    }

    /// Evidence for every rule, in the order of the constitution.
    pub fn rules(&self) -> &[RuleEvidence] {
        &self.rules
    }

    /// What the pre-filter said, where there is one and any rule was relevant. A verdict is the pre-filter's where it
    /// cleared the picture.
    pub fn prefilter(&self) -> Option<&PrefilterEvidence> {
        self.prefilter.as_ref()
    }

    /// Name of the constitution.
    pub fn constitution(&self) -> &str {
        &self.constitution
    }

    /// Revision of the constitution.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The picture that was judged.
    pub fn picture(&self) -> ContentHash {
        self.picture
    }

    /// The models that judged.
    pub fn models(&self) -> &Models {
        &self.models
    }

    /// Hash of the prompt templates, 64 hexadecimal digits.
    pub fn templates(&self) -> &str {
        &self.templates
    }

    /// The stages that ran.
    pub fn stages(&self) -> Stages {
        self.stages
    }

    /// Where the time went.
    pub fn timings(&self) -> &Timings {
        &self.timings_ms
    }

    /// How often models were asked; never, for a report from the cache.
    pub fn passes(&self) -> &Passes {
        &self.passes
    }

    /// Whether this picture was judged before under the same constitution, by the same models with the same options,
    /// and this is the report of then; see [`Judge::with_verdicts`](crate::Judge::with_verdicts). Timings and passes
    /// are those of finding it: nothing but the total, and none.
    pub fn from_cache(&self) -> bool {
        self.from_cache
    }

    /// This report, found again in `time`.
    pub(crate) fn recalled(&self, time: Duration) -> Self {
        let timings_ms = Timings { total: time.as_secs_f64() * 1e3, ..Timings::default() };
        Self { timings_ms, passes: Passes::default(), from_cache: true, ..self.clone() }
    }

    /// The boxes that a redaction should cover: for each violated rule the central objects of the statements that
    /// hold, with the rule's id. A rule whose objects were not found has none.
    pub fn violated_regions(&self) -> impl Iterator<Item = (&str, &FoundRegion)> {
        self.rules.iter().filter(|rule| rule.outcome == Outcome::Violated).flat_map(|rule| {
            rule.preconditions
                .iter()
                .flat_map(|precondition| &precondition.statements)
                .filter(|statement| statement.holds == Some(true))
                .flat_map(|statement| &statement.region)
                .map(move |region| (rule.id.as_str(), region))
        })
    }

    /// The largest [margin](RuleEvidence::margin) of the rules that a [`Glance`](crate::Glance) asked; none for a report of
    /// another kind, and where no rule was asked.
    pub fn margin(&self) -> Option<f64> {
        self.rules.iter().filter_map(|rule| rule.margin).max_by(f64::total_cmp)
    }

    /// The verdict as a permission can rest on it; none if a stage of the method was switched off.
    pub fn complete(&self) -> Option<CompleteVerdict> {
        (self.stages == Stages::ALL).then_some(CompleteVerdict {
            verdict: self.verdict,
            picture: self.picture,
            revision: self.revision,
            prefiltered: self.prefilter.as_ref().is_some_and(|said| said.cleared),
        })
    }
}

/// Proof that the whole method judged one picture under one revision of a constitution. Got from
/// [`Report::complete`] only, so that whoever demands it before releasing a picture cannot be given less.
#[derive(Debug, PartialEq, Eq)]
pub struct CompleteVerdict {
    verdict: Verdict,
    picture: ContentHash,
    revision: Revision,
    prefiltered: bool,
}

impl CompleteVerdict {
    /// Safe or unsafe.
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// The picture that was judged; release no other.
    pub fn picture(&self) -> ContentHash {
        self.picture
    }

    /// The revision it was judged under.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// Whether it is the word of the pre-filter, which was distilled under this very revision: no chain was asked.
    pub fn prefiltered(&self) -> bool {
        self.prefiltered
    }
}
