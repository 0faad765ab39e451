//! What the gate sees of plugins.

use std::sync::Arc;
use std::time::Instant;

use cluegate_abi::{ErrorCode, PluginError};
use cluegate_gate::{
    AnswerRecord, DecisionRecord, DrawJob, DrawOptions, Drawn, Extensions, FindingRecord, Generator,
    GeneratorError, InspectionError, LabelRecord, OnUnsafe, PixelBox, Screening, Step, StepHook,
};
use cluegate_perception::{Call, Picture, Region};

use crate::error::HostError;
use crate::message::{Change, Drawing, Found, FoundLabel};
use crate::plugin::{Plugin, Watch};
use crate::set::{JudgeRole, PluginSet};

impl From<HostError> for InspectionError {
    fn from(error: HostError) -> Self {
        Self::new(error.kind(), error.to_string())
    }
}

/// Most boxes of one picture that are hidden for a plugin.
const MAX_HIDDEN: usize = 1024;

impl JudgeRole {
    /// What the plugin says of a picture, as part of `screening`.
    fn look(
        &self,
        plugin: &Plugin,
        picture: &Picture,
        call: &Call,
        screening: &mut Screening,
    ) -> crate::Result<()> {
        let began = Instant::now();
        let mut finding = FindingRecord {
            plugin: self.plugin.clone(),
            fingerprint: plugin.fingerprint().to_owned(),
            flagged: false,
            on_unsafe: self.on_unsafe,
            score: 0.0,
            labels: Vec::new(),
            labels_omitted: 0,
            answers: Vec::new(),
            ms: 0.0,
        };
        let reasons = if self.statements.is_empty() {
            let found = plugin.classify(picture, call)?;
            screening.regions.extend(self.regions(plugin, &found.labels)?);
            self.note(found, &mut finding)
        } else {
            self.ask(plugin, picture, call, &mut finding)?
        };
        finding.ms = (began.elapsed().as_secs_f64() * 1e6).round() / 1e3;
        match self.on_unsafe {
            OnUnsafe::Withhold => screening.withhold.extend(reasons),
            OnUnsafe::Redact => screening.redact.extend(reasons),
            OnUnsafe::Note => {}
        }
        screening.findings.push(finding);
        Ok(())
    }

    /// Whether the box of a label is hidden where anything is.
    fn hides(&self, label: &FoundLabel) -> bool {
        label.region.is_some() && self.hide.get(&label.name).is_some_and(|least| label.score >= *least)
    }

    fn regions(&self, plugin: &Plugin, labels: &[FoundLabel]) -> crate::Result<Vec<Region>> {
        let hidden = labels.iter().filter(|label| self.hides(label)).filter_map(|label| label.region);
        let regions: Vec<Region> =
            hidden.map(|[left, top, right, bottom]| Region { left, top, right, bottom }).collect();
        if regions.len() > MAX_HIDDEN {
            let problem = format!("expected at most {MAX_HIDDEN} boxes to hide, it gave {}", regions.len());
            let error = PluginError::new(ErrorCode::Contract, problem);
            return Err(HostError::Plugin { plugin: plugin.name().to_owned(), error });
        }
        Ok(regions)
    }

    /// Writes down what the plugin found; why the picture is unsafe, if it is.
    fn note(&self, found: Found, finding: &mut FindingRecord) -> Vec<String> {
        let mut labels = found.labels;
        labels.sort_by(|a, b| b.score.total_cmp(&a.score));
        let shown: Vec<_> =
            labels.iter().take(3).map(|label| format!("{} {:.2}", label.name, label.score)).collect();
        let shown = if shown.is_empty() { String::new() } else { format!(": {}", shown.join(", ")) };
        (finding.flagged, finding.score) = (found.flagged, found.score.into());
        let omitted = labels.len().saturating_sub(self.log_labels);
        finding.labels_omitted = u32::try_from(omitted).unwrap_or(u32::MAX);
        let kept = labels.into_iter().take(self.log_labels);
        finding.labels = kept
            .map(|label| {
                let hide = self.hides(&label);
                LabelRecord { name: label.name, score: label.score, region: label.region, hide }
            })
            .collect();
        let reason =
            || format!("the plugin {} calls the picture unsafe ({:.2}{shown})", self.plugin, found.score);
        found.flagged.then(reason).into_iter().collect()
    }

    /// Asks for each statement and writes the answers down; why the picture is unsafe, if it is.
    fn ask(
        &self,
        plugin: &Plugin,
        picture: &Picture,
        call: &Call,
        finding: &mut FindingRecord,
    ) -> crate::Result<Vec<String>> {
        let mut reasons = Vec::new();
        for statement in &self.statements {
            let share = plugin.answer(Some(picture), statement, call)?.ratio();
            if share >= self.threshold {
                reasons.push(format!("the plugin {} says that {statement} ({share:.2})", self.plugin));
            }
            finding.score = finding.score.max(share);
            finding.answers.push(AnswerRecord { statement: statement.clone(), share });
        }
        finding.flagged = !reasons.is_empty();
        Ok(reasons)
    }
}

impl Extensions for PluginSet {
    fn screen(&self, picture: &Picture, call: &Call) -> Result<Screening, InspectionError> {
        let opened = self.current();
        let mut screening = Screening::default();
        for role in &opened.roles.judges {
            role.look(opened.get(&role.plugin)?, picture, call, &mut screening)?;
        }
        Ok(screening)
    }

    fn redact(
        &self,
        picture: &Picture,
        boxes: &[PixelBox],
        prompt: &str,
        call: &Call,
    ) -> Result<Option<Picture>, InspectionError> {
        let opened = self.current();
        let edges = |area: &PixelBox| [area.left, area.top, area.right, area.bottom].map(|edge| edge as f32);
        let regions = boxes.iter().map(edges).collect();
        let change = Change { regions, prompt: prompt.to_owned(), seed: 0 };
        Ok(match (&opened.roles.redact, &opened.roles.inpaint) {
            (Some(name), _) => Some(opened.get(name)?.redact(picture, change, call)?),
            (None, Some(name)) => Some(opened.get(name)?.inpaint(picture, change, call)?),
            (None, None) => None,
        })
    }

    fn rewrite(
        &self,
        prompt: &str,
        avoid: &[String],
        attempt: u32,
        call: &Call,
    ) -> Result<Option<String>, InspectionError> {
        let opened = self.current();
        let Some(name) = &opened.roles.rewrite else { return Ok(None) };
        Ok(Some(opened.get(name)?.rewrite(prompt, avoid, attempt, call)?))
    }

    fn publish(&self, decision: &DecisionRecord) -> Result<(), InspectionError> {
        let opened = self.current();
        if opened.roles.publish.is_empty() {
            return Ok(());
        }
        let decision = serde_json::to_string(decision)
            .map_err(|error| InspectionError::new("plugin-publish", error.to_string()))?;
        for name in &opened.roles.publish {
            opened.get(name)?.publish(decision.clone(), &Call::default())?;
        }
        Ok(())
    }
}

/// Draws with the plugin of a set that has this role. The plugin may be opened again meanwhile, as long as library,
/// configuration and models stay the same.
#[derive(Debug)]
pub struct PluginGenerator {
    set: Arc<PluginSet>,
    name: String,
    fingerprint: String,
    from_pictures: bool,
}

impl PluginGenerator {
    /// A generator of the plugin `name`.
    ///
    /// # Errors
    /// If there is none, or it does not draw.
    pub fn new(set: Arc<PluginSet>, name: &str) -> crate::Result<Self> {
        let plugin = set.get(name)?;
        plugin.must("generate")?;
        let fingerprint = plugin.fingerprint().to_owned();
        let from_pictures = plugin.description().from_pictures;
        Ok(Self { set, name: name.to_owned(), fingerprint, from_pictures })
    }

    fn plugin(&self) -> Result<Arc<Plugin>, GeneratorError> {
        let plugin = self.set.get(&self.name).map_err(|error| GeneratorError::new(error.to_string()))?;
        if plugin.fingerprint() != self.fingerprint {
            let message =
                format!("the plugin {} is another one than at the start; start the gate again", self.name);
            return Err(GeneratorError::new(message));
        }
        Ok(plugin)
    }
}

fn drawing(prompt: &str, seed: u64, avoid: &[String], options: &DrawOptions) -> Drawing {
    Drawing {
        prompt: prompt.to_owned(),
        negative_prompt: options.negative_prompt.clone().unwrap_or_default(),
        sampler: options.sampler.clone(),
        seed,
        guidance: options.guidance,
        steps: options.steps,
        width: options.width,
        height: options.height,
        avoid: avoid.to_vec(),
        strength: None,
    }
}

impl Generator for PluginGenerator {
    fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    fn draws_from_pictures(&self) -> bool {
        self.from_pictures
    }

    fn check(&self, options: &DrawOptions) -> Result<(), GeneratorError> {
        let (plugin, drawing, call) = (self.plugin()?, drawing("", 0, &[], options), Call::default());
        let checked = match &options.source {
            None => plugin.check(drawing, &call),
            Some(source) => plugin.check_from(drawing, source, &call),
        };
        checked.map_err(|error| GeneratorError::new(error.to_string()))
    }

    fn draw(&self, jobs: &[DrawJob], hook: &mut dyn StepHook) -> Vec<Result<Drawn, GeneratorError>> {
        let draw = |(index, job): (usize, &DrawJob)| {
            let mut hook = JobHook { job: index, hook };
            let drawing = drawing(&job.prompt, job.seed, &job.avoid, &job.options);
            let (plugin, call) = (self.plugin()?, Call::default());
            let drawn = match &job.options.source {
                None => plugin.generate(drawing, &call, &mut hook),
                Some(source) => plugin.generate_from(drawing, source, &call, &mut hook),
            };
            match drawn.map_err(|error| GeneratorError::new(error.to_string()))? {
                Some(picture) => Ok(Drawn::Finished(picture)),
                None => Ok(Drawn::Stopped),
            }
        };
        jobs.iter().enumerate().map(draw).collect()
    }
}

struct JobHook<'a> {
    job: usize,
    hook: &'a mut dyn StepHook,
}

impl Watch for JobHook<'_> {
    fn wants(&mut self, step: u32, total: u32) -> bool {
        self.hook.wants_preview(self.job, step, total)
    }

    fn step(&mut self, step: u32, total: u32, preview: Option<Picture>) -> bool {
        self.hook.step(self.job, step, total, preview.as_ref()) == Step::Continue
    }
}
