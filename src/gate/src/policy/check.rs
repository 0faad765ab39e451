//! From raw terms to terms whose every value is in range.

use std::collections::BTreeMap;
use std::time::Duration;

use cluegate_constitution::Setting;

use super::PolicyError;
use super::built::{Actions, Canary, ConstitutionSource, Limits, PreviewSchedule, Redaction, Terms};
use super::raw::{
    OnError, PreviewJudgment, PreviewPoint, RawLimits, RawPolicy, RawRedaction, RawSetting, RawThresholds,
};
use super::regenerate::RawRegenerate;
use super::service::{Mode, RawCanary, RawQuota, RawRetention};

/// Most tries that a policy may allow, so that a prompt that always violates cannot occupy a generator.
const MAX_TRIES: u32 = 100;
/// Longest time that anything is kept for in days: a hundred years.
const MAX_DAYS: u32 = 36_500;
/// Where a bound on costs binds.
const PRICED: &str = "together with `price_per_1000_passes`, `price_per_judge_second` or `price_per_step` of `quota`, without \
                      which nothing costs anything";
/// Highest priority.
const MAX_PRIORITY: u8 = 9;

/// Checks the values of one table.
pub(super) struct Check<'a> {
    /// Where the table came from.
    pub(super) origin: &'a str,
    /// Its dotted path, such as `tenant.kids`.
    pub(super) place: &'a str,
    /// Whether it is a template, which others may complete.
    pub(super) template: bool,
}

impl Check<'_> {
    /// Builds the terms of `raw`.
    ///
    /// # Errors
    /// The first value that is out of range.
    pub(super) fn terms(&self, raw: RawPolicy) -> Result<Terms, PolicyError> {
        self.holds(!raw.constitution.is_empty(), "constitution", "a shipped name or a path", "empty")?;
        self.between("tries", raw.tries.into(), 1, MAX_TRIES.into(), "from 1 to 100")?;
        self.between("priority", raw.priority.into(), 0, MAX_PRIORITY.into(), "from 0 to 9")?;
        self.previews(&raw)?;
        self.thresholds(&raw.thresholds)?;
        self.quota(&raw.quota)?;
        self.regenerate(&raw.regenerate, &raw.quota)?;
        self.range("prompt_check.threshold", raw.prompt_check.threshold, -1.0, 1.0, "from -1 to 1")?;
        self.retention(&raw.retention)?;
        self.holds(
            raw.mode == Mode::Enforce || raw.on_error == OnError::Block,
            "on_error",
            "\"block\" where `mode` is \"shadow\": together they would release every picture, judged or not",
            "\"release-unjudged\"",
        )?;
        Ok(Terms {
            constitution: ConstitutionSource::new(&raw.constitution),
            rules: raw.rules,
            mode: raw.mode,
            on_error: raw.on_error,
            tries: raw.tries,
            after_tries: raw.after_tries,
            regenerate: raw.regenerate,
            prompt_check: raw.prompt_check,
            previews: PreviewSchedule(raw.previews),
            preview_judgment: raw.preview_judgment,
            preview_thresholds: raw.preview_thresholds,
            placeholder: raw.placeholder,
            provenance: raw.provenance,
            log_prompts: raw.log_prompts,
            redaction: self.redaction(raw.redact)?,
            actions: Actions::new(raw.action),
            thresholds: raw.thresholds,
            parameters: self.parameters(raw.parameter)?,
            limits: self.limits(raw.limits)?,
            client: raw.client,
            canary: raw.canary.map(|canary| self.canary(canary)).transpose()?.flatten(),
            retention: raw.retention,
            quota: raw.quota,
            prefilter: raw.prefilter,
            priority: raw.priority,
            suspended: raw.suspended,
        })
    }

    fn previews(&self, raw: &RawPolicy) -> Result<(), PolicyError> {
        if let Some(file) = &raw.preview_thresholds {
            let key = "preview_thresholds";
            self.holds(!file.is_empty(), key, "the path of a file", "empty")?;
            let cheap = raw.preview_judgment == PreviewJudgment::Cheap && !raw.client.previews;
            let expected = "left out where `preview_judgment` is \"whole\" or `client.previews` is true: the thresholds are \
                            for cheap judgments, and what requesters see is judged by the whole method";
            self.holds(cheap || self.template, key, expected, format_args!("{file:?}"))?;
        }
        raw.previews.iter().try_for_each(|point| match point {
            PreviewPoint::Step(step) => self.between("previews", (*step).into(), 1, u64::MAX, "steps from 1"),
            PreviewPoint::Fraction(share) => self.holds(
                *share > 0.0 && *share < 1.0,
                "previews",
                "fractions between 0 and 1 or whole steps from 1",
                share,
            ),
        })
    }

    fn redaction(&self, raw: RawRedaction) -> Result<Redaction, PolicyError> {
        let RawRedaction { method, objects, grow, widen, min_confidence, max_share } = raw;
        self.range("redact.grow", grow, 0.0, 2.0, "from 0 to 2")?;
        self.range("redact.widen", widen, 0.0, 2.0, "from 0 to 2")?;
        self.range("redact.min_confidence", min_confidence, 0.0, 1.0, "from 0 to 1")?;
        self.range("redact.max_share", max_share, f64::MIN_POSITIVE, 1.0, "over 0 and at most 1")?;
        Ok(Redaction { method, objects, grow, widen, min_confidence, max_share })
    }

    fn thresholds(&self, raw: &RawThresholds) -> Result<(), PolicyError> {
        let unit = |key, value: Option<f64>| match value {
            Some(value) => self.range(key, value, 0.0, 1.0, "from 0 to 1"),
            None => Ok(()),
        };
        if let Some(relevance) = raw.relevance {
            self.range("thresholds.relevance", relevance, -1.0, 1.0, "from -1 to 1")?;
        }
        unit("thresholds.alpha1", raw.alpha1)?;
        unit("thresholds.alpha2", raw.alpha2)?;
        unit("thresholds.beta", raw.beta)?;
        unit("thresholds.detection_confidence", raw.detection_confidence)?;
        unit("thresholds.small_object_area", raw.small_object_area)
    }

    /// The canary; none if its share is nothing.
    fn canary(&self, raw: RawCanary) -> Result<Option<Canary>, PolicyError> {
        let RawCanary { constitution, share, decides } = raw;
        self.range("canary.share", share, 0.0, 1.0, "from 0 to 1")?;
        let named = !constitution.is_empty() || self.template;
        self.holds(named, "canary.constitution", "a shipped name or a path", "empty")?;
        let constitution = ConstitutionSource::new(&constitution);
        Ok((share > 0.0).then_some(Canary { constitution, share, decides }))
    }

    fn retention(&self, raw: &RawRetention) -> Result<(), PolicyError> {
        let days = |key, days: u32| self.between(key, days.into(), 1, MAX_DAYS.into(), "from 1 to 36500");
        days("retention.picture_days", raw.picture_days)?;
        raw.decision_days.map_or(Ok(()), |kept| days("retention.decision_days", kept))
    }

    fn quota(&self, raw: &RawQuota) -> Result<(), PolicyError> {
        let positive = |key, value: Option<u64>| match value {
            Some(value) => self.holds(value > 0, key, "1 or more", value),
            None => Ok(()),
        };
        positive("quota.pictures_per_day", raw.pictures_per_day)?;
        positive("quota.pictures_per_month", raw.pictures_per_month)?;
        positive("quota.requests_per_minute", raw.requests_per_minute.map(u64::from))?;
        positive("quota.burst", raw.burst.map(u64::from))?;
        positive("quota.in_work", raw.in_work.map(u64::from))?;
        for (key, value) in [
            ("quota.judge_seconds_per_day", raw.judge_seconds_per_day),
            ("quota.cost_per_month", raw.cost_per_month),
        ] {
            let Some(value) = value else { continue };
            self.range(key, value, f64::MIN_POSITIVE, f64::MAX, "a number over 0")?;
        }
        let price = |key, value| self.range(key, value, 0.0, f64::MAX, "a number of 0 or more");
        price("quota.price_per_1000_passes", raw.price_per_1000_passes)?;
        price("quota.price_per_judge_second", raw.price_per_judge_second)?;
        price("quota.price_per_step", raw.price_per_step)?;
        let has_price = raw.has_price();
        self.holds(
            raw.cost_per_month.is_none() || has_price || self.template,
            "quota.cost_per_month",
            PRICED,
            "alone",
        )?;
        self.holds(
            raw.burst.is_none() || raw.requests_per_minute.is_some() || self.template,
            "quota.burst",
            "together with `requests_per_minute`, of which it is a part",
            "alone",
        )
    }

    fn regenerate(&self, raw: &RawRegenerate, quota: &RawQuota) -> Result<(), PolicyError> {
        let some = !raw.strategies.is_empty() && raw.strategies.len() <= MAX_TRIES as usize;
        self.holds(some, "regenerate.strategies", "a list of 1 to 100 strategies", raw.strategies.len())?;
        self.range("regenerate.least_chance", raw.least_chance, 0.0, 1.0, "from 0 to 1")?;
        self.range("regenerate.give_up_below", raw.give_up_below, 0.0, 1.0, "from 0 to 1")?;
        if let Some(steps) = raw.max_steps {
            self.holds(steps > 0, "regenerate.max_steps", "1 or more", steps)?;
        }
        for (key, value) in
            [("regenerate.max_seconds", raw.max_seconds), ("regenerate.max_cost", raw.max_cost)]
        {
            let Some(value) = value else { continue };
            self.range(key, value, f64::MIN_POSITIVE, f64::MAX, "a number over 0")?;
        }
        let priced = raw.max_cost.is_none() || quota.has_price() || self.template;
        self.holds(priced, "regenerate.max_cost", PRICED, "alone")
    }

    /// Flattens the settings. Whether the constitution knows them and admits the values is seen where it is read.
    fn parameters(&self, raw: BTreeMap<String, RawSetting>) -> Result<Vec<Setting>, PolicyError> {
        let mut settings = Vec::new();
        for (key, value) in raw {
            match value {
                RawSetting::Value(value) => settings.push((key, value)),
                RawSetting::Rule(values) => {
                    settings.extend(values.into_iter().map(|(name, value)| (format!("{key}.{name}"), value)));
                }
            }
        }
        let setting = |(path, value): (String, f64)| {
            Setting::new(&path, value)
                .map_err(|_| self.refuse("parameter", "of the form \"rule.parameter\" = value", path))
        };
        settings.into_iter().map(setting).collect()
    }

    fn limits(&self, raw: RawLimits) -> Result<Limits, PolicyError> {
        let positive = |key, value: u64| self.holds(value > 0, key, "1 or more", value);
        positive("limits.max_pictures", raw.max_pictures.into())?;
        positive("limits.max_pixels", raw.max_pixels)?;
        positive("limits.max_prompt_bytes", raw.max_prompt_bytes as u64)?;
        positive("limits.judge_deadline_ms", raw.judge_deadline_ms)?;
        positive("limits.request_deadline_ms", raw.request_deadline_ms)?;
        Ok(Limits {
            max_pictures: raw.max_pictures,
            max_pixels: raw.max_pixels,
            max_prompt_bytes: raw.max_prompt_bytes,
            judge_deadline: Duration::from_millis(raw.judge_deadline_ms),
            request_deadline: Duration::from_millis(raw.request_deadline_ms),
        })
    }

    fn between(
        &self,
        key: &str,
        value: u64,
        low: u64,
        high: u64,
        expected: &'static str,
    ) -> Result<(), PolicyError> {
        self.holds((low..=high).contains(&value), key, expected, value)
    }

    fn range(
        &self,
        key: &str,
        value: f64,
        low: f64,
        high: f64,
        expected: &'static str,
    ) -> Result<(), PolicyError> {
        // A NaN lies in no range.
        self.holds((low..=high).contains(&value), key, expected, value)
    }

    fn holds(
        &self,
        holds: bool,
        key: &str,
        expected: &'static str,
        found: impl std::fmt::Display,
    ) -> Result<(), PolicyError> {
        if holds { Ok(()) } else { Err(self.refuse(key, expected, found.to_string())) }
    }

    fn refuse(&self, key: &str, expected: &'static str, found: String) -> PolicyError {
        let path = format!("{}.{key}", self.place);
        PolicyError::Value { origin: self.origin.to_owned(), path, expected, found }
    }
}
