//! Algorithm 1 taken literally: rule by rule, one question at a time, every model called for one thing only, nothing
//! remembered. Slow, and written apart from the judge, to hold it against.

use cluegate_constitution::{Constitution, Precondition, Rule, Statement};
use cluegate_perception::{
    Call, CompletionRequest, DetectionRequest, Picture, Prefix, Prompt, RegionDetector, RelevanceEncoder,
    Reply, VisionLanguageModel,
};

use crate::evidence::{
    DecidedBy, FoundRegion, Outcome, PreconditionEvidence, RuleEvidence, StatementEvidence,
};
use crate::templates::Templates;
use crate::{JudgeOptions, Stages, pictures};

pub(super) struct Literal<'a> {
    pub(super) encoder: &'a dyn RelevanceEncoder,
    pub(super) detector: &'a dyn RegionDetector,
    pub(super) vlm: &'a dyn VisionLanguageModel,
    pub(super) templates: &'a Templates,
    pub(super) constitution: &'a Constitution,
    pub(super) picture: &'a Picture,
    pub(super) stages: Stages,
    pub(super) prompt: Option<&'a str>,
}

impl Literal<'_> {
    pub(super) fn rules(&self) -> Vec<RuleEvidence> {
        self.constitution.rules().iter().map(|rule| self.rule(rule)).collect()
    }

    fn rule(&self, rule: &Rule) -> RuleEvidence {
        let threshold = self.constitution.thresholds().relevance.unwrap_or(self.encoder.default_threshold());
        let mut evidence = RuleEvidence {
            id: rule.id.clone(),
            relevance: None,
            relevance_threshold: threshold,
            outcome: Outcome::Irrelevant,
            projection: None,
            margin: None,
            preconditions: vec![],
            unless: vec![],
        };
        if self.stages.relevance_scan {
            let seen = self
                .encoder
                .embed_pictures(std::slice::from_ref(self.picture), &Call::default())
                .expect("embedding");
            let text = self.encoder.embed_texts(&[&rule.text], &Call::default()).expect("embedding");
            let cosine = seen[0].cosine(&text[0]).clamp(-1.0, 1.0);
            evidence.relevance = Some(cosine);
            if cosine < threshold {
                return evidence;
            }
        }
        if rule.consequence {
            let (_, projection) = self.project();
            assert!(!projection.is_empty(), "a projection");
            evidence.projection = Some(projection);
        }
        let consequence = rule.consequence;
        let holds;
        (holds, evidence.preconditions) = self.chain(&rule.preconditions, consequence);
        evidence.outcome = if holds { Outcome::Violated } else { Outcome::NotViolated };
        if holds && !rule.unless.is_empty() {
            let excepted;
            (excepted, evidence.unless) = self.chain(&rule.unless, consequence);
            if excepted {
                evidence.outcome = Outcome::Excepted;
            }
        }
        evidence
    }

    /// What the model says is likely to follow, and the end of the question.
    fn project(&self) -> (String, String) {
        let file = include_str!("../../templates/consequences.txt");
        let (before, after) = file.split_once(" {{ prompt }}").expect("a prompt");
        let shown = self.prompt.map_or("unknown".to_owned(), |prompt| format!("\"{prompt}\""));
        let suffix = format!(" {shown}{after}");
        let prefix = Prefix { picture: Some(self.picture.clone()), text: before.into() };
        let prompt = Prompt::new(prefix, suffix.clone());
        let request = CompletionRequest { prompt, max_tokens: 256 };
        let answer = self.vlm.complete(&[request], &Call::default()).expect("projection").remove(0);
        (suffix, answer.text.trim().to_owned())
    }

    /// A question of a consequence rule, after what is likely to follow; without a picture, after nothing in particular.
    fn after_projection(&self, picture: Option<&Picture>, file: &str, statement: &str) -> Prompt {
        let (before, after) =
            include_str!("../../templates/consequences.txt").split_once(" {{ prompt }}").expect("a prompt");
        let (suffix, assistant) = match picture {
            Some(_) => self.project(),
            None => {
                let neutral = include_str!("../../templates/consequences-neutral.txt");
                (format!(" unknown{after}"), neutral.to_owned())
            }
        };
        let prefix = Prefix { picture: picture.cloned(), text: before.into() };
        let user = file.replace("{{ statement }}", statement);
        Prompt { turns: vec![Reply { assistant, user }], ..Prompt::new(prefix, suffix) }
    }

    fn chain(&self, chain: &[Precondition], consequence: bool) -> (bool, Vec<PreconditionEvidence>) {
        let mut holds = true;
        let mut evidence = vec![];
        for precondition in chain {
            if holds {
                let link = self.precondition(precondition, consequence);
                holds = link.satisfied.expect("reached");
                evidence.push(link);
            } else {
                let statements =
                    precondition.any.iter().map(|statement| self.blank(statement, consequence)).collect();
                evidence.push(PreconditionEvidence { satisfied: None, statements });
            }
        }
        (holds, evidence)
    }

    /// First the lines with a1 and a2 for each statement, then for each one left open the line with b, then for each
    /// one still open the reasoning; all of it only as long as none holds.
    fn precondition(&self, precondition: &Precondition, consequence: bool) -> PreconditionEvidence {
        let mut statements: Vec<StatementEvidence> = vec![];
        for statement in &precondition.any {
            let mut evidence = self.blank(statement, consequence);
            let (regions, crop) = self.objects(statement);
            let crop = crop.filter(|_| !consequence);
            evidence.crop = crop.is_some();
            evidence.region = regions;
            let score = if consequence {
                let file = include_str!("../../templates/consequences-statement.txt");
                self.answer(self.after_projection(Some(self.picture), file, &statement.text))
            } else {
                self.score(crop.as_ref().unwrap_or(self.picture), &statement.text)
            };
            evidence.score = Some(score);
            let difference = score - evidence.score_without_image;
            if !self.stages.debias {
                set(&mut evidence, DecidedBy::Score, score > 0.5);
            } else if self.stages.no_image_comparison {
                if difference < evidence.alpha1 {
                    set(&mut evidence, DecidedBy::BelowAlpha1, false);
                } else if difference > evidence.alpha2 {
                    set(&mut evidence, DecidedBy::AboveAlpha2, true);
                }
            }
            statements.push(evidence);
        }
        for evidence in 0..statements.len() {
            let open = !consequence && statements[evidence].holds.is_none();
            if open && statements.iter().all(|s| s.holds != Some(true)) {
                self.compare_regions(&mut statements[evidence]);
            }
        }
        for (statement, at) in precondition.any.iter().zip(0..) {
            if statements.iter().all(|s| s.holds != Some(true)) && statements[at].holds.is_none() {
                self.reason(statement, &mut statements[at], consequence);
            }
        }
        PreconditionEvidence { satisfied: Some(statements.iter().any(|s| s.holds == Some(true))), statements }
    }

    fn compare_regions(&self, evidence: &mut StatementEvidence) {
        if !self.stages.region_comparison || evidence.region.is_empty() {
            return;
        }
        let regions: Vec<_> = evidence.region.iter().map(FoundRegion::region).collect();
        let removed = self.score(&pictures::without_regions(self.picture, &regions), &evidence.text);
        let whole = self.score(self.picture, &evidence.text);
        evidence.score_region_removed = Some(removed);
        evidence.score_whole_picture = evidence.crop.then_some(whole);
        if whole - removed > self.constitution.thresholds().beta {
            set(evidence, DecidedBy::Region, true);
        }
    }

    fn reason(&self, statement: &Statement, evidence: &mut StatementEvidence, consequence: bool) {
        if !self.stages.reasoning {
            let holds = evidence.score.expect("scored") > 0.5;
            set(evidence, DecidedBy::Score, holds);
            return;
        }
        let (_, crop) = self.objects(statement);
        let seen = crop.unwrap_or_else(|| self.picture.clone());
        let mut prompt = if consequence {
            let file = include_str!("../../templates/consequences-reasoning.txt");
            self.after_projection(Some(self.picture), file, &statement.text)
        } else {
            let prefix = self.templates.reasoning_prefix(seen);
            Prompt::new(prefix, self.templates.reasoning_suffix(&statement.text))
        };
        let request = CompletionRequest { prompt: prompt.clone(), max_tokens: 256 };
        let thought =
            self.vlm.complete(&[request], &Call::default()).expect("thought")[0].text.trim().to_owned();
        let rate = Reply { assistant: thought.clone(), user: self.templates.rating(&statement.text) };
        prompt.turns.push(rate);
        prompt.answer_start = "{\"rating\": \"".to_owned();
        let rating = self.vlm.score(&[prompt], &Call::default()).expect("rating")[0].ratio();
        evidence.rating = Some(rating);
        evidence.thought = Some(thought);
        set(evidence, DecidedBy::Reasoning, rating >= 0.5);
    }

    fn score(&self, picture: &Picture, statement: &str) -> f64 {
        self.ask(self.templates.statement_prefix(Some(picture.clone())), statement)
    }

    fn ask(&self, prefix: Prefix, statement: &str) -> f64 {
        self.answer(Prompt::new(prefix, self.templates.statement_suffix(statement)))
    }

    fn answer(&self, prompt: Prompt) -> f64 {
        self.vlm.score(&[prompt], &Call::default()).expect("score")[0].ratio()
    }

    /// The best box of each central word, and the crop if the objects are small.
    fn objects(&self, statement: &Statement) -> (Vec<FoundRegion>, Option<Picture>) {
        let thresholds = self.constitution.thresholds();
        let (width, height) = (f64::from(self.picture.width()), f64::from(self.picture.height()));
        let compares_regions = self.stages.debias && self.stages.region_comparison;
        if !(self.stages.crop || compares_regions) {
            return (vec![], None);
        }
        let mut regions = vec![];
        for word in &statement.central {
            let request = [DetectionRequest { picture: self.picture, queries: &[word] }];
            let found = self.detector.detect(&request, 0.0, &Call::default()).expect("detection").remove(0);
            let best = found.into_iter().find(|d| d.confidence > thresholds.detection_confidence);
            if let Some(best) = best {
                let region = best.region;
                regions.push(FoundRegion {
                    word: word.clone(),
                    confidence: best.confidence,
                    left: region.left,
                    top: region.top,
                    right: region.right,
                    bottom: region.bottom,
                    area_share: f64::from(region.area()) / (width * height),
                });
            }
        }
        if !self.stages.crop || regions.is_empty() || regions.len() < statement.central.len() {
            return (regions, None);
        }
        let mut around = regions[0].region();
        for region in &regions {
            around.left = around.left.min(region.left);
            around.top = around.top.min(region.top);
            around.right = around.right.max(region.right);
            around.bottom = around.bottom.max(region.bottom);
        }
        let small = f64::from(around.area()) / (width * height) < thresholds.small_object_area;
        let side = JudgeOptions::default().min_crop_side;
        let crop = small.then(|| pictures::crop(self.picture, &around, side));
        (regions, crop)
    }

    fn blank(&self, statement: &Statement, consequence: bool) -> StatementEvidence {
        let prior = if consequence {
            let file = include_str!("../../templates/consequences-statement.txt");
            self.answer(self.after_projection(None, file, &statement.text))
        } else {
            self.ask(self.templates.statement_prefix(None), &statement.text)
        };
        let thresholds = self.constitution.thresholds();
        StatementEvidence {
            text: statement.text.clone(),
            score: None,
            score_without_image: prior,
            alpha1: -thresholds.alpha1 * prior,
            alpha2: thresholds.alpha2 * (1.0 - prior),
            crop: false,
            region: vec![],
            score_whole_picture: None,
            score_region_removed: None,
            rating: None,
            decided_by: DecidedBy::NotNeeded,
            holds: None,
            thought: None,
            rationale: None,
        }
    }
}

fn set(evidence: &mut StatementEvidence, by: DecidedBy, holds: bool) {
    evidence.decided_by = by;
    evidence.holds = Some(holds);
}
