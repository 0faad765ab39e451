//! The lints that need models: scores without a picture, lengths of texts, the relevance scan, the models' domain.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, bail};
use cluegate::Engine;
use cluegate_constitution::lint::{Chain, Finding, Lint, SourceMap, Subject};
use cluegate_constitution::{Constitution, Thresholds};
use cluegate_judge::Prepared;
use cluegate_mini::osbench::{SEED, samples};
use cluegate_mini::{Style, World};
use cluegate_perception::{Call, DecodeOptions, Picture};

use super::args::CheckArgs;
use super::pictures_in;
use crate::cli::judge::read_picture;
use crate::cli::{open_engine, progress};

/// Least room for the score of a statement to decide, on either side: two to three steps of a bf16 number near 1 (2^-8),
/// within which two engines of one model differ.
const LEAST_ROOM: f64 = 0.01;

/// Rendered scenes for each rule of the scene world, violating and borderline, with which the embedded suite is examined.
const SCENES: usize = 3;

/// What was found with models, and what could not be examined.
#[derive(Default)]
pub(super) struct Examination {
    pub(super) findings: Vec<Finding>,
    pub(super) not_examined: Vec<String>,
}

/// Examines what needs models, if any are named.
pub(super) fn examine(
    arguments: &CheckArgs,
    constitution: &Constitution,
    source: Option<&SourceMap<'_>>,
) -> anyhow::Result<Examination> {
    if arguments.models.models.is_none() {
        if arguments.pictures.is_some() {
            bail!("--pictures needs --models: name a preset (`mini` is the embedded suite) or a models file");
        }
        let what = "what needs models, the lints C201 to C204: name a preset or a models file with --models \
                    (`mini` is the embedded suite)";
        return Ok(Examination { findings: Vec::new(), not_examined: vec![what.to_owned()] });
    }
    let engine = open_engine(&arguments.models)?;
    let mut examiner =
        Examiner { engine: &engine, constitution, source, known: Vec::new(), done: Examination::default() };
    examiner.domain();
    examiner.lengths()?;
    if examiner.known.is_empty() {
        let what = "scores and relevance: no rule lies within the models' domain";
        examiner.done.not_examined.push(what.to_owned());
        return Ok(examiner.done);
    }
    let prepared =
        engine.judge().prepare(constitution).context("the models cannot prepare the constitution")?;
    examiner.priors(&prepared);
    examiner.relevance(&prepared, arguments.pictures.as_deref())?;
    Ok(examiner.done)
}

struct Examiner<'a> {
    engine: &'a Engine,
    constitution: &'a Constitution,
    source: Option<&'a SourceMap<'a>>,
    /// Indices of the rules within the models' domain.
    known: Vec<usize>,
    done: Examination,
}

impl Examiner<'_> {
    fn find(&mut self, code: &str, subject: Subject, message: String) {
        if let Some(lint) = Lint::find(code) {
            self.done.findings.push(Finding::new(lint, self.constitution, subject, self.source, message));
        }
    }

    /// Which rules the models know the words of.
    fn domain(&mut self) {
        for (index, rule) in self.constitution.rules().iter().enumerate() {
            let links = rule.preconditions.iter().chain(&rule.unless);
            let statements = links.flat_map(|link| &link.any).map(|statement| statement.text.as_str());
            if rule.consequence && self.engine.domain().is_some() {
                let message = "it asks what is likely to follow, and the models never learned to look ahead";
                self.find("C204", Subject::Rule(index), message.to_owned());
                continue;
            }
            let unknown =
                self.engine.domain().map(|domain| domain.unknown_words(statements)).unwrap_or_default();
            if unknown.is_empty() {
                self.known.push(index);
            } else {
                let message =
                    format!("its statements have words that the models do not know: {}", unknown.join(", "));
                self.find("C204", Subject::Rule(index), message);
            }
        }
    }

    fn lengths(&mut self) -> anyhow::Result<()> {
        let texts: Vec<&str> = self.constitution.rules().iter().map(|rule| rule.text.as_str()).collect();
        let Some(lengths) = self.engine.relevance().text_lengths(&texts)? else {
            let what =
                "how long the texts are: the relevance encoder is on another machine and does not tell";
            self.done.not_examined.push(what.to_owned());
            return Ok(());
        };
        for (index, length) in lengths.iter().enumerate().filter(|(_, length)| length.tokens > length.limit) {
            let message = format!(
                "its text has {} tokens, and the relevance encoder reads {}",
                length.tokens, length.limit
            );
            self.find("C202", Subject::Text(index), message);
        }
        Ok(())
    }

    fn priors(&mut self, prepared: &Prepared) {
        let thresholds = *self.constitution.thresholds();
        let mut seen = BTreeSet::new();
        for index in self.known.clone() {
            let rule = &self.constitution.rules()[index];
            for chain in [Chain::Precondition, Chain::Unless] {
                for (link, precondition) in chain.of(rule).iter().enumerate() {
                    for (at, statement) in precondition.any.iter().enumerate() {
                        let Some(prior) = prepared.score_without_image(&statement.text) else { continue };
                        let Some(side) = too_little_room(&thresholds, prior) else { continue };
                        if seen.insert(statement.text.clone()) {
                            let message = format!(
                                "without a picture the judge scores {:?} {prior:.3}, so that no score lets it {side}",
                                statement.text
                            );
                            self.find("C201", Subject::Statement(index, chain, link, at), message);
                        }
                    }
                }
            }
        }
    }

    fn relevance(&mut self, prepared: &Prepared, folder: Option<&Path>) -> anyhow::Result<()> {
        let Some((pictures, what)) = self.pictures(folder)? else {
            let what = "which rules the relevance scan lets through: bring pictures that they are about with --pictures";
            self.done.not_examined.push(what.to_owned());
            return Ok(());
        };
        let highest = self.highest_cosines(&pictures)?;
        let threshold = prepared.relevance_threshold();
        for index in self.known.clone() {
            let cosine = highest[index];
            if cosine < threshold {
                let message = format!(
                    "of {} {what} none passes its relevance scan: the highest cosine is {cosine:.3}, the threshold \
                     {threshold:.3}",
                    pictures.len()
                );
                self.find("C203", Subject::Text(index), message);
            }
        }
        Ok(())
    }

    /// The pictures of the folder, or rendered scenes for models of the scene world.
    fn pictures(&self, folder: Option<&Path>) -> anyhow::Result<Option<(Vec<Picture>, &'static str)>> {
        if let Some(folder) = folder {
            let files = pictures_in(folder)?;
            if files.is_empty() {
                bail!(
                    "there are no picture files in {}; expected PNG, JPEG, WebP, GIF or BMP",
                    folder.display()
                );
            }
            let read = |path: &std::path::PathBuf| {
                let options = DecodeOptions { convert: true, ..DecodeOptions::default() };
                read_picture(path, &options).with_context(|| format!("the picture {}", path.display()))
            };
            let pictures = files.iter().map(read).collect::<anyhow::Result<Vec<_>>>()?;
            return Ok(Some((pictures, "pictures")));
        }
        if self.engine.domain().is_none() {
            return Ok(None);
        }
        let world = World::load()?;
        let drawn = samples(&world, SEED, SCENES)
            .into_iter()
            .map(|sample| Ok(Picture::new(sample.picture(&world, Style::World)?)));
        Ok(Some((drawn.collect::<anyhow::Result<Vec<_>>>()?, "rendered scenes")))
    }

    /// For each rule the highest cosine over all pictures and their views.
    fn highest_cosines(&self, pictures: &[Picture]) -> anyhow::Result<Vec<f32>> {
        let (encoder, call) = (self.engine.relevance(), Call::default());
        let texts: Vec<&str> = self.constitution.rules().iter().map(|rule| rule.text.as_str()).collect();
        let rules = encoder.embed_texts(&texts, &call)?;
        let mut highest = vec![f32::NEG_INFINITY; rules.len()];
        let bar = progress::bar(pictures.len() as u64, "scanning");
        for picture in pictures {
            for view in encoder.embed_pictures(&cluegate_judge::views(picture), &call)? {
                for (highest, rule) in highest.iter_mut().zip(&rules) {
                    *highest = highest.max(view.cosine(rule));
                }
            }
            bar.inc(1);
        }
        bar.finish_and_clear();
        Ok(highest)
    }
}

/// On which side a score without a picture leaves no room for the score with one: a statement holds by its score above
/// `p + a2` and fails by it below `p + a1`, and scores lie in 0 to 1.
fn too_little_room(thresholds: &Thresholds, prior: f64) -> Option<&'static str> {
    let above = 1.0 - (prior + thresholds.alpha2 * (1.0 - prior));
    let below = prior - thresholds.alpha1 * prior;
    if above < LEAST_ROOM {
        Some("hold")
    } else if below < LEAST_ROOM {
        Some("fail")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_that_of_the_documented_bounds() {
        let thresholds = Thresholds::default();
        for (prior, side) in
            [(0.5, None), (0.949, None), (0.951, Some("hold")), (0.0144, None), (0.0142, Some("fail"))]
        {
            assert_eq!(too_little_room(&thresholds, prior), side, "{prior}");
        }
    }
}
