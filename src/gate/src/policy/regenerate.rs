//! The parts of a policy that say what of a prompt is drawn at all, and how a picture is drawn again.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a picture whose action is `regenerate` is drawn again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawRegenerate {
    /// What is done for each attempt after the first, in this order; the last is repeated for as long as there are tries.
    /// 1 to 100 of them.
    pub strategies: Vec<Strategy>,
    /// A strategy is left out, but for the last, where its chance of a picture that passes is estimated to be smaller, from
    /// earlier attempts at the same prompt. 0 to 1; 0 leaves none out.
    pub least_chance: f64,
    /// With a smaller chance for the last strategy as well the tries end, and what follows the last try follows. 0 to 1.
    pub give_up_below: f64,
    /// How a picture is guided away from what an earlier one was withheld for.
    pub guidance: SafetyGuidance,
    /// Of which released pictures it is measured how well they fit the prompt.
    pub fidelity: Fidelity,
    /// Most denoising steps of one request, 1 or more: no further attempt begins that would go beyond it, and none if the
    /// steps of an attempt are not known. First attempts are not bound.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_steps: Option<u64>,
    /// Most seconds from the beginning of a request, over 0: no further attempt begins that would go beyond it, were it to
    /// take as long as the one before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_seconds: Option<f64>,
    /// Most cost of one request by the prices of `quota`, over 0: no further attempt begins that would go beyond it, were it
    /// to cost as much as the one before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_cost: Option<f64>,
}

impl Default for RawRegenerate {
    fn default() -> Self {
        Self {
            strategies: vec![Strategy::Reseed, Strategy::Avoid, Strategy::Rewrite],
            least_chance: 0.5,
            give_up_below: 0.02,
            guidance: SafetyGuidance::Medium,
            fidelity: Fidelity::Redrawn,
            max_steps: None,
            max_seconds: None,
            max_cost: None,
        }
    }
}

/// What is changed for another attempt at a picture.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    /// Nothing: the first attempt. No policy can name it.
    #[default]
    #[serde(skip_deserializing)]
    First,
    /// The seed alone.
    Reseed,
    /// Also guided away from the statements that earlier attempts violated.
    Avoid,
    /// Also from a prompt without what these statements name.
    Rewrite,
}

impl Strategy {
    /// Name as in the policy file and the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Reseed => "reseed",
            Self::Avoid => "avoid",
            Self::Rewrite => "rewrite",
        }
    }
}

/// How a picture is guided away from what an earlier one was withheld for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SafetyGuidance {
    /// By the negative prompt alone.
    NegativePrompt,
    /// By Safe Latent Diffusion as its authors' weakest setting has it.
    Weak,
    /// Their medium setting.
    #[default]
    Medium,
    /// Their strong setting.
    Strong,
    /// Their strongest setting.
    Maximum,
}

/// Of which released pictures it is measured how well they fit the prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Fidelity {
    /// Of none.
    Never,
    /// Of those that are not the first attempt, or are redacted.
    #[default]
    Redrawn,
    /// Of all.
    Always,
}

/// Whether the rules are asked of a prompt before anything is drawn, and by whom.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawPromptCheck {
    /// What follows from the answer.
    pub mode: PromptCheck,
    /// Who reads the prompt.
    pub by: PromptReader,
    /// For `encoder`: the cosine of prompt and rule from which the prompt asks for what the rule forbids, -1 to 1.
    pub threshold: f64,
}

impl Default for RawPromptCheck {
    fn default() -> Self {
        Self { mode: PromptCheck::Off, by: PromptReader::Judge, threshold: 0.4 }
    }
}

/// What follows from what a prompt asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PromptCheck {
    /// It is not read.
    #[default]
    Off,
    /// The answer is noted beside the decisions.
    Advise,
    /// A prompt that asks for what violates a rule whose action is `block` is not drawn, and neither is one that could not be
    /// read.
    Enforce,
}

/// Who reads a prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PromptReader {
    /// The judging model, without a picture.
    #[default]
    Judge,
    /// The relevance encoder, which only tells how near prompt and rule are to each other.
    Encoder,
}
