//! The keys of a policy that are about the service and not about one picture: mode, canary, retention, quota. As they are
//! written: nothing is checked beyond types and key names.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Whether a policy acts on verdicts or only watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// What the policy says of a verdict is done.
    #[default]
    Enforce,
    /// What the policy says is logged, and every picture with a complete verdict is released as it is. Where there is no
    /// verdict, `on_error` is followed all the same.
    Shadow,
}

/// Which constitution acts on the requests of a canary's share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CanaryDecides {
    /// The tenant's own; the canary's verdict is logged beside it.
    #[default]
    Stable,
    /// The canary's; the verdict of the tenant's own is logged beside it. Fails closed, whatever `on_error` says.
    Canary,
}

/// Another constitution that judges a share of the requests too, so that it can be compared before it replaces the
/// tenant's own. The tenant's rules, thresholds, parameters and actions hold for both; a rule that only one of the two has
/// is left out of the other.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawCanary {
    /// The constitution, named as the policy's own.
    pub constitution: String,
    /// Share of the requests, 0 to 1, chosen by a hash of the request's id. 0 switches the canary off.
    pub share: f64,
    /// Which of the two constitutions acts.
    pub decides: CanaryDecides,
}

impl Default for RawCanary {
    fn default() -> Self {
        Self { constitution: String::new(), share: 0.1, decides: CanaryDecides::Stable }
    }
}

/// Which pictures are kept beside their decisions.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum RetainedPictures {
    /// None.
    #[default]
    None,
    /// Those that were withheld or held.
    Withheld,
    /// All that were judged.
    All,
}

/// What is kept of pictures and decisions, and for how long.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawRetention {
    /// Which pictures are kept beside their decisions.
    pub pictures: RetainedPictures,
    /// For how many days a kept picture is kept, 1 to 36500.
    pub picture_days: u32,
    /// For how many days a decision is kept, 1 to 36500; without it, until somebody removes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decision_days: Option<u32>,
    /// Ids of rules: a picture that violates one of them is never kept, whatever `pictures` says.
    pub never: Vec<String>,
}

impl Default for RawRetention {
    fn default() -> Self {
        Self { pictures: RetainedPictures::None, picture_days: 30, decision_days: None, never: Vec::new() }
    }
}

/// How much a tenant may ask for over time, and what judging costs. A bound that is left out does not bind. Days and
/// months are those of UTC.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawQuota {
    /// Most pictures asked for in a day, 1 or more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pictures_per_day: Option<u64>,
    /// Most pictures asked for in a calendar month, 1 or more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pictures_per_month: Option<u64>,
    /// Most seconds in the judge in a day, over 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub judge_seconds_per_day: Option<f64>,
    /// Most cost in a calendar month by the prices below, over 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost_per_month: Option<f64>,
    /// Requests a minute in the long run, 1 or more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests_per_minute: Option<u32>,
    /// Most requests at once after a pause, 1 or more; without it as many as `requests_per_minute`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub burst: Option<u32>,
    /// Most requests in work at a time, 1 or more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_work: Option<u32>,
    /// Price of 1,000 forward passes of the judging models, 0 or more, in any currency.
    pub price_per_1000_passes: f64,
    /// Price of a second in the judge, 0 or more, in the same currency.
    pub price_per_judge_second: f64,
    /// Price of a denoising step, 0 or more, in the same currency.
    pub price_per_step: f64,
}

impl RawQuota {
    /// The price of judging.
    pub fn price(&self, passes: u64, judge_seconds: f64) -> f64 {
        passes as f64 / 1000.0 * self.price_per_1000_passes + judge_seconds * self.price_per_judge_second
    }

    /// The price of drawing.
    pub fn price_of_steps(&self, steps: u64) -> f64 {
        steps as f64 * self.price_per_step
    }

    /// Whether anything costs anything.
    pub fn has_price(&self) -> bool {
        [self.price_per_1000_passes, self.price_per_judge_second, self.price_per_step]
            .iter()
            .any(|price| *price > 0.0)
    }
}
